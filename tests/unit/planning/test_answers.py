"""Positions of a step of answers, against what `rl` packs."""

import random

import pytest

from nbg_lightning.core.batch import attended_length
from nbg_lightning.planning.answers import Answers
from nbg_lightning.rl.rollout_batch import TrainedAnswer, pack_answers, plan_groups, plan_micro_batches


def packed(answers: Answers):
    """Sum of positions, and of their places in their documents, of real micro-batches."""
    chance = random.Random(0)

    def ids(number):
        return tuple(chance.randrange(50) for _ in range(number))

    given = []
    for _ in range(answers.prompts):
        prompt = ids(int(answers.prompt))
        for _ in range(answers.group):
            own = (100 + len(given), *ids(int(answers.mean) - 1))  # answers have no common beginning
            given.append(TrainedAnswer(prompt, own, (0.0,) * len(own), 1.0))
    if answers.shortest_shared is None:
        plan = plan_micro_batches([answer.positions for answer in given], answers.room)
    else:
        plan = plan_groups(given, answers.room, answers.shortest_shared)
    inputs = [pack_answers([given[index] for index in part], answers.shortest_shared).input for part in plan]
    return sum(each.tokens.numel() for each in inputs), sum(int(each.positions.sum()) for each in inputs)


@pytest.mark.parametrize("shared", [16, None])
@pytest.mark.parametrize("room", [30 + 4 * 19, 30 + 2 * 19, 49])
def test_positions_are_those_of_packed_answers(shared, room):
    answers = Answers(3, 4, 40, 64, 30.0, 20.0, room, shared)
    positions, reached = packed(answers)
    assert answers.computed == positions
    assert answers.attended == attended_length(reached, positions)


def test_by_hand():
    """Two prompts of 10, each once, and 3 answers of 5 tokens to each, of which 4 are read."""
    answers = Answers(2, 3, 12, 8, 10.0, 5.0, 1000, 4)
    phase = answers.phase(steps=7)
    assert (phase.window, phase.tokens_per_step, phase.steps) == (20, 2 * 3 * 20, 7)
    assert phase.computed == pytest.approx((2 * 10 + 2 * 3 * 4) / 120)
    assert phase.predicted == pytest.approx(2 * 3 * 5 / 120)
    assert phase.answer == 5
    reached = 2 * (45 + 3 * (10 + 11 + 12 + 13))
    assert phase.attended == attended_length(reached, 44)
    assert phase.name == "answers of 5"


def test_a_short_prompt_is_computed_for_each_answer():
    assert Answers(1, 8, 10, 10, 3.0, 5.0, 100, 16).copies == 8
    assert Answers(1, 8, 10, 10, 16.0, 5.0, 100, 16).copies == 1


def test_windows_are_multiples_of_the_context():
    assert Answers(1, 1, 5, 6, 5.0, 6.0, 100, 16).phase(None, context=4).window == 12
