"""Scores and criteria in judge output: accepted and refused forms."""

import time

import pytest

from nbg_lightning.scoring.rubric import MAX_CRITERION, read_criteria, read_marks


@pytest.mark.parametrize(
    "text",
    [
        "1: 7\n2: 9",
        "1. 7 - good\n2. 9/9 because",
        "**1**: **7**\n**2**: **9**",
        "Criterion 1: Score: 7\nCriterion 2: Score: 9",
        "Here are the marks:\n(1) 7\n(2) 9 out of 9\nThat is all.",
        "- 1: 7\n- 2: 9\n1: 7",
        "2: 9.0\n1: 7.0",
    ],
)
def test_ways_to_mark(text):
    assert read_marks(text, 2) == [7.0, 9.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1: 7", "no mark for criterion 2"),
        ("", "no mark for criterion 1, 2"),
        ("1: 7\n2: good", "no mark for criterion 2"),
        ("1: 7\n2: 10", "criterion 2 has a mark off the scale"),
        ("1: -1\n2: 3", "criterion 1 has a mark off the scale"),
        ("1: 7/10\n2: 3", "criterion 1 has a mark off the scale"),
        ("1: 7\n2: 3\n1: 8", "criterion 1 has the marks 7 and 8"),
        ("1: 70%\n2: 3", "no mark for criterion 1"),
        ("12: 7\n2: 3", "no mark for criterion 1"),
    ],
)
def test_what_is_not_said_is_not_guessed(text, message):
    with pytest.raises(ValueError, match=message):
        read_marks(text, 2)


def test_criteria_are_the_items_of_a_list():
    text = "Of course:\n- It is right.\n* **It is short.**\n3) It is right.\n(4) It is polite.\nNot an item.\n- "
    assert read_criteria(text, 9) == ["It is right.", "It is short.", "It is polite."]
    assert read_criteria(text, 2) == ["It is right.", "It is short."]
    assert len(read_criteria("- " + "x" * 5000, 9)[0]) == MAX_CRITERION
    with pytest.raises(ValueError, match="it lists no criteria"):
        read_criteria("I cannot help with that.", 9)


def test_hostile_texts_are_read_in_bounded_time():
    begin = time.process_time()
    for text in ("1" * 400_000, " " * 400_000 + "1: 3", "*" * 300_000, "1: " * 100_000, "- " * 200_000, "\n" * 300_000):
        with pytest.raises(ValueError, match="no mark for criterion"):
            read_marks(text, 3)
        try:
            read_criteria(text, 3)
        except ValueError:
            continue
    assert time.process_time() - begin < 3
