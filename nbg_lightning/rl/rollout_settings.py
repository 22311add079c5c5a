"""How answers are drawn beside the training: in turn with it, ahead of it, or from the ledger of another run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar, cast

from nbg_lightning import log

OtherSettings = TypeVar("OtherSettings", bound=Mapping[str, Any])


@dataclass(frozen=True)
class RolloutSettings:
    """Settings of how a step gets its answers.

    Attributes:
        max_staleness: steps by which the weights that drew an answer may be older than those it is trained on. With 0 the trainer
            waits for the answers of each step. With k the answers of step s are drawn with the weights of step s - k while the
            steps between are trained (docs/rollouts.md).
        ledger: keep all answers in ``<default_root_dir>/rollout_ledger``; by default where ``max_staleness`` is above 0.
        replay: the ledger of another run, or its folder: its answers and scores are trained on in place of new ones.
        deadline: seconds that the engine has for a step's answers. What is not finished then is left out.
        validation_samples: answers to each validation question.

    Raises:
        ValueError: a setting that cannot work.
    """

    max_staleness: int = 0
    ledger: bool | None = None
    replay: str | None = None
    deadline: float = 900.0
    validation_samples: int = 1

    def __post_init__(self) -> None:
        if type(self.max_staleness) is not int or self.max_staleness < 0:
            raise ValueError(
                f"max_staleness is invalid: {self.max_staleness}; give a number of steps: 0 draws and trains in turn, 1 draws "
                "the next step's answers meanwhile"
            )
        if not 0 < self.deadline < float("inf"):
            raise ValueError(f"rollouts.deadline is invalid: {self.deadline}; give seconds above 0")
        if self.validation_samples < 1:
            raise ValueError(f"validation_samples is invalid: {self.validation_samples}; give at least 1")
        if self.replay is not None and self.ledger:
            raise ValueError("rollouts.ledger is invalid with replay: the answers are in a ledger already; remove it")

    @property
    def keeps_ledger(self) -> bool:
        """Whether a run with these settings writes its answers down."""
        return self.replay is None and (self.max_staleness > 0 if self.ledger is None else self.ledger)


MOVED = {"rollout_deadline": "deadline", "validation_samples": "validation_samples"}
"""Settings that stood beside ``rollouts`` in earlier versions, with their names in it."""


def rollouts_apart(rollouts: RolloutSettings, others: OtherSettings) -> tuple[RolloutSettings, OtherSettings]:
    """The settings of rollouts, with those that are written beside them, and what else is set.

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
