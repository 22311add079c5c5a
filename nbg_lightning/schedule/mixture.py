"""Mixture plans: the data of a run, step by step, in stages with one mixture each.

The order of the data (`nbg_lightning.data.order`) is a function of this alone. A `Curriculum` is such a plan whose stages
also have learning rates; data with a separate schedule, such as conversations, has a plain `MixturePlan`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from numbers import Real
from typing import Any, ClassVar

from nbg_lightning.schedule.tokens import parse_tokens


def is_finite_number(value: object) -> bool:
    """Whether a value is a finite number (not a bool)."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


class DataStage:
    """Base class of stages, with their data settings; subclasses are dataclasses with these fields.

    Attributes:
        name: name in logs, checkpoints and plots; unique in a plan.
        tokens: length in tokens, as `parse_tokens` reads it.
        mixture: source name -> weight. Weights are relative; 0 excludes a source.
        sequence_length: tokens in a training window; None means the plan's.
    """

    name: str
    tokens: int | float | str
    mixture: dict[str, float]
    sequence_length: int | None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise ValueError(f"a stage has the name {self.name!r}; give every stage a name of at least one letter")
        try:
            tokens = parse_tokens(self.tokens)
        except ValueError as error:
            raise ValueError(f"{self.where}: {error}") from error
        if tokens == 0:
            raise ValueError(f"{self.where} has 0 tokens; give it some or remove the stage")
        object.__setattr__(self, "tokens", tokens)
        object.__setattr__(self, "mixture", self._checked_mixture())
        if self.sequence_length is not None:
            check_sequence_length(self.where, self.sequence_length)

    @property
    def where(self) -> str:
        """The stage, for messages."""
        return f"stage {self.name!r}"

    def _checked_mixture(self) -> dict[str, float]:
        where = self.where
        if not isinstance(self.mixture, Mapping) or not self.mixture:
            raise ValueError(f"{where} has no mixture; name at least one source, for example mixture: {{web: 1.0}}")
        for source, weight in self.mixture.items():
            if not isinstance(source, str) or not source:
                raise ValueError(f"{where}: source name {source!r} is not a non-empty string; quote it")
            if not is_finite_number(weight) or weight < 0:
                raise ValueError(f"{where}: weight of source {source!r} is {weight!r}; give a finite number >= 0")
        mixture = {source: float(weight) for source, weight in self.mixture.items()}
        total = sum(mixture.values())
        if total == 0:
            raise ValueError(f"{where}: all weights of the mixture are 0; give at least one source a positive weight")
        if not math.isfinite(total):
            raise ValueError(f"{where}: the weights add up to infinity; use smaller ones: they are relative")
        return mixture

    @property
    def shares(self) -> dict[str, float]:
        """The mixture scaled to a sum of 1, without the sources of weight 0."""
        total = sum(self.mixture.values())
        return {source: weight / total for source, weight in self.mixture.items() if weight > 0}

    @property
    def content(self) -> dict[str, object]:
        """The settings that determine which samples are drawn, apart from their number and length: a resumed run must have
        the same.
        """
        return {"mixture": self.mixture}


@dataclass(frozen=True)
class MixtureStage(DataStage):
    """A part of a run with one mixture.

    Args:
        name: see `DataStage`.
        tokens: see `DataStage`.
        mixture: see `DataStage`.
        sequence_length: see `DataStage`.

    Raises:
        ValueError: a value is out of its range.

    >>> MixtureStage("only", "1K", {"web": 3, "qa": 1}).shares
    {'web': 0.75, 'qa': 0.25}
    """

    name: str
    tokens: int | float | str
    mixture: dict[str, float]
    sequence_length: int | None = None


def check_sequence_length(where: str, value: object) -> None:
    """Raise for an invalid window length."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{where}: sequence_length is {value!r}; give a whole number of tokens >= 1")


@dataclass(frozen=True)
class MixturePlan:
    """Data stages, divided into optimizer steps of equal size and validated at construction.

    A stage takes `max(1, tokens / tokens_per_step rounded to the nearest)` steps. Steps and global sample indices count from 0
    over the whole run; a sample is one window of a stage's sequence length.

    Args:
        stages: the stages in the order in which they are run; plain mappings are turned into stages.
        tokens_per_step: tokens in one optimizer step over all ranks, the same in all stages.
        sequence_length: tokens in a training window, for stages that do not set their own.

    Raises:
        ValueError: no stages, a name used twice, or `tokens_per_step` is not a multiple of a sequence length.

    >>> plan = MixturePlan([MixtureStage("easy", 400, {"a": 1}), MixtureStage("hard", 1600, {"a": 1, "b": 3})], 100, 10)
    >>> plan.num_steps, plan.first_step(1), plan.sources, plan.samples_per_step(0), plan.first_sample(1)
    (20, 4, ['a', 'b'], 10, 40)
    """

    stages: Sequence[DataStage]
    tokens_per_step: int | float | str
    sequence_length: int

    subject: ClassVar[str] = "mixture plan"  # for messages
    stage_type: ClassVar[type[Any]] = MixtureStage

    def __post_init__(self) -> None:
        stages = [self.stage_type(**stage) if isinstance(stage, Mapping) else stage for stage in self.stages or []]
        if not stages:
            raise ValueError(f"the {self.subject} has no stages; give it at least one")
        names = [stage.name for stage in stages]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{names.count(name)} stages are named {name!r}; give every stage its own name")
        check_sequence_length(self.subject, self.sequence_length)
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

    def check_ranks(self, num_ranks: int) -> None:
        """Raise if the number of ranks does not divide the windows of a step.

        Raises:
            ValueError: naming the stage, and numbers that would work.
        """
        for index, stage in enumerate(self.stages):
            if self.samples_per_step(index) % num_ranks:
                raise ValueError(
                    f"{num_ranks} ranks do not divide the {self.samples_per_step(index)} windows of a step in stage "
                    f"{stage.name!r}; make tokens_per_step a multiple of {num_ranks} x {self.sequence_length_of(index)}, or use "
                    "fewer ranks"
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
            ValueError: the run has no such step.
        """
        if not 0 <= step < self.num_steps:
            raise ValueError(
                f"step {step} is outside the run; there are 0 to {self.num_steps - 1} in the {self.subject}"
            )
        return bisect_right(self._first_steps, step) - 1

    def sample_range(self, step: int) -> tuple[int, int]:
        """Global sample indices `[start, stop)` of the windows in optimizer step `step`."""
        stage = self.stage_at(step)
        count = self.samples_per_step(stage)
        start = self._first_samples[stage] + (step - self._first_steps[stage]) * count
        return start, start + count


def check_resumed(saved: MixturePlan, plan: MixturePlan, step: int) -> None:
    """Raise if a resumed run would use other data than it started with: only later stages may be changed.

    Args:
        saved: the plan of the run that ended at the step.
        plan: the plan of the resumed run.
        step: optimizer steps done.

    Raises:
        ValueError: a stage that has started, the step's size or the sources' order differs.
    """
    if saved.tokens_per_step != plan.tokens_per_step:
        raise ValueError(
            f"tokens_per_step was {saved.tokens_per_step} in the checkpoint's run and is {plan.tokens_per_step} here; "
            "set it as that run had it"
        )
    begun = saved.stage_at(max(step - 1, 0)) + 1
    for index in range(begun):
        before, here = saved.stages[index], plan.stages[index] if index < len(plan.stages) else None
        finished = saved.first_step(index) + saved.steps_of(index) <= step
        same = (
            here is not None
            and before.content == here.content
            and saved.sequence_length_of(index) == plan.sequence_length_of(index)
            and (plan.steps_of(index) == saved.steps_of(index) if finished else plan.stage_at(step - 1) == index)
        )
        if not same:
            raise ValueError(
                f"stage {before.name!r} was already begun at the checkpoint (step {step}) and is another one here; keep "
                "it as it was: "
                "only stages to come can be changed when a run resumes"
            )
    # The order depends on which source is named first, second, ...
    named = list(dict.fromkeys(source for stage in saved.stages[:begun] for source in stage.mixture))
    if named != plan.sources[: len(named)]:
        raise ValueError(
            f"the stages begun at the checkpoint name their sources in the order {', '.join(named)}, this run has "
            f"{', '.join(plan.sources)}; write the mixtures in the old order"
        )
