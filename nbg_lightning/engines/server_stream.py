"""Streaming completions from a server: one thread per completion, reported in the caller's thread."""

from __future__ import annotations

import json
import math
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from nbg_lightning.engines.capabilities import Interface
from nbg_lightning.engines.event_stream import EventReader, events
from nbg_lightning.engines.protocol import (
    Completion,
    FinishReason,
    GeneratedPiece,
    Listener,
    Prompt,
    Sampling,
    failed,
    samples_of,
)
from nbg_lightning.engines.reply_values import shortened
from nbg_lightning.error_line import first_line

_LONGEST_LINE = 1 << 24  # characters of an event; usual ones have some hundred
_WAIT_SECONDS = 0.1  # interval of deadline checks while nothing arrives


class StreamedServer(Protocol):
    """The part of `ServerEngine` used here."""

    url: str
    interface: Interface
    concurrency: int
    request_timeout: float
    weight_version: int
    longest_body: int

    @property
    def client(self) -> httpx.Client: ...

    @property
    def path(self) -> str: ...

    def check_sampling(self, sampling: Sampling) -> None: ...

    def prompt_error(self, prompt: Prompt, index: int) -> str | None: ...

    def request_body(self, prompt: Prompt, sampling: Sampling, sample: int) -> dict[str, Any]: ...


@dataclass(frozen=True)
class _Written:
    place: tuple[int, int]
    text: str
    log_prob: float | None


@dataclass(frozen=True)
class _Ended:
    place: tuple[int, int]
    reason: FinishReason
    error: str | None


def stream(
    engine: StreamedServer, prompts: Sequence[Prompt], sampling: Sampling, listener: Listener, deadline: float | None
) -> list[list[Completion]]:
    """Generate with an open `ServerEngine`, and report text as it arrives.

    Raises:
        ValueError: the interface does not support the sampling settings, or returns ids.
    """
    engine.check_sampling(sampling)
    if engine.interface == "ids":
        raise ValueError("interface 'ids' is not streamed; use interface 'chat' or 'text', or generate")
    results: list[list[Completion]] = []
    requests: dict[tuple[int, int], dict[str, Any]] = {}
    for index, prompt in enumerate(prompts):
        error = engine.prompt_error(prompt, index)
        results.append(failed(index, sampling, engine.weight_version, error or "not answered", prompt=prompt))
        for sample in samples_of(prompt, sampling) if error is None else ():
            requests[index, sample] = {**engine.request_body(prompt, sampling, sample), "stream": True}
    end = math.inf if deadline is None else time.monotonic() + deadline
    texts: dict[tuple[int, int], str] = dict.fromkeys(requests, "")
    ended: dict[tuple[int, int], _Ended] = {}
    for news in _told(engine, requests, end):
        if isinstance(news, _Ended):
            ended[news.place] = news
        else:
            texts[news.place] += news.text
            listener(GeneratedPiece(*news.place, log_prob=news.log_prob, text=news.text))
    for place, text in texts.items():
        last = ended.get(place, _Ended(place, "deadline", None))
        index, sample = place
        results[index][sample] = Completion(
            (), (), last.reason, index, sample, engine.weight_version, last.error, text if last.error is None else None
        )
    return results


def _told(
    engine: StreamedServer, requests: dict[tuple[int, int], dict[str, Any]], end: float
) -> Iterator[_Written | _Ended]:
    """All messages of the answers in order of arrival, until each has ended or time is up."""
    news: queue.SimpleQueue[_Written | _Ended] = queue.SimpleQueue()
    waiting: queue.SimpleQueue[tuple[tuple[int, int], dict[str, Any]]] = queue.SimpleQueue()
    for request in requests.items():
        waiting.put(request)
    given_up = threading.Event()

    def work() -> None:
        with suppress(queue.Empty):
            while not given_up.is_set():
                place, body = waiting.get_nowait()
                news.put(_answer(engine, place, body, news, given_up, end))

    # Daemon threads: one that waits for a silent server must not keep the process alive.
    for number in range(min(engine.concurrency, len(requests))):
        threading.Thread(target=work, name=f"nbg-stream-{number}", daemon=True).start()
    left = len(requests)
    try:
        while left and time.monotonic() <= end:
            try:
                found = news.get(timeout=_WAIT_SECONDS)
            except queue.Empty:
                continue
            left -= isinstance(found, _Ended)
            yield found
    finally:
        given_up.set()


def _answer(
    engine: StreamedServer,
    place: tuple[int, int],
    body: dict[str, Any],
    news: queue.SimpleQueue[_Written | _Ended],
    given_up: threading.Event,
    end: float,
) -> _Ended:
    """Request one completion, and put its text into the queue. Runs in a thread."""
    reader = EventReader(engine.interface)
    seconds = min(engine.request_timeout, end - time.monotonic())
    try:
        with engine.client.stream("POST", engine.url + engine.path, json=body, timeout=max(seconds, 0.001)) as response:
            if response.status_code != 200:
                content = b"".join(_first(response.iter_bytes(), 2000))
                return _Ended(place, "error", f"HTTP {response.status_code}: {shortened(content)}")
            for event in _values(response, engine.longest_body):
                if given_up.is_set():
                    return _Ended(place, "deadline", None)
                text, log_prob = reader.read(event)
                if text:
                    news.put(_Written(place, text, log_prob))
    except (httpx.TransportError, httpx.StreamError, httpx.InvalidURL, OSError) as error:
        return _Ended(place, "error", f"{engine.url} does not answer ({type(error).__name__}: {first_line(error)})")
    except (RuntimeError, ValueError) as error:  # the client was closed, or the response is malformed
        return _Ended(place, "error", f"the answer of {engine.url} cannot be read: {first_line(error)}")
    if last := reader.end():
        news.put(_Written(place, last, None))
    if reader.finish_reason is None:
        return _Ended(place, "error", f"{engine.url} broke off its answer")
    return _Ended(place, "length" if reader.finish_reason == "length" else "stop", None)


def _values(response: httpx.Response, longest: int) -> Iterator[Any]:
    """The events of a response; for a server that does not stream, its single response."""
    if "text/event-stream" in response.headers.get("content-type", ""):
        yield from events(_lines(response.iter_text(), longest))
        return
    content = "".join(_first(response.iter_text(), longest))
    try:
        yield json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError(f"neither events nor JSON: {shortened(content.encode())}") from None


def _lines(texts: Iterator[str], longest: int) -> Iterator[str]:
    """Split text into lines at line feeds.

    Raises:
        ValueError: a line, or all of them together, are too long.
    """
    line, total = "", 0
    for text in texts:
        total += len(text)
        line += text
        *whole, line = line.split("\n")
        if len(line) > _LONGEST_LINE or total > longest:
            raise ValueError("it is too long")
        yield from whole
    yield line


def _first(parts: Iterator[Any], longest: int) -> Iterator[Any]:
    """Collect parts up to a total size; the last one may exceed it."""
    total = 0
    for part in parts:
        yield part
        total += len(part)
        if total > longest:
            return
