import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nbg_lightning.core.batch import document_offsets
from nbg_lightning.rl.rollout_batch import TrainedAnswer, pack_answers, plan_groups, plan_micro_batches


def answer(prompt, completion, advantage=1.0):
    return TrainedAnswer(tuple(prompt), tuple(completion), (-1.0,) * len(completion), advantage)


def test_by_hand():
    """The last token of an answer is only predicted; a prompt's last token predicts the first of the completion."""
    batch = pack_answers([answer([1, 2, 3], [4, 5]), answer([6], [7], -2.0)])
    assert batch.tokens.tolist() == [[1, 2, 3, 4, 6]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 0]]
    assert batch.offsets.tolist() == [0, 4, 5]
    assert batch.predicting.tolist() == [2, 3, 4]
    assert batch.targets.tolist() == [4, 5, 7]
    assert batch.sequence.tolist() == [0, 0, 1]
    assert batch.lengths.tolist() == [2, 1]
    assert batch.advantages.tolist() == [1.0, -2.0]
    assert (batch.num_answers, batch.num_trained, batch.num_tokens) == (2, 3, 5)
    assert batch.offsets.dtype == torch.int32


def test_no_answers_are_a_row_that_trains_nothing():
    batch = pack_answers([])
    assert batch.tokens.shape == (1, 1) and (batch.num_answers, batch.num_trained) == (0, 0)
    assert batch.to(torch.device("cpu")).offsets.tolist() == [0, 1]


answers = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12)


@given(answers)
def test_every_completion_token_is_predicted_from_the_token_before_it(lengths):
    rows = [
        answer(range(100 * i, 100 * i + p), range(100 * i + p, 100 * i + p + c)) for i, (p, c) in enumerate(lengths)
    ]
    batch = pack_answers(rows)
    assert (batch.tokens[0, batch.predicting] + 1).tolist() == batch.targets.tolist()
    assert batch.offsets.tolist() == document_offsets(batch.positions).tolist()
    assert batch.targets.tolist() == [token for row in rows for token in row.completion]


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 60))
def test_plan_holds_every_answer_once_and_keeps_to_the_budget(positions, budget):
    plan = plan_micro_batches(positions, budget)
    assert sorted(index for part in plan for index in part) == list(range(len(positions)))
    assert all(len(part) == 1 or sum(positions[i] for i in part) <= budget for part in plan)


def test_a_prompt_stands_once_and_predicts_the_first_token_of_every_answer():
    prompt = range(1, 5)
    batch = pack_answers([answer(prompt, [10, 11, 12]), answer(prompt, [20]), answer([7], [8])], shortest=2)
    assert batch.num_tokens == 4 + 2 + 0 + 1
    assert batch.tokens[0, batch.predicting].tolist() == [4, 10, 11, 4, 7]
    assert batch.targets.tolist() == [10, 11, 12, 20, 8]
    assert batch.positions[0, batch.predicting].tolist() == [3, 4, 5, 3, 0]
    assert batch.sequence.tolist() == [0, 0, 0, 1, 2]


groups = st.lists(
    st.tuples(st.integers(1, 20), st.lists(st.integers(1, 15), min_size=1, max_size=6)), min_size=0, max_size=6
)


@given(groups, st.integers(1, 60), st.integers(1, 8))
def test_groups_are_planned_within_the_budget_and_cut_where_they_must(groups, budget, shortest):
    rows = [
        answer(range(100 * i, 100 * i + prompt), range(100 * i + 50, 100 * i + 50 + completion))
        for i, (prompt, completions) in enumerate(groups)
        for completion in completions
    ]
    plan = plan_groups(rows, budget, shortest)
    assert sorted(index for part in plan for index in part) == list(range(len(rows)))
    for part in plan:
        batch = pack_answers([rows[index] for index in part], shortest)
        assert len(part) == 1 or batch.num_tokens <= budget


@pytest.mark.parametrize("shortest", [None, 1, 3])
def test_groups_of_one_prompt_in_two_rollouts_and_equal_answers(shortest):
    rows = [answer([1, 2, 3, 4], [5, 6, 7]), answer([1, 2, 3, 4], [5, 6, 7]), answer([1, 2], [3, 4])]
    batch = pack_answers(rows, shortest)
    assert batch.tokens[0, batch.predicting].tolist() == [4, 5, 6, 4, 5, 6, 2, 3]
    assert batch.targets.tolist() == [5, 6, 7, 5, 6, 7, 3, 4]
