"""Classes whose public methods are tools, compatible with TRL's ``environment_factory``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from nbg_lightning.data.question import Question
from nbg_lightning.environments.environment import EpisodeLimits, ModelTurn, Opening, Reply
from nbg_lightning.environments.tools import Tool, ToolEnvironment
from nbg_lightning.import_path import import_object

_NO_TOOLS = ("reset", "close")


class MethodEnvironment(ToolEnvironment):
    """An object per episode, whose public methods are the model's tools.

    The class is instantiated without arguments. Its methods need annotations and a docstring, like functions of
    `ToolEnvironment`. If it has ``reset``, this is called with those of the question's ``data`` fields, ``answer`` and
    ``prompt`` that it accepts by name; a text that it returns is appended to the question's last message. An attribute or
    method ``reward`` gives the score at the end; otherwise the run's reward does. ``close`` is called at the end.

    Args:
        factory: the class, or its import path.
        instruction: text of a system turn, for questions without one.
        show_tools: whether the prompt includes the tools' schemas.
        limits: limits of the episodes.

    Raises:
        ValueError: a class without public methods, or with one that cannot be a tool.
    """

    def __init__(
        self,
        factory: str | Callable[[], Any],
        instruction: str | None = None,
        show_tools: bool = True,
        limits: EpisodeLimits = EpisodeLimits(),  # noqa: B008 - never mutated
    ):
        self.factory = factory
        super().__init__(public_methods(self._made()), instruction, show_tools, limits)
        self._object: Any = None

    def _made(self) -> Any:
        made = import_object(self.factory) if isinstance(self.factory, str) else self.factory
        if not callable(made):
            raise ValueError(f"factory is invalid: {self.factory!r:.80}; give a class")
        return made()

    def reset(self, question: Question) -> Opening:
        self._object = self._made()
        self.tools = {tool.name: tool for tool in map(Tool, public_methods(self._object))}
        opening = super().reset(question)
        begin = _member(self._object, "reset")
        said = None if begin is None else begin(**_taken(begin, question))
        if not isinstance(said, str) or not said:
            return opening
        *others, last = opening.turns
        return Opening((*others, {**last, "content": f"{last['content']}\n\n{said}"}), opening.tools)

    def step(self, turn: ModelTurn) -> Reply:
        reply = super().step(turn)
        if not reply.done:
            return reply
        reward = _member(self._object, "reward")
        given = reward() if callable(reward) else reward
        return reply if given is None else Reply(done=True, score=float(given), counts=reply.counts)

    def close(self) -> None:
        end = _member(self._object, "close")
        if callable(end):
            end()


def public_methods(thing: Any) -> list[Callable[..., Any]]:
    """The methods of an object that are tools: public ones except ``reset``, ``close`` and ``reward``.

    Raises:
        ValueError: there is none.
    """
    names = [name for name, _ in inspect.getmembers(type(thing), inspect.isfunction) if not name.startswith("_")]
    found = [_member(thing, name) for name in names if name not in (*_NO_TOOLS, "reward")]
    if not found:
        raise ValueError(
            f"factory is invalid: {type(thing).__name__} has no public method that could be a tool; write one"
        )
    return found


def _member(thing: Any, name: str) -> Any:
    """A member of a user's object; None if it has none of this name."""
    return getattr(thing, name, None)


def _taken(function: Callable[..., Any], question: Question) -> dict[str, Any]:
    """The arguments of a ``reset`` from a question, by name: fields of its data, ``answer``, ``prompt``; all with
    ``**kwargs``.
    """
    given = {**question.data, "answer": question.answer, "prompt": [dict(message) for message in question.messages]}
    parameters = inspect.signature(function).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return given
    return {name: value for name, value in given.items() if name in parameters}
