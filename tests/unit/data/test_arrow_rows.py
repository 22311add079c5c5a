"""Nulls filled in by Arrow are dropped; nulls given by a user are kept."""

import json

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset

from nbg_lightning.chat import Conversation
from nbg_lightning.data import ChatHuggingFace, ChatJsonLines, ChatList, ChatParquet, PairHuggingFace, PairParquet
from nbg_lightning.data.arrow_rows import without_nulls
from nbg_lightning.data.pairs import PreferencePair
from nbg_lightning.data.reading import Notes, read_conversations


def tool(name, properties):
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


def calling(name, arguments):
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}],
    }


def row(name, arguments, properties):
    turns = [{"role": "user", "content": "q"}, calling(name, arguments), {"role": "tool", "content": "9"}]
    return {"messages": [*turns, {"role": "assistant", "content": "a"}], "tools": [tool(name, properties)]}


ROWS = [
    row("clock", {"city": "Rome", "at": {"hour": 9}}, {"city": {"type": "string"}}),
    row("add", {"a": 2, "terms": [1, 2]}, {"a": {"type": "integer", "enum": [1, 2]}}),
]


def conversations(source):
    """What a source's rows are, and how many keys were left out."""
    found, removed = [], 0
    for part in source.parts():
        found += list(read_conversations(part.rows(), Notes(), source.format))
        removed += part.nulls_removed
    return found, removed


@pytest.fixture
def sources(tmp_path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    table = Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path / "cache"))
    table.save_to_disk(tmp_path / "disk")
    return [ChatParquet(str(tmp_path / "rows.parquet")), ChatHuggingFace(str(tmp_path / "disk"))]


def test_arrow_gives_what_was_put_in(sources):
    assert "null" in json.dumps(pyarrow.parquet.read_table(sources[0].path).to_pylist())
    expected = [Conversation.from_dict(given) for given in ROWS]
    for source in sources:
        found, removed = conversations(source)
        assert found == expected
        assert removed == 6  # two arguments and one property in each row


def test_nulls_of_json_stay(tmp_path):
    given = row("clock", {"city": None}, {"city": {"type": "string", "default": None}})
    (tmp_path / "rows.jsonl").write_text(json.dumps(given) + "\n")
    for source in (ChatJsonLines(str(tmp_path / "rows.jsonl")), ChatList([given])):
        (found,), removed = conversations(source)
        assert found.messages[1].tool_calls[0].arguments == {"city": None}
        assert found.tools[0]["function"]["parameters"]["properties"]["city"]["default"] is None
        assert removed == 0


def test_json_text_in_arrow_stays(tmp_path):
    given = row("clock", json.dumps({"city": None}), {})
    given["tools"] = json.dumps([tool("clock", {"city": {"default": None}})])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([given]), tmp_path / "rows.parquet")
    (found,), removed = conversations(ChatParquet(str(tmp_path / "rows.parquet")))
    assert found.messages[1].tool_calls[0].arguments == {"city": None}
    assert found.tools[0]["function"]["parameters"]["properties"] == {"city": {"default": None}}
    assert removed == 0


def test_lists_and_maps():
    calls = [
        {"function": {"name": "f", "arguments": {"list": [None, {"a": None, "b": 1}], "map": [("k", 1), ("l", None)]}}}
    ]
    clean, removed = without_nulls(
        {"messages": [{"role": "assistant", "content": None, "tool_calls": calls}], "id": None}
    )
    assert clean["messages"][0]["tool_calls"][0]["function"]["arguments"] == {"list": [None, {"b": 1}], "map": {"k": 1}}
    assert removed == 2 and clean["id"] is None
    assert calls[0]["function"]["arguments"]["list"][1] == {"a": None, "b": 1}  # the given row is not touched


def test_pairs(tmp_path):
    rows = [
        {
            "prompt": "q",
            "chosen": [calling("clock", {"city": "Rome"})],
            "rejected": [calling("clock", {"zone": "UTC"})],
        },
        {"prompt": "q", "chosen": [calling("add", {"a": 2})], "rejected": [calling("add", {"a": 3})]},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    Dataset.from_parquet(str(tmp_path / "pairs.parquet"), cache_dir=str(tmp_path / "c")).save_to_disk(tmp_path / "disk")
    for source in (PairParquet(str(tmp_path / "pairs.parquet")), PairHuggingFace(str(tmp_path / "disk"))):
        (part,) = source.parts()
        assert [PreferencePair.from_dict(found) for found in part.rows()] == [PreferencePair.from_dict(r) for r in rows]
        assert part.nulls_removed == 4
