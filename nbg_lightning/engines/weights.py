"""The live weights as a stream of full tensors, for an engine that keeps its own copy."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nbg_lightning.core.model import LanguageModel
from nbg_lightning.core.names import hf_name
from nbg_lightning.core.weight_sources import LiveWeights


def weight_stream(model: LanguageModel, dtype: torch.dtype | None = None) -> Iterator[tuple[str, Tensor]]:
    """Hugging Face name and full tensor of every parameter, gathered one at a time, with the adapter merged; without a tied head.

    Collective: all ranks must iterate over it together, to its end.

    Args:
        model: sharded or not.
        dtype: dtype to round to, before shards are exchanged; by default unchanged.
    """
    weights = LiveWeights(model)
    for name in weights.shapes:
        yield hf_name(name), weights.whole(name, dtype)
