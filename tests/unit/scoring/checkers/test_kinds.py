"""What a checker stores about a question's own answer, and verdicts that need no child."""

import pytest
import reasoning_gym

from nbg_lightning.scoring.checkers.kinds import NotAnAnswer, ReasoningGymChecker

SETTINGS = {"size": 4, "seed": 3}


@pytest.fixture(scope="module")
def checker():
    return ReasoningGymChecker()


def question(task, place=0):
    return task, SETTINGS, reasoning_gym.create_dataset(task, **SETTINGS)[place]


@pytest.mark.parametrize("task", ["chain_sum", "gcd", "spiral_matrix", "countdown", "simple_integration"])
def test_only_the_text_of_a_kept_answer_is_known(checker, task):
    asked = question(task)
    gold = asked[2]["answer"]
    assert checker.known(*asked, gold) is None
    kept = checker.reference(*asked, "wrong")
    assert kept == checker.verdict(*asked, gold) > 0
    checker.keep_reference(kept, *asked, "wrong")
    assert checker.known(*asked, gold) == kept
    for other in (f"{gold} ", gold[:-1], "", "wrong"):
        assert checker.known(*asked, other) is None
    assert checker.known(*question(task, 1), gold) is None
    assert checker.known(task, {**SETTINGS, "seed": 4}, asked[2], gold) is None


def test_an_own_answer_that_is_not_accepted_is_the_questions_fault(checker):
    task, settings, entry = question("simple_integration")
    with pytest.raises(ValueError, match=r"scores the entry's own answer 'exp.*' with 0"):
        checker.reference(task, settings, {**entry, "answer": "exp(x)"}, "1")
    with pytest.raises(NotAnAnswer, match="'Integral' is not a function of mathematics"):
        checker.reference(task, settings, {**entry, "answer": "Integral(x, x)"}, "1")


@pytest.mark.parametrize("kept", ["many", [1.0], {}, float("nan"), float("inf")])
def test_what_could_not_be_a_score_is_not_kept(checker, kept):
    asked = question("products")
    with pytest.raises((ValueError, TypeError)):
        checker.keep_reference(kept, *asked, "1")
    assert checker.known(*asked, asked[2]["answer"]) is None


def test_questions_without_an_own_answer_know_none(checker):
    task, settings, entry = question("countdown")
    entry = {**entry, "answer": None}
    assert checker.reference(task, settings, entry, "1 + 1") is None
    checker.keep_reference(None, task, settings, entry, "1 + 1")
    assert checker.known(task, settings, entry, "1 + 1") is None


@pytest.mark.parametrize(
    "answer", ["nan", "NaN", "nan+nani", "(nan)", "nanj", "3+nani", "inf", "-Infinity", "1+infj", "nan i"]
)
@pytest.mark.parametrize("task", ["complex_arithmetic", "chain_sum", "products", "decimal_arithmetic"])
def test_what_is_not_a_finite_number_is_not_near_to_one(checker, task, answer):
    """A distance to it is NaN, and of a score and NaN `min` gives the score."""
    with pytest.raises(NotAnAnswer, match="not a finite number"):
        checker.verdict(*question(task), answer)


def test_words_are_words(checker):
    task, settings, entry = question("spell_backward")
    entry = {**entry, "answer": "nan", "metadata": {**entry["metadata"], "word": "nan"}}
    assert checker.verdict(task, settings, entry, "nan") == 1.0
    assert checker.verdict(task, settings, entry, "inf") < 1.0
