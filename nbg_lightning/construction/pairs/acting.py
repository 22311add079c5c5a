"""Episodes of the model of a build: played once, kept as JSON, and read again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from nbg_lightning.construction.pairs.answers import AnsweringModel
from nbg_lightning.construction.store import JsonRecord
from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import Answer
from nbg_lightning.engines.protocol import Completion
from nbg_lightning.environments.driver import EpisodeDriver
from nbg_lightning.environments.environment import End, Environment
from nbg_lightning.environments.episode import FINISH, Episode
from nbg_lightning.environments.identity import identity_of
from nbg_lightning.environments.play import check_episodes, play_episodes


@dataclass(frozen=True)
class ActingModel(AnsweringModel):
    """A model that acts in an environment: its answers are episodes.

    Attributes:
        environment: of which each episode has a copy.
        driver: plays them.
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
        """Play the episodes of some questions, as JSON."""
        prompts = [self.format.prompt(question.messages) for question in questions]
        engine, deadline = self.config.engine, self.config.deadline
        played = play_episodes(self.driver, engine, questions, prompts, self.format, self.sampling, deadline)
        return [
            {"key": question.key, "answers": [episode_record(episode) for episode in own]}
            for question, own in zip(questions, played, strict=True)
        ]

    def read(self, record: JsonRecord) -> list[Answer]:
        return [_episode(each) for each in record["answers"]]


def episode_record(episode: Episode) -> JsonRecord:
    """An episode as plain values of JSON, without its ids."""
    return {
        "end": episode.end.value,
        "finish_reason": episode.completion.finish_reason,
        "error": episode.completion.error,
        "detail": episode.detail,
        "sample": episode.completion.sample_index,
        "tokens": len(episode.completion.ids),
        "score": episode.score,
        "messages": list(episode.messages),
        "tools": list(episode.tools),
        "turn_scores": list(episode.turn_scores),
        "turn_counts": [dict(each) for each in episode.turn_counts],
        "counts": dict(episode.counts),
        "text": episode.text,
        "reasoning": episode.reasoning,
        "final": episode.final,
    }


def _episode(record: JsonRecord) -> Episode:
    """An episode that was kept: all but its ids and rows."""
    end = End(record["end"])
    return Episode(
        Completion((), (), FINISH[end], 0, record["sample"], 0, record["error"], record["text"]),
        record["text"],
        record["reasoning"],
        record["final"],
        end,
        (),
        tuple(record["messages"]),
        tuple(record["tools"]),
        tuple(record["turn_scores"]),
        record["score"],
        record["detail"],
        record["counts"],
        tuple(record["turn_counts"]),
    )
