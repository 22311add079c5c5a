import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbg_lightning.chat import Conversation, ConversationError, ToolCall
from nbg_lightning.chat.tool_calls import parse_tools, results_in_order


def conversation(calls, results):
    """Calls as (name, id), results as (content, id, name)."""
    return Conversation(
        [
            {"role": "user", "content": "q"},
            {"role": "assistant", "tool_calls": [{"id": call_id, "name": name} for name, call_id in calls]},
            *({"role": "tool", "content": said, "tool_call_id": i, "name": name} for said, i, name in results),
            {"role": "assistant", "content": "a"},
        ]
    )


CLOCKS = [("clock", "c1"), ("clock", "c2")]
ORDERED = {
    "as they come": (CLOCKS, [("1", "c1", None), ("2", "c2", None)], "12"),
    "by id": (CLOCKS, [("2", "c2", None), ("1", "c1", None)], "12"),
    "without ids": (CLOCKS, [("1", None, None), ("2", None, None)], "12"),
    "calls without ids": ([("clock", None), ("clock", None)], [("1", "x", None), ("2", "y", None)], "12"),
    "empty ids": ([("clock", ""), ("clock", "")], [("1", "", None), ("2", "", None)], "12"),
    "one id": (CLOCKS, [("2", "c2", None), ("1", None, None)], "12"),
    "by name": ([("a", None), ("b", None)], [("2", None, "b"), ("1", None, "a")], "12"),
    "id before name": ([("a", "1"), ("b", "2")], [("2", "2", "a"), ("1", "1", "b")], "12"),
    "names that are not the calls'": ([("a", None), ("b", None)], [("1", None, "x"), ("2", None, "a")], "12"),
    "the first result only": (CLOCKS, [("1", "c1", None)], "1"),
    "more results than calls": (CLOCKS[:1], [("1", None, None), ("2", None, None)], "12"),
}


@pytest.mark.parametrize("name", ORDERED)
def test_results_stand_in_the_order_of_their_calls(name):
    calls, results, expected = ORDERED[name]
    found = conversation(calls, results)
    assert "".join(message.content for message in found.messages if message.role == "tool") == expected
    swapped = [content for content, _, _ in results] != list(expected)
    assert found.notes == (("tool results put into the order of their calls",) if swapped else ())


REFUSED = {
    "an unknown id": (
        CLOCKS,
        [("1", "c1", None), ("2", "c9", None)],
        "answers the call of id 'c9'; the calls .* c1, c2",
    ),
    "an id twice": (CLOCKS, [("1", "c1", None), ("2", "c1", None)], "two tool results answer the call of id 'c1'"),
    "calls of one id": ([("f", "c"), ("g", "c")], [("1", "c", None)], "two tool calls have the id 'c'"),
    "a missing result": (CLOCKS, [("2", "c2", None)], "tool call 'c1' has no result, and a later one has"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_results_that_answer_no_call(name):
    calls, results, cause = REFUSED[name]
    with pytest.raises(ConversationError, match=f"message 1: .*{cause}"):
        conversation(calls, results)


def test_every_turn_has_its_own_calls():
    call = {"role": "assistant", "tool_calls": [{"name": "f", "id": "c1"}, {"name": "f", "id": "c2"}]}
    results = [{"role": "tool", "content": str(i), "tool_call_id": f"c{i}"} for i in (2, 1)]
    found = Conversation([{"role": "user", "content": "q"}, call, *results, call, *reversed(results)])
    assert [message.content for message in found.messages if message.role == "tool"] == ["1", "2", "1", "2"]
    again = {"role": "assistant", "tool_calls": [{"name": "f", "id": "c3"}]}
    late = [{"role": "user", "content": "q"}, call, results[1], again, results[0]]
    with pytest.raises(ConversationError, match="message 3: a tool result answers the call of id 'c2'"):
        Conversation(late)


def test_many_calls_take_linear_time():
    calls = [ToolCall("f", {}, f"c{number}") for number in range(100_000)]
    answers = [(call.id, None) for call in reversed(calls)]
    begin = time.process_time()
    assert results_in_order(calls, answers)[:2] == [99_999, 99_998]
    assert time.process_time() - begin < 5


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.permutations(range(6)), st.sets(st.integers(0, 5)))
def test_any_order_is_put_right(order, without_id):
    calls = [ToolCall("f", {}, f"id{number}") for number in range(6)]
    answers = [(f"id{number}", None) for number in order]
    assert [order[number] for number in results_in_order(calls, answers)] == list(range(6))


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.permutations(range(6)), st.sets(st.integers(0, 5), max_size=5))
def test_results_without_an_id_take_the_calls_that_are_left(order, without_id):
    calls = [ToolCall("f", {}, f"id{number}") for number in range(6)]
    answers = [(None if number in without_id else f"id{number}", None) for number in order]
    found = [order[number] for number in results_in_order(calls, answers)]
    assert [number for number in found if number in without_id] == [n for n in order if n in without_id]
    assert all(found[number] == number for number in range(6) if number not in without_id)


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


@pytest.mark.parametrize("key", ["input_schema", "inputSchema", "parameters"])
def test_schemas_of_other_interfaces_are_parameters(key):
    assert parse_tools([{"name": "clock", key: SCHEMA}]) == [
        {"type": "function", "function": {"name": "clock", "parameters": SCHEMA}}
    ]
    with pytest.raises(ConversationError, match="given twice"):
        parse_tools([{"name": "clock", "parameters": {"type": "object"}, "input_schema": SCHEMA}])
