"""No text raises, hangs or takes more than linear time; none is accepted by being hostile."""

import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbg_lightning.scoring.boxes import boxed, last_formula, tagged
from nbg_lightning.scoring.characters import plain_characters
from nbg_lightning.scoring.letters import extract_letter
from nbg_lightning.scoring.mathematics.compare import compare
from nbg_lightning.scoring.mathematics.reader import read
from nbg_lightning.scoring.mathematics.units import read_unit, read_upright
from nbg_lightning.scoring.places import extract_expression, extract_value
from nbg_lightning.scoring.verdicts import extract_answer, score_exact, score_letter, score_math, score_number

PIECES = [
    *("\\boxed{", "\\fbox{", "}", "{", "\\frac", "\\frac12", "\\sqrt", "\\sqrt[", "\\text{", "\\left(", "\\right)"),
    *("\\begin{pmatrix}", "\\end{pmatrix}", "\\\\", "&", "^", "_", "^{", "9", "99999999", "1e999", "1e9999", ".", ","),
    *(";", " ", "\n", "-", "+", "/", "*", "!", "x", "ab", "dollars", "cm", "%", "\\%", "$", "\\$", "(", ")", "[", "]"),
    *("\\{", "\\}", "\\cup", "\\infty", "\\pm", "=", "<", ":", "The answer is ", "Answer: ", "####", "<answer>"),
    *("</answer>", "not A, ", "A or B", "B", "\\binom", "\\pi", "i", "1,000", "½", "−", "²", "√", "\u200b", "\ud800"),
    *("٣", "\x00", "and", "or", "\\overline{3}", "0.", "```", "**"),
]  # fmt: skip
GOLDS = ["7919", "(7919,1)", r"7919x^2", "Evelyn"]


def checked(text):
    """Put a text through every reader; none of the golds is in it."""
    for gold in GOLDS:
        verdict = compare(read(gold), read(extract_expression(text) or ""))
        assert verdict is not True
    extract_value(text), extract_value(text, first=True), extract_letter(text, "ABCD", ["1", "2", "x", "Paris"])
    extract_answer(text), score_exact(text, "Paris"), score_number(text, "7919")
    assert score_letter(text, "J", "ABCDEFGHIJ").score == 0 or "J" in plain_characters(text).upper()


@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
@settings(max_examples=3000, deadline=None, derandomize=True)
def test_pieces_of_answers(text):
    checked(text)
    read(text)


@given(st.text(max_size=300))
@settings(max_examples=2000, deadline=None, derandomize=True)
def test_any_text(text):
    checked(text)
    read(text)


@pytest.mark.slow
def test_a_hundred_thousand_answers():
    draw = random.Random(0)
    for _ in range(100_000):
        checked("".join(draw.choices(PIECES, k=draw.randrange(1, 40))))


REPEATED = [
    *("\\boxed{", "\\boxed{1} ", "{", "\\text{ ", "<answer>", "</answer>", "<answer>1</answer>", "$", "$x", "1", "1,", "1,111"),
    *("1 111 ", "The answer is ", "answer ", "Answer:\n", "#", " ", "\n", "A or B ", "x3 ", "**", "½", "5 cm "),
]  # fmt: skip


def seconds_of(read, piece, length):
    """Processor time of reading a piece again and again, the least of three runs; ``read`` is given the run's number too."""
    text = (piece * (length // len(piece) + 1))[:length]
    times = []
    for run in range(3):
        begin = time.process_time()
        read(text, run)
        times.append(time.process_time() - begin)
    return min(times)


def words(text, run):
    """The plainest reading of a text there is; 200,000 characters of words take 18 ms of an idle core."""
    assert sum(match.end() - match.start() for match in re.finditer(r"\w+ ?", text)) == len(text)


def assert_linear(read, piece, most):
    """A text takes no more than its length explains, and ``most`` times as long as a plain reading.

    A busy machine changes its pace in between, by half or twice; what seems to be too long is measured again.
    """
    for _ in range(5):
        plain = seconds_of(words, "ab ", 200_000)
        half, whole = (seconds_of(read, piece, length) for length in (100_000, 200_000))
        if whole <= min(2.5 * half + 0.05, most * plain):
            break
    assert whole <= 2.5 * half + 0.05
    assert whole <= most * plain


@pytest.mark.parametrize("piece", REPEATED)
def test_time_is_linear(piece):
    def read_all(text, run):
        for function in (boxed, tagged, last_formula, extract_expression, extract_value, extract_answer):
            function(text)
        extract_letter(text, "ABCD")

    assert_linear(read_all, piece, most=100)


UNITS = [
    *("m/s^2 * ", r"m/s^2 \cdot ", r"\text{m}/", r"\mathrm{km}\cdot ", "per ", "square ", "kilo", "N m s^-2 ", "m^{", "{m"),
    *(r"\frac{\text{m}}{\text{s}}", r"\frac{m}{", r"^\circ", r"\mu ", "1/", "foot-pound ", "million ", "^{-1}", "{", "m."),
]  # fmt: skip


@pytest.mark.parametrize("piece", UNITS)
def test_time_of_units_is_linear(piece):
    """Behind a number, bare and upright."""

    def read_units(text, run):
        for behind in (text, f"\\text{{{text}"):
            score_math(f"\\boxed{{{run} {behind}}}", "5 m/s^2")
        read_unit(f"{run}{text}"), read_upright(f"{run}{text}")

    assert_linear(read_units, piece, most=50)


def test_items_that_are_not_read_do_not_add_up_to_a_depth():
    answer = read(", ".join(["((1 2))"] * 40))
    assert len(answer.elements) == 40


def test_beyond_the_limits_is_wrong_with_a_reason():
    for answer in (
        "1e5000",
        "1e30000000",
        "9" * 20_000,
        "9^{9^{9^{9}}}",
        "(" * 500,
        "1," * 3000,
        r"\frac{" * 900,
        "(a+b+c+d)^{30}",
    ):
        verdict = score_math(f"\\boxed{{{answer}}}", "5")
        assert (verdict.score, score_number(f"\\boxed{{{answer}}}", "5").score) == (0.0, 0.0), answer
