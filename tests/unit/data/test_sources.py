import gzip
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import jsonargparse
import pytest

from nbg_lightning.data import QuestionJsonLines, sources
from nbg_lightning.data.sources import (
    HuggingFace,
    InMemory,
    JsonLines,
    PackageSource,
    Parquet,
    ReasoningGym,
    Source,
    TextFolder,
    docstrings,
)


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of a few hundred bytes, so that small test data has many."""
    monkeypatch.setattr(sources.source, "MIN_PART_BYTES", 300)
    monkeypatch.setattr(sources.source, "MAX_PART_BYTES", 300)


def write_jsonl(path: Path, texts, field="text"):
    path.write_text("".join(json.dumps({"id": i, field: t}) + "\n" for i, t in enumerate(texts)), "utf-8")


def from_pickles(source: Source) -> list[str]:
    """What worker processes would see."""
    return [text for part in source.parts() for text in pickle.loads(pickle.dumps(part)).documents()]


TEXTS = [f"document {i} " + "ä€🙂x" * (i % 37) for i in range(200)]


class TestJsonLines:
    def test_byte_ranges_give_every_line_once(self, tmp_path, small_parts):
        write_jsonl(tmp_path / "a.jsonl", TEXTS)
        source = JsonLines(str(tmp_path / "a.jsonl"))
        assert len(source.parts()) > 20
        assert from_pickles(source) == TEXTS

    @pytest.mark.parametrize("limit", [1, 2, 7, 31])
    def test_any_range_border(self, tmp_path, monkeypatch, limit):
        monkeypatch.setattr(sources.source, "MIN_PART_BYTES", limit)
        monkeypatch.setattr(sources.source, "MAX_PART_BYTES", limit)
        texts = ["", "a", "long" * 20, "ä", "end"]
        write_jsonl(tmp_path / "a.jsonl", texts)
        assert list(JsonLines(str(tmp_path / "a.jsonl")).documents()) == texts

    def test_last_line_without_newline_blank_lines_and_byte_order_mark(self, tmp_path):
        (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\n\n  \r\n{"text": "b"}')
        assert list(JsonLines(str(tmp_path / "a.jsonl")).documents()) == ["a", "b"]

    def test_folder_glob_and_gzip(self, tmp_path):
        (tmp_path / "sub").mkdir()
        write_jsonl(tmp_path / "b.jsonl", ["2"])
        write_jsonl(tmp_path / "a.jsonl", ["1"])
        with gzip.open(tmp_path / "sub" / "c.jsonl.gz", "wt") as file:
            file.write('{"text": "3"}\n')
        (tmp_path / "other.txt").write_text("not json")
        assert list(JsonLines(str(tmp_path)).documents()) == ["1", "2", "3"]
        assert list(JsonLines(str(tmp_path / "*.jsonl")).documents()) == ["1", "2"]
        assert list(JsonLines(str(tmp_path / "**" / "*.gz")).documents()) == ["3"]

    @pytest.mark.parametrize("packed", [False, True])
    def test_malformed_line_is_named(self, tmp_path, small_parts, packed):
        lines = [json.dumps({"text": t}) for t in TEXTS]
        lines[150] = '{"text": "cut off'
        name = "a.jsonl.gz" if packed else "a.jsonl"
        with gzip.open(tmp_path / name, "wt") if packed else open(tmp_path / name, "w") as file:
            file.write("\n".join(lines))
        with pytest.raises(ValueError, match=rf"{name}:151: malformed JSON .*fix or remove"):
            list(JsonLines(str(tmp_path)).documents())

    def test_missing_field_names_those_there(self, tmp_path):
        write_jsonl(tmp_path / "a.jsonl", ["x"], field="content")
        with pytest.raises(ValueError, match=r"a.jsonl:1: no field 'text'; there are 'id', 'content': set text_field"):
            list(JsonLines(str(tmp_path)).documents())
        assert list(JsonLines(str(tmp_path), text_field="content").documents()) == ["x"]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (b'{"text": 5}', ":2: the text is of type int"),
            (b'{"text": ["a"]}', ":2: the text is of type list"),
            (b'{"text": "\xff"}', ":2: not UTF-8 at byte 10"),
            (b'["text"]', ":2: a line must be a JSON object"),
            (rb'{"text": "a\ud800"}', ":2: .*surrogate pair at character 1"),
        ],
    )
    def test_bad_text_is_named(self, tmp_path, line, message):
        (tmp_path / "a.jsonl").write_bytes(b'{"text": "fine"}\n' + line + b"\n")
        with pytest.raises(ValueError, match=message) as caught:
            list(JsonLines(str(tmp_path)).documents())
        assert "\n" not in str(caught.value)

    def test_null_is_an_empty_document(self, tmp_path):
        (tmp_path / "a.jsonl").write_text('{"text": null}')
        assert list(JsonLines(str(tmp_path)).documents()) == [""]

    def test_cut_gzip_is_named(self, tmp_path):
        data = gzip.compress(b"".join(b'{"text": "%d"}\n' % (i * i) for i in range(1000)))
        (tmp_path / "a.jsonl.gz").write_bytes(data[: len(data) // 2])
        with pytest.raises(ValueError, match=r"a.jsonl.gz: not a whole gzip file"):
            list(JsonLines(str(tmp_path)).documents())

    @pytest.mark.parametrize("name", ["nothing", "nothing/*.jsonl", ""])
    def test_nothing_there(self, tmp_path, name):
        with pytest.raises(FileNotFoundError, match="check"):
            JsonLines(str(tmp_path / name)).parts()

    def test_identity_follows_content(self, tmp_path):
        file = tmp_path / "a.jsonl"
        write_jsonl(file, ["a"])
        before = JsonLines(str(file)).identity()
        assert JsonLines(str(file), tokens="3B", label="web").identity() == before
        assert json.loads(json.dumps(before)) == before
        os.utime(file, (1, 1))
        changed = JsonLines(str(file)).identity()
        assert changed != before
        assert JsonLines(str(file), text_field="id").identity() != changed


class TestParquet:
    def write(self, path, values, field="text", kind="string"):
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        table = pa.table({"id": list(range(len(values))), field: pa.array(values, kind)})
        pq.write_table(table, path, row_group_size=10)

    def test_row_groups_in_order(self, tmp_path, small_parts):
        self.write(tmp_path / "a.parquet", TEXTS)
        self.write(tmp_path / "b.parquet", ["last", None], kind="large_string")
        source = Parquet(str(tmp_path))
        assert len(source.parts()) > 10
        assert from_pickles(source) == [*TEXTS, "last", ""]

    def test_wrong_columns(self, tmp_path):
        self.write(tmp_path / "a.parquet", [b"x"], kind="binary")
        with pytest.raises(ValueError, match="'text' is of type binary"):
            Parquet(str(tmp_path)).parts()
        with pytest.raises(ValueError, match="no field 'body'; there are 'id', 'text'"):
            Parquet(str(tmp_path), text_field="body").parts()

    def test_damaged_file_is_named(self, tmp_path):
        self.write(tmp_path / "a.parquet", TEXTS)
        data = (tmp_path / "a.parquet").read_bytes()
        (tmp_path / "a.parquet").write_bytes(data[:-100])
        with pytest.raises(ValueError, match=r"a.parquet: not a whole Parquet file"):
            Parquet(str(tmp_path)).parts()


class TestTextFolder:
    def test_files_are_documents(self, tmp_path, small_parts):
        for name in ("b.md", "a.txt", "sub/c.rst", "sub/skip/d.txt", ".hidden/e.txt", "f.html"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(name * 40)
        source = TextFolder(str(tmp_path), exclude=["*/skip/*"])
        assert from_pickles(source) == [n * 40 for n in ("a.txt", "b.md", "sub/c.rst")]
        assert len(source.parts()) > 1
        assert len(list(TextFolder(str(tmp_path), suffixes=[".html"]).documents())) == 1
        with pytest.raises(FileNotFoundError, match=r"no file ending in \.xyz"):
            TextFolder(str(tmp_path), suffixes=[".xyz"]).parts()

    def test_link_loop_ends(self, tmp_path):
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "a.txt").write_text("a")
        (tmp_path / "sub" / "up").symlink_to(tmp_path)
        assert list(TextFolder(str(tmp_path)).documents()) == ["a"]

    def test_undecodable_file_is_named(self, tmp_path):
        (tmp_path / "latin.txt").write_bytes("Größe".encode("latin-1"))
        with pytest.raises(ValueError, match=r"latin.txt: not UTF-8 at byte 2"):
            list(TextFolder(str(tmp_path)).documents())


class TestHuggingFace:
    @pytest.fixture(scope="class")
    def folders(self, tmp_path_factory):
        datasets = pytest.importorskip("datasets")
        root = tmp_path_factory.mktemp("hf")
        data = datasets.Dataset.from_dict({"text": TEXTS, "n": list(range(len(TEXTS)))})
        data.save_to_disk(root / "one")
        datasets.DatasetDict({"train": data, "small": data.select(range(5, 8))}).save_to_disk(root / "dict")
        return root

    def test_rows_in_order(self, folders, small_parts):
        source = HuggingFace(str(folders / "one"))
        assert len(source.parts()) > 20
        assert from_pickles(source) == TEXTS
        assert list(HuggingFace(str(folders / "dict"), split="small").documents()) == TEXTS[5:8]

    def test_identity(self, folders):
        first = HuggingFace(str(folders / "dict")).identity()
        assert json.loads(json.dumps(first)) == first == HuggingFace(str(folders / "dict")).identity()
        assert first != HuggingFace(str(folders / "dict"), split="small").identity()

    def test_errors(self, folders):
        with pytest.raises(ValueError, match="no split 'test'; there are 'train', 'small'"):
            HuggingFace(str(folders / "dict"), split="test").parts()
        with pytest.raises(ValueError, match="without named splits"):
            HuggingFace(str(folders / "one"), split="test").parts()
        with pytest.raises(ValueError, match="no field 'body'; there are 'text', 'n'"):
            HuggingFace(str(folders / "one"), text_field="body").parts()
        with pytest.raises(ValueError, match="'n' is of type int64"):
            HuggingFace(str(folders / "one"), text_field="n").parts()
        with pytest.raises(FileNotFoundError, match="does not exist"):
            HuggingFace(str(folders / "none")).parts()


class TestPackageSource:
    @pytest.fixture
    def package(self, tmp_path, monkeypatch):
        root = tmp_path / "sample_package"
        (root / "tests").mkdir(parents=True)
        (root / "__init__.py").write_text('"""A package."""\nraise RuntimeError("imported")\n')
        (root / "code.py").write_bytes(
            b'# -*- coding: latin-1 -*-\ndef f(a, *, b: int = 1) -> str:\n    "Gr\xf6\xdfe."\n'
        )
        (root / "tests" / "test_it.py").write_text("x = 1\n")
        (root / "guide.rst").write_text("Guide")
        monkeypatch.syspath_prepend(str(tmp_path))
        return "sample_package"

    def test_contents(self, package):
        code = list(PackageSource(package).documents())
        assert len(code) == 3
        assert "Größe" in code[1]  # decoded by the file's own coding line
        assert len(list(PackageSource([package], exclude=["*/tests/*"]).documents())) == 2
        assert list(PackageSource([package], content="documentation").documents()) == ["Guide"]
        texts = list(PackageSource(package, content="docstrings").documents())
        assert texts[0] == "Module sample_package\n\n    A package."
        assert texts[1] == "sample_package.code.f(a, *, b: int=1) -> str\n\n    Größe."
        assert texts[2] == ""

    def test_submodule_and_module(self, package):
        assert len(list(PackageSource("sample_package.code").documents())) == 1
        assert len(list(PackageSource("sample_package.tests").documents())) == 1
        assert len(list(PackageSource("this").documents())) == 1

    def test_standard_library_has_no_tests(self):
        files = [f for _, f in PackageSource("stdlib")._files()]
        assert 400 < len(files) < 1200
        assert not [f for f in files if "test" in f.parts or "tests" in f.parts or "site-packages" in f.parts]
        assert any(f.name == "argparse.py" for f in files)

    def test_errors(self, package):
        for name in ("no_such_package_here", "sample_package.missing"):
            with pytest.raises(ValueError, match=f"package '{name}' is not installed"):
                PackageSource(name).parts()
        with pytest.raises(ValueError, match="has no documentation"):
            PackageSource("this", content="documentation").parts()
        with pytest.raises(ValueError, match="content is invalid"):
            PackageSource("this", content="pictures")
        with pytest.raises(ValueError, match="no packages"):
            PackageSource([])


def test_docstrings_of_nested_definitions_and_broken_files():
    code = "try:\n    import x\nexcept ImportError:\n    class A(B, metaclass=M):\n"
    code += '        """A.\n\n          more"""\n'
    code += '        async def g(self): """G."""\n'
    assert docstrings("m", code) == "class m.A(B, metaclass=M)\n\n    A.\n\n    more\n\nm.A.g(self)\n\n    G."
    assert docstrings("m", "print 'python 2'") == ""


class TestReasoningGym:
    def test_worked_solutions(self):
        pytest.importorskip("reasoning_gym")
        source = ReasoningGym(["gsm_symbolic", "chain_sum"], count=3, seed=1, config={"chain_sum": {"max_terms": 2}})
        texts = from_pickles(source)
        assert len(texts) == 6
        assert texts == from_pickles(source)
        assert texts[0].endswith("\n\nAnswer: 288")
        assert "step by step" in texts[0]
        assert "####" not in texts[0]
        assert texts[3].count("\n\nAnswer: ") == 1
        assert texts != list(ReasoningGym(["gsm_symbolic", "chain_sum"], count=3, seed=2).documents())

    def test_items_do_not_depend_on_parts(self, monkeypatch):
        source = ReasoningGym(["letter_counting"], count=7)
        whole = from_pickles(source)
        monkeypatch.setattr(sources.reasoning_gym, "_REASONING_PART_ITEMS", 2)
        assert len(source.parts()) == 4
        assert from_pickles(source) == whole

    def test_items_without_answer_are_empty(self):
        assert list(ReasoningGym(["boxnet"], count=2).documents()) == ["", ""]

    def test_errors(self, monkeypatch):
        monkeypatch.delenv("PYTHONHASHSEED", raising=False)
        with pytest.raises(ValueError, match="does not give reproducible items"):
            ReasoningGym(["codeio"], 1)
        with pytest.raises(ValueError, match="PYTHONHASHSEED=0"):
            ReasoningGym(["word_ladder"], 1)
        with pytest.raises(ValueError, match="'no_such_task'"):
            ReasoningGym(["no_such_task"], 1).parts()
        with pytest.raises(ValueError, match=r"'chain_sum' with config {'wrong': 1}"):
            ReasoningGym(["chain_sum"], 1, config={"chain_sum": {"wrong": 1}}).parts()
        with pytest.raises(ValueError, match="not in tasks"):
            ReasoningGym(["chain_sum"], 1, config={"lcm": {}})
        with pytest.raises(ValueError, match="positive count"):
            ReasoningGym(["chain_sum"], 0)


def test_in_memory(small_parts):
    source = InMemory(TEXTS)
    assert len(source.parts()) > 5
    assert from_pickles(source) == TEXTS
    assert source.identity() != InMemory(TEXTS[1:]).identity()
    assert InMemory(["ab", "c"]).identity() != InMemory(["a", "bc"]).identity()
    with pytest.raises(ValueError, match="list of documents"):
        InMemory("text")
    with pytest.raises(ValueError, match="InMemory text 1: the text is of type int"):
        InMemory(["a", 1])


def test_declared_size_is_checked():
    assert InMemory(["a"], tokens="3B").tokens == 3_000_000_000
    with pytest.raises(ValueError, match="many"):
        InMemory(["a"], tokens="many")


def test_yaml_with_class_path():
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--sources", type=dict[str, Source])
    config = """
    sources:
      web: {class_path: nbg_lightning.data.JsonLines, init_args: {path: a, tokens: 3B, label: good}}
      code: {class_path: nbg_lightning.data.PackageSource, init_args: {packages: [numpy, torch.nn]}}
      gym:
        class_path: nbg_lightning.data.ReasoningGym
        init_args: {tasks: [chain_sum], count: 5, config: {chain_sum: {max_terms: 3}}}
    """
    made = parser.instantiate(parser.parse_string(config)).sources
    assert made["web"] == JsonLines("a", tokens="3B", label="good")
    assert made["code"] == PackageSource(["numpy", "torch.nn"])
    assert made["gym"].config == {"chain_sum": {"max_terms": 3}}
    with pytest.raises(Exception, match="pth"):
        parser.parse_string("sources: {web: {class_path: nbg_lightning.data.JsonLines, init_args: {pth: x}}}")


def test_a_damaged_parquet_file_is_named_wherever_the_damage_is(tmp_path):
    """Or it is not noticed: Parquet itself has no digests."""
    import pyarrow
    import pyarrow.parquet

    file = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b"]}), file)
    good = file.read_bytes()
    errors = []
    for place in range(0, len(good), max(1, len(good) // 60)):
        file.write_bytes(good[:place] + bytes([good[place] ^ 255]) + good[place + 1 :])
        try:
            texts = [text for part in Parquet(str(file)).parts() for text in part.documents()]
            assert len(texts) <= 2
        except ValueError as error:
            errors.append(str(error))
    assert len(errors) > 20
    assert all(str(file) in error and "\n" not in error for error in errors)


def test_two_columns_of_one_name_are_refused(tmp_path):
    import pyarrow
    import pyarrow.parquet

    file = tmp_path / "x.parquet"
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    pyarrow.parquet.write_table(table, file)
    with pytest.raises(ValueError, match=r"x\.parquet: two columns are named 'text'; rename or remove one"):
        Parquet(str(file)).parts()


GOOD_LINE = b'{"text": "a", "prompt": "2+3?", "answer": "5"}\n'
HOSTILE_LINES = {
    "a mark of UTF-8 in the middle": (b"\xef\xbb\xbf" + GOOD_LINE, "Unexpected UTF-8 BOM"),
    "UTF-16": (GOOD_LINE.decode().encode("utf-16"), "not UTF-8 at byte 0 of the line; convert the file to UTF-8"),
    "Latin-1": (GOOD_LINE.replace(b'"a"', b'"\xe9"'), "not UTF-8 at byte 10"),
    "zeros at the end": (bytes(4096), "malformed JSON"),
    "two objects in a line": (GOOD_LINE.rstrip() + GOOD_LINE, r"malformed JSON \(Extra data\)"),
    "a number of 10,000 digits": (
        b'{"text": "a", "n": ' + b"9" * 10_000 + b"}\n",
        "a number has too many digits",
    ),
    "brackets without end": (b"[" * 100_000 + b"\n", "nested too deeply"),
    "a web page": (b"<!DOCTYPE html>\n", "malformed JSON"),
    "single quotes": (b"{'text': 'a'}\n", "malformed JSON"),
    "a list": (b"[1]\n", "not a list; fix or remove this line"),
}


@pytest.mark.parametrize("name", HOSTILE_LINES)
def test_a_line_that_is_no_object_is_named_with_its_file_and_number(tmp_path, name):
    line, words = HOSTILE_LINES[name]
    file = tmp_path / "x.jsonl"
    file.write_bytes(GOOD_LINE + line)
    for read, expected in (
        (lambda: [list(part.documents()) for part in JsonLines(str(file)).parts()], words),
        (lambda: list(QuestionJsonLines(str(file)).questions()), ""),
    ):
        with pytest.raises(ValueError, match=rf"x\.jsonl:2: .*{expected}") as caught:
            read()
        assert "\n" not in str(caught.value)


NO_FILES = {
    "a pipe": lambda place: os.mkfifo(place),
    "a link to nothing": lambda place: place.symlink_to("nowhere"),
    "a link to itself": lambda place: place.symlink_to(place),
    "a device": lambda place: place.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path, name):
    (tmp_path / "data").mkdir()
    NO_FILES[name](tmp_path / "data" / "x.jsonl")
    for path, advice in (("data/x.jsonl", "give a file"), ("data", "remove it, or put a file there")):
        with pytest.raises(FileNotFoundError, match=rf"x\.jsonl' is a link to nothing, a pipe or a device; {advice}"):
            JsonLines(str(tmp_path / path)).parts()


@pytest.mark.parametrize("path", ["", "  "])
def test_no_path_is_not_the_working_folder(path):
    with pytest.raises(FileNotFoundError, match=r"path is invalid: .*; give a file, a pattern or a folder"):
        JsonLines(path).parts()


def test_no_torch_is_loaded():
    code = (
        "import sys; from nbg_lightning.data import *; import nbg_lightning.data.prepare; "
        "list(nbg_lightning.data.ReasoningGym(['chain_sum'], 1).documents()); "
        "sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    )
    code = code.replace("from nbg_lightning.data import *", "import nbg_lightning.data")
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
