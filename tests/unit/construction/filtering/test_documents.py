import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from nbg_lightning.construction.filtering.documents import Limits, check_document, read_part, readable_place
from nbg_lightning.data.sources import InMemory, JsonLines, PackageSource, Parquet, TextFolder

SMALL = Limits(max_bytes=2000)


def read(source, limits=SMALL):
    return [document for part in source.parts() for document in read_part(part, limits)]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"a text", None),
        ("\ufeffBOM and caf\u00e9".encode(), None),
        (b"", "empty"),
        (b" \n\t ", "empty"),
        (b"\x7fELF\x02\x01\x01\x00\x00", "binary"),
        (bytes(range(1, 32)) * 3, "binary"),
        (b"caf\xe9 in Latin-1", "encoding"),
        ("UTF-16".encode("utf-16"), "encoding"),
        (b"x" * 2001, "too_long"),
        ("half a pair \ud800", "encoding"),
    ],
)
def test_problems(data, problem):
    found = check_document("here", data, SMALL)
    assert found.problem == problem
    assert bool(found.text) == (problem is None)


def test_replacing_what_cannot_be_read():
    lenient = Limits(broken_encoding="replace")
    assert check_document("", b"a long enough caf\xe9", lenient) == ("", "a long enough caf\ufffd", None, True)
    assert check_document("", "a long enough \ud800", lenient).text == "a long enough \ufffd"
    assert check_document("", b"\xe9\xe8" * 9 + b"noise", lenient).problem == "encoding"


def test_json_lines(tmp_path):
    lines = [
        json.dumps({"text": "good"}).encode(),
        b"{broken",
        json.dumps({"other": "no text"}).encode(),
        json.dumps({"text": 7}).encode(),
        json.dumps({"text": None}).encode(),
        b'["a list"]',
        b'{"text": "Latin caf\xe9"}',
        b'{"text": "half \\ud800"}',
        json.dumps({"text": "z" * 3000}).encode(),
        json.dumps({"text": "x" * 100_000}).encode(),
        b"",
        b"[" * 100_000,
        json.dumps({"text": "last"}).encode(),
    ]
    expected = [None, "malformed", "malformed", "malformed", "empty", "malformed", "encoding", "encoding",
                "too_long", "too_long", "too_long", None]  # fmt: skip
    plain, packed = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    plain.write_bytes(b"\n".join(lines))
    packed.write_bytes(gzip.compress(b"\n".join(lines)))
    found = read(JsonLines(str(plain)))
    assert [document.problem for document in found] == expected
    assert [document.problem for document in read(JsonLines(str(packed)))] == expected
    assert readable_place(found[1].place) == f"{plain}:2"
    assert readable_place(found[-1].place) == f"{plain}:13"
    fixed = read(JsonLines(str(plain)), Limits(2000, "replace"))
    assert [d.text for d in fixed if d.fixed] == ["Latin caf\ufffd", "half \ufffd"]


def test_long_lines_across_borders_of_parts(tmp_path, monkeypatch):
    """Every line is read once, even if a part ends within a line that is too long."""
    from nbg_lightning.data import sources

    monkeypatch.setattr(sources.source, "MIN_PART_BYTES", 50_000)
    rows = [f"row {i} " * (20_000 if i % 7 == 3 else 20) for i in range(40)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    source = JsonLines(str(tmp_path / "a.jsonl"))
    assert len(source.parts()) > 5
    found = read(source)
    assert [d.text for d in found if not d.problem] == [row for row in rows if len(row) <= 2000]
    assert sum(d.problem == "too_long" for d in found) == sum(len(row) > 2000 for row in rows)


def test_parquet_with_bytes_that_are_no_text(tmp_path):
    broken = pyarrow.StringArray.from_buffers(
        3, pyarrow.py_buffer(b"\0\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0"), pyarrow.py_buffer(b"ok\xe9x")
    )
    pyarrow.parquet.write_table(pyarrow.table({"text": broken}), tmp_path / "a.parquet")
    found = read(Parquet(str(tmp_path / "a.parquet")))
    assert [(d.text, d.problem) for d in found] == [("ok", None), ("", "encoding"), ("x", None)]
    assert found[1].place == f"{tmp_path / 'a.parquet'}:row group 0, row 1"


def test_folders_packages_and_lists(tmp_path):
    (tmp_path / "good.txt").write_text("text")
    (tmp_path / "image.txt").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    (tmp_path / "long.txt").write_text("x" * 3000)
    found = {document.place.rsplit("/", 1)[1]: document.problem for document in read(TextFolder(str(tmp_path)))}
    assert found == {"good.txt": None, "image.txt": "binary", "long.txt": "too_long"}
    assert [d.problem for d in read(InMemory(["a", "", "b"]))] == [None, "empty", None]
    places = [document.place for document in read(PackageSource("json"), Limits())]
    assert any(place.endswith("json/decoder.py") for place in places)


def test_a_python_file_that_lies_about_its_encoding(tmp_path, monkeypatch):
    package = tmp_path / "liar"
    package.mkdir()
    (package / "__init__.py").write_bytes(b"# -*- coding: ascii -*-\n# caf\xe9\n")
    (package / "fine.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [d.problem for d in read(PackageSource("liar"))] == ["encoding", None]


def test_limits_that_let_nothing_through():
    with pytest.raises(ValueError, match="max_bytes is invalid: 0"):
        Limits(max_bytes=0)
    with pytest.raises(ValueError, match="choose 'drop' or 'replace'"):
        Limits(broken_encoding="ignore")
