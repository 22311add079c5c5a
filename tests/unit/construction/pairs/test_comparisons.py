"""Comparisons: both orders of every pair, ties by score, and the prompt of the reward."""

import json
from collections import Counter

import pytest

from nbg_lightning.construction.pairs.comparisons import ComparisonBuilder
from nbg_lightning.data import ChatJsonLines, PairList
from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import Answer
from nbg_lightning.engines.protocol import Completion
from nbg_lightning.rewards.preference import PairwisePreferenceReward
from nbg_lightning.rewards.protocol import Group

PAIRS = [
    {"prompt": "2+2?", "chosen": "4", "rejected": "5", "chosen_score": 1.0, "rejected_score": 0.0},
    {"prompt": "3+3?", "chosen": "6", "rejected": "it is 6", "chosen_score": 0.9, "rejected_score": 0.8},
    {"prompt": "1+1?", "chosen": "2", "rejected": "3"},
]


def build(tmp_path, rows=PAIRS, **options):
    builder = ComparisonBuilder(out=str(tmp_path / "built"), pairs={"own": PairList(rows)}, **options)
    report = builder.run()
    lines = (tmp_path / "built" / "conversations.jsonl").read_text().splitlines()
    return builder, report, [json.loads(line) for line in lines]


def test_every_pair_is_there_in_both_orders(tmp_path):
    builder, report, rows = build(tmp_path)
    assert Counter(row["verdict"] for row in rows) == {"A": 3, "B": 3}
    assert report["conversations"] == 6 and report["verdicts"]["A"]["count"] == 3
    first, second = rows[:2]
    assert first["messages"][1] == {"role": "assistant", "content": "A"}
    assert first["messages"][0]["content"].endswith("<|answer A|>\n4\n\n<|answer B|>\n5")
    assert second["messages"][0]["content"].endswith("<|answer A|>\n5\n\n<|answer B|>\n4")
    assert any("6 comparisons" in str(line) for line in builder.shown(report))
    assert ChatJsonLines(path=str(tmp_path / "built" / "conversations.jsonl")).parts()


def test_ties_are_pairs_whose_scores_hardly_differ(tmp_path):
    _, _, rows = build(tmp_path, tie_margin=0.2)
    assert [row["verdict"] for row in rows] == ["A", "B", "tie", "tie", "A", "B"]


def test_the_prompt_is_the_one_that_the_reward_asks(tmp_path):
    _, _, rows = build(tmp_path, criteria="Prefer the right sum.")
    answers = [Answer(Completion((), (), "stop", 0, 0, 0, text=text), text, None, text) for text in ("4", "5")]
    question = Question(({"role": "user", "content": "2+2?"},), None, "own", {})
    reward = PairwisePreferenceReward.__new__(PairwisePreferenceReward)
    reward.criteria = "Prefer the right sum."
    group = Group(question, tuple(answers))
    assert reward._prompt(group, *answers) == rows[0]["messages"][0]["content"]
    assert reward._prompt(group, *answers[::-1]) == rows[1]["messages"][0]["content"]


def test_what_gives_no_comparison_is_counted(tmp_path):
    turns = [
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
    ]
    bad = [
        {"prompt": "x", "chosen": "same", "rejected": "same"},
        {"prompt": "x", "chosen": turns, "rejected": "y"},
        {"prompt": "x" * 5000, "chosen": "1", "rejected": "2"},
    ]
    _, report, rows = build(tmp_path, rows=[*PAIRS, *bad], longest=2000)
    assert len(rows) == 6
    assert {reason: each["count"] for reason, each in report["dropped"].items()} == {
        "invalid": 1,
        "several_turns": 1,
        "too_long": 1,
    }


def test_refused(tmp_path):
    with pytest.raises(ValueError, match="pairs is invalid: empty"):
        ComparisonBuilder(out=str(tmp_path), pairs={})
    with pytest.raises(ValueError, match="tie_margin is invalid: -1"):
        ComparisonBuilder(out=str(tmp_path), pairs={"own": PairList(PAIRS)}, tie_margin=-1)
    with pytest.raises(RuntimeError, match="no pair gives a comparison"):
        build(tmp_path, rows=[{"prompt": "x", "chosen": "same", "rejected": "same"}])
    build(tmp_path / "other")
    with pytest.raises(ValueError, match="criteria"):  # a folder of other settings
        build(tmp_path / "other", criteria="Prefer the longer one.")
