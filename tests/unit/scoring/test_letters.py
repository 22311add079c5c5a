"""Which letter a text chooses."""

import pytest

from nbg_lightning.scoring.letters import NONE, SEVERAL, find_letter
from nbg_lightning.scoring.verdicts import score_letter

OPTIONS = ["Paris", "12", "London", r"\frac{1}{2}"]
TEXTS = r"""
B | The answer is (B). | The answer is B | **Answer**: B | **Answer:** B | Answer：B | The correct option is B.
B | The correct choice is (B)
B | \boxed{B} | \boxed{\textbf{(B)}} | \boxed{\text{B}} | \boxed{(B)} | <answer>B</answer>
B | <answer> (B) </answer> | $\boxed{\mathrm{B}}$
B | The answer is option B | The answer is "B". | The answer is `B` | The answer is $\textbf{(B)}$
B | Final answer: **B** | **B** | (B) | B | B.
B | (b) | Answer: b | The answer is (b) | B) 12 | B. Paris | B: Paris | Answer: B) 12 | Answer: B because it is
B | I choose B. | I pick option B
B | The answer is not A, it is B. | The answer is not A but B | Not A, not C.\nSo B | Thus, (B)
B | Option B is correct. | B is the correct answer.
B | A cell is small.\nSo B | Answer: A proton, so B | Energy: \boxed{D = 5}. Answer: (B)
B | The answer is A. No, the answer is B.
A | Answer: A | A. | A | \boxed{A} | The answer is A because it is so | The answer is A. A cat sat. | Paris
A | The answer is Paris | \boxed{Paris}
D | \boxed{0.5} | The answer is \frac{1}{2} | D | Answer: D.
several | The answer is A or B | Answer: A and B | \boxed{A, C} | The answer is either A or B | Answer: (A) or (C)
none | A large number of | A cell is small. | I do not know. | Apples | | The answer is unclear. | \boxed{x}
none | Because
"""
CASES = [
    (right, text.replace("\\n", "\n"))
    for right, *texts in (line.split(" | ") for line in TEXTS.strip().splitlines())
    for text in texts
]


@pytest.mark.parametrize(("right", "text"), CASES)
def test_letters(right, text):
    assert find_letter(text, "ABCD", OPTIONS) == {"several": (None, SEVERAL), "none": (None, NONE)}.get(
        right, (right, "")
    )


def test_letters_beyond_d():
    assert score_letter("The answer is (J).", "J", "ABCDEFGHIJ").score == 1.0
    assert score_letter("I think that it is so", "I", "ABCDEFGHIJ").score == 0.0
    assert score_letter("The answer is A or B", "A", "ABCD").error == SEVERAL


QUOTED = [  # right letter, options, texts
    ("C", ["connects", "is derived", "is opened by levator veli palatini.", "can"], "C) {} | (C) {} | {}"),
    ("D", ["shelf", "keg", "ore", "can"], "D) {} | (D) {} | D. {} | The answer is (D) {}."),
    (
        "C",
        ["dirt", "keg", "ore", "can"],
        "C) {} | The correct answer is (C) {}. | **C. {}** | \\boxed{{\\text{{(C) }}{}}}",
    ),
    (
        "D",
        ["ejecta", "rims", "peaks", "A and B only"],
        "{} | The answer is {}. | D. {} | \\boxed{{{}}} | <answer>{}</answer>",
    ),
    (
        "D",
        ["produce one", "reject it", "prove it", "answer a question."],
        "{} | The answer is {}. | The correct answer is: {}",
    ),
    ("A", ["B cells", "T cells", "C cells", "neither"], "{} | The answer is {}. | The answer is **{}**. | A. {}"),
    ("C", ["R", "rr", "Rr", "RR"], "{} | The answer is {}. | \\boxed{{{}}}"),
    ("B", ["A", "~A", "B", "~B"], "{} | The answer is {}."),
    ("D", ["25 ÷ 8", "25 – 8", "25 + 8", "25 × 8"], "{} | The answer is {}. | D) {}"),
    ("D", ["p < 1", "p < 3", "p < 2", "p > 3"], "{} | The answer is {}."),
    ("A", ["Mt. McKinley", "Class. I", "Class. II", "Class"], "{} | The answer is {}. | The answer is {}. It is high."),
    (
        "C",
        ["Mt. McKinley", "Class. I", "Class. II", "Class"],
        "{} | The answer is {}. | The answer is {}. That is all.",
    ),
    ("C", ["so", "not so", "Neither so nor not so, but open", "shut"], "{} | The answer is {}. | Answer: {}"),
    ("B", ["one", "first line\nsecond line", "first line", "x"], "{} | The answer is {}. | <answer>{}</answer>"),
    (
        "B",
        ["short", "a long option " * 60, "x", "y"],
        "{} | The answer is {}. | The correct option is {}. | <answer>{}</answer>",
    ),
]
QUOTED_CASES = [
    (right, options, text.format(options["ABCD".index(right)]))
    for right, options, texts in QUOTED
    for text in texts.split(" | ")
]


@pytest.mark.parametrize(("right", "options", "text"), QUOTED_CASES)
def test_the_text_of_an_option_is_its_letter(right, options, text):
    assert find_letter(text, "ABCD", options) == (right, "")


def test_what_only_begins_like_an_option_is_none():
    assert find_letter("The answer is can be found", "ABCD", ["can", "keg", "ore", "jar"]) == (None, NONE)
    assert find_letter("A or B", "ABCD", ["so", "or B then", "x", "y"]) == (None, SEVERAL)
    assert find_letter("C) is wrong", "ABCD", OPTIONS) == (None, NONE)
    assert find_letter("The answer is not Paris, it is London.", "ABCD", OPTIONS) == ("C", "")


def test_a_letter_is_read_as_a_letter_where_an_option_is_one_too():
    assert find_letter("The answer is B.", "ABCD", ["As", "P", "Sb", "B"]) == ("B", "")
    assert find_letter("The answer is P.", "ABCD", ["As", "P", "Sb", "B"]) == ("B", "")


def test_options_of_one_text_are_one_answer():
    options = ["yes", "no", "yes", "both"]
    assert score_letter("The answer is yes.", "C", "ABCD", options).score == 1.0
    assert score_letter("The answer is (A).", "C", "ABCD", options).score == 1.0
    assert score_letter("The answer is (B).", "C", "ABCD", options).score == 0.0
    assert score_letter("The answer is (A).", "C", "ABCD").score == 0.0
