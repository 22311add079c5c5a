"""BFCL-V4, the categories whose calls are compared as syntax trees (Patil et al., Berkeley Function-Calling Leaderboard)."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from nbg_lightning.evaluation.benchmark import Benchmark, ChatMessage, Item
from nbg_lightning.evaluation.rows import Row, file_rows, installed_version, package_folder
from nbg_lightning.scoring.bounded import MAX_DEPTH, MAX_JSON, json_value, literal, python_expression
from nbg_lightning.scoring.result import Verdict, unreadable

Category = Literal[
    "simple_python",
    "multiple",
    "parallel",
    "parallel_multiple",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
    "irrelevance",
    "live_irrelevance",
    "live_relevance",
]
Call = tuple[str, dict[str, Any]]
MAX_CALLS = 256
"""Of an answer; the items want at most a few dozen."""

_JSON_TYPES = {
    "dict": "object",
    "float": "number",
    "tuple": "array",
    "list": "array",
    "any": "string",
    "bool": "boolean",
}


@dataclass(kw_only=True)
class BFCL(Benchmark):
    """Which function is called, and with which arguments. Python only: Java and JavaScript would need their own parsers.

    In chat formats the functions are passed as tools; in ``text``, and if a chat template does not support tools, they are
    in the prompt. Accepted are ``<tool_call>`` blocks, JSON, and Python call syntax. The irrelevance categories are correct
    if nothing is called, ``live_relevance`` if anything is.

    Args:
        categories: categories to use; all by default.
    """

    categories: list[Category] = field(default_factory=lambda: list(get_args(Category)))

    label: ClassVar[str] = "bfcl_v4"
    licence: ClassVar[str] = "Apache-2.0"
    package: ClassVar[str | None] = "pip install --no-deps bfcl-eval==2026.3.23"
    stop_texts: ClassVar[tuple[str, ...]] = ("\n\n",)

    def _rows(self) -> tuple[str, Iterator[tuple[str, Row]]]:
        if unknown := sorted(set(self.categories) - set(get_args(Category))):
            raise ValueError(
                f"{self.name}: categories is invalid: {', '.join(unknown)}; choose from {', '.join(get_args(Category))}"
            )
        if self.path is not None:
            return self.path, self._read(self.path)
        root = package_folder("bfcl_eval")
        if root is None:
            return super()._rows()  # says what to install
        return f"bfcl-eval {installed_version('bfcl-eval')}", self._read(root / "data")

    def _read(self, folder: Any) -> Iterator[tuple[str, Row]]:
        from pathlib import Path

        for category in self.categories:
            answers: dict[str, Any] = {}
            if "relevance" not in category:
                gold = file_rows(Path(folder) / "possible_answer", [f"BFCL_v4_{category}"])[1]
                answers = {row["id"]: row["ground_truth"] for _, row in gold if "id" in row}
            for place, row in file_rows(folder, [f"BFCL_v4_{category}"])[1]:
                yield place, {**row, "category": category, "gold": answers.get(row.get("id", ""))}

    def parse(self, row: Row, place: str) -> Item:
        category = row["category"]
        if "relevance" not in category and row["gold"] is None:
            raise ValueError(f"item {row['id']} has no possible answer")
        turns = row["question"][0]
        data = {"messages": turns, "functions": row["function"]}
        return Item(row["id"], turns[-1]["content"], row["gold"], category=category, data=data)

    def text(self, item: Item) -> str:
        return f"{self.message(item)}\nCalls:"

    def message(self, item: Item) -> str:
        functions = "\n".join(json.dumps(function, ensure_ascii=False) for function in item.data["functions"])
        asked = "\n".join(turn["content"] for turn in item.data["messages"])
        return (
            f"Functions:\n{functions}\n\nRequest: {asked}\n"
            "Write the calls as [name(argument=value, ...), ...], or [] if no function fits."
        )

    def conversation(self, item: Item, shots: Sequence[Item]) -> tuple[list[ChatMessage], list[dict[str, Any]] | None]:
        tools = [{"type": "function", "function": tool_of(function)} for function in item.data["functions"]]
        return [dict(turn) for turn in item.data["messages"]], tools

    def load_shots(self) -> list[Item]:
        raise ValueError(f"{self.name} has no worked examples; set num_shots to 0")

    def score(self, item: Item, text: str) -> Verdict:
        calls = extract_calls(text)
        answer = json.dumps(calls, sort_keys=True, default=str) if calls is not None else None
        if item.category is not None and "relevance" in item.category:
            wants_none = "irrelevance" in item.category
            return Verdict(float(wants_none == (not calls)), answer=answer)
        if calls is None:
            return unreadable(
                "no calls that can be read: neither JSON nor Python calls with values, or beyond the limits"
            )
        return Verdict(float(calls_match(calls, item.answer, item.data["functions"])), answer=answer)


def tool_of(function: dict[str, Any]) -> dict[str, Any]:
    """A function's description with JSON schema's names of types."""

    def schema(node: Any) -> Any:
        if isinstance(node, dict):
            return {
                key: _JSON_TYPES.get(value, value) if key == "type" and isinstance(value, str) else schema(value)
                for key, value in node.items()
            }
        return [schema(each) for each in node] if isinstance(node, list) else node

    return {**function, "parameters": schema(function["parameters"])}


# -- reading calls -----------------------------------------------------------------------------------------------------


def extract_calls(text: str) -> list[Call] | None:
    """The calls that a text makes; an empty list if it says ``[]``; None if there is none to be read, no text, or more
    than is read (`MAX_CALLS`, and the limits of `nbg_lightning.scoring.bounded`).

    Example:
        >>> extract_calls('[math.area(base=10, height=5)]')
        [('math.area', {'base': 10, 'height': 5})]
    """
    if len(text) > MAX_JSON:
        return None
    blocks = re.findall(r"<tool_call>(.*?)(?:</tool_call>|$)", text, re.DOTALL)
    parts = blocks or [re.sub(r"^```\w*|```$", "", text.strip()).strip()]
    if not any(part.strip() for part in parts) or len(parts) > MAX_CALLS:
        return None
    calls: list[Call] = []
    for part in parts:
        read = _json_calls(part.strip())
        if read is None:
            read = _python_calls(part.strip())
        if read is None or len(calls) + len(read) > MAX_CALLS:
            return None
        calls += read
    return calls


def _json_calls(text: str) -> list[Call] | None:
    try:
        value = json_value(text)
        entries = value if isinstance(value, list) else [value]
        return [call for entry in entries for call in _calls_of(entry)]
    except ValueError:
        return None


def _calls_of(entry: Any) -> list[Call]:
    """Calls of an object ``{"name", "arguments"}`` or ``{name: arguments, ...}``.

    Raises:
        ValueError: it has neither form.
    """
    if not isinstance(entry, dict):
        raise ValueError("a call is no object")
    pairs = list(entry.items())
    if isinstance(entry.get("name"), str):
        arguments = entry.get("arguments", entry.get("parameters", {}))
        pairs = [(entry["name"], json_value(arguments or "{}") if isinstance(arguments, str) else arguments)]
    if not all(isinstance(arguments, dict) for _, arguments in pairs):
        raise ValueError("arguments are no object")
    return pairs


def _python_calls(text: str) -> list[Call] | None:
    tree = python_expression(text if text.startswith("[") else f"[{text}]")
    if not isinstance(tree, ast.List):
        return None
    try:
        return [_python_call(node) for node in tree.elts]
    except (ValueError, RecursionError):
        return None


def _python_call(node: ast.expr) -> Call:
    """Name and arguments of a call as Python writes it.

    Raises:
        ValueError: it is not a call of a dotted name with keyword arguments that have values.
    """
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("no call with keyword arguments")
    name, parts = node.func, []
    while isinstance(name, ast.Attribute):
        parts.append(name.attr)
        name = name.value
    if not isinstance(name, ast.Name):
        raise ValueError("no dotted name")
    arguments: dict[str, Any] = {}
    for each in node.keywords:
        if each.arg is None or each.arg in arguments:
            raise ValueError("an argument without a name, or twice")
        arguments[each.arg] = _value(each.value)
    return ".".join([name.id, *reversed(parts)]), arguments


def _value(node: ast.expr, depth: int = 1) -> Any:
    """A value as written; a name stands for a variable, which gold answers have as a text.

    Raises:
        ValueError: nested too deeply, no value, a key that is no text or stands twice, a number that is not finite, or half of
            a surrogate pair.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(node, (ast.Name, ast.Attribute, ast.Call)):
        names = {"true": True, "false": False, "null": None}
        written = ast.unparse(node)
        return names.get(written, written)
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(each, depth + 1) for each in node.elts]
    if isinstance(node, ast.Dict):
        keys = [literal(key) if key is not None else None for key in node.keys]
        if not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
            raise ValueError("a key is no text, or stands twice")
        return {_encodable(key): _value(value, depth + 1) for key, value in zip(keys, node.values, strict=True)}
    return _encodable(literal(node))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        value.encode("utf-8")  # UnicodeEncodeError is a ValueError
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is not finite")
    return value


# -- comparing calls ---------------------------------------------------------------------------------------------------


def calls_match(calls: Sequence[Call], gold: Sequence[dict[str, Any]], functions: Sequence[dict[str, Any]]) -> bool:
    """Whether calls are those that are wanted, in any order.

    Args:
        calls: what the model calls.
        gold: for each wanted call ``{name: {argument: possible values}}``; an empty text among these means that the argument
            may be left out.
        functions: their descriptions.
    """
    if len(calls) != len(gold):
        return False
    described = {function["name"]: function["parameters"] for function in functions}
    fits = [[_call_fits(call, wanted, described) for call in calls] for wanted in gold]
    taken: dict[int, int] = {}  # the wanted call that each call stands for
    return all(_assign(wanted, fits, taken, set()) for wanted in range(len(gold)))


def _assign(wanted: int, fits: Sequence[Sequence[bool]], taken: dict[int, int], tried: set[int]) -> bool:
    """Finds a call for a wanted one along an augmenting path of the matching (Kuhn 1955); cubic in the number of calls."""
    for place, fit in enumerate(fits[wanted]):
        if fit and place not in tried:
            tried.add(place)
            if place not in taken or _assign(taken[place], fits, taken, tried):
                taken[place] = wanted
                return True
    return False


def _call_fits(call: Call, wanted: dict[str, Any], described: dict[str, Any]) -> bool:
    name, arguments = call
    ((wanted_name, possible),) = wanted.items()
    if name != wanted_name or name not in described:
        return False
    schema = described[name]
    if not set(schema.get("required", ())) <= set(arguments) or not set(arguments) <= set(possible):
        return False
    given = all(
        _value_fits(value, possible[key], schema["properties"].get(key, {})) for key, value in arguments.items()
    )
    return given and all("" in options for key, options in possible.items() if key not in arguments)


def _value_fits(value: Any, options: Sequence[Any], schema: dict[str, Any]) -> bool:
    return any(_same(value, option, schema.get("type")) for option in options)


def _same(value: Any, option: Any, kind: str | None) -> bool:
    """Texts, ignoring case, spaces and some punctuation; numbers by value and kind; structures by their parts."""
    if isinstance(option, dict):
        return (
            isinstance(value, dict)
            and set(value) <= set(option)
            and all(any(_same(value[key], each, None) for each in _options(option[key])) for key in value)
            and all("" in _options(option[key]) for key in option if key not in value)
        )
    if isinstance(option, list):
        same_length = isinstance(value, (list, tuple)) and len(value) == len(option)
        return same_length and all(_same(v, o, None) for v, o in zip(value, option, strict=True))
    if isinstance(option, str):
        return isinstance(value, str) and _plain(value) == _plain(option)
    if isinstance(option, bool) or isinstance(value, bool) or option is None:
        return type(value) is type(option) and value == option
    if isinstance(option, (int, float)):
        right_kind = isinstance(value, int) if kind == "integer" else isinstance(value, (int, float))
        return right_kind and value == option
    return value == option


def _options(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _plain(text: str) -> str:
    return re.sub(r"[ ,./\-_*^]", "", text).lower().replace("'", '"')
