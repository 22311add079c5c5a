"""The head with a teacher and over pairs: float64 references in values and gradients, and hand-computed cases."""

import math
import runpy
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nbg_lightning.core import head, head_distillation
from nbg_lightning.core.head_distillation import (
    LiveTargets,
    TopK,
    linear_log_probs,
    linear_preference,
    linear_top_k,
)
from nbg_lightning.losses.distillation import Divergence, divergence, top_k_divergence
from nbg_lightning.losses.preference import Preference, preference_loss

VOCAB, DIM, TEACHER_DIM, K = 17, 5, 7, 4
LENGTHS = [3, 2, 1, 5, 9, 6, 2, 2]  # of the sequences: four pairs
TOKENS = sum(LENGTHS)
KINDS = ["forward_kl", "reverse_kl", "jensen_shannon"]


@pytest.fixture(autouse=True, params=[None, 40], ids=["", "blocks of 2"])
def blocks(request, monkeypatch):
    """Softmax over few rows at a time, and the weight's gradient by few rows: sizes that only large models reach."""
    if request.param is not None:
        monkeypatch.setitem(head_distillation._ELEMENTS_PER_BLOCK, "cpu", request.param)
        monkeypatch.setattr(head, "_ELEMENTS_PER_SLICE", 12)


def random(*size, seed, dtype=torch.float64):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def inputs(dtype=torch.float64):
    hidden = random(TOKENS, DIM, seed=0, dtype=dtype).requires_grad_()
    weight = random(VOCAB, DIM, seed=1, dtype=dtype).requires_grad_()
    labels = torch.randint(0, VOCAB, (TOKENS,), generator=torch.Generator().manual_seed(2))
    sequence = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    token_weights = random(TOKENS, seed=3).abs() / 10
    return hidden, weight, labels, sequence, token_weights


def live(vocab=VOCAB):
    return LiveTargets(random(TOKENS, TEACHER_DIM, seed=4), random(vocab, TEACHER_DIM, seed=5))


def pairs_loss(sums):
    """Of each pair another function, so that no coefficient is that of another pair."""
    ratios = sums - torch.linspace(-3, 3, len(sums), dtype=sums.dtype)
    losses = preference_loss(ratios[0::2], ratios[1::2], Preference(beta=0.7))
    return (losses * torch.arange(1, len(losses) + 1)).sum()


def reference(hidden, weight, labels, sequence, sequence_loss, teacher, token_weights, measure):
    """The definition."""
    logits = hidden @ weight.t()
    label_log_probs = logits.log_softmax(-1).gather(-1, labels[:, None]).squeeze(-1)
    sums = torch.zeros(len(LENGTHS), dtype=logits.dtype).index_add(0, sequence, label_log_probs)
    loss = sums.new_zeros(()) if sequence_loss is None else sequence_loss(sums)
    values = None
    if isinstance(teacher, TopK):
        log_p = (logits / measure.temperature).log_softmax(-1)
        values = top_k_divergence(log_p, *teacher, measure.kind, measure.mixture)
    elif teacher is not None:
        shared = min(VOCAB, len(teacher.weight))
        other = teacher.hidden @ teacher.weight.t()
        log_p, log_q = ((z[:, :shared] / measure.temperature).log_softmax(-1) for z in (logits, other))
        values = divergence(log_p, log_q, measure.kind, measure.mixture)
    if values is not None:
        loss = loss + (values * token_weights).sum()
    return loss, sums, values


def check(found, expected, tensors, tolerance=1e-11):
    torch.testing.assert_close(found.loss, expected[0], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(found.log_probs, expected[1], rtol=tolerance, atol=tolerance)
    if expected[2] is not None:
        torch.testing.assert_close(found.divergences, expected[2], rtol=tolerance, atol=tolerance)
    mine, theirs = (torch.autograd.grad(loss * -1.5, tensors) for loss in (found.loss, expected[0]))
    for ours, reference in zip(mine, theirs, strict=True):
        torch.testing.assert_close(ours, reference, rtol=tolerance, atol=tolerance)


# From one token a chunk over pairs cut by chunks to everything at once.
@pytest.mark.parametrize("chunk", [1, 4, 11, 1000])
@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize("side", ["live", "listed"])
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_values_and_gradients(chunk, kind, side, temperature):
    hidden, weight, labels, sequence, token_weights = inputs()
    measure = Divergence(kind or "forward_kl", temperature, 0.3)
    teacher = None if kind is None else live()
    if kind is not None and side == "listed":
        teacher = linear_top_k(*teacher, K, temperature)
    for sequence_loss in (pairs_loss, None) if teacher else (pairs_loss,):
        given = (sequence_loss, teacher, token_weights, measure)
        found = linear_preference(hidden, weight, labels, sequence, len(LENGTHS), *given, chunk_tokens=chunk)
        check(found, reference(hidden, weight, labels, sequence, *given), (hidden, weight))
        assert (found.sequence_loss is None) == (sequence_loss is None)


@pytest.mark.parametrize("vocab", [VOCAB - 3, VOCAB + 4])
@pytest.mark.parametrize("kind", KINDS)
def test_teacher_of_another_size_is_compared_over_what_both_have(vocab, kind):
    hidden, weight, labels, sequence, token_weights = inputs()
    given = (pairs_loss, live(vocab), token_weights, Divergence(kind))
    found = linear_preference(hidden, weight, labels, sequence, len(LENGTHS), *given, chunk_tokens=4)
    check(found, reference(hidden, weight, labels, sequence, *given), (hidden, weight))


@pytest.mark.parametrize("kind", KINDS)
def test_all_ids_listed_is_the_whole_vocabulary(kind):
    hidden, weight, labels, sequence, token_weights = inputs()
    teacher = live()
    results = []
    for targets in (teacher, linear_top_k(*teacher, VOCAB)):
        found = linear_preference(
            hidden, weight, labels, sequence, len(LENGTHS), None, targets, token_weights, Divergence(kind)
        )
        results.append((found.divergences, *torch.autograd.grad(found.loss, (hidden, weight))))
    for whole, listed in zip(*results, strict=True):
        torch.testing.assert_close(whole, listed, rtol=1e-10, atol=1e-12)


def test_listed_teacher_is_a_lower_bound():
    hidden, weight, labels, sequence, token_weights = inputs()
    for kind in KINDS:
        found = [
            linear_preference(hidden, weight, labels, sequence, 8, None, teacher, token_weights, Divergence(kind))
            for teacher in (linear_top_k(*live(), K), live())
        ]
        assert (found[0].divergences <= found[1].divergences + 1e-12).all()
        assert (found[0].divergences >= 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["live", "listed"])
def test_float32_and_bfloat16(kind, side):
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 6e-2)):
        hidden, weight, labels, sequence, token_weights = inputs(dtype)
        teacher = LiveTargets(*(tensor.to(dtype) for tensor in live()))
        if side == "listed":
            teacher = linear_top_k(*teacher, K)
        given = (pairs_loss, teacher, token_weights, Divergence(kind))
        found = linear_preference(hidden, weight, labels, sequence, len(LENGTHS), *given, chunk_tokens=4)
        assert found.loss.dtype == found.divergences.dtype == torch.float32
        doubled = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight)]
        if isinstance(teacher, LiveTargets):
            given = (pairs_loss, LiveTargets(*(t.double() for t in teacher)), token_weights, Divergence(kind))
        loss, _, _ = reference(*doubled, labels, sequence, *given)
        assert found.loss.item() == pytest.approx(loss.item(), rel=tolerance)
        mine, theirs = torch.autograd.grad(found.loss, (hidden, weight)), torch.autograd.grad(loss, doubled)
        for ours, expected in zip(mine, theirs, strict=True):
            assert ours.dtype == dtype
            assert (ours.double() - expected).norm() < tolerance * expected.norm()


def test_gradient_of_a_pair_by_hand():
    """Two ids, one token an answer: log p = log sigmoid(+-z); DPO's pull is beta sigmoid(-beta h) up and down."""
    hidden = torch.tensor([[0.0], [0.0]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0]], dtype=torch.float64, requires_grad=True)
    labels, sequence = torch.tensor([0, 1]), torch.tensor([0, 1])
    beta = 0.1

    def loss(sums):  # the reference gives the rejected answer log 3 less: h = log 3
        return preference_loss(sums[0::2], sums[1::2] - math.log(3), Preference(beta=beta)).sum()

    found = linear_preference(hidden, weight, labels, sequence, 2, loss)
    assert found.log_probs.tolist() == pytest.approx([-math.log(2)] * 2)
    pull = beta / (1 + 3**beta)
    assert found.loss.item() == pytest.approx(math.log1p(3**-beta))
    grad_hidden, grad_weight = torch.autograd.grad(found.loss, (hidden, weight))
    # logits z = (h, -h): d(-pull log p_0)/dh = -pull (1 - p_0 + p_1) = -pull for the chosen, and the other way round
    assert grad_hidden.flatten().tolist() == pytest.approx([-pull, -pull])
    assert grad_weight.flatten().tolist() == pytest.approx([0.0, 0.0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["live", "listed"])
def test_distillation_of_a_bad_answer_is_no_unlikelihood(kind, side):
    """Three ids; the rejected token has p = 0.6 and the teacher gives it 0.2: training stops at 0.2, and never goes below."""
    p, q = (torch.tensor(values, dtype=torch.float64) for values in ([0.6, 0.3, 0.1], [0.2, 0.5, 0.3]))
    weight = torch.eye(3, dtype=torch.float64)
    z = p.log()[None]
    teacher = LiveTargets(q.log()[None], weight)
    if side == "listed":
        teacher = linear_top_k(*teacher, 2)  # the rejected token is not listed: it is the tail
        assert teacher.ids.tolist() == [[1, 2]]
    label, sequence = torch.tensor([0]), torch.tensor([1])
    path = []
    for _ in range(400):
        z = z.detach().requires_grad_()
        found = linear_preference(z, weight, label, sequence, 2, None, teacher, None, Divergence(kind))
        z = z - 0.5 * torch.autograd.grad(found.loss, z)[0]
        path.append(z.softmax(-1)[0, 0].item())
    assert all(after <= before + 1e-12 for before, after in zip([0.6, *path], path, strict=False))
    assert min(path) >= 0.2 - 1e-9
    assert path[-1] == pytest.approx(0.2, abs=1e-3)


def test_forward_kl_of_a_bad_answer_by_hand():
    """Three ids: the loss is sum q log(q / p), its gradient p - q."""
    p, q = (torch.tensor(values, dtype=torch.float64) for values in ([0.6, 0.3, 0.1], [0.2, 0.5, 0.3]))
    z, weight = p.log()[None].requires_grad_(), torch.eye(3, dtype=torch.float64)
    ends = (
        torch.tensor([0]),
        torch.tensor([1]),
        2,
        None,
        LiveTargets(q.log()[None], weight),
        None,
        Divergence("forward_kl"),
    )
    loss = linear_preference(z, weight, *ends).loss
    expected = 0.2 * math.log(0.2 / 0.6) + 0.5 * math.log(0.5 / 0.3) + 0.3 * math.log(0.3 / 0.1)
    assert loss.item() == pytest.approx(expected)
    assert torch.autograd.grad(loss, z)[0].flatten().tolist() == pytest.approx([0.4, -0.2, -0.2])


def test_two_passes_only_for_a_pair_longer_than_a_chunk(monkeypatch):
    hidden, weight, labels, sequence, token_weights = inputs()
    made = []
    original = torch.mm

    def counted(a, b, **options):
        if b.shape == (DIM, VOCAB):
            made.append(len(a))
        return original(a, b, **options)

    monkeypatch.setattr(head_distillation.torch, "mm", counted)
    # Pairs of 5, 6, 15, 4 tokens in chunks of 11: the first two together, 11 + 4, of which 11 again, and the last.
    linear_preference(hidden, weight, labels, sequence, 8, pairs_loss, live(), token_weights, chunk_tokens=11)
    assert made == [11, 11, 4, 11, 4]
    made.clear()
    linear_preference(hidden, weight, labels, sequence, 8, None, live(), token_weights, chunk_tokens=11)
    assert made == [11, 11, 8]


def test_nothing_to_train():
    """A micro-batch of padding has gradients, of zeros: other ranks wait for them."""
    hidden, weight, labels, sequence, weights = (tensor[:0] for tensor in inputs())
    weight = inputs()[1]
    for teacher in (None, linear_top_k(hidden.detach(), weight, K), LiveTargets(hidden.detach(), weight.detach())):
        found = linear_preference(hidden, weight, labels, sequence, 0, pairs_loss, teacher, weights)
        assert found.loss.item() == 0 and found.log_probs.shape == (0,)
        assert not any(grad.any() for grad in torch.autograd.grad(found.loss, (hidden, weight)))


def test_without_gradients_none_are_made():
    hidden, weight, labels, sequence, token_weights = inputs()
    given = (pairs_loss, live(), token_weights)
    with_gradients = linear_preference(hidden, weight, labels, sequence, 8, *given)
    with torch.no_grad():
        without = linear_preference(hidden, weight, labels, sequence, 8, *given)
    assert not without.loss.requires_grad
    for one, other in zip(with_gradients, without, strict=True):
        torch.testing.assert_close(one.detach(), other, rtol=0, atol=0)


@pytest.mark.parametrize("chunk", [3, None])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_top_k(chunk, temperature):
    teacher = live()
    found = linear_top_k(*teacher, K, temperature, chunk)
    probs = ((teacher.hidden @ teacher.weight.t()) / temperature).softmax(-1)
    top, ids = probs.topk(K)
    assert torch.equal(found.ids, ids)
    torch.testing.assert_close(found.log_probs.exp(), top)
    torch.testing.assert_close(found.tail.exp(), 1 - top.sum(-1))
    assert (linear_top_k(*teacher, VOCAB).tail == -math.inf).all()
    for k in (0, VOCAB + 1):
        with pytest.raises(ValueError, match=rf"k is invalid: {k}; give 1 to {VOCAB}"):
            linear_top_k(*teacher, k)


def test_small_tails_are_exact():
    """A tail of e^-30 is lost in 1 - sum, and is not here."""
    logits = torch.tensor([[30.0, 0.0, 0.0, 0.0]])
    found = linear_top_k(logits, torch.eye(4), 1)
    assert found.tail.item() == pytest.approx(math.log(3) - 30, abs=1e-4)
    student = logits.clone().requires_grad_()
    zero = torch.tensor([0])
    result = linear_preference(student, torch.eye(4), zero, zero, 2, None, found)
    assert result.divergences.item() == pytest.approx(0.0, abs=1e-6)
    assert not torch.autograd.grad(result.loss, student)[0].abs().max() > 1e-6


def test_log_probs():
    hidden, weight, labels, _, _ = inputs()
    expected = (hidden @ weight.t()).log_softmax(-1).gather(-1, labels[:, None]).squeeze(-1)
    torch.testing.assert_close(linear_log_probs(hidden, weight, labels, 4), expected)


class LargestTensor(TorchDispatchMode):
    """The most elements that any result of an operation has."""

    elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.untyped_storage().nbytes() // leaf.element_size())
        return result


@pytest.mark.parametrize("side", ["live", "listed", None])
@pytest.mark.parametrize("kind", KINDS)
def test_full_logits_are_never_alive(side, kind):
    """Of neither side, in pairs longer than a chunk too."""
    tokens, vocab, chunk = 64, 96, 8
    hidden, weight = (random(size, DIM, seed=size).requires_grad_() for size in (tokens, vocab))
    teacher = LiveTargets(random(tokens, TEACHER_DIM, seed=4), random(vocab, TEACHER_DIM, seed=5)) if side else None
    if side == "listed":
        teacher = linear_top_k(*teacher, K)
    labels, sequence = torch.arange(tokens), torch.arange(tokens) // 16
    with LargestTensor() as largest:
        given = (pairs_loss, teacher, None, Divergence(kind))
        linear_preference(hidden, weight, labels, sequence, 4, *given, chunk_tokens=chunk).loss.backward()
    assert largest.elements == chunk * vocab


@pytest.mark.slow
@pytest.mark.parametrize("side", ["dpo", "dpd_cached", "dpd_live"])
def test_memory_at_the_papers_vocabulary(side):
    """At most 600 MB beyond inputs and gradients for 4,096 tokens of 166,144 ids, 512 wide."""
    file = Path(__file__).parents[3] / "benchmarks" / "performance" / "distillation_head.py"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(file.parent))
        measured_memory = runpy.run_path(str(file), run_name="benchmark")["measured_memory"]
    assert measured_memory(Namespace(tokens=4096, vocab=166_144, dim=512), side, "float32") <= 600


def test_log_probs_of_confident_tokens_are_precise():
    """As in the head without a teacher: logits of 80 do not round losses of 1e-4."""
    vocab = 64
    losses = torch.tensor([1e-4, 1e-3, 1e-2, 0.1], dtype=torch.float64)
    logits = torch.full((len(losses), vocab), 80.7, dtype=torch.float64)
    logits[:, 1:] += torch.log(torch.expm1(losses) / (vocab - 1))[:, None]
    hidden, weight = logits.float(), torch.eye(vocab)
    labels = torch.zeros(len(losses), dtype=torch.int64)
    expected = hidden.double().log_softmax(dim=-1)[:, 0]
    top = linear_top_k(hidden, weight, 3)
    result = linear_preference(hidden, weight, labels, torch.tensor([0, 0, 1, 1]), 2, torch.sum, None)
    torch.testing.assert_close(linear_log_probs(hidden, weight, labels).double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(top.log_probs[:, 0].double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        result.log_probs, torch.stack((expected[:2].sum(), expected[2:].sum())), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["live", "listed"])
def test_a_teacher_that_rules_ids_out_gives_finite_losses_and_gradients(kind, side):
    """Logits of -inf, as of ids that a teacher's vocabulary only pads."""
    hidden, weight, labels, sequence, token_weights = inputs()
    teacher = live()
    teacher.hidden[:, 0] = 1.0
    teacher.weight[3:5, 0] = -math.inf
    if side == "listed":
        teacher = linear_top_k(*teacher, VOCAB - 1)
        assert (teacher.log_probs[:, -1] == -math.inf).all() and (teacher.tail == -math.inf).all()
    given = (None, teacher, token_weights, Divergence(kind))
    found = linear_preference(hidden, weight, labels, sequence, len(LENGTHS), *given)
    assert all(each.isfinite().all() for each in torch.autograd.grad(found.loss, (hidden, weight)))
    found = linear_preference(hidden, weight, labels, sequence, len(LENGTHS), *given)
    check(found, reference(hidden, weight, labels, sequence, *given), (hidden, weight))
