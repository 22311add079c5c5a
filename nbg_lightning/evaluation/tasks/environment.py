"""Any environment as a benchmark."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from nbg_lightning.data.question import Question
from nbg_lightning.data.question_sources import QuestionSource
from nbg_lightning.environments.driver import EpisodeDriver
from nbg_lightning.environments.environment import Environment
from nbg_lightning.environments.identity import identity_of
from nbg_lightning.environments.reward import EnvironmentReward
from nbg_lightning.evaluation.benchmark import Benchmark, Item, Kind
from nbg_lightning.evaluation.rows import Row
from nbg_lightning.rewards.protocol import Reward

_QUESTION = "question"  # of an item's data


@dataclass(kw_only=True)
class EnvironmentBenchmark(Benchmark):
    """Plays an episode for each question in an environment of `GRPOModule`, scored as in training.

    Items are questions as `PromptDataModule` accepts them: a ``source``, or the rows of ``path`` with ``messages``,
    ``prompt`` or ``question``, ``answer`` and ``data``. A question's ``category`` and ``cluster`` are read from its
    ``data``. An episode whose environment fails is an error, never a wrong answer. Metrics of its turns and calls are
    ``episode/NAME``, per episode.

    The chat format is the suite's; its ``max_new_tokens`` limits a turn. Scores range from 0 to 1.

    Args:
        environment: the environment.
        reward: scores episodes that the environment does not score.
        source: source of questions, instead of ``path``.
    """

    environment: Environment | None = None
    reward: Reward | None = None
    source: QuestionSource | None = None

    label: ClassVar[str] = "environment"
    kind: ClassVar[Kind] = "episodes"
    licence: ClassVar[str] = "of the items that you give"
    file_names: ClassVar[tuple[str, ...]] = ("questions", "test", "validation")
    stop_texts: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.environment is None:
            raise ValueError(
                f"{self.name} has no environment; give one, such as ToolEnvironment, or a class of your own"
            )
        self.check_source()
        if self.num_shots:
            raise ValueError(
                f"{self.name}: num_shots is invalid: {self.num_shots}; leave it out: an environment shows its own examples"
            )
        self._driver: EpisodeDriver | None = None
        self.scorer = EnvironmentReward(self.reward)

    def check_source(self) -> None:
        """Check that questions come from exactly one place.

        Raises:
            ValueError: with what to do.
        """
        if (self.path is None) == (self.source is None):
            given = "nothing" if self.path is None else "both"
            raise ValueError(f"{self.name}: path and source are invalid: {given}")

    def settings(self) -> dict[str, str]:
        return {
            **super().settings(),
            "environment": identity_of(self.environment),
            "reward": identity_of(self.reward),
            "data": hashlib.blake2b(
                "".join(json.dumps(self.asked(item).data, default=str) for item in self._usable()).encode(
                    "utf-8", "surrogatepass"
                ),
                digest_size=8,
            ).hexdigest(),
        }

    def _usable(self) -> Iterator[Item]:
        return (item for item in self.load().items if item.error is None)

    # -- items ---------------------------------------------------------------------------------------------------------

    def _rows(self) -> tuple[str, Iterator[tuple[str, Row]]]:
        if self.source is None:
            return super()._rows()
        questions = enumerate(self.source.questions(self.name))
        return type(self.source).__name__, ((f"question {n}", {_QUESTION: each}) for n, each in questions)

    def parse(self, row: Row, place: str) -> Item:
        given = row.get(_QUESTION)
        question = given if isinstance(given, Question) else Question.from_dict(row, self.name)
        if (reason := self.scorer.check(question)) is not None:
            raise ValueError(reason)
        return Item(
            str(row.get("id", question.key)),
            str(question.messages[-1]["content"]),
            question.answer,
            category=row.get("category", question.data.get("category")),
            cluster=question.data.get("cluster"),
            data={_QUESTION: question},
        )

    def asked(self, item: Item) -> Question:
        """The question of an item."""
        question = item.data[_QUESTION]
        assert isinstance(question, Question)
        return question

    # -- episodes ------------------------------------------------------------------------------------------------------

    def opened(self) -> AbstractContextManager[Any]:
        return self._opened()

    @contextmanager
    def _opened(self) -> Iterator[None]:
        assert self.environment is not None
        with EpisodeDriver(self.environment) as self._driver, self.scorer:
            try:
                yield
            finally:
                self._driver = None

    @property
    def driver(self) -> EpisodeDriver:
        """Plays the episodes; available while the benchmark is `opened`."""
        assert self._driver is not None
        return self._driver
