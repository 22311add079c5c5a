"""Tools, calls and results in all forms of public data, and the matching of results to calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbg_lightning.chat.values import (
    ConversationError,
    check_json,
    check_text,
    did_you_mean,
    key_list,
    optional_text,
    quoted,
    read_json,
)

ARGUMENT_KEYS = ("arguments", "parameters", "input", "args")
SCHEMA_KEYS = ("input_schema", "inputSchema")  # of parameters, in Anthropic's and MCP's formats
CALL_KEYS = frozenset(("id", "type", "function", "name", "index", "status", *ARGUMENT_KEYS))
CALL_TYPES = (None, "function", "tool_call", "tool_use", "function_call")


@dataclass(slots=True)
class ToolCall:
    """One function call of an assistant turn."""

    name: str
    arguments: dict[str, Any]
    id: str | None = None

    @classmethod
    def parse(cls, value: ToolCall | Mapping[str, Any]) -> ToolCall:
        """Parse the OpenAI form `{"function": {"name", "arguments"}}` or the flat form `{"name", "arguments"}`.

        Arguments are under one of `ARGUMENT_KEYS`, as an object or a JSON string; a missing or empty value means a call
        without arguments.

        Raises:
            ConversationError: the call has neither form, no name, an unknown key, duplicate arguments, or arguments that are
                not a JSON object.
        """
        if isinstance(value, ToolCall):
            return value
        if not isinstance(value, Mapping):
            raise ConversationError(f"a tool call must be an object, got {type(value).__name__}")
        function = value["function"] if isinstance(value.get("function"), Mapping) else value
        for keys in (value, function):
            _check_keys(keys)
        if value.get("type") not in CALL_TYPES:
            raise ConversationError(f"a tool call has the type {quoted(value['type'])}; only functions can be called")
        name = function.get("name")
        if not isinstance(name, str) or not name:
            raise ConversationError(f"a tool call has no name (keys: {key_list(function)})")
        check_text(name)
        holders = (function,) if function is value else (function, value)
        given = [(key, holder[key]) for holder in holders for key in ARGUMENT_KEYS if holder.get(key) is not None]
        if len(given) > 1:
            both = " and as ".join(repr(key) for key, _ in given[:2])
            raise ConversationError(f"the arguments of tool call {quoted(name)} are given twice: as {both}")
        call_id = value.get("id")
        if isinstance(call_id, int):
            call_id = str(call_id)
        return cls(
            name, _arguments(given[0][1] if given else None, name), optional_text(call_id, "the id of a tool call")
        )

    def to_dict(self) -> dict[str, Any]:
        """The OpenAI form, which chat templates expect."""
        call: dict[str, Any] = {
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }
        return call if self.id is None else {"id": self.id, **call}


def _check_keys(call: Mapping[Any, Any]) -> None:
    for key, value in call.items():
        if key not in CALL_KEYS and value is not None:
            raise ConversationError(
                f"a tool call has the unknown key {quoted(key)}{did_you_mean(str(key), CALL_KEYS)}; remove or rename it"
            )


def _arguments(value: Any, name: str) -> dict[str, Any]:
    """Arguments as an object."""
    what = f"the arguments of tool call {quoted(name)}"
    if isinstance(value, str) and value.strip():
        value = read_json(value, f"{what} are")
    if value is None or value == "":
        return {}
    if isinstance(value, str) and not value.strip():
        return {}
    if not isinstance(value, Mapping):
        raise ConversationError(f"{what} must be an object, got {type(value).__name__}")
    check_json(value, what)
    return dict(value)


def parse_calls(calls: Any, function_call: Any) -> list[ToolCall] | None:
    """The calls of a message: a list, possibly as JSON text, or a single `function_call` of OpenAI's former format.

    Raises:
        ConversationError: both are given, or one is malformed.
    """
    if isinstance(calls, str) and calls:
        calls = read_json(calls, "tool_calls are")
    if calls and (not isinstance(calls, Sequence) or isinstance(calls, (str, bytes))):
        raise ConversationError(f"tool_calls must be a list, got {type(calls).__name__}")
    if not function_call:
        return [ToolCall.parse(call) for call in calls] if calls else None
    if calls:
        raise ConversationError("a call is given twice: as tool_calls and as function_call")
    if isinstance(function_call, str):
        function_call = read_json(function_call, "function_call is")
    return [ToolCall.parse(call) for call in (function_call if isinstance(function_call, list) else [function_call])]


def parse_tools(tools: Any) -> list[dict[str, Any]] | None:
    """Tools as a list of `{"type": "function", "function": {…}}`, from objects or JSON text.

    Raises:
        ConversationError: they are not a list of function schemas, or contain values that JSON cannot represent.
    """
    if isinstance(tools, str) and tools.strip():
        tools = read_json(tools, "tools are")
    if not tools or (isinstance(tools, str) and not tools.strip()):
        return None
    if isinstance(tools, Mapping) or not isinstance(tools, Sequence) or isinstance(tools, (str, bytes)):
        raise ConversationError(f"tools must be a list of JSON schemas, got {type(tools).__name__}")
    parsed = []
    for index, tool in enumerate(tools):
        if isinstance(tool, str):  # JSON strings, in which Arrow stores free-form schemas
            tool = read_json(tool, f"tool {index} is")
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise ConversationError(f'tool {index} has an unknown schema; it needs {{"name", "parameters"}}')
        function = _with_parameters(function)
        if not isinstance(function.get("parameters") or {}, Mapping):
            raise ConversationError(f"the parameters of tool {quoted(function['name'])} must be a JSON schema object")
        check_json(tool, f"the fields of tool {quoted(function['name'])}")
        parsed.append(
            {**tool, "function": function} if "function" in tool else {"type": "function", "function": function}
        )
    return parsed


def _with_parameters(function: Mapping[str, Any]) -> dict[str, Any]:
    """A function's schema, with its parameters under `parameters`."""
    found = {key: value for key, value in function.items() if key not in SCHEMA_KEYS or value is None}
    for key in SCHEMA_KEYS:
        if (schema := function.get(key)) is None:
            continue
        if found.get("parameters") not in (None, schema):
            raise ConversationError(
                f"the parameters of tool {quoted(function['name'])} are given twice: as 'parameters' and as {key!r}"
            )
        found["parameters"] = schema
    return found


def results_in_order(calls: Sequence[ToolCall], answers: Sequence[tuple[str | None, str | None]]) -> list[int]:
    """Match results to calls: the indices of the results in the order of the calls.

    Chat formats render results without ids, so only their order identifies them. They are matched by id; if no
    result or no call has one, by function name if these are unique, else by position.

    Args:
        calls: the calls of one assistant turn.
        answers: (tool_call_id, name) of each result that follows it.

    Raises:
        ConversationError: an id without a call, duplicate ids of calls or results, or a call without a result before one
            that has one.

    Example:
        >>> calls = [ToolCall("clock", {}, "a"), ToolCall("clock", {}, "b")]
        >>> results_in_order(calls, [("b", None), ("a", None)])
        [1, 0]
    """
    ids = [call.id for call in calls]
    names = [call.name for call in calls]
    if any(ids) and any(answer_id for answer_id, _ in answers):
        keys, given, noun = ids, [answer_id for answer_id, _ in answers], "id"
    elif len(set(names)) == len(names) and {name for _, name in answers} <= set(names) and _differ(answers):
        keys, given, noun = [*names], [name for _, name in answers], "name"
    else:
        return list(range(len(answers)))
    place_of: dict[str, int] = {}
    for place, key in enumerate(keys):
        if key in place_of:
            raise ConversationError(
                f"two tool calls have the {noun} {quoted(key)}, so their results cannot be told apart"
            )
        if key is not None:
            place_of[key] = place
    places: dict[int, int] = {}  # index of each call -> index of its result
    for number, key in enumerate(given):
        if key is None:
            continue
        if key not in place_of:
            raise ConversationError(
                f"a tool result answers the call of {noun} {quoted(key)}; the calls before it are {key_list(place_of)}"
            )
        if place_of[key] in places:
            raise ConversationError(f"two tool results answer the call of {noun} {quoted(key)}")
        places[place_of[key]] = number
    free = iter(place for place in range(len(keys) + len(given)) if place not in places)
    places.update({next(free): number for number, key in enumerate(given) if key is None})
    for missing in range(len(places)):
        if missing not in places:
            raise ConversationError(
                f"tool call {quoted(keys[missing])} has no result, and a later one has: templates write results in the "
                "order of the calls, so it would take that one's place"
            )
    return [places[place] for place in range(len(places))]


def _differ(answers: Sequence[tuple[str | None, str | None]]) -> bool:
    names = [name for _, name in answers]
    return len(set(names)) == len(names)
