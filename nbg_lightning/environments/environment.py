"""What a model acts in over several turns: an object for each rollout that opens, answers each turn, and is thrown away."""

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
    """How an episode ended; each is counted (``episode/NAME``)."""

    ANSWERED = "answered"
    """The environment was done with a turn in which the model called nothing."""
    DONE = "done"
    """The environment was done with a turn that held a call."""
    MAX_TURNS = "max_turns"
    """The model had all its turns: the score is 0."""
    MAX_TOKENS = "max_tokens"
    """A turn was cut at its limit, or the episode at its own or at the model's window: the score is 0."""
    UNREADABLE_CALL = "unreadable_call"
    """Too many calls in succession could not be read: the score is 0."""
    TIMEOUT = "timeout"
    """The environment did not reply in time, or the rollouts' deadline passed: there is no score."""
    ERROR = "error"
    """The environment raised or died, or the engine failed: there is no score."""


@dataclass(frozen=True)
class Opening:
    """What an episode begins with.

    Attributes:
        turns: the messages before the model's first turn.
        tools: JSON schemas of the functions that it may call.
    """

    turns: tuple[Turn, ...]
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class ModelTurn:
    """What the model wrote in one turn, read.

    Attributes:
        text: all of it, with its reasoning and calls.
        reasoning: what stands between think tags; None without them.
        content: what is neither reasoning nor a call.
        calls: the calls that it makes.
    """

    text: str
    reasoning: str | None = None
    content: str = ""
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class Reply:
    """What an environment says to a turn of the model.

    Attributes:
        turns: messages that the model reads next; none where the episode is done.
        done: the episode is over.
        score: of this turn; that of a turn that ends the episode is the episode's. None leaves the latter to the reward.
        status: ``timeout`` and ``error`` are failures of the environment, never the model's: the episode has no score.
        detail: why, in one line.
        counts: what happened, such as ``{"unknown_tools": 1}``, added up as ``episode/NAME``.

    Raises:
        ValueError: a score that is no finite number, a status that there is not, or counts and a detail of another kind.
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
    """Bounds of an episode.

    Attributes:
        max_turns: of the model.
        max_tokens: of the episode, with prompt and replies; the model's window by default.
        step_seconds: that the environment has for its opening, and for each reply. Then it is killed.
        turn_characters: of a message of the environment; more is cut, and the message says so.
        unreadable_calls: in succession, after which the episode ends. Each is answered by what is wrong with it.
        workers: replies that are computed at once.
        open_at_once: episodes, for a server with so many places; the others wait until one has ended. None: all.
        isolated: each episode has a process of its own, forked from one that has the environment imported, so that it may
            hang or crash. False runs the environment in this process: quicker to start, and nothing can stop it.

    Raises:
        ValueError: a bound that leaves nothing.
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
    """What a model acts in. One is made in YAML or Python; each episode has a copy of its own, which is thrown away after it.

    Attributes:
        limits: bounds of its episodes; a constructor may set others.

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
        """Start what all episodes share; called once in the process that episodes are forked from, and ends with that process."""

    @abstractmethod
    def reset(self, question: Question) -> Opening:
        """Begin an episode. What it raises is an error of the episode, which then has no score."""

    @abstractmethod
    def step(self, turn: ModelTurn) -> Reply:
        """Answer a turn of the model. A turn without calls reaches it too: it decides whether that is the answer."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Release what the episode holds; called once at its end, unless its process was killed."""
