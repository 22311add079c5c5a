"""Records: outcomes from scores, the choice of records to show, and two runs side by side."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbg_lightning.pages.records import EveryNth, ShownAnswer, ShownRecord, Side, side_by_side
from nbg_lightning.pages.values import as_number, as_objects, as_text, key_of


def record(key, *scores):
    return ShownRecord(key, "", "", answers=tuple(ShownAnswer("", (), score) for score in scores))


@pytest.mark.parametrize(
    ("scores", "outcome"),
    [((1, 1), "right"), ((0, 0), "wrong"), ((0, 1), "mixed"), ((0.5,), "mixed"), ((None,), "unscored"), ((), "unscored"),
     ((None, 1), "right"), ((-1,), "wrong")],
)  # fmt: skip
def test_outcomes(scores, outcome):
    assert record("a", *scores).outcome == outcome


def test_a_counted_rate_stands_for_scores():
    assert [ShownRecord("a", "", "", rate=rate).outcome for rate in (0.0, 0.5, 1.0, None)] == [
        "wrong", "mixed", "right", "unscored",
    ]  # fmt: skip


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.integers(0, 300), st.integers(1, 40))
def test_every_nth_is_even_bounded_and_counts_all(total, limit):
    kept = EveryNth(limit)
    for number in range(total):
        kept.add(number)
    assert kept.total == total
    assert kept.items == list(range(0, total, kept.stride))
    assert min(total, (limit + 1) // 2) <= len(kept.items) <= limit


def test_two_runs_by_key_with_repeats_and_those_of_one_alone():
    first = [record("a", 0), record("a", 1), record("b", 1)]
    second = [record("c", 1), record("a", 1), record("a", 1), record("a", 0)]
    sides = side_by_side(first, second)
    found = [(side.record.key, bool(side.first), bool(side.second), side.change) for side in sides]
    assert found == [
        ("a", True, True, "better"), ("a", True, True, "same"), ("b", True, False, ""),
        ("c", False, True, ""), ("a", False, True, ""),
    ]  # fmt: skip
    assert Side(record("a", None), record("a", 1)).change == ""


def test_values_of_odd_files():
    assert [as_number(value) for value in (1, 0.5, float("nan"), float("inf"), 10**400, "1", None, [])] == [
        1.0, 0.5, None, None, None, None, None, None,
    ]  # fmt: skip
    assert [as_text(value) for value in ("a", None, {"b": 1}, [1], float("nan"))] == ["a", "", '{"b": 1}', "[1]", "NaN"]
    assert as_objects([{"a": 1}, 2, None]) == [{"a": 1}] and as_objects("text") == []
    assert key_of("a", 1) == key_of("a", 1) != key_of("a", "1") and key_of("\ud83d")
