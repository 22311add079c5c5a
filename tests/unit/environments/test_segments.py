"""Token exactness over turns: the sampled tokens are trained, in the context they were sampled in."""

import dataclasses

import pytest
import torch
from shop import FORMATS, Shop, chat_format, script

from nbg_lightning.data.question import Question
from nbg_lightning.engines.protocol import Prompt, Sampling
from nbg_lightning.environments.driver import EpisodeDriver
from nbg_lightning.environments.environment import End
from nbg_lightning.rl.policy_loss import PolicyLossConfig, policy_terms, rollout_statistics
from nbg_lightning.rl.rollout_batch import pack_answers, trained_answers
from nbg_lightning.rl.rollouts import Rollout

TEMPERATURE = 0.7


@pytest.fixture(scope="module", params=FORMATS)
def played(request, scripted, tokenizer, tmp_path_factory):
    format = chat_format(request.param, tokenizer, tmp_path_factory.mktemp("formats"))
    question = Question(({"role": "user", "content": "What do 2 pens cost?"},))
    engine = scripted(script(request.param))
    with EpisodeDriver(Shop(), window=4096) as driver:
        prompt = format.prompt(list(question.messages), None, seed=1)
        sampling = Sampling(200, TEMPERATURE, n=2, seed=3)
        (episodes,) = driver.play([question], [prompt], format, sampling, engine, 60.0)
    return request.param, question, episodes, engine


def trained(question, episodes):
    rollout = Rollout(question, Prompt((1,)), episodes, (), advantages=(1.0, -0.5), trained=(True, True))
    return trained_answers([rollout])


def test_an_episode_is_played_to_its_end(played):
    name, _, episodes, engine = played
    for episode in episodes:
        assert (episode.end, episode.num_turns, episode.score) == (End.ANSWERED, 6, 0.5), episode.detail
        assert episode.turn_scores == (None, 0.25, None, 0.25, None, 0.5)
        assert [m["role"] for m in episode.messages] == ["user", *["assistant", "tool", "assistant", "user"] * 3][:-1]
        # Reasoning is dropped at each further question of the user: there a row begins.
        assert len(episode.segments) == (1 if name == "llama" else 3)
    assert engine.rounds == [2] * 6  # the turns of both are drawn together


@pytest.mark.parametrize("shortest", [None, 1])
def test_replaying_an_episode_gives_the_engines_log_probs(played, model, shortest):
    _, question, episodes, _ = played
    answers = trained(question, episodes)
    batch = pack_answers(answers, shortest)
    found = rollout_statistics(model, batch, TEMPERATURE).log_probs
    torch.testing.assert_close(found, batch.engine_log_probs, rtol=0, atol=1e-4)
    drawn = [episode.completion for episode in episodes]
    assert batch.targets.tolist() == [token for completion in drawn for token in completion.ids]
    assert batch.lengths.tolist() == [len(completion.ids) for completion in drawn]
    assert batch.num_answers == 2


def test_the_gradient_is_where_the_model_wrote(played, model):
    """The loss by the logits of every position: zero but at those that predict an id that was drawn."""
    _, question, episodes, _ = played
    answers = trained(question, episodes)
    batch = pack_answers(answers)
    logits = model(*batch.input)[0].detach().requires_grad_()
    log_probs = (logits / TEMPERATURE).log_softmax(-1)[batch.predicting].gather(1, batch.targets[:, None])[:, 0]
    policy_terms(log_probs, batch, PolicyLossConfig("grpo"), 200).sums["policy"].backward()
    expected = []
    for row in (row for answer in answers for row in answer.rows):
        predicts = [False] * (len(row.prompt) - 1) + list(row.drawn)
        expected += predicts
    assert logits.grad.abs().sum(-1).gt(0).tolist() == expected
    foreign = sum(len(row.drawn) - sum(row.drawn) for answer in answers for row in answer.rows)
    assert foreign > 20  # there is context between turns


def test_what_was_drawn_is_never_encoded_again(played, tokenizer):
    """The script writes calls and reasoning with spaces that no template would: they stay where they were drawn."""
    name, _, episodes, _ = played
    for episode in episodes:
        for segment in episode.segments:
            own = tokenizer.decode([t for t, drawn in zip(segment.ids, segment.drawn, strict=True) if drawn])
            assert '"parameters":  {' in own if name == "llama" else '"name":   "price"' in own
            assert "so  it  is" in own or name == "llama"


def test_rows_of_one_answer_count_as_one(played, model):
    """A mean over the answer's tokens, whether they stand in one row or three."""
    _, question, episodes, _ = played
    (answer, _) = trained(question, episodes)
    whole = pack_answers([answer])
    parts = pack_answers(
        [dataclasses.replace(answer, completion=r.completion, prompt=r.prompt, log_probs=r.log_probs, drawn=r.drawn, further=())
         for r in answer.rows]
    )  # fmt: skip
    assert whole.num_answers == 1 and parts.num_answers == len(answer.rows)
    assert whole.num_trained == parts.num_trained
