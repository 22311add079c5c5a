"""The judge: programs that attack it get no verdict, and correct programs in common idioms pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbg_lightning.scoring import Sandbox

HERE = Path(__file__).parent
# Finds the word that makes a verdict valid and says "ok" with it: works where the judge runs it, and nowhere else.
CODE = """
import gc, os, sys
from nbg_lightning.scoring.sandbox.codec import encode, write_frame
word = next(each['word'] for each in gc.get_objects() if isinstance(each, dict) and 'word' in each and 'tests' in each)
write_frame(int(sys.argv[3]), encode((word, 'ok', '')))
os._exit(0)
"""


def cases(name):
    """Name, program and tests of each case in a file."""
    for part in (HERE / f"{name}.txt").read_text().split("#### ")[1:]:
        title, text = part.split("\n", 1)
        program, tests = text.split("==== tests\n")
        yield title, (program, tests)


FORGERIES, IDIOMS = dict(cases("forgeries")), dict(cases("idioms"))


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(timeout=4, memory=512, workers=2, packages=["numpy"]) as box:
        yield box


@pytest.fixture(scope="module")
def forged(sandbox):
    head = f"CODE = {CODE!r}\nPAYLOAD = 'exec(%r)' % CODE\n"
    jobs = [{"solution": head + program, "tests": tests} for program, tests in FORGERIES.values()]
    return dict(zip(FORGERIES, sandbox.check_many(jobs), strict=True))


def test_the_payload_forges_where_the_judge_runs_it(sandbox):
    """Otherwise the forgeries below would prove nothing."""
    assert sandbox.check("def f(x): return 5", f"exec({CODE!r})\nassert f(3) == 9").status == "ok"


def test_there_are_enough():
    assert len(FORGERIES) >= 80 and len(IDIOMS) >= 80


@pytest.mark.parametrize("name", FORGERIES)
def test_nothing_is_forged(name, forged):
    result = forged[name]
    assert not result
    assert result.status in ("failed", "timeout", "killed"), result  # never an error, which would be no punishment
    assert result.detail.isprintable()


@pytest.fixture(scope="module")
def judged(sandbox):
    jobs = [{"solution": program, "tests": tests} for program, tests in IDIOMS.values()]
    return dict(zip(IDIOMS, sandbox.check_many(jobs), strict=True))


@pytest.mark.parametrize("name", IDIOMS)
def test_usual_idioms_are_right(name, judged):
    assert judged[name], judged[name]


def test_usual_idioms_are_wrong_for_another_program(sandbox):
    """No test of an idiom passes whatever the program does."""
    jobs = [{"solution": "def f(*a, **k): return 'wrong'\ng = f", "tests": tests} for _, tests in IDIOMS.values()]
    results = dict(zip(IDIOMS, sandbox.check_many(jobs), strict=True))
    assert {name: result.status for name, result in results.items() if result.status != "failed"} == {}


def test_a_byte_order_mark_in_front_is_no_part_of_a_program(sandbox):
    assert sandbox.check("\ufeffdef f(x):\n    return x + 1\n", ["assert f(3) == 4"])
    assert not sandbox.check("def f(x):\n    return \ufeffx + 1\n", ["assert f(3) == 4"])
