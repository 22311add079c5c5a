"""Equal answers, missing answers, and failures on our side."""

import pytest
from answers import UNENDING, asked, group, scores, written

from nbg_lightning.data.question import Question
from nbg_lightning.rewards import MathReward
from nbg_lightning.rewards.math import extract_from, gold_expression
from nbg_lightning.scoring.sandbox.sandbox import Sandbox
from nbg_lightning.scoring.symbolic import read_values, same_values
from nbg_lightning.scoring.symbolic_child import as_python, values


@pytest.fixture(scope="module")
def reward():
    with MathReward(workers=2, deadline=3.0) as opened:
        yield opened


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("1/2", [r"\boxed{\frac{1}{2}}", r"\boxed{0.5}", "The answer is 1/2.", r"\boxed{\dfrac12}"], [r"\boxed{2}"]),
        ("1200", [r"\boxed{1,200}", r"\boxed{1.2 \times 10^3}", r"\boxed{1200.0}"], [r"\boxed{12000}", r"\boxed{1,201}"]),
        (r"\boxed{x^2-1}", [r"\boxed{(x-1)(x+1)}", r"\boxed{-1 + x^2}"], [r"\boxed{(x-1)^2}"]),
        (r"\frac{\sqrt{2}}{2}", [r"\boxed{\frac{1}{\sqrt{2}}}"], [r"\boxed{0.7}", r"\boxed{\sqrt{2}}"]),
        ("(1, 2)", [r"\boxed{(1,2)}", r"\boxed{\left(1, \frac{4}{2}\right)}"], [r"\boxed{(2,1)}", r"\boxed{1}"]),
        ("some steps #### 18", [r"\boxed{18}", "#### 18"], ["#### 81"]),
        ("Evelyn", [r"\boxed{\text{Evelyn}}", r"\boxed{evelyn}"], [r"\boxed{Carl}"]),
    ],
)  # fmt: skip
def test_forms(gold, right, wrong, reward):
    assert reward.check(asked(gold)) is None
    assert scores(reward.score([group(asked(gold), *right, *wrong)])) == [[1.0] * len(right) + [0.0] * len(wrong)]


def test_results_stand_in_their_places(reward):
    groups = [
        group(asked("3"), r"\boxed{x}", r"\boxed{3}"),
        group(asked(r"x+1"), r"\boxed{1+x}", "nothing", r"\boxed{x}"),
        group(asked("7")),
    ]
    assert scores(reward.score(groups)) == [[0.0, 1.0], [1.0, 0.0, 0.0], []]


def test_answers_that_are_none(reward):
    (results,) = reward.score([group(asked("3"), "I give up", UNENDING, written("<think>3</think>", "3", final=None))])
    assert [(result.score, result.status, result.parsed) for result in results] == [(0.0, "ok", False)] * 3
    assert "no end" in results[1].detail


def test_only_the_text_after_the_reasoning_counts(reward):
    answer = written(r"<think>\boxed{3}</think>so \boxed{4}", r"\boxed{3}", r"so \boxed{4}")
    assert scores(reward.score([group(asked("3"), answer), group(asked("4"), answer)])) == [[0.0], [1.0]]


def offered(answer, *choices, prompt="Which?\nA. {}\nB. {}\nC. {}", **data):
    return Question(
        ({"role": "user", "content": prompt.format(*choices)},), answer, "", {"choices": [*choices], **data}
    )


LETTERED = [
    "B", "(B)", "B.", "**B**", "Answer: B", "The answer is (B).", "The correct option is B.", "I choose B.", "B. is", "B) is",
    r"\boxed{B}", r"\boxed{\text{(B)}}", "<answer>b</answer>", "So is it.\n\nB is correct.", "The answer is is.", "is",
]  # fmt: skip


@pytest.mark.parametrize("gold", ["B", "is"])
def test_questions_that_show_their_choices(gold, reward):
    right, wrong = offered(gold, "was", "is", "A and B"), offered("A", "was", "is", "A and B")
    assert reward.check(right) is None
    assert scores(reward.score([group(right, *LETTERED), group(wrong, *LETTERED)])) == [[1.0] * 16, [0.0] * 16]
    none = ["I do not know.", "The answer is A or B", "The answer is C", "The answer is A and B.", "", UNENDING]
    assert scores(reward.score([group(right, *none)])) == [[0.0] * 6]


def test_only_choices_that_are_shown_are_chosen_by_letter(reward):
    hidden = offered("is", "was", "is", "has", prompt="Which?")
    assert scores(reward.score([group(hidden, "The answer is B.", "The answer is is.")])) == [[0.0, 1.0]]
    numbers = offered("12", "11", "12", "13")
    letter = offered("c", "0.8c", "c", "b", answer_index=1)
    assert scores(reward.score([group(letter, "The answer is B.", "(b)", "A", "The answer is 0.8c.")])) == [
        [1.0, 1.0, 0.0, 0.0]
    ]
    answers = ["The answer is 12.", r"\boxed{12.0}", "(B)", r"So $\frac{24}{2}$", r"\boxed{13}", "C"]
    assert scores(reward.score([group(numbers, *answers)])) == [[1.0, 1.0, 1.0, 1.0, 0.0, 0.0]]


def test_a_chosen_option_stands_in_the_box():
    with MathReward(find="boxed", workers=1) as boxed:
        answers = [r"A is wrong. \boxed{B}", r"\boxed{\text{(B) is}}", "The answer is B.", "B"]
        assert scores(boxed.score([group(offered("B", "was", "is", "has"), *answers)])) == [[1.0, 1.0, 0.0, 0.0]]


def test_where_answers_are_found():
    text = "First 5. So there are 12 apples in all"
    assert extract_from(text, "boxed") is extract_from(text, "announced") is None
    assert extract_from(text, "number") == "12"
    assert extract_from("The answer is $x$.", "announced") == "x"
    assert extract_from(r"The answer is 3, or \boxed{4}", "boxed") == "4"
    with pytest.raises(ValueError, match="find is invalid: 'last'"):
        MathReward(find="last")


def test_fallback_to_the_last_number():
    with MathReward(find="number", workers=1) as reward:
        assert scores(reward.score([group(asked("12"), "There are 12 apples", "12 of 13", "none")])) == [
            [1.0, 0.0, 0.0]
        ]


def test_answers_beyond_the_limits_are_wrong(reward):
    hostile, right = [r"\boxed{9^{9^{9^{9}}}+x}", r"\boxed{1e5000}", r"\boxed{" + "9" * 20_000 + "}"], r"\boxed{x+1}"
    (results,) = reward.score([group(asked("1+x"), *hostile, right)])
    assert [(result.score, result.status, result.parsed) for result in results[:-1]] == [(0.0, "ok", False)] * 3
    assert all("limit" in result.detail or "bits" in result.detail for result in results[:-1])
    assert results[-1].score == 1.0
    (results,) = reward.score([group(asked(None), right)])
    assert (results[0].score, results[0].status) == (None, "error")


@pytest.mark.parametrize(
    ("gold", "says"),
    [(None, "no gold answer"), ("  ", "no gold answer"), (r"\frac{1}{", "cannot be parsed"), (r"{}^\circ_{", "cannot be parsed")],
)  # fmt: skip
def test_gold_that_cannot_be_used_is_reported_at_load(gold, says, reward):
    assert says in reward.check(asked(gold))


def test_gold_expression():
    assert gold_expression(r"Thus $\boxed{\dfrac{1}{2}}$.") == r"\dfrac{1}{2}"
    assert gold_expression("2 + 2 = 4\n#### 1,000") == "1,000"


# -- the fallback to sympy ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("latex", "python"),
    [(r"\frac{1}{\sqrt{2}}", "((1)/(sqrt(2)))"), (r"x^{10}", "x**(10)"), (r"2\cdot\pi", "2* pi"), ("2**10", "2**10")],
)
def test_latex_as_python(latex, python):
    assert as_python(latex) == python


def test_values_of_expressions():
    assert same_values(values("(x+1)**2"), values(r"x^2 + 2x + 1"))
    assert same_values(values("sin(x)**2 + cos(x)**2"), values("1 + 0*x")) and not same_values(values("x"), values("y"))
    assert not same_values(values("3.1415926"), values("pi"))
    assert not same_values(values("(1, 2)"), values("(2, 1)")) and same_values(values("(1, 4/2)"), values("(1, 2)"))
    assert not same_values([], [])
    assert same_values(values("1/x"), values("x**(-1)"))  # without a value at 0
    for one, two in (("sqrt(x**2)", "x"), ("Abs(x)", "x"), ("log(x**2)", "2*log(x)"), ("sqrt(x*y)", "sqrt(x)*sqrt(y)")):
        assert not same_values(values(one), values(two)), f"{one} is {two} for positive numbers only"
    for text in ("", "import os", "{", "1/0", "x > 1"):
        with pytest.raises(Exception):  # noqa: B017, PT011 - sympy raises what it likes
            assert same_values(values(text), values(text))


def test_sympy_fallback():
    try:
        Sandbox().probe()
    except RuntimeError as error:
        pytest.skip(str(error))
    with MathReward(sympy_fallback=True, workers=2, deadline=3.0) as reward:
        right = [r"\boxed{2**10}", r"\boxed{factorial(4) + 1000}"]
        wrong = [
            r"\boxed{2**9}",
            r"\boxed{print('[[[1024.1, 0.0], [1024.0, 0.0], [1024.0, 0.0]]]')}",
            r"\boxed{__import__('os')._exit(0)}",
        ]
        assert scores(reward.score([group(asked("1024"), *right, *wrong)])) == [[1.0, 1.0, 0.0, 0.0, 0.0]]


def test_sympy_fallback_is_refused_without_isolation(monkeypatch):
    def nothing(self):
        raise RuntimeError("no sandbox: there is no bwrap")

    monkeypatch.setattr(Sandbox, "probe", nothing)
    with pytest.raises(RuntimeError, match="no sandbox"):
        MathReward(sympy_fallback=True).__enter__()
    MathReward().__enter__()


def test_output_that_is_no_values():
    from nbg_lightning.scoring.sandbox.sandbox import SandboxResult

    for text in ("", "hello", "[1]", '[["x"]]', "[[[1]]]", "null"):
        assert read_values(SandboxResult("ok", text)) is None
    assert read_values(SandboxResult("failed", "[[[1.0, 0.0]]]")) is None


def test_answers_that_cannot_be_evaluated_in_time_are_wrong():
    """Not masked, which would be better for the model than a wrong answer."""
    hostile = (r"\boxed{9^{9^{9^9}}}", r"\boxed{\sum_{n=1}^{10^9} \frac{1}{n}}")
    with MathReward(workers=2, deadline=1.0) as reward:
        (results,) = reward.score([group(asked("4"), r"\boxed{4}", *hostile, r"\boxed{5}")])
    assert [(result.status, result.score) for result in results] == [("ok", 1.0), *[("ok", 0.0)] * 3]
    assert all(result.detail for result in results)


@pytest.mark.parametrize("find", ["boxed", "announced"])
def test_a_gold_that_does_not_match_itself_is_named(find):
    """A model that repeats the gold answer in a box must be right, else no answer can be."""
    with MathReward(find=find, workers=1, deadline=3.0) as one:
        said = one.check(asked("100\\"))  # the backslash escapes the end of the box
        assert said == "the gold answer '100\\\\' does not match itself in a \\boxed{} (no answer found)"
        right = [
            "5",
            "1,2",
            "Evelyn",
            "x=5",
            r"\frac{1}{2}",
            r"3 \text{ cm}",
            "#### 4",
            r"\boxed{7}",
            "yes",
            r"\infty",
            r"\sin x + y",
        ]
        assert [(gold, one.check(asked(gold))) for gold in right] == [(gold, None) for gold in right]


def test_a_sentence_as_gold_is_named_where_answers_are_taken_out_of_sentences():
    with MathReward(find="announced", workers=1, deadline=3.0) as one:
        assert "does not match itself" in one.check(asked("The answer is 5"))
