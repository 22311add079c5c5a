"""Parsing calls in model-written text: unreadable ones are the model's fault, and take no time."""

import time

import pytest

from nbg_lightning.construction.problems.calls import calls_in, read_call
from nbg_lightning.evaluation.benchmark import Item
from nbg_lightning.evaluation.tasks.bfcl import BFCL, MAX_CALLS, calls_match, extract_calls

FUNCTION = {"name": "f", "parameters": {"type": "dict", "properties": {"a": {"type": "any"}}, "required": ["a"]}}
LONG = 1_000_000

READ = {
    "f(a=1)": [("f", {"a": 1})],
    "[m.f(a=-1.5, b=[1, (2,)]), f(a={'k': None})]": [("m.f", {"a": -1.5, "b": [1, [2]]}), ("f", {"a": {"k": None}})],
    "f(a=true, b=x.y, c=g(1))": [("f", {"a": True, "b": "x.y", "c": "g(1)"})],
    '{"name": "f", "arguments": "{\\"a\\": 1}"}': [("f", {"a": 1})],
    '<tool_call>{"name": "f", "arguments": {"a": "é"}}</tool_call><tool_call>{"name": "g"}': [
        ("f", {"a": "é"}),
        ("g", {}),
    ],
    "[]": [],
}
UNREADABLE = [
    "f(a={[]: 1})",
    "f(a={1: 2, 'b': 3})",
    "f(a={'k': 1, 'k': 2})",
    "f(a=1, a=2)",
    "f(**{'a': 1})",
    "f(a=1e999)",
    "f(a='\\ud800')",
    "f(a='\ud800')",
    "f(a=1 < 2)",
    "f(a=" + "9" * 5000 + ")",
    "f(a=" + "[" * 90 + "]" * 90 + ")",
    "f(a=" + "[" * 5000 + "]" * 5000 + ")",
    "f" + ".a" * 4000 + "(" + "a=" + "-" * 3000 + "1)",
    "__import__('os').system('x')",
    "__import__('os').system(command='x')",
    "f()(a=1)",
    '{"name": 1, "arguments": {}}',
    '{"name": null}',
    '{"name": ["f"], "arguments": {"a": 1}}',
    '{"name": "f", "arguments": {"a": 1, "a": 2}}',
    '{"name": "f", "name": "g", "arguments": {}}',
    '{"name": "f", "arguments": {"a": NaN}}',
    '{"name": "f", "arguments": {"a": 1e999}}',
    '{"name": "f", "arguments": {"a": "\\ud800"}}',
    '{"name": "f", "arguments": "{\\"a\\": NaN}"}',
    '{"name": "f", "arguments": ' + '{"a": ' * 100 + "1" + "}" * 101,
    '{"name": "f", "arguments": ' + '{"a": ' * 100_000 + "1" + "}" * 100_001,
    "[" + ", ".join(["f(a=1)"] * (MAX_CALLS + 1)) + "]",
    "<tool_call>f(a=1)</tool_call>" * (MAX_CALLS + 1),
]


@pytest.mark.parametrize("text", READ)
def test_calls_are_read(text):
    assert extract_calls(text) == READ[text]


@pytest.mark.parametrize("text", UNREADABLE, ids=range(len(UNREADABLE)))
def test_what_cannot_be_read_is_wrong(text):
    assert extract_calls(text) is None
    verdict = BFCL().score(Item("1", "q", [{"f": {"a": [1]}}], data={"functions": [FUNCTION]}), text)
    assert (verdict.score, verdict.parsed) == (0.0, False) and "calls" in verdict.detail


@pytest.mark.parametrize(
    "piece",
    [
        "[",
        "{",
        '{"a":',
        "f(",
        "f(a=",
        "f(a=1),",
        "<tool_call>",
        "<tool_call></tool_call>",
        "```",
        "a.",
        "-",
        "9",
        "\n",
        "'",
    ],
)
def test_time_is_bounded(piece):
    text = piece * (LONG // len(piece))
    begin = time.process_time()
    for each in (text, text[:90_000], f"<tool_call>{text}"):
        extract_calls(each)
    assert read_call(text, "f") is None
    assert calls_in(text[:90_000], "f") == []
    assert time.process_time() - begin < 10


def test_matching_is_no_search_through_all_orders():
    number = 60
    gold = [{"f": {"a": list(range(number - 1))}}] * number  # each call but one fits each of them
    calls = [("f", {"a": value}) for value in range(number)]
    begin = time.process_time()
    assert not calls_match(calls, gold, [FUNCTION])
    assert calls_match(calls[:-1], gold[:-1], [FUNCTION])
    assert time.process_time() - begin < 5


def test_a_call_that_fits_two_leaves_the_other_its_own():
    gold = [{"f": {"a": [1, 2]}}, {"f": {"a": [1]}}, {"f": {"a": [2, 3]}}]
    calls = [("f", {"a": 1}), ("f", {"a": 2}), ("f", {"a": 3})]
    assert calls_match(calls, gold, [FUNCTION])
    assert not calls_match([calls[0], calls[0], calls[0]], gold, [FUNCTION])


@pytest.mark.parametrize(
    "text", ["f({[]: 1})", "f(" + "[" * 90 + "x" + "]" * 90 + ")", "f(a=1, a=2)", "f(**{})", "f('\ud800')", "f(f(1))"]
)
def test_calls_that_are_no_tests(text):
    assert read_call(text, "f") is None


def test_calls_in_code():
    assert calls_in("assert f(1) == f( 2 )\nassert f(f(3)) == g(f([1]))\nf(" + "(" * 5000, "f") == [
        "f(1)",
        "f(2)",
        "f(3)",
        "f([1])",
    ]
