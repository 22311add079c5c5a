"""Sequences with trained tokens, and the interface of teachers that return next-token targets for them."""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from nbg_lightning.core.prefixes import SharePrefixes
    from nbg_lightning.teachers.live import LiveTeacher

Dtype = Literal["float32", "bfloat16"]


class Sequence:
    """Token ids, and which of them are trained: those at which a student's distribution is compared.

    Args:
        ids: token ids.
        trained: for each id, whether it has a loss as a label.

    Attributes:
        places: positions that predict the trained ids, ascending. No position predicts the first id.
    """

    __slots__ = ("ids", "places", "trained")

    def __init__(self, ids: np.ndarray, trained: np.ndarray):
        self.ids, self.trained = ids, trained
        self.places = np.flatnonzero(trained[1:])

    def __len__(self) -> int:
        return len(self.ids)


class TopKTargets(NamedTuple):
    """For each trained token the likeliest ids ``[n, k]``, their log-probs ``[n, k]``, and the log of the remaining mass
    ``[n]``.
    """

    ids: np.ndarray
    log_probs: np.ndarray
    tail: np.ndarray


class TargetSource(Protocol):
    """A teacher: use it in a ``with`` block."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of its weights."""
        ...

    @property
    def dtype(self) -> str:
        """Its compute dtype; ``server`` if a server does not reveal it."""
        ...

    def __enter__(self) -> TargetSource: ...

    def __exit__(self, *_: object) -> None: ...

    def top_k(self, sequences: Sequences[Sequence], k: int, temperature: float = 1.0) -> list[TopKTargets]:
        """The teacher's k likeliest ids at each trained token of each sequence, likeliest first."""
        ...


class FrozenModel:
    """A frozen model in one process on one device, used as teacher or as the reference of a preference loss.

    The weights are loaded when it is entered and released when it is left.

    Args:
        weights: a Hugging Face folder, the name of a model on the hub, or a checkpoint of this library.
        vocab_size: number of leading ids over which `top_k` is normalized; by default all of the model's.
        device: device of the model; CUDA if available, by default.
        dtype: dtype of weights and matrix products.
        share_prefixes: whether common prefixes of a call's sequences are computed once; ``auto`` if that saves time.

    Raises:
        FileNotFoundError, ValueError: weights that cannot be read, as in `open_weights`.
    """

    def __init__(
        self,
        weights: str,
        vocab_size: int | None = None,
        device: str | None = None,
        dtype: Dtype = "float32",
        share_prefixes: SharePrefixes = "auto",
    ):
        from nbg_lightning.core.prefixes import shortest_shared
        from nbg_lightning.core.weights import read_shape

        self.weights, self.device, self.dtype = weights, device, dtype
        self.shape = read_shape(weights)
        self.vocab_size = vocab_size or self.shape.vocab_size
        self._shortest = shortest_shared(share_prefixes)
        self._model: LiveTeacher | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the weights, read one tensor at a time."""
        from nbg_lightning.core.fingerprint import source_fingerprint
        from nbg_lightning.core.weights import open_weights

        return source_fingerprint(open_weights(self.weights))

    def __enter__(self) -> FrozenModel:
        import torch

        from nbg_lightning.core.config import ParallelConfig
        from nbg_lightning.teachers.live import LiveTeacher

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._model = LiveTeacher(self.weights, ParallelConfig(compute_dtype=self.dtype), device=device)
        return self

    def __exit__(self, *_: object) -> None:
        self._model = None

    def top_k(self, sequences: Sequences[Sequence], k: int, temperature: float = 1.0) -> list[TopKTargets]:
        """See `TargetSource.top_k`: one packed forward pass for all sequences, with logits of the trained tokens in chunks.

        Raises:
            ValueError: a sequence longer than the model's window.
            RuntimeError: the model returns non-finite values.
        """
        from nbg_lightning.core.head_distillation import linear_top_k

        hidden, weight, _ = self._hidden(sequences)
        found = linear_top_k(hidden, weight[: self.vocab_size], k, temperature)
        arrays = [tensor.cpu().numpy() for tensor in found]
        cuts = np.cumsum([len(sequence.places) for sequence in sequences])[:-1]
        return [TopKTargets(*parts) for parts in zip(*(np.split(array, cuts) for array in arrays), strict=True)]

    def log_probs(self, sequences: Sequences[Sequence]) -> list[np.ndarray]:
        """Log-probability of each trained token itself, over the whole vocabulary; raises the same errors as `top_k`."""
        from nbg_lightning.core.head_distillation import linear_log_probs

        found = linear_log_probs(*self._hidden(sequences)).cpu().numpy()
        return np.split(found, np.cumsum([len(sequence.places) for sequence in sequences])[:-1])

    def _hidden(self, sequences: Sequences[Sequence]) -> tuple[Tensor, Tensor, Tensor]:
        """Final hidden states that predict trained tokens, the head's weight, and these tokens."""
        import torch

        from nbg_lightning.core.batch import PackedBatch
        from nbg_lightning.core.prefixes import pack_sequences

        if self._model is None:
            raise RuntimeError("this FrozenModel is not open; use it in a with block")
        longest = max(map(len, sequences))
        if longest - 1 > self.shape.max_position_embeddings:
            raise ValueError(
                f"a sequence has {longest:,} tokens, and the window of {self.weights} is "
                f"{self.shape.max_position_embeddings:,}; lower the data's max_length, or take another model"
            )
        device = next(self._model.model.parameters()).device
        packed = pack_sequences([sequence.ids[:-1] for sequence in sequences], self._shortest)
        predicting = [places[s.places] for places, s in zip(packed.places, sequences, strict=True)]
        trained = [sequence.ids[sequence.places + 1] for sequence in sequences]
        places, labels = (
            torch.from_numpy(np.concatenate(x).astype(np.int64)).to(device) for x in (predicting, trained)
        )
        tokens, positions, documents = packed.input.to(device)
        nothing = torch.zeros(1, dtype=torch.int64, device=device)
        batch = PackedBatch(tokens, tokens, positions, nothing, nothing, documents=documents)  # `labels` has the labels
        hidden, weight = self._model.targets(batch, places)
        return hidden, weight, labels
