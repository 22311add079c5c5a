"""Conversations: the one typed form behind every chat dataset, parsed and checked once."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROLES = ("system", "user", "assistant", "tool")
THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
TOOL_RESPONSE_OPEN, TOOL_RESPONSE_CLOSE = "<tool_response>", "</tool_response>"


class ConversationError(ValueError):
    """A sample that cannot be trained on; one line naming the cause. The caller adds which sample it was."""


@dataclass(slots=True)
class ToolCall:
    """One function call of an assistant turn."""

    name: str
    arguments: dict[str, Any]
    id: str | None = None

    @classmethod
    def parse(cls, value: ToolCall | Mapping[str, Any]) -> ToolCall:
        """Reads the OpenAI form `{"function": {"name", "arguments"}}` or the flat form `{"name", "arguments"}`.

        Arguments may be an object or a JSON string; an absent or empty value means a call without arguments.

        Raises:
            ConversationError: the call has neither form, no name, or arguments that are not a JSON object.
        """
        if isinstance(value, ToolCall):
            return value
        if not isinstance(value, Mapping):
            raise ConversationError(f"a tool call must be an object, got {type(value).__name__}")
        function = value["function"] if isinstance(value.get("function"), Mapping) else value
        name = function.get("name")
        if not isinstance(name, str) or not name:
            raise ConversationError(f"a tool call has no name (keys: {', '.join(sorted(map(str, function)))})")
        arguments = function.get("arguments")
        if isinstance(arguments, str) and arguments.strip():
            try:
                arguments = json.loads(arguments)
            except json.JSONDecodeError as error:
                raise ConversationError(f"the arguments of tool call {name!r} are not JSON: {error}") from None
        if arguments is None or arguments == "":
            arguments = {}
        if not isinstance(arguments, Mapping):
            raise ConversationError(
                f"the arguments of tool call {name!r} must be an object, got {type(arguments).__name__}"
            )
        call_id = value.get("id")
        return cls(name, dict(arguments), None if call_id is None else str(call_id))

    def to_dict(self) -> dict[str, Any]:
        """The OpenAI form, which chat templates read."""
        call: dict[str, Any] = {
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }
        return call if self.id is None else {"id": self.id, **call}


def split_thinking(text: str) -> tuple[str | None, str]:
    """Splits `<think>…</think>answer` into reasoning and answer.

    A missing opening tag is understood too, since many models are prompted with it. Newlines between the
    tags and the texts are layout, which the renderer writes, and are removed; other whitespace is kept.

    Returns:
        (reasoning, answer); the reasoning is None when the text has none.

    Raises:
        ConversationError: the text opens with `<think>` and never closes it (a truncated sample).

    Example:
        >>> split_thinking("<think>\\n2 + 2\\n</think>\\n\\n4")
        ('2 + 2', '4')
    """
    opened = text.lstrip().startswith(THINK_OPEN)
    if THINK_CLOSE not in text:
        if opened:
            raise ConversationError(f"{THINK_OPEN} is never closed; the sample was probably cut off")
        return None, text
    head, answer = text.split(THINK_CLOSE, 1)
    if opened:
        head = head.lstrip()[len(THINK_OPEN) :]
    elif THINK_OPEN in head:  # tags inside running text, for example an explanation of the format
        return None, text
    return head.strip("\n") or None, answer.lstrip("\n")


def _check_text(text: str) -> str:
    """The text, if UTF-8 can hold it: JSON can name half of a surrogate pair."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ConversationError(f"half of a surrogate pair at character {error.start}, no UTF-8") from None
    return text


def _parse_content(content: Any) -> str:
    """Content as a string; a list of text parts is joined."""
    if content is None:
        return ""
    if isinstance(content, str):
        return _check_text(content)
    if isinstance(content, Sequence):
        texts = []
        for part in content:
            text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
            if not isinstance(text, str):
                kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
                raise ConversationError(f"content has a part of type {kind!r}; only text is supported")
            texts.append(text)
        return _check_text("".join(texts))
    raise ConversationError(f"content must be a string, got {type(content).__name__}")


def _parse_weight(weight: Any) -> float | None:
    if weight is None:
        return None
    if isinstance(weight, str) or not isinstance(weight, (int, float)):
        raise ConversationError(f"weight must be a number, got {weight!r}")
    if not math.isfinite(weight) or weight < 0:
        raise ConversationError(f"weight must be finite and >= 0, got {weight!r}")
    return float(weight)


@dataclass(slots=True)
class Message:
    """One turn.

    Attributes:
        role: system, user, assistant or tool.
        content: the visible text, without reasoning.
        reasoning: the thinking before an assistant's answer.
        tool_calls: calls made by an assistant turn.
        weight: loss weight of an assistant turn; None means 1, 0 means not trained.
        name: name of the function a tool message answers for (read by some chat templates).
        tool_call_id: id of the call a tool message answers (read by some chat templates).
    """

    role: str
    content: str = ""
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = None
    weight: float | None = None
    name: str | None = None
    tool_call_id: str | None = None

    @classmethod
    def parse(cls, value: Message | Mapping[str, Any]) -> Message:
        """Reads one entry of the HF `messages` format.

        Raises:
            ConversationError: unknown role, or a field of the wrong type.
        """
        if isinstance(value, Message):
            return value
        if not isinstance(value, Mapping):
            raise ConversationError(f"a message must be an object, got {type(value).__name__}")
        get = value.get
        role = get("role")
        if role is None:
            raise ConversationError(f"has no role (keys: {', '.join(sorted(map(str, value)))})")
        if role not in ROLES:
            raise ConversationError(f"unknown role {role!r}; known are {', '.join(ROLES)}")
        content = _parse_content(get("content"))
        reasoning = get("reasoning_content") or get("reasoning") or get("thinking")
        if reasoning is not None and not isinstance(reasoning, str):
            raise ConversationError(f"reasoning must be a string, got {type(reasoning).__name__}")
        _check_text(reasoning or "")
        if reasoning and role != "assistant":
            raise ConversationError(f"reasoning belongs to assistant turns, not to role {role!r}")
        if role == "assistant" and (THINK_OPEN in content or THINK_CLOSE in content):
            inner, answer = split_thinking(content)
            if inner is not None and reasoning and content.lstrip().startswith(THINK_OPEN):
                raise ConversationError(f"reasoning is given twice: as its own field and inside {THINK_OPEN}")
            if not reasoning:
                reasoning, content = inner, answer
        calls = get("tool_calls")
        if calls and isinstance(calls, str):
            try:
                calls = json.loads(calls)
            except json.JSONDecodeError as error:
                raise ConversationError(f"tool_calls are not JSON: {error}") from None
        if calls and not isinstance(calls, Sequence):
            raise ConversationError(f"tool_calls must be a list, got {type(calls).__name__}")
        return cls(
            role=role,
            content=content,
            reasoning=(reasoning.strip("\n") or None) if reasoning else None,
            tool_calls=[ToolCall.parse(call) for call in calls] if calls else None,
            weight=_parse_weight(get("weight")),
            name=get("name"),
            tool_call_id=get("tool_call_id"),
        )

    def is_query(self) -> bool:
        """Whether this is a user turn that asks something, not tool results written as a user turn."""
        if self.role != "user":
            return False
        text = self.content.strip()
        return not (text.startswith(TOOL_RESPONSE_OPEN) and text.endswith(TOOL_RESPONSE_CLOSE))


def _parse_tools(tools: Any) -> list[dict[str, Any]] | None:
    """Tools as a list of `{"type": "function", "function": {…}}`, from objects or JSON text."""
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except json.JSONDecodeError as error:
            raise ConversationError(f"tools are not JSON: {error}") from None
    if not tools:
        return None
    if isinstance(tools, Mapping) or not isinstance(tools, Sequence) or isinstance(tools, str):
        raise ConversationError(f"tools must be a list of JSON schemas, got {type(tools).__name__}")
    parsed = []
    for index, tool in enumerate(tools):
        if isinstance(tool, str):  # a column of JSON strings, which is how Arrow keeps free-form schemas
            try:
                tool = json.loads(tool)
            except json.JSONDecodeError as error:
                raise ConversationError(f"tool {index} is not JSON: {error}") from None
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise ConversationError(f'tool {index} has an unknown schema; it needs {{"name", "parameters"}}')
        if not isinstance(function.get("parameters") or {}, Mapping):
            raise ConversationError(f"the parameters of tool {function['name']!r} must be a JSON schema object")
        parsed.append(dict(tool) if "function" in tool else {"type": "function", "function": dict(function)})
    return parsed


@dataclass(slots=True)
class Conversation:
    """A checked list of turns, with the tools it may use and the domain it came from.

    `messages` and `tools` may be given as plain dicts; they are parsed and checked at construction. A conversation
    without an assistant turn is a valid prompt (`render(…, add_generation_prompt=True)`) but not a training
    sample; `from_dict` refuses it unless told otherwise.

    Raises:
        ConversationError: one line naming the turn and the cause.

    Example:
        >>> Conversation([{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]).messages[1].role
        'assistant'
    """

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    domain: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.messages, (str, Mapping)) or not isinstance(self.messages, Sequence):
            raise ConversationError(f"messages must be a list, got {type(self.messages).__name__}")
        if not self.messages:
            raise ConversationError("messages are empty")
        self.tools = _parse_tools(self.tools)
        messages: list[Message] = []
        names = {(tool["function"])["name"] for tool in self.tools} if self.tools else None
        for index, value in enumerate(self.messages):
            try:
                message = Message.parse(value)
                _check_turn(message, messages[-1] if messages else None, names)
            except ConversationError as error:
                raise ConversationError(f"message {index}: {error}") from None
            messages.append(message)
        self.messages = messages

    @classmethod
    def from_dict(cls, sample: Mapping[str, Any], require_assistant: bool = True) -> Conversation:
        """Reads a dataset row with the keys `messages` and, if present, `tools` and `domain`.

        Args:
            sample: the row.
            require_assistant: refuse a conversation without an assistant turn (a prompt has none).

        Raises:
            ConversationError: as the constructor; no `messages` key; no assistant turn.
        """
        if "messages" not in sample:
            raise ConversationError(f"no 'messages' key (keys: {', '.join(sorted(map(str, sample)))})")
        domain = sample.get("domain")
        conversation = cls(sample["messages"], sample.get("tools"), None if domain is None else str(domain))
        if require_assistant and not any(message.role == "assistant" for message in conversation.messages):
            raise ConversationError("no assistant turn, so there is nothing to train on")
        return conversation

    def last_query(self) -> int:
        """Index of the last user turn that asks something; -1 if there is none."""
        for index in range(len(self.messages) - 1, -1, -1):
            if self.messages[index].is_query():
                return index
        return -1


def _check_turn(message: Message, previous: Message | None, tool_names: set[str] | None) -> None:
    """Rules of one turn, given the turn before it."""
    role = message.role
    if previous is None:
        if role not in ("system", "user"):
            raise ConversationError(f"the first turn must be system or user, got {role}")
    elif role == "system":
        raise ConversationError("a system turn may only come first")
    elif role == previous.role and role != "tool":
        raise ConversationError(f"two {role} turns in a row")
    elif role == "assistant" and previous.role == "system":
        raise ConversationError("an assistant turn answers the system turn; a user turn is missing")
    elif role == "tool" and previous.role not in ("assistant", "tool"):
        raise ConversationError(f"a tool turn must follow an assistant turn, not a {previous.role} turn")
    if role == "assistant":
        for call in message.tool_calls or ():
            if tool_names is not None and call.name not in tool_names:
                known = ", ".join(sorted(tool_names))
                raise ConversationError(f"calls tool {call.name!r}, which is not among the tools ({known})")
    else:
        if message.tool_calls:
            raise ConversationError(f"tool_calls belong to assistant turns, not to role {role!r}")
        if message.weight:
            raise ConversationError(f"weight belongs to assistant turns, not to role {role!r}")
    # A tool may well return nothing; everyone else has to say something.
    if role != "tool" and not message.tool_calls and not message.content.strip():
        raise ConversationError(f"empty {role} content")
