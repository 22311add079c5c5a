"""Schemas of functions, and validation of arguments."""

from typing import Any, Literal

import pytest

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


@pytest.mark.parametrize(
    ("functions", "problem"),
    [
        ([], "empty"),
        ([find, find], "two are called 'find'"),
        ([starred], r"has the parameter \*numbers"),
        ([of_bytes], "annotated"),
        ([3], "is no function"),
        (["math.no_such"], "has no 'no_such'"),
    ],
)
def test_what_cannot_be_a_tool_is_refused(functions, problem):
    with pytest.raises(ValueError, match=problem):
        ToolEnvironment(functions)
