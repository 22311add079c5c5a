"""Shared prefixes: the tree, attention over it, and the model, against separate sequences."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nbg_lightning.core.attention import attention_per_document, document_attention
from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.core.create import create_model
from nbg_lightning.core.documents import Documents, nested_documents
from nbg_lightning.core.head import linear_token_statistics
from nbg_lightning.core.names import clean_name
from nbg_lightning.core.prefixes import PackedSequences, pack_sequences, shortest_shared
from nbg_lightning.testing import SMALL_SHAPE

TREES = {
    "no prefix": ([4, 3], [-1, -1]),
    "one answer": ([4, 3], [-1, 0]),
    "group and another document": ([5, 2, 2, 1, 3], [-1, 0, 0, 0, -1]),
    "prefix of prefixes": ([3, 2, 1, 4, 1, 2, 2], [-1, 0, 1, 1, 0, -1, 5]),
}


def inputs(tokens, dtype=torch.float64, heads=4, kv_heads=2, dim=8):
    generator = torch.Generator().manual_seed(0)
    shapes = [(tokens, heads, dim), (tokens, kv_heads, dim), (tokens, kv_heads, dim)]
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes]


def value_and_gradients(function, qkv):
    out = function(*qkv)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return out, *torch.autograd.grad((out.double() * weights).sum(), qkv)


def seen(lengths, parents):
    """Which token attends to which, written out: ``[T, T]``."""
    document = np.repeat(np.arange(len(lengths)), lengths)
    chains = []
    for index, parent in enumerate(parents):
        chains.append({index} | (chains[parent] if parent >= 0 else set()))
    tokens = range(len(document))
    return torch.tensor([[document[k] in chains[document[q]] and k <= q for k in tokens] for q in tokens])


@pytest.mark.parametrize(("lengths", "parents"), TREES.values(), ids=TREES.keys())
class TestAttention:
    def test_equals_the_definition(self, lengths, parents):
        """softmax(q k^T scale + mask) v with the whole mask, for the operator and for the portable path."""
        documents, allowed, qkv = nested_documents(lengths, parents), seen(lengths, parents), inputs(sum(lengths))

        def by_definition(q, k, v):
            k, v = (x.repeat_interleave(2, dim=1) for x in (k, v))
            scores = torch.einsum("qnh,knh->nqk", q, k) * 0.3
            return torch.einsum("nqk,knh->qnh", scores.masked_fill(~allowed, float("-inf")).softmax(-1), v)

        expected = value_and_gradients(by_definition, qkv)
        operator = value_and_gradients(lambda q, k, v: document_attention(q, k, v, documents, 99, 0.3), qkv)
        portable = value_and_gradients(lambda q, k, v: attention_per_document(q, k, v, documents, 0.3), qkv)
        for truth, found, other in zip(expected, operator, portable, strict=True):
            torch.testing.assert_close(found, truth, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(other, truth, rtol=1e-10, atol=1e-12)

    def test_what_is_not_seen_changes_nothing(self, lengths, parents):
        """NaN in one document spoils those that go on from it, and leaves the others as they were, bit for bit."""
        documents, allowed = nested_documents(lengths, parents), seen(lengths, parents)
        q, k, v = (x.detach() for x in inputs(sum(lengths), torch.float32))
        before = document_attention(q, k, v, documents, 99, 0.3)
        for tokens in np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1]):
            changed = v.clone()
            changed[tokens] = float("nan")
            after = document_attention(q, k, changed, documents, 99, 0.3)
            touched = allowed[:, tokens].any(dim=1)
            assert torch.equal(after[~touched], before[~touched])
            assert after[allowed[:, tokens[0]]].isnan().all()

    def test_bf16_is_close_and_stays_bf16(self, lengths, parents):
        documents, qkv = nested_documents(lengths, parents), inputs(sum(lengths), torch.bfloat16)
        exact = [x.detach().double().requires_grad_() for x in qkv]
        found = value_and_gradients(lambda q, k, v: document_attention(q, k, v, documents, 99, 0.3), qkv)
        truth = value_and_gradients(lambda q, k, v: document_attention(q, k, v, documents, 99, 0.3), exact)
        assert found[0].dtype == torch.bfloat16
        for ours, theirs in zip(found, truth, strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=3e-2, atol=3e-2)


def test_gradcheck_and_operator():
    documents = nested_documents(*TREES["prefix of prefixes"])
    q, k, v = inputs(15, heads=2, kv_heads=1, dim=2)
    assert torch.autograd.gradcheck(lambda q, k, v: document_attention(q, k, v, documents, 9, 0.7), (q, k, v))
    plain = [x.detach().float().requires_grad_() for x in (q, k, v)]
    arguments = (*plain, documents.offsets, 0.7, documents.until)
    torch.library.opcheck(torch.ops.nbg.document_attention, arguments)
    with torch.no_grad():
        out, lse = torch.ops.nbg.document_attention(*arguments)
    backward = (torch.randn_like(out), *(x.detach() for x in plain), out, lse, documents.offsets, 0.7, documents.until)
    torch.library.opcheck(torch.ops.nbg.document_attention_backward, backward)


@pytest.mark.parametrize(("lengths", "parents", "problem"), [
    ([2, 2, 2], [-1, -1, 0], "document 2 is invalid: it goes on from 0; put it directly behind that"),
    ([2, 2], [-1, 1], "document 1 is invalid: it goes on from 1; give an earlier one"),
])  # fmt: skip
def test_documents_in_another_order_are_refused(lengths, parents, problem):
    with pytest.raises(ValueError, match=problem):
        nested_documents(lengths, parents)


# -- the tree ----------------------------------------------------------------------------------------------------------

sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=10), min_size=1, max_size=10)


@given(sequences, st.sampled_from([None, 1, 2, 4]))
def test_every_sequence_is_there_with_its_positions_and_its_keys(ids, shortest):
    packed = pack_sequences(ids, shortest)
    tokens, positions, documents = packed.input
    for own, places in zip(ids, packed.places, strict=True):
        assert tokens[0, places].tolist() == own
        assert positions[0, places].tolist() == list(range(len(own)))
        last = int(np.searchsorted(documents.offsets.numpy(), places[-1], side="right")) - 1
        if documents.keys is None:
            assert documents.offsets[last] + len(own) == documents.offsets[last + 1]
        else:
            begin, end = documents.key_offsets[last : last + 2]
            assert documents.keys[begin:end][: len(own)].tolist() == places.tolist()
    assert packed.num_tokens <= sum(map(len, ids))


def test_a_group_has_its_prompt_once():
    prompt = list(range(100, 140))
    packed = pack_sequences([[*prompt, answer, 1, 2] for answer in range(5)], shortest_shared("auto"))
    assert packed.num_tokens == 40 + 5 * 3
    assert packed.input.documents.until.tolist() == [55, 43, 46, 49, 52, 55]


def test_what_is_short_or_alone_is_not_shared():
    ids = [[1, 2, 3, 4], [1, 2, 3, 5], [7, 8]]
    for shortest in (None, shortest_shared("auto"), 4):
        packed = pack_sequences(ids, shortest)
        assert packed.num_tokens == 10 and packed.input.documents.until is None
    assert pack_sequences(ids, shortest_shared(True)).num_tokens == 7
    assert pack_sequences(ids, None).input.tokens.tolist() == [[1, 2, 3, 4, 1, 2, 3, 5, 7, 8]]


def test_ever_longer_sequences_are_no_trouble():
    ids = [list(range(1, length)) for length in range(2, 400)]
    assert pack_sequences(ids, 1).num_tokens == 398


@pytest.mark.parametrize("ids", [[], [[1], []], [[[1, 2]]]])
def test_nothing_to_pack(ids):
    with pytest.raises(ValueError, match="one is empty"):
        pack_sequences(ids, 1)


@pytest.mark.parametrize("setting", ["yes", 1, None, "True"])
def test_settings_that_there_are_not(setting):
    with pytest.raises(ValueError, match=r"share_prefixes is invalid: .*; choose auto, true or false"):
        shortest_shared(setting)


# -- the model ---------------------------------------------------------------------------------------------------------

DRAW = torch.Generator().manual_seed(5)
PROMPT, OTHER = (torch.randint(0, 61, (length,), generator=DRAW).tolist() for length in (9, 4))
ANSWERS = [torch.randint(0, 61, (length,), generator=DRAW).tolist() for length in (5, 3, 3, 1)]
IDS = [*([*PROMPT, *answer] for answer in ANSWERS), [*OTHER, 7], [*OTHER, 9, 11], [3, 1]]


def scored(model, packed: PackedSequences, ids):
    """Log-probability of each token after the first of each sequence; of a shared position one for each sequence."""
    places = torch.from_numpy(np.concatenate([own[:-1] for own in packed.places]))
    labels = torch.tensor([token for own in ids for token in own[1:]])

    def head(hidden_BLD, weight_VD):
        return linear_token_statistics(hidden_BLD.flatten(0, 1)[places], weight_VD, labels).log_probs.clone()

    return model(*packed.input, head)


def log_probs_and_gradients(parallel, shortest):
    model = create_model(SMALL_SHAPE, parallel, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    log_probs = scored(model, pack_sequences(IDS, shortest), IDS)
    (log_probs * torch.arange(1.0, 1 + len(log_probs))).sum().div(len(log_probs)).backward()
    return log_probs.detach(), {clean_name(name): parameter.grad for name, parameter in model.named_parameters()}


@pytest.fixture(scope="module")
def unshared():
    return log_probs_and_gradients(ParallelConfig(), None)


@pytest.mark.parametrize("options", [
    {}, {"activation_checkpointing": "selective"}, {"activation_checkpointing": "full"},
    pytest.param({"compile": True}, marks=pytest.mark.slow),
    pytest.param({"compile": True, "activation_checkpointing": "full"}, marks=pytest.mark.slow),
], ids=str)  # fmt: skip
def test_shared_is_unshared(options, unshared):
    """Log-probabilities and gradients, with checkpointing and compilation."""
    log_probs, gradients = log_probs_and_gradients(ParallelConfig(**options), 2)
    torch.testing.assert_close(log_probs, unshared[0], rtol=1e-5, atol=1e-5)
    for name, gradient in gradients.items():
        largest = unshared[1][name].abs().max()
        torch.testing.assert_close(gradient / largest, unshared[1][name] / largest, rtol=1e-5, atol=1e-5, msg=name)


def test_a_continuation_sees_only_its_prefix_and_itself():
    """The Jacobian of every output position by every input embedding is 0 exactly where it must be."""
    model = create_model(SMALL_SHAPE, seed=1).requires_grad_(False)
    packed = pack_sequences(IDS, 2)
    allowed = torch.zeros(packed.num_tokens, packed.num_tokens, dtype=torch.bool)
    for places in packed.places:
        for end in range(len(places)):
            allowed[places[end], places[: end + 1]] = True
    embedded = model.tok_embeddings(packed.input.tokens).requires_grad_()
    model.tok_embeddings.forward = lambda tokens: embedded
    outputs = model(*packed.input, lambda hidden, weight: hidden.sum(-1)[0].sin())
    for place, output in enumerate(outputs):
        (gradient,) = torch.autograd.grad(output, embedded, retain_graph=True)
        assert torch.equal(gradient[0].abs().sum(-1) > 0, allowed[place])


def test_plain_offsets_are_documents_too():
    model = create_model(SMALL_SHAPE, seed=1)
    packed = pack_sequences(IDS, None)
    tokens, positions, documents = packed.input
    expected = model(tokens, positions)
    assert torch.equal(model(tokens, positions, documents.offsets), expected)
    assert torch.equal(model(tokens, positions, Documents(documents.offsets)), expected)


def test_other_prefixes_are_not_compiled_again():
    """Attention over any tree runs in the graphs of the first two, in which sizes have become symbols."""
    torch._dynamo.reset()
    graphs = []

    def counted(graph, _):
        graphs.append(graph)
        return graph

    def attend(q, k, v, documents):
        return document_attention(q, k, v, documents, 99, 0.3) * 2.0

    compiled, draw = torch.compile(attend, fullgraph=True, backend=counted), np.random.default_rng(0)
    counts = []
    for _ in range(12):
        answers = int(draw.integers(2, 7))
        lengths = [int(draw.integers(4, 30)), *draw.integers(2, 9, answers).tolist()]
        documents, qkv = nested_documents(lengths, [-1, *[0] * answers]), inputs(sum(lengths), torch.float32)
        assert torch.equal(compiled(*qkv, documents), attend(*qkv, documents))
        counts.append(len(graphs))
    assert counts[2:] == [counts[2]] * 10
