"""Detection of chat templates that omit parts of a conversation, by rendering each structure once with unique marks as texts."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from nbg_lightning.chat.conversation import TOOL_RESPONSE_CLOSE, TOOL_RESPONSE_OPEN, Conversation, ConversationError

KEPT_VERDICTS = 4096  # number of conversation structures that are remembered
FIRST_NUMBER = 7_310_000_000  # of the marks that stand for numbers: none is a substring of another

Messages = list[dict[str, Any]]
Render = Callable[[Messages, Messages | None], str]


class Completeness:
    """Refuses conversations of which a template omits something.

    A conversation's structure consists of its roles, which turns have text and calls, the keys and types of arguments, and the
    tools' schemas. Each structure is rendered once with a unique mark in every place, and every mark must occur in the text, so
    that a value is not considered present because it occurs elsewhere. Then the texts of each conversation are searched for too,
    since a template may also omit something depending on its value.

    Different whitespace and JSON in place of text are accepted. Assistants' texts are not checked here; their spans are verified.

    Args:
        render: renders messages and tools with the template; raises a ConversationError if the template refuses them.
    """

    def __init__(self, render: Render):
        self._render = render
        self._verdicts: OrderedDict[str, str] = OrderedDict()

    def check(self, conversation: Conversation, messages: Messages, text: str) -> None:
        """Refuse a conversation whose rendered text lacks some part of it.

        Args:
            conversation: the conversation.
            messages: its messages as passed to the template.
            text: the rendered text.

        Raises:
            ConversationError: naming the missing part.
        """
        marks = _Marks()
        marked = [marks.message(message, index) for index, message in enumerate(messages)]
        tools = None if conversation.tools is None else [marks.tool(tool) for tool in conversation.tools]
        kind = json.dumps([marked, tools])
        if kind not in self._verdicts:
            self._verdicts[kind] = self._missing(marked, tools, marks.places)
            if len(self._verdicts) > KEPT_VERDICTS:
                self._verdicts.popitem(last=False)
        missing = self._verdicts[kind] or _missing_text(conversation, text)
        if missing:
            raise ConversationError(
                f"the chat template leaves out {missing}: set template to nanbeige, or to a file that has a place for it"
            )

    def _missing(self, messages: Messages, tools: Messages | None, places: dict[str, str]) -> str:
        """What the template omits of the marked conversation; an empty text if nothing."""
        try:
            text = self._render(messages, tools)
        except ConversationError:  # it refuses the form of the marks: then only the texts themselves are checked
            return ""
        return next((what for mark, what in places.items() if mark not in text), "")


class _Marks:
    """Replaces texts by marks.

    Attributes:
        places: what each mark stands for.
    """

    def __init__(self) -> None:
        self.places: dict[str, str] = {}

    def _mark(self, what: str) -> str:
        mark = f"Mark{len(self.places)}Q"
        self.places[mark] = what
        return mark

    def message(self, message: dict[str, Any], index: int) -> dict[str, Any]:
        """A message with marks; roles, ids and names are kept, for templates that check them."""
        marked = dict(message)
        content = message["content"]
        if message["role"] == "assistant":
            marked["content"] = f"Answer{index}Q" if content.strip() else content
        elif content.strip():
            mark = self._mark(f"the {message['role']} content of message {index}")
            text = content.strip()
            is_result = text.startswith(TOOL_RESPONSE_OPEN) and text.endswith(TOOL_RESPONSE_CLOSE)
            marked["content"] = f"{TOOL_RESPONSE_OPEN}\n{mark}\n{TOOL_RESPONSE_CLOSE}" if is_result else mark
        for key in ("reasoning_content", "thinking", "reasoning"):
            if key in message:
                marked[key] = f"Thought{index}Q"
        if "tool_calls" in message:
            marked["tool_calls"] = [
                self._call(call, f"tool call {number} of message {index}")
                for number, call in enumerate(message["tool_calls"])
            ]
        return marked

    def _call(self, call: dict[str, Any], what: str) -> dict[str, Any]:
        function = {
            "name": self._mark(what),
            "arguments": self._value(call["function"]["arguments"], f"arguments of {what}"),
        }
        return {**call, "function": function}

    def _value(self, value: Any, what: str) -> Any:
        """Arguments with marks; empty values, zero and true are kept, and are recognized by their keys."""
        if isinstance(value, dict):
            return {self._mark(what): self._value(item, what) for item in value.values()}
        if isinstance(value, list):
            return [self._value(item, what) for item in value]
        if not value or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._mark(what)
        number = FIRST_NUMBER + len(self.places) + (0.5 if isinstance(value, float) else 0)
        self.places[str(number)] = what
        return number

    def tool(self, tool: dict[str, Any]) -> dict[str, Any]:
        """A tool with marks for its name and description, and those of its parameters."""
        function = dict(tool["function"])
        what = f"tool {function['name']!r}"[:80]
        function["name"] = self._mark(what)
        if isinstance(function.get("description"), str) and function["description"].strip():
            function["description"] = self._mark(f"the description of {what}")
        if isinstance(function.get("parameters"), dict):
            function["parameters"] = self._schema(function["parameters"], f"parameters of {what}")
        return {**tool, "function": function}

    def _schema(self, schema: Any, what: str) -> Any:
        if isinstance(schema, list):
            return [self._schema(item, what) for item in schema]
        if not isinstance(schema, dict):
            return schema
        found = dict(schema)
        names: dict[Any, str] = {}
        if isinstance(schema.get("properties"), dict):
            names = {name: self._mark(what) for name in schema["properties"]}
            found["properties"] = {names[name]: self._schema(item, what) for name, item in schema["properties"].items()}
        if isinstance(schema.get("required"), list):
            found["required"] = [
                names.get(name, name) if isinstance(name, str) else name for name in schema["required"]
            ]
        if isinstance(schema.get("description"), str) and schema["description"].strip():
            found["description"] = self._mark(f"a description in the {what}")
        for key in schema.keys() - {"properties", "required", "description"}:
            if isinstance(schema[key], (dict, list)) and key not in ("enum", "default", "examples", "const"):
                found[key] = self._schema(schema[key], what)
        return found


def _missing_text(conversation: Conversation, text: str) -> str:
    """A text of the conversation that occurs in no form in the rendered text; empty if there is none."""
    packed: str | None = None
    for what, value in _texts(conversation):
        wanted = value.strip()
        if wanted in text or json.dumps(wanted, ensure_ascii=False)[1:-1] in text:
            continue
        packed = _without_blanks(text) if packed is None else packed
        if _without_blanks(wanted) not in packed:
            return what
    return ""


def _texts(conversation: Conversation) -> Iterator[tuple[str, str]]:
    for index, message in enumerate(conversation.messages):
        if message.role != "assistant":
            yield f"the {message.role} content of message {index}", message.content
        for number, call in enumerate(message.tool_calls or ()):
            yield f"tool call {number} of message {index}", call.name
            for value in call.arguments.values():
                if isinstance(value, str):
                    yield f"arguments of tool call {number} of message {index}", value


def _without_blanks(text: str) -> str:
    return "".join(text.split())
