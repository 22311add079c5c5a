"""Sources behind URLs: the same documents, parts and order as from paths; lost connections and changed objects."""

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import fsspec
import pyarrow as arrow
import pyarrow.parquet
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from nbg_lightning import remote
from nbg_lightning.data import ChatParquet, JsonLines, Parquet
from nbg_lightning.data.guess import guess_source, source_names
from nbg_lightning.data.prepare import prepare_source
from nbg_lightning.data.shards import TokenizedSource
from nbg_lightning.data.sources.files import file_identity
from nbg_lightning.remote import find_urls, is_url, open_url, read_range
from nbg_lightning.testing.benchmarks import character_tokenizer

sys.path.insert(0, str(Path(__file__).parent))
from in_object_store import SOURCES

TEXTS = [f"document {number} of some, with a few words more" for number in range(400)]


class FlakyStore(MemoryFileSystem):
    """Objects in memory, behind a connection that is lost as often as `failures` says."""

    protocol = "flaky"
    store: ClassVar = {}
    pseudo_dirs: ClassVar = [""]
    failures = 0
    asked: ClassVar = []

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("flaky://", "memory://"))

    def cat_file(self, path, start=None, end=None, **keywords):
        type(self).asked.append((start, end))
        if type(self).failures:
            type(self).failures -= 1
            raise ConnectionResetError("the connection was reset")
        return super().cat_file(path, start, end, **keywords)


@pytest.fixture
def flaky(monkeypatch):
    fsspec.register_implementation("flaky", FlakyStore, clobber=True)
    FlakyStore.store.clear()
    FlakyStore.pseudo_dirs[:] = [""]
    FlakyStore.failures, FlakyStore.asked = 0, []
    monkeypatch.setattr(remote, "_FIRST_PAUSE", 0.001)
    yield fsspec.filesystem("flaky")
    FlakyStore.store.clear()
    FlakyStore.clear_instance_cache()
    del _registry["flaky"]


def write_corpus(folder):
    """The texts as JSON lines, plain and packed, Parquet, and text files."""
    lines = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in TEXTS)
    for name in ("jsonl", "gz", "parquet", "texts"):
        (folder / name).mkdir(parents=True)
    (folder / "jsonl" / "a.jsonl").write_bytes(lines)
    (folder / "jsonl" / ".hidden.jsonl").write_bytes(lines)
    (folder / "gz" / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    arrow.parquet.write_table(arrow.table({"text": TEXTS}), folder / "parquet" / "a.parquet", row_group_size=150)
    for number, text in enumerate(TEXTS[:5]):
        (folder / "texts" / f"{number}.txt").write_text(text)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    return folder


@pytest.fixture(params=["file", "flaky"])
def root(request, corpus):
    """URL of the corpus: of the local disk, and of a store whose connections are lost."""
    if request.param == "file":
        return f"file://{corpus}"
    store = request.getfixturevalue("flaky")
    store.put(str(corpus), "/corpus", recursive=True)
    FlakyStore.failures = 3
    return "flaky://corpus"


def test_an_object_store(corpus, tmp_path):
    """In a separate process: neither the server's modules nor the client's threads stay in this one."""
    character_tokenizer(tmp_path / "tokenizer")
    script = Path(__file__).with_name("in_object_store.py")
    run = subprocess.run(
        [sys.executable, script, corpus, tmp_path], capture_output=True, text=True, timeout=240, check=False
    )
    assert (run.returncode, run.stdout.split()) == (
        0,
        ["jsonl", "pattern", "gz", "parquet", "texts", "prepared", "trained"],
    ), run.stderr


@pytest.mark.parametrize("name", SOURCES)
def test_documents_are_those_of_the_path(name, root, corpus):
    there, here = SOURCES[name](root), SOURCES[name](corpus)
    assert list(there.documents()) == list(here.documents())
    assert [part.size for part in there.parts()] == [part.size for part in here.parts()]
    assert there.identity()["files"]
    assert there.identity() == SOURCES[name](root).identity()


def test_prepared_files_are_those_of_the_path(root, corpus, tmp_path):
    character_tokenizer(tmp_path / "tokenizer")
    found = {}
    for name, source in {"url": JsonLines(f"{root}/jsonl"), "path": JsonLines(f"{corpus}/jsonl")}.items():
        folders = prepare_source(
            "text", source, str(tmp_path / "tokenizer"), tmp_path / name, num_workers=0, progress=False
        )
        found[name] = TokenizedSource(folders.train).fingerprint
    assert found["url"] == found["path"]


def test_an_object_that_is_written_again_is_another_source(flaky):
    flaky.pipe("/web/a.jsonl", b'{"text": "one"}\n')
    before = JsonLines("flaky://web/a.jsonl").identity()
    time.sleep(0.01)
    flaky.pipe("/web/a.jsonl", b'{"text": "two"}\n')
    assert JsonLines("flaky://web/a.jsonl").identity() != before


def test_a_range_is_no_larger_than_what_is_wanted(flaky):
    flaky.pipe("/web/a.bin", bytes(range(256)) * 4096)
    with open_url("flaky://web/a.bin", wanted=1000) as file:
        file.seek(512)
        assert file.read(4) == bytes(range(4))
        file.seek(-2, os.SEEK_END)
        assert (file.read(), file.read(), file.tell()) == (b"\xfe\xff", b"", 1 << 20)
    assert max(end - start for start, end in FlakyStore.asked) <= 1000


# -- what goes wrong -----------------------------------------------------------------------------------------------------


def test_a_connection_that_does_not_come_back_has_a_deadline(flaky, monkeypatch):
    flaky.pipe("/web/a.jsonl", b'{"text": "one"}\n')
    monkeypatch.setattr(remote, "RETRY_SECONDS", 0.05)
    FlakyStore.failures = 10**6
    with pytest.raises(
        OSError, match=r"flaky:///web/a.jsonl could not be read for 0.05 s \(the connection was reset\); try again"
    ):
        list(JsonLines("flaky://web/a.jsonl").documents())


def test_an_object_that_changes_while_it_is_read_is_refused(flaky):
    flaky.pipe("/web/a.bin", b"x" * 100)
    version = remote.about_url("flaky://web/a.bin")[1]
    time.sleep(0.01)
    flaky.pipe("/web/a.bin", b"x" * 50)
    with pytest.raises(ValueError, match="has changed while it was read"):
        read_range("flaky://web/a.bin", 40, 100, version)


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("flaky://web/none.jsonl", FileNotFoundError, "there is no file at flaky://web/none.jsonl"),
        ("flaky://web/*.jsonl", FileNotFoundError, "there is no file at"),
        ("nosuch://web/a.jsonl", ValueError, "nosuch://web/a.jsonl is invalid: Protocol not known"),
    ],
)
def test_urls_behind_which_there_is_nothing(flaky, url, error, words):
    with pytest.raises(error, match=words.replace("*", r"\*")):
        find_urls(url, (".jsonl",))


def test_a_package_that_is_missing_is_named(monkeypatch):
    def missing(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(ValueError, match=r"Install s3fs to access S3; type: pip install 'nbg-lightning\[s3\]'"):
        find_urls("s3://a/b", (".jsonl",))


def test_parquet_that_is_none_is_named(flaky):
    flaky.pipe("/web/a.parquet", b"no parquet")
    with pytest.raises(ValueError, match=r"flaky:///web/a\.parquet: not a whole Parquet file"):
        Parquet("flaky://web").parts()
    with pytest.raises(ValueError, match="not a whole Parquet file"):
        ChatParquet("flaky://web").parts()


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("s3://a/b", True), ("https://a/b.jsonl", True), ("a/b", False), ("C:/a", False), ("/a://b", False)],
)
def test_what_a_url_is(text, is_one):
    assert is_url(text) is is_one


def test_sources_are_guessed_from_urls():
    assert guess_source("s3://a/web/*.jsonl.gz", "documents").class_path == "nbg_lightning.data.JsonLines"
    assert guess_source("hf://datasets/a/b/x.parquet", "pairs").class_path == "nbg_lightning.data.PairParquet"
    with pytest.raises(ValueError, match="its extension is unknown"):
        guess_source("s3://a/web", "documents")
    assert source_names(["s3://a/web/*.jsonl.gz"]) == ["web"]


def test_identities_of_paths_are_as_they_were(tmp_path):
    """Prepared data of earlier versions are found again."""
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "one"}\n')
    about = file.stat()
    assert file_identity([file, str(file)]) == 2 * [[str(file.resolve()), about.st_size, about.st_mtime_ns]]
