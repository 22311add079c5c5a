"""Attention over packed documents against one call per document, and against the definition."""

import pytest
import torch

from nbg_lightning.core import attention
from nbg_lightning.core.attention import attention_per_document, document_attention
from nbg_lightning.core.batch import document_offsets

HEADS, KV_HEADS, DIM = 4, 2, 8
SCALE = DIM**-0.5
LENGTHS = {
    "one": [11],
    "single tokens": [1, 1, 1],
    "mixed": [3, 1, 5, 5, 2, 1],
    "equal": [4, 4, 4],
    "runs": [2, 2, 7, 3, 3, 3, 1],
}


def packed(lengths, dtype=torch.float32, heads=HEADS, kv_heads=KV_HEADS, dim=DIM, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = sum(lengths)

    def draw(count):
        values = torch.randn(tokens, count, dim, generator=generator, dtype=torch.float64)
        return values.to(dtype).requires_grad_()

    offsets = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)
    return draw(heads), draw(kv_heads), draw(kv_heads), offsets


def by_definition(q, k, v, offsets, scale):
    """softmax(q k^T scale + mask) v in float64, with the whole mask over all documents written out."""
    tokens, heads, kv_heads = len(q), q.shape[1], k.shape[1]
    document = torch.bucketize(torch.arange(tokens), offsets[1:].long(), right=True)
    position = torch.arange(tokens)
    allowed = (document[:, None] == document) & (position[:, None] >= position)
    k, v = (x.double().repeat_interleave(heads // kv_heads, dim=1) for x in (k, v))
    scores = torch.einsum("qnh,knh->nqk", q.double(), k) * scale
    return torch.einsum("nqk,knh->qnh", scores.masked_fill(~allowed, float("-inf")).softmax(-1), v)


def value_and_gradients(function, q, k, v, offsets):
    out = function(q, k, v, offsets)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return out, *torch.autograd.grad((out.double() * weights).sum(), (q, k, v))


def operator(q, k, v, offsets):
    return document_attention(q, k, v, offsets, int(offsets.diff().max()), SCALE)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
class TestPackedDocuments:
    def test_equals_the_definition(self, lengths, kv_heads):
        data = packed(lengths, kv_heads=kv_heads)
        expected = value_and_gradients(lambda q, k, v, o: by_definition(q, k, v, o, SCALE), *data)
        for found, truth in zip(value_and_gradients(operator, *data), expected, strict=True):
            torch.testing.assert_close(found.double(), truth.double(), rtol=1e-5, atol=1e-6)

    def test_equals_each_document_alone(self, lengths, kv_heads):
        """Packed and separate: the same values and gradients to 1e-6."""
        q, k, v, offsets = packed(lengths, kv_heads=kv_heads)

        def separately(q, k, v, offsets):
            parts = [slice(a, b) for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]
            alone = [torch.tensor([0, part.stop - part.start], dtype=torch.int32) for part in parts]
            return torch.cat([operator(q[p], k[p], v[p], o) for p, o in zip(parts, alone, strict=True)])

        expected = value_and_gradients(separately, q, k, v, offsets)
        for found, alone in zip(value_and_gradients(operator, q, k, v, offsets), expected, strict=True):
            torch.testing.assert_close(found, alone, rtol=0, atol=1e-6)

    def test_portable_path_equals_the_operator(self, lengths, kv_heads):
        data = packed(lengths, kv_heads=kv_heads)
        portable = value_and_gradients(lambda q, k, v, o: attention_per_document(q, k, v, o, SCALE), *data)
        for found, other in zip(value_and_gradients(operator, *data), portable, strict=True):
            torch.testing.assert_close(found, other, rtol=1e-5, atol=1e-6)


def test_no_document_sees_another():
    """Changing a document to infinity leaves its neighbours' outputs as they were, bit for bit."""
    q, k, v, offsets = packed([3, 4, 2])
    before = operator(q, k, v, offsets)
    with torch.no_grad():
        for x in (q, k, v):
            x[3:7] = float("nan")
    after = operator(q, k, v, offsets)
    assert torch.equal(before[:3], after[:3])
    assert torch.equal(before[7:], after[7:])
    assert after[3:7].isnan().all()


def test_equal_lengths_go_in_one_call_and_give_what_the_ragged_path_gives(monkeypatch):
    q, k, v, offsets = packed([5, 5, 5, 2])
    assert attention._batches(offsets) == [(0, 3, 5), (15, 1, 2)]
    batched = value_and_gradients(operator, q, k, v, offsets)
    one_by_one = [(0, 1, 5), (5, 1, 5), (10, 1, 5), (15, 1, 2)]
    monkeypatch.setattr(attention, "_batches", lambda offsets: one_by_one)
    for found, ragged in zip(batched, value_and_gradients(operator, q, k, v, offsets), strict=True):
        torch.testing.assert_close(found, ragged, rtol=0, atol=1e-6)


@pytest.mark.parametrize("lengths", [[4], [1, 3], [2, 2, 1]])
def test_gradcheck(lengths):
    q, k, v, offsets = packed(lengths, torch.float64, heads=2, kv_heads=1, dim=2)
    assert torch.autograd.gradcheck(lambda q, k, v: document_attention(q, k, v, offsets, 4, 0.7), (q, k, v))


def test_bf16_is_close_and_stays_bf16():
    q, k, v, offsets = packed([6, 2, 3], torch.bfloat16)
    out = operator(q, k, v, offsets)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), by_definition(q, k, v, offsets, SCALE), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("length", [1, 7, 192, 193])
def test_bf16_gradients_are_as_close_as_their_dtype(length):
    """Short documents have their backward in float32: what is left is the rounding of inputs, output and gradients."""
    q, k, v, offsets = packed([length, 2], torch.bfloat16)
    found = value_and_gradients(operator, q, k, v, offsets)
    doubles = (x.detach().double().requires_grad_() for x in (q, k, v))
    exact = value_and_gradients(lambda *data: by_definition(*data, SCALE), *doubles, offsets)
    for given, right in zip(found[1:], exact[1:], strict=True):
        assert given.dtype == torch.bfloat16
        assert (given.double() - right).norm() <= 2**-7 * right.norm()


def test_by_hand():
    """Two keys with equal scores weigh one half each; the first token sees only itself."""
    q = torch.zeros(3, 1, 2)
    v = torch.tensor([[2.0, 0.0], [4.0, 6.0], [10.0, 10.0]])[:, None]
    out = document_attention(q, q, v, torch.tensor([0, 2, 3], dtype=torch.int32), 2, 1.0)
    assert out[:, 0].tolist() == [[2.0, 0.0], [3.0, 3.0], [10.0, 10.0]]


def test_operator_is_sound():
    """Schema, fake tensors, autograd registration and AOT dispatch of the custom operators."""
    q, k, v, offsets = packed([3, 3, 2])
    torch.library.opcheck(torch.ops.nbg.document_attention, (q, k, v, offsets, SCALE))
    with torch.no_grad():
        out, lse = torch.ops.nbg.document_attention(q, k, v, offsets, SCALE)
    plain = [x.detach() for x in (q, k, v)]
    arguments = (torch.randn_like(out), *plain, out, lse, offsets, SCALE)
    torch.library.opcheck(torch.ops.nbg.document_attention_backward, arguments)


def test_compiled_whole():
    """One graph without breaks, for other documents and other token counts too."""
    compiled = torch.compile(operator_without_sync, fullgraph=True, backend="aot_eager")
    for lengths in ([3, 1, 4], [2, 6], [5, 4, 1]):
        data = packed(lengths)
        expected = value_and_gradients(operator_without_sync, *data)
        for found, eager in zip(value_and_gradients(compiled, *data), expected, strict=True):
            torch.testing.assert_close(found, eager, rtol=0, atol=1e-6)


def operator_without_sync(q, k, v, offsets):
    return document_attention(q, k, v, offsets, 16, SCALE) * 2.0


def test_offsets_from_positions():
    positions = torch.tensor([[0, 1, 2, 0], [0, 1, 0, 1]])
    offsets = document_offsets(positions)
    assert offsets.tolist() == [0, 3, 4, 6, 8]
    assert offsets.dtype == torch.int32
