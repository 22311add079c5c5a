"""The live weights, one whole tensor after the other, for an engine that keeps its own."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from nbg_lightning.core.model import LanguageModel
from nbg_lightning.core.names import clean_name
from nbg_lightning.core.sharding import reshard
from nbg_lightning.core.weight_sources import hf_name


def weight_stream(model: LanguageModel, dtype: torch.dtype | None = None) -> Iterator[tuple[str, Tensor]]:
    """Hugging Face name and whole tensor of every parameter, gathered one at a time; a tied head is left out.

    All ranks must run through it together, to its end.

    Args:
        model: sharded or not.
        dtype: what the tensors are cast to; by default they stay as they are.
    """
    reshard(model)  # a forward without a backward leaves a unit gathered
    for name, parameter in model.named_parameters():
        name = clean_name(name)
        if name == "lm_head.weight" and model.shape.tie_word_embeddings:
            continue
        weight = parameter.detach()
        weight = weight.full_tensor() if isinstance(weight, DTensor) else weight
        yield hf_name(name), weight if dtype is None else weight.to(dtype)
