"""Episodes of a build's model: played once, stored as JSON, and read back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from nbg_lightning.construction.pairs.answers import AnsweringModel
from nbg_lightning.construction.store import JsonRecord
from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import Answer
from nbg_lightning.engines.protocol import Completion, FinishReason
from nbg_lightning.environments.driver import EpisodeDriver
from nbg_lightning.environments.environment import Environment
from nbg_lightning.environments.episode import Episode
from nbg_lightning.environments.episode_record import episode_from_record, episode_record
from nbg_lightning.environments.identity import identity_of
from nbg_lightning.environments.play import check_episodes, play_episodes


@dataclass(frozen=True)
class ActingModel(AnsweringModel):
    """A model that acts in an environment: its answers are episodes.

    Attributes:
        environment: copied for each episode.
        driver: plays the episodes.
    """

    environment: Environment = field(kw_only=True)
    driver: EpisodeDriver = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_episodes(self.config.engine, self.format, self.name)
        object.__setattr__(self, "driver", EpisodeDriver(self.environment))

    def identity(self) -> JsonRecord:
        return {**super().identity(), "environment": identity_of(self.environment)}

    def opened(self) -> AbstractContextManager[Any]:
        return self._opened()

    @contextmanager
    def _opened(self) -> Iterator[None]:
        with self.config.engine, self.driver:
            self.config.load()
            yield

    def drawn(self, questions: Sequence[Question]) -> list[JsonRecord]:
        """Play episodes for some questions, as JSON."""
        prompts = [self.format.prompt(question.messages) for question in questions]
        engine, deadline = self.config.engine, self.config.deadline
        played = play_episodes(self.driver, engine, questions, prompts, self.format, self.sampling, deadline)
        return [
            {"key": question.key, "answers": [_kept(episode) for episode in own]}
            for question, own in zip(questions, played, strict=True)
        ]

    def read(self, record: JsonRecord) -> list[Answer]:
        return [_episode(each) for each in record["answers"]]


def _kept(episode: Episode) -> JsonRecord:
    """An episode as JSON, without its ids."""
    completion = episode.completion
    about = {
        "finish_reason": completion.finish_reason,
        "error": completion.error,
        "sample": completion.sample_index,
        "tokens": len(completion.ids),
    }
    return {**episode_record(replace(episode, segments=())), **about}


def _episode(record: JsonRecord) -> Episode:
    """A stored episode, without its ids and rows."""
    reason: FinishReason = record["finish_reason"]
    completion = Completion((), (), reason, 0, record["sample"], 0, record["error"], record["text"])
    return episode_from_record(record, completion)
