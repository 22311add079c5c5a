# ruff: noqa: E501 - a table
"""Which letter a text chooses."""

import pytest

from nbg_lightning.scoring.letters import NONE, SEVERAL, extract_letter
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
B | The answer is B) 12 | The answer is (B) 12 | The correct answer is **B. 12** | **B) 12** | **(B)** 12
B | **Answer: B** | **Answer: (B) 12** | *Answer*: B | ANSWER: B | answer is b. | Answer (B) | Answer - B | Answer – B
B | Answer. B | Ans: B | Ans. B | Option: B | Choice B | Option (B) | Letter B | The letter is B | The answer: B
B | the answer should be B | the answer has to be B | The best answer is B. | The most likely answer is B.
B | The right choice is B. | The correct response is B | The correct answer choice is B.
B | The correct answer to this question is (B). | The answer to the question is B | My answer is B
B | My final answer is B. | So my choice is B | I would choose B | I'd choose (B) | I'll go with B. | I'm going with B
B | I select option B. | Let's pick B | We choose B | I believe the answer is B. | It is B. | It's B | It must be B. | I think it's B. | It must be B, since C is impossible. | I'd say it's B | I don't think it's A. I believe it is (B).
B | So it's B. | So, B. | Therefore B | Therefore, option B is correct. | Hence (B) is the correct answer.
B | Thus the answer is clearly B. | The answer is clearly B | The answer is therefore (B).
B | Hence, the correct option is (B) | B is correct | B is right. | (B) is correct. | Only B is correct.
B | Statement B is true, so B. | \boxed{\text{(B)}} | \boxed{\mathrm{(B)}} | \boxed{\textbf{B}} | \boxed{B. 12}
B | \boxed{\text{B) 12}} | \boxed{B: 12} | \boxed{\text{Option B}} | \boxed{\text{B}} \text{ 12}
B | $\boxed{\textbf{(B)}\ 12}$ | \boxed{\textbf{(B) }12} | \boxed{\textbf{(B)} \; 12} | \boxed{\mathbf{B}}
B | \boxed{\mathbf{(B)}~12} | $\boxed{B}$. | \boxed{b} | \boxed{ (B) } | \boxed{[B]} | \boxed{12}
B | \boxed{\text{Answer: B}} | \boxed{The answer is B} | \fbox{B} | <answer>(B) 12</answer> | <answer>B. 12</answer>
B | <answer>12</answer> | <answer>\nB\n</answer> | <Answer>B</Answer> | <answer>\boxed{B}</answer> | [B] | {B} | B)
B | 'B' | `B` | B\n\nBecause it is 12. | B - 12 | B, because 12 | B because it is 12. | b | b) | (b) 12 | ##B | # B
B | > B | - B | 1. B | 🅑 | Ⓑ | Ｂ | （B） | 【B】 | B。 | 答案是B | 答案：B | 答案选B。 | 正确答案是（B）。 | 选B | 故选B。 | 因此，正确答案为 B。
B | 所以答案是：**B** | La respuesta correcta es B. | Respuesta: B | Réponse : B | La bonne réponse est B.
B | Die richtige Antwort ist B. | Antwort: B | Ответ: B | 答えはB | 正解はBです。 | Đáp án: B | A resposta correta é a letra B.
B | 정답: B | A is wrong, C is wrong, D is wrong. So the answer is B. | A: no. B: yes. C: no. D: no.\nAnswer: B
B | Not A since Paris is big. Answer: B | A) Paris\nB) 12\nC) London\nD) 1/2\n\nAnswer: B
B | First, A is out. Then B is the best choice. | The answer cannot be A. The answer is B.
B | The answer is neither A nor C, but B. | The answer isn't A; it's B | At first I thought A. But the answer is B.
B | The answer is A? No, it is B. | The answer is A... wait, actually the answer is B
B | Between A and B, the answer is B. | The answer is B, not A. | The answer is B rather than A
B | The answer is B and not A. | The answer is B (and A is wrong). | The answer is B; C and D are wrong.
B | The answer is B. Option A is incorrect. | Answer: B\n\nExplanation: A is wrong because of C. | B\n\nA is wrong.
B | The answer is B since A and C fail | The answer is 12. | The answer is B, which is 12 | The answer is B 12
B | Answer: B 12
A | The answer is A | The answer is A. | The answer is (a). | The answer is A, a city | Paris.
A | The answer is Paris, the city. | It is A. | Answer: (A) Paris | Answer: A Paris | A Paris | I choose A
A | I pick A because it's so | So A | **A**
C | London | The capital is London.\nAnswer: C | C++ is nice. Answer: C
D | \boxed{\frac12} | 0.5 | The answer is D = 1/2 | The answer is 1/2.
several | The answer is A, B | The answer is A/B | A and B | A or B | \boxed{A or B} | \boxed{A,B}
several | <answer>A or B</answer> | Either A or B. | A & B | The answer is A or maybe B. | The answers are A and C
several | The answer is A, C, and D | The answer is (A) and (B). | A, B, C
none | Both A and B | \boxed{AB} | The answer could be A or B | ABCD | All of the above | None | I cannot answer.
none | The answer is E. | \boxed{E} | The answer is a city. | A city. | An apple a day | As said, it depends.
none | Both of them | C++ | D'oh | The answer is not A. | The answer isn't B. | A is wrong. | A is incorrect.
none | A is not correct. | Option A is not correct. | I would not choose B | I don't choose A
none | B is not the right answer | Vitamin B | Plan B works | The answer is unknown | The grade is B+
none | The answer is B+ | The answer is A-level | I do not know. I like B vitamins | The answer is between A and C?
none | Why not B? | Is it B? | Could the answer be B?
"""
CASES = [
    (right, text.replace("\\n", "\n"))
    for right, *texts in (line.split(" | ") for line in TEXTS.strip().splitlines())
    for text in texts
]


@pytest.mark.parametrize(("right", "text"), CASES)
def test_letters(right, text):
    assert extract_letter(text, "ABCD", OPTIONS) == {"several": (None, SEVERAL), "none": (None, NONE)}.get(
        right, (right, "")
    )


def test_letters_beyond_d():
    assert score_letter("The answer is (J).", "J", "ABCDEFGHIJ").score == 1.0
    assert score_letter("I think that it is so", "I", "ABCDEFGHIJ").score == 0.0
    assert score_letter("The answer is A or B", "A", "ABCD").detail == SEVERAL


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
    assert extract_letter(text, "ABCD", options) == (right, "")


def test_what_only_begins_like_an_option_is_none():
    assert extract_letter("The answer is can be found", "ABCD", ["can", "keg", "ore", "jar"]) == (None, NONE)
    assert extract_letter("A or B", "ABCD", ["so", "or B then", "x", "y"]) == (None, SEVERAL)
    assert extract_letter("C) is wrong", "ABCD", OPTIONS) == (None, NONE)
    assert extract_letter("The answer is not Paris, it is London.", "ABCD", OPTIONS) == ("C", "")


def test_a_letter_is_read_as_a_letter_where_an_option_is_one_too():
    assert extract_letter("The answer is B.", "ABCD", ["As", "P", "Sb", "B"]) == ("B", "")
    assert extract_letter("The answer is P.", "ABCD", ["As", "P", "Sb", "B"]) == ("B", "")


def test_options_of_one_text_are_one_answer():
    options = ["yes", "no", "yes", "both"]
    assert score_letter("The answer is yes.", "C", "ABCD", options).score == 1.0
    assert score_letter("The answer is (A).", "C", "ABCD", options).score == 1.0
    assert score_letter("The answer is (B).", "C", "ABCD", options).score == 0.0
    assert score_letter("The answer is (A).", "C", "ABCD").score == 0.0
