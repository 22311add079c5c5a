"""How rollouts are obtained: synchronously, ahead of training, or from the ledger of another run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar, cast

from nbg_lightning import log

OtherSettings = TypeVar("OtherSettings", bound=Mapping[str, Any])


@dataclass(frozen=True)
class RolloutSettings:
    """Settings of how a step obtains its answers.

    Attributes:
        max_staleness: maximum age in steps of the weights that sample an answer, relative to those it is trained on. With 0
            the trainer waits for the answers of each step. With k the answers of step s are sampled with the weights of
            step s - k while the steps between are trained (docs/rollouts.md).
        ledger: record all answers in ``<default_root_dir>/rollout_ledger``; by default if ``max_staleness`` is above 0.
        replay: ledger of another run, or that run's folder: train on its answers and scores instead of sampling.
        deadline: seconds that the engine has for a step's answers. Answers not finished by then are excluded.
        question_deadline: seconds that an answer has from its first token (on a server from its request, for an episode
            from its start), so that a single one cannot delay a step. It is then excluded.
        token_budget: number of tokens that a step may sample, over all ranks: answers get equal shares, and tokens that
            short answers leave go to the others. Unfinished answers are excluded. With asynchronous sampling each rank has
            a fixed part of the budget.
        carry_over: number of further steps in which an answer unfinished at ``deadline`` or ``token_budget`` is continued
            from its tokens before it is excluded. Its question is trained on once all its answers are finished; they are up
            to ``max_staleness + carry_over`` steps old.
        balance_ranks: redistribute answers so that ranks train on about the same number of tokens.
        validation_samples: answers per validation question.

    Raises:
        ValueError: an invalid setting.
    """

    max_staleness: int = 0
    ledger: bool | None = None
    replay: str | None = None
    deadline: float = 900.0
    question_deadline: float | None = None
    token_budget: int | None = None
    carry_over: int = 0
    balance_ranks: bool = False
    validation_samples: int = 1

    def __post_init__(self) -> None:
        if type(self.max_staleness) is not int or self.max_staleness < 0:
            raise ValueError(
                f"max_staleness is invalid: {self.max_staleness}; give a number of steps: 0 draws and trains in turn, 1 draws "
                "the next step's answers meanwhile"
            )
        if not 0 < self.deadline < float("inf"):
            raise ValueError(f"rollouts.deadline is invalid: {self.deadline}; give seconds above 0")
        if self.question_deadline is not None and not 0 < self.question_deadline < float("inf"):
            raise ValueError(
                f"question_deadline is invalid: {self.question_deadline}; give seconds above 0, or leave it out"
            )
        if self.token_budget is not None and (type(self.token_budget) is not int or self.token_budget < 1):
            raise ValueError(f"token_budget is invalid: {self.token_budget}; give a number of tokens, or leave it out")
        if type(self.carry_over) is not int or self.carry_over < 0:
            raise ValueError(f"carry_over is invalid: {self.carry_over}; give a number of steps, of at least 0")
        if self.carry_over and not (self.max_staleness or self.replay):
            raise ValueError(
                f"carry_over is invalid: {self.carry_over} with max_staleness 0, which trains on no older answers; set that to 1"
            )
        if self.validation_samples < 1:
            raise ValueError(f"validation_samples is invalid: {self.validation_samples}; give at least 1")
        if self.replay is not None and self.ledger:
            raise ValueError("rollouts.ledger is invalid with replay: the answers are in a ledger already; remove it")

    @property
    def keeps_ledger(self) -> bool:
        """Whether a run with these settings records its answers."""
        return self.replay is None and (self.max_staleness > 0 if self.ledger is None else self.ledger)


MOVED = {"rollout_deadline": "deadline", "validation_samples": "validation_samples"}
"""Settings that stood beside ``rollouts`` in earlier versions, with their names in it."""


def rollouts_apart(rollouts: RolloutSettings, others: OtherSettings) -> tuple[RolloutSettings, OtherSettings]:
    """The settings of rollouts, including those given outside of them, and the remaining settings.

    >>> rollouts_apart(RolloutSettings(), {"rollout_deadline": 60.0, "seed": 1})[1]
    {'seed': 1}

    Raises:
        ValueError: a setting is given in both places.
    """
    found = {new: others[old] for old, new in MOVED.items() if old in others}
    if not found:
        return rollouts, others
    defaults = {field.name: field.default for field in fields(RolloutSettings)}
    for old, new in MOVED.items():
        if old in others and vars(rollouts)[new] not in (defaults[new], others[old]):
            raise ValueError(f"{old} is given twice, in rollouts and beside it; remove the one that is beside it")
    log.info(f"{', '.join(old for old in MOVED if old in others)}: read as part of rollouts; write rollouts: {{...}}")
    rest = {name: value for name, value in others.items() if name not in MOVED}
    return replace(rollouts, **found), cast(OtherSettings, rest)
