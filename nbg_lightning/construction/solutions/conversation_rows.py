"""Conversations from chat sources for builders: bad ones are counted and reported, valid ones have a key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbg_lightning.chat.conversation import Conversation, ConversationError
from nbg_lightning.data.chat_sources import ChatPart, ChatSource
from nbg_lightning.data.question_sources import QuestionCounts


@dataclass(frozen=True)
class ConversationRow:
    """One conversation.

    Attributes:
        source: name of the source.
        row: the original row, with everything besides its messages.
        conversation: the parsed conversation.
    """

    source: str
    row: Mapping[str, Any]
    conversation: Conversation


def read_conversations(
    sources: Mapping[str, ChatSource], counts: dict[str, QuestionCounts]
) -> Iterator[ConversationRow]:
    """All conversations of all sources, in order.

    Args:
        sources: sources by name.
        counts: counts by source; invalid rows are counted there.

    Raises:
        FileNotFoundError, ValueError: a source cannot be read.
    """
    for name, source in sources.items():
        found = counts[name] = QuestionCounts()
        for part in source.parts():
            assert isinstance(part, ChatPart)
            for index, row in enumerate(part.rows()):
                found.seen += 1
                try:
                    conversation = Conversation.from_dict(
                        row, row_format=source.format, ignored_keys=source.ignored_keys
                    )
                except ConversationError as error:
                    found.invalid += 1
                    found.first = found.first or f"{part.place(index)}: {error}"
                    continue
                yield ConversationRow(name, row, conversation)


def message_dicts(conversation: Conversation, end: int | None = None, reasoning: bool = False) -> list[dict[str, Any]]:
    """The first turns as plain messages, with or without the reasoning of assistants."""
    messages = []
    for message in conversation.messages[:end]:
        row: dict[str, Any] = {"role": message.role, "content": message.content}
        if reasoning and message.reasoning:
            row["reasoning_content"] = message.reasoning
        if message.tool_calls:
            row["tool_calls"] = [call.to_dict() for call in message.tool_calls]
        for name, value in (("name", message.name), ("tool_call_id", message.tool_call_id)):
            if value is not None:
                row[name] = value
        messages.append(row)
    return messages


def conversation_key(messages: Sequence[Mapping[str, Any]]) -> str:
    """Hex digest of messages."""
    text = json.dumps(list(messages), sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
