"""Workflows: the processing of one item by models, as a generator that yields requests and receives responses.

A `Workflow` never calls a model itself, so that a build can send all simultaneous requests to an engine at once, and a
killed build can replay its workflows without repeating a request. `builder` documents what a builder
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
    """An unusable response; another one may be sampled.

    Args:
        reason: reason in one word, such as ``refused`` or ``unparsable``.
        detail: details in one line.
    """

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class ModelResponse:
    """A model's response to a request.

    Attributes:
        text: the full text.
        finish_reason: see `Completion`.
        error: the error, if there is no answer.
    """

    text: str
    finish_reason: str
    error: str | None = None

    @property
    def final(self) -> str | None:
        """The text after the reasoning, stripped; None if the reasoning never ended."""
        answer = read_thinking(self.text, self.finish_reason == "stop")[1]
        return None if answer is None else answer.strip()


def readable(response: ModelResponse, whole: bool = True) -> str:
    """The text of a usable response.

    Args:
        response: a model's response.
        whole: treat a text truncated by its length limit as unusable.

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
        step: purpose of the request; the response is stored under this name, so it must be unique within an item.
        messages: the conversation that the model continues.
        sampling: sampling settings, for one response.
        read: parses the response, and raises `UnusableError` for an unusable one. `readable` accepts any text.
    """

    model: str
    step: str
    messages: tuple[dict[str, Any], ...]
    sampling: Sampling
    read: Callable[[ModelResponse], T]


Workflow = Generator[list[ModelRequest[Any]], list[ModelResponse], JsonRecord]
"""The processing of one item: yields simultaneous requests, receives their responses in order, and returns the item's record."""


def user_turn(text: str) -> tuple[dict[str, Any], ...]:
    """A conversation of one user turn."""
    return ({"role": "user", "content": text},)


def request_usable(
    requests: Sequence[ModelRequest[T]], tries: int, trace: list[JsonRecord]
) -> Generator[list[ModelRequest[Any]], list[ModelResponse], list[T | None]]:
    """Make several requests at once within a workflow, repeating those with unusable responses.

    Args:
        requests: requests with distinct steps.
        tries: maximum number of responses sampled for each.
        trace: every response is appended, with its outcome.

    Returns:
        The parsed responses; None if no response was usable.
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
