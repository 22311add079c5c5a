"""Scores of an in-process reward model: those of its own forward, independent of the batch; and unscored answers."""

import dataclasses

import pytest
import torch
from answers import UNENDING, asked, group, scores, written

from nbg_lightning.core.create import create_model
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.data import Tokenizer
from nbg_lightning.rewards import ModelReward
from nbg_lightning.rewards.model import _sigmoid
from nbg_lightning.testing.grpo import GRPO_SHAPE, small_tokenizer

SCORES = dataclasses.replace(GRPO_SHAPE, score_head=True, tie_word_embeddings=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A reward model and a language model, with one tokenizer."""
    folder = tmp_path_factory.mktemp("reward")
    tokenizer = Tokenizer(small_tokenizer(folder))
    for name, shape in (("reward", SCORES), ("language", GRPO_SHAPE)):
        model = create_model(shape, seed=4)
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                parameter.mul_(1.0 if "norm" in parameter_name else 8.0)
        save_hugging_face(model, folder / name, tokenizer, "float32", verify=False)
    return folder


@pytest.fixture(scope="module")
def raw(folder):
    with ModelReward(str(folder / "reward"), scale="raw") as reward:
        yield reward


def test_a_score_is_read_at_the_end_of_the_turn_of_the_whole_conversation(folder, raw):
    results = raw.score([group(asked(), "it is 42", "nothing", "it is"), group(asked(), "42")])
    said = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "it is 42"}]
    renderer = raw._format.renderer
    from nbg_lightning.chat import Conversation

    rendered = renderer.render(Conversation(said))
    end = max(index for index, weight in enumerate(rendered.loss_weights) if weight) + 1
    assert rendered.ids[end - 1] in renderer.stop_ids
    with torch.no_grad():
        expected = raw._model(torch.tensor([rendered.ids[:end]]))[0, -1, 0].item()
    assert results[0][0].score == pytest.approx(expected, rel=1e-5)
    assert len({score for row in scores(results) for score in row}) == 4  # each answer has its own


def test_scores_do_not_depend_on_what_is_scored_beside(folder, raw):
    texts = ["it is 42", "nothing else", "the answer", "42"]
    together = scores(raw.score([group(asked(), *texts)]))[0]
    alone = [scores(raw.score([group(asked(), text)]))[0][0] for text in texts]
    assert together == pytest.approx(alone, rel=1e-5)
    with ModelReward(str(folder / "reward"), scale="raw", micro_batch_tokens=1) as narrow:
        assert scores(narrow.score([group(asked(), *texts)]))[0] == pytest.approx(alone, rel=1e-5)


def test_a_probability_is_the_sigmoid_of_the_score(folder, raw):
    groups = [group(asked(), "it is 42", "nothing")]
    with ModelReward(str(folder / "reward")) as reward:
        found = scores(reward.score(groups))[0]
    assert found == pytest.approx([1 / (1 + 2.718281828459045**-score) for score in scores(raw.score(groups))[0]])
    assert (_sigmoid(1e4), _sigmoid(-1e4), _sigmoid(0.0)) == (1.0, 0.0, 0.5)


def test_reasoning_is_shown_on_request_only(folder, raw):
    answer = written("<think>\n6 * 7\n</think>\n\n42", reasoning="6 * 7", final="42")
    plain = scores(raw.score([group(asked(), "42")]))[0][0]
    assert scores(raw.score([group(asked(), answer)]))[0][0] == pytest.approx(plain, rel=1e-6)
    with ModelReward(str(folder / "reward"), scale="raw", reasoning=True) as reward:
        assert scores(reward.score([group(asked(), answer)]))[0][0] != pytest.approx(plain, rel=1e-6)


def test_answers_without_an_end_and_too_long_ones(folder, raw):
    long = "nothing " * 400
    unending, too_long, good = raw.score([group(asked(), UNENDING, long, "42")])[0]
    assert (unending.status, unending.detail) == ("error", "the answer has no end")
    assert too_long.status == "error" and "the window of the reward model is 256" in too_long.detail
    assert good.status == "ok"
    [cut] = raw.score([group(asked(), written("it is", finish_reason="length"))])[0]
    assert (cut.status, cut.detail) == ("error", "the answer has no end")
    with ModelReward(str(folder / "reward")) as reward:
        unending = reward.score([group(asked(), UNENDING)])[0][0]
    assert (unending.score, unending.parsed) == (0.0, False)


def test_non_finite_scores_are_failures(folder, raw):
    assert raw._result(float("nan")).status == "error"
    assert "gives inf" in raw._result(float("inf")).detail


def test_nothing_to_score(raw):
    assert raw.score([]) == []
    assert raw.score([group(asked())]) == [[]]


def test_refused(folder):
    with pytest.raises(ValueError, match="names tokens and gives no score; train a reward model"):
        ModelReward(str(folder / "language"))
    with pytest.raises(ValueError, match="scale is invalid: 'logit'"):
        ModelReward(str(folder / "reward"), scale="logit")
    with pytest.raises(ValueError, match="micro_batch_tokens is invalid: 0"):
        ModelReward(str(folder / "reward"), micro_batch_tokens=0)
    with pytest.raises(FileNotFoundError):
        ModelReward("/nowhere")
    with pytest.raises(RuntimeError, match="is not open"):
        ModelReward(str(folder / "reward")).score([group(asked(), "42")])
