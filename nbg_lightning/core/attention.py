"""Causal attention over packed documents. Documents do not see each other, except for a shared prefix.

Shape suffixes: B rows, L positions, T = B x L tokens, N query heads, K key/value heads, H head dimension.

* CUDA, bf16/fp16: flash-attn's ``flash_attn_varlen_func`` if installed, otherwise torch's own ``varlen_attn``. A document's
  keys and values are gathered after those of its prefix.
* CPU: one operator over all documents, each computed by ATen's flash kernel, or one batched call if all have the same length.
  Documents that continue a prefix read it in place in one additional call, and both results are merged by log-sum-exp.
* elsewhere (and CUDA in fp32): one `scaled_dot_product_attention` per document.

No L x L mask is materialized, except for a document with a prefix in the last case.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchtitan.protocols.module import Module

from nbg_lightning.core.documents import Documents, continued
from nbg_lightning.core.head_exchange import to_heads, to_tokens

_flash_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_cpu_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
# Documents up to this length have their backward in float32, also in a narrower dtype: the kernel's narrow products cost a fixed
# time per call, which makes them 4.2 times slower at 32 tokens, 2.2 times at 128, and equal from 256 (AMD EPYC).
_SHORT = 192


def attention_per_document(
    q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, documents: Documents | Tensor, scale: float
) -> Tensor:
    """Portable path, differentiable by plain autograd: one SDPA call per document. Returns ``[T, N, H]``."""
    documents = Documents.of(documents)
    k_TKH, v_TKH, key_offsets = _keys_values(k_TKH, v_TKH, documents)
    lengths, key_lengths = documents.offsets.diff().tolist(), key_offsets.diff().tolist()
    outputs = []
    for parts in zip(q_TNH.split(lengths), k_TKH.split(key_lengths), v_TKH.split(key_lengths), strict=True):
        q, k, v = (x.transpose(0, 1)[None] for x in parts)
        mask = None
        if (longer := k.shape[2] - q.shape[2]) > 0:  # the first query already sees a whole prefix
            mask = q.new_ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(longer)
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=True
        )
        outputs.append(out[0].transpose(0, 1))
    return torch.cat(outputs)


def _keys_values(k_TKH: Tensor, v_TKH: Tensor, documents: Documents) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values of each document, preceded by those of its prefix, and their offsets."""
    if documents.keys is None or documents.key_offsets is None:
        return k_TKH, v_TKH, documents.offsets
    return k_TKH.index_select(0, documents.keys), v_TKH.index_select(0, documents.keys), documents.key_offsets


def _batches(offsets: Tensor) -> list[tuple[int, int, int]]:
    """Group consecutive documents of the same length as (first token, number of documents, length)."""
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
    """The tokens of such a group as ``[documents, heads, length, H]`` (a view)."""
    return x[begin : begin + documents * length].unflatten(0, (documents, length)).transpose(1, 2)


def _part(x: Tensor, tokens: slice) -> Tensor:
    """A slice of tokens as ``[1, heads, length, H]`` (a view)."""
    return x[None, tokens].transpose(1, 2)


def _join(out: Tensor, log_sum_exp: Tensor, other: Tensor, other_log_sum_exp: Tensor) -> None:
    """Merge attention over other keys into ``out``, in place: ``sum_i o_i exp(lse_i) / sum_i exp(lse_i)``."""
    both = torch.logaddexp(log_sum_exp, other_log_sum_exp)
    weight = (log_sum_exp - both).exp_()[..., None]
    other_weight = (other_log_sum_exp - both).exp_()[..., None]
    out.copy_((out * weight).addcmul_(other, other_weight))
    log_sum_exp.copy_(both)


@torch.library.custom_op("nbg::document_attention", mutates_args=())
def _attend(
    q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, offsets: Tensor, scale: float, until: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    out = torch.empty(q_TNH.shape, dtype=q_TNH.dtype)
    statistics = torch.float64 if q_TNH.dtype == torch.float64 else torch.float32
    log_sum_exp = torch.empty(q_TNH.shape[:2], dtype=statistics)
    for run in _batches(offsets):
        o, lse = _flash_cpu(_rows(q_TNH, *run), _rows(k_TKH, *run), _rows(v_TKH, *run), 0.0, True, scale=scale)
        _rows(out, *run).copy_(o)
        _rows(log_sum_exp, *run).copy_(lse)
    for prefix, behind in [] if until is None else continued(offsets, until):
        o, lse = _flash_cpu(_part(q_TNH, behind), _part(k_TKH, prefix), _part(v_TKH, prefix), 0.0, False, scale=scale)
        _join(_part(out, behind), _part(log_sum_exp, behind), o, lse)
    return out, log_sum_exp


@_attend.register_fake
def _(
    q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, offsets: Tensor, scale: float, until: Tensor | None = None
) -> tuple[Tensor, Tensor]:
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
    until: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    # Dense, as the fake kernel below promises.
    grads = q_TNH.new_empty(q_TNH.shape), k_TKH.new_empty(k_TKH.shape), v_TKH.new_empty(v_TKH.shape)
    # Given the output and log-sum-exp over all keys, the backward over some keys yields exactly their share of the gradients.
    for run in _batches(offsets):
        grad, q, k, v, out = (_rows(x, *run) for x in (grad_TNH, q_TNH, k_TKH, v_TKH, out_TNH))
        if run[2] <= _SHORT and q.dtype != torch.float64:
            grad, q, k, v, out = (x.float() for x in (grad, q, k, v, out))
        lse = _rows(lse_TN, *run).contiguous()
        for target, part in zip(
            grads, _flash_cpu_backward(grad, q, k, v, out, lse, 0.0, True, scale=scale), strict=True
        ):
            _rows(target, *run).copy_(part)
    for prefix, behind in [] if until is None else continued(offsets, until):
        grad, q, out = (_part(x, behind) for x in (grad_TNH, q_TNH, out_TNH))
        k, v = _part(k_TKH, prefix), _part(v_TKH, prefix)
        lse = _part(lse_TN, behind).contiguous()
        found = _flash_cpu_backward(grad, q, k, v, out, lse, 0.0, False, scale=scale)
        for target, tokens, part in zip(grads, (behind, prefix, prefix), found, strict=True):
            _part(target, tokens).add_(part)
    return grads


@_attend_backward.register_fake
def _(grad_TNH, q_TNH, k_TKH, v_TKH, out_TNH, lse_TN, offsets, scale, until=None):  # type: ignore[no-untyped-def]
    return tuple(x.new_empty(x.shape) for x in (q_TNH, k_TKH, v_TKH))


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    q, k, v, offsets, scale, until = inputs
    ctx.save_for_backward(q, k, v, *output, offsets, until)
    ctx.mark_non_differentiable(output[1])
    ctx.scale = scale


def _backward(ctx, grad_TNH, _grad_lse):  # type: ignore[no-untyped-def]
    q, k, v, out, lse, offsets, until = ctx.saved_tensors
    grads = _attend_backward(grad_TNH.contiguous(), q, k, v, out, lse, offsets, ctx.scale, until)
    return *grads, None, None, None


_attend.register_autograd(_backward, setup_context=_setup_context)


# Looked up once, at import: Dynamo traces what `_attend_cuda` calls.
_FLASH_ATTN_INSTALLED = importlib.util.find_spec("flash_attn") is not None


def _attend_cuda(q: Tensor, k: Tensor, v: Tensor, documents: Documents, longest: int, scale: float) -> Tensor:
    k, v, key_offsets = _keys_values(k, v, documents)
    offsets = documents.offsets
    # With fewer queries than keys both kernels align the causal mask to the bottom right, so that a prefix is fully visible.
    if _FLASH_ATTN_INSTALLED:
        from flash_attn import flash_attn_varlen_func

        # Dynamo rejects the same tensor as two arguments of an operator.
        lengths = offsets, key_offsets.clone() if key_offsets is offsets else key_offsets, longest, longest
        return flash_attn_varlen_func(q, k, v, *lengths, softmax_scale=scale, causal=True)
    from torch.nn.attention.varlen import varlen_attn

    causal = (-1, 0)  # all keys to the left, none to the right
    out = varlen_attn(q, k, v, offsets, key_offsets, longest, longest, scale=scale, window_size=causal, enable_gqa=True)
    assert isinstance(out, Tensor)
    return out


def document_attention(
    q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, documents: Documents | Tensor, longest: int, scale: float
) -> Tensor:
    """Causal attention within each document of a flattened batch, and from it to the prefix that it continues.

    Args:
        q_TNH: queries ``[T, N, H]``; keys and values are ``[T, K, H]`` with K dividing N.
        k_TKH: keys.
        v_TKH: values.
        documents: the documents, on the queries' device; plain offsets if there are no prefixes.
        longest: upper bound of the documents' lengths, including prefixes (used by CUDA kernels only).
        scale: factor of the attention scores, ``head_dim ** -0.5``.

    Returns:
        ``[T, N, H]``, in the dtype of the queries.
    """
    documents = Documents.of(documents)
    if q_TNH.device.type in ("cpu", "meta"):
        return _attend(q_TNH, k_TKH, v_TKH, documents.offsets, scale, documents.until)[0]
    if q_TNH.is_cuda and q_TNH.dtype in (torch.bfloat16, torch.float16):
        return _attend_cuda(q_TNH, k_TKH, v_TKH, documents, longest, scale)
    return attention_per_document(q_TNH, k_TKH, v_TKH, documents, scale)


class DocumentAttention(Module):
    """torchtitan's inner-attention module; receives the documents as ``attention_masks``.

    With a context group, each rank passes in its part of the tokens and gets the outputs of that part."""

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
        attention_masks: Documents | Tensor,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        rows, length = q_BLNH.shape[:2]
        scale = q_BLNH.shape[-1] ** -0.5 if scale is None else scale
        documents = Documents.of(attention_masks)
        if documents.context is not None:
            q, k, v = to_heads(q_BLNH, k_BLKH, v_BLKH, documents.context)
            out_TNH = document_attention(q, k, v, documents, length * documents.context.size, scale)
            return to_tokens(out_TNH, rows, documents.context)
        q, k, v = (x.flatten(0, 1) for x in (q_BLNH, k_BLKH, v_BLKH))
        return document_attention(q, k, v, documents, length, scale).unflatten(0, (rows, length))
