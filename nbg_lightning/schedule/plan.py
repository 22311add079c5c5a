"""The plan of a curriculum in numbers, before it is run.

Everything is computed per stage rather than per step, so 23T tokens take as long as 23K.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from nbg_lightning.schedule.curriculum import Curriculum
from nbg_lightning.schedule.tokens import format_tokens, parse_tokens

# Up to four epochs repeated data is worth almost as much as new data; Muennighoff et al., arXiv 2305.16264.
MAX_USEFUL_EPOCHS = 4.0
# Rounding to whole steps always moves a stage a little; below this it is not worth a warning.
ROUNDING_TOLERANCE = 1e-3


@dataclass(frozen=True)
class SourceShare:
    """Share of one source in one stage.

    Args:
        source: Name of the source.
        share: Part of the stage's tokens, 0 to 1.
        tokens: Tokens drawn in this stage.
        epochs: Passes over the source in this stage; None if its size is unknown.
        cumulative_epochs: The same from the beginning of the run to the end of this stage.
    """

    source: str
    share: float
    tokens: int
    epochs: float | None
    cumulative_epochs: float | None


@dataclass(frozen=True)
class StagePlan:
    """One stage in numbers.

    Args:
        name: Name of the stage.
        requested_tokens: Tokens requested in the table.
        tokens: Tokens in whole steps.
        share: Part of the run's tokens, 0 to 1.
        first_step: First optimizer step, from 0.
        steps: Number of optimizer steps.
        first_token: Tokens consumed before the stage.
        learning_rate_start: Value of the learning-rate rule before the first step.
        learning_rate_end: Learning rate of the last step.
        decay: Form of the learning rate between the two.
        sequence_length: Tokens in a window.
        rope_theta: RoPE base; None is the model's own.
        samples_per_step: Windows in a step, over all ranks.
        mixture: What is taken from each source of positive weight.
    """

    name: str
    requested_tokens: int
    tokens: int
    share: float
    first_step: int
    steps: int
    first_token: int
    learning_rate_start: float
    learning_rate_end: float
    decay: str
    sequence_length: int
    rope_theta: float | None
    samples_per_step: int
    mixture: list[SourceShare]


@dataclass(frozen=True)
class SourcePlan:
    """One source over the whole run; `size` and `epochs` are None where the size is unknown."""

    source: str
    size: int | None
    tokens: int
    epochs: float | None


@dataclass(frozen=True)
class PlanWarning:
    """A setting that is allowed but probably unintended.

    Args:
        code: rounded-stage, learning-rate-jump, decay-without-effect, repeated-source or unused-source.
        subject: The stage or source concerned.
        message: One line with cause and fix.
    """

    code: str
    subject: str
    message: str


@dataclass(frozen=True)
class Plan:
    """A curriculum in numbers; `requested_tokens` and `tokens` as in `StagePlan`."""

    requested_tokens: int
    tokens: int
    steps: int
    tokens_per_step: int
    stages: list[StagePlan]
    sources: list[SourcePlan]
    warnings: list[PlanWarning]
    curriculum: Curriculum


def make_plan(curriculum: Curriculum, source_tokens: Mapping[str, int | float | str | None] | None = None) -> Plan:
    """Compute the tokens drawn from every source, stage by stage.

    Args:
        curriculum: The stages.
        source_tokens: Size of each source in tokens, prepared or declared ("6.5T"); a source that is None or
            missing has an unknown size.

    Raises:
        ValueError: A size is invalid: it must be a whole number of tokens above 0.

    >>> from nbg_lightning.schedule.curriculum import Stage
    >>> curriculum = Curriculum([Stage("only", "1M", 1e-3, {"web": 3, "qa": 1})], 1000, sequence_length=100)
    >>> plan = make_plan(curriculum, {"web": "0.5M"})
    >>> [(source.source, source.tokens, source.epochs) for source in plan.sources]
    [('web', 750000, 1.5), ('qa', 250000, None)]
    """
    sizes: dict[str, int] = {}
    for source, declared in (source_tokens or {}).items():
        if declared is not None:
            try:
                sizes[source] = parse_tokens(declared)
            except ValueError as error:
                raise ValueError(f"size of source {source!r}: {error}") from error
            if sizes[source] == 0:
                raise ValueError(f"source {source!r} has 0 tokens; prepare it, or leave its size out if it is unknown")
    taken = dict.fromkeys(curriculum.sources, 0)

    def epochs_of(source: str, tokens: int) -> float | None:
        return tokens / sizes[source] if source in sizes else None

    stages = []
    for index, stage in enumerate(curriculum.stages):
        tokens = curriculum.tokens_of(index)
        mixture = []
        for source, share in stage.shares.items():
            drawn = round(tokens * share)
            taken[source] += drawn
            mixture.append(
                SourceShare(source, share, drawn, epochs_of(source, drawn), epochs_of(source, taken[source]))
            )
        start, end = stage.learning_rate_ends
        stages.append(
            StagePlan(
                name=stage.name,
                requested_tokens=int(stage.tokens),
                tokens=tokens,
                share=tokens / curriculum.num_tokens,
                first_step=curriculum.first_step(index),
                steps=curriculum.steps_of(index),
                first_token=curriculum.first_step(index) * int(curriculum.tokens_per_step),
                learning_rate_start=start,
                learning_rate_end=end,
                decay=stage.decay if start != end else "constant",
                sequence_length=curriculum.sequence_length_of(index),
                rope_theta=stage.rope_theta,
                samples_per_step=curriculum.samples_per_step(index),
                mixture=mixture,
            )
        )
    sources = [SourcePlan(name, sizes.get(name), tokens, epochs_of(name, tokens)) for name, tokens in taken.items()]
    return Plan(
        requested_tokens=sum(stage.requested_tokens for stage in stages),
        tokens=curriculum.num_tokens,
        steps=curriculum.num_steps,
        tokens_per_step=int(curriculum.tokens_per_step),
        stages=stages,
        sources=sources,
        warnings=_stage_warnings(curriculum, stages) + _source_warnings(sources, source_tokens or {}),
        curriculum=curriculum,
    )


def _stage_warnings(curriculum: Curriculum, stages: list[StagePlan]) -> list[PlanWarning]:
    found = []
    for stage, before in zip(stages, [None, *stages], strict=False):
        if abs(stage.tokens - stage.requested_tokens) > ROUNDING_TOLERANCE * stage.requested_tokens:
            message = (
                f"stage {stage.name!r} asks for {stage.requested_tokens:,} tokens and gets {stage.tokens:,} "
                f"({stage.steps:,} whole steps of {curriculum.tokens_per_step:,}); "
                "use a multiple of tokens_per_step, or smaller steps"
            )
            found.append(PlanWarning("rounded-stage", stage.name, message))
        if before and not math.isclose(before.learning_rate_end, stage.learning_rate_start, rel_tol=1e-6):
            message = (
                f"the learning rate jumps from {before.learning_rate_end:g} at the end of stage "
                f"{before.name!r} "
                f"to {stage.learning_rate_start:g} at the start of {stage.name!r}; "
                "let each stage start where the one before ends, unless this is meant"
            )
            found.append(PlanWarning("learning-rate-jump", stage.name, message))
    for given in curriculum.stages:
        if given.decay != "linear" and given.learning_rate_ends[0] == given.learning_rate_ends[1]:
            message = (
                f"decay {given.decay!r} has no effect in stage {given.name!r}, whose learning rate is "
                "constant; "
                "remove it, or give lr as [start, end]"
            )
            found.append(PlanWarning("decay-without-effect", given.name, message))
    return found


def _source_warnings(sources: list[SourcePlan], source_tokens: Mapping[str, object]) -> list[PlanWarning]:
    found = []
    for source in sources:
        if source.epochs is not None and source.size is not None and source.epochs > MAX_USEFUL_EPOCHS:
            message = (
                f"source {source.source!r} is seen {source.epochs:.1f} times "
                f"({format_tokens(source.tokens)} from "
                f"{format_tokens(source.size)} tokens); beyond {MAX_USEFUL_EPOCHS:g} epochs repetition is "
                "worth "
                "little: lower its weight or add data"
            )
            found.append(PlanWarning("repeated-source", source.source, message))
    unused = [source.source for source in sources if source.tokens == 0]
    unused += [name for name in source_tokens if name not in {source.source for source in sources}]
    for name in unused:
        message = f"source {name!r} is used by no stage; give it a weight in one, or remove it"
        found.append(PlanWarning("unused-source", name, message))
    return found


def plan_to_json(plan: Plan) -> str:
    """The plan, with the curriculum it was made from, as an indented JSON object."""
    return json.dumps(asdict(plan), indent=2, ensure_ascii=False)
