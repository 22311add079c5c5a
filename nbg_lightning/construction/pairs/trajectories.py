"""`nbg build-trajectories`: a model's best episodes in an environment, as conversations whose bad turns have no loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from nbg_lightning.chat.conversation import Conversation, ConversationError
from nbg_lightning.construction.pairs.acting import ActingModel
from nbg_lightning.construction.pairs.rejection import RejectionSampler
from nbg_lightning.construction.provenance import describe
from nbg_lightning.construction.store import JsonRecord
from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import Answer
from nbg_lightning.engines.protocol import Sampling
from nbg_lightning.environments.environment import Environment
from nbg_lightning.environments.episode import WITHOUT_SCORE, Episode
from nbg_lightning.environments.reward import EnvironmentReward
from nbg_lightning.environments.transcript import turn_numbers
from nbg_lightning.rewards.protocol import Reward

FAULTS = ("unreadable_calls", "unknown_tools", "invalid_arguments", "raised")


@dataclass(kw_only=True)
class TrajectoryBuilder(RejectionSampler):
    """Build conversations with tools from the best episodes of each question (rejection sampling).

    Episodes are played and scored as in `GRPOModule`. A turn that went wrong stays in the conversation, since later turns
    react to it, but has ``train: false``, so that it is not learned.

    Args:
        environment: the environment.
        reward: scores episodes that the environment does not score.
        bad_turns: counters that mark a turn as bad: those of the environment and the driver, by name.
        min_turn_score: turns that the environment scored below this are bad; by default scores are not considered.
        max_bad_turns: maximum number of bad turns in an episode; by default unlimited.
    """

    name: ClassVar[str] = "build-trajectories"
    record_format: ClassVar[str] = "nbg_lightning trajectories 1"

    environment: Environment
    reward: Reward | None = None
    bad_turns: list[str] = field(default_factory=lambda: list(FAULTS))
    min_turn_score: float | None = None
    max_bad_turns: int | None = None

    def scorer(self) -> Reward:
        return EnvironmentReward(self.reward)

    def scorer_identity(self) -> JsonRecord:
        return {"environment": True, "reward": describe(self.reward)}

    def answering_model(self, sampling: Sampling) -> ActingModel:
        return ActingModel("model", self.model, self.model.open_chat().format, sampling, environment=self.environment)

    def state(self, answer: Answer) -> str:
        return _episode(answer).end.value

    def candidates(self, answers: Sequence[Answer]) -> list[Answer]:
        found: dict[str, Answer] = {}
        for answer in answers:
            if _episode(answer).end not in WITHOUT_SCORE and self._may_be_kept(answer):
                found.setdefault(answer.text.strip(), answer)
        return list(found.values())

    def conversation(self, question: Question, answer: Answer) -> JsonRecord:
        episode = _episode(answer)
        row: JsonRecord = {"messages": with_masks(episode.messages, self._bad(episode))}
        if episode.tools:
            row["tools"] = list(episode.tools)
        return {**row, "num_turns": episode.num_turns, "num_bad_turns": self.faults(answer)}

    def faults(self, answer: Answer) -> int:
        return sum(self._bad(_episode(answer)))

    def _may_be_kept(self, answer: Answer) -> bool:
        """Whether an episode can be a conversation with trained turns and not too many bad ones."""
        if self.max_bad_turns is not None and self.faults(answer) > self.max_bad_turns:
            return False
        if self.faults(answer) == _episode(answer).num_turns:
            return False
        try:
            Conversation.from_dict(self.conversation(Question(()), answer))
        except ConversationError:
            return False
        return True

    def _bad(self, episode: Episode) -> list[bool]:
        """Which turns of the model went wrong."""
        least = self.min_turn_score
        return [
            any(counts.get(name) for name in self.bad_turns)
            or (least is not None and score is not None and score < least)
            for counts, score in zip(episode.turn_counts, episode.turn_scores, strict=True)
        ]


def with_masks(messages: Sequence[Mapping[str, Any]], bad: Sequence[bool]) -> list[dict[str, Any]]:
    """The messages of an episode, where bad turns of the model have ``train: false``.

    Args:
        messages: messages of an episode: those of its opening, then turns of the model with replies.
        bad: for each turn of the model. Assistant turns in the opening come first, and are not trained either.

    Example:
        >>> turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
        >>> with_masks(turns, [True])[1]
        {'role': 'assistant', 'content': '!', 'train': False}
    """
    return [
        {**message, "train": False}
        if message["role"] == "assistant" and (number is None or bad[number])
        else dict(message)
        for message, number in zip(messages, turn_numbers(messages, len(bad)), strict=True)
    ]


def _episode(answer: Answer) -> Episode:
    assert isinstance(answer, Episode)
    return answer
