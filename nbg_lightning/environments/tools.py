"""Python functions as tools: schemas from signature and docstring, validated arguments, results as text."""

from __future__ import annotations

import asyncio
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from nbg_lightning.chat.tool_calls import ToolCall
from nbg_lightning.chat.values import did_you_mean, key_list
from nbg_lightning.data.question import Question
from nbg_lightning.environments.environment import (
    Environment,
    EpisodeLimits,
    ModelTurn,
    Opening,
    Reply,
    Turn,
)
from nbg_lightning.error_line import first_line
from nbg_lightning.import_path import import_object

QUESTION = "question"
"""A parameter of this name receives the `Question`, and is not part of the schema."""
_KINDS = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}


class ToolEnvironment(Environment):
    """Functions that the model may call; a turn without a call is its answer, scored by the reward.

    The schema of a function is derived from its signature (names, annotations, defaults) and its docstring (the summary,
    and lines ``name: text`` under ``Args:``). A parameter ``question`` receives the `Question` with its ``data``, invisible
    to the model. An ``async`` function is run to its end. Results are passed to the model as text: strings as they are,
    anything else as JSON. Calls of unknown tools, arguments that violate the schema, exceptions of the function, and results
    that are neither text nor JSON are answered by a message, and counted. A function that hangs or kills its process ends the
    episode without a score.

    Args:
        functions: the functions, or their import paths, ``package.module.function``.
        instruction: text of a system turn, for questions without one.
        show_tools: whether the prompt includes the schemas; without them the model must know the tools from its training.
        limits: limits of the episodes.

    Raises:
        ValueError: an object that is not callable, a duplicate name, or a parameter type that JSON cannot represent.
    """

    def __init__(
        self,
        functions: Sequence[str | Callable[..., Any]],
        instruction: str | None = None,
        show_tools: bool = True,
        limits: EpisodeLimits = EpisodeLimits(),  # noqa: B008 - never mutated
    ):
        if not functions:
            raise ValueError("functions is invalid: empty; give at least one")
        self.limits, self.instruction, self.show_tools = limits, instruction, show_tools
        self.tools: dict[str, Tool] = {}
        for each in functions:
            tool = Tool(import_object(each) if isinstance(each, str) else each)
            if tool.name in self.tools:
                raise ValueError(f"functions is invalid: two are called {tool.name!r}; rename one")
            self.tools[tool.name] = tool
        self._question = Question(())

    def reset(self, question: Question) -> Opening:
        self._question = question
        turns: list[Turn] = list(question.messages)
        if self.instruction is not None and turns[0]["role"] != "system":
            turns.insert(0, {"role": "system", "content": self.instruction})
        shown = self.tools.values() if self.show_tools else ()
        return Opening(tuple(turns), tuple(tool.schema for tool in shown))

    def step(self, turn: ModelTurn) -> Reply:
        if not turn.calls:
            return Reply(done=True)
        replies: list[Turn] = []
        counts: dict[str, int] = {"calls": len(turn.calls)}
        for call in turn.calls:
            text, problem = self._answer(call)
            if problem is not None:
                counts[problem] = counts.get(problem, 0) + 1
            replies.append({"role": "tool", "name": call.name, "tool_call_id": call.id, "content": text})
        return Reply(tuple(replies), counts=counts)

    def _answer(self, call: ToolCall) -> tuple[str, str | None]:
        """The result of a call as text, and the name of the count if it failed."""
        tool = self.tools.get(call.name)
        if tool is None:
            meant = did_you_mean(call.name, self.tools)
            return (
                f"error: there is no tool {call.name!r:.60}{meant}; there are {key_list(self.tools)}",
                "unknown_tools",
            )
        if (problem := tool.problem(call.arguments)) is not None:
            return f"error: {problem}", "invalid_arguments"
        given = {**call.arguments, **({QUESTION: self._question} if tool.takes_question else {})}
        try:
            result = tool.function(**given)
            if inspect.iscoroutine(result):
                result = asyncio.run(result)
        except Exception as error:
            return f"error: {type(error).__name__}: {first_line(error)}", "raised"
        try:
            text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, allow_nan=False)
            text.encode()  # a lone surrogate is no text
            return text, None
        except (TypeError, ValueError, RecursionError) as error:
            return f"error: the result cannot be shown: {first_line(error)}", "unserialisable"


class Tool:
    """A function with its JSON schema.

    Args:
        function: a function with annotated parameters; one without annotation accepts anything.

    Raises:
        ValueError: it is not callable, or has a parameter type that JSON cannot represent.

    Example:
        >>> def area(width: float, height: float = 1.0) -> float:
        ...     '''Area of a rectangle.
        ...
        ...     Args:
        ...         width: in metres.
        ...     '''
        ...     return width * height
        >>> Tool(area).schema["function"]["parameters"]["properties"]["width"]
        {'type': 'number', 'description': 'in metres.'}
        >>> Tool(area).problem({"width": "wide"})
        "width is 'wide'; it must be of type number"
    """

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self.name, parameters, hints = _read(function)
        self.takes_question = QUESTION in parameters
        summary, described = _docstring(inspect.getdoc(function) or "")
        properties: dict[str, Any] = {}
        for name, parameter in parameters.items():
            if name == QUESTION:
                continue
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise ValueError(
                    f"functions is invalid: {self.name} has the {parameter.kind.description} parameter {parameter}; use "
                    "parameters that are given by name"
                )
            properties[name] = json_schema(hints.get(name, Any), f"{self.name}, parameter {name}")
            if name in described:
                properties[name]["description"] = described[name]
        self.required = [n for n in properties if parameters[n].default is inspect.Parameter.empty]
        schema = {"type": "object", "properties": properties, "required": self.required}
        function_schema = {"name": self.name, "description": summary, "parameters": schema}
        self.schema: dict[str, Any] = {"type": "function", "function": function_schema}

    def problem(self, arguments: Mapping[str, Any]) -> str | None:
        """Why a call with these arguments is rejected, in one line; None if it is valid."""
        return argument_problem(self.name, arguments, self.schema["function"]["parameters"])


def _read(function: Any) -> tuple[str, Mapping[str, inspect.Parameter], dict[str, Any]]:
    """Name, parameters and annotations of a function.

    Raises:
        ValueError: it is no function, or has no name, parameters or annotations that can be read.
    """
    if not callable(function):
        raise ValueError(f"functions is invalid: {function!r:.60} is no function; name one by package.module.name")
    name = getattr(function, "__name__", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(
            f"functions is invalid: {function!r:.60} has no name; give a function made with def that calls it"
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ValueError(
            f"functions is invalid: {name} yields its results; give a function that returns them as a list"
        )
    try:
        return name, inspect.signature(function).parameters, typing.get_type_hints(function)
    except (ValueError, TypeError):
        raise ValueError(
            f"functions is invalid: the parameters of {name} cannot be read; give a function with annotations that calls it"
        ) from None
    except Exception as error:  # an annotation as text is evaluated
        raise ValueError(
            f"functions is invalid: an annotation of {name} cannot be read ({first_line(error)}); import its names in the "
            "function's module"
        ) from None


def argument_problem(tool: str, arguments: Mapping[str, Any], parameters: Mapping[str, Any]) -> str | None:
    """How arguments violate the schema of a tool's parameters, in one line; None if they do not.

    Args:
        tool: name of the tool.
        arguments: arguments of a call.
        parameters: JSON schema of an object; parts that `violation` does not support are not checked.
    """
    properties = parameters.get("properties", {})
    for name in arguments:
        if name not in properties:
            meant = did_you_mean(name, properties)
            return f"{tool} has no parameter {name!r:.60}{meant}; there are {key_list(properties)}"
    missing = [name for name in parameters.get("required", ()) if name not in arguments]
    if missing:
        return f"{tool} needs {', '.join(missing)}"
    return next(
        (why for name, value in arguments.items() if (why := violation(value, properties[name], name)) is not None),
        None,
    )


def json_schema(annotation: Any, where: str) -> dict[str, Any]:
    """The JSON schema of an annotation.

    Raises:
        ValueError: JSON cannot represent it.

    Example:
        >>> json_schema(list[int], "here"), json_schema(Literal["a", "b"], "here")
        ({'type': 'array', 'items': {'type': 'integer'}}, {'enum': ['a', 'b']})
    """
    if annotation in (Any, inspect.Parameter.empty):
        return {}
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return json_schema(inner[0], where)
    if origin is Literal:
        for each in inner:
            if not (each is None or type(each) in (str, int, bool)):
                raise ValueError(
                    f"functions is invalid: {where} has the choice {each!r:.60}; use texts, whole numbers, or None"
                )
        return {"enum": list(inner)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [json_schema(each, where) for each in inner]}
    if annotation is type(None):
        return {"type": "null"}
    kind = _KINDS.get(origin or annotation)
    if kind is None:
        raise ValueError(
            f"functions is invalid: {where} is annotated {annotation!r:.60}; use str, int, float, bool, list, dict, Literal or "
            "a union of them"
        )
    if kind == "array" and inner:
        return {"type": kind, "items": json_schema(inner[0], where)}
    return {"type": kind}


def violation(value: Any, schema: Mapping[str, Any], where: str) -> str | None:
    """How a value violates a schema, in one line; None if it does not. Supports schemas of `json_schema` and lists of types.

    Example:
        >>> violation("7", {"type": ["integer", "null"]}, "n"), violation("7", {"$ref": "#/$defs/Digit"}, "n")
        ("n is '7'; it must be of type integer or null", None)
    """
    if "anyOf" in schema:
        found = [violation(value, option, where) for option in schema["anyOf"]]
        return None if None in found else found[0]
    if "enum" in schema:
        allowed = any(value == each and type(value) is type(each) for each in schema["enum"])
        return None if allowed else f"{where} is {value!r:.60}; it must be one of {schema['enum']}"
    kind = schema.get("type")
    kinds = kind if isinstance(kind, list) else [] if kind is None else [kind]
    if kinds and not any(_is_kind(value, each) for each in kinds):
        return f"{where} is {value!r:.60}; it must be of type {' or '.join(kinds)}"
    if isinstance(value, list) and "items" in schema:
        items = enumerate(value)
        return next((why for n, each in items if (why := violation(each, schema["items"], f"{where}[{n}]"))), None)
    return None


def _is_kind(value: Any, kind: str) -> bool:
    if kind == "null":
        return value is None
    if kind in ("integer", "number"):
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole or (kind == "number" and isinstance(value, float))
    return type(value) is {"string": str, "boolean": bool, "array": list, "object": dict}.get(kind, type(value))


def _docstring(text: str) -> tuple[str, dict[str, str]]:
    """Summary and descriptions of the parameters of a docstring in Google's style."""
    summary, _, rest = text.partition("\n\n")
    found: dict[str, str] = {}
    inside, last = False, ""
    for line in rest.splitlines():
        if not line.startswith(" "):
            inside = line.strip() in ("Args:", "Arguments:") or (inside and not line.strip())
            continue
        name, colon, said = line.strip().partition(":")
        if inside and colon and name.partition(" ")[0].isidentifier() and len(line) - len(line.lstrip()) <= 4:
            last = name.partition(" ")[0]
            found[last] = said.strip()
        elif inside and last:
            found[last] += f" {line.strip()}"
    return " ".join(summary.split()), found
