"""The data order: bounded shares, exact epochs, exact switches, and the same result wherever it is computed."""

from __future__ import annotations

import itertools
import math
import time
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbg_lightning.data import order as order_module
from nbg_lightning.data.order import (
    GOLDEN,
    MODULUS,
    SampleOrder,
    Samples,
    chain,
    count_below,
    expected_chain,
    floor_sum,
    mix,
    permute,
    sample_hash,
)
from nbg_lightning.schedule.curriculum import Curriculum, Stage


def one_stage(num_samples: int, mixture: dict[str, float]) -> Curriculum:
    return Curriculum([Stage("only", num_samples * 8, 1e-3, mixture)], tokens_per_step=8, sequence_length=8)


def columns(samples: Samples) -> list[list[int]]:
    return [getattr(samples, name).tolist() for name in ("index", "stage", "source", "epoch", "window")]


# --- counting -----------------------------------------------------------------------------------------------


@given(st.integers(0, 60), st.integers(-500, 500), st.integers(-500, 500), st.integers(1, 50))
@settings(max_examples=500)
def test_floor_sum_against_adding_up(count, slope, offset, modulus):
    assert floor_sum(count, slope, offset, modulus) == sum((slope * j + offset) // modulus for j in range(count))


@given(st.integers(0, 3000), st.integers(0, MODULUS - 1), st.integers(0, MODULUS))
@settings(max_examples=100)
def test_count_below_is_counting(count, offset, threshold):
    x = [(j * GOLDEN + offset) % MODULUS for j in range(count)]
    assert count_below(count, offset, threshold) == sum(value < threshold for value in x)


def test_counts_at_a_distance_nobody_can_enumerate():
    # The error of the golden-ratio sequence grows with the logarithm only.
    for threshold in (MODULUS // 3, MODULUS // 1000, MODULUS - 12345):
        assert abs(count_below(10**15, 777, threshold) - 10**15 * threshold / MODULUS) < 25
    # And the numbers of two halves add up.
    rest = count_below(10**15, (777 + 10**15 * GOLDEN) % MODULUS, MODULUS // 3)
    assert count_below(2 * 10**15, 777, MODULUS // 3) == count_below(10**15, 777, MODULUS // 3) + rest


@given(
    st.dictionaries(st.sampled_from("abcde"), st.floats(0.001, 10), min_size=1),
    st.integers(0, 2**40),
    st.lists(st.integers(0, 2500), min_size=1, max_size=4),
)
@settings(max_examples=30)
def test_epochs_before_is_what_was_looked_up(mixture, seed, places):
    curriculum = Curriculum(
        [Stage("one", 1000 * 8, 1e-3, mixture), Stage("two", 1500 * 8, 1e-3, {"e": 1, "f": 2})],
        tokens_per_step=8,
        sequence_length=8,
    )
    order = SampleOrder(seed, curriculum, lambda source, length: 10 + ord(source))
    source = order.lookup(0, 2500).source
    for place in places:
        counts = np.bincount(source[:place], minlength=len(curriculum.sources))
        for name, count in zip(curriculum.sources, counts, strict=True):
            assert order.epochs_before(place)[name] == pytest.approx(count / (10 + ord(name)))


# --- shares -------------------------------------------------------------------------------------------------


def worst_error(order: SampleOrder, num_samples: int, weights: np.ndarray) -> float:
    """max over all prefixes and sources of |samples of the source - prefix x share|."""
    source = order.lookup(0, num_samples).source
    expected = np.arange(1, num_samples + 1)
    shares = weights / weights.sum()
    return max(np.abs(np.cumsum(source == i) - expected * shares[i]).max() for i in range(len(weights)))


def test_share_error_is_bounded_over_a_million_samples():
    random = np.random.default_rng(0)
    worst = 0.0
    for trial in range(12):
        weights = random.dirichlet(np.ones(random.integers(2, 9)))
        weights[0] = 1e-3
        names = [f"s{i}" for i in range(len(weights))]
        curriculum = one_stage(1_000_000, dict(zip(names, weights.tolist(), strict=True)))
        order = SampleOrder(trial, curriculum, lambda source, length: 1 if source == "s1" else 10**6)
        worst = max(worst, worst_error(order, 1_000_000, weights))
    print(f"worst share error over 12 x 10^6 samples: {worst:.2f}")
    assert worst <= 6


def test_every_step_has_its_share():
    """Also the stretch between any two places stays within a few samples, so each batch is a fair sample."""
    order = SampleOrder(3, one_stage(100_000, {"a": 0.7, "b": 0.2, "c": 0.1}), lambda source, length: 10**6)
    source = order.lookup(0, 100_000).source.reshape(-1, 100)
    counts = np.stack([(source == i).sum(axis=1) for i in range(3)])
    assert np.abs(counts - np.array([[70], [20], [10]])).max() <= 3


def test_sources_that_are_off_are_never_drawn_and_need_no_windows():
    order = SampleOrder(
        0, one_stage(1000, {"off": 0, "on": 1, "last": 0}), lambda source, length: int(source == "on") * 5
    )
    assert set(order.lookup(0, 1000).source.tolist()) == {1}


def test_a_vanishing_weight_is_no_error():
    order = SampleOrder(0, one_stage(1000, {"a": 1, "b": 1e-30}), lambda source, length: 5)
    assert np.bincount(order.lookup(0, 1000).source, minlength=2).tolist() == [1000, 0]


def test_order_of_the_mixture_in_a_later_stage_does_not_matter():
    def made(second):
        stages = [Stage("one", 80, 1e-3, {"a": 1, "b": 2}), Stage("two", 800, 1e-3, second)]
        return SampleOrder(0, Curriculum(stages, 8, 8), lambda source, length: 50).lookup(0, 110)

    assert columns(made({"a": 3, "b": 1})) == columns(made({"b": 1, "a": 3}))


# --- epochs -------------------------------------------------------------------------------------------------


def test_each_epoch_holds_every_window_once_across_block_borders():
    sizes = {"big": 100_003, "small": 70}
    curriculum = one_stage(300_000, {"big": 0.9, "small": 0.1})
    samples = SampleOrder(1, curriculum, lambda source, length: sizes[source]).lookup(0, 300_000)
    for position, name in enumerate(curriculum.sources):
        mine = samples.source == position
        epochs, windows = samples.epoch[mine], samples.window[mine]
        assert (np.diff(epochs) >= 0).all()
        assert epochs[-1] >= 2
        for epoch in range(epochs[-1]):
            assert np.array_equal(np.sort(windows[epochs == epoch]), np.arange(sizes[name]))
        rest = windows[epochs == epochs[-1]]
        assert len(set(rest.tolist())) == len(rest) <= sizes[name]


def test_an_epoch_goes_on_in_the_next_stage_with_the_same_sequence_length():
    stages = [
        Stage("one", 600 * 8, 1e-3, {"hq": 1, "mq": 1}),
        Stage("between", 100 * 8, 1e-3, {"other": 1}, sequence_length=4),  # does not touch hq
        Stage("two", 800 * 8, 1e-3, {"hq": 1}),
    ]
    curriculum = Curriculum(stages, tokens_per_step=8, sequence_length=8)
    samples = SampleOrder(5, curriculum, lambda source, length: 1000).lookup(0, curriculum.num_samples)
    mine = samples.source == 0
    num_first = int((mine & (samples.stage == 0)).sum())
    assert abs(num_first - 300) <= 3
    assert samples.epoch[mine].tolist() == [0] * 1000 + [1] * (num_first + 800 - 1000)
    assert np.array_equal(np.sort(samples.window[mine][:1000]), np.arange(1000))


def test_a_new_sequence_length_begins_a_fresh_epoch():
    stages = [
        Stage("short", 250 * 8, 1e-3, {"a": 1}),
        Stage("long", 60 * 8, 1e-3, {"a": 1}, sequence_length=16),
        Stage("short again", 10 * 16, 1e-3, {"a": 1}),
    ]
    curriculum = Curriculum(stages, tokens_per_step=16, sequence_length=8)
    order = SampleOrder(0, curriculum, lambda source, length: {8: 100, 16: 50}[length])
    samples = order.lookup(0, curriculum.num_samples)
    short, long, again = (samples.epoch[samples.stage == stage] for stage in range(3))
    assert short.tolist() == [0] * 100 + [1] * 100 + [2] * 50
    assert long.tolist() == [3] * 30  # 2.5 epochs used, rounded up
    assert again.tolist() == [4] * 20
    assert order.epochs_before(curriculum.num_samples) == {"a": pytest.approx(2.5 + 0.6 + 0.2)}


def test_epochs_differ_in_order():
    samples = SampleOrder(0, one_stage(2000, {"a": 1}), lambda source, length: 1000).lookup(0, 2000)
    first, second = samples.window[:1000], samples.window[1000:]
    assert np.array_equal(np.sort(second), np.arange(1000))
    assert (first == second).sum() < 10  # 1 expected
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.15


def test_seeds_and_names_change_the_order_but_other_sources_do_not():
    def windows_of_a(seed, mixture):
        curriculum = one_stage(4000, mixture)
        samples = SampleOrder(seed, curriculum, lambda source, length: 1000).lookup(0, 4000)
        return samples.window[samples.source == curriculum.sources.index("a")][:1000].tolist()

    base = windows_of_a(0, {"a": 1})
    assert windows_of_a(0, {"b": 1, "a": 1}) == base
    assert windows_of_a(1, {"a": 1}) != base
    renamed = SampleOrder(0, one_stage(1000, {"c": 1}), lambda source, length: 1000).lookup(0, 1000)
    assert renamed.window.tolist() != base


# --- permutations -------------------------------------------------------------------------------------------


def many_permutations(size: int, count: int, seed: int = 0) -> np.ndarray:
    """int[count, size]: the permutation of [0, size) under `count` different keys."""
    keys = mix(np.arange(count, dtype=np.uint64) + np.uint64(1000 * seed + 1))
    positions = np.tile(np.arange(size, dtype=np.uint64), count)
    return permute(positions, np.repeat(keys, size), size).reshape(count, size).astype(np.int64)


def chi_square_per_degree(counts: np.ndarray) -> float:
    """(chi^2 - degrees) / sqrt(2 degrees): about standard normal if all expectations are equal."""
    expected = counts.sum() / counts.size
    degrees = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - degrees) / math.sqrt(2 * degrees)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 63, 64, 65, 100, 127, 128, 129, 1000, 4097])
def test_permutations_are_bijections(size):
    made = many_permutations(size, 20)
    assert (np.sort(made, axis=1) == np.arange(size)).all()


def test_one_window_has_one_order():
    assert set(many_permutations(1, 100).flatten().tolist()) == {0}


@pytest.mark.parametrize("size", [2, 3, 5])
def test_all_orders_of_a_tiny_source_are_equally_likely(size):
    counted = Counter(map(tuple, many_permutations(size, 12_000).tolist()))
    counts = np.array([counted[order] for order in itertools.permutations(range(size))])
    assert counts.min() > 0
    assert abs(chi_square_per_degree(counts)) < 4


@pytest.mark.parametrize("size", [7, 64, 65, 100, 200])
def test_every_window_is_equally_likely_at_every_draw(size):
    made = many_permutations(size, 100 * size)
    for draw in (0, 1, size // 2, size - 1):
        assert abs(chi_square_per_degree(np.bincount(made[:, draw], minlength=size))) < 4
    # Neighbours in the order are not neighbours in the source.
    distance = (made[:, 1] - made[:, 0]) % size
    assert abs(chi_square_per_degree(np.bincount(distance, minlength=size)[1:])) < 4


def test_window_and_draw_do_not_correlate():
    made = many_permutations(1000, 400)
    draw = np.arange(1000)
    correlations = np.array([np.corrcoef(draw, windows)[0, 1] for windows in made])
    # Each has mean 0 and standard deviation 1/sqrt(999).
    assert abs(correlations.mean()) < 4 / math.sqrt(999 * 400)
    assert correlations.std() == pytest.approx(1 / math.sqrt(999), rel=0.2)
    table = np.zeros((10, 10))
    np.add.at(table, (np.tile(draw // 100, 400), (made // 100).ravel()), 1)
    # Rows and columns of the table are fixed by the bijection, which leaves 81 of the 99 degrees.
    chi_square = ((table - 4000) ** 2 / 4000).sum()
    assert abs(chi_square - 81) < 4 * math.sqrt(2 * 81)


# --- switches and lookups -----------------------------------------------------------------------------------


def three_stages() -> Curriculum:
    return Curriculum(
        [
            Stage("one", 70_001 * 8, 1e-3, {"a": 1, "b": 1}),
            Stage("two", 3 * 8, 1e-3, {"c": 1}),
            Stage("three", 90_000 * 8, 1e-3, {"b": 1, "c": 3}, sequence_length=4),
        ],
        tokens_per_step=8,
        sequence_length=8,
    )


def some_windows(source: str, length: int) -> int:
    return {"a": 1, "b": 40_000, "c": 777}[source] * 8 // length


def test_the_mixture_switches_exactly_at_the_first_sample_of_a_stage():
    curriculum = three_stages()
    samples = SampleOrder(0, curriculum, some_windows).lookup(0, curriculum.num_samples)
    assert samples.index.tolist() == list(range(curriculum.num_samples))
    for stage, allowed in enumerate([{0, 1}, {2}, {1, 2}]):
        first, end = curriculum.first_sample(stage), curriculum.first_sample(stage + 1)
        assert set(samples.source[first:end].tolist()) == allowed
        assert (samples.stage[first:end] == stage).all()


@given(st.lists(st.integers(0, 250_004), min_size=1, max_size=12), st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_lookups_do_not_depend_on_how_the_range_is_cut(cuts, cached):
    curriculum = three_stages()
    whole = WHOLE.setdefault("whole", SampleOrder(7, curriculum, some_windows).lookup(0, curriculum.num_samples))
    order = SampleOrder(7, curriculum, some_windows)
    cuts = [0, *sorted(cuts), curriculum.num_samples]
    ranges = list(itertools.pairwise(cuts))
    for start, stop in ranges[cached:] + ranges[:cached]:  # not in order either
        assert columns(order.lookup(start, stop)) == columns(whole[start:stop])


WHOLE: dict[str, Samples] = {}


def test_block_size_is_no_part_of_the_order(monkeypatch):
    curriculum = three_stages()
    expected = SampleOrder(7, curriculum, some_windows).lookup(69_000, 72_000)
    monkeypatch.setattr(order_module, "BLOCK_SAMPLES", 37)
    assert columns(SampleOrder(7, curriculum, some_windows).lookup(69_000, 72_000)) == columns(expected)


def test_lookups_return_copies():
    order = SampleOrder(0, three_stages(), some_windows)
    samples = order.lookup(0, 10)
    before = columns(samples)
    samples.window[:] = -1
    assert columns(order.lookup(0, 10)) == before


def test_empty_range_and_ranges_outside():
    order = SampleOrder(0, one_stage(10, {"a": 1}), lambda source, length: 3)
    assert len(order.lookup(4, 4)) == 0
    for start, stop in ((-1, 2), (3, 2), (0, 11)):
        with pytest.raises(ValueError, match="not inside the run of 10 samples"):
            order.lookup(start, stop)


def test_a_source_without_windows_is_refused_at_construction():
    with pytest.raises(ValueError, match="has no window") as caught:
        SampleOrder(0, three_stages(), lambda source, length: 0 if (source, length) == ("c", 4) else 9)
    assert str(caught.value) == (
        "source 'c' has no window of sequence_length 4, but stage 'three' draws from it; "
        "give it more than 4 tokens, shorten the sequence_length, or set its weight to 0"
    )


def test_speed_and_memory():
    stages = [
        Stage("one", 10**9 * 8, 1e-3, {"a": 5, "b": 3, "c": 1, "d": 1}),
        Stage("two", 10**9 * 8, 1e-3, {"a": 1}),
    ]
    curriculum = Curriculum(stages, tokens_per_step=1024 * 8, sequence_length=8)
    sizes = {"a": 10**8 + 7, "b": 2**20 + 1, "c": 1000, "d": 1}

    tracemalloc.start()
    begin = time.process_time()
    order = SampleOrder(0, curriculum, lambda source, length: sizes[source])
    order.lookup(10**9 - 1000, 10**9 + 1000)
    first_access = time.process_time() - begin
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    begin = time.process_time()
    for start in range(0, 2_000_000, 1000):
        order.lookup(start, start + 1000)
    rate = 2_000_000 / (time.process_time() - begin)
    print(f"first access at 10^9: {first_access:.3f} s, peak {peak / 1e6:.0f} MB; {rate / 1e6:.2f} M samples/s")
    assert first_access < 1
    assert peak < 200e6
    assert rate > 300_000


# --- hashes -------------------------------------------------------------------------------------------------


def test_sample_hash_depends_on_every_field_and_the_seed():
    order = SampleOrder(0, three_stages(), some_windows)
    samples = order.lookup(1000, 1100)
    base = sample_hash(0, samples)
    assert base.dtype == np.uint64
    assert len(set(base.tolist())) == 100
    assert not (sample_hash(1, samples) == base).any()
    for name in ("index", "stage", "source", "epoch", "window"):
        changed = samples[:]
        getattr(changed, name)[:] += 1
        assert not (sample_hash(0, changed) == base).any()
        getattr(changed, name)[:] -= 1
    # Not a plain sum of the fields: moving 1 from one to another must show.
    moved = Samples(samples.index, samples.stage, samples.source, samples.epoch + 1, samples.window - 1)
    assert not (sample_hash(0, moved) == base).any()


def test_chain_takes_signed_sums_of_ranks_in_any_order():
    hashes = sample_hash(0, SampleOrder(0, three_stages(), some_windows).lookup(0, 64))
    total = sum(map(int, hashes))  # exact, far above 2^64
    per_rank = hashes.reshape(4, 16).view(np.int64).sum(axis=1)  # wraps, as an int64 all-reduce does
    signed = int(per_rank[[2, 0, 3, 1]].sum())
    assert chain("", total) == chain("", signed) == chain("", total % MODULUS)
    assert len(chain("", total)) == 32
    assert chain("", total) != chain("", total + 1)
    assert chain(chain("", 1), 2) != chain(chain("", 2), 1)


def test_expected_chain_is_what_a_run_adds_up():
    curriculum = Curriculum(
        [
            Stage("one", 50 * 64, 1e-3, {"a": 1, "b": 1}),
            Stage("two", 30 * 64, 1e-3, {"b": 1}, sequence_length=16),
        ],
        tokens_per_step=64,
        sequence_length=8,
    )
    order = SampleOrder(11, curriculum, lambda source, length: 33)
    link = ""
    for step in range(curriculum.num_steps):
        assert expected_chain(order, curriculum, step) == link
        start, stop = curriculum.sample_range(step)
        total = sum(int(sample_hash(11, order.lookup(index, index + 1))[0]) for index in range(start, stop))
        link = chain(link, total)
    assert expected_chain(order, curriculum, curriculum.num_steps) == link
    assert expected_chain(SampleOrder(12, curriculum, lambda source, length: 33), curriculum, 80) != link
    assert expected_chain(SampleOrder(11, curriculum, lambda source, length: 34), curriculum, 80) != link


def test_expected_chain_refuses_what_does_not_fit():
    curriculum = one_stage(10, {"a": 1})
    order = SampleOrder(0, curriculum, lambda source, length: 3)
    with pytest.raises(ValueError, match="num_steps is invalid: 11; there are 10 in the curriculum"):
        expected_chain(order, curriculum, 11)
    with pytest.raises(ValueError, match="made from another curriculum"):
        expected_chain(order, one_stage(11, {"a": 1}), 5)


def test_golden_values():
    """The order is part of every checkpoint: if this test fails, older runs can no longer be resumed."""
    curriculum = Curriculum(
        [
            Stage("one", 96, 1e-3, {"web": 0.6, "books": 0.3, "code": 0.1}),
            Stage("two", 64, 1e-3, {"web": 1, "books": 3}, sequence_length=16),
        ],
        tokens_per_step=32,
        sequence_length=8,
    )
    sizes = {"web": 100, "books": 5, "code": 1}
    order = SampleOrder(2512, curriculum, lambda source, length: sizes[source])
    samples = order.lookup(0, curriculum.num_samples)
    assert columns(samples) == GOLDEN_COLUMNS
    assert [hex(value) for value in sample_hash(2512, samples)[:3]] == GOLDEN_HASHES
    assert expected_chain(order, curriculum, curriculum.num_steps) == GOLDEN_CHAIN


GOLDEN_COLUMNS = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1],
    [1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 2, 0, 1, 1, 1, 1],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1],
    [3, 36, 19, 4, 13, 2, 50, 9, 1, 58, 0, 69, 1, 0, 3, 2],
]
GOLDEN_HASHES = ["0xd14c9ddd88faa973", "0xaa7b7cfa6dba254", "0xc91715e94c61465e"]
GOLDEN_CHAIN = "f491996d9606483aa726ed1501769793"
