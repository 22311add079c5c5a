"""Which tokens of a flattened batch attend to which: documents, and documents that go on from a shared prefix.

A document is a run of neighbouring tokens, each of which attends to itself and those before it. A document may go on from
another, its prefix: then its tokens attend to all of the prefix too (and to what the prefix goes on from). The prefix is
computed once, whatever goes on from it, and its gradients are the sums over all of these.

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
    """A process group that shares rows: its name, by which compiled code finds it, and how many ranks it has."""

    name: str
    size: int


class Documents(NamedTuple):
    """The documents of a flattened batch, those that go on from one directly behind it (depth first).

    Without shared prefixes only the offsets are there.

    Attributes:
        offsets: cumulative lengths ``[0, l1, l1 + l2, ..., T]``, int32 ``[D + 1]``: the "cu_seqlens" of flash-attn.
        until: of each document the end of the tokens that go on from it, int32 ``[D]``; its own end where none do.
        keys: the tokens that each document's queries read, one document after the other, prefixes first, int64 ``[K]``.
        key_offsets: cumulative numbers of these, int32 ``[D + 1]``.
        context: the ranks that have a part of each row's tokens each (`core.context`); None where the rows are whole.
    """

    offsets: Tensor
    until: Tensor | None = None
    keys: Tensor | None = None
    key_offsets: Tensor | None = None
    context: ContextGroup | None = None

    @classmethod
    def of(cls, documents: Documents | Tensor) -> Documents:
        """Documents as they are, or those of plain offsets."""
        return documents if isinstance(documents, Documents) else cls(documents)

    def to(self, device: torch.device) -> Documents:
        """The documents with every tensor on ``device``."""
        moved = (part.to(device, non_blocking=True) if isinstance(part, Tensor) else part for part in self)
        return Documents(*moved)  # type: ignore[arg-type]  # each is what it was


class ModelInput(NamedTuple):
    """What goes through the decoder: ``model(*input, head)``.

    Attributes:
        tokens: ids ``[B, L]``.
        positions: position of each token in its sequence, prefixes included ``[B, L]``.
        documents: of the flattened batch; None where the positions tell them, each beginning at 0.
    """

    tokens: Tensor
    positions: Tensor
    documents: Documents | None

    def to(self, device: torch.device) -> ModelInput:
        """The input with every tensor on ``device``."""
        tokens, positions = (x.to(device, non_blocking=True) for x in self[:2])
        return ModelInput(tokens, positions, None if self.documents is None else self.documents.to(device))


def nested_documents(lengths: Sequence[int], parents: Sequence[int]) -> Documents:
    """Documents of these lengths, each going on from an earlier one or from none.

    Args:
        lengths: tokens of each document.
        parents: index of the document that each goes on from, -1 for none. What goes on from a document follows it before
            anything else does: depth first.

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
    """The documents that others go on from, each with the tokens that do.

    Example:
        >>> documents = nested_documents([3, 2, 1], [-1, 0, 0])
        >>> continued(documents.offsets, documents.until)
        [(slice(0, 3, None), slice(3, 6, None))]
    """
    bounds = zip(pairwise(offsets.tolist()), until.tolist(), strict=True)
    return [(slice(begin, end), slice(end, last)) for (begin, end), last in bounds if last > end]
