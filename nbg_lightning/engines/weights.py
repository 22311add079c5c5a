"""The live weights, one whole tensor after the other, for an engine that keeps its own."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nbg_lightning.core.model import LanguageModel
from nbg_lightning.core.names import hf_name
from nbg_lightning.core.weight_sources import LiveWeights


def weight_stream(model: LanguageModel, dtype: torch.dtype | None = None) -> Iterator[tuple[str, Tensor]]:
    """Hugging Face name and whole tensor of every parameter, gathered one at a time, with its adapter; a tied head is left out.

    All ranks must run through it together, to its end.

    Args:
        model: sharded or not.
        dtype: what the tensors are cast to; by default they stay as they are.
    """
    weights = LiveWeights(model)
    for name in weights.shapes:
        weight = weights.whole(name)
        yield hf_name(name), weight if dtype is None else weight.to(dtype)
