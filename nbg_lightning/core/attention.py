"""Causal attention over packed documents: no document sees another, and no L x L mask is ever made.

Shape suffixes: B rows, L positions, T = B x L tokens, N query heads, K key/value heads, H head dimension.
``document_offsets`` are cumulative lengths ``[0, l1, l1 + l2, ..., T]`` (int32), the "cu_seqlens" of flash-attn.

* CUDA, bf16/fp16: flash-attn's ``flash_attn_varlen_func`` where installed, else torch's own ``varlen_attn``.
* CPU: one operator over all documents, each through ATen's flash kernel; one batched call if all have one length.
* anywhere else (and CUDA in fp32): one `scaled_dot_product_attention` a document.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchtitan.protocols.module import Module

_flash_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_cpu_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attention_per_document(q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, offsets: Tensor, scale: float) -> Tensor:
    """Portable path, differentiable through plain autograd: one SDPA call a document. Returns ``[T, N, H]``."""
    lengths = offsets.diff().tolist()
    outputs = []
    for q, k, v in zip(q_TNH.split(lengths), k_TKH.split(lengths), v_TKH.split(lengths), strict=True):
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
        outputs.append(out[0].transpose(0, 1))
    return torch.cat(outputs)


def _batches(offsets: Tensor) -> list[tuple[int, int, int]]:
    """Runs of neighbouring documents of one length, as (first token, number of documents, length)."""
    runs: list[tuple[int, int, int]] = []
    begin = 0
    for end in offsets.tolist()[1:]:
        length = end - begin
        if runs and runs[-1][2] == length:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1, length)
        else:
            runs.append((begin, 1, length))
        begin = end
    return runs


def _rows(x: Tensor, begin: int, documents: int, length: int) -> Tensor:
    """The tokens of a run as ``[documents, heads, length, H]`` (a view)."""
    return x[begin : begin + documents * length].unflatten(0, (documents, length)).transpose(1, 2)


@torch.library.custom_op("nbg::document_attention", mutates_args=())
def _attend(q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, offsets: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    out = torch.empty(q_TNH.shape, dtype=q_TNH.dtype)
    statistics = torch.float64 if q_TNH.dtype == torch.float64 else torch.float32
    log_sum_exp = torch.empty(q_TNH.shape[:2], dtype=statistics)
    for run in _batches(offsets):
        o, lse = _flash_cpu(_rows(q_TNH, *run), _rows(k_TKH, *run), _rows(v_TKH, *run), 0.0, True, scale=scale)
        _rows(out, *run).copy_(o)
        _rows(log_sum_exp, *run).copy_(lse)
    return out, log_sum_exp


@_attend.register_fake
def _(q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, offsets: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    statistics = torch.float64 if q_TNH.dtype == torch.float64 else torch.float32
    return q_TNH.new_empty(q_TNH.shape), q_TNH.new_empty(q_TNH.shape[:2], dtype=statistics)


@torch.library.custom_op("nbg::document_attention_backward", mutates_args=())
def _attend_backward(
    grad_TNH: Tensor,
    q_TNH: Tensor,
    k_TKH: Tensor,
    v_TKH: Tensor,
    out_TNH: Tensor,
    lse_TN: Tensor,
    offsets: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    # Dense, as the fake below promises.
    grads = q_TNH.new_empty(q_TNH.shape), k_TKH.new_empty(k_TKH.shape), v_TKH.new_empty(v_TKH.shape)
    for run in _batches(offsets):
        grad, q, k, v, out = (_rows(x, *run) for x in (grad_TNH, q_TNH, k_TKH, v_TKH, out_TNH))
        lse = _rows(lse_TN, *run).contiguous()
        for target, part in zip(
            grads, _flash_cpu_backward(grad, q, k, v, out, lse, 0.0, True, scale=scale), strict=True
        ):
            _rows(target, *run).copy_(part)
    return grads


@_attend_backward.register_fake
def _(grad_TNH, q_TNH, k_TKH, v_TKH, out_TNH, lse_TN, offsets, scale):  # type: ignore[no-untyped-def]
    return tuple(x.new_empty(x.shape) for x in (q_TNH, k_TKH, v_TKH))


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    q, k, v, offsets, scale = inputs
    ctx.save_for_backward(q, k, v, *output, offsets)
    ctx.mark_non_differentiable(output[1])
    ctx.scale = scale


def _backward(ctx, grad_TNH, _grad_lse):  # type: ignore[no-untyped-def]
    q, k, v, out, lse, offsets = ctx.saved_tensors
    return *_attend_backward(grad_TNH.contiguous(), q, k, v, out, lse, offsets, ctx.scale), None, None


_attend.register_autograd(_backward, setup_context=_setup_context)


@functools.cache
def _flash_attn_installed() -> bool:
    return importlib.util.find_spec("flash_attn") is not None


def _attend_cuda(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, longest: int, scale: float) -> Tensor:
    if _flash_attn_installed():
        from flash_attn import flash_attn_varlen_func

        return flash_attn_varlen_func(q, k, v, offsets, offsets, longest, longest, softmax_scale=scale, causal=True)
    from torch.nn.attention.varlen import varlen_attn

    causal = (-1, 0)  # all keys to the left, none to the right
    out = varlen_attn(q, k, v, offsets, offsets, longest, longest, scale=scale, window_size=causal, enable_gqa=True)
    assert isinstance(out, Tensor)
    return out


def document_attention(
    q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, offsets: Tensor, longest: int, scale: float
) -> Tensor:
    """Causal attention inside each document of a flattened batch.

    Args:
        q_TNH: queries ``[T, N, H]``; keys and values are ``[T, K, H]`` with K dividing N.
        k_TKH: keys.
        v_TKH: values.
        offsets: cumulative document lengths, int32 ``[documents + 1]``, on the queries' device.
        longest: an upper bound of the document lengths (only CUDA kernels read it).
        scale: what the products are multiplied by, ``head_dim ** -0.5``.

    Returns:
        ``[T, N, H]``, in the dtype of the queries.
    """
    if q_TNH.device.type in ("cpu", "meta"):
        return _attend(q_TNH, k_TKH, v_TKH, offsets, scale)[0]
    if q_TNH.is_cuda and q_TNH.dtype in (torch.bfloat16, torch.float16):
        return _attend_cuda(q_TNH, k_TKH, v_TKH, offsets, longest, scale)
    return attention_per_document(q_TNH, k_TKH, v_TKH, offsets, scale)


class DocumentAttention(Module):
    """torchtitan's inner-attention slot. What arrives as ``attention_masks`` are the document offsets."""

    @dataclass(kw_only=True, slots=True)
    class Config(Module.Config):
        pass

    def __init__(self, config: Config):
        super().__init__()

    def forward(
        self,
        q_BLNH: Tensor,
        k_BLKH: Tensor,
        v_BLKH: Tensor,
        *,
        attention_masks: Tensor,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        rows, length = q_BLNH.shape[:2]
        scale = q_BLNH.shape[-1] ** -0.5 if scale is None else scale
        q, k, v = (x.flatten(0, 1) for x in (q_BLNH, k_BLKH, v_BLKH))
        return document_attention(q, k, v, attention_masks, length, scale).unflatten(0, (rows, length))
