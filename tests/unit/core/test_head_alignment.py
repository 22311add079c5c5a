"""Divergences over chunks: the plain ones for equal tokenizers, otherwise a float64 reference, in values and gradients."""

import math

import pytest
import torch

from nbg_lightning.core.head_alignment import (
    AlignedTeacher,
    ChunkTokens,
    ListedTeacher,
    SharedColumns,
    aligned_divergence,
    linear_alignment,
    listed_divergence,
)
from nbg_lightning.core.head_teachers import TopK
from nbg_lightning.losses.distillation import Divergence, divergence

KINDS = ["forward_kl", "reverse_kl", "jensen_shannon"]
V, U, D, E = 11, 9, 6, 5
# Ids that both have, and chunks of (ours | theirs) tokens; ids 0..5 are shared with 8 less them, the rest are each side's own.
OURS, THEIRS = torch.arange(6), torch.arange(8, 2, -1)
CHUNKS = [([1], [7]), ([9, 2], [0]), ([3], [5, 1]), ([10], [2]), ([4, 8, 0], [4, 8]), ([5], [3]), ([2], [4])]


def tokens(side):
    labels = [index for chunk in CHUNKS for index in chunk[side]]
    numbers = [number for number, chunk in enumerate(CHUNKS) for _ in chunk[side]]
    return ChunkTokens(torch.tensor(labels), torch.tensor(numbers))


def drawn(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def naive(log_p, log_q, kind, mixture=0.5, k=U):
    """The definition, chunk by chunk: both distributions as lists of probabilities; of the teacher's likeliest k ids."""
    values = []
    place, their_place = 0, 0
    back = dict(zip(THEIRS.tolist(), OURS.tolist(), strict=True))
    for mine, yours in CHUNKS:
        p, q = log_p[place].exp(), log_q[their_place].exp()
        chunk_p = torch.stack([log_p[place + i, t] for i, t in enumerate(mine)]).sum().exp()
        chunk_q = torch.stack([log_q[their_place + i, t] for i, t in enumerate(yours)]).sum().exp()
        single = len(mine) == len(yours) == 1 and back.get(yours[0]) == mine[0]
        listed = [set(log_q[their_place + i].topk(k).indices.tolist()) for i in range(len(yours))]
        whole = not single and all(t in own for t, own in zip(yours, listed, strict=True))
        begins = set() if single else {mine[0], back.get(yours[0])}
        both = zip(OURS.tolist(), THEIRS.tolist(), strict=True)
        kept = [(o, t) for o, t in both if o not in begins and t in listed[0]]
        left = [p[o] for o, _ in kept] + ([chunk_p] if whole else [])
        right = [q[t] for _, t in kept] + ([chunk_q] if whole else [])
        left.append(1 - torch.stack(left).sum())
        right.append(1 - torch.stack(right).sum())
        values.append(divergence(torch.stack(left).log(), torch.stack(right).log(), kind, mixture))
        place, their_place = place + len(mine), their_place + len(yours)
    return torch.stack(values)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_values_and_gradients_are_those_of_the_definition(kind, temperature):
    ours, theirs = tokens(0), tokens(1)
    hidden, weight = drawn(len(ours.labels), D, seed=1), drawn(V, D, seed=2)
    teacher = AlignedTeacher(drawn(len(theirs.labels), E, seed=3), drawn(U, E, seed=4), theirs)
    weights = torch.rand(len(CHUNKS), dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    log_q = (teacher.hidden @ teacher.weight.t() / temperature).log_softmax(-1)
    inputs = [each.clone().requires_grad_() for each in (hidden, weight)]
    log_p = (inputs[0] @ inputs[1].t() / temperature).log_softmax(-1)
    expected = naive(log_p, log_q, kind)
    (expected * weights).sum().backward()
    gradients = [each.grad for each in inputs]
    shared = SharedColumns.of(OURS, THEIRS, V, U)
    for chunk_tokens in (None, 1, 4):
        inputs = [each.clone().requires_grad_() for each in (hidden, weight)]
        found = linear_alignment(*inputs, ours, teacher, shared, weights, Divergence(kind, temperature), chunk_tokens)
        assert torch.allclose(found.divergences, expected.detach(), rtol=1e-9, atol=1e-12)
        assert found.loss.item() == pytest.approx((expected * weights).sum().item(), rel=1e-9)
        found.loss.backward()
        for own, reference in zip(inputs, gradients, strict=True):
            assert torch.allclose(own.grad, reference, rtol=1e-7, atol=1e-10)


def listed_by(log_q, theirs, k):
    top, ids = log_q.topk(k)
    return ListedTeacher(TopK(ids, top, torch.log1p(-top.exp().sum(-1).clamp(max=1))), theirs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [2, 5, U])
def test_what_a_teacher_lists_is_compared_as_the_definition_has_it(kind, k):
    ours, theirs = tokens(0), tokens(1)
    hidden, weight = drawn(len(ours.labels), D, seed=1), drawn(V, D, seed=2)
    log_q = (2 * drawn(len(theirs.labels), U, seed=3)).log_softmax(-1)
    inputs = [each.clone().requires_grad_() for each in (hidden, weight)]
    log_p = (inputs[0] @ inputs[1].t()).log_softmax(-1)
    expected = naive(log_p, log_q, kind, k=k)
    expected.sum().backward()
    gradients = [each.grad for each in inputs]
    shared, ones = SharedColumns.of(OURS, THEIRS, V, U), torch.ones(len(CHUNKS), dtype=torch.float64)
    for chunk_tokens in (None, 4):
        inputs = [each.clone().requires_grad_() for each in (hidden, weight)]
        teacher = listed_by(log_q, theirs, k)
        found = linear_alignment(*inputs, ours, teacher, shared, ones, Divergence(kind), chunk_tokens)
        assert torch.allclose(found.divergences, expected.detach(), rtol=1e-8, atol=1e-11)
        found.loss.backward()
        for own, reference in zip(inputs, gradients, strict=True):
            assert torch.allclose(own.grad, reference, rtol=1e-6, atol=1e-9)
    live = aligned_divergence(log_p.detach(), log_q, ours, theirs, shared, Divergence(kind))
    assert (found.divergences <= live + 1e-9).all()
    assert torch.allclose(found.divergences, live, rtol=1e-8, atol=1e-10) == (k == U)


def test_an_id_beyond_the_teachers_vocabulary_is_of_the_rest():
    ours, theirs = tokens(0), tokens(1)
    log_p = drawn(len(ours.labels), V, seed=1).log_softmax(-1)
    top, ids = (2 * drawn(len(theirs.labels), U, seed=3)).log_softmax(-1).topk(4)
    shared = SharedColumns.of(OURS, THEIRS, V, U)
    tail = torch.log1p(-top.exp().sum(-1))
    beyond = torch.where(ids == 8, U + 7, ids)
    without = torch.where(ids == 8, 1, ids)  # one of the teacher's own ids, which is in the rest too
    found, expected = (
        listed_divergence(log_p, TopK(each, top, tail), ours, theirs, shared, Divergence())
        for each in (beyond, without)
    )
    kept = ~((ids == 1).any(-1) | (theirs.labels == 1) | (theirs.labels == 8))[theirs.firsts]
    assert kept.any() and torch.equal(found[kept], expected[kept])


@pytest.mark.parametrize("kind", KINDS)
def test_equal_tokenizers_give_the_plain_divergence(kind):
    labels = torch.tensor([3, 1, 4, 1, 5])
    one = ChunkTokens(labels, torch.arange(5))
    logits, theirs = drawn(5, V, seed=6).requires_grad_(), drawn(5, V, seed=7)
    shared = SharedColumns.of(torch.arange(V), torch.arange(V), V, V)
    log_p, log_q = logits.log_softmax(-1), theirs.log_softmax(-1)
    found = aligned_divergence(log_p, log_q, one, one, shared, Divergence(kind))
    expected = divergence(log_p, log_q, kind)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    (first,) = torch.autograd.grad(found.sum(), logits, retain_graph=True)
    (second,) = torch.autograd.grad(expected.sum(), logits)
    assert torch.allclose(first, second, rtol=0, atol=1e-12)


def test_a_student_that_is_the_teacher_has_no_divergence_on_its_own_chunks():
    """Chunks of several tokens too: the same products on both sides."""
    ours = ChunkTokens(torch.tensor([9, 2, 4, 8, 0]), torch.tensor([0, 0, 1, 1, 1]))
    log_p = drawn(5, V, seed=8).log_softmax(-1)
    shared = SharedColumns.of(torch.arange(V), torch.arange(V), V, V)
    found = aligned_divergence(log_p, log_p, ours, ours, shared, Divergence("reverse_kl"))
    assert found.abs().max() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_a_certain_student_and_a_certain_teacher_stay_finite(kind):
    ours, theirs = tokens(0), tokens(1)
    logits = torch.zeros(len(ours.labels), V).scatter(1, ours.labels[:, None], 200.0).requires_grad_()
    log_q = torch.zeros(len(theirs.labels), U).scatter(1, theirs.labels[:, None] * 0, 200.0).log_softmax(-1)
    shared = SharedColumns.of(OURS, THEIRS, V, U)
    found = aligned_divergence(logits.log_softmax(-1), log_q, ours, theirs, shared, Divergence(kind))
    found.sum().backward()
    assert torch.isfinite(found).all() and (found > -1e-5).all()
    assert torch.isfinite(logits.grad).all()


def test_no_chunk_is_no_loss_with_gradients_of_zero():
    hidden, weight = drawn(1, D, seed=1).requires_grad_(), drawn(V, D, seed=2).requires_grad_()
    none = ChunkTokens(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    teacher = AlignedTeacher(drawn(0, E, seed=3), drawn(U, E, seed=4), none)
    shared = SharedColumns.of(OURS, THEIRS, V, U)
    found = linear_alignment(hidden, weight, none, teacher, shared, torch.zeros(0))
    found.loss.backward()
    assert found.loss.item() == 0 and math.isclose(hidden.grad.abs().sum().item(), 0.0)
    assert found.divergences.shape == (0,)
