"""Mutants of programs: each differs in one place, and none equals the program."""

import ast

import pytest

from nbg_lightning.construction.problems.mutants import make_mutants

SEARCH = '''
def find(items: list, wanted, low: int = 0) -> int:
    """Where 1 is 2."""
    high = len(items)
    while low < high and not wanted is None:
        middle = (low + high) // 2
        if items[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    for item in items:
        if item:
            break
    low += 0.5
    if low > 9:
        raise ValueError("more than 9")
    print(f"{low + 1}")
    return -low
'''


def changes(source, **options):
    return [mutant.change for mutant in make_mutants(source, **options)]


def test_every_kind_of_change():
    mutants = make_mutants(SEARCH)
    found = {mutant.kind for mutant in mutants}
    assert found == {"comparison", "arithmetic", "logic", "condition", "constant", "return", "statement", "loop"}
    every = [mutant.change for mutant in mutants]
    for wanted in (
        "low < high -> low <= high",
        "low < high -> low >= high",
        "low + high -> low - high",
        "not wanted is None -> wanted is None",
        "middle + 1 -> middle - 1",
        "break -> continue",
        "low += 0.5 -> low -= 0.5",
        "return -low -> return None",
        "-low -> low",
        "0 -> 1",
    ):
        assert wanted in every
    assert any(change.startswith("raise ValueError") and change.endswith("-> pass") for change in every)


def test_each_is_another_program_that_differs_in_one_place():
    mutants = make_mutants(SEARCH)
    sources = [mutant.source for mutant in mutants]
    original = ast.unparse(ast.parse(SEARCH))
    assert len(set(sources)) == len(sources)
    assert original not in sources
    lines = original.splitlines()
    changed = []
    for mutant in mutants:
        ast.parse(mutant.source)
        own = mutant.source.splitlines()
        changed += [sum(one != two for one, two in zip(own, lines, strict=True))] if len(own) == len(lines) else []
    assert len(changed) > len(mutants) / 2
    assert set(changed) == {1}


def test_what_is_not_behaviour_is_left_alone():
    for change in changes(SEARCH):
        assert "Where 1 is 2" not in change
        assert "more than 9 ->" not in change
        assert not change.startswith("list ->")
        assert "low + 1 ->" not in change  # inside an f-string


def test_some_of_them_by_seed():
    every = changes(SEARCH)
    some = changes(SEARCH, limit=7, seed=1)
    assert len(some) == 7
    assert some == changes(SEARCH, limit=7, seed=1)
    assert some != changes(SEARCH, limit=7, seed=2)
    assert [change for change in every if change in some] == some  # in the order of the program
    assert changes(SEARCH, limit=10_000) == every


def test_the_program_is_not_changed_by_being_mutated():
    assert changes(SEARCH) == changes(SEARCH)


def test_what_is_no_python():
    with pytest.raises(SyntaxError):
        make_mutants("def f(:")
    assert make_mutants("") == []
