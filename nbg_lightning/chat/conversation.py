"""Conversations: the common typed form of all chat datasets, parsed and validated once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nbg_lightning.chat.content import parse_content
from nbg_lightning.chat.formats import read_row
from nbg_lightning.chat.tool_calls import ToolCall, parse_calls, parse_tools, results_in_order
from nbg_lightning.chat.values import ConversationError, check_text, did_you_mean, key_list, optional_text, quoted

__all__ = ["Conversation", "ConversationError", "Message", "ToolCall", "split_thinking"]

ROLES = ("system", "user", "assistant", "tool")
ROLE_ALIASES = {
    "function": "tool",
    "developer": "system",
}  # OpenAI's former name of tool results, and its latest of system turns
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
# Whether a turn is trained, as in axolotl, TRL and ms-swift; `weight` may be any number.
TRAIN_KEYS = ("train", "trainable", "training", "loss")
READ_KEYS = frozenset(
    ("role", "content", "tool_calls", "function_call", "weight", "name", "tool_call_id", *REASONING_KEYS, *TRAIN_KEYS)
)
# Keys of public data that no format renders; any other key is refused, since it might affect training.
HARMLESS_KEYS = frozenset(
    (
        "annotations", "author", "category", "created", "created_at", "date", "finish_reason", "hash", "id", "idx", "index",
        "lang", "language", "logprobs", "message_id", "metadata", "meta", "model", "num_tokens", "parent_id", "score",
        "source", "stop_reason", "time", "timestamp", "token_count", "tokens", "turn", "turn_id", "updated_at", "usage",
        "user_id", "uuid",
    )
)  # fmt: skip
MAX_WEIGHT = 1_000_000  # of a turn's loss; larger ones are mistakes
KNOWN_KEYS = READ_KEYS | HARMLESS_KEYS
# Notes about a conversation.
FUNCTION_CALL = "function_call read as a tool call"
RESULTS_ORDERED = "tool results put into the order of their calls"
THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
TOOL_RESPONSE_OPEN, TOOL_RESPONSE_CLOSE = "<tool_response>", "</tool_response>"


def split_thinking(text: str) -> tuple[str | None, str]:
    """Split `<think>…</think>answer` into reasoning and answer.

    A missing opening tag is accepted, since many prompts contain it. Newlines between tags and texts are layout, which the
    renderer writes, and are removed; other whitespace is kept.

    Returns:
        (reasoning, answer); the reasoning is None if the text has none.

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
    elif THINK_OPEN in head:  # tags inside running text, such as an explanation of the format
        return None, text
    return head.strip("\n") or None, answer.lstrip("\n")


def _parse_weight(message: Mapping[str, Any]) -> float | None:
    """Loss weight of a turn, from its `weight` and the flags of `TRAIN_KEYS`."""
    weight = message.get("weight")
    if weight is not None:
        if isinstance(weight, str) or not isinstance(weight, (int, float)):
            raise ConversationError(f"weight must be a number, got {quoted(weight)}")
        if not 0 <= weight <= MAX_WEIGHT:  # NaN too
            raise ConversationError(f"weight must be finite and >= 0, at most {MAX_WEIGHT:,}")
    for key in TRAIN_KEYS:
        flag = message.get(key)
        if flag is None:
            continue
        if isinstance(flag, str) or flag not in (0, 1):
            raise ConversationError(f"{key} must be true or false, got {quoted(flag)}")
        if weight is None:
            weight = float(flag)
        elif bool(weight) != bool(flag):
            raise ConversationError(f"{key} is {bool(flag)}, and another key of the message says the opposite")
    return None if weight is None else float(weight)


def _parse_reasoning(message: Mapping[str, Any], from_parts: str | None) -> str | None:
    """The reasoning given separately from the content; identical copies under several keys count once."""
    found = from_parts
    for key in REASONING_KEYS:
        value = message.get(key)
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise ConversationError(f"reasoning must be a string, got {type(value).__name__}")
        if found is not None and value != found:
            raise ConversationError(f"reasoning is given twice: as {key!r} and as another key or part")
        found = check_text(value)
    return found


def _check_message_keys(message: Mapping[Any, Any]) -> None:
    """Refuse unread keys that might affect training."""
    for key, value in message.items():
        if key not in KNOWN_KEYS and value is not None:
            raise ConversationError(
                f"unknown key {quoted(key)} in a message{did_you_mean(str(key), READ_KEYS)}; rename or remove it "
                "(a source's ignored_keys leaves it out)"
            )


@dataclass(slots=True)
class Message:
    """One turn.

    Attributes:
        role: system, user, assistant or tool.
        content: the visible text, without reasoning.
        reasoning: the thinking before an assistant's answer.
        tool_calls: calls made by an assistant turn.
        weight: loss weight of an assistant turn; None means 1, and 0 means not trained.
        name: name of the function that a tool message answers (read by some chat templates).
        tool_call_id: id of the call that a tool message answers (read by some chat templates).
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
        """Parse an entry of the Hugging Face `messages` format.

        Raises:
            ConversationError: unknown role, or a field of the wrong type.
        """
        if isinstance(value, Message):
            return value
        if type(value) is dict and len(value) == 2:  # most turns: only a role and a content
            role, content = value.get("role"), value.get("content")
            if type(role) is str and type(content) is str and role in ROLES and not _may_think(role, content):
                return cls(role, check_text(content))
        if not isinstance(value, Mapping):
            raise ConversationError(f"a message must be an object, got {type(value).__name__}")
        role = value.get("role")
        if role is None:
            raise ConversationError(f"has no role (keys: {key_list(value)})")
        if role not in ROLES:
            if not isinstance(role, str) or role not in ROLE_ALIASES:
                raise ConversationError(f"unknown role {quoted(role)}; known are {', '.join(ROLES)}")
            role = ROLE_ALIASES[role]
        plain = len(value) == 2 and "content" in value  # most turns: a role and a content
        if not plain and not value.keys() <= KNOWN_KEYS:
            _check_message_keys(value)
        content, reasoning = parse_content(value.get("content"))
        if not plain:
            reasoning = _parse_reasoning(value, reasoning)
        if reasoning and role != "assistant":
            raise ConversationError(f"reasoning belongs to assistant turns, not to role {role!r}")
        if _may_think(role, content):
            inner, answer = split_thinking(content)
            if inner is not None and reasoning and content.lstrip().startswith(THINK_OPEN):
                raise ConversationError(f"reasoning is given twice: as its own field and inside {THINK_OPEN}")
            if not reasoning:
                reasoning, content = inner, answer
        reasoning = (reasoning.strip("\n") or None) if reasoning else None
        if plain:
            return cls(role, content, reasoning)
        get = value.get
        return cls(
            role=role,
            content=content,
            reasoning=reasoning,
            tool_calls=parse_calls(get("tool_calls"), get("function_call")),
            weight=_parse_weight(value),
            name=optional_text(get("name"), "name"),
            tool_call_id=_call_id(get("tool_call_id")),
        )

    def is_query(self) -> bool:
        """Whether this is a user turn with a question, rather than tool results in a user turn."""
        if self.role != "user":
            return False
        text = self.content.strip()
        return not (text.startswith(TOOL_RESPONSE_OPEN) and text.endswith(TOOL_RESPONSE_CLOSE))


def _may_think(role: str, content: str) -> bool:
    """Whether the content of a turn may contain reasoning."""
    return role == "assistant" and (THINK_OPEN in content or THINK_CLOSE in content)


def _call_id(value: Any) -> str | None:
    return optional_text(str(value) if isinstance(value, int) else value, "tool_call_id")


@dataclass(slots=True)
class Conversation:
    """A validated list of turns, with the available tools and the domain of the conversation.

    Tool results are in the order of their calls, whatever order they were given in (see `results_in_order`).

    `messages` and `tools` may be plain dicts, which are parsed and validated on construction. A conversation
    without an assistant turn is a valid prompt (`render(…, add_generation_prompt=True)`) but not a training
    sample; `from_dict` refuses it by default.

    Attributes:
        messages: the turns.
        tools: schemas of the available functions.
        domain: origin of the conversation.
        notes: remarks from reading it, for counts; ignored when comparing conversations.

    Raises:
        ConversationError: one line naming the turn and the cause.

    Example:
        >>> Conversation([{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]).messages[1].role
        'assistant'
    """

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    domain: str | None = None
    notes: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if type(self.messages) is not list and (
            isinstance(self.messages, (str, Mapping)) or not isinstance(self.messages, Sequence)
        ):
            raise ConversationError(f"messages must be a list, got {type(self.messages).__name__}")
        if not self.messages:
            raise ConversationError("messages are empty")
        self.tools = parse_tools(self.tools)
        messages: list[Message] = []
        names = {(tool["function"])["name"] for tool in self.tools} if self.tools else None
        has_results = False
        for index, value in enumerate(self.messages):
            try:
                message = Message.parse(value)
                _check_turn(message, messages[-1] if messages else None, names)
            except ConversationError as error:
                raise ConversationError(f"message {index}: {error}") from None
            messages.append(message)
            has_results = has_results or message.role == "tool"
            if message.tool_calls and not isinstance(value, Message) and value.get("function_call"):
                self._note(FUNCTION_CALL)
        self.messages = messages
        if has_results:
            self._order_results()

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes = (*self.notes, note)

    def _order_results(self) -> None:
        """Reorder the results of a turn's calls to match the calls."""
        messages = self.messages
        for index, message in enumerate(messages):
            if not message.tool_calls:
                continue
            end = index + 1
            while end < len(messages) and messages[end].role == "tool":
                end += 1
            results = messages[index + 1 : end]
            try:
                order = results_in_order(message.tool_calls, [(item.tool_call_id, item.name) for item in results])
            except ConversationError as error:
                raise ConversationError(f"message {index}: {error}") from None
            if order != list(range(len(order))):
                messages[index + 1 : end] = [results[number] for number in order]
                self._note(RESULTS_ORDERED)

    @classmethod
    def from_dict(
        cls,
        sample: Mapping[str, Any] | ConversationError,
        require_assistant: bool = True,
        row_format: str = "auto",
        ignored_keys: Collection[str] = (),
    ) -> Conversation:
        """Read a dataset row in one of the formats of `chat.formats`: `messages` and optionally `tools`, ShareGPT, Alpaca, ….

        Args:
            sample: the row; if it is the error of an unreadable row, that is raised.
            require_assistant: refuse a conversation without an assistant turn (such as a prompt).
            row_format: name of the format; "auto" detects it from the keys.
            ignored_keys: message keys to ignore.

        Raises:
            ConversationError: as the constructor; also for an unknown format, or a missing assistant turn.
        """
        if isinstance(sample, ConversationError):
            raise sample
        row = read_row(sample, row_format, ignored_keys)
        conversation = cls(row.messages, row.tools, row.domain, row.notes)
        if require_assistant and not any(message.role == "assistant" for message in conversation.messages):
            raise ConversationError("no assistant turn, so there is nothing to train on")
        return conversation

    def last_query(self) -> int:
        """Index of the last user turn with a question; -1 if there is none."""
        for index in range(len(self.messages) - 1, -1, -1):
            if self.messages[index].is_query():
                return index
        return -1


def _check_turn(message: Message, previous: Message | None, tool_names: set[str] | None) -> None:
    """Check the rules for one turn, given the previous one."""
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
                known = key_list(tool_names)
                raise ConversationError(f"calls tool {quoted(call.name)}, which is not among the tools ({known})")
    else:
        if message.tool_calls:
            raise ConversationError(f"tool_calls belong to assistant turns, not to role {role!r}")
        if message.weight:
            raise ConversationError(f"weight belongs to assistant turns (only they are trained), not to role {role!r}")
    # A tool may return nothing; all other turns must have content.
    if role != "tool" and not message.tool_calls and not message.content.strip():
        raise ConversationError(f"empty {role} content")
