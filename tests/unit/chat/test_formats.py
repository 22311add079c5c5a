"""All formats of public chat data: a row gives turns, or a one-line error."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbg_lightning.chat import Conversation, ConversationError
from nbg_lightning.chat.formats import FORMATS, read_row
from nbg_lightning.chat.turns import dialogue_turns

Q, A = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
HUMAN, GPT = {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}
PLAIN = [("user", "q"), ("assistant", "a")]
SYSTEM = [("system", "s"), *PLAIN]
CALL = {"name": "clock", "arguments": {"city": "Rome"}}
CALLED = [("user", "q"), ("assistant", "", CALL), ("tool", "9"), ("assistant", "a")]


def said(conversation):
    """The turns as tuples: role and content, then reasoning, calls and weight where there are any."""
    turns = []
    for message in conversation.messages:
        calls = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls or ()]
        weight = [] if message.weight is None else [message.weight]
        turns.append(
            (message.role, message.content, *([message.reasoning] if message.reasoning else []), *calls, *weight)
        )
    return turns


def chat(*messages, **columns):
    return {"messages": list(messages), **columns}


def sharegpt(*turns, **columns):
    return {"conversations": list(turns), **columns}


def answered(**keys):
    return chat(Q, {"role": "assistant", **keys})


GOOD = {
    # messages
    "messages": (chat(Q, A), PLAIN),
    "messages as JSON text": ({"messages": json.dumps([Q, A])}, PLAIN),
    "messages under conversations": ({"conversations": [Q, A]}, PLAIN),
    "messages under conversation": ({"conversation": [Q, A]}, PLAIN),
    "ShareGPT turns under messages": ({"messages": [HUMAN, GPT]}, PLAIN),
    "empty columns of other formats": (chat(Q, A, conversations=None, prompt=None), PLAIN),
    "harmless columns": (chat(Q, A, id=7, source="x", prompt="q", metadata={"a": 1}), PLAIN),
    "harmless keys of messages": (chat({**Q, "id": 1, "metadata": {}, "timestamp": 3.5}, {**A, "model": "m"}), PLAIN),
    "unknown keys that are null": (chat({**Q, "mood": None}, {**A, "audio": None}), PLAIN),
    "developer": (chat({"role": "developer", "content": "s"}, Q, A), SYSTEM),
    # the system column
    "system column": (chat(Q, A, system="s"), SYSTEM),
    "system_prompt column": (chat(Q, A, system_prompt="s"), SYSTEM),
    "system column that repeats the turn": (chat({"role": "system", "content": "s"}, Q, A, system="s"), SYSTEM),
    "empty system column": (chat(Q, A, system=""), PLAIN),
    "null system column": (chat(Q, A, system=None), PLAIN),
    # two columns of turns
    "two columns that say the same": (chat(Q, A, conversations=[HUMAN, GPT]), PLAIN),
    "an empty column beside a full one": (sharegpt(HUMAN, GPT, messages=[]), PLAIN),
    "answers beside a whole conversation": (chat(Q, A, prompt="q", chosen=[Q, A], rejected=[Q, A]), PLAIN),
    # parts of content
    "parts": (chat({"role": "user", "content": [{"type": "text", "text": "q"}, "!"]}, A), [("user", "q!"), PLAIN[1]]),
    "null keys of parts": (chat({"role": "user", "content": [{"type": "text", "text": "q", "image_url": None}]}, A), PLAIN),
    "reasoning part": (
        answered(content=[{"type": "reasoning", "text": "r"}, {"type": "text", "text": "a"}]),
        [PLAIN[0], ("assistant", "a", "r")],
    ),
    "thinking part": (
        answered(content=[{"type": "thinking", "thinking": "r", "signature": "x"}, {"type": "text", "text": "a"}]),
        [PLAIN[0], ("assistant", "a", "r")],
    ),
    "thinking part of parts": (
        answered(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "r"}]}, {"type": "text", "text": "a"}]),
        [PLAIN[0], ("assistant", "a", "r")],
    ),
    "output_text part": (answered(content=[{"type": "output_text", "text": "a", "annotations": []}]), PLAIN),
    # reasoning
    "reasoning_content": (answered(content="a", reasoning_content="r"), [PLAIN[0], ("assistant", "a", "r")]),
    "thinking": (answered(content="a", thinking="r"), [PLAIN[0], ("assistant", "a", "r")]),
    "reasoning given twice, alike": (
        answered(content="a", reasoning="r", reasoning_content="r"),
        [PLAIN[0], ("assistant", "a", "r")],
    ),
    # which turns are trained
    "train: false": (chat(Q, {**A, "train": False}, Q, A), [PLAIN[0], ("assistant", "a", 0.0), *PLAIN]),
    "train: true": (answered(content="a", train=True), [PLAIN[0], ("assistant", "a", 1.0)]),
    "trainable": (answered(content="a", trainable=0), [PLAIN[0], ("assistant", "a", 0.0)]),
    "training": (answered(content="a", training=False), [PLAIN[0], ("assistant", "a", 0.0)]),
    "loss": (answered(content="a", loss=True), [PLAIN[0], ("assistant", "a", 1.0)]),
    "weight 0": (answered(content="a", weight=0), [PLAIN[0], ("assistant", "a", 0.0)]),
    "weight and train": (answered(content="a", weight=0.5, train=True), [PLAIN[0], ("assistant", "a", 0.5)]),
    "train: false of a user turn": (chat({**Q, "train": False}, A), [("user", "q", 0.0), PLAIN[1]]),
    # calls
    "call, OpenAI": (
        chat(Q, {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": CALL}]}, {"role": "tool", "content": "9"}, A),  # noqa: E501
        CALLED,
    ),
    "call, flat": (chat(Q, {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": "9"}, A), CALLED),
    "calls as JSON text": (
        chat(Q, {"role": "assistant", "tool_calls": json.dumps([CALL])}, {"role": "tool", "content": "9"}, A),
        CALLED,
    ),
    "function_call": (
        chat(Q, {"role": "assistant", "content": None, "function_call": {"name": "clock", "arguments": '{"city": "Rome"}'}},
             {"role": "function", "name": "clock", "content": "9"}, A),
        CALLED,
    ),
    "null in arguments": (
        answered(tool_calls=[{"name": "clock", "arguments": {"city": None}}]),
        [PLAIN[0], ("assistant", "", {"name": "clock", "arguments": {"city": None}})],
    ),
    **{
        f"arguments as {key}": (
            answered(tool_calls=[{"function": {"name": "clock", key: value}}]),
            [PLAIN[0], ("assistant", "", CALL)],
        )
        for key in ("arguments", "parameters", "input", "args")
        for value in ({"city": "Rome"}, '{"city": "Rome"}')[: 1 if key == "args" else 2]
    },
    "arguments beside function": (
        answered(tool_calls=[{"function": {"name": "clock"}, "arguments": {"city": "Rome"}}]),
        [PLAIN[0], ("assistant", "", CALL)],
    ),
    "no arguments": (
        answered(tool_calls=[{"name": "clock"}]),
        [PLAIN[0], ("assistant", "", {"name": "clock", "arguments": {}})],
    ),
    # ShareGPT
    "ShareGPT": (sharegpt(HUMAN, GPT), PLAIN),
    "ShareGPT with a system turn": (sharegpt({"from": "system", "value": "s"}, HUMAN, GPT), SYSTEM),
    "ShareGPT with a system column": (sharegpt(HUMAN, GPT, system="s"), SYSTEM),
    "ShareGPT, other names": (sharegpt({"from": "user", "value": "q"}, {"from": "chatgpt", "value": "a"}), PLAIN),
    "ShareGPT with null keys": (sharegpt({**HUMAN, "role": None, "content": None}, {**GPT, "weight": None}), PLAIN),
    "ShareGPT with a weight": (sharegpt(HUMAN, {**GPT, "weight": 0}), [PLAIN[0], ("assistant", "a", 0.0)]),
    "ShareGPT function_call": (
        sharegpt(HUMAN, {"from": "function_call", "value": json.dumps(CALL)}, {"from": "observation", "value": "9"}, GPT),
        CALLED,
    ),
    "ShareGPT tool with tags": (
        sharegpt(HUMAN, {"from": "function_call", "value": CALL}, {"from": "tool", "value": "<tool_response>\n9\n</tool_response>"}, GPT),  # noqa: E501
        CALLED,
    ),
    "ShareGPT two calls": (
        sharegpt(HUMAN, {"from": "function_call", "value": json.dumps([CALL, CALL])}),
        [PLAIN[0], ("assistant", "", CALL, CALL)],
    ),
    "ShareGPT thinking": (
        sharegpt(HUMAN, {"from": "gpt", "value": "<think>\nr\n</think>\n\na"}),
        [PLAIN[0], ("assistant", "a", "r")],
    ),
    # Alpaca
    "Alpaca": ({"instruction": "q", "input": "", "output": "a"}, PLAIN),
    "Alpaca with input": ({"instruction": "q", "input": "x", "output": "a"}, [("user", "q\nx"), PLAIN[1]]),
    "Alpaca without input": ({"instruction": "q", "output": "a", "text": "Below is …"}, PLAIN),
    "Alpaca response": ({"instruction": "q", "response": "a"}, PLAIN),
    "Alpaca system": ({"instruction": "q", "output": "a", "system": "s"}, SYSTEM),
    "Alpaca history": ({"instruction": "q", "output": "a", "history": [["q", "a"]]}, [*PLAIN, *PLAIN]),
    # prompt and completion
    "prompt and completion": ({"prompt": "q", "completion": "a"}, PLAIN),
    "prompt and completion, messages": ({"prompt": [Q], "completion": [A]}, PLAIN),
    "prompt with rounds": (
        {"prompt": [Q, A, Q], "completion": [A]},
        [PLAIN[0], ("assistant", "a", 0.0), *PLAIN],
    ),
    "prompt as a dialogue": (
        {"prompt": "\n\nHuman: q\n\nAssistant: a\n\nHuman: q\n\nAssistant:", "completion": " a"},
        [PLAIN[0], ("assistant", "a", 0.0), *PLAIN],
    ),
    "prompt and response": ({"prompt": "q", "response": "a"}, PLAIN),
    "question and answer": ({"question": "q", "answer": "a"}, PLAIN),
    "question and response": ({"system_prompt": "s", "question": "q", "response": "a"}, SYSTEM),
    "query and response": ({"query": "q", "response": "a"}, PLAIN),
    "texts that begin as lists": (
        {"prompt": "[1, 2] sum?", "completion": "[3]", "label": "maths"},
        [("user", "[1, 2] sum?"), ("assistant", "[3]")],
    ),
    "an answer that is JSON": (
        {"prompt": '[{"role": "user" is cut', "completion": '[{"value": 3}]'},
        [("user", '[{"role": "user" is cut'), ("assistant", '[{"value": 3}]')],
    ),
    "prompt as JSON text": ({"prompt": json.dumps([Q]), "completion": json.dumps([A])}, PLAIN),
    "a label of a kind": ({"question": "q", "answer": "a", "label": 1}, PLAIN),
    "ShareGPT two results": (
        sharegpt(HUMAN, {"from": "function_call", "value": [CALL, CALL]}, {"from": "tool", "value":
                 "<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response>"}, GPT),
        [PLAIN[0], ("assistant", "", CALL, CALL), ("tool", "1"), ("tool", "2"), PLAIN[1]],
    ),
    "input and output": ({"input": "q", "output": "a"}, PLAIN),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_rows_become_turns(name):
    row, turns = GOOD[name]
    assert said(Conversation.from_dict(row)) == turns


DEEP = "[" * 100_000 + "]" * 100_000
BAD = {
    "two conversations": (
        chat(Q, A, conversations=[GPT, HUMAN]),
        "'messages' and 'conversations' hold different conversations",
    ),
    "two conversations, one as JSON": (
        {"messages": json.dumps([Q, A]), "conversation": [HUMAN, {**GPT, "value": "b"}]},
        "'messages' and 'conversation' hold different",
    ),
    "two answers": (
        {"question": "q", "answer": "42", "response": "so 42"},
        "'answer' and 'response' say different things",
    ),
    "two questions": (
        {"input": "q", "output": "a", "question": "p", "answer": "a"},
        "'question' and 'input' say different",
    ),
    "two Alpaca answers": (
        {"instruction": "q", "output": "a", "response": "b"},
        "'output' and 'response' say different",
    ),
    "messages and verdict": (chat(Q, A, label=False), "KTO"),
    "ShareGPT and verdict": (sharegpt(HUMAN, GPT, kto_tag=True), "KTO"),
    "Alpaca and verdict": ({"instruction": "q", "input": "", "output": "a", "kto_tag": False}, "KTO"),
    "answers to a conversation": (
        sharegpt(HUMAN, GPT, HUMAN, chosen=GPT, rejected={**GPT, "value": "b"}),
        "give it to a pair source",
    ),
    "a turn with two texts": (sharegpt({**HUMAN, "content": "other"}, GPT), "as 'value' and as 'content'"),
    "no object": ([Q, A], "a sample must be an object, got list"),
    "nothing": ({}, r"no 'messages' key \(keys: none\)"),
    "text": ({"text": "t"}, "a column of plain text is for CurriculumDataModule"),
    "misspelt": ({"mesages": [Q, A]}, "did you mean 'messages'"),
    "messages is an object": ({"messages": {"role": "user"}}, "messages must be a list, got dict"),
    "messages is a text": ({"messages": "hello"}, "messages must be a list, got str"),
    "messages is no JSON": ({"messages": "[{"}, "messages are not JSON"),
    "messages is deep JSON": ({"messages": DEEP}, "messages are nested too deeply"),
    "empty messages": (chat(), "messages are empty"),
    "only system": (chat({"role": "system", "content": "s"}), "no assistant turn"),
    "two systems": (
        chat({"role": "system", "content": "s"}, Q, {"role": "system", "content": "s"}),
        "may only come first",
    ),
    "unknown role": (chat({"role": "wizard", "content": "q"}, A), "unknown role 'wizard'"),
    "role is a list": (chat({"role": ["user"], "content": "q"}, A), "unknown role 'list'"),
    "content is a number": (chat({"role": "user", "content": 3}, A), "content must be a string, got int"),
    "content is bytes": (chat({"role": "user", "content": b"q"}, A), "content must be a string, got bytes"),
    "content is an object": (chat({"role": "user", "content": {"text": "q"}}, A), "content must be a string, got dict"),
    "half of a pair": (chat({"role": "user", "content": "x\ud800"}, A), "half of a surrogate pair at character 1"),
    "image": (
        chat({"role": "user", "content": [{"type": "image_url", "text": "", "image_url": {"url": "x"}}]}, A),
        "part of type 'image_url'; only text",
    ),
    "image without a type": (
        chat({"role": "user", "content": [{"text": "q", "image": "x"}]}, A),
        "key 'image'; only text",
    ),
    "image column": (chat(Q, A, images=["x.png"]), "column 'images' has content: only text"),
    "audio": (chat({"role": "user", "content": [{"type": "input_audio"}]}, A), "part of type 'input_audio'; only text"),
    "reasoning of a user": (
        chat({"role": "user", "content": [{"type": "reasoning", "text": "r"}, {"type": "text", "text": "q"}]}, A),
        "reasoning belongs to assistant turns",
    ),
    "reasoning behind the text": (
        answered(content=[{"type": "text", "text": "a"}, {"type": "thinking", "thinking": "r"}]),
        "reasoning must come first",
    ),
    "reasoning given twice": (answered(content="a", reasoning="r", thinking="s"), "reasoning is given twice"),
    "reasoning is a flag": (answered(content="a", thinking=True), "reasoning must be a string, got bool"),
    "unknown key": (chat(Q, {**A, "mood": "good"}), "unknown key 'mood' in a message"),
    "misspelt key": (chat(Q, {**A, "tool_call": []}), "did you mean 'tool_calls'"),
    "train is a text": (answered(content="a", train="false"), "train must be true or false, got 'false'"),
    "train is a number": (answered(content="a", loss=0.3), "loss must be true or false"),
    "train against weight": (answered(content="a", weight=1, train=False), "says the opposite"),
    "trained user": (chat({**Q, "train": True}, A), "weight belongs to assistant turns"),
    "two system prompts": (chat(Q, A, system="s", system_prompt="t"), "say different things"),
    "system against the turn": (chat({"role": "system", "content": "t"}, Q, A, system="s"), "say different things"),
    "system is a number": (chat(Q, A, system=3), "the system column must be a text, got int"),
    "arguments twice": (
        answered(tool_calls=[{"name": "f", "arguments": {}, "input": {}}]),
        "given twice: as 'arguments'",
    ),
    "arguments no JSON": (answered(tool_calls=[{"name": "f", "arguments": "{"}]), "'f' are not JSON"),
    "arguments with a key twice": (
        answered(tool_calls=[{"name": "f", "arguments": '{"a":1,"a":2}'}]),
        "the key 'a' twice",
    ),
    "arguments as a list": (answered(tool_calls=[{"name": "f", "arguments": "[1]"}]), "must be an object, got list"),
    "arguments with NaN": (answered(tool_calls=[{"name": "f", "arguments": '{"a": NaN}'}]), "the number nan"),
    "arguments endless": (answered(tool_calls=[{"name": "f", "arguments": '{"a": 1e999}'}]), "the number inf"),
    "arguments with a long number": (
        answered(tool_calls=[{"name": "f", "arguments": '{"a": ' + "9" * 5000 + "}"}]),
        "too many digits",
    ),
    "arguments with half a pair": (
        answered(tool_calls=[{"name": "f", "arguments": {"\udc00": 1}}]),
        "half of a surrogate",
    ),
    "arguments too deep": (
        answered(tool_calls=[{"name": "f", "arguments": '{"a":' + DEEP + "}"}]),
        "nested too deeply",
    ),
    "arguments of another type": (answered(tool_calls=[{"name": "f", "arguments": {"a": {1}}}]), "a value of type set"),
    "a key that is no text": (answered(tool_calls=[{"name": "f", "arguments": {1: 2}}]), "a key of type int"),
    "call with an unknown key": (answered(tool_calls=[{"name": "f", "argumets": {}}]), "did you mean 'arguments'"),
    "call of a custom tool": (answered(tool_calls=[{"name": "f", "type": "custom"}]), "only functions can be called"),
    "calls twice": (answered(tool_calls=[CALL], function_call=CALL), "given twice: as tool_calls and as function_call"),
    "name is a number": (chat(Q, A, Q, {**A, "name": 5}), "message 3: name must be a text"),
    "schema with half a pair": (chat(Q, A, tools=[{"name": "f", "description": "\ud800"}]), "half of a surrogate pair"),
    "schema with NaN": (chat(Q, A, tools='[{"name": "f", "default": NaN}]'), "the number nan"),
    "tools and functions": (chat(Q, A, tools=[{"name": "f"}], functions=[{"name": "g"}]), "say different things"),
    "ShareGPT sender": (sharegpt({"from": "wizard", "value": "q"}, GPT), "unknown sender 'wizard'"),
    "ShareGPT and message": (sharegpt(HUMAN, {**GPT, "content": "b"}), "as 'value' and as 'content'"),
    "ShareGPT without value": (sharegpt(HUMAN, {"from": "gpt"}), "empty assistant content"),
    "ShareGPT begins with gpt": (sharegpt(GPT, HUMAN, GPT), "the first turn must be system or user"),
    "ShareGPT function_call": (
        sharegpt(HUMAN, {"from": "function_call", "value": "clock()"}),
        "a function_call is not JSON",
    ),
    "Alpaca without an answer": ({"instruction": "q", "output": ""}, "empty assistant content"),
    "Alpaca answer is a list": (
        {"instruction": "q", "output": ["a"], "history": [["q"]]},
        r"rounds \[question, answer\]",
    ),
    "prompt is a number": ({"prompt": 3, "completion": "a"}, "prompt must be a text or a list of messages"),
    "answer is a number": ({"question": "q", "answer": 4}, "answer must be a text, got int"),
    "template settings": (chat(Q, A, chat_template_kwargs={"x": 1}), "settings of a template"),
    "preference": ({"prompt": "q", "chosen": "a", "rejected": "b"}, "give it to a pair source"),
    "thinking within thinking": (
        answered(content=[{"type": "thinking", "thinking": [{"type": "thinking", "thinking": []}]}]),
        "part of type 'thinking' with parts that are no text",
    ),
    "endless weight": (answered(content="a", weight=10**400), "weight must be finite"),
    "Alpaca answer is a part": ({"instruction": "q", "output": ["a"]}, "the output must be a text, got list"),
    "question and verdict": ({"question": "q", "answer": "a", "label": True}, "KTO"),
    "KTO": ({"prompt": "q", "completion": "a", "label": False}, "KTO"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_refused_in_one_short_line(name):
    row, cause = BAD[name]
    with pytest.raises(ConversationError, match=cause) as error:
        Conversation.from_dict(row)
    line = str(error.value)
    assert line.isprintable() and len(line) < 300


def test_the_format_may_be_given():
    row = {"messages": [Q, A], "conversations": [{"from": "human", "value": "other"}, GPT]}
    assert said(Conversation.from_dict(row, row_format="messages")) == PLAIN
    assert said(Conversation.from_dict(row, row_format="sharegpt")) == [("user", "other"), PLAIN[1]]
    with pytest.raises(ConversationError, match="the row is not in the format Alpaca"):
        Conversation.from_dict(row, row_format="alpaca")


ROUNDS = {
    "history": ({"query": "q", "response": "a", "history": [["x", "y"]]}, [("user", "x"), ("assistant", "y"), *PLAIN]),
    "history as JSON": (
        {"prompt": "q", "response": "a", "history": '[["x", "y"]]'},
        [("user", "x"), ("assistant", "y"), *PLAIN],
    ),
    "a question of messages": (
        {"input": [HUMAN, GPT, HUMAN], "output": "a"},
        [PLAIN[0], ("assistant", "a", 0.0), *PLAIN],
    ),
    "content in ShareGPT turns": (sharegpt({"from": "human", "content": "q"}, {"from": "gpt", "content": "a"}), PLAIN),
}


@pytest.mark.parametrize("name", ROUNDS)
def test_earlier_rounds_are_read(name):
    row, turns = ROUNDS[name]
    assert said(Conversation.from_dict(row)) == turns


def test_a_column_of_another_answer_is_said_to_be_unused():
    found = read_row({"prompt": "q", "response": "a", "answer": "42"})
    assert "column not used: answer" in found.notes and "column not used: response" not in found.notes


def test_ignored_keys_are_left_out():
    row = chat({**Q, "mood": "good"}, A)
    assert said(Conversation.from_dict(row, ignored_keys=["mood"])) == PLAIN


def test_notes_say_what_was_read():
    row = sharegpt(HUMAN, GPT, system="s", id=3, lang="en")
    assert read_row(row).notes == (
        "read as ShareGPT (conversations, from/value)",
        "system turns from a column",
        "column not used: id",
        "column not used: lang",
    )


def test_dialogues():
    assert dialogue_turns("Human: Say\n\nHuman\n\nAssistant: Human: is\n\na word\n\nHuman: ok\n\nAssistant: ") == [
        {"role": "user", "content": "Say\n\nHuman"},
        {"role": "assistant", "content": "Human: is\n\na word"},
        {"role": "user", "content": "ok"},
    ]


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(
    lambda text: text.strip() and "think>" not in text and "tool_response>" not in text
)
rounds = st.lists(st.tuples(texts, texts), min_size=1, max_size=4)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(rounds, st.none() | texts)
def test_all_formats_say_the_same(rounds, system):
    turns = [(role, text) for pair in rounds for role, text in zip(("user", "assistant"), pair, strict=True)]
    plain = chat(*({"role": role, "content": text} for role, text in turns))
    names = {"user": "human", "assistant": "gpt"}
    rows = [
        plain,
        {"messages": json.dumps(plain["messages"])},
        sharegpt(*({"from": names[role], "value": text} for role, text in turns)),
        {"history": rounds[:-1], "instruction": rounds[-1][0], "output": rounds[-1][1]},
    ]
    if len(rounds) == 1:
        rows += [{"prompt": rounds[0][0], "response": rounds[0][1]}, {"question": rounds[0][0], "answer": rounds[0][1]}]
    for row in rows:
        found = Conversation.from_dict({**row, "system": system})
        assert said(found) == ([("system", system)] if system and system.strip() else []) + turns


WORDS = ["messages", "conversations", "role", "content", "from", "value", "tool_calls", "function", "name", "arguments", "type",
         "text", "user", "assistant", "human", "gpt", "tool", "function_call", "tools", "system", "prompt", "completion",
         "instruction", "output", "weight", "train", "thinking", "tool_call_id", "history", "input", "\ud800", "id"]  # fmt: skip
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.binary(max_size=2)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)
odd_turns = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool"]), "content": st.just("x") | values},
        optional=dict.fromkeys(("tool_calls", "function_call", "weight", "reasoning", "name", "tool_call_id"), values),
    ),
    max_size=3,
)


def outcome(row):
    """The calls of a conversation as JSON, or the error's line."""
    try:
        found = Conversation.from_dict(row)
    except ConversationError as error:
        return str(error)
    return json.dumps(
        [[call.to_dict() for call in message.tool_calls or ()] for message in found.messages], allow_nan=False
    )


@settings(max_examples=600, derandomize=True, deadline=None)
@given(
    st.dictionaries(st.sampled_from(WORDS), values | odd_turns, max_size=4) | odd_turns.map(lambda t: chat(*t)) | values
)
def test_odd_rows_are_conversations_or_errors_of_one_line(row):
    line = outcome(row)
    assert line.isprintable() and line.isascii()


def test_every_format_names_its_columns():
    for name, found in FORMATS.items():
        row = next(row for row, _ in GOOD.values() if isinstance(row, dict) and found.fits(row))
        assert found.columns & set(row), name
