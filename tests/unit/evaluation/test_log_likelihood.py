"""Log-likelihoods against full logits and against transformers, and cases without one."""

import math

import pytest
import torch

from nbg_lightning.core.create import create_model
from nbg_lightning.core.decode import Decoder
from nbg_lightning.engines.protocol import TokenScore
from nbg_lightning.evaluation import log_likelihood
from nbg_lightning.evaluation.log_likelihood import EngineScorer, LogLikelihoodScorer, Request, rolling_requests
from nbg_lightning.testing import SMALL_SHAPE


@pytest.fixture(scope="module")
def model():
    return create_model(SMALL_SHAPE, seed=3)


def requests(count=40, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(most):
        length = int(torch.randint(1, most, (1,), generator=generator))
        return tuple(torch.randint(0, SMALL_SHAPE.vocab_size, (length,), generator=generator).tolist())

    found = [Request(draw(30), draw(9)) for _ in range(count)]
    letters = [Request(found[0].context, (letter,)) for letter in range(5)]
    return [*found, *letters]


@torch.no_grad()
def reference(model, request):
    """Full float64 softmax of one unpacked sequence."""
    ids = torch.tensor([request.context + request.continuation])
    logits = model(ids)[0].double().log_softmax(-1)
    begin = len(request.context) - 1
    rows = logits[begin:-1]
    labels = torch.tensor(request.continuation)
    return rows.gather(1, labels[:, None]).sum().item(), bool((rows.argmax(-1) == labels).all())


@pytest.mark.parametrize("row_tokens", [1, 64, 8192])
def test_equals_full_logits(model, row_tokens):
    asked = requests()
    found = LogLikelihoodScorer(model, row_tokens)(asked)
    for request, result in zip(asked, found, strict=True):
        total, greedy = reference(model, request)
        assert result.total == pytest.approx(total, abs=1e-4)
        assert result.is_greedy == greedy
        assert result.num_tokens == len(request.continuation)


def few_shot(count=12):
    """Questions behind the same examples, each with four endings, one of which is a letter."""
    draw = torch.Generator().manual_seed(2)

    def ids(length):
        return tuple(torch.randint(0, SMALL_SHAPE.vocab_size, (length,), generator=draw).tolist())

    examples = ids(40)
    questions = [examples + ids(20) for _ in range(count)]
    return [Request(question, ids(length)) for question in questions for length in (1, 3, 5, 5)]


@pytest.mark.parametrize("row_tokens", [1, 100, 8192])
@pytest.mark.parametrize("share", [False, "auto", True])
def test_shared_examples_and_contexts_change_no_number(model, row_tokens, share):
    asked = few_shot(3)
    found = LogLikelihoodScorer(model, row_tokens, share_prefixes=share)(asked)
    for request, result in zip(asked, found, strict=True):
        total, greedy = reference(model, request)
        assert result.total == pytest.approx(total, abs=1e-4)
        assert result.is_greedy == greedy


def test_examples_and_contexts_are_computed_once_a_row(model, monkeypatch):
    lengths = []
    residual = Decoder.residual
    monkeypatch.setattr(
        Decoder, "residual", lambda self, packed: (lengths.append(packed.tokens.numel()), residual(self, packed))[1]
    )
    asked = few_shot(12)
    for share, row_tokens in ((False, 8192), ("auto", 8192), ("auto", 200)):
        lengths.clear()
        LogLikelihoodScorer(model, row_tokens, share_prefixes=share)(asked)
        assert max(lengths) <= row_tokens
        if row_tokens == 8192:
            assert lengths == [12 * (4 * 60 + 0 + 2 + 4 + 4)] if share is False else [40 + 12 * (20 + 2 + 4 + 4)]
        else:
            assert 40 + 12 * 30 < sum(lengths) < 40 + 12 * 30 + 40 * len(lengths) + 20 * len(lengths)


class Rating:
    """An engine that rates tokens by a model, as vLLM and its server do."""

    window, vocab_size = 64, SMALL_SHAPE.vocab_size

    def __init__(self, model, fail=()):
        self.model, self.fail, self.calls = model, fail, 0

    @torch.no_grad()
    def token_scores(self, sequences):
        self.calls += 1
        found = []
        for number, ids in enumerate(sequences):
            logits = self.model(torch.tensor([ids]))[0].log_softmax(-1)
            scores = [
                TokenScore(float(row[token]), int(row.argmax()) == token)
                for row, token in zip(logits[:-1], ids[1:], strict=True)
            ]
            found.append("the server is gone" if number in self.fail else scores)
        return found


def test_an_engine_that_rates_tokens_says_the_same(model):
    asked = [*requests(), Request((1,) * 61, (2, 3, 4)), Request((), (1,)), Request((1,), (SMALL_SHAPE.vocab_size,))]
    engine = Rating(model, fail=(3,))
    found, native = EngineScorer(engine)(asked), LogLikelihoodScorer(model)(asked)
    assert engine.calls == 1
    assert [each.num_tokens for each in found] == [each.num_tokens for each in native]
    good = [index for index in range(len(requests())) if index != 3]
    assert [found[i].is_greedy for i in good] == [native[i].is_greedy for i in good]
    assert [found[i].total for i in good] == pytest.approx([native[i].total for i in good], abs=1e-4)
    assert found[3].error == "the server is gone"
    assert math.isnan(found[3].total)
    assert "the window is 62" in found[-3].error, "an engine writes a token too"
    assert found[-2].error == native[-2].error
    assert found[-1].error == native[-1].error


def test_greedy_continuations_are_known(model):
    with torch.no_grad():
        best = int(model(torch.tensor([[5, 6, 7]]))[0, -1].argmax())
    right, wrong = LogLikelihoodScorer(model)([Request((5, 6, 7), (best,)), Request((5, 6, 7), ((best + 1) % 61,))])
    assert right.is_greedy
    assert not wrong.is_greedy


def test_letters_share_one_forward(model, monkeypatch):
    rows = []
    rate = log_likelihood._rate
    monkeypatch.setattr(
        log_likelihood, "_rate", lambda decoder, row, *rest: (rows.append(row), rate(decoder, row, *rest))
    )
    LogLikelihoodScorer(model)([Request((1, 2, 3), (letter,)) for letter in range(4)])
    assert rows == [[(1, 2, 3)]]


def test_longest_first_and_no_row_too_long(model, monkeypatch):
    rows = []
    rate = log_likelihood._rate
    monkeypatch.setattr(
        log_likelihood, "_rate", lambda decoder, row, *rest: (rows.append(row), rate(decoder, row, *rest))
    )
    LogLikelihoodScorer(model, 64)(requests())
    lengths = [len(ids) for row in rows for ids in row]
    assert lengths == sorted(lengths, reverse=True)
    assert all(sum(map(len, row)) <= 64 for row in rows)


def test_leaves_no_trace(model):
    model.train()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    LogLikelihoodScorer(model)(requests(4))
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    model(torch.tensor([[1, 2]])).sum().backward()  # nothing was left in inference mode
    model.zero_grad()


def test_what_cannot_be_rated_says_why(model):
    asked = [Request((), (1,)), Request((1,), ()), Request((1,) * 20, (2,)), Request((1,), (99,)), Request((1,), (2,))]
    found = LogLikelihoodScorer(model, window=16)(asked)
    for result, reason in zip(
        found, ["at least one", "at least one", "window is 16", "not in the vocabulary"], strict=False
    ):
        assert reason in result.error
        assert math.isnan(result.total)
    assert found[-1].error is None


def test_not_finite_weights_are_errors(model):
    broken = create_model(SMALL_SHAPE)
    with torch.no_grad():
        broken.norm.weight[0] = math.nan
    (result,) = LogLikelihoodScorer(broken)([Request((1, 2), (3,))])
    assert "not finite" in result.error


def test_nothing_asked(model):
    assert LogLikelihoodScorer(model)([]) == []


@pytest.mark.parametrize("length", [1, 4, 5, 8, 9, 23])
def test_rolling_requests_predict_each_token_once(length):
    ids = list(range(1, length + 1))
    found = rolling_requests(ids, 0, 4)
    assert [token for request in found for token in request.continuation] == ids
    for request in found:
        assert len(request.context) + len(request.continuation) - 1 <= 4
    assert len(found[-1].context) + len(found[-1].continuation) - 1 == min(length, 4), "the last window is full"


def test_equals_transformers(tmp_path):
    """On a Hugging Face folder, as lm-eval's own back end computes it (log-softmax of the logits, gathered, summed)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from nbg_lightning.core.weights import load_base_weights, read_shape

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=128, tie_word_embeddings=False, initializer_range=0.3,
    )  # fmt: skip
    theirs = LlamaForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = create_model(read_shape(tmp_path))
    load_base_weights(ours, tmp_path)
    asked = requests(24, seed=1)
    for request, result in zip(asked, LogLikelihoodScorer(ours, 128)(asked), strict=True):
        ids = torch.tensor([request.context + request.continuation])
        with torch.no_grad():
            rows = theirs(ids).logits[0, len(request.context) - 1 : -1].log_softmax(-1)
        expected = rows.gather(1, torch.tensor(request.continuation)[:, None]).sum().item()
        assert result.total == pytest.approx(expected, abs=1e-4)
        assert result.is_greedy == bool((rows.argmax(-1) == torch.tensor(request.continuation)).all())
