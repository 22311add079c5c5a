"""Training batches: rows of packed documents, split into micro-batches.

Shape suffixes: B rows, L positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nbg_lightning.core.documents import Documents, ModelInput

PAD_DOCUMENT = 128  # unused room in a row is cut into padding documents of this length: attention over it is cheap
IGNORE = -100  # label of positions without a loss: the value of PyTorch and Hugging Face


def document_offsets(positions_BL: Tensor) -> Tensor:
    """Offsets of the documents in a flattened batch, from positions that restart at 0 in each document.

    Example:
        >>> document_offsets(torch.tensor([[0, 1, 2, 0], [0, 1, 0, 1]])).tolist()
        [0, 3, 4, 6, 8]
    """
    starts = (positions_BL.flatten() == 0).nonzero().flatten()
    return F.pad(starts, (0, 1), value=positions_BL.numel()).to(torch.int32)


def attended_length(positions: int, tokens: int) -> int:
    """Mean length of the documents, weighted by their tokens: the cost of causal attention is proportional to it.

    Args:
        positions: sum of the positions of all tokens.
        tokens: number of tokens.

    Example:
        >>> attended_length(sum(range(4)), 4), attended_length(2 * sum(range(4)), 8)
        (4, 4)
    """
    return round(2 * positions / max(1, tokens)) + 1


@dataclass
class PackedBatch:
    """One rank's share of an optimizer step, or a micro-batch of it.

    Attributes:
        tokens: ids ``[B, L]``.
        labels: the next token of the same document ``[B, L]``; `IGNORE` if there is none or it is not trained on.
        positions: position in the document ``[B, L]``; a document starts at 0. Documents do not see each other.
        source: index of the source or domain of each row ``[B]``.
        sample_hash: 64-bit hash of each row's sample ``[B]``; their sum over a step enters the hash chain.
        weights: loss weight of each position ``[B, L]``, or None for 1 everywhere.
        documents: the documents of the flattened rows; set in micro-batches only.
    """

    tokens: Tensor
    labels: Tensor
    positions: Tensor
    source: Tensor
    sample_hash: Tensor
    weights: Tensor | None = None
    documents: Documents | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def offsets(self) -> Tensor | None:
        """Cumulative lengths of the documents, int32; None except in micro-batches."""
        return None if self.documents is None else self.documents.offsets

    @property
    def input(self) -> ModelInput:
        """The inputs of the decoder: ``model(*batch.input, head)``."""
        return ModelInput(self.tokens, self.positions, self.documents)

    @property
    def num_tokens(self) -> int:
        """Number of tokens in the model's input, with or without a loss."""
        return self.input.tokens.numel()

    def split(self, micro_batch_tokens: int) -> list[PackedBatch]:
        """Split into micro-batches of whole rows, of at most ``micro_batch_tokens`` each (but at least one row).

        Their documents are computed here on the CPU, which on an accelerator would need a synchronization.
        """
        rows = max(1, micro_batch_tokens // self.tokens.shape[1])
        return [self._rows(slice(begin, begin + rows)) for begin in range(0, len(self), rows)]

    def _rows(self, rows: slice) -> PackedBatch:
        part = self._mapped(lambda values: values[rows])
        part.documents = Documents(document_offsets(part.positions))
        return part

    def to(self, device: torch.device) -> Self:
        """The batch with every tensor on ``device``."""
        return self._mapped(lambda values: values.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """The batch in pinned memory, for asynchronous copies to a GPU; called by the data loader."""
        return self._mapped(lambda values: values.pin_memory())

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Self:
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: _changed(value, change) for name, value in values.items()})


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to a field that is a tensor or a named tuple of tensors; other values are returned as they are."""
    if not isinstance(value, (Tensor, tuple)):
        return value
    return change(value) if isinstance(value, Tensor) else type(value)(*(_changed(part, change) for part in value))


def packed_row(window: np.ndarray, document_starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, labels and positions of one window.

    Args:
        window: ``L + 1`` token ids; the last one is used as a label only.
        document_starts: offsets in ``0..L`` at which a document starts.

    Returns:
        Three arrays ``[L]``. The last token of a document has the label `IGNORE`, since the next token belongs to another
        document.
    """
    length = len(window) - 1
    labels = window[1:].astype(np.int64)
    labels[document_starts[document_starts > 0] - 1] = IGNORE
    begins = np.zeros(length, dtype=np.int64)
    inside = document_starts[document_starts < length]
    begins[inside] = inside
    positions = np.arange(length) - np.maximum.accumulate(begins)
    return window[:-1].astype(np.int64), labels, positions


def conversation_row(
    documents: list[tuple[np.ndarray, np.ndarray]], length: int, padded: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, labels, positions and loss weights of conversations packed in one window.

    A conversation of n ids takes n - 1 positions: position t holds id t and is trained to predict id t + 1, with that id's
    weight. Positions start at 0 in each conversation, and conversations do not see each other.

    Args:
        documents: (ids, loss weights of the ids) of each conversation.
        length: number of positions in the window.
        padded: pad every conversation to the length of the longest one; the padding is masked.

    Returns:
        Four arrays ``[length]``; unused positions have the label `IGNORE`.
    """
    tokens = np.zeros(length, np.int64)
    labels = np.full(length, IGNORE, np.int64)
    positions = np.zeros(length, np.int64)
    weights = np.zeros(length, np.float32)
    longest = max((len(ids) for ids, _ in documents), default=1) - 1
    begin = 0
    for ids, id_weights in documents:
        end = begin + len(ids) - 1
        tokens[begin:end] = ids[:-1]
        weights[begin:end] = id_weights[1:]
        labels[begin:end] = np.where(id_weights[1:] > 0, ids[1:], IGNORE)
        room = longest if padded else end - begin
        positions[begin : begin + room] = np.arange(room)
        begin += room
    positions[begin:] = np.arange(length - begin) % PAD_DOCUMENT
    return tokens, labels, positions, weights
