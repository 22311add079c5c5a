"""The work on one item of a builder that asks models: a generator of requests, which is sent their responses.

A `Workflow` never calls a model itself, so a build can give all requests that come up together to an engine at once, and
a build that was killed goes through its workflows again without asking anything twice. See `builder` for what a builder
declares.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from nbg_lightning.chat.thinking import read_thinking
from nbg_lightning.construction.store import JsonRecord
from nbg_lightning.engines.protocol import Sampling
from nbg_lightning.scoring.refusal import is_refusal

T = TypeVar("T")


class UnusableError(Exception):
    """A response that cannot be used; another one may be drawn.

    Args:
        reason: one word of a count, such as ``refused`` or ``unparsable``.
        detail: what exactly, in a line.
    """

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class ModelResponse:
    """A model's response to a request.

    Attributes:
        text: all of it.
        finish_reason: see `Completion`.
        error: what went wrong, if no answer came.
    """

    text: str
    finish_reason: str
    error: str | None = None

    @property
    def final(self) -> str | None:
        """The text after the reasoning, stripped; None where reasoning began and never ended."""
        answer = read_thinking(self.text, self.finish_reason == "stop")[1]
        return None if answer is None else answer.strip()


def readable(response: ModelResponse, whole: bool = True) -> str:
    """Read the text of a response that can be used.

    Args:
        response: of a model.
        whole: a text that was cut off by its length is unusable.

    Raises:
        UnusableError: ``engine_error``, ``truncated``, ``empty`` or ``refused``.
    """
    if response.error is not None or response.finish_reason in ("error", "deadline"):
        raise UnusableError("engine_error", response.error or "not finished at the deadline")
    text = response.final
    if text is None or (whole and response.finish_reason == "length"):
        raise UnusableError("truncated", response.text[-80:])
    if not text:
        raise UnusableError("empty")
    if is_refusal(text):
        raise UnusableError("refused", text[:120])
    return text


@dataclass(frozen=True)
class ModelRequest(Generic[T]):
    """One request to a model.

    Attributes:
        model: name of the model.
        step: what for; the response is kept under this name, so an item has each step once.
        messages: the conversation that the model continues.
        sampling: how the response is drawn; one response.
        read: reads the response, and raises `UnusableError` for one that is of no use. `readable` takes any text.
    """

    model: str
    step: str
    messages: tuple[dict[str, Any], ...]
    sampling: Sampling
    read: Callable[[ModelResponse], T]


Workflow = Generator[list[ModelRequest[Any]], list[ModelResponse], JsonRecord]
"""The work on one item: yields requests that are made at once, is sent their responses in order, returns the item's record."""


def user_turn(text: str) -> tuple[dict[str, Any], ...]:
    """A conversation of one turn of the user."""
    return ({"role": "user", "content": text},)


def request_usable(
    requests: Sequence[ModelRequest[T]], tries: int, trace: list[JsonRecord]
) -> Generator[list[ModelRequest[Any]], list[ModelResponse], list[T | None]]:
    """Make several requests at once, as part of a workflow, and those again whose responses are unusable.

    Args:
        requests: which all differ in their steps.
        tries: responses drawn for each, at most.
        trace: every response is appended, with its outcome.

    Returns:
        What was read of each; None where no response was usable.
    """
    found: list[T | None] = [None] * len(requests)
    waiting = list(range(len(requests)))
    for attempt in range(tries):
        drawn = [requests[index] for index in waiting]
        if attempt:
            drawn = [dataclasses.replace(each, step=f"{each.step}#{attempt}") for each in drawn]
        if not drawn:
            break
        responses = yield drawn
        again = []
        for index, request, response in zip(waiting, drawn, responses, strict=True):
            entry: JsonRecord = {"step": request.step, "model": request.model, "outcome": "ok", "text": response.text}
            entry["finish_reason"] = response.finish_reason
            try:
                found[index] = request.read(response)
            except UnusableError as error:
                entry.update(outcome=error.reason, detail=error.detail)
                again.append(index)
            trace.append(entry)
        waiting = again
    return found
