"""Which letter a text chooses."""

import pytest

from nbg_lightning.evaluation.scorers import score_letter
from nbg_lightning.scoring.letters import NONE, SEVERAL, find_letter

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
