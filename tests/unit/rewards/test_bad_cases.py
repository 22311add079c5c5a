"""Loops, malformed and unfinished answers, and the overlong penalty."""

import random

import pytest
from answers import UNENDING, asked, group, scores, written

from nbg_lightning.engines.chat import Answer
from nbg_lightning.engines.protocol import Completion
from nbg_lightning.rewards import BadCaseReward, CombinedReward, OverlongPenalty
from nbg_lightning.rewards.bad_cases import bad_case, loop_period
from nbg_lightning.rewards.length import overlong_penalty


def of_ids(ids, text="fine", finish_reason="stop"):
    return Answer(Completion(tuple(ids), (0.0,) * len(ids), finish_reason, 0, 0, 0), text, None, text)


def test_a_loop_is_found_wherever_it_stands():
    chance = random.Random(0)
    noise = [chance.randrange(1000) for _ in range(300)]
    for period in (1, 2, 7, 13, 60, 200):
        passage = [2000 + n for n in range(period)]
        times = max(5, -(-64 // period))
        for begin in (0, 17, 300):
            ids = [*noise[:begin], *(passage * times), *noise[begin:]]
            assert loop_period(ids) == period
            fewer = [*noise[:begin], *(passage * (times - 1)), *noise[begin:]]
            assert period == 1 or loop_period(fewer) is None
    assert loop_period([]) is None and loop_period([5]) is None and loop_period(noise) is None


def test_what_repeats_a_little_is_no_loop():
    table = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 10] * 2
    assert loop_period(table) is None
    assert loop_period([0] * 63) is None and loop_period([0] * 64) == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (of_ids(range(10)), None),
        (of_ids([1, 2] * 40), "loop"),
        (of_ids([1, 2] * 40, finish_reason="length"), "loop"),
        (of_ids(range(10), finish_reason="length"), "no_end"),
        (of_ids(range(10), " \n"), "malformed"),
        (of_ids(range(10), "a \ufffd b"), "malformed"),
        (of_ids(range(10), "x </think> y </think> z"), "malformed"),
        (UNENDING, "no_end"),
        (written("<think>a</think>4", "a", "4"), None),
    ],
)
def test_bad_cases(answer, expected):
    assert bad_case(answer) == expected
    assert scores(BadCaseReward().score([group(asked(), answer)])) == [[-1.0 if expected else 0.0]]


def test_a_served_text_without_ids_is_read_by_its_bytes():
    answer = Answer(Completion((), (), "stop", 0, 0, 0, text="no " * 40), "no " * 40, None, "no " * 40)
    assert bad_case(answer) == "loop"


def test_overlong_penalty_is_that_of_dapo():
    assert [overlong_penalty(n, 20, 5) for n in (0, 15, 16, 19, 20, 99)] == [0, 0, -0.2, -0.8, -1.0, -1.0]
    answers = [of_ids(range(n)) for n in (3, 18, 20)]
    assert scores(OverlongPenalty(20, 5).score([group(asked(), *answers)])) == [[0.0, pytest.approx(-0.6), -1.0]]
    both = CombinedReward([BadCaseReward(), OverlongPenalty(20, 5)], [1.0, 0.5])
    assert scores(both.score([group(asked(), *answers)])) == [[0.0, pytest.approx(-0.3), -0.5]]


@pytest.mark.parametrize("buffer", [0, -1, 21])
def test_a_buffer_that_cannot_be(buffer):
    with pytest.raises(ValueError, match=f"buffer is invalid: {buffer}; give 1 to max_tokens=20"):
        OverlongPenalty(20, buffer)
