"""Answers are extracted and compared; failures on our side never count as wrong answers."""

from fractions import Fraction

import pytest

from nbg_lightning.scoring import verdicts
from nbg_lightning.scoring.verdicts import (
    boxed,
    extract_answer,
    extract_number,
    number,
    score_exact,
    score_letter,
    score_math,
    score_number,
)
from nbg_lightning.scoring.verifier import Verifier, VerifierError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("-3", -3),
        ("$1,200.50", Fraction(2401, 2)),
        ("3/4", Fraction(3, 4)),
        ("18.", 18),
        ("1/0", None),
        ("x", None),
    ],
)
def test_number(text, value):
    assert number(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("48 / 2 = 24, and 48 + 24 = 72", 72),
        ("so the answer is 9. There are 12 eggs left over for 3 days.", 9),
        ("#### 1,080", 1080),
        (r"first \boxed{3}, no: \boxed{4}. That took 5 minutes.", 4),
        ("The answer is **$18**.", 18),
        ("-5 degrees", -5),
        ("abc", None),
        ("Answer: 3/4", Fraction(3, 4)),
        ("x3 of y4", None),
    ],
)
def test_find_number(text, value):
    assert extract_number(text) == value


def test_first_number_of_a_continuation():
    assert extract_number(" 12\n3 + 4 = 7", first=True) == 12


def test_score_number():
    assert score_number("It is 18.0", "18").score == 1.0
    assert score_number("It is 19", "18").score == 0.0
    assert not score_number("no idea", "18").parsed
    broken = score_number("18", "eighteen")
    assert (broken.score, broken.status) == (None, "error")


def test_boxed():
    assert boxed(r"\boxed{\frac{1}{2}} and \boxed{unclosed") == r"\frac{1}{2}"
    assert boxed(r"\boxed {x}") == "x"
    assert boxed("none") is None


def test_math_without_verifier(monkeypatch):
    def never(*_):
        raise AssertionError("equal texts and numbers need no verifier")

    monkeypatch.setattr("nbg_lightning.scoring.verdicts.shared_verifier", never)
    assert score_math(r"\boxed{\dfrac{1}{2}}", r"\frac{1}{2}").score == 1.0
    assert score_math(r"\boxed{\left( 3, \frac{\pi}{2} \right)}", r"(3,\frac{\pi}{2})").score == 1.0
    assert score_math(r"\boxed{\text{Evelyn}}", "evelyn").score == 1.0
    assert score_math(r"\boxed{1,000}", "1000").score == 1.0
    assert score_math(r"\boxed{8}", "9").score == 0.0
    assert not score_math("I give up", "9").parsed


def test_math_with_verifier():
    column = r"\boxed{\begin{pmatrix} %s \\ 2/3 \end{pmatrix}}"  # the end of a row is no space
    assert score_math(column % "-1/3", r"\begin{pmatrix} -\frac{1}{3} \\ \frac{2}{3} \end{pmatrix}").score == 1.0
    assert score_math(column % "1/3", r"\begin{pmatrix} -\frac{1}{3} \\ \frac{2}{3} \end{pmatrix}").score == 0.0
    assert score_math(r"\boxed{\frac{\sqrt{8}}{2}}", r"\sqrt{2}").score == 1.0
    assert score_math(r"\boxed{x^2+2x+1}", r"(x+1)^2").score == 1.0
    assert score_math(r"\boxed{x+1}", r"x-1").score == 0.0
    assert score_math(r"\boxed{[2, 5)}", r"[2,5)").score == 1.0


def test_math_says_that_its_verifier_ran_out_of_time(monkeypatch):
    with Verifier(deadline=1.0) as verifier:
        monkeypatch.setattr("nbg_lightning.scoring.verdicts.shared_verifier", lambda: verifier)
        late = score_math(r"\boxed{\sum_{n=1}^{10^9} \frac{\sin n}{n^2+1}}", r"\sin 1")
        assert (late.score, late.status) == (0.0, "ok")
        assert late.detail == "math-verify did not decide: no verdict within 1 s"
        wrong = score_math(r"\boxed{\sin 2}", r"\sin 1")
        assert (wrong.score, wrong.status, wrong.detail) == (0.0, "ok", "")


def test_one_pair_that_is_wrong_decides_over_one_that_has_no_verdict(monkeypatch):
    """A list is compared in pairs; a gold element that is not understood is no reason to call the others undecided."""
    with Verifier(deadline=2.0) as verifier:
        monkeypatch.setattr("nbg_lightning.scoring.verdicts.shared_verifier", lambda: verifier)
        assert verdicts._asked((("", "1"), (r"\sin 1", r"\sin 2")), "gold", "found").score == 0.0
        failed = verdicts._asked((("", "1"), (r"\sin 1", r"\sin 1")), "gold", "found")
        assert (failed.score, failed.status) == (None, "error") and "is not understood" in failed.detail
        assert verdicts._asked(((r"\sin 1", r"\sin 1"),), "gold", "found").score == 1.0


def test_answers_that_take_too_long_are_wrong_and_unreadable_golds_errors():
    with Verifier(deadline=1.0) as verifier:
        outcome = verifier.ask("math", "1", "9^{9^{9^{9}}}+1")
        assert (outcome.value, outcome.status, outcome.detail) == (False, "ok", "no verdict within 1 s")
        with pytest.raises(VerifierError, match="the gold answer '' is not understood"):
            verifier.call("math", "", "1")
        assert verifier.call("math", "1/2", "0.5") is True
        with pytest.raises(VerifierError, match="failed"):
            verifier.call("unknown kind")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is (B).", "B"),
        ("Answer: C", "C"),
        (r"thus \boxed{D}", "D"),
        (r"thus \boxed{\text{A}}", "A"),
        ("B", "B"),
        ("A. because", "A"),
        ("Reasoning.\nAll in all:\nC", "C"),
        ("The answer is B, not A. The answer is D", "D"),
        ("A good question with Bears", None),
        ("Apples", None),
        ("", None),
    ],
)
def test_letters(text, letter):
    verdict = score_letter(text, letter or "A", "ABCD")
    assert verdict.answer == letter
    assert (verdict.score, verdict.parsed) == ((1.0, True) if letter else (0.0, False))


def test_exact():
    assert score_exact(" Paris.\nIt is", "paris").score == 1.0
    assert score_exact("The answer is Paris", "Paris").score == 1.0
    assert score_exact("London", "Paris").score == 0.0
    assert not score_exact("  \n", "Paris").parsed


@pytest.mark.parametrize(
    "text", ["The answer is {}.", "Answer: {}", "#### {}", "**Answer:** {}. That is all.", "\\boxed{{{}}}"]
)
@pytest.mark.parametrize(
    "gold", ["90\\text{ square\nunits}", "12\\text{ sq. ft}", "\\text{Dr. Who is\nit}", "\\frac{1}{\n2}"]
)
def test_what_stands_in_braces_is_one_answer(gold, text):
    assert score_math(text.format(gold), gold).score == 1.0


def test_an_open_brace_does_not_hide_the_end_of_a_sentence():
    assert score_number("The answer is {12. Then 7 are left.", "12").score == 1.0


@pytest.mark.parametrize(
    "text",
    ["The answer is $x = 2$, since x is even.", "The answer is $2$, because 3 is odd.", "Answer: 2, as 3 is odd"],
)
def test_a_reason_behind_the_answer_is_no_part_of_it(text):
    assert score_math(text, "2").score == 1.0


@pytest.mark.parametrize(
    ("gold", "text"),
    [
        (r"36^\circ", r"It measures $360^\circ - 324^\circ = 36^\circ$."),
        (r"87^\circ", r"Thus, $\theta = 174^\circ/2 = 87^\circ.$"),
        ("960", "So the answer is the difference $1440 - 480 = 960$."),
        ("-128", r"Our answer is therefore $16\cdot (-8) = -128$."),
        ("6+9i", "We obtain $(1+2i)6-3i=6+12i-3i=6+9i$."),
        ("-5", "so $f(1,2) = -5.$"),
        ("754", r"$3254_6=3\cdot6^3+2\cdot6^2+5\cdot6^1+4\cdot6^0=648+72+30+4=754$"),
        ("385_9", "$817_9 - 145_9 - 266_9 = 817_9 - 422_9 = 385_9$"),
    ],
)
def test_the_last_side_counts_where_the_first_is_in_no_known_form(gold, text):
    assert score_math(text, gold).score == 1.0
    assert score_math(text, "7").score == 0.0


@pytest.mark.parametrize("text", [r"\boxed{2=3}", r"\boxed{x < 4 = 3}", r"\boxed{5) = }", r"\boxed{= = 3, 4}"])
def test_no_last_side(text):
    assert score_math(text, "3").score == 0.0


BOARD = "_ Q _ _\n_ _ _ Q\nQ _ _ _\n_ _ Q _"


@pytest.mark.parametrize(
    "answer", [BOARD, "#B A# A#", "5", "*a*", "**", "a: b", "[[1, 2],\n [3, 4]]", "x ** 2", "-4*(x)**(3/2) + C"]
)
@pytest.mark.parametrize(
    "wording",
    ["%", "Answer: %", "**Answer:** %", "**Answer**: %", "So.\nAnswer:\n%", "Answer: 7\nNo.\nAnswer: %", "Answer:\n```\n%\n```",
     "<answer>%</answer>", "<answer>\n%\n</answer>"],
)  # fmt: skip
def test_an_answer_is_found_as_it_was_written(wording, answer):
    assert extract_answer(wording.replace("%", answer)) == answer


def test_asterisks_around_a_whole_answer_are_taken_off():
    assert extract_answer("The answer is **5**") == "5"
    assert extract_answer("Answer: **a** and **b**") == "**a** and **b**"
