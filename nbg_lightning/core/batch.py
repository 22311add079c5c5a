"""What the modules train on: rows of packed documents, cut into micro-batches.

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

PAD_DOCUMENT = 128  # room that no document fills is cut into documents of this length: attention over it costs little
IGNORE = -100  # the label of a position that is not trained: PyTorch's and Hugging Face's value


def document_offsets(positions_BL: Tensor) -> Tensor:
    """Offsets of the documents in the flattened batch, from positions that restart at 0 with each document.

    Example:
        >>> document_offsets(torch.tensor([[0, 1, 2, 0], [0, 1, 0, 1]])).tolist()
        [0, 3, 4, 6, 8]
    """
    starts = (positions_BL.flatten() == 0).nonzero().flatten()
    return F.pad(starts, (0, 1), value=positions_BL.numel()).to(torch.int32)


def attended_length(positions: int, tokens: int) -> int:
    """Length of a document, weighted by its tokens: what the cost of causal attention is proportional to.

    Args:
        positions: sum of the positions of all tokens.
        tokens: their number.

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
        labels: the next token of the same document ``[B, L]``; `IGNORE` where there is none, or it is not trained.
        positions: position in the document ``[B, L]``; 0 begins a document, and documents never see each other.
        source: index of the source or domain of each row ``[B]``.
        sample_hash: 64-bit identity of each row's sample ``[B]``; their sum over a step enters the hash chain.
        weights: weight of each position's loss ``[B, L]``, or None for 1 everywhere.
        documents: those of the flattened rows; present in micro-batches only.
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
        """Cumulative lengths of the documents, int32; of micro-batches only."""
        return None if self.documents is None else self.documents.offsets

    @property
    def input(self) -> ModelInput:
        """What goes through the decoder, ``model(*batch.input, head)``."""
        return ModelInput(self.tokens, self.positions, self.documents)

    @property
    def num_tokens(self) -> int:
        """Tokens that go through the model, trained or not."""
        return self.input.tokens.numel()

    def split(self, micro_batch_tokens: int) -> list[PackedBatch]:
        """Micro-batches of whole rows, at most ``micro_batch_tokens`` each (one row at least).

        They carry their documents, made here on the CPU: on an accelerator that would cost a synchronization.
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
        """The batch in page-locked memory, from which it is copied to a GPU beside computation; a data loader asks for it."""
        return self._mapped(lambda values: values.pin_memory())

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Self:
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: _changed(value, change) for name, value in values.items()})


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The tensors of a field changed: one, or a named tuple of such; other values have none."""
    if not isinstance(value, (Tensor, tuple)):
        return value
    return change(value) if isinstance(value, Tensor) else type(value)(*(_changed(part, change) for part in value))


def packed_row(window: np.ndarray, document_starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, labels and positions of one window.

    Args:
        window: ``L + 1`` token ids; the last one is only a label.
        document_starts: offsets in ``0..L`` at which a document begins.

    Returns:
        Three arrays ``[L]``. A position whose next token begins another document has the label `IGNORE`: nothing in
        its document says what comes there.
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
    """Tokens, labels, positions and loss weights of conversations that share a window.

    A conversation of n ids takes n - 1 positions: position t holds id t and is trained to say id t + 1, with that id's
    weight. Positions start at 0 in each conversation, and conversations do not see each other.

    Args:
        documents: (ids, loss weights of the ids) of each conversation.
        length: positions of the window.
        padded: give every conversation as many positions as the longest; padding follows it and is seen by none of it.

    Returns:
        Four arrays ``[length]``; what no conversation fills has the label `IGNORE`.
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
