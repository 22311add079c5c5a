"""The content of a message: a text, or a list of parts from which text and reasoning are extracted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nbg_lightning.chat.values import ConversationError, check_text, did_you_mean, quoted

# Types of parts in the formats of OpenAI, Anthropic and Mistral, with the keys of their text.
TEXT_PARTS = ("text", "input_text", "output_text")
REASONING_PARTS = {"reasoning": ("text", "reasoning", "content"), "thinking": ("thinking", "text")}
# Keys of a part without meaning for a text model.
HARMLESS_PART_KEYS = frozenset(
    ("type", "id", "index", "annotations", "citations", "cache_control", "signature", "logprobs")
)


def parse_content(content: Any) -> tuple[str, str | None]:
    """Content as (text, reasoning): text parts are joined, and reasoning parts are separated from the answer.

    Raises:
        ConversationError: not a text, an image, audio or another part that is not text, or reasoning after
            the text it belongs to.
    """
    if isinstance(content, str):
        return check_text(content), None
    if content is None:
        return "", None
    if not isinstance(content, Sequence) or isinstance(content, (bytes, bytearray)):
        raise ConversationError(f"content must be a string, got {type(content).__name__}")
    texts: list[str] = []
    thoughts: list[str] = []
    for part in content:
        is_reasoning, text = _part(part)
        if not is_reasoning:
            texts.append(text)
        elif any(item.strip() for item in texts):
            raise ConversationError("content has a part of reasoning behind its text; reasoning must come first")
        else:
            thoughts.append(text)
    return check_text("".join(texts)), check_text("\n\n".join(thoughts)) or None


def _part(part: Any) -> tuple[bool, str]:
    """Whether a part is reasoning, and its text."""
    if isinstance(part, str):
        return False, part
    if not isinstance(part, Mapping):
        raise ConversationError(f"content has a part of type {type(part).__name__!r}; only text is supported")
    kind = part.get("type", "text")
    if kind in TEXT_PARTS:
        keys: tuple[str, ...] = ("text",)
    elif isinstance(kind, str) and kind in REASONING_PARTS:
        keys = REASONING_PARTS[kind]
    else:
        raise ConversationError(f"content has a part of type {quoted(kind)}; only text is supported")
    used = next((key for key in keys if part.get(key) is not None), keys[0])
    for key, value in part.items():
        if key != used and key not in HARMLESS_PART_KEYS and value is not None:
            hint = did_you_mean(str(key), ("text", "type"))
            raise ConversationError(f"content has a part with the key {quoted(key)}; only text is supported{hint}")
    return kind in REASONING_PARTS, _part_text(part.get(used), kind)


def _part_text(value: Any, kind: str) -> str:
    """The text of a part; that of reasoning may in turn be a list of text parts."""
    if isinstance(value, list) and kind in REASONING_PARTS:
        if any(isinstance(item, Mapping) and item.get("type") != "text" for item in value):
            raise ConversationError(f"content has a part of type {kind!r} with parts that are no text")
        return "".join(_part(item)[1] for item in value)
    if not isinstance(value, str):
        raise ConversationError(f"content has a part of type {kind!r} without a text")
    return value
