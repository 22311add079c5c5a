"""The FG-WSD table: stages of a pretraining run as pure functions of consumed tokens.

FG-WSD (Nanbeige4-3B Technical Report, arXiv 2512.06266) uses the learning rate of warmup-stable-decay, but divides its
constant phase into stages of increasing data quality. A `Stage` therefore holds two independent settings, a learning-rate
rule and a data mixture; neither is derived from the other. Vanilla WSD is the same table with one mixture.

Nothing here needs torch, so a curriculum can be checked, printed and plotted before anything is built.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from nbg_lightning.schedule.mixture import DataStage, MixturePlan, is_finite_number
from nbg_lightning.schedule.tokens import parse_tokens

Decay = Literal["linear", "sqrt", "cosine", "exponential"]


def _as_number(value: object) -> Any:
    """A number that is written as a text, as YAML's ``1e-4`` is; anything else as it is."""
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


@dataclass(frozen=True)
class Stage(DataStage):
    """One stage of the curriculum: its number of tokens, learning rate and data mixture.

    Immutable, because a `Curriculum` derives numbers from it; use `dataclasses.replace` for a variant.

    Args:
        name: Name for logs, checkpoints and pictures; unique in a curriculum.
        tokens: Length of the stage in tokens, as `parse_tokens` reads it.
        lr: A constant learning rate, or `[start, end]`, rising or falling.
        mixture: Source name -> weight. Weights are relative; 0 excludes a source.
        decay: Shape of the learning rate from start to end, with x the completed share of the stage: linear `start + (end -
            start) x`; sqrt `start + (end - start) sqrt(x)`, which, if decreasing, is the 1-sqrt decay of Haegele et al.,
            arXiv 2405.18392; cosine `start + (end - start) (1 - cos(pi x)) / 2`; exponential `start (end / start)^x`. The
            paper does not specify its choice.
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
        super().__post_init__()
        self._check_learning_rate(self.where)
        if self.rope_theta is not None and not (is_finite_number(self.rope_theta) and self.rope_theta > 0):
            raise ValueError(
                f"{self.where}: rope_theta is {self.rope_theta!r}; give a positive number, or null for the model's"
            )

    def _check_learning_rate(self, where: str) -> None:
        pair = isinstance(self.lr, (list, tuple))
        ends = [_as_number(end) for end in (self.lr if isinstance(self.lr, (list, tuple)) else [self.lr])]
        if (pair and len(ends) != 2) or not all(is_finite_number(end) and end >= 0 for end in ends):
            raise ValueError(f"{where}: lr is {self.lr!r}; give one finite number >= 0, or two of them as [start, end]")
        if self.decay not in get_args(Decay):
            choices = ", ".join(get_args(Decay))
            raise ValueError(f"{where}: decay is invalid: {self.decay!r}; choose one of {choices}")
        if pair and self.decay == "exponential" and min(ends) == 0:
            raise ValueError(
                f"{where}: exponential decay cannot start or end at 0 (lr {self.lr!r}); "
                "use a small positive number, or decay: linear"
            )
        object.__setattr__(self, "lr", [float(end) for end in ends] if pair else float(ends[0]))

    @property
    def learning_rate_ends(self) -> tuple[float, float]:
        """Learning rate at the start (x = 0, before the first step) and at the end (x = 1, the last step)."""
        return (self.lr[0], self.lr[1]) if isinstance(self.lr, list) else (self.lr, self.lr)

    @property
    def content(self) -> dict[str, object]:
        """Its mixture, and the RoPE base where it has one of its own."""
        return super().content | ({} if self.rope_theta is None else {"rope_theta": self.rope_theta})

    def learning_rate_at(self, progress: float) -> float:
        """Learning rate when the share `progress` (0 to 1) of the stage is done; exactly the end value at 1.

        >>> Stage("warmup", "1M", [0.0, 4e-4], {"web": 1}).learning_rate_at(0.25)
        0.0001
        """
        return interpolate(*self.learning_rate_ends, progress, self.decay)


def interpolate(start: float, end: float, progress: float, decay: Decay = "linear") -> float:
    """The value that is `progress` (0 to 1) of the way from `start` to `end`, by the rules of `Stage.decay`.

    >>> interpolate(1.0, 0.0, 0.5, "cosine"), interpolate(1.0, 0.01, 0.5, "exponential"), interpolate(1.0, 0.0, 1.0, "sqrt")
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
    """Learning rate of optimizer step `step` (from 0): linear warmup from 0 to `lr`, then a decay to `final_lr`.

    The warmup has `warmup x num_steps` steps, rounded, and its last step has exactly `lr`; the last step of the run has
    exactly `final_lr`. As in `Curriculum.learning_rate` a step's rate is that of the share done after it, so the first is
    not 0.

    >>> [round(warmup_decay(step, 5, 1.0, warmup=0.4, decay="linear"), 3) for step in range(5)]
    [0.5, 1.0, 0.667, 0.333, 0.0]
    """
    warmup_steps = round(warmup * num_steps)
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    return interpolate(lr, final_lr, (step + 1 - warmup_steps) / (num_steps - warmup_steps), decay)


@dataclass(frozen=True)
class Curriculum(MixturePlan):
    """The table of stages, divided into optimizer steps of equal size and validated at construction.

    A stage takes `max(1, tokens / tokens_per_step rounded to the nearest)` steps, so the achieved number of tokens may
    differ from the requested one by up to half a step; `nbg schedule` prints both. Steps and global sample indices count
    from 0 over the whole run; a sample is one window of a stage's sequence length.

    Args:
        stages: The stages in the order in which they are run (plain mappings are turned into `Stage`).
        tokens_per_step: Tokens in one optimizer step over all ranks, the same in all stages.
        sequence_length: Tokens in a training window, where a stage does not say otherwise.

    Raises:
        ValueError: No stages, a name used twice, or `tokens_per_step` is not a multiple of a sequence length.

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

    subject: ClassVar[str] = "curriculum"
    stage_type: ClassVar[type[Any]] = Stage

    def learning_rate(self, step: int) -> float:
        """Learning rate of optimizer step `step` (from 0).

        The stage's rule at x = (tokens consumed after this step - tokens before the stage) / tokens of the
        stage, which is in (0, 1]: the first warm-up step is not 0, and the last step of a stage has exactly
        its end value.
        """
        stage = self.stage_at(step)
        return self.stages[stage].learning_rate_at((step + 1 - self._first_steps[stage]) / self._steps[stage])


def saved_plan(state: dict[str, Any]) -> MixturePlan:
    """The plan stored in a checkpoint as plain types: a `Curriculum` if its stages have learning rates.

    >>> stage = {"name": "only", "tokens": 8, "mixture": {"web": 1}}
    >>> saved_plan({"stages": [stage], "tokens_per_step": 4, "sequence_length": 2}).num_steps
    2
    """
    return (Curriculum if all("lr" in stage for stage in state["stages"]) else MixturePlan)(**state)


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
        warmup_share: Share of the tokens in which the learning rate rises linearly from 0.
        decay_share: Share of the tokens in which it decays to `final_lr`.
        decay: Shape of the decay, see `Stage`.

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
