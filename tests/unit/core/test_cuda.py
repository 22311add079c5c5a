"""Tests that need CUDA; run on a GPU with `pytest -m gpu`."""

from __future__ import annotations

import pytest
import torch

from nbg_lightning.core import ParallelConfig, create_model, linear_cross_entropy, preset
from nbg_lightning.core.attention import attention_per_document, document_attention
from nbg_lightning.core.documents import Documents, nested_documents

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def _attention_inputs() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(300, 4, 64, generator=generator)
    k, v = (torch.randn(300, 2, 64, generator=generator) for _ in range(2))
    offsets = torch.tensor([0, 1, 40, 40 + 128, 300], dtype=torch.int32)
    return tuple(x.cuda() for x in (q, k, v, offsets))


def test_varlen_kernel_equals_one_call_a_document() -> None:
    q, k, v, offsets = _attention_inputs()
    inputs = [x.bfloat16().requires_grad_() for x in (q, k, v)]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    out = document_attention(*inputs, offsets, 300, 0.125)
    reference = attention_per_document(*exact, offsets, 0.125)
    torch.testing.assert_close(out.double(), reference, atol=2e-2, rtol=2e-2)
    out.float().square().sum().backward()
    reference.square().sum().backward()
    for ours, theirs in zip(inputs, exact, strict=True):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, atol=6e-2, rtol=6e-2)


def test_float32_attention_is_exact() -> None:
    q, k, v, offsets = _attention_inputs()
    out = document_attention(q, k, v, offsets, 300, 0.125)
    on_cpu = document_attention(q.cpu(), k.cpu(), v.cpu(), offsets.cpu(), 300, 0.125)
    torch.testing.assert_close(out.cpu(), on_cpu, atol=1e-5, rtol=1e-5)


def test_model_equals_the_one_on_the_cpu() -> None:
    tokens = torch.randint(0, 512, (2, 64), generator=torch.Generator().manual_seed(0))
    on_cpu = create_model(preset("nano"))(tokens)
    on_cuda = create_model(preset("nano"), device="cuda")(tokens.cuda()).cpu()
    torch.testing.assert_close(on_cuda, on_cpu, atol=1e-4, rtol=1e-4)


def test_loss_head_keeps_memory_down() -> None:
    hidden = torch.randn(4096, 512, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    weight = (torch.randn(166_144, 512, device="cuda") * 0.02).bfloat16().requires_grad_()
    labels = torch.randint(0, 166_144, (4096,), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    linear_cross_entropy(hidden, weight, labels, chunk_tokens=256).loss.backward()
    gradients = weight.numel() * 2 + hidden.numel() * 2
    assert torch.cuda.max_memory_allocated() - before - gradients < 1e9


@pytest.mark.parametrize("recipe", ["rowwise", "rowwise_with_gw_hp"])
def test_float8_trains(recipe: str) -> None:
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("float8 products need compute capability 8.9 or later")
    model = create_model(preset("tiny"), ParallelConfig(float8=recipe, compile=True), device="cuda").bfloat16()
    tokens = torch.randint(0, 4096, (4, 128), device="cuda")
    loss = model(tokens, head=lambda h, w: linear_cross_entropy(h, w, tokens).loss)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_shared_prefixes_equal_each_document_with_its_prefix(dtype: torch.dtype) -> None:
    """Unequal query and key offsets: the causal mask is that of the last query and key, values and gradients."""
    q, k, v, _ = _attention_inputs()
    documents = nested_documents([100, 64, 1, 35, 60, 40], [-1, 0, 1, 0, -1, 4])
    inputs = [x.to(dtype).requires_grad_() for x in (q, k, v)]
    exact = [x.detach().cpu().double().requires_grad_() for x in inputs]
    on_cuda = Documents(*(x.cuda() for x in documents if x is not None))
    out = document_attention(*inputs, on_cuda, 300, 0.125)
    reference = document_attention(*exact, documents, 300, 0.125)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(out.cpu().double(), reference, atol=tolerance, rtol=tolerance)
    out.float().square().sum().backward()
    reference.square().sum().backward()
    for ours, theirs in zip(inputs, exact, strict=True):
        assert ours.grad is not None and theirs.grad is not None
        torch.testing.assert_close(ours.grad.cpu().double(), theirs.grad, atol=4 * tolerance, rtol=4 * tolerance)
