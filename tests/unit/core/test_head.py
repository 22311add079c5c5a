"""The head against ten-line float64 references, in values and gradients."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nbg_lightning.core import head
from nbg_lightning.core.head import (
    IGNORE,
    linear_cross_entropy,
    linear_token_scores,
    linear_token_statistics,
    tokens_per_chunk,
)

TOKENS, VOCAB, DIM = 13, 17, 5


@pytest.fixture(autouse=True, params=[None, (40, 12), (1, 1)], ids=["", "blocks of 2", "blocks of 1"])
def blocks(request, monkeypatch):
    """Softmax over few rows at a time, and the weight's gradient by few rows: sizes that only large models reach."""
    if request.param is not None:
        monkeypatch.setattr(head, "_ELEMENTS_PER_BLOCK", request.param[0])
        monkeypatch.setattr(head, "_ELEMENTS_PER_SLICE", request.param[1])


def inputs(dtype=torch.float32, seed=0, tokens=TOKENS, vocab=VOCAB, dim=DIM):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, dim, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(vocab, dim, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    labels = torch.randint(0, vocab, (tokens,), generator=generator)
    return hidden, weight, labels


def reference_cross_entropy(hidden, weight, labels, token_weights=None):
    """The definition, in float64."""
    log_probs = (hidden.double() @ weight.double().t()).log_softmax(dim=-1)
    losses = -log_probs.gather(-1, labels.clamp(min=0)[:, None]).squeeze(-1) * (labels != IGNORE)
    return (losses * (1.0 if token_weights is None else token_weights.double())).sum(), losses


def reference_statistics(hidden, weight, labels, temperature):
    log_probs = (hidden.double() @ weight.double().t() / temperature).log_softmax(dim=-1)
    return log_probs.gather(-1, labels[:, None]).squeeze(-1), -(log_probs.exp() * log_probs).sum(dim=-1)


def gradients(output, *tensors):
    return torch.autograd.grad(output, tensors)


class TestLinearCrossEntropy:
    @pytest.mark.parametrize("chunk", [1, 7, TOKENS, 1000, None])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_values_and_gradients(self, chunk, weighted):
        hidden, weight, labels = inputs()
        labels[[0, 5, 12]] = IGNORE
        token_weights = torch.linspace(0.0, 2.0, TOKENS) if weighted else None
        result = linear_cross_entropy(hidden, weight, labels, token_weights, chunk)
        loss, losses = reference_cross_entropy(hidden, weight, labels, token_weights)
        torch.testing.assert_close(result.loss.double(), loss)
        torch.testing.assert_close(result.token_losses.double(), losses, rtol=1e-5, atol=1e-6)
        found, expected = gradients(result.loss, hidden, weight), gradients(loss, hidden, weight)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs.to(ours.dtype))

    @pytest.mark.parametrize("chunk", [1, 2, 4])
    def test_float64_is_float64(self, chunk):
        """In float64 nothing is rounded to float32 on the way."""
        hidden, weight, labels = inputs(torch.float64)
        token_weights = torch.linspace(0.1, 1.0, TOKENS, dtype=torch.float64)
        result = linear_cross_entropy(hidden, weight, labels, token_weights, chunk)
        loss, _ = reference_cross_entropy(hidden, weight, labels, token_weights)
        torch.testing.assert_close(result.loss, loss, rtol=1e-13, atol=1e-13)
        for ours, theirs in zip(gradients(result.loss, hidden, weight), gradients(loss, hidden, weight), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)

    @pytest.mark.parametrize("chunk", [2, 100])
    def test_gradcheck(self, chunk):
        """The analytic gradient against finite differences; recomputed, as one forward serves one backward only."""
        hidden, weight, labels = inputs(torch.float64, tokens=5, vocab=7, dim=3)
        labels[1] = IGNORE
        token_weights = torch.tensor([0.5, 9.0, 1.5, 0.0, 2.0], dtype=torch.float64)

        class Recomputed(torch.autograd.Function):
            @staticmethod
            def forward(ctx, hidden, weight):
                ctx.save_for_backward(hidden, weight)
                return linear_cross_entropy(hidden, weight, labels, token_weights, chunk).loss

            @staticmethod
            def backward(ctx, grad):
                with torch.enable_grad():
                    tensors = [saved.detach().requires_grad_() for saved in ctx.saved_tensors]
                    loss = linear_cross_entropy(*tensors, labels, token_weights, chunk).loss
                return torch.autograd.grad(loss, tensors, grad)

        assert torch.autograd.gradcheck(Recomputed.apply, (hidden, weight))

    def test_by_hand(self):
        """Logits (0, ln 3) give the probabilities 1/4 and 3/4; the gradient of the logits is p - onehot."""
        hidden = torch.tensor([[1.0]], requires_grad=True)
        weight = torch.tensor([[0.0], [math.log(3.0)]], requires_grad=True)
        result = linear_cross_entropy(hidden, weight, torch.tensor([0]))
        assert result.loss.item() == pytest.approx(math.log(4.0), rel=1e-6)
        grad_hidden, grad_weight = gradients(result.loss, hidden, weight)
        assert grad_weight.flatten().tolist() == pytest.approx([-0.75, 0.75], rel=1e-6)
        assert grad_hidden.item() == pytest.approx(0.75 * math.log(3.0), rel=1e-6)

    def test_scale_of_the_backward(self):
        hidden, weight, labels = inputs()
        expected = gradients(linear_cross_entropy(hidden, weight, labels).loss, hidden, weight)
        found = gradients(linear_cross_entropy(hidden, weight, labels).loss * -2.5, hidden, weight)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs * -2.5)

    def test_rows_and_positions(self):
        """Any leading shape: the losses come back in the labels' shape."""
        hidden, weight, labels = inputs(tokens=12)
        flat = linear_cross_entropy(hidden, weight, labels)
        shaped = linear_cross_entropy(hidden.view(3, 4, DIM), weight, labels.view(3, 4))
        assert shaped.token_losses.shape == (3, 4)
        torch.testing.assert_close(shaped.loss, flat.loss, rtol=0, atol=0)
        torch.testing.assert_close(shaped.token_losses.flatten(), flat.token_losses, rtol=0, atol=0)

    def test_all_ignored(self):
        hidden, weight, labels = inputs()
        result = linear_cross_entropy(hidden, weight, torch.full_like(labels, IGNORE), chunk_tokens=4)
        assert result.loss.item() == 0.0
        assert not any(grad.any() for grad in gradients(result.loss, hidden, weight))

    def test_ignored_tokens_have_no_gradient_even_from_infinite_hidden_states_weights(self):
        """A weight on an ignored token, be it infinite, is never read."""
        hidden, weight, labels = inputs()
        labels[3] = IGNORE
        token_weights = torch.ones(TOKENS)
        token_weights[3] = 1e30
        result = linear_cross_entropy(hidden, weight, labels, token_weights)
        torch.testing.assert_close(result.loss.double(), reference_cross_entropy(hidden, weight, labels)[0])
        assert not gradients(result.loss, hidden)[0][3].any()

    def test_bf16_gradient_of_the_weight_is_summed_in_float32(self):
        """Over 64 chunks the result is as good as bf16 can hold; a bf16 sum would be several times worse."""
        hidden, weight, labels = inputs(torch.bfloat16, tokens=512, vocab=8, dim=16)
        found = gradients(linear_cross_entropy(hidden, weight, labels, None, 8).loss, weight)[0]
        assert found.dtype == torch.bfloat16
        truth = gradients(reference_cross_entropy(hidden, weight, labels)[0], weight)[0]
        summed = torch.zeros_like(weight)
        for begin in range(0, 512, 8):
            part = slice(begin, begin + 8)
            chunk = linear_cross_entropy(hidden[part], weight, labels[part], None, 8)
            summed = summed + gradients(chunk.loss, weight)[0]

        def error(gradient):
            return ((gradient.double() - truth).norm() / truth.norm()).item()

        assert error(found) < 4e-3  # half a unit in the last place of bf16 is 2^-9 = 2e-3
        assert error(found) < error(summed) / 2

    def test_bf16_loss_is_close_to_float64(self):
        hidden, weight, labels = inputs(torch.bfloat16, tokens=64, vocab=32)
        result = linear_cross_entropy(hidden, weight, labels)
        assert result.loss.dtype == result.token_losses.dtype == torch.float32
        loss, _ = reference_cross_entropy(hidden, weight, labels)
        assert result.loss.item() == pytest.approx(loss.item(), rel=2e-3)

    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_huge_logits_stay_finite(self, sign):
        hidden = torch.full((4, 1), sign * 100.0, requires_grad=True)
        weight = torch.linspace(-100.0, 100.0, 9)[:, None].requires_grad_()  # logits up to 1e4
        result = linear_cross_entropy(hidden, weight, torch.tensor([0, 3, 8, IGNORE]), chunk_tokens=2)
        loss, losses = reference_cross_entropy(hidden, weight, torch.tensor([0, 3, 8, IGNORE]))
        torch.testing.assert_close(result.token_losses.double(), losses)
        for ours, theirs in zip(gradients(result.loss, hidden, weight), gradients(loss, hidden, weight), strict=True):
            assert ours.isfinite().all()
            torch.testing.assert_close(ours, theirs.to(ours.dtype))

    @pytest.mark.parametrize("label", [VOCAB, -1, -7])
    def test_label_out_of_range_raises(self, label):
        hidden, weight, labels = inputs()
        labels[2] = label
        with pytest.raises((RuntimeError, IndexError), match="out of"):
            linear_cross_entropy(hidden, weight, labels)

    def test_frozen_weight_or_hidden(self):
        hidden, weight, labels = inputs()
        expected = gradients(linear_cross_entropy(hidden, weight, labels).loss, hidden, weight)
        result = linear_cross_entropy(hidden, weight.detach(), labels, chunk_tokens=3)
        torch.testing.assert_close(gradients(result.loss, hidden)[0], expected[0])
        result = linear_cross_entropy(hidden.detach(), weight, labels, chunk_tokens=3)
        torch.testing.assert_close(gradients(result.loss, weight)[0], expected[1])
        assert not linear_cross_entropy(hidden.detach(), weight.detach(), labels).loss.requires_grad


class TestLinearTokenStatistics:
    @pytest.mark.parametrize("chunk", [1, 7, TOKENS, None])
    @pytest.mark.parametrize("temperature", [1.0, 0.3, 2.5])
    def test_values_and_gradients(self, chunk, temperature):
        hidden, weight, labels = inputs()
        left, right = torch.randn(2, TOKENS, generator=torch.Generator().manual_seed(1))
        found = linear_token_statistics(hidden, weight, labels, temperature, chunk)
        expected = reference_statistics(hidden, weight, labels, temperature)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
        ours = gradients((found.log_probs * left + found.entropies * right).sum(), hidden, weight)
        theirs = gradients((expected[0] * left + expected[1] * right).sum(), hidden, weight)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one.double(), other.double(), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("chunk", [2, 100])
    def test_gradcheck(self, chunk):
        hidden, weight, labels = inputs(torch.float64, tokens=5, vocab=7, dim=3)
        assert torch.autograd.gradcheck(
            lambda h, w: tuple(linear_token_statistics(h, w, labels, 0.7, chunk)), (hidden, weight)
        )

    def test_by_hand(self):
        """Probabilities 1/4 and 3/4 at temperature 1; at temperature 2 the odds are the square root of 3."""
        hidden = torch.tensor([[1.0]])
        weight = torch.tensor([[0.0], [math.log(3.0)]])
        plain = linear_token_statistics(hidden, weight, torch.tensor([1]))
        assert plain.log_probs.item() == pytest.approx(math.log(0.75), rel=1e-6)
        entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
        assert plain.entropies.item() == pytest.approx(entropy, rel=1e-6)
        warm = linear_token_statistics(hidden, weight, torch.tensor([1]), temperature=2.0)
        odds = math.sqrt(3.0)
        assert warm.log_probs.item() == pytest.approx(math.log(odds / (1 + odds)), rel=1e-6)

    def test_agrees_with_the_cross_entropy(self):
        hidden, weight, labels = inputs()
        losses = linear_cross_entropy(hidden, weight, labels).token_losses
        log_probs = linear_token_statistics(hidden, weight, labels).log_probs
        torch.testing.assert_close(log_probs.detach(), -losses)

    def test_ignored_labels_read_token_0(self):
        hidden, weight, labels = inputs()
        marked = labels.clone()
        marked[4] = IGNORE
        labels[4] = 0
        found, expected = (linear_token_statistics(hidden, weight, each) for each in (marked, labels))
        torch.testing.assert_close(found.log_probs, expected.log_probs, rtol=0, atol=0)

    @pytest.mark.parametrize("label", [VOCAB, -1, -7])
    def test_label_out_of_range_raises(self, label):
        hidden, weight, labels = inputs()
        labels[2] = label
        with pytest.raises((RuntimeError, IndexError), match="out of"):
            linear_token_statistics(hidden, weight, labels)

    def test_huge_logits_stay_finite(self):
        hidden = torch.full((3, 1), 100.0, requires_grad=True)
        weight = torch.linspace(-100.0, 100.0, 9)[:, None].requires_grad_()
        labels = torch.tensor([0, 3, 8])
        found = linear_token_statistics(hidden, weight, labels, chunk_tokens=2)
        expected = reference_statistics(hidden, weight, labels, 1.0)
        torch.testing.assert_close(found.log_probs.double(), expected[0])
        assert found.entropies.abs().max() < 1e-6
        for each in gradients((found.log_probs + found.entropies).sum(), hidden, weight):
            assert each.isfinite().all()

    def test_bf16_gradient_of_the_weight_is_summed_in_float32(self):
        hidden, weight, labels = inputs(torch.bfloat16, tokens=512, vocab=8, dim=16)
        found = gradients(linear_token_statistics(hidden, weight, labels, 1.0, 8).log_probs.sum(), weight)[0]
        truth = gradients(reference_statistics(hidden, weight, labels, 1.0)[0].sum(), weight)[0]
        assert ((found.double() - truth).norm() / truth.norm()).item() < 4e-3

    @pytest.mark.parametrize("temperature", [0.0, -1.0])
    def test_temperature_must_be_positive(self, temperature):
        hidden, weight, labels = inputs()
        with pytest.raises(ValueError, match="temperature is invalid"):
            linear_token_statistics(hidden, weight, labels, temperature)


class LargestTensor(TorchDispatchMode):
    """The most elements that any result of an operation has."""

    elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.untyped_storage().nbytes() // leaf.element_size())
        return result


@pytest.mark.parametrize("statistics", [False, True])
def test_full_logits_are_never_alive(statistics):
    """With 64 tokens in chunks of 16 nothing is larger than 16 x V, in forward and backward; the reference is not so."""
    tokens, vocab, dim, chunk = 64, 96, 8, 16
    hidden, weight, labels = inputs(tokens=tokens, vocab=vocab, dim=dim)
    with LargestTensor() as largest:
        if statistics:
            linear_token_statistics(hidden, weight, labels, 1.0, chunk).log_probs.sum().backward()
        else:
            linear_cross_entropy(hidden, weight, labels, None, chunk).loss.backward()
    assert largest.elements == chunk * vocab
    with LargestTensor() as largest:
        reference_cross_entropy(hidden, weight, labels)[0].backward()
    assert largest.elements == tokens * vocab


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_default_chunk_holds_the_stated_memory(dtype, size):
    """128 MB of logits at the paper's vocabulary, and never fewer than 16 tokens."""
    tokens = tokens_per_chunk(torch.empty(166_144, 1, dtype=dtype))
    assert tokens % 16 == 0
    assert 0.9 * 2**27 < tokens * 166_144 * size <= 2**27
    assert tokens_per_chunk(torch.empty(2**30, 1, dtype=dtype, device="meta")) == 16


@pytest.mark.parametrize("chunk", [None, 3])
def test_no_tokens_at_all(chunk):
    """Zeros, and not what was in memory."""
    hidden, weight, labels = inputs(tokens=0)
    result = linear_cross_entropy(hidden, weight, labels, chunk_tokens=chunk)
    assert result.loss.item() == 0.0
    assert not gradients(result.loss, weight)[0].any()
    statistics = linear_token_statistics(hidden, weight, labels, chunk_tokens=chunk)
    assert statistics.log_probs.shape == statistics.entropies.shape == (0,)
    assert not gradients(statistics.log_probs.sum(), weight)[0].any()


@pytest.mark.parametrize("peak", [5.0, 20.3, 80.7])
def test_losses_of_confident_tokens_are_precise(peak):
    """Losses of 1e-4 to 1 with logits of 80, in float32 and float64 on the same (exact) logits: six digits of each."""
    vocab = 64
    losses = torch.tensor([1e-4, 3e-4, 1e-3, 1e-2, 0.1, 1.0], dtype=torch.float64)
    logits = torch.full((len(losses), vocab), peak, dtype=torch.float64)
    logits[:, 1:] += torch.log(torch.expm1(losses) / (vocab - 1))[:, None]
    hidden = logits.float().requires_grad_()
    weight = torch.eye(vocab)  # products with it are exact
    labels = torch.zeros(len(losses), dtype=torch.int64)
    expected = -hidden.detach().double().log_softmax(dim=-1)[:, 0]
    slopes = hidden.detach().double().softmax(dim=-1)[:, 0] - 1
    result = linear_cross_entropy(hidden, weight, labels)
    statistics = linear_token_statistics(hidden, weight, labels)
    scores = linear_token_scores(hidden.detach(), weight, labels)
    for found in (result.token_losses, -statistics.log_probs.detach(), scores.losses):
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
    (gradient,) = gradients(result.loss, hidden)
    torch.testing.assert_close(gradient[:, 0].double(), slopes, rtol=1e-6, atol=0)
    (gradient,) = gradients(-statistics.log_probs.sum(), hidden)
    torch.testing.assert_close(gradient[:, 0].double(), slopes, rtol=0, atol=1.5e-7)
