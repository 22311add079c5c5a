"""The data order: sample g of a run is a pure function of (seed, mixture plan, source sizes).

Nothing is shuffled, buffered or stored. The source of a sample comes from a golden-ratio sequence, the window from a keyed
permutation, and the number of earlier draws from a source has a closed form. Sample 10^9 therefore costs no more than sample 0,
a resume needs one integer, and the order does not depend on ranks, workers or batch sizes.

The datasets of Megatron and OLMo-core instead store a shuffled index before the first step, which has to be rebuilt for other
mixtures and sizes, and grows with the run. Here 2.3 million samples per second are looked up, and the first access to sample 10^9
takes 0.2 s and 4 MB (benchmarks/performance/data_order.py).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Any

import numpy as np

from nbg_lightning.schedule.mixture import MixturePlan

MODULUS = 1 << 64
# 2^64 / golden ratio, made odd: of all step sizes, its multiples are spread most evenly (smallest discrepancy), and an odd step
# visits all 2^64 values before one repeats. Knuth, The Art of Computer Programming 3,
# section 6.4.
GOLDEN = 0x9E3779B97F4A7C15

BLOCK_SAMPLES = 65_536  # samples computed together: large enough for numpy, 2.6 MB
CACHED_BLOCKS = 4  # sequential reading needs 1; the others are for concurrent readers, such as a verifier
# Below this size a permutation is made by ranking hashes (exactly uniform, O(n) per draw), above by a Feistel network, which on
# such small domains would have too few round functions to be uniform.
MAX_RANKED_WINDOWS = 64
# Four rounds make a pseudo-random permutation (Luby and Rackoff, 1988); twice as many are still cheap.
FEISTEL_ROUNDS = 8

_GOLDEN_64 = np.uint64(GOLDEN)


def floor_sum(count: int, slope: int, offset: int, modulus: int) -> int:
    """sum over 0 <= j < count of floor((slope j + offset) / modulus), exact, in O(log modulus) operations.

    Args:
        count: Number of terms, >= 0.
        slope: Any integer.
        offset: Any integer, negative too.
        modulus: > 0.

    >>> floor_sum(4, 3, -1, 2)  # floor of -1/2, 2/2, 5/2, 8/2
    6
    """
    total = 0
    while True:
        # Whole multiples of the modulus add a plain arithmetic series; what remains has 0 <= slope, offset <
        # modulus.
        whole, slope = divmod(slope, modulus)
        total += whole * (count * (count - 1) // 2)
        whole, offset = divmod(offset, modulus)
        total += whole * count
        height, rest = divmod(slope * count + offset, modulus)
        if height == 0:
            return total
        # The sum counts lattice points under a line; counted by rows instead of columns it is the same
        # problem with slope and modulus exchanged, one step of Euclid's algorithm.
        count, slope, offset, modulus = height, modulus, rest, slope


def count_below(count: int, offset: int, threshold: int) -> int:
    """Number of x_j = (j GOLDEN + offset) mod 2^64, 0 <= j < count, below `threshold` (0 to 2^64)."""
    return floor_sum(count, GOLDEN, offset, MODULUS) - floor_sum(count, GOLDEN, offset - threshold, MODULUS)


def mix(values: np.ndarray) -> np.ndarray:
    """Bijective hash of a uint64 array: the finalizer of splitmix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _key(*parts: object) -> int:
    """A 64-bit key derived from names; not Python's `hash`, which differs between processes."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def permute(positions: np.ndarray, keys: np.ndarray, size: int) -> np.ndarray:
    """The images of positions in [0, size) under the pseudo-random permutations selected by their keys.

    Args:
        positions: uint64[N], each in [0, size).
        keys: uint64[N]; equal keys mean the same permutation.
        size: Size of the permutation, >= 1.

    Returns:
        uint64[N], each in [0, size).
    """
    if size <= MAX_RANKED_WINDOWS:
        own = mix(keys + mix(positions + _GOLDEN_64))
        ranks = np.zeros_like(positions)
        for other in range(size):
            # Hashes of different positions with the same key differ, since both hashes are bijections.
            ranks += mix(keys + mix(np.array([other], np.uint64) + _GOLDEN_64)) < own
        return ranks
    bits = (size - 1).bit_length()
    result = _feistel(positions, keys, bits)
    # Cycle walking (Black and Rogaway, 2002): values outside are permuted again until they fall inside; since the domain
    # is less than twice the size, this takes at most two passes on average.
    outside = np.flatnonzero(result >= size)
    while outside.size:
        result[outside] = _feistel(result[outside], keys[outside], bits)
        outside = outside[result[outside] >= size]
    return result


def _feistel(values: np.ndarray, keys: np.ndarray, bits: int) -> np.ndarray:
    """Permutation of [0, 2^bits): either half of the bits is XORed in turn with a hash of the other."""
    low_bits = np.uint64((bits + 1) // 2)
    low_mask = np.uint64((1 << ((bits + 1) // 2)) - 1)
    high_mask = np.uint64((1 << (bits // 2)) - 1)
    high, low = values >> low_bits, values & low_mask
    round_keys = keys.copy()
    for number in range(FEISTEL_ROUNDS):
        if number % 2:
            low = low ^ (mix(round_keys ^ high) & low_mask)
        else:
            high = high ^ (mix(round_keys ^ low) & high_mask)
        round_keys += _GOLDEN_64
    return (high << low_bits) | low


@dataclass(frozen=True, eq=False)
class Samples:
    """A range of samples; all arrays are int64[N].

    Args:
        index: Global sample index.
        stage: Index of the stage.
        source: Position in `MixturePlan.sources`.
        epoch: Number of completed epochs of the source.
        window: Window of the source, for the stage's sequence length.
    """

    index: np.ndarray
    stage: np.ndarray
    source: np.ndarray
    epoch: np.ndarray
    window: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        """The arrays, in the order of the fields."""
        return self.index, self.stage, self.source, self.epoch, self.window

    def __getitem__(self, part: slice) -> Samples:
        return Samples(*(column[part] for column in self.columns))

    @staticmethod
    def concatenate(parts: list[Samples]) -> Samples:
        """The parts concatenated, as a copy."""
        if not parts:
            return Samples(*[np.empty(0, np.int64)] * 5)
        return Samples(*map(np.concatenate, zip(*(part.columns for part in parts), strict=True)))


@dataclass(frozen=True)
class _Draws:
    """The share of one source in one stage: an interval of the golden-ratio sequence and a range of draws."""

    source: int
    low: int  # x in [low, high) of [0, 2^64) selects this source
    high: int
    num_windows: int
    num_draws: int
    first_draw: int  # draws of earlier stages with this sequence length
    first_epoch: int  # epochs completed with other sequence lengths


class SampleOrder:
    """The data order of a whole run, computed on access.

    Sample n of a stage (n from 0) belongs to the source whose interval of cumulative weights contains x_n = (n GOLDEN + U)
    mod 2^64, with U from (seed, stage). The first n samples of a stage then contain each source in its share to within a few
    samples (measured: 5 over n up to 10^6; the error grows with log n), and so does any contiguous range, such as one step; the
    mixture changes exactly at a stage's first sample. Draw k of a source is window `permutation(k mod n)` of epoch `k // n`, with
    n its number of windows and a different permutation for each (seed, source name, epoch): within an epoch every window occurs
    exactly once. Draws continue over stages with the same sequence length, so that an epoch may span stages; at a stage
    with another sequence length, which has other windows, the source begins its next epoch.

    Args:
        seed: Any integer.
        plan: The stages, such as a `Curriculum`.
        windows: `windows(source name, sequence length)` -> number of windows of the source.

    Raises:
        ValueError: A source in the mixture has no window of the stage's sequence length.

    >>> from nbg_lightning.schedule.mixture import MixtureStage
    >>> plan = MixturePlan([MixtureStage("only", 80, {"web": 3, "qa": 1})], 40, sequence_length=10)
    >>> order = SampleOrder(0, plan, lambda source, length: {"web": 4, "qa": 100}[source])
    >>> samples = order.lookup(0, 8)
    >>> np.bincount(samples.source).tolist(), samples.epoch[samples.source == 0].tolist()
    ([6, 2], [0, 0, 0, 0, 1, 1])
    """

    def __init__(self, seed: int, plan: MixturePlan, windows: Callable[[str, int], int]) -> None:
        self.seed = seed
        self.plan = plan
        self._offsets = [_key("stage", seed, stage) for stage in range(len(plan.stages))]
        self._sources = plan.sources
        self._source_keys = [_key("source", seed, name) for name in self._sources]
        self._first_samples = [plan.first_sample(stage) for stage in range(len(plan.stages) + 1)]
        self._draws = self._plan_draws(windows)
        self._blocks: OrderedDict[tuple[int, int], Samples] = OrderedDict()

    def _plan_draws(self, windows: Callable[[str, int], int]) -> list[list[_Draws]]:
        drawn: list[list[_Draws]] = []
        last: dict[int, tuple[int, _Draws]] = {}  # source -> (sequence length, draws) of the last stage that used it
        for stage_index, stage in enumerate(self.plan.stages):
            length = self.plan.sequence_length_of(stage_index)
            num_samples = self._first_samples[stage_index + 1] - self._first_samples[stage_index]
            names = [name for name in self._sources if stage.mixture.get(name, 0) > 0]
            # Exact fractions, so that the borders do not depend on the order of float additions.
            cumulative = list(accumulate((Fraction(stage.mixture[name]) for name in names), initial=Fraction(0)))
            borders = [int(weight / cumulative[-1] * MODULUS) for weight in cumulative]
            below = [count_below(num_samples, self._offsets[stage_index], border) for border in borders]
            drawn.append([])
            for position, name in enumerate(names):
                num_windows = int(windows(name, length))
                if num_windows < 1:
                    raise ValueError(
                        f"source {name!r} has no window of sequence_length {length}, but stage "
                        f"{stage.name!r} draws from it; give it more than {length} tokens, "
                        "shorten the sequence_length, or set its weight to 0"
                    )
                source = self._sources.index(name)
                first_draw = first_epoch = 0
                if source in last:
                    last_length, before = last[source]
                    first_draw, first_epoch = before.first_draw + before.num_draws, before.first_epoch
                    if last_length != length:
                        first_epoch += -(-first_draw // before.num_windows)
                        first_draw = 0
                draws = _Draws(
                    source=source,
                    low=borders[position],
                    high=borders[position + 1],
                    num_windows=num_windows,
                    num_draws=below[position + 1] - below[position],
                    first_draw=first_draw,
                    first_epoch=first_epoch,
                )
                last[source] = (length, draws)
                drawn[-1].append(draws)
        return drawn

    def lookup(self, start: int, stop: int) -> Samples:
        """Samples `start` to `stop - 1` of the run.

        Raises:
            ValueError: The range does not lie inside the run.
        """
        if not 0 <= start <= stop <= self._first_samples[-1]:
            raise ValueError(
                f"samples [{start}, {stop}) are not inside the run of {self._first_samples[-1]} samples; "
                f"stop at the {self.plan.subject}'s num_steps"
            )
        parts = []
        while start < stop:
            stage = bisect_right(self._first_samples, start) - 1
            number = (start - self._first_samples[stage]) // BLOCK_SAMPLES
            block_start = self._first_samples[stage] + number * BLOCK_SAMPLES
            part = self._block(stage, number)[start - block_start : stop - block_start]
            parts.append(part)
            start += len(part)
        return Samples.concatenate(parts)

    def epochs_before(self, index: int) -> dict[str, float]:
        """Number of epochs of each source before sample `index`, in closed form, for logs.

        If a source changes its sequence length, the windows of each length count as a share of their
        number.
        """
        epochs = dict.fromkeys(self._sources, 0.0)
        for stage, (first, end) in enumerate(zip(self._first_samples, self._first_samples[1:], strict=False)):
            count = min(index, end) - first
            if count > 0:
                for draws in self._draws[stage]:
                    name = self._sources[draws.source]
                    epochs[name] += self._count(stage, draws, count) / draws.num_windows
        return epochs

    def _count(self, stage: int, draws: _Draws, count: int) -> int:
        """Number of draws from a source among the first `count` samples of a stage."""
        offset = self._offsets[stage]
        return count_below(count, offset, draws.high) - count_below(count, offset, draws.low)

    def _block(self, stage: int, number: int) -> Samples:
        """Samples [number BLOCK_SAMPLES, (number + 1) BLOCK_SAMPLES) of a stage, truncated at its end; cached."""
        if (stage, number) in self._blocks:
            self._blocks.move_to_end((stage, number))
            return self._blocks[stage, number]
        first = number * BLOCK_SAMPLES
        count = min(BLOCK_SAMPLES, self._first_samples[stage + 1] - self._first_samples[stage] - first)
        x = np.arange(first, first + count, dtype=np.uint64) * _GOLDEN_64 + np.uint64(self._offsets[stage])
        # The last border is 2^64, which uint64 cannot represent and no x reaches.
        borders = np.array([draws.high for draws in self._draws[stage][:-1]], dtype=np.uint64)
        owner = np.searchsorted(borders, x, side="right")
        source, epoch, window = (np.empty(count, np.int64) for _ in range(3))
        for position, draws in enumerate(self._draws[stage]):
            members = np.flatnonzero(owner == position)
            if not members.size:
                continue
            first_draw = draws.first_draw + self._count(stage, draws, first)
            draw = np.arange(first_draw, first_draw + members.size, dtype=np.uint64)
            epochs, positions = np.divmod(draw, np.uint64(draws.num_windows))
            epochs += np.uint64(draws.first_epoch)
            keys = mix(epochs * _GOLDEN_64 + np.uint64(self._source_keys[draws.source]))
            source[members] = draws.source
            epoch[members] = epochs
            window[members] = permute(positions, keys, draws.num_windows)
        index = np.arange(count, dtype=np.int64) + (self._first_samples[stage] + first)
        block = Samples(index, np.full(count, stage, np.int64), source, epoch, window)
        self._blocks[stage, number] = block
        if len(self._blocks) > CACHED_BLOCKS:
            self._blocks.popitem(last=False)
        return block


def sample_hash(seed: int, samples: Samples) -> np.ndarray:
    """uint64[N]: a hash of everything that identifies a sample: seed, index, stage, source, epoch and window."""
    hashes = np.full(len(samples), _key("sample", seed), dtype=np.uint64)
    for column in samples.columns:
        hashes = mix(hashes + _GOLDEN_64 + column.astype(np.uint64))
    return hashes


def chain(previous: str, total: int) -> str:
    """Next link of the hash chain over the consumed data, one link per optimizer step.

    Args:
        previous: The link of the previous step; "" before the first step.
        total: Sum of the `sample_hash` values of the step. Only its value modulo 2^64 counts, so ranks may
            sum theirs in wrapping int64 in any order.

    Returns:
        32 hexadecimal digits.
    """
    link = previous.encode("ascii") + (total % MODULUS).to_bytes(8, "little")
    return hashlib.blake2b(link, digest_size=16).hexdigest()


def order_state(checkpoint: Mapping[str, Any]) -> dict[str, Any] | None:
    """The state of a datamodule that counts its steps, from a checkpoint; None if there is none."""
    states = (value for value in checkpoint.values() if isinstance(value, dict))
    return next((state for state in states if {"step", "chain", "fingerprints"} <= set(state)), None)


def undone_link(previous: str, first: int, last: int) -> str:
    """The link recording that after step ``last`` the weights were reset to those after step ``first``.

    Args:
        previous: the link of step ``first``.
        first: the step whose weights were restored.
        last: the step after which they were restored.
    """
    link = b"undone" + previous.encode("ascii") + first.to_bytes(8, "little") + last.to_bytes(8, "little")
    return hashlib.blake2b(link, digest_size=16).hexdigest()


def expected_chain(order: SampleOrder, plan: MixturePlan, num_steps: int, undone: Sequence[Sequence[int]] = ()) -> str:
    """The hash chain after the first `num_steps` steps, recomputed from scratch.

    Args:
        order: the data order.
        plan: the plan it was made from.
        num_steps: number of steps.
        undone: (first, last) of the steps that were undone, in order.

    Raises:
        ValueError: `plan` is not the one of `order`, or has fewer steps.
    """
    if plan != order.plan:
        raise ValueError(f"the order was made from another {plan.subject}; make a SampleOrder from this one")
    if not 0 <= num_steps <= plan.num_steps:
        raise ValueError(f"num_steps is invalid: {num_steps}; there are {plan.num_steps} in the {plan.subject}")
    link, step = "", 0
    begins = {first: "" for first, _ in undone}  # links of the steps that were returned to
    ends = {last: first for first, last in undone}
    while step < num_steps:
        stage = plan.stage_at(step)
        per_step = plan.samples_per_step(stage)
        # Many small steps of a stage are looked up at once: single lookups would cost more than the samples.
        steps = min(num_steps, plan.first_step(stage + 1)) - step
        steps = min(steps, max(1, BLOCK_SAMPLES // per_step))
        start, _ = plan.sample_range(step)
        hashes = sample_hash(order.seed, order.lookup(start, start + steps * per_step))
        for total in hashes.reshape(steps, per_step).sum(axis=1, dtype=np.uint64):
            link, step = chain(link, int(total)), step + 1
            if step in ends:
                link = undone_link(begins[ends[step]], ends[step], step)
            if step in begins:
                begins[step] = link
    return link
