"""No hostile answer or program scores in a reward, stops it, runs outside of the sandbox, or outlives it."""

from __future__ import annotations

import pytest
import reasoning_gym
from answered import group, question, some
from hostile_programs import CASES, TESTS, programs
from hostile_texts import PAYLOADS, answers

from nbg_lightning.data.question import Question
from nbg_lightning.rewards import CodeReward, CombinedReward, FormatReward, MathReward, ReasoningGymReward
from nbg_lightning.rewards.protocol import Reward
from nbg_lightning.scoring.checkers.kinds import EVALUATING

SETTINGS = {"size": 1, "seed": 3}


def wrong(reward: Reward, asked: Question, texts: dict[str, str]) -> dict[str, tuple[float | None, str]]:
    """The texts that are not scored 0."""
    with reward:
        assert reward.check(asked) is None
        [results] = reward.score([group(asked, list(texts.values()))])
    assert len(results) == len(texts)
    pairs = zip(texts, results, strict=True)
    return {name: (result.score, result.detail) for name, result in pairs if result.score != 0}


def test_no_answer_is_right(canary):
    assert wrong(MathReward(find="number", workers=2, deadline=2.0), question("7919"), some(answers(canary), 3)) == {}


def test_no_answer_is_right_in_the_sympy_fallback(canary):
    texts = {payload: f"\\boxed{{{payload}}}".replace("CANARY", canary) for payload in PAYLOADS[::6]}
    assert wrong(MathReward(sympy_fallback=True, workers=2), question("7919"), texts) == {}


def test_no_answer_to_a_task_is_right(canary):
    texts = {payload: payload.replace("CANARY", canary) for payload in PAYLOADS[::5]}
    for task in EVALUATING:
        entry = reasoning_gym.create_dataset(task, **SETTINGS)[0]
        reward = ReasoningGymReward(workers=2, deadline=2.0, all_or_nothing=True)
        assert wrong(reward, question(task=task, entry=entry, config=SETTINGS), texts) == {}, task


def test_no_program_is_right(canary):
    reward = CodeReward(timeout=2.0, memory=256, workers=4)
    assert wrong(reward, question(tests=TESTS), some(programs(canary), 3)) == {}
    assert wrong(reward, question(tests=CASES), some(programs(canary), 5)) == {}


def test_no_part_of_a_sum_is_right(canary):
    reward = CombinedReward([MathReward(workers=1, deadline=2.0), FormatReward(think=True, answer="tags")])
    assert wrong(reward, question("7919"), some(answers(canary), 11)) == {}


@pytest.mark.slow
def test_no_answer_of_all_is_right(canary):
    texts = answers(canary)
    asked = question("7919")
    assert wrong(MathReward(find="number", workers=2, deadline=2.0), asked, texts) == {}
    small = {name: text for name, text in texts.items() if len(text) < 5_000}
    assert wrong(MathReward(sympy_fallback=True, workers=2), asked, some(small, 2)) == {}


@pytest.mark.slow
def test_no_program_of_all_is_right(canary):
    for unfenced in (False, True):
        reward = CodeReward(timeout=2.0, memory=256, workers=4, unfenced=unfenced)
        assert wrong(reward, question(tests=TESTS), programs(canary)) == {}
        assert wrong(reward, question(tests=CASES), programs(canary)) == {}
        assert wrong(reward, question(tests=TESTS), some(answers(canary), 5)) == {}
