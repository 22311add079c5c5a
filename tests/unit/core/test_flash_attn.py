"""Calls of flash-attn, with a stand-in operator of the same name that runs on the CPU."""

import sys

import pytest
import torch

from nbg_lightning.core import attention
from nbg_lightning.core.documents import Documents
from nbg_lightning.core.parallelize import _flash_attn_operators

STAND_IN = """
import torch

@torch.library.custom_op("flash_attn::_flash_attn_varlen_forward", mutates_args=())
def _flash_attn_varlen_forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_seqlens_q: torch.Tensor, cu_seqlens_k: torch.Tensor, scale: float
) -> torch.Tensor:
    outputs = []
    for i in range(len(cu_seqlens_q) - 1):
        queries = q[cu_seqlens_q[i] : cu_seqlens_q[i + 1]].transpose(0, 1)
        keys, values = (x[cu_seqlens_k[i] : cu_seqlens_k[i + 1]].transpose(0, 1) for x in (k, v))
        scores = torch.einsum("nqh,nkh->nqk", queries, keys) * scale
        mask = torch.ones(scores.shape[1:], dtype=torch.bool).tril(scores.shape[2] - scores.shape[1])
        outputs.append((scores.masked_fill(~mask, -torch.inf).softmax(-1) @ values).transpose(0, 1))
    return torch.cat(outputs)

@_flash_attn_varlen_forward.register_fake
def _(q, k, v, cu_seqlens_q, cu_seqlens_k, scale):
    return torch.empty_like(q)
"""
INTERFACE = """
import torch
from flash_attn.flash_attn_interface import _flash_attn_varlen_forward

class FlashAttnVarlenFunc(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, cu_seqlens_q, cu_seqlens_k, scale):
        ctx.save_for_backward(q, k, v, cu_seqlens_q, cu_seqlens_k)
        return _flash_attn_varlen_forward(q, k, v, cu_seqlens_q, cu_seqlens_k, scale)

    @staticmethod
    def backward(ctx, grad):
        q, k, v, _, _ = ctx.saved_tensors
        return grad * q, grad * k, grad * v, None, None, None

def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, longest_q, longest_k, softmax_scale, causal):
    assert causal
    return FlashAttnVarlenFunc.apply(q, k, v, cu_seqlens_q, cu_seqlens_k, softmax_scale)
"""


@pytest.fixture
def flash_attn(tmp_path, monkeypatch):
    package = tmp_path / "flash_attn"
    package.mkdir()
    (package / "__init__.py").write_text(INTERFACE)
    (package / "flash_attn_interface.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(attention, "_FLASH_ATTN_INSTALLED", True)
    yield
    for name in ("flash_attn", "flash_attn.flash_attn_interface"):
        sys.modules.pop(name, None)


def test_documents_compile_and_are_kept_by_selective_checkpointing(flash_attn):
    """Without prefixes queries and keys have the same offsets, which an operator may not be given as one tensor."""
    q, k, v = (torch.randn(12, 2, 8, requires_grad=True) for _ in range(3))
    documents = Documents(torch.tensor([0, 5, 12], dtype=torch.int32))
    expected = attention.attention_per_document(q, k, v, documents, 0.3)
    compiled = torch.compile(attention._attend_cuda, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(q, k, v, documents, 12, 0.3), expected)
    assert _flash_attn_operators() == {torch.ops.flash_attn._flash_attn_varlen_forward.default}
    torch._dynamo.reset()


def test_nothing_is_kept_where_it_is_not_installed():
    assert _flash_attn_operators() == set()
