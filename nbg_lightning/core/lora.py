"""Low-rank adapters as a parametrization of the core's linear layers, with a frozen base.

Shape suffixes: T tokens, I inputs, O outputs, R rank.

The layers keep their class (torchtitan's, or torchao's for float8) and names, with two additional parameters. So base
weights load, shard and export as usual, and only `trained_parameters` knows what is trained.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nbg_lightning.core.lora_config import TARGETS, LoRAConfig
from nbg_lightning.core.names import LORA_A, LORA_B, clean_name
from nbg_lightning.core.products import linear

if TYPE_CHECKING:
    from nbg_lightning.core.model import LanguageModel

_draw_a = partial(nn.init.kaiming_uniform_, a=math.sqrt(5))  # uniform in +-1 / sqrt(in), as peft


class LowRank(nn.Module):
    """Mixin in front of a linear layer's class that adds ``scale x B A dropout(x)`` to its output.

    Attributes:
        weight: the layer's frozen weight, ``[O, I]``.
        lora_a: ``[R, I]``.
        lora_b: ``[O, R]``.
        scale: ``alpha / rank``.
        dropout: share of inputs that are zeroed in training.
        plain: whether the layer is a plain matrix product (not float8).
        enabled: whether the adapter is active: see `adapter_off`.
    """

    weight: Tensor
    bias: Tensor | None
    plain: bool
    lora_a: Tensor
    lora_b: Tensor
    scale: float
    dropout: float
    enabled: bool

    def forward(self, x: Tensor) -> Tensor:
        dropped = self.enabled and self.training and self.dropout > 0
        if self.enabled and not dropped and self.plain:
            y_TO = _LowRankProduct.apply(x.flatten(0, -2), self.weight, self.lora_a, self.lora_b, self.scale)  # type: ignore[no-untyped-call]
            y_TO = y_TO if self.bias is None else y_TO + self.bias
            return cast(Tensor, y_TO).view(*x.shape[:-1], -1)
        y = super().forward(x)  # the layer's own class, which follows in the MRO
        if not self.enabled:
            return cast(Tensor, y)
        low_TR = F.linear(F.dropout(x, self.dropout, self.training), self.lora_a).flatten(0, -2)
        return torch.addmm(y.flatten(0, -2), low_TR, self.lora_b.t(), alpha=self.scale).view(y.shape)


class _LowRankProduct(torch.autograd.Function):
    """``x W^T + scale (x A^T) B^T`` with W frozen; takes a fifth of the adapter's time less than separate operations.

    The adapter's share of x's gradient is accumulated in place, where separate operations would allocate a tensor.
    """

    @staticmethod
    def forward(ctx: Any, x_TI: Tensor, weight_OI: Tensor, a_RI: Tensor, b_OR: Tensor, scale: float) -> Tensor:
        low_TR = x_TI @ a_RI.t()
        ctx.save_for_backward(x_TI, weight_OI, a_RI, b_OR, low_TR)
        ctx.scale = scale
        return torch.addmm(linear(x_TI, weight_OI), low_TR, b_OR.t(), alpha=scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TO: Tensor) -> tuple[Tensor | None, ...]:
        x_TI, weight_OI, a_RI, b_OR, low_TR = ctx.saved_tensors
        grad_low_TR = (grad_TO @ b_OR).mul_(ctx.scale)
        grad_b_OR = (low_TR.t() @ grad_TO).t().mul(ctx.scale)
        grad_x_TI = None
        if ctx.needs_input_grad[0]:
            grad_x_TI = linear(grad_TO, weight_OI.t()).addmm_(grad_low_TR, a_RI)
        return grad_x_TI, None, grad_low_TR.t() @ x_TI, grad_b_OR, None


@functools.cache
def _low_rank(kind: type[nn.Module]) -> type[nn.Module]:
    return type(f"LowRank{kind.__name__}", (LowRank, kind), {})


def attach_adapter(model: LanguageModel, lora: LoRAConfig) -> None:
    """Freeze a model on meta and add an adapter to its layers, in place, before wrapping and sharding.

    A score head is trained too.
    """
    from torchtitan.models.common import Linear  # takes a second, which readers of checkpoints need not wait for

    model.requires_grad_(False)
    for block in model.layers.values():
        for target in lora.targets:
            layer: Any = block.get_submodule(TARGETS[target])
            rows, columns = layer.weight.shape
            layer.plain = type(layer) is Linear
            layer.__class__ = _low_rank(type(layer))  # type: ignore[arg-type] # mypy takes no class for hashable
            layer.lora_a = nn.Parameter(torch.empty(lora.rank, columns, device=layer.weight.device))
            layer.lora_b = nn.Parameter(torch.empty(rows, lora.rank, device=layer.weight.device))
            layer._param_init = {**layer._param_init, LORA_A: _draw_a, LORA_B: nn.init.zeros_}
            layer.scale, layer.dropout, layer.enabled = lora.scale, lora.dropout, True
    if model.shape.score_head:  # new, so there is nothing to adapt: trained in full, in the adapter's dtype
        model.lm_head.weight = nn.Parameter(torch.empty_like(model.lm_head.weight, dtype=torch.float32))


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained parameters by name: all of them, or an adapter's and a score head."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def adapted_layers(model: nn.Module) -> dict[str, LowRank]:
    """The layers with an adapter, by the clean name of their weight."""
    return {clean_name(f"{name}.weight"): layer for name, layer in model.named_modules() if isinstance(layer, LowRank)}


@contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """Disable the adapter inside the block: forward, generation and exported weights are the base's, bit for bit.

    Raises:
        ValueError: the model has no adapter.
    """
    layers = list(adapted_layers(model).values())
    if not layers:
        raise ValueError("adapter_off is invalid here: the model has no adapter; give create_model a LoRAConfig")
    before = [layer.enabled for layer in layers]
    for layer in layers:
        layer.enabled = False
    try:
        yield
    finally:
        for layer, enabled in zip(layers, before, strict=True):
            layer.enabled = enabled


def merge(weight_OI: Tensor, a_RI: Tensor, b_OR: Tensor, scale: float) -> Tensor:
    """``W + scale x B A``, in float32 (float64 stays)."""
    dtype = torch.promote_types(weight_OI.dtype, torch.float32)
    return torch.addmm(weight_OI.to(dtype), b_OR.to(dtype), a_RI.to(dtype), alpha=scale)
