"""Guessing sources: files by extension, folders by content, hub names."""

import gzip
import re

import pytest

from nbg_lightning.data.guess import guess_source, source_names


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "one/a.parquet",
        "one/deep/b.parquet",
        "two/a.jsonl",
        "two/b.parquet",
        "texts/a.md",
        "odd/a.csv",
        "plain",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{}")
    (tmp_path / "list.json").write_text(' [{"a": 1}]')
    (tmp_path / "lines.json").write_text('{"text": "a"}\n')
    with gzip.open(tmp_path / "chats.jsonl.gz", "wt") as stream:
        stream.write("{}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        ("later.jsonl", "documents", "JsonLines"),
        ("corpus/*.jsonl.gz", "documents", "JsonLines"),
        ("chats.jsonl.gz", "conversations", "ChatJsonLines"),
        ("lines.json", "documents", "JsonLines"),
        ("one", "pairs", "PairParquet"),
        ("one/*", "questions", "QuestionParquet"),
        ("texts", "documents", "TextFolder"),
        ("saved", "conversations", "ChatHuggingFace"),
        ("HuggingFaceH4/no_robots", "conversations", "ChatHuggingFace"),
        ("openai/gsm8k", "questions", "QuestionHuggingFace"),
    ],
)
def test_is_told_by_what_it_is_called(here, text, kind, found):
    guess = guess_source(text, kind)
    assert guess.class_path == f"nbg_lightning.data.{found}"
    assert guess.argument == ("name_or_folder" if found.endswith("HuggingFace") else "path")


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("two", "documents", "the folder has JSON lines and Parquet; give a pattern, such as two/*.jsonl"),
        ("odd", "documents", "the folder has no file that ends in .jsonl"),
        ("plain", "documents", "its extension is unknown"),
        ("two/*", "documents", "it matches JSON lines and Parquet"),
        ("none/*", "documents", "it matches no file"),
        ("texts", "pairs", "texts give no pairs"),
        ("list.json", "documents", "one JSON list; write one object a line"),
        ("./chats.jsonl.gzz", "documents", "no such file (did you mean chats.jsonl.gz?)"),
        ("imdb", "documents", "no such file; give a file, a folder"),
        ("", "documents", "path is invalid: ''; give a file, a folder"),
        (" ", "questions", "path is invalid: ' '; give a file, a folder"),
    ],
)
def test_what_is_unclear_is_answered_in_one_line(here, text, kind, said):
    with pytest.raises(ValueError, match=rf"^.*{re.escape(said)}.*$") as error:
        guess_source(text, kind)
    assert "\n" not in str(error.value)


def test_sources_without_names_are_called_like_their_files():
    assert source_names(
        ["~/a/chats.jsonl.gz", "corpus/web/**/*.parquet", "owner/name", "*.jsonl", ".hidden.jsonl"]
    ) == [
        "chats",
        "web",
        "name",
        "data",
        "hidden",
    ]
    with pytest.raises(ValueError, match=r"two are called a; give names"):
        source_names(["x/a.jsonl", "y/a.jsonl"])
