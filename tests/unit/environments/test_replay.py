"""What an engine samples by itself over turns, tools and cut histories has its log-probs in the trainer, by the native engine and
by vLLM. The model has been taught the shop's dialogue for a moment, so that its turns call, reason and end, in many ways."""

import dataclasses

import pytest
import torch
from shop import FORMATS, Shop, chat_format, script

from nbg_lightning.core.create import create_model
from nbg_lightning.data.question import Question
from nbg_lightning.data.tokenizer import Tokenizer, train_bpe
from nbg_lightning.engines import VLLMEngine, weight_stream, write_skeleton
from nbg_lightning.engines.native import NativeEngine
from nbg_lightning.engines.protocol import Sampling
from nbg_lightning.environments.driver import EpisodeDriver
from nbg_lightning.environments.environment import EpisodeLimits, Opening
from nbg_lightning.rl.policy_loss import rollout_statistics
from nbg_lightning.rl.rollout_batch import pack_answers, trained_answers
from nbg_lightning.rl.rollouts import Rollout
from nbg_lightning.testing.grpo import GRPO_SHAPE

TEMPERATURE = 1.0
VOCABULARY = 330
SHAPE = dataclasses.replace(
    GRPO_SHAPE,
    vocab_size=VOCABULARY,
    hidden_size=64,
    intermediate_size=128,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=64,  # vLLM's kernels for CPUs want it
    max_position_embeddings=512,
    initializer_range=0.06,
)
QUESTION = Question(({"role": "user", "content": "What do 2 pens cost?"},))


class QuietShop(Shop):
    """The shop, whose tools are not described."""

    limits = EpisodeLimits(max_turns=6, isolated=False)

    def reset(self, question):
        return Opening(super().reset(question).turns)


def play(format, engine, n, seed=0):
    with EpisodeDriver(QuietShop(), SHAPE.max_position_embeddings) as driver:
        prompt = format.prompt(list(QUESTION.messages), None, seed=seed)
        sampling = Sampling(48, TEMPERATURE, n=n, stop_ids=format.stop_ids, seed=seed)
        (episodes,) = driver.play([QUESTION], [prompt], format, sampling, engine, 120.0)
    return episodes


def batch_of(episodes, shortest=None):
    ones = (1.0,) * len(episodes)
    kept = tuple(True for _ in episodes)
    return pack_answers(trained_answers([Rollout(QUESTION, None, episodes, (), ones, kept)]), shortest)


@pytest.fixture(scope="module")
def formats(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    said = [script(name)(text) for name in FORMATS for text in ("What", "What result")]
    texts = ["What do 2 pens cost? and number 3? tool user assistant system ipython result 0 result 1", *said] * 3
    tokenizer = Tokenizer(train_bpe(texts, VOCABULARY, folder / "tokenizer"))
    return {name: chat_format(name, tokenizer, folder) for name in FORMATS}


@pytest.fixture(scope="module")
def taught(formats, scripted_engine):
    """A model that has seen the dialogue in each format, but not for long."""
    model = create_model(SHAPE, seed=0)
    dialogues = tuple(
        episode
        for name, format in formats.items()
        for episode in play(format, scripted_engine(model, format.tokenizer, script(name)), 1)
    )
    batch = batch_of(dialogues)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0)
    loss = torch.ones(())
    while loss > 0.06:
        optimizer.zero_grad()
        loss = -rollout_statistics(model, batch, 1.0).log_probs.mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def by_native(taught):
    with NativeEngine(taught) as engine:
        yield engine


@pytest.fixture(scope="module")
def by_vllm(taught, tmp_path_factory):
    folder = write_skeleton(SHAPE, tmp_path_factory.mktemp("skeleton"))
    with VLLMEngine(folder, dtype="float32") as engine:
        engine.sync(weight_stream(taught), 0)
        yield engine


ENGINES = [
    "by_native",
    pytest.param(
        "by_vllm",
        marks=[
            pytest.mark.slow,
            pytest.mark.vllm,
        ],
    ),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", FORMATS)
def test_the_trainer_gives_an_engines_own_log_probs(request, formats, taught, name, engine):
    """Samples over up to six turns, by themselves and with what rows begin with in common."""
    format = formats[name]
    episodes = play(format, request.getfixturevalue(engine).generate, n=12, seed=5)
    played = [episode for episode in episodes if episode.completion.ids]
    assert len({episode.completion.ids for episode in played}) > 6
    turns = [message for episode in played for message in episode.messages[1:]]
    assert max(episode.num_turns for episode in played) >= 3
    assert any("tool_calls" in turn for turn in turns) and any(turn["role"] == "tool" for turn in turns)
    assert max(len(episode.segments) for episode in played) > (name != "llama")  # histories were cut
    for shortest in (None, 1):
        batch = batch_of(tuple(played), shortest)
        found = rollout_statistics(taught, batch, TEMPERATURE).log_probs
        torch.testing.assert_close(found, batch.engine_log_probs, rtol=0, atol=1e-4)
        assert batch.targets.tolist() == [token for episode in played for token in episode.completion.ids]
