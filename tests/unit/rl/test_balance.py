"""Distribution of answers over ranks, and how balanced it is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbg_lightning.rl.balance import AnswerSize, answer_sizes, num_positions, plan_ranks
from nbg_lightning.rl.rollout_batch import TrainedAnswer


def loads(sizes, plan):
    """Positions of each rank under a plan, written down again."""
    found = [[] for _ in sizes]
    for origin, (own, targets) in enumerate(zip(sizes, plan, strict=True)):
        for size, target in zip(own, targets, strict=True):
            found[target].append(size._replace(group=(origin, size.group)))
    return [num_positions(own) for own in found]


def test_sizes_have_a_shared_prompt_once():
    answers = [TrainedAnswer((1, 2, 3), (4, 5), (0.0, 0.0), 1.0), TrainedAnswer((1, 2, 3), (6,), (0.0,), 1.0)]
    assert answer_sizes(answers, 3) == [AnswerSize(0, 3, 1), AnswerSize(0, 3, 0)]
    assert answer_sizes(answers, None) == answer_sizes(answers, 4) == [AnswerSize(0, 0, 4), AnswerSize(0, 0, 3)]
    assert [num_positions(answer_sizes(answers, shortest)) for shortest in (3, None)] == [4, 7]


def test_one_long_group_is_cut():
    """A rank has all the long answers, the others none: parts of the group go to them, with its prompt."""
    sizes = [[AnswerSize(0, 10, 100)] * 8, [AnswerSize(0, 10, 1)] * 8]
    plan = plan_ranks(sizes)
    assert loads(sizes, [[0] * 8, [1] * 8]) == [810, 18]
    assert loads(sizes, plan) == [424, 424]


def test_equal_ranks_keep_their_answers():
    sizes = [[AnswerSize(n // 4, 20, 30) for n in range(8)] for _ in range(4)]
    assert plan_ranks(sizes) == [[rank] * 8 for rank in range(4)]


SIZES = st.lists(
    st.lists(st.builds(AnswerSize, st.integers(0, 3), st.just(0), st.integers(1, 200)), max_size=12),
    min_size=1,
    max_size=5,
)


@given(SIZES)
@settings(max_examples=200, derandomize=True, deadline=None)
def test_no_rank_has_more_than_it_had_and_all_answers_have_one(sizes):
    plan = plan_ranks(sizes)
    assert [len(own) for own in plan] == [len(own) for own in sizes]
    assert all(0 <= target < len(sizes) for own in plan for target in own)
    found = loads(sizes, plan)
    assert sum(found) == sum(size.own for own in sizes for size in own)
    longest = max((size.own for own in sizes for size in own), default=0)
    assert max(found) <= sum(found) / len(sizes) + longest


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_it_is_nearly_even_for_answers_of_a_long_tail(ranks):
    sizes = [
        [
            AnswerSize(n // 8, 50, 20 + (n * 7919 + rank * 104729) % 97 * (40 if (n + rank) % 7 == 0 else 1))
            for n in range(32)
        ]
        for rank in range(ranks)
    ]
    before, after = loads(sizes, [[rank] * 32 for rank in range(ranks)]), loads(sizes, plan_ranks(sizes))
    assert max(after) * ranks / sum(after) < 1.02 < max(before) * ranks / sum(before)
