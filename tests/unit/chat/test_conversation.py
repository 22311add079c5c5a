from __future__ import annotations

import json
import subprocess
import sys

import pytest

from nbg_lightning.chat import Conversation, ConversationError, Message, ToolCall
from nbg_lightning.chat.conversation import split_thinking
from nbg_lightning.chat.values import read_json

USER = {"role": "user", "content": "hello"}
ANSWER = {"role": "assistant", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


def call(**extra):
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"name": "add", "arguments": {"a": 1}}],
        **extra,
    }


def test_package_imports_no_torch():
    code = "import sys, nbg_lightning.chat as c; c.Conversation, c.NanbeigeRenderer, c.JinjaRenderer; "
    code += "import nbg_lightning.chat.preview, nbg_lightning.data.packing; "
    code += "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_plain_messages_are_parsed():
    sample = {"messages": [{"role": "system", "content": "Be kind."}, USER, ANSWER], "domain": "chat"}
    conversation = Conversation.from_dict(sample)
    assert conversation.messages[2] == Message("assistant", "hi")
    assert conversation.domain == "chat"
    assert conversation.tools is None


def test_text_parts_are_joined():
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    assert Conversation([{"role": "user", "content": parts}, ANSWER]).messages[0].content == "hello"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\na\n\nb\n</think>\n\nc\n", ("a\n\nb", "c\n")),
        ("\n<think>a</think>c", ("a", "c")),
        ("a\n</think>\n\nc", ("a", "c")),  # the opening tag was part of the prompt
        ("<think>\n\n</think>\n\nc", (None, "c")),
        ("no thinking", (None, "no thinking")),
        ("The tags are <think> and </think>.", (None, "The tags are <think> and </think>.")),
    ],
)
def test_split_thinking(text, expected):
    assert split_thinking(text) == expected


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_field_equals_think_tags(key):
    field = Conversation([USER, {"role": "assistant", "content": "4", key: "\n2+2\n"}])
    tags = Conversation([USER, {"role": "assistant", "content": "<think>\n2+2\n</think>\n\n4"}])
    assert field == tags
    assert tags.messages[1].reasoning == "2+2"


@pytest.mark.parametrize(
    "value",
    [
        {"id": "7", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
        {"id": "7", "function": {"name": "add", "arguments": {"a": 1}}},
        {"id": 7, "name": "add", "arguments": {"a": 1}},
        {"id": "7", "name": "add", "arguments": '{"a": 1}'},
    ],
)
def test_tool_call_forms(value):
    assert ToolCall.parse(value) == ToolCall("add", {"a": 1}, "7")


def test_tool_call_without_arguments():
    assert ToolCall.parse({"name": "now", "arguments": ""}) == ToolCall("now", {})
    assert ToolCall.parse({"name": "now"}) == ToolCall("now", {})


@pytest.mark.parametrize("tools", [[TOOL], [TOOL["function"]], json.dumps([TOOL]), [json.dumps(TOOL["function"])]])
def test_tool_schema_forms(tools):
    assert Conversation([USER, ANSWER], tools).tools == [TOOL]


@pytest.mark.parametrize("tools", [None, "", [], "[]"])
def test_no_tools(tools):
    assert Conversation([USER, ANSWER], tools).tools is None


def test_tool_results_may_be_empty_and_consecutive():
    results = [{"role": "tool", "content": ""}, {"role": "tool", "content": "3", "name": "add"}]
    assert len(Conversation([USER, call(), *results, ANSWER], [TOOL]).messages) == 5


def test_last_query_ignores_tool_results_written_as_user_turns():
    result = {"role": "user", "content": "<tool_response>\n3\n</tool_response>"}
    assert Conversation([USER, ANSWER, USER, call(), result, ANSWER]).last_query() == 2


@pytest.mark.parametrize(
    ("messages", "tools", "cause"),
    [
        ([], None, "messages are empty"),
        ("hello", None, "messages must be a list"),
        (["hello"], None, "message 0: a message must be an object, got str"),
        ([{"from": "human", "value": "x"}], None, r"message 0: has no role \(keys: from, value\)"),
        ([{"role": "human", "content": "x"}], None, "message 0: unknown role 'human'"),
        ([ANSWER], None, "message 0: the first turn must be system or user, got assistant"),
        ([USER, ANSWER, ANSWER], None, "message 2: two assistant turns in a row"),
        ([USER, USER], None, "message 1: two user turns in a row"),
        ([USER, {"role": "system", "content": "x"}], None, "message 1: a system turn may only come first"),
        ([{"role": "system", "content": "x"}, ANSWER], None, "message 1: .*a user turn is missing"),
        ([USER, {"role": "tool", "content": "x"}], None, "message 1: a tool turn must follow an assistant"),
        ([USER, {"role": "assistant", "content": " \n"}], None, "message 1: empty assistant content"),
        ([{"role": "user", "content": None}, ANSWER], None, "message 0: empty user content"),
        (
            [USER, {"role": "assistant", "content": "<think>\nlost"}],
            None,
            "message 1: <think> is never closed",
        ),
        (
            [USER, {"role": "assistant", "content": "<think>a</think>b", "reasoning_content": "a"}],
            None,
            "message 1: reasoning is given twice",
        ),
        ([{**USER, "reasoning_content": "x"}, ANSWER], None, "message 0: reasoning belongs to assistant"),
        ([{"role": "user", "content": [{"type": "image"}]}], None, "message 0: .*part of type 'image'"),
        ([{"role": "user", "content": 3}], None, "message 0: content must be a string, got int"),
        ([USER, {**ANSWER, "weight": -1}], None, "message 1: weight must be finite and >= 0"),
        ([USER, {**ANSWER, "weight": float("nan")}], None, "message 1: weight must be finite"),
        ([USER, {**ANSWER, "weight": "1"}], None, "message 1: weight must be a number"),
        ([{**USER, "weight": 1}, ANSWER], None, "message 0: weight belongs to assistant turns"),
        ([USER, call(tool_calls=[{"arguments": {}}])], None, "message 1: a tool call has no name"),
        ([USER, call(tool_calls=[{"name": "add", "arguments": "{"}])], None, "'add' are not JSON"),
        (
            [USER, call(tool_calls=[{"name": "add", "arguments": [1]}])],
            None,
            "'add' must be an object, got list",
        ),
        ([USER, call(tool_calls=["add"])], None, "message 1: a tool call must be an object"),
        ([{**USER, "tool_calls": [{"name": "add"}]}], None, "message 0: tool_calls belong to assistant"),
        ([USER, call()], [{"name": "mul"}], r"message 1: calls tool 'add', .*\(mul\)"),
        ([USER, ANSWER], "{", "tools are not JSON"),
        ([USER, ANSWER], ["{"], "tool 0 is not JSON"),
        ([USER, ANSWER], {"name": "add"}, "tools must be a list of JSON schemas, got dict"),
        ([USER, ANSWER], [{"type": "browser"}], "tool 0 has an unknown schema"),
        ([USER, ANSWER], [{"name": "add", "parameters": "x"}], "parameters of tool 'add'"),
    ],
)
def test_bad_conversations_name_the_cause_in_one_line(messages, tools, cause):
    with pytest.raises(ConversationError, match=cause) as error:
        Conversation(messages, tools)
    assert "\n" not in str(error.value)


def test_from_dict_wants_messages_and_an_assistant_turn():
    with pytest.raises(ConversationError, match=r"no 'messages' key \(keys: text\)"):
        Conversation.from_dict({"text": "x"})
    with pytest.raises(ConversationError, match="no assistant turn"):
        Conversation.from_dict({"messages": [USER]})
    assert len(Conversation.from_dict({"messages": [USER]}, require_assistant=False).messages) == 1


@pytest.mark.parametrize("text", [
    '{"a": 1, "a": 2}', '{"a" : 1, "a": 2}', '{"a":1,"b":{"c":[{"d":1,"d":2}]}}', '{"a\\t":1, "b":"x\\": y", "b":2}',
    '{"a":"\\":", "a":1}', '{"a"\n:1, "\\u0061":1}', '{"\\u0061":1,"a":"\\":"}', '[{"a":1,"a" \t:"\\":"}]',
])  # fmt: skip
def test_a_key_given_twice_is_found_however_it_is_written(text):
    with pytest.raises(ConversationError, match="twice"):
        read_json(text, "the row is")


@pytest.mark.parametrize("text", [
    '{"a":1,"b":{"a":1}}', '{"a": "\\":", "b" : [":", {"c":"\\": \\":"}]}', '[]', '"\\":"', '{"a":{"a":{"a":[{"a":{}}]}}}',
    '{"":"", "\\"":1}',
])  # fmt: skip
def test_other_json_is_read_as_ever(text):
    assert read_json(text, "the row is") == json.loads(text)


@pytest.mark.parametrize(
    ("before", "after"), [("[", "]"), ('{"a":', "}"), ('[{"a": ', "}]")], ids=["lists", "objects", "both"]
)
@pytest.mark.parametrize(("start", "end"), [("", ""), ('{"n": [1, {}], "b": ', "}")], ids=["alone", "below"])
def test_64_levels_are_the_most_on_every_stack(before, after, start, end):
    """Fewer than Python's own limit, which depends on what else runs."""
    levels = (before.count("[") + before.count("{")) or 1
    most = (64 - bool(start)) // levels
    text = start + before * most + "1" + after * most + end
    assert read_json(text, "the row is") == json.loads(text)
    with pytest.raises(ConversationError, match="nested too deeply: 64 levels"):
        read_json(start + before * (most + 1) + "1" + after * (most + 1) + end, "the row is")


def test_many_objects_beside_each_other_are_not_deep():
    text = json.dumps([{"a": [{"b": n}]} for n in range(1000)])
    assert read_json(text, "it is") == json.loads(text)
