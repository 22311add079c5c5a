"""Streaming responses of OpenAI-compatible servers: server-sent events, converted to the text that local models generate.

Reasoning is put between think tags and calls in ``<tool_call>`` blocks, so that answers read the same from any engine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from nbg_lightning.chat.conversation import THINK_CLOSE, THINK_OPEN

REASONING_KEYS = ("reasoning_content", "reasoning")  # vLLM, SGLang and DeepSeek; newer vLLM and OpenRouter
MOST_CALLS = 256


@dataclass
class _StreamedCall:
    name: str = ""
    arguments: str = ""


@dataclass
class EventReader:
    """Parses the events of one answer.

    Args:
        interface: ``chat`` or ``text``.

    Attributes:
        finish_reason: as sent by the server; None until then.
    """

    interface: str
    finish_reason: str | None = None
    _thinking: bool = False
    _calls: dict[int, _StreamedCall] = field(default_factory=dict)

    def read(self, event: Any) -> tuple[str, float | None]:
        """The text added by an event, and its log-prob if the server sends it.

        Raises:
            ValueError: not an event of this interface; the message says what is missing.
        """
        try:
            if isinstance(event.get("error"), dict | str):
                raise ValueError(f"it says {str(event['error'])[:200]}")
            choices = event.get("choices")
            if not choices:  # the last event counts tokens, the first of some servers is empty
                return "", None
            choice = choices[0]
            if choice.get("finish_reason") is not None:
                self.finish_reason = str(choice["finish_reason"])
            if self.interface == "text":
                return _text(choice.get("text")), _log_prob((choice.get("logprobs") or {}).get("token_logprobs"))
            delta = choice.get("delta") or choice.get("message") or {}
            logprobs = [each["logprob"] for each in (choice.get("logprobs") or {}).get("content") or ()]
            return self._chat(delta), _log_prob(logprobs)
        except (AttributeError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"an event has another form ({type(error).__name__}: {error})") from None

    def _chat(self, delta: dict[str, Any]) -> str:
        thought = next((text for key in REASONING_KEYS if (text := _text(delta.get(key)))), "")
        content = _text(delta.get("content"))
        for place, call in enumerate(delta.get("tool_calls") or ()):
            self._add_call(call, place)
        written = ""
        if thought:
            written += thought if self._thinking else f"{THINK_OPEN}\n{thought}"
            self._thinking = True
        if content and self._thinking:
            written += f"\n{THINK_CLOSE}\n\n"
            self._thinking = False
        return written + content

    def _add_call(self, call: dict[str, Any], place: int) -> None:
        index = call.get("index", place)
        if type(index) is not int or (index not in self._calls and len(self._calls) >= MOST_CALLS):
            raise TypeError(f"tool call {str(index)[:20]}")
        known = self._calls.setdefault(index, _StreamedCall())
        function = call.get("function") or {}
        known.name += _text(function.get("name"))
        arguments = function.get("arguments")
        known.arguments += json.dumps(arguments) if isinstance(arguments, dict) else _text(arguments)

    def end(self) -> str:
        """The remaining text after the last event: the end of the reasoning, and calls."""
        written = f"\n{THINK_CLOSE}\n\n" if self._thinking and self.finish_reason != "length" else ""
        blocks = []
        for index in sorted(self._calls):
            call = self._calls[index]
            try:
                arguments = json.loads(call.arguments or "{}")
            except (ValueError, RecursionError):
                arguments = call.arguments
            value = json.dumps({"name": call.name, "arguments": arguments}, ensure_ascii=False)
            blocks.append(f"<tool_call>\n{value}\n</tool_call>")
        return written + "\n".join(blocks)


def events(lines: Iterable[str]) -> Iterator[Any]:
    """The values of server-sent events, up to ``[DONE]``.

    Raises:
        ValueError: the data are not JSON.
    """
    for line in lines:
        if not line.startswith("data:"):
            continue  # a blank line, a keep-alive comment, or the name of an event
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        try:
            yield json.loads(data)
        except (ValueError, RecursionError):
            raise ValueError(f"an event is not JSON: {data[:100]!r}") from None


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"a text is a {type(value).__name__}")
    return value


def _log_prob(values: Any) -> float | None:
    """The log-probability of all tokens of an event together."""
    if not values:
        return None
    total = float(sum(values))
    return total if math.isfinite(total) else None
