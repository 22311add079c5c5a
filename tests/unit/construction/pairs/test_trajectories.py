"""`nbg build-trajectories`: which episodes become conversations, which turns are trained, and the cost of a kill."""

import json
import random

import pytest

from nbg_lightning.chat.conversation import Conversation
from nbg_lightning.construction.chat_models import ChatModelConfig
from nbg_lightning.construction.pairs.trajectories import TrajectoryBuilder
from nbg_lightning.data.chat_sources import ChatJsonLines
from nbg_lightning.data.tokenizer import Tokenizer
from nbg_lightning.engines.chat import ChatFormat
from nbg_lightning.engines.protocol import Completion
from nbg_lightning.environments import EpisodeLimits, ToolEnvironment
from nbg_lightning.rewards.protocol import Reward, RewardResult
from nbg_lightning.testing.benchmarks import AnsweringEngine
from nbg_lightning.testing.grpo import small_tokenizer
from nbg_lightning.testing.prices import PriceQuestions

TOOLS = ["nbg_lightning.testing.prices.price", "nbg_lightning.testing.prices.times"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(small_tokenizer(tmp_path_factory.mktemp("tokenizer")))


class Announced(Reward):
    """1 for the gold answer as the last word."""

    name = "announced"

    def score(self, groups):
        return [
            [RewardResult(float(f"is {group.question.answer}." in answer.final)) for answer in group.answers]
            for group in groups
        ]


class Shopper(AnsweringEngine):
    """Buys by two calls; by the turn's seed it sometimes calls a tool that there is not first, or answers too early.

    Args:
        folder: of the tokenizer.
        dies_after: turns after which the process is killed.
    """

    def __init__(self, folder, dies_after=None):
        self.tokenizer, self.identity, self.dies_after = Tokenizer(folder), {"name": "shopper"}, dies_after
        self.stop = self.tokenizer.transformers.convert_tokens_to_ids("<|im_end|>")
        super().__init__(lambda prompt, sample: self._turn(prompt))

    def generate(self, prompts, sampling, deadline=None):
        if self.dies_after is not None and sum(len(prompts) for prompts, _ in self.calls) >= self.dies_after:
            raise KeyboardInterrupt
        return super().generate(prompts, sampling, deadline)

    def _turn(self, prompt):
        ids = (*self.tokenizer.encode(self._said(prompt)), self.stop)
        return Completion(ids, (-1.0,) * len(ids), "stop", 0, 0, 0)

    def _said(self, prompt):
        text = self.tokenizer.decode(prompt.ids)
        number, things = text.rpartition("What do ")[2].split(" cost?")[0].split()
        results = [part.split("\n</tool_response>")[0] for part in text.split("<tool_response>\n")[1:]]
        found = [result for result in results if result.isdigit()]
        draw = random.Random(prompt.seed).random()
        if not results and draw < 0.4:
            return self._call("prices", item=things[:-1])
        if not found:
            return self._call("price", item=things[:-1]) if draw < 0.9 else "The answer is 0."
        if len(found) == 1:
            return self._call("times", a=int(number), b=int(found[0]))
        return f"The answer is {found[1]}."

    @staticmethod
    def _call(name, **arguments):
        return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def builder(out, folder, engine=None, **settings):
    return TrajectoryBuilder(
        out=str(out),
        questions={"shop": PriceQuestions(count=settings.pop("count", 10))},
        environment=ToolEnvironment(TOOLS, limits=EpisodeLimits(isolated=False)),
        reward=Announced(),
        model=ChatModelConfig(engine or Shopper(folder), folder, "nanbeige"),
        **{"samples": 4, "max_new_tokens": 100, "progress": False, "questions_per_call": 4, **settings},
    )


def rows_of(out):
    return [json.loads(line) for line in (out / "conversations.jsonl").read_text().splitlines()]


def test_the_best_episodes_become_conversations_without_doubles(tmp_path, folder):
    report = builder(tmp_path / "a", folder, keep=4).run()
    rows = rows_of(tmp_path / "a")
    assert report["conversations"] == len(rows) > 10
    for row in rows:
        assert row["score"] == 1.0 and row["source"] == "shop"
        assert [tool["function"]["name"] for tool in row["tools"]] == ["price", "times"]
        assert row["messages"][-1]["content"].startswith("The answer is ")
    of_question = {}
    for row in rows:
        of_question.setdefault(row["id"].rpartition("-")[0], []).append(row)
    for own in of_question.values():
        assert len({json.dumps(row["messages"]) for row in own}) == len(own), "each way once"
        bad = [row["num_bad_turns"] for row in own]
        assert bad == sorted(bad), "those without a bad turn first"
    assert {row["num_bad_turns"] for row in rows} == {0, 1}
    assert all(row["num_bad_turns"] == 0 for row in rows_of_best(tmp_path, folder))


def rows_of_best(tmp_path, folder):
    builder(tmp_path / "a", folder, keep=1, max_bad_turns=0).run()  # the same answers, by another rule
    return rows_of(tmp_path / "a")


def test_bad_turns_are_in_the_context_and_not_trained(tmp_path, folder):
    builder(tmp_path / "a", folder, keep=4).run()
    tokenizer = Tokenizer(folder)
    renderer = ChatFormat(tokenizer, "nanbeige").renderer
    masked = next(row for row in rows_of(tmp_path / "a") if row["num_bad_turns"] == 1)
    flags = [message.get("train", True) for message in masked["messages"] if message["role"] == "assistant"]
    assert flags == [False, True, True, True]
    (part,) = ChatJsonLines(str(tmp_path / "a" / "conversations.jsonl")).parts()
    assert len(list(part.rows())) == len(rows_of(tmp_path / "a"))
    conversation = Conversation.from_dict(masked)
    rendered = renderer.render(conversation)
    text = tokenizer.decode(rendered.ids)
    assert '"name": "prices"' in text and "there is no tool" in text
    trained = [
        tokenizer.decode(rendered.ids[begin:end])
        for begin, end, kind in rendered.spans
        if kind == "assistant" and rendered.loss_weights[begin] > 0
    ]
    assert len(trained) == 3 and not any('"prices"' in each for each in trained)


def test_a_build_that_was_killed_ends_with_the_bytes_of_a_straight_one(tmp_path, folder):
    straight = builder(tmp_path / "straight", folder).run()
    for turns in (0, 66):
        with pytest.raises(KeyboardInterrupt):
            builder(tmp_path / "cut", folder, Shopper(folder, turns)).run()
    there = len((tmp_path / "cut" / "model.jsonl").read_text().splitlines())
    assert 0 < there < 10
    report = builder(tmp_path / "cut", folder).run()
    assert report["conversations_hash"] == straight["conversations_hash"]
    engine = Shopper(folder)
    builder(tmp_path / "cut", folder, engine).run()
    assert engine.calls == [], "nothing is played again"
    other = builder(tmp_path / "cut", folder)
    other.environment.instruction = "Be quick."
    with pytest.raises(ValueError, match="a build with other settings"):
        other.run()


def test_a_build_without_a_good_episode_says_why(tmp_path, folder):
    with pytest.raises(RuntimeError, match="2 no right answer"):
        builder(tmp_path / "none", folder, count=2, min_score=2.0).run()
    outcomes = json.loads((tmp_path / "none" / "report.json").read_text())
    assert outcomes["answers"] == {"answered": 8}
