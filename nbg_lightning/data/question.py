"""A question with everything needed to judge answers: the input of rollouts, filters and builders."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nbg_lightning.chat.content import parse_content
from nbg_lightning.chat.formats import SYSTEM_COLUMNS, check_turn_lists, one_of
from nbg_lightning.chat.turns import turns_of, with_system
from nbg_lightning.chat.values import check_text, optional_text
from nbg_lightning.data.golds import gold_text

PROMPT_FIELDS = ("messages", "prompt", "question", "conversations", "conversation")

_JSON_MESSAGES = re.compile(r'\s*\[\s*\{\s*"(role|from|content|value)"\s*:')


@dataclass(frozen=True)
class Question:
    """A prompt for reinforcement learning or data construction; fully JSON-serializable.

    Attributes:
        messages: the conversation up to the turn that the model generates, as ``{"role": ..., "content": ...}``.
        answer: the gold answer, if there is one.
        source: name of its source: a key of metrics and mixtures.
        data: whatever else a reward needs: tests of a program, the entry of a reasoning-gym task, a reference text.
    """

    messages: tuple[dict[str, Any], ...]
    answer: str | None = None
    source: str = ""
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Hex digest of the messages: the same question has the same key in every ledger, cache and run."""
        text = json.dumps(self.messages, sort_keys=True, ensure_ascii=False)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The question as JSON values."""
        return {**asdict(self), "messages": list(self.messages)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any], source: str = "") -> Question:
        """Read a JSON row: one of `PROMPT_FIELDS`, as a text or as messages; ``system``; ``answer``; ``data``.

        Raises:
            ValueError: the row has no prompt, the prompt is malformed, or the answer is invalid.
        """
        name = prompt_field(row)
        if name is None:
            raise ValueError(
                f"no messages, prompt or question in a row with the keys {', '.join(sorted(map(str, row))) or 'none'}; "
                "name the one that is asked"
            )
        messages = prompt_messages(row[name])
        if (system := optional_text(one_of(row, SYSTEM_COLUMNS), "system")) is not None:
            messages = with_system(messages, system)
        return cls(
            tuple(messages),
            gold_text(row.get("answer")),
            str(row.get("source") or source),
            dict(row.get("data") or {}),
        )


def prompt_field(row: Mapping[str, Any]) -> str | None:
    """Name of the field with a row's prompt; None if there is none.

    Raises:
        ValueError: two fields contain different conversations.
    """
    check_turn_lists(row, PROMPT_FIELDS)
    return next((name for name in PROMPT_FIELDS if row.get(name)), None)


def prompt_messages(prompt: Any) -> list[dict[str, Any]]:
    """A prompt as messages: a text is a user turn; messages may be JSON text or ShareGPT's, with contents in text parts.

    Raises:
        ValueError: it is malformed, contains something other than text, or ends with an answer.
    """
    turns = turns_of(prompt)
    if isinstance(turns, str):
        if _JSON_MESSAGES.match(turns):
            raise ValueError(
                "the prompt begins as messages in JSON and cannot be read as such; repair it, or give a list"
            )
        turns = [{"role": "user", "content": turns}]
    if not isinstance(turns, list):
        raise ValueError(f"the prompt is of type {type(turns).__name__}; give a text or a list of messages")
    messages = [_message(turn) for turn in turns]
    if not messages:
        raise ValueError("the prompt has no messages; write one, or remove the row")
    if messages[-1]["role"] == "assistant":
        raise ValueError("the prompt ends with a message of role 'assistant', which the model is to write; remove it")
    return messages


def _message(turn: Any) -> dict[str, Any]:
    if not isinstance(turn, Mapping) or not {"role", "content"} <= set(turn):
        raise ValueError(f"a message is invalid: {str(turn)[:80]!r}; give it a role and a content")
    message = dict(turn)
    if isinstance(message["content"], list):
        message["content"], reasoning = parse_content(message["content"])
        if reasoning is not None:
            raise ValueError(f"the {message['role']} message has a part of reasoning; remove it")
    if isinstance(message["content"], str):
        check_text(message["content"])
    return message
