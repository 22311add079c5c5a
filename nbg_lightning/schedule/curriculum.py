"""The FG-WSD table: stages of a pretraining run as pure functions of consumed tokens.

FG-WSD (Nanbeige4-3B Technical Report, arXiv 2512.06266) keeps the learning rate of warmup-stable-decay, but
cuts its constant phase into stages of rising data quality. A `Stage` therefore holds two independent
settings, a learning-rate rule and a data mixture; neither is ever derived from the other. Vanilla WSD is the
same table with one mixture.

Nothing here needs torch, so a curriculum can be checked, printed and drawn before anything is built.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cached_property
from itertools import accumulate
from numbers import Integral, Real
from typing import Any, Literal, get_args

Decay = Literal["linear", "sqrt", "cosine", "exponential"]

_SUFFIX_POWERS = {"": 0, "K": 3, "M": 6, "B": 9, "T": 12}
_TOKENS_PATTERN = re.compile(r"\s*([0-9._]+(?:[eE][+-]?[0-9]+)?)\s*([KMBT]?)\s*", re.IGNORECASE)


def parse_tokens(value: int | float | str) -> int:
    """A number of tokens from what people write in a YAML file.

    Args:
        value: An integer, a float without a fraction, or a string with an optional suffix K, M, B or T
            (decimal powers: 1e3, 1e6, 1e9, 1e12; upper or lower case). Underscores and exponents are
            accepted.

    Raises:
        ValueError: `value` is no whole, non-negative, finite number of tokens.

    >>> parse_tokens("12.4T"), parse_tokens("64K"), parse_tokens("1_000"), parse_tokens(1e9)
    (12400000000000, 64000, 1000, 1000000000)
    """
    problem = f"cannot read {value!r} as a number of tokens; write a whole number like 4096, '100B' or '12.4T'"
    if isinstance(value, bool):
        raise ValueError(problem)
    if isinstance(value, Integral):
        tokens = Decimal(int(value))
    elif isinstance(value, Real):
        tokens = Decimal(float(value))
    elif isinstance(value, str) and (match := _TOKENS_PATTERN.fullmatch(value)):
        try:
            tokens = Decimal(match[1]).scaleb(_SUFFIX_POWERS[match[2].upper()])
        except InvalidOperation as error:
            raise ValueError(problem) from error
    else:
        raise ValueError(problem)
    if not tokens.is_finite() or tokens < 0 or tokens != tokens.to_integral_value():
        raise ValueError(problem)
    return int(tokens)


def format_tokens(tokens: int | float, digits: int = 3) -> str:
    """A number of tokens for people: three (or `digits`, at least 3) significant digits and a suffix.

    >>> format_tokens(12.4e12), format_tokens(100_000_000_000), format_tokens(4_194_304), format_tokens(512)
    ('12.4T', '100B', '4.19M', '512')
    """
    # What would be rounded to 1000 of a unit belongs to the next larger one: 0.9995 with 3 digits.
    units = ((suffix, abs(tokens) / 10**power) for suffix, power in reversed(_SUFFIX_POWERS.items()))
    suffix, scaled = next((unit for unit in units if unit[1] >= 1 - 0.5 * 10**-digits), ("", abs(tokens)))
    # From 1000T on there is no larger unit, and the g format would turn to exponents.
    text = f"{scaled:.0f}" if scaled >= 10 ** (digits - 1) else f"{scaled:.{digits}g}"
    return ("-" if tokens < 0 else "") + text + suffix


def _finite_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _as_number(value: object) -> Any:
    """A number that is written as a text, as YAML's ``1e-4`` is; anything else as it is."""
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


@dataclass(frozen=True)
class Stage:
    """One row of the table: how many tokens, at which learning rate, from which data.

    Immutable, because a `Curriculum` derives numbers from it; use `dataclasses.replace` for a variant.

    Args:
        name: Name for logs, checkpoints and pictures; unique in a curriculum.
        tokens: Length of the stage in tokens, as `parse_tokens` reads it.
        lr: A constant learning rate, or `[start, end]`, rising or falling.
        mixture: Source name -> weight. Weights are relative; 0 switches a source off.
        decay: How the learning rate goes from start to end, with x the share of the stage that is done:
            linear `start + (end - start) x`; sqrt `start + (end - start) sqrt(x)`, which falling is the
            1-sqrt decay of Haegele et al., arXiv 2405.18392; cosine `start + (end - start) (1 - cos(pi x)) /
            2`; exponential `start (end / start)^x`. The paper does not say which one it used.
        sequence_length: Tokens in a training window; None means the curriculum's.
        rope_theta: RoPE base in this stage (ABF raises it for long context); None means the model's own.

    Raises:
        ValueError: A value is out of its range.
    """

    name: str
    tokens: int | float | str
    lr: float | list[float]
    mixture: dict[str, float]
    decay: Decay = "linear"
    sequence_length: int | None = None
    rope_theta: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise ValueError(f"a stage has the name {self.name!r}; give every stage a name of at least one letter")
        where = f"stage {self.name!r}"
        try:
            tokens = parse_tokens(self.tokens)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if tokens == 0:
            raise ValueError(f"{where} has 0 tokens; give it some or remove the stage")
        object.__setattr__(self, "tokens", tokens)
        self._check_learning_rate(where)
        self._check_mixture(where)
        if self.sequence_length is not None:
            _check_sequence_length(where, self.sequence_length)
        if self.rope_theta is not None and not (_finite_number(self.rope_theta) and self.rope_theta > 0):
            raise ValueError(
                f"{where}: rope_theta is {self.rope_theta!r}; give a positive number, or null for the model's"
            )

    def _check_learning_rate(self, where: str) -> None:
        pair = isinstance(self.lr, (list, tuple))
        ends = [_as_number(end) for end in (self.lr if isinstance(self.lr, (list, tuple)) else [self.lr])]
        if (pair and len(ends) != 2) or not all(_finite_number(end) and end >= 0 for end in ends):
            raise ValueError(f"{where}: lr is {self.lr!r}; give one finite number >= 0, or two of them as [start, end]")
        if self.decay not in get_args(Decay):
            choices = ", ".join(get_args(Decay))
            raise ValueError(f"{where}: unknown decay {self.decay!r}; choose one of {choices}")
        if pair and self.decay == "exponential" and min(ends) == 0:
            raise ValueError(
                f"{where}: exponential decay cannot start or end at 0 (lr {self.lr!r}); "
                "use a small positive number, or decay: linear"
            )
        object.__setattr__(self, "lr", [float(end) for end in ends] if pair else float(ends[0]))

    def _check_mixture(self, where: str) -> None:
        if not isinstance(self.mixture, Mapping) or not self.mixture:
            raise ValueError(f"{where} has no mixture; name at least one source, for example mixture: {{web: 1.0}}")
        for source, weight in self.mixture.items():
            if not isinstance(source, str) or not source:
                raise ValueError(f"{where}: source name {source!r} is not a non-empty string; quote it")
            if not _finite_number(weight) or weight < 0:
                raise ValueError(f"{where}: weight of source {source!r} is {weight!r}; give a finite number >= 0")
        mixture = {source: float(weight) for source, weight in self.mixture.items()}
        total = sum(mixture.values())
        if total == 0:
            raise ValueError(f"{where}: all weights of the mixture are 0; give at least one source a positive weight")
        if not math.isfinite(total):
            raise ValueError(f"{where}: the weights add up to infinity; weights are relative, use smaller ones")
        object.__setattr__(self, "mixture", mixture)

    @property
    def learning_rate_ends(self) -> tuple[float, float]:
        """Learning rate at the start (x = 0, before the first step) and at the end (x = 1, the last step)."""
        return (self.lr[0], self.lr[1]) if isinstance(self.lr, list) else (self.lr, self.lr)

    @property
    def shares(self) -> dict[str, float]:
        """The mixture scaled to a sum of 1, without the sources of weight 0."""
        total = sum(self.mixture.values())
        return {source: weight / total for source, weight in self.mixture.items() if weight > 0}

    def learning_rate_at(self, progress: float) -> float:
        """Learning rate when the share `progress` (0 to 1) of the stage is done; exactly the end value at 1.

        >>> Stage("warmup", "1M", [0.0, 4e-4], {"web": 1}).learning_rate_at(0.25)
        0.0001
        """
        return between(*self.learning_rate_ends, progress, self.decay)


def between(start: float, end: float, progress: float, decay: Decay = "linear") -> float:
    """The value that is `progress` (0 to 1) of the way from `start` to `end`, by the rules of `Stage.decay`.

    >>> between(1.0, 0.0, 0.5, "cosine"), between(1.0, 0.01, 0.5, "exponential"), between(1.0, 0.0, 1.0, "sqrt")
    (0.5, 0.1, 0.0)
    """
    # Both exact: rounding of `start + (end - start) * 1` must not leave a constant or miss the end.
    if start == end or progress >= 1:
        return end
    if decay == "exponential":
        return start * (end / start) ** progress
    if decay == "sqrt":
        progress = math.sqrt(progress)
    elif decay == "cosine":
        progress = (1 - math.cos(math.pi * progress)) / 2
    return start + (end - start) * progress


def warmup_decay(
    step: int, num_steps: int, lr: float, warmup: float = 0.03, decay: Decay = "cosine", final_lr: float = 0.0
) -> float:
    """Learning rate of optimizer step `step` (from 0): linear warm-up from 0 to `lr`, then a decay to `final_lr`.

    The warm-up has `warmup x num_steps` steps, rounded, and its last one has exactly `lr`; the last step of all has exactly
    `final_lr`. As in `Curriculum.learning_rate` a step's rate is that of the share done after it, so the first is not 0.

    >>> [round(warmup_decay(step, 5, 1.0, warmup=0.4, decay="linear"), 3) for step in range(5)]
    [0.5, 1.0, 0.667, 0.333, 0.0]
    """
    warmup_steps = round(warmup * num_steps)
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    return between(lr, final_lr, (step + 1 - warmup_steps) / (num_steps - warmup_steps), decay)


def _check_sequence_length(where: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{where}: sequence_length is {value!r}; give a whole number of tokens >= 1")


@dataclass(frozen=True)
class Curriculum:
    """The whole table, cut into optimizer steps of one size; validated whole at construction.

    A stage takes `max(1, tokens / tokens_per_step rounded to the nearest)` steps, so what is trained on
    (achieved) may differ from what was asked for (requested) by up to half a step; `nbg schedule` prints
    both. Steps and global sample indices count from 0 over the whole run; a sample is one window of a stage's
    sequence length.

    Args:
        stages: The stages in the order in which they are run (plain mappings are turned into `Stage`).
        tokens_per_step: Tokens in one optimizer step over all ranks, the same in all stages.
        sequence_length: Tokens in a training window, where a stage does not say otherwise.

    Raises:
        ValueError: No stages, a name used twice, or `tokens_per_step` is no multiple of a sequence length.

    >>> warmup = Stage("warmup", 400, [0.0, 4e-4], {"web": 1})
    >>> stable = Stage("stable", "1.6K", 4e-4, {"web": 1, "qa": 3})
    >>> curriculum = Curriculum([warmup, stable], tokens_per_step=100, sequence_length=10)
    >>> curriculum.num_steps, curriculum.first_step(1)
    (20, 4)
    >>> curriculum.learning_rate(0), curriculum.learning_rate(3)
    (0.0001, 0.0004)
    >>> curriculum.sources, curriculum.samples_per_step(0), curriculum.first_sample(1)
    (['web', 'qa'], 10, 40)
    """

    stages: list[Stage]
    tokens_per_step: int | float | str
    sequence_length: int

    def __post_init__(self) -> None:
        stages = [Stage(**stage) if isinstance(stage, Mapping) else stage for stage in self.stages or []]
        if not stages:
            raise ValueError("the curriculum has no stages; give it at least one")
        names = [stage.name for stage in stages]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{names.count(name)} stages are named {name!r}; give every stage its own name")
        _check_sequence_length("curriculum", self.sequence_length)
        try:
            tokens_per_step = parse_tokens(self.tokens_per_step)
        except ValueError as error:
            raise ValueError(f"tokens_per_step: {error}") from error
        if tokens_per_step == 0:
            raise ValueError("tokens_per_step is 0; give the number of tokens in one optimizer step over all ranks")
        object.__setattr__(self, "stages", stages)
        object.__setattr__(self, "tokens_per_step", tokens_per_step)
        for stage, length in zip(stages, self._lengths, strict=True):
            if tokens_per_step % length:
                below = tokens_per_step // length * length
                nearest = f"{below} or {below + length}" if below else f"{length}"
                raise ValueError(
                    f"tokens_per_step {tokens_per_step} is not a multiple of the sequence_length {length} "
                    f"of stage {stage.name!r}; use {nearest}"
                )

    # Derived once; cached properties are no fields, so equality, repr and asdict show only what was given.

    @cached_property
    def _lengths(self) -> list[int]:
        return [stage.sequence_length or self.sequence_length for stage in self.stages]

    @cached_property
    def _steps(self) -> list[int]:
        size = int(self.tokens_per_step)
        # Rounded half up, in integers: exact for any size.
        return [max(1, (2 * int(stage.tokens) + size) // (2 * size)) for stage in self.stages]

    @cached_property
    def _first_steps(self) -> list[int]:
        return list(accumulate(self._steps, initial=0))

    @cached_property
    def _first_samples(self) -> list[int]:
        samples = [self.steps_of(index) * self.samples_per_step(index) for index in range(len(self.stages))]
        return list(accumulate(samples, initial=0))

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self._first_steps[-1]

    @property
    def num_tokens(self) -> int:
        """Tokens of the whole run as achieved: steps x tokens per step."""
        return self.num_steps * int(self.tokens_per_step)

    @property
    def num_samples(self) -> int:
        """Windows of the whole run over all stages."""
        return self._first_samples[-1]

    @property
    def sources(self) -> list[str]:
        """All source names, also of weight 0, in order of first mention; `Samples.source` counts in it."""
        return list(dict.fromkeys(source for stage in self.stages for source in stage.mixture))

    def steps_of(self, stage_index: int) -> int:
        """Optimizer steps of a stage, at least 1."""
        return self._steps[stage_index]

    def tokens_of(self, stage_index: int) -> int:
        """Achieved tokens of a stage: its steps x tokens per step."""
        return self._steps[stage_index] * int(self.tokens_per_step)

    def sequence_length_of(self, stage_index: int) -> int:
        """Tokens in a window of a stage."""
        return self._lengths[stage_index]

    def samples_per_step(self, stage_index: int) -> int:
        """Windows in one optimizer step of a stage, over all ranks."""
        return int(self.tokens_per_step) // self._lengths[stage_index]

    def first_step(self, stage_index: int) -> int:
        """First step of a stage; `first_step(len(stages))` is `num_steps`."""
        return self._first_steps[stage_index]

    def first_sample(self, stage_index: int) -> int:
        """Global index of a stage's first window; `first_sample(len(stages))` is `num_samples`."""
        return self._first_samples[stage_index]

    def stage_at(self, step: int) -> int:
        """Index of the stage that optimizer step `step` (from 0) belongs to.

        Raises:
            ValueError: The run has no such step.
        """
        if not 0 <= step < self.num_steps:
            raise ValueError(f"step {step} is outside the run; the curriculum has the steps 0 to {self.num_steps - 1}")
        return bisect_right(self._first_steps, step) - 1

    def sample_range(self, step: int) -> tuple[int, int]:
        """Global sample indices `[start, stop)` of the windows in optimizer step `step`."""
        stage = self.stage_at(step)
        count = self.samples_per_step(stage)
        start = self._first_samples[stage] + (step - self._first_steps[stage]) * count
        return start, start + count

    def learning_rate(self, step: int) -> float:
        """Learning rate of optimizer step `step` (from 0).

        The stage's rule at x = (tokens consumed after this step - tokens before the stage) / tokens of the
        stage, which is in (0, 1]: the first warm-up step is not 0, and the last step of a stage has exactly
        its end value.
        """
        stage = self.stage_at(step)
        return self.stages[stage].learning_rate_at((step + 1 - self._first_steps[stage]) / self._steps[stage])


def warmup_stable_decay(
    tokens: int | float | str,
    mixture: dict[str, float],
    tokens_per_step: int | float | str,
    sequence_length: int,
    lr: float = 4.5e-4,
    final_lr: float = 1.5e-6,
    warmup_share: float = 0.1 / 23,
    decay_share: float = 4 / 23,
    decay: Decay = "linear",
) -> Curriculum:
    """Vanilla WSD, the baseline of FG-WSD: the same learning rate with one mixture throughout.

    Args:
        tokens: Length of the whole run.
        mixture: Source name -> weight, in all three stages.
        tokens_per_step: Tokens in one optimizer step over all ranks.
        sequence_length: Tokens in a training window.
        lr: Learning rate of the plateau; this and the other defaults are FG-WSD's (arXiv 2512.06266).
        final_lr: Learning rate of the last step.
        warmup_share: Part of the tokens in which the learning rate rises linearly from 0.
        decay_share: Part of the tokens in which it falls to `final_lr`.
        decay: The form of the fall, see `Stage`.

    Raises:
        ValueError: The shares leave no tokens for one of the stages.

    >>> [stage.tokens for stage in warmup_stable_decay("23T", {"web": 1}, "4.096M", 4096).stages]
    [100000000000, 18900000000000, 4000000000000]
    """
    total = parse_tokens(tokens)
    if not (warmup_share > 0 and decay_share > 0 and warmup_share + decay_share < 1):
        raise ValueError(
            f"warmup_share {warmup_share} and decay_share {decay_share} must be positive and leave a part "
            "for the plateau; make their sum less than 1"
        )
    warmup_tokens, decay_tokens = round(total * warmup_share), round(total * decay_share)
    stages = [
        Stage("warmup", warmup_tokens, [0.0, lr], mixture),
        Stage("stable", total - warmup_tokens - decay_tokens, lr, mixture),
        Stage("decay", decay_tokens, [lr, final_lr], mixture, decay),
    ]
    return Curriculum(stages, tokens_per_step, sequence_length)
