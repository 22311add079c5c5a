"""The interface of multi-turn environments: one object per rollout that opens it, replies to each turn, and is discarded."""

from __future__ import annotations

import enum
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, get_args

from nbg_lightning.chat.tool_calls import ToolCall
from nbg_lightning.data.question import Question

Turn = Mapping[str, Any]
"""A message: ``{"role": "user" or "tool", "content": text}``; a tool's with its ``name`` and, if it has one, ``tool_call_id``."""

ReplyStatus = Literal["ok", "timeout", "error"]


class End(enum.Enum):
    """How an episode ended; each end is counted (``episode/NAME``)."""

    ANSWERED = "answered"
    """The environment ended the episode after a turn without calls."""
    DONE = "done"
    """The environment ended the episode after a turn with a call."""
    MAX_TURNS = "max_turns"
    """The model used all its turns: the score is 0."""
    MAX_TOKENS = "max_tokens"
    """A turn or the episode reached its token limit, or the model's window: the score is 0."""
    UNREADABLE_CALL = "unreadable_call"
    """Too many consecutive calls were malformed: the score is 0."""
    TIMEOUT = "timeout"
    """The environment did not reply in time, or the rollouts' deadline passed: there is no score."""
    ERROR = "error"
    """The environment raised or died, or the engine failed: there is no score."""


@dataclass(frozen=True)
class Opening:
    """The beginning of an episode.

    Attributes:
        turns: messages before the model's first turn.
        tools: JSON schemas of the functions that the model may call.
    """

    turns: tuple[Turn, ...]
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class ModelTurn:
    """A parsed turn of the model.

    Attributes:
        text: the full text, with reasoning and calls.
        reasoning: the text between think tags; None without them.
        content: the text outside of reasoning and calls.
        calls: the calls.
    """

    text: str
    reasoning: str | None = None
    content: str = ""
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class Reply:
    """An environment's reply to a turn of the model.

    Attributes:
        turns: messages that the model reads next; none if the episode is done.
        done: the episode is over.
        score: score of this turn; on the turn that ends the episode, the episode's score, or None to leave it to the
            reward.
        status: ``timeout`` and ``error`` are failures of the environment, never of the model: the episode has no score.
        detail: the reason, in one line.
        counts: event counts, such as ``{"unknown_tools": 1}``, summed and logged as ``episode/NAME``.
    """

    turns: tuple[Turn, ...] = ()
    done: bool = False
    score: float | None = None
    status: ReplyStatus = "ok"
    detail: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.score is not None and not (isinstance(self.score, Real) and math.isfinite(self.score)):
            raise ValueError(f"score is invalid: {str(self.score)[:60]!r}; give a finite number, or None")
        if self.status not in get_args(ReplyStatus):
            raise ValueError(
                f"status is invalid: {str(self.status)[:60]!r}; there are {', '.join(get_args(ReplyStatus))}"
            )
        if not isinstance(self.detail, str):
            raise ValueError(f"detail is invalid: {type(self.detail).__name__}; give a text")
        if not isinstance(self.counts, Mapping) or not all(isinstance(n, Integral) for n in self.counts.values()):
            raise ValueError(f"counts is invalid: {str(self.counts)[:60]}; give whole numbers by name")


@dataclass(frozen=True)
class EpisodeLimits:
    """Limits of an episode.

    Attributes:
        max_turns: maximum turns of the model.
        max_tokens: maximum tokens of the episode, including prompt and replies; the model's window by default.
        step_seconds: seconds that the environment has for its opening, and for each reply, after which it is killed.
        turn_characters: maximum characters of an environment's message; longer ones are truncated, with a note.
        unreadable_calls: number of consecutive malformed calls that ends the episode. Each is answered with its error.
        workers: number of replies computed concurrently.
        open_at_once: maximum number of open episodes, for a server with limited sessions; further ones wait. None: all.
        isolated: each episode has its own process, forked from one that has imported the environment, so that it may hang
            or crash. False runs the environment in this process: faster to start, but nothing can stop it.

    Raises:
        ValueError: an invalid limit.
    """

    max_turns: int = 8
    max_tokens: int | None = None
    step_seconds: float = 10.0
    turn_characters: int = 8000
    unreadable_calls: int = 3
    workers: int = 16
    open_at_once: int | None = None
    isolated: bool = True

    def __post_init__(self) -> None:
        for name in ("max_turns", "max_tokens", "turn_characters", "unreadable_calls", "workers", "open_at_once"):
            value = self.__dict__[name]
            if value is not None and value < 1:
                raise ValueError(f"{name} is invalid: {value}; give at least 1")
        if not 0 < self.step_seconds < float("inf"):
            raise ValueError(f"step_seconds is invalid: {self.step_seconds}; give seconds above 0")


class Environment(ABC):
    """A multi-turn environment. It is configured once in YAML or Python, and copied for each episode.

    Attributes:
        limits: limits of its episodes; a constructor may change them.

    Example:
        >>> class Guess(Environment):
        ...     def reset(self, question):
        ...         self.secret = int(question.answer)
        ...         return Opening(question.messages)
        ...     def step(self, turn):
        ...         if turn.content.strip() == str(self.secret):
        ...             return Reply(done=True, score=1.0)
        ...         return Reply(({"role": "user", "content": "No. Try again."},))
    """

    limits: EpisodeLimits = EpisodeLimits()
    name: ClassVar[str] = "environment"
    prepare_seconds: ClassVar[float] = 0.0
    """What `prepare` may take beside the imports."""

    def prepare(self) -> None:  # noqa: B027 - most need nothing
        """Set up state shared by all episodes; called once in the process that episodes are forked from, and released with
        it.
        """

    @abstractmethod
    def reset(self, question: Question) -> Opening:
        """Begin an episode. An exception is an error of the episode, which then has no score."""

    @abstractmethod
    def step(self, turn: ModelTurn) -> Reply:
        """Reply to a turn of the model. Turns without calls are passed too: the environment decides whether one is the
        answer.
        """

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Release the episode's resources; called once at its end, unless its process was killed."""
