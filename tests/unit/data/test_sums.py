import random

import pytest

from nbg_lightning.testing import SumChat, SumFacts, SumQuestions
from nbg_lightning.testing.sums import SIZES, WorkedSum, sums

SPLITS = ("test", "pairs", "rl", "sft")


def test_the_steps_are_right_and_end_in_the_answer():
    assert WorkedSum(7, (("+", 8), ("-", 9))).question == "7+8-9=?"
    assert WorkedSum(7, (("+", 8), ("-", 9))).steps == "07+8=15\n15-9=06"
    for each in random.Random(0).sample(sums("sft"), 200):
        assert eval(each.question.removesuffix("=?")) == int(each.answer)
        first, second = each.steps.splitlines()
        assert first.split("=")[1] == second[:2]
        assert second.split("=")[1] == each.answer
        for line in (first, second):
            left, right = line.split("=")
            assert int(left[:2]) + int(left[2:]) == int(right)


def test_no_sum_is_in_two_splits():
    questions = [each.question for split in SPLITS for each in sums(split)]
    assert len(set(questions)) == len(questions) > 3800
    assert {split: len(sums(split)) for split in SIZES} == SIZES
    with pytest.raises(ValueError, match="no split 'train'"):
        sums("train")


def test_facts_are_right_and_the_same_again():
    texts = list(SumFacts(3, seed=1).documents())
    assert texts == list(SumFacts(3, seed=1).documents())
    assert texts != list(SumFacts(3, seed=2).documents())
    for line in "\n".join(texts).splitlines():
        left, right = line.split("=")
        assert int(left[:2]) + int(left[2:]) == int(right) >= -9
    with pytest.raises(ValueError, match="at least 1"):
        SumFacts(0)


def test_conversations_and_questions_are_of_the_same_sums():
    rows = [row["messages"] for part in SumChat("pairs", 5).parts() for row in part.rows()]
    questions = list(SumQuestions(split="pairs", count=5).questions("sums"))
    assert len(rows) == len(questions) == 5
    for (asked, answered), question in zip(rows, questions, strict=True):
        assert asked["content"] == question.messages[0]["content"]
        assert answered["content"] == question.answer
        assert answered["reasoning_content"].endswith(question.answer)
