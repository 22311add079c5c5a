"""Multi-turn BFCL: gold calls are right, others are not, and only known calls reach the executor."""

import ast
import copy
import importlib.util
from collections import Counter

import pytest

from nbg_lightning.chat.tool_calls import ToolCall
from nbg_lightning.environments import ModelTurn
from nbg_lightning.evaluation import BFCLMultiTurn

MISSING = importlib.util.find_spec("bfcl_eval") is None
installed = pytest.mark.skipif(MISSING, reason="pip install --no-deps bfcl-eval==2026.3.23")
DONE = ModelTurn("done", None, "done")


def gold_turns(task):
    """The gold calls of each request, as a model would make them."""
    tools = [*task["tools"], *(tool for later in task["later_tools"].values() for tool in later)]
    named = {tool["function"]["name"]: list(tool["function"]["parameters"]["properties"]) for tool in tools}
    return [tuple(_call(text, named) for text in calls) for calls in task["ground_truth"]]


def _call(text, named):
    node = ast.parse(text, mode="eval").body
    arguments = {name: ast.literal_eval(value) for name, value in zip(named[node.func.id], node.args, strict=False)}
    arguments |= {each.arg: ast.literal_eval(each.value) for each in node.keywords}
    return ToolCall(node.func.id, arguments, "call00000")


def played(benchmark, item, change=lambda calls: calls):
    """The last reply to an agent that makes the gold calls, changed."""
    environment, question = copy.deepcopy(benchmark.environment), benchmark.asked(item)
    environment.reset(question)
    for calls in gold_turns(question.data["bfcl"]):
        calls = change(calls)
        if calls:
            reply = environment.step(ModelTurn("", None, "", calls))
            assert [turn["role"] for turn in reply.turns] == ["tool"] * len(calls)
        reply = environment.step(DONE)
    return reply


@installed
def test_gold_calls_are_right_and_an_empty_agent_is_wrong():
    benchmark = BFCLMultiTurn(limit=24, pick="spread")
    items = benchmark.load().items
    assert Counter(item.category for item in items) == dict.fromkeys(benchmark.categories, 6)
    assert all(played(benchmark, item).score == 1.0 for item in items)
    ends = [played(benchmark, item, lambda calls: ()) for item in items]
    assert all((end.done, end.score) == (True, 0.0) and "empty_turn" in end.detail for end in ends)


@installed
@pytest.mark.slow
def test_a_perfect_agent_has_all_of_all_items():
    benchmark = BFCLMultiTurn()
    items = benchmark.load().items
    assert len(items) == 800
    assert [item.id for item in items if played(benchmark, item).score != 1.0] == []


@installed
def test_a_missing_function_is_told_of_later_and_what_is_unknown_is_never_evaluated():
    benchmark = BFCLMultiTurn(categories=["miss_func"], limit=1)
    (item,) = benchmark.load().items
    environment, question = copy.deepcopy(benchmark.environment), benchmark.asked(item)
    opening = environment.reset(question)
    ((turn, later),) = question.data["bfcl"]["later_tools"].items()
    names = {tool["function"]["name"] for tool in opening.tools}
    assert later[0]["function"]["name"] not in names
    for call in (
        ToolCall("__import__", {"name": "os"}, "a"),
        ToolCall("exec", {"object": "raise SystemExit"}, "a"),
        ToolCall("cd", {"folder": "x", "y=exec('1')": 1}, "a"),
    ):
        reply = environment.step(ModelTurn("", None, "", (call,)))
        assert reply.turns[0]["content"].startswith("error: ") and reply.counts["unknown_tools"] == 1
    quoted = ToolCall("cd", {"folder": "'); raise SystemExit; ('"}, "a")
    assert "No such file or directory" in environment.step(ModelTurn("", None, "", (quoted,))).turns[0]["content"]
    replies = [environment.step(DONE) for _ in range(int(turn))]
    assert later[0]["function"]["name"] in replies[-1].turns[-1]["content"]
    for _ in range(20):
        reply = environment.step(ModelTurn("", None, "", (ToolCall("pwd", {}, "a"),)))
    assert not reply.done
    reply = environment.step(ModelTurn("", None, "", (ToolCall("pwd", {}, "a"),)))
    assert (reply.done, reply.score) == (True, 0.0)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install --no-deps bfcl-eval"):
        BFCLMultiTurn().load()
    with pytest.raises(ValueError, match="choose from base"):
        BFCLMultiTurn(categories=["long"])
