"""Parsing model-written evaluations: all forms that are understood, and those that must not become a score."""

import contextlib
import time

import pytest

from nbg_lightning.construction.solutions.checklist import (
    Criterion,
    checklist_text,
    example_criteria,
    example_remarks,
    read_checklist,
    read_evaluation,
)
from nbg_lightning.construction.solutions.refinement import CHECKLIST, EVALUATION
from nbg_lightning.construction.workflow import UnusableError


def test_a_checklist_in_many_forms():
    text = """Here is a checklist:
- [correctness] The sum is 12.
* **Completeness**: Both parts are answered
3. (consistency) The units are the same.
4) Safety - Nothing dangerous.
- [CORRECTNESS] the sum is 12.
- [style] It rhymes.
Hope that helps!"""
    criteria = read_checklist(text, 2, 8)
    assert criteria == (
        Criterion("correctness", "The sum is 12."),
        Criterion("completeness", "Both parts are answered"),
        Criterion("consistency", "The units are the same."),
        Criterion("safety", "Nothing dangerous."),
    )
    assert read_checklist(text, 1, 2) == criteria[:2]
    assert checklist_text(criteria[:1]) == "1. [correctness] The sum is 12."


@pytest.mark.parametrize(
    "text", ["", "I cannot judge this.", "- [correctness]", f"- [correctness] {'x' * 400}", "- [mood] fine"]
)
def test_what_is_no_checklist(text):
    with pytest.raises(UnusableError) as error:
        read_checklist(text, 1, 5)
    assert error.value.reason == "unparsable"


def test_scores_in_many_forms():
    text = """1: 9 - fine
2. 4/9 the unit is missing
**3**: **7** because
Criterion 4: Score: 0
#5 - 6.5
Critique: name the unit.
And be brief."""
    found = read_evaluation(text, 5)
    assert found.scores == (9.0, 4.0, 7.0, 0.0, 6.5)
    assert found.mean == pytest.approx(5.3)
    assert found.remarks[1] == "the unit is missing"
    assert found.critique == "name the unit.\nAnd be brief."


def test_what_repeats_the_example_of_the_prompt_is_a_copy():
    criteria, remarks = example_criteria(CHECKLIST), example_remarks(EVALUATION)
    assert criteria == {"the result is five.", "the result is given as a word, not as a digit."}
    assert remarks == {"the result is five", "the result is a digit"}
    own = "- [safety] Nothing burns."
    copy = f"- [correctness] The result is five.\n{own}"
    assert [each.dimension for each in read_checklist(copy, 1, 5, criteria)] == ["safety"]
    assert len(read_checklist(copy, 1, 5)) == 2
    with pytest.raises(UnusableError) as error:
        read_checklist(copy, 2, 5, criteria)
    assert error.value.reason == "copied"
    with pytest.raises(UnusableError) as error:
        read_checklist(own, 2, 5, criteria)
    assert error.value.reason == "unparsable"
    with pytest.raises(UnusableError) as error:
        read_evaluation("1: 8 - good\n2: 3 - The result is a digit.", 2, remarks)
    assert error.value.reason == "copied"
    assert read_evaluation("1: 8 - good\n2: 3", 2, remarks).scores == (8, 3)


def test_a_tenth_criterion_is_not_the_first():
    text = "\n".join(f"{number}: {number % 10}" for number in range(1, 12))
    assert read_evaluation(text, 11).scores == (1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1)
    with pytest.raises(UnusableError, match="no score for 1 of 1"):
        read_evaluation("10: 5", 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1: 9\n2: 10", "out_of_range"),
        ("1: 9\n2: -3", "out_of_range"),
        ("1: 9\n2: 8/10", "out_of_range"),
        ("1: 9\n2: 900", "out_of_range"),
        ("1: 9\n2: 7/" + "9" * 5000, "unparsable"),
        ("1: 9\n2: " + "9" * 5000, "unparsable"),
        ("1: 9\n2: 1e999", "unparsable"),
        ("1: 9\n2: NaN", "unparsable"),
        ("1: 9", "unparsable"),
        ("", "unparsable"),
        ("1: nine\n2: good", "unparsable"),
        ("All criteria are met, 9 points.", "unparsable"),
        ("Critique: 1: 9\n2: 9", "unparsable"),
    ],
)
def test_what_is_no_score_is_no_zero(text, reason):
    with pytest.raises(UnusableError) as error:
        read_evaluation(text, 2)
    assert error.value.reason == reason


@pytest.mark.parametrize("piece", ["\n", " ", "1: ", "1: score ", "*", "critique ", "(", "1: 9/", "- [safety] "])
def test_the_time_of_reading_is_linear(piece):
    text = piece * (1_000_000 // len(piece)) + "?"
    begin = time.process_time()
    with pytest.raises(UnusableError):
        read_evaluation(text, 2)
    with contextlib.suppress(UnusableError):
        read_checklist(text, 1, 5)
    assert time.process_time() - begin < 5
