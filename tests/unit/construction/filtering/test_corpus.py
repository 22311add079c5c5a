import json
import os
import signal
import subprocess
import sys
import time

import pytest

from nbg_lightning.construction.filtering.columns import build_columns
from nbg_lightning.construction.filtering.corpus import CorpusSettings, build_corpus
from nbg_lightning.construction.filtering.documents import Limits, document_id
from nbg_lightning.construction.filtering.signals import Signals
from nbg_lightning.construction.filtering.table import Table
from nbg_lightning.data.sources import InMemory, JsonLines, Parquet
from nbg_lightning.data.sources import source as data_sources

NO_NEAR = CorpusSettings(near=None, signals=False)
LONG = "This sentence stands in the benchmark and has more than thirteen words, which is what it takes to be found."


def contents(folder):
    return {
        str(f.relative_to(folder)): f.read_bytes()
        for f in sorted(folder.rglob("*"))
        if f.is_file() and f.name != ".lock"
    }


def write_jsonl(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return JsonLines(str(path))


def test_everything_that_is_dropped_is_counted_and_named(tmp_path):
    near = " ".join(f"w{i * i % 97}-{i}" for i in range(200))
    web = write_jsonl(
        tmp_path / "web.jsonl",
        ["good one", "", "good one", near, "x" * 5000, f"Look: {LONG}", "shared by both", "nul \0 byte"],
    )
    with open(tmp_path / "web.jsonl", "a") as file:
        file.write("{broken\n")
    books = InMemory(["shared by both", near + " and an end", "good two"])
    settings = CorpusSettings(Limits(max_bytes=4000))
    corpus = build_corpus(
        {"web": web, "books": books},
        tmp_path / "c",
        settings,
        {"bench": InMemory([LONG])},
        trust={"web": 0.3},
        num_workers=0,
    )
    rows = list(corpus.rows())
    assert {(row["source"], row["text"]) for row in rows} == {
        ("web", "good one"),
        ("books", "shared by both"),  # the more trusted source keeps it
        ("books", near + " and an end"),
        ("books", "good two"),
    }
    assert all(row["id"] == document_id(row["text"]) and row["bytes"] == len(row["text"]) for row in rows)
    assert set(Signals().columns) < set(rows[0])
    counts = corpus.report["sources"]["web"]
    assert counts == {
        "documents": 9, "bytes": counts["bytes"], "empty": 1, "too_long": 1, "binary": 1, "malformed": 1,
        "exact_duplicate": 2, "near_duplicate": 1, "contaminated": 1, "kept": 1, "kept_bytes": 8,
    }  # fmt: skip
    examples = corpus.report["examples"]
    assert examples["malformed"] == [f"{tmp_path}/web.jsonl:9"]
    assert examples["exact_duplicate"] == [
        f"{tmp_path}/web.jsonl:3 is that of {tmp_path}/web.jsonl:1",
        f"{tmp_path}/web.jsonl:7 is that of InMemoryPart :0",
    ]
    assert examples["near_duplicate"][0].startswith(
        f"{tmp_path}/web.jsonl:4 is like InMemoryPart :1 (similarity about 0.9"
    )
    assert examples["contaminated"] == [f"{tmp_path}/web.jsonl:6 holds an item of bench"]
    assert corpus.report["dropped"] == (
        "1 binary, 1 contaminated, 1 empty, 2 exact_duplicate, 1 malformed, 1 near_duplicate, 1 too_long"
    )
    assert not (tmp_path / "c" / "read").exists()


def test_training_reads_it(corpus, texts):
    expected = texts["science"] + texts["spam"]
    assert list(Parquet(str(corpus.folder)).documents()) == expected


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(data_sources, "MIN_PART_BYTES", 3000)


def test_the_same_for_any_number_of_workers_and_after_interruptions(tmp_path, texts, small_parts, monkeypatch):
    from nbg_lightning.construction.filtering import corpus as module

    sources = {name: write_jsonl(tmp_path / f"{name}.jsonl", own + own[:9]) for name, own in texts.items()}
    build_corpus(sources, tmp_path / "straight", num_workers=0)
    build_corpus(sources, tmp_path / "workers", num_workers=2)
    expected = contents(tmp_path / "straight")
    assert len(expected) > 20
    assert contents(tmp_path / "workers") == expected
    for name in ("_read", "_keep"):  # both passes fail once in the middle
        done = []
        real = getattr(module, name)

        def fails(job, done=done, real=real):
            if len(done) == 5:
                raise OSError("disk full")
            done.append(real(job))
            return done[-1]

        with monkeypatch.context() as patch:
            patch.setattr(module, name, fails)
            with pytest.raises(OSError, match="disk full"):
                build_corpus(sources, tmp_path / "broken", num_workers=0)
        with pytest.raises(
            FileNotFoundError, match=r"no report\.json in it; run its build again, which was interrupted"
        ):
            Table(tmp_path / "broken")
    build_corpus(sources, tmp_path / "broken", num_workers=0)
    assert contents(tmp_path / "broken") == expected


KILLED = """
import sys, time
from nbg_lightning.construction.filtering import columns
from nbg_lightning.construction.step import DocumentStep
from nbg_lightning.construction.filtering.table import Table
import pyarrow

class Slow(DocumentStep):
    columns = {"size": pyarrow.int64()}
    def values(self, texts):
        time.sleep(float(sys.argv[3]))
        return [{"size": len(text)} for text in texts]

table = columns.build_columns("sizes", Table(sys.argv[1]), Slow(), sys.argv[2], num_workers=0)
"""


def test_kill_loses_no_finished_part_and_repeats_none(tmp_path, texts, small_parts):
    sources = {"a": write_jsonl(tmp_path / "a.jsonl", texts["science"])}
    corpus = build_corpus(sources, tmp_path / "c", NO_NEAR, num_workers=0)
    assert len(corpus.files) > 8

    def run(out, seconds):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "c"), str(tmp_path / out), str(seconds)]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    process = run("killed", 0.2)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "killed").glob("part-*"))) < 3:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = {file: os.stat(file).st_mtime_ns for file in (tmp_path / "killed").glob("part-*")}
    assert 3 <= len(finished) < len(corpus.files)
    _, said = run("killed", 0).communicate()
    assert f"sizes: going on; {len(finished)} of {len(corpus.files)} parts are done" in said
    assert {file: os.stat(file).st_mtime_ns for file in finished} == finished
    assert run("straight", 0).communicate()[1] is not None
    for index in range(len(corpus.files)):
        both = [list(Table(tmp_path / name).rows()) for name in ("killed", "straight")]
        assert both[0] == both[1], index
    assert not list((tmp_path / "killed").glob(".*.partial"))


def test_columns_of_another_corpus_are_refused(tmp_path, corpus):
    other = build_corpus({"a": InMemory(["a text", "another"])}, tmp_path / "other", NO_NEAR, num_workers=0)
    tags = build_columns("signals", other, Signals(), tmp_path / "signals", num_workers=0)
    tags.check_aligned(other)
    with pytest.raises(
        ValueError, match=r"signals is invalid: columns of another corpus than .*; build it from this one"
    ):
        tags.check_aligned(corpus)
    with pytest.raises(ValueError, match=r"is invalid: a build with other settings \(corpus: "):
        build_columns("signals", corpus, Signals(), tmp_path / "signals", num_workers=0)


@pytest.mark.parametrize(
    ("sources", "arguments", "message"),
    [
        ({}, {}, "sources is invalid: empty"),
        (
            {"a": InMemory(["", " "])},
            {},
            "source 'a' is invalid: none of 2 documents can be used .2 empty; the first is InMemoryPart",
        ),
        ({"a": InMemory([])}, {}, "source 'a' is invalid: none of 0 documents can be used .it has no documents"),
        ({"a": InMemory(["x"])}, {"trust": {"b": 1}}, "trust is invalid: 'b' is no source; name one of a"),
        ({"a": InMemory(["x"])}, {"trust": {"a": 2}}, "trust of 'a' is invalid: 2; give 0 to 1"),
        ({"a": InMemory([LONG])}, {"benchmarks": {"b": InMemory([LONG])}}, "no document is left .1 contaminated"),
    ],
)
def test_errors(tmp_path, sources, arguments, message):
    with pytest.raises(ValueError, match=message):
        build_corpus(sources, tmp_path / "c", num_workers=0, **arguments)
