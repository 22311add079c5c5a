"""The one-point check agrees with the tasks' own checkers."""

import pytest
import reasoning_gym
from hypothesis import given, settings
from hypothesis import strategies as st

from nbg_lightning.scoring.checkers.integrals import differs
from nbg_lightning.scoring.checkers.kinds import INTEGRALS

CUBE = {"variable": "x", "integrand": "3*x**2"}


@pytest.mark.parametrize("task", INTEGRALS)
def test_it_never_contradicts_the_checker(task):
    """Own answers, those of other items, and own answers that are a little or not at all changed."""
    dataset = reasoning_gym.create_dataset(task, size=24, seed=9)
    items = [item for item in (dataset[place] for place in range(24)) if "Integral" not in item["answer"]][:9]
    right = wrong = 0
    for place, item in enumerate(items):
        own = item["answer"]
        for answer in (
            own,
            f"1 + {own}",
            f"2*({own})/2",
            f"{own} + x/1000",
            f"1.01*({own})",
            items[place - 1]["answer"],
        ):
            scored, decided = dataset.score_answer(answer=answer, entry=item), differs(answer, item["metadata"])
            right += scored == 1.0
            wrong += decided
            assert not (scored == 1.0 and decided), (answer, item)
            assert decided or scored == 1.0, (answer, item)
    assert right >= 27 and wrong >= 18


@pytest.mark.parametrize(
    "answer",
    ["x**3", "x**3 + C", "C + x**3 - 7", "x**3 + 0*y", "x**2*x", "oo*x", "", "(", "x > 3", "[x]", "y(x)",
     "x**3 + y - y", "log(0)*x"],
)  # fmt: skip
def test_what_a_point_does_not_decide_is_left_to_the_checker(answer):
    assert differs(answer, CUBE) is False


@pytest.mark.parametrize(
    "answer", ["x**2", "C", "7", "x**3 + x/100000", "sin(x)", "sqrt(-x)", "x**3*1.0001", "1/0", "zoo", "nan", "'x'"]
)
def test_what_a_point_decides(answer):
    assert differs(answer, CUBE) is True


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 6), st.sampled_from(["x", "y", "z"]))
def test_integrals_of_powers(factor, constant, power, name):
    metadata = {"variable": name, "integrand": f"{factor}*{name}**{power}"}
    assert differs(f"{factor}*{name}**{power + 1}/{power + 1} + {constant}", metadata) is False
    assert differs(f"{factor}*{name}**{power + 1}/{power + 1} + {name}", metadata) is True
