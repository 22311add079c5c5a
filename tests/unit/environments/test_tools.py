"""Schemas of functions, validation of arguments, and results as text."""

import functools
import json
import math
from typing import Any, Literal

import pytest

from nbg_lightning.chat.tool_calls import ToolCall
from nbg_lightning.data.question import Question
from nbg_lightning.environments.environment import ModelTurn
from nbg_lightning.environments.tools import Tool, ToolEnvironment, json_schema, violation


def find(
    query: str, limit: int = 3, kinds: list[str] | None = None, order: Literal["new", "old"] = "new", question=None
) -> Any:
    """Find documents.

    Args:
        query: words,
            several of them.
        limit: how many.
    """


def test_a_schema_is_made_of_signature_and_docstring():
    schema = Tool(find).schema["function"]
    assert (schema["name"], schema["description"]) == ("find", "Find documents.")
    properties = schema["parameters"]["properties"]
    assert properties["query"] == {"type": "string", "description": "words, several of them."}
    assert properties["limit"] == {"type": "integer", "description": "how many."}
    assert properties["order"] == {"enum": ["new", "old"]} and "question" not in properties
    assert schema["parameters"]["required"] == ["query"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"query": "a"}, None),
        ({"query": "a", "kinds": None, "order": "old"}, None),
        ({}, "needs query"),
        ({"query": "a", "limits": 1}, "no parameter 'limits'; did you mean 'limit'?"),
        ({"query": "a", "question": {}}, "no parameter 'question'"),
        ({"query": 1}, "must be of type string"),
        ({"query": "a", "limit": True}, "must be of type integer"),
        ({"query": "a", "kinds": ["b", 1]}, "kinds[1] is 1"),
        ({"query": "a", "order": "best"}, "one of ['new', 'old']"),
    ],
)
def test_arguments_are_checked(arguments, problem):
    found = Tool(find).problem(arguments)
    assert found is None if problem is None else problem in found


def test_a_number_may_be_whole_and_a_choice_has_its_type():
    assert violation(1, json_schema(float, "x"), "x") is None
    assert violation(True, json_schema(Literal[1, 2], "x"), "x") is not None


def starred(*numbers: int) -> int:
    return sum(numbers)


def of_bytes(data: bytes) -> int:
    return len(data)


def in_place(number: int, /) -> int:
    return number


def by_word(**words: int) -> int:
    return len(words)


def one_by_one(number: int):
    yield number


async def streamed(number: int):
    yield number


def unknown(number: "Nowhere") -> int:  # noqa: F821 - an annotation that cannot be read
    return number


def choosing(number: Literal[b"a"]) -> int:
    return number


class Callable:
    def __call__(self, number: int) -> int:
        return number


@pytest.mark.parametrize(
    ("functions", "problem"),
    [
        ([], "empty"),
        ([in_place], "the positional-only parameter number"),
        ([by_word], r"parameter \*\*words"),
        ([one_by_one], "one_by_one yields"),
        ([streamed], "streamed yields"),
        ([unknown], "an annotation of unknown .*Nowhere"),
        ([choosing], "parameter number has the choice b'a'"),
        ([Callable()], "has no name"),
        ([functools.partial(find, limit=1)], "has no name"),
        ([lambda number: number], "has no name"),
        ([math.hypot], "the parameters of hypot"),
        ([max], "the parameters of max"),
        ([find, find], "two are called 'find'"),
        ([starred], r"parameter \*numbers"),
        ([of_bytes], "annotated"),
        ([3], "is no function"),
        (["math.no_such"], "has no 'no_such'"),
    ],
)
def test_what_cannot_be_a_tool_is_refused(functions, problem):
    with pytest.raises(ValueError, match=problem):
        ToolEnvironment(functions)


def test_parameters_by_keyword_only_and_defaults_that_json_has_not():
    def area(*, width: float, unit: Any = object()) -> float:  # noqa: B008 - never mutated
        return width

    parameters = Tool(area).schema["function"]["parameters"]
    assert parameters["required"] == ["width"] and parameters["properties"]["unit"] == {}
    assert json.loads(json.dumps(parameters)) == parameters


def nested(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


RESULTS = {
    "bytes": b"x",
    "generator": (n for n in range(3)),
    "NaN": float("nan"),
    "inside": {"a": [float("-inf")]},
    "long": 10**5000,
    "set": {1},
    "surrogate": "\ud800",
    "surrogate inside": ["\ud800"],
    "deep": nested(100_000),
    "keys": {(1, 2): 3},
}


def result(name: str) -> Any:
    return RESULTS[name]


async def fetch(name: str) -> Any:
    return {"page": name}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_that_is_no_json_is_told_and_counted(name):
    text, counts = called(result, name)
    assert "cannot be shown" in text and "\n" not in text and counts == {"calls": 1, "unserialisable": 1}
    text.encode()


def test_an_async_function_is_run_to_its_end():
    assert called(fetch, "home") == ('{"page": "home"}', {"calls": 1})


def called(function, name):
    environment = ToolEnvironment([function])
    environment.reset(Question(({"role": "user", "content": "go"},)))
    reply = environment.step(ModelTurn("", calls=(ToolCall(function.__name__, {"name": name}, "call00000"),)))
    return reply.turns[0]["content"], dict(reply.counts)
