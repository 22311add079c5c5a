"""Which tokens of a flattened batch attend to which: documents, and documents that continue a shared prefix.

A document is a run of consecutive tokens, each of which attends to itself and the ones before it. A document may continue
another one, its prefix: its tokens then attend to the whole prefix too (and to the prefix's own prefix). A prefix is computed
once however many documents continue it, and its gradients are summed over all of them.

Suffixes: D documents, T tokens, K key tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class ContextGroup(NamedTuple):
    """A process group whose ranks share rows: its name, which compiled code looks up, and its number of ranks."""

    name: str
    size: int


class Documents(NamedTuple):
    """The documents of a flattened batch; a prefix is directly followed by the documents that continue it (depth first).

    Without shared prefixes only the offsets are set.

    Attributes:
        offsets: cumulative lengths ``[0, l1, l1 + l2, ..., T]``, int32 ``[D + 1]``: the "cu_seqlens" of flash-attn.
        until: for each document the end of the documents that continue it, int32 ``[D]``; its own end if there are none.
        keys: the tokens that each document's queries attend to, document by document, prefixes first, int64 ``[K]``.
        key_offsets: cumulative numbers of these keys, int32 ``[D + 1]``.
        context: the ranks that hold a part of each row's tokens (`core.context`); None if rows are not split.
    """

    offsets: Tensor
    until: Tensor | None = None
    keys: Tensor | None = None
    key_offsets: Tensor | None = None
    context: ContextGroup | None = None

    @classmethod
    def of(cls, documents: Documents | Tensor) -> Documents:
        """Documents as they are, or built from plain offsets."""
        return documents if isinstance(documents, Documents) else cls(documents)

    def to(self, device: torch.device) -> Documents:
        """The documents with every tensor on ``device``."""
        moved = (part.to(device, non_blocking=True) if isinstance(part, Tensor) else part for part in self)
        return Documents(*moved)  # type: ignore[arg-type]  # same types as before


class ModelInput(NamedTuple):
    """The inputs of the decoder: ``model(*input, head)``.

    Attributes:
        tokens: ids ``[B, L]``.
        positions: position of each token in its sequence, including prefixes ``[B, L]``.
        documents: documents of the flattened batch; None to derive them from the positions, which start at 0 in each.
    """

    tokens: Tensor
    positions: Tensor
    documents: Documents | None

    def to(self, device: torch.device) -> ModelInput:
        """The input with every tensor on ``device``."""
        tokens, positions = (x.to(device, non_blocking=True) for x in self[:2])
        return ModelInput(tokens, positions, None if self.documents is None else self.documents.to(device))


def nested_documents(lengths: Sequence[int], parents: Sequence[int]) -> Documents:
    """Documents of the given lengths, each of which continues an earlier one or none.

    Args:
        lengths: tokens of each document.
        parents: index of the document that each one continues, -1 for none. The documents that continue a document follow it
            directly (depth-first order).

    Raises:
        ValueError: the documents are not in that order.

    Example:
        >>> two_answers = nested_documents([3, 2, 1], [-1, 0, 0])
        >>> two_answers.until.tolist(), two_answers.keys.tolist(), two_answers.key_offsets.tolist()
        ([6, 5, 6], [0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 2, 5], [0, 3, 8, 12])
    """
    starts = [0, *np.cumsum(np.asarray(lengths, np.int64)).tolist()]
    offsets = torch.tensor(starts, dtype=torch.int32)
    if all(parent < 0 for parent in parents):
        return Documents(offsets)
    until = starts[1:]
    keys: list[np.ndarray] = []
    for index, parent in enumerate(parents):
        if parent >= index:
            raise ValueError(f"document {index} is invalid: it goes on from {parent}; give an earlier one, or -1")
        own = np.arange(starts[index], starts[index + 1])
        keys.append(own if parent < 0 else np.concatenate((keys[parent], own)))
        while parent >= 0:
            if until[parent] != starts[index]:
                raise ValueError(f"document {index} is invalid: it goes on from {parent}; put it directly behind that")
            until[parent] = starts[index + 1]
            parent = parents[parent]
    counts = np.cumsum([0, *map(len, keys)])
    return Documents(
        offsets,
        torch.tensor(until, dtype=torch.int32),
        torch.from_numpy(np.concatenate(keys)),
        torch.from_numpy(counts).to(torch.int32),
    )


def continued(offsets: Tensor, until: Tensor) -> list[tuple[slice, slice]]:
    """The documents that others continue, each with the tokens of those.

    Example:
        >>> documents = nested_documents([3, 2, 1], [-1, 0, 0])
        >>> continued(documents.offsets, documents.until)
        [(slice(0, 3, None), slice(3, 6, None))]
    """
    bounds = zip(pairwise(offsets.tolist()), until.tolist(), strict=True)
    return [(slice(begin, end), slice(end, last)) for (begin, end), last in bounds if last > end]
