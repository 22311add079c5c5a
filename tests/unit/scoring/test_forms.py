"""Equality of answers: every form of the table, without a mathematics parser."""

from pathlib import Path

import pytest
from answer_forms import ASKED, CASES
from hypothesis import given, settings
from hypothesis import strategies as st

from nbg_lightning.scoring.mathematics.compare import compare
from nbg_lightning.scoring.mathematics.reader import read
from nbg_lightning.scoring.verdicts import score_math


def test_the_table_is_large():
    assert len(CASES) >= 1_000
    assert len(set(CASES)) == len(CASES)


@pytest.mark.parametrize(("gold", "answer", "right"), CASES)
def test_forms(gold, answer, right):
    assert compare(read(gold), read(answer)) is right
    assert score_math(f"So the answer is\n$$\\boxed{{{answer}}}$$ as there are 7 days.", gold).score == float(right)


def test_the_verdicts_of_other_readers_are_of_this_table():
    header, *rows = Path(__file__).with_name("forms_elsewhere.tsv").read_text("utf-8").splitlines()
    assert header.split("\t") == [
        "gold",
        "answer",
        "right",
        "lm-eval gsm8k",
        "lm-eval minerva",
        "math-verify",
        "reason",
    ]
    assert len(rows) >= 1_000
    ours = {(gold, answer): str(right) for gold, answer, right in CASES}
    for gold, answer, right, *theirs, reason in (row.split("\t") for row in rows):
        assert ours[gold, answer] == right, "run other_readers.py again"
        assert any(verdict != right for verdict in theirs) and reason


@pytest.mark.parametrize("gold", sorted({gold for gold, _, _ in CASES}))
def test_every_gold_is_right_against_itself(gold):
    assert compare(read(gold), read(gold)) is True


@pytest.mark.parametrize("answer", [r"\sin x", r"\tan x", r"|x|", r"\log_2 3", r"1/2\pi", r"x > 5"])
def test_what_the_grammar_does_not_compute_is_left_open(answer):
    assert compare(read("x+1"), read(answer)) in ((("x+1", read(answer).plain),), False)
    assert compare(read(answer), read(answer)) is True


@pytest.mark.parametrize(("gold", "answer", "right"), ASKED)
def test_forms_that_math_verify_decides(gold, answer, right):
    assert isinstance(compare(read(gold), read(answer)), tuple)
    assert score_math(f"So \\boxed{{{answer}}}.", gold).score == float(right)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.from_regex(r"-?[0-9]{1,9}(\.[0-9]{1,7})?", fullmatch=True))
def test_numerals_are_read_as_the_grammar_reads_them(text):
    """Read at once, and as an item of the grammar (in front of a blank formula sign)."""
    assert read(text) == read(f"$ {text} $")
