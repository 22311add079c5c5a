"""An exponential moving average of the weights, sharded like them.

Lightning's `WeightAveraging` is not used: it calls `configure_model` outside the strategy, so its copy is unsharded and
complete on every rank (it warns about this), and a run under FSDP2 needs the memory of a second full model. Here each rank
averages its own shard, and the averages are part of the sharded checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nbg_lightning.core.lora import trained_parameters
from nbg_lightning.core.names import clean_name


class WeightAverage(nn.Module):
    """``average <- decay x average + (1 - decay) x weight`` after each step, in float32.

    The averages are persistent buffers (shards, if the weights are): they are saved, restored and resharded with the rest.

    Args:
        model: its trained parameters are averaged; they must be materialized.
        decay: between 0 and 1.
    """

    def __init__(self, model: nn.Module, decay: float):
        super().__init__()
        if not 0 < decay < 1:
            raise ValueError(f"ema_decay is invalid: {decay}; give a number between 0 and 1")
        self.decay = decay
        for name, parameter in trained_parameters(model).items():
            self.register_buffer(clean_name(name).replace(".", "__"), parameter.detach().clone())

    def _pairs(self, model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        weights = [parameter.detach() for parameter in trained_parameters(model).values()]
        return list(self.buffers()), weights

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Update the averages with the model's current weights."""
        averages, weights = self._pairs(model)
        torch._foreach_lerp_(averages, weights, 1 - self.decay)

    @contextmanager
    def swapped_in(self, model: nn.Module) -> Iterator[None]:
        """Swap the averaged weights into the model inside the block, and the model's own back after it."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        for average, weight in zip(*self._pairs(model), strict=True):
            own = weight.clone()
            weight.copy_(average)
            average.copy_(own)
