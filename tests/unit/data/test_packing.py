from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbg_lightning.data.packing import best_fit_decreasing, length_buckets, packing_efficiency


def reference(lengths, capacity):
    """Best-fit decreasing, written down: the fullest bin that still has room. Number of bins."""
    free: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [index for index, space in enumerate(free) if space >= length]
        if fitting:
            free[min(fitting, key=free.__getitem__)] -= length
        else:
            free.append(capacity - length)
    return len(free)


def optimum(lengths, capacity):
    """Fewest bins, by trying everything."""
    best = len(lengths)

    def place(rest, free):
        nonlocal best
        if len(free) >= best:
            return
        if not rest:
            best = len(free)
            return
        for index in range(len(free)):
            if free[index] >= rest[0]:
                place(rest[1:], [*free[:index], free[index] - rest[0], *free[index + 1 :]])
        place(rest[1:], [*free, capacity - rest[0]])

    place(sorted(lengths, reverse=True), [])
    return best


@st.composite
def problems(draw, max_items=200):
    # Capacities around and above one and two levels of flags (512 and 262,144).
    capacity = draw(st.one_of(st.integers(1, 40), st.integers(500, 1100), st.integers(262_000, 530_000)))
    return draw(st.lists(st.integers(1, capacity), max_size=max_items)), capacity


@given(problem=problems())
@settings(max_examples=300, deadline=None)
def test_every_item_once_no_bin_too_full_and_as_good_as_the_definition(problem):
    lengths, capacity = problem
    bins = best_fit_decreasing(lengths, capacity)
    assert sorted(index for items in bins for index in items) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in items) <= capacity for items in bins)
    assert len(bins) == reference(lengths, capacity)
    # First-fit's property: no two bins could be one, so at most one is not more than half full.
    assert sum(2 * sum(lengths[index] for index in items) <= capacity for items in bins) <= 1


@given(st.lists(st.integers(1, 12), max_size=8), st.integers(12, 14))
@settings(max_examples=150, deadline=None)
def test_bound_against_the_optimum(lengths, capacity):
    best = optimum(lengths, capacity)
    assert best <= len(best_fit_decreasing(lengths, capacity)) <= 11 / 9 * best + 6 / 9


def test_worked_by_hand():
    # 7 opens a bin; the 5s share one exactly; 3 goes to the 7.
    assert best_fit_decreasing([5, 7, 3, 5], capacity=10) == [[1, 2], [0, 3]]
    # 2 fits into the bins of 6 and of 7: the fuller bin gets it.
    assert best_fit_decreasing([6, 7, 2], capacity=10) == [[1, 2], [0]]
    assert best_fit_decreasing([4], capacity=4) == [[0]]
    assert best_fit_decreasing([], capacity=4) == []


def test_result_is_a_pure_function_of_the_arguments():
    lengths = np.random.default_rng(0).integers(1, 100, 2000)
    first = best_fit_decreasing(lengths, 128)
    assert first == best_fit_decreasing(lengths.tolist(), 128)
    assert first == best_fit_decreasing(lengths.astype(np.uint16), 128)
    assert type(first[0][0]) is int


@pytest.mark.parametrize("function", [best_fit_decreasing, length_buckets])
def test_bad_input_names_the_item(function):
    with pytest.raises(ValueError, match=r"length 11 at index 1 is more than \w+=10"):
        function([3, 11], 10)
    with pytest.raises(ValueError, match="length is invalid: 0 at index 2"):
        function([3, 4, 0], 10)
    with pytest.raises(ValueError, match="is invalid: 0; give at least 1"):
        function([3], 0)
    with pytest.raises(ValueError, match="vector of integers"):
        function([1.5], 10)
    with pytest.raises(ValueError, match="vector of integers"):
        function([[1, 2]], 10)


def test_efficiency():
    lengths = [5, 7, 3, 5]
    assert packing_efficiency(best_fit_decreasing(lengths, 10), lengths, 10) == 1.0
    assert packing_efficiency([[0], [1], [2], [3]], lengths, 10) == pytest.approx(0.5)
    assert packing_efficiency([], [], 10) == 1.0
    with pytest.raises(ValueError, match="bins are invalid: 3 items, and 4 lengths"):
        packing_efficiency([[0], [1, 2]], lengths, 10)


def test_typical_lengths_pack_almost_fully():
    lengths = np.clip(np.random.default_rng(0).lognormal(6, 1, 20_000).astype(int), 1, 4096)
    assert packing_efficiency(best_fit_decreasing(lengths, 4096), lengths, 4096) > 0.995


@given(problem=problems())
@settings(max_examples=200, deadline=None)
def test_buckets_hold_every_item_once_within_the_padded_budget(problem):
    lengths, budget = problem
    batches = length_buckets(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(len(batch) * max(lengths[index] for index in batch) <= budget for batch in batches)
    flat = [lengths[index] for batch in batches for index in batch]
    assert flat == sorted(lengths, reverse=True)
    # No batch could have taken the next item as well.
    for batch, following in pairwise(batches):
        assert following
        assert (len(batch) + 1) * lengths[batch[0]] > budget


def test_time_grows_like_n_log_n():
    # A quadratic search takes minutes here; the margin is for busy machines.
    lengths = np.random.default_rng(0).integers(1, 32_768, 100_000)
    begin = time.process_time()
    best_fit_decreasing(lengths, 32_768)
    assert time.process_time() - begin < 5
