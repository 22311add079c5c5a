"""Lines end with a line feed only, and can contain whatever a model generates."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbg_lightning.json_lines import json_line, read_json_lines

TEXTS = st.text(st.characters(codec=None), max_size=30)  # halves of surrogate pairs too


@settings(derandomize=True, deadline=None, max_examples=200)
@given(values=st.lists(st.dictionaries(TEXTS, TEXTS, max_size=3), max_size=5))
def test_what_is_written_is_read(tmp_path_factory, values):
    file = tmp_path_factory.mktemp("lines") / "lines.jsonl"
    file.write_bytes(b"".join(map(json_line, values)))
    file.read_bytes().decode("utf-8")
    assert [value for _, value in read_json_lines(file)] == values


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
def test_line_ends_of_other_alphabets_end_no_line(tmp_path, character):
    file = tmp_path / "lines.jsonl"
    rows = [{"text": f"a{character}b"}, {"text": "c"}]
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    assert list(read_json_lines(file)) == [(1, rows[0]), (2, rows[1])]


def test_errors_name_the_line(tmp_path):
    file = tmp_path / "lines.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": 2\n' + b"[" * 100_000 + b"\n\xff\n3\n")
    torn = []
    assert list(read_json_lines(file, torn=lambda number, reason: torn.append(number))) == [(1, {"a": 1}), (6, 3)]
    assert torn == [3, 4, 5]
    with pytest.raises(ValueError, match=r"lines\.jsonl, line 3 is not JSON .*; fix or remove it"):
        list(read_json_lines(file))


def test_a_compressed_file_without_an_end_of_line_does_not_fill_the_memory(tmp_path):
    file = tmp_path / "bomb.jsonl.gz"
    with gzip.open(file, "wb") as stream:
        stream.write(b'{"a": 1}\n' + bytes(1 << 22))
    lines = read_json_lines(file, longest=1 << 16)
    assert next(lines) == (1, {"a": 1})
    with pytest.raises(ValueError, match=r"bomb\.jsonl\.gz, line 2 is longer than 65,536 bytes"):
        next(lines)
