import errno
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nbg_lightning.chat import fast_encoder
from nbg_lightning.chat.fast_encoder import EnginesDiffer
from nbg_lightning.data import durable, encode_part, encoder, preparation, progress, sources, worker_pool
from nbg_lightning.data.encoder import TextEncoder
from nbg_lightning.data.prepare import prepare_all, prepare_source
from nbg_lightning.data.shards import TokenizedSource
from nbg_lightning.data.sources import InMemory, JsonLines, TextFolder
from nbg_lightning.data.token_width import TokenWidth
from nbg_lightning.data.tokenizer import Tokenizer, TokenizerConfig, train_bpe
from nbg_lightning.data.tokenizer_folder import sample_texts
from nbg_lightning.data.worker_pool import WorkerPool

TEXTS = [f"document number {i} of {i * i} " * (i % 9 + 1) for i in range(300)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_bpe(TEXTS, 280, tmp_path_factory.mktemp("tokenizer") / "bpe")


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(sources.source, "MIN_PART_BYTES", 2000)
    monkeypatch.setattr(sources.source, "MAX_PART_BYTES", 2000)


def write_jsonl(path: Path, texts):
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), "utf-8")
    return JsonLines(str(path))


def run(source, tokenizer, root, fraction=0.1, seed=0, num_workers=0, name="text"):
    return prepare_source(name, source, tokenizer, root, fraction, seed, num_workers, progress=False)


def contents(folder: Path) -> dict[str, bytes]:
    """Everything in the folder but the lock."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def documents(folder: Path | None, tokenizer) -> list[str]:
    if folder is None:
        return []
    source = TokenizedSource(folder)
    ids = source.span(0, source.num_tokens)[0] if source.num_tokens else []
    text = Tokenizer(tokenizer).decode(ids)
    assert text.count("<s>") == text.count("</s>") == source.num_documents
    return re.findall(r"<s>(.*?)</s>", text, re.DOTALL)


def test_same_files_for_any_number_of_workers(tmp_path, tokenizer, small_parts):
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    folders = [
        run(source, tokenizer, tmp_path / str(workers), num_workers=workers).train.parent for workers in (0, 1, 2)
    ]
    assert len(list((folders[0] / "parts").iterdir())) > 10
    assert contents(folders[0]) == contents(folders[1]) == contents(folders[2])
    assert not [name for name in contents(folders[2]) if name.endswith(".tmp")]


def test_validation_is_disjoint_and_complete(tmp_path, tokenizer, small_parts):
    texts = TEXTS + TEXTS[:100]  # duplicates, far apart
    found = run(InMemory(texts), tokenizer, tmp_path)
    train, validation = documents(found.train, tokenizer), documents(found.validation, tokenizer)
    assert sorted(train + validation) == sorted(texts)
    assert not set(train) & set(validation)
    assert 0.04 < len(set(validation)) / len(set(texts)) < 0.2
    other = run(InMemory(texts), tokenizer, tmp_path, seed=1)
    assert set(documents(other.validation, tokenizer)) != set(validation)
    assert train == [t for t in texts if t in set(train)]  # order is kept


@pytest.mark.parametrize("workers", [0, 2])
def test_small_source_holds_out_the_lowest_hash(tmp_path, tokenizer, monkeypatch, workers):
    monkeypatch.setattr(sources.source, "MIN_PART_BYTES", 30)
    monkeypatch.setattr(sources.source, "MAX_PART_BYTES", 30)
    texts = ["one document", "another document", "a third document", "one document"] * 3
    found = run(InMemory(texts), tokenizer, tmp_path, fraction=1e-6, num_workers=workers)
    train, validation = documents(found.train, tokenizer), documents(found.validation, tokenizer)
    assert len(set(validation)) == 1
    assert sorted(train + validation) == sorted(texts)
    assert not set(train) & set(validation)  # all copies, in whatever part
    straight = run(InMemory(texts[:4]), tokenizer, tmp_path, fraction=1e-6)
    assert set(documents(straight.validation, tokenizer)) == set(validation)


def test_one_distinct_document_is_training_text(tmp_path, tokenizer, caplog):
    with caplog.at_level(logging.WARNING):
        found = run(InMemory(["the only one"] * 3), tokenizer, tmp_path, fraction=0.999999)
    assert found.validation is None
    assert documents(found.train, tokenizer) == ["the only one"] * 3
    assert "'text' has one distinct document" in caplog.text


def test_no_validation_wanted(tmp_path, tokenizer):
    found = run(InMemory(TEXTS), tokenizer, tmp_path, fraction=0.0)
    assert found.validation is None
    assert documents(found.train, tokenizer) == TEXTS


def test_counts(tmp_path, tokenizer, small_parts):
    found = run(InMemory([*TEXTS, "", " \n", "Größe"]), tokenizer, tmp_path)
    manifests = [json.loads((f / "manifest.json").read_text()) for f in (found.train, found.validation)]
    assert sum(m["documents"] for m in manifests) == len(TEXTS) + 1
    assert sum(m["bytes"] for m in manifests) == sum(len(t.encode()) for t in [*TEXTS, "Größe"])
    assert {m["empty_documents"] for m in manifests} == {2}
    longest = max(len(Tokenizer(tokenizer).encode(t)) for t in TEXTS) + 2
    assert max(m["longest_document"] for m in manifests) == longest


def test_fingerprint_follows_content_not_place(tmp_path, tokenizer, small_parts):
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        write_jsonl(tmp_path / place / "a.jsonl", TEXTS)
    write_jsonl(tmp_path / "c.jsonl", [*TEXTS[:-1], "changed"])
    found = [run(JsonLines(str(tmp_path / p)), tokenizer, tmp_path / "out") for p in ("here", "there", "c.jsonl")]
    assert found[0].train.parent != found[1].train.parent  # never another file's tokens
    prints = [TokenizedSource(f.train).fingerprint for f in found]
    assert prints[0] == prints[1] != prints[2]
    assert prints[0] != TokenizedSource(found[0].validation).fingerprint
    moved = tmp_path / "moved"
    found[0].train.parent.rename(moved)
    assert TokenizedSource(moved / "train").fingerprint == prints[0]


def test_finished_folder_is_used_again(tmp_path, tokenizer):
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    found = run(source, tokenizer, tmp_path)
    before = {f: f.stat().st_mtime_ns for f in found.train.iterdir()}
    assert run(JsonLines(source.path, tokens="1B", label="web"), tokenizer, tmp_path) == found
    assert {f: f.stat().st_mtime_ns for f in found.train.iterdir()} == before
    for changed in (
        lambda: run(source, tokenizer, tmp_path, fraction=0.2),
        lambda: run(source, tokenizer, tmp_path, seed=5),
        lambda: run(source, train_bpe(TEXTS, 281, tmp_path / "tokenizer"), tmp_path),
        lambda: run(write_jsonl(tmp_path / "a.jsonl", TEXTS[1:]), tokenizer, tmp_path),
    ):
        assert changed().train.parent != found.train.parent
    shard = next(found.train.glob("*.tokens"))
    shard.write_bytes(shard.read_bytes()[:-2])
    os.utime(tmp_path / "a.jsonl")
    again = write_jsonl(tmp_path / "b.jsonl", TEXTS)
    found = run(again, tokenizer, tmp_path)
    shard = next(found.train.glob("*.tokens"))
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(ValueError, match=rf"source 'text': {shard} has .*; delete {found.train.parent} and run again"):
        run(again, tokenizer, tmp_path)


@pytest.mark.parametrize("workers", [0, 2])
def test_malformed_line_is_named(tmp_path, tokenizer, small_parts, workers):
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    lines[200] = lines[200][:-1]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"source 'text': .*a.jsonl:201: malformed JSON") as caught:
        run(source, tokenizer, tmp_path / "out", num_workers=workers)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").rglob("manifest.json"))


SCRIPT = """
import sys, time
from nbg_lightning.data import JsonLines, prepare_source, sources
import nbg_lightning.data.prepare as prepare
sources.source.MIN_PART_BYTES = sources.source.MAX_PART_BYTES = 2000
path, tokenizer, root = sys.argv[1:]
prepare_source("text", JsonLines(path), tokenizer, root, 0.1, 0, 2, False)
"""  # no `if __name__ == "__main__"`: workers must not run it


def test_killed_preparation_goes_on(tmp_path, tokenizer, small_parts):
    texts = [f"{t} {n}" for n in range(8) for t in TEXTS]
    source = write_jsonl(tmp_path / "a.jsonl", texts)
    (tmp_path / "script.py").write_text(SCRIPT)
    arguments = [sys.executable, str(tmp_path / "script.py"), source.path, str(tokenizer), str(tmp_path / "killed")]
    total = len(source.parts())
    done: list[Path] = []
    for wanted in (3, total // 4, total // 2):  # killed again and again, later each time
        process = subprocess.Popen(arguments)
        deadline = time.monotonic() + 60
        while len(done := list((tmp_path / "killed").glob("*/parts/*.json"))) < wanted:
            assert process.poll() is None, "finished before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    kept = {f: f.stat().st_mtime_ns for f in done}
    assert 0 < len(kept) < total
    assert not list((tmp_path / "killed").rglob("manifest.json"))
    time.sleep(0.3)  # the orphaned workers notice and end
    found = run(source, tokenizer, tmp_path / "killed", num_workers=2)
    straight = run(source, tokenizer, tmp_path / "straight")
    assert contents(found.train.parent) == contents(straight.train.parent)
    assert {f: f.stat().st_mtime_ns for f in kept} == kept  # finished parts were not done again


def test_orphaned_workers_end(tmp_path, tokenizer):
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS * 500)
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), source.path, str(tokenizer), str(tmp_path / "out")]
    process = subprocess.Popen(command)
    children: list[str] = []
    deadline = time.monotonic() + 60
    file = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not file.exists():
        process.kill()
        pytest.skip("needs /proc")
    while len(children) < 2 or not list((tmp_path / "out").glob("*/parts/*.json")):
        assert time.monotonic() < deadline
        children = file.read_text().split()
        time.sleep(0.01)
    process.kill()
    process.wait()
    while any(Path(f"/proc/{child}").exists() and "Z" not in _state(child) for child in children):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.05)


def _state(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def test_dead_worker_is_reported(tmp_path, tokenizer, small_parts):
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    jobs = [encode_part.PartJob(i, part, tmp_path, 0, 0) for i, part in enumerate(source.parts())]
    with WorkerPool(1, TextEncoder(tokenizer)) as pool:
        next(iter(pool.workers.values())).kill()
        with pytest.raises(RuntimeError, match=r"worker for part 0 died \(exit code -9; .*lower num_workers"):
            list(pool.run(jobs, lambda *_: None))


def test_full_disk(tmp_path, tokenizer, small_parts, monkeypatch):
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    write, calls = encode_part._SplitWriter.write, []

    def full_after_a_while(self, *arguments):
        calls.append(1)
        if len(calls) > 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(encode_part._SplitWriter, "write", full_after_a_while)
        with pytest.raises(
            OSError, match=r"no space left for source 'text' in .*needs about .* MB more, and"
        ) as caught:
            run(source, tokenizer, tmp_path / "out")
    assert caught.value.errno == errno.ENOSPC
    done = int(re.search(r"\((\d+) of \d+ parts are done and kept\)", str(caught.value))[1])
    assert done == len(list((tmp_path / "out").glob("*/parts/*.json"))) > 2
    assert not list((tmp_path / "out").rglob("*.tmp"))
    assert contents(run(source, tokenizer, tmp_path / "out").train.parent) == contents(
        run(source, tokenizer, tmp_path / "straight").train.parent
    )


def test_two_processes_do_it_once(tmp_path, tokenizer):
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS * 8)
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), source.path, str(tokenizer), str(tmp_path / "out")]
    command[1:1] = ["-W", "error"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert len(list((tmp_path / "out").glob("text-*"))) == 1
    waited = sum("waiting for another process" in e for e in errors)
    assert waited <= 1  # the one that waits says so after half a second only


def test_lock_has_a_deadline(tmp_path, monkeypatch):
    monkeypatch.setattr(durable, "LOCK_SECONDS", 0.0)
    with (
        durable.locked(tmp_path / "a"),
        pytest.raises(RuntimeError, match="another process has held"),
        durable.locked(tmp_path / "a"),
    ):
        pass


def test_documents_begin_as_the_tokenizer_begins_a_text(tmp_path, tokenizer):
    """A bos that only chats use is put before no document; the two preparations are different folders."""
    shutil.copytree(tokenizer, tmp_path / "chat")
    rules = json.loads((tokenizer / "tokenizer.json").read_text()) | {"post_processor": None}
    (tmp_path / "chat" / "tokenizer.json").write_text(json.dumps(rules))
    found = {}
    for name, folder in (("text", tokenizer), ("chat", tmp_path / "chat")):
        train = run(InMemory(TEXTS[:3]), folder, tmp_path / "out", fraction=0.0).train
        source = TokenizedSource(train)
        found[name] = (train, Tokenizer(folder).decode(source.span(0, source.num_tokens)[0]))
    assert found["chat"][0] != found["text"][0]
    assert found["text"][1].count("<s>") == 3
    assert found["chat"][1] == found["text"][1].replace("<s>", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a/b"}, "source name 'a/b' cannot be a folder name"),
        ({"fraction": 1.0}, "validation_fraction is invalid: 1.0; choose"),
        ({"fraction": 0.9999999}, "leaves no training document"),
        ({"num_workers": -1}, "num_workers is invalid: -1"),
        ({"source": InMemory(["", " "])}, "source 'text': no text: 2 documents, all empty"),
        ({"source": InMemory([])}, "source 'text': no text: 0 documents"),
    ],
)
def test_bad_options(tmp_path, tokenizer, options, message):
    with pytest.raises(ValueError, match=message):
        run(**({"source": InMemory(TEXTS), "tokenizer": tokenizer, "root": tmp_path} | options))


def test_missing_path_names_the_source(tmp_path, tokenizer):
    with pytest.raises(FileNotFoundError, match=r"source 'text': .*does not exist"):
        run(TextFolder(str(tmp_path / "none")), tokenizer, tmp_path)


@pytest.mark.parametrize("size", [3, 4])
def test_large_vocabulary_takes_more_bytes(tmp_path, tokenizer, monkeypatch, size):
    monkeypatch.setattr(TokenWidth, "of", lambda vocab_size: TokenWidth(size))
    found = run(InMemory(TEXTS), tokenizer, tmp_path, fraction=0.0)
    source = TokenizedSource(found.train)
    source.verify()
    file = found.train / "part-000000.tokens"
    assert file.stat().st_size == size * source.num_tokens
    assert documents(found.train, tokenizer) == TEXTS
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 1
    file.write_bytes(changed)
    with pytest.raises(ValueError, match=r"part-000000\.tokens is damaged"):
        TokenizedSource(found.train).span(source.num_tokens - 5, source.num_tokens)


def test_parts_of_another_width_are_made_again(tmp_path, tokenizer, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(TokenWidth, "of", lambda vocab_size: TokenWidth(4))
        before = run(InMemory(TEXTS), tokenizer, tmp_path)
    (before.train / "manifest.json").unlink()
    assert contents(run(InMemory(TEXTS), tokenizer, tmp_path).train.parent) == contents(
        run(InMemory(TEXTS), tokenizer, tmp_path / "straight").train.parent
    )


def test_prepare_all_trains_the_tokenizer_once(tmp_path):
    data = {"a": InMemory(TEXTS), "b": InMemory(["other text " * 5, "and more"])}
    config = TokenizerConfig(train_vocab_size=280)
    first = prepare_all(data, config, tmp_path, 0.1, num_workers=0, progress=False)
    assert Tokenizer(first.tokenizer).vocab_size == 280
    assert list(first.sources) == ["a", "b"]
    made = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*") if f.is_file()}
    assert prepare_all(data, config, tmp_path, 0.1, num_workers=0, progress=False) == first
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*") if f.is_file()} == made
    given = prepare_all(data, TokenizerConfig(str(first.tokenizer)), tmp_path, 0.1, num_workers=0, progress=False)
    assert given == first
    less = prepare_all({"a": data["a"]}, config, tmp_path, 0.1, num_workers=0, progress=False)
    assert less.tokenizer != first.tokenizer
    with pytest.raises(ValueError, match="no sources"):
        prepare_all({}, config, tmp_path)


def test_sampling_is_even(small_parts):
    small, large, larger = ["s" * 100], ["l" * 100] * 500, ["L" * 100] * 1000
    data = {"small": InMemory(small), "large": InMemory(large), "larger": InMemory(larger)}
    texts = "".join(sample_texts(data, 20_100))
    assert {c: texts.count(c) for c in "slL"} == {"s": 100, "l": 10_000, "L": 10_000}
    assert len("".join(sample_texts(data, 10**9))) == 150_100
    spread = InMemory([str(i // 100) * 100 for i in range(1000)])
    assert set("".join(sample_texts({"a": spread}, 5000))) == set("0123456789")  # from all over, not the beginning


def test_progress_lines(tmp_path, tokenizer, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    prepare_source("web", InMemory([*TEXTS, ""]), tokenizer, tmp_path, 0.1, 0, 0, progress=True)
    errors = capsys.readouterr().err
    assert re.search(r"web: \d+ documents, .* MB/s, .* tokens/s", errors)
    assert re.search(r"web/train: \d+ documents, .* tokens \(1 empty documents skipped\)", errors)


def test_source_classes_of_the_script_cannot_go_to_workers(tmp_path, tokenizer, small_parts, monkeypatch):
    monkeypatch.setattr(sources.InMemoryPart, "__module__", "__main__")
    with pytest.raises(ValueError, match=r"workers cannot import InMemoryPart .* set num_workers to 0"):
        run(InMemory(TEXTS), tokenizer, tmp_path, num_workers=2)


# -- engines -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def any_size(monkeypatch):
    """fastokens is used for small sources, too."""
    monkeypatch.setattr(preparation, "FAST_BYTES", 0)


def engines(folder: Path) -> set[str]:
    return {json.loads(file.read_text())["engine"] for file in (folder / "parts").iterdir()}


def without_engine(found: dict[str, bytes]) -> dict[str, bytes]:
    """All but the records of parts, which alone say who encoded."""
    return {name: data for name, data in found.items() if not name.startswith("parts/") and name != "source.json"}


@pytest.mark.parametrize("workers", [0, 2])
def test_both_engines_write_the_same(tmp_path, tokenizer, small_parts, any_size, monkeypatch, workers):
    texts = [*TEXTS, "", " \n", "it's 1234  5 é\u0301 中文 🙂</s>", *TEXTS[:50]]
    source = write_jsonl(tmp_path / "a.jsonl", texts)
    fast = run(source, tokenizer, tmp_path / "fast", num_workers=workers).train.parent
    monkeypatch.setattr(preparation, "FAST_BYTES", 1 << 60)
    judged = run(source, tokenizer, tmp_path / "judged").train.parent
    assert engines(fast) == {"fastokens"} and engines(judged) == {"tokenizers"}
    assert without_engine(contents(fast)) == without_engine(contents(judged))


@pytest.fixture
def wrong_fastokens(monkeypatch):
    """Rules with which fastokens merges one pair less than it has to, and no probe that would find it."""
    right = fast_encoder.fast_rules

    def wrong(rules):
        state = json.loads(right(rules))
        state["model"]["merges"] = state["model"]["merges"][:5]
        return json.dumps(state)

    monkeypatch.setattr(fast_encoder, "fast_rules", wrong)
    monkeypatch.setattr(fast_encoder, "probe_texts", lambda judge: [])


def test_other_ids_for_an_audited_document_make_all_of_the_source_again(
    tmp_path, tokenizer, small_parts, any_size, monkeypatch, wrong_fastokens, caplog
):
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    audited = (TEXTS[250].encode(), TEXTS[290].encode())  # of late parts: others have been written before
    monkeypatch.setattr(encoder, "is_audited", lambda content: content in audited)
    found = run(source, tokenizer, tmp_path / "fast").train.parent
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith(
        "source 'text' is encoded by tokenizers, from its beginning: fastokens gives other ids"
    )
    assert "\n" not in warnings[0]
    assert engines(found) == {"tokenizers"}
    monkeypatch.setattr(preparation, "FAST_BYTES", 1 << 60)
    judged = contents(run(source, tokenizer, tmp_path / "judged").train.parent)
    marked = contents(found)
    assert "document number" in json.loads(marked.pop(preparation.ENGINES_DIFFER))["why"]
    assert without_engine(marked) == without_engine(judged)


def test_a_kill_after_the_difference_was_found_leaves_nothing_of_fastokens(
    tmp_path, tokenizer, small_parts, any_size, monkeypatch, wrong_fastokens
):
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    audited = TEXTS[250].encode()
    monkeypatch.setattr(encoder, "is_audited", lambda content: content == audited)
    make = preparation.encode_part

    def killed_when_judged(job, *rest):
        if job.engine == "tokenizers" and job.index == 3:
            raise KeyboardInterrupt
        return make(job, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(preparation, "encode_part", killed_when_judged)
        with pytest.raises(KeyboardInterrupt):
            run(source, tokenizer, tmp_path / "fast")
    (folder,) = (path for path in (tmp_path / "fast").iterdir() if path.is_dir())
    assert engines(folder) == {"fastokens", "tokenizers"}
    found = contents(run(source, tokenizer, tmp_path / "fast").train.parent)
    assert engines(folder) == {"tokenizers"}
    monkeypatch.setattr(preparation, "FAST_BYTES", 1 << 60)
    judged = contents(run(source, tokenizer, tmp_path / "judged").train.parent)
    found.pop(preparation.ENGINES_DIFFER)
    assert without_engine(found) == without_engine(judged)


def test_a_tokenizer_that_fastokens_cannot_read_is_told_in_one_line(tmp_path, tokenizer, any_size, caplog):
    folder = tmp_path / "metaspace"
    shutil.copytree(tokenizer, folder)
    rules = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    rules["pre_tokenizer"] = {"type": "Metaspace", "replacement": "Ġ", "prepend_scheme": "never", "split": True}
    (folder / "tokenizer.json").write_text(json.dumps(rules), "utf-8")
    found = run(InMemory(TEXTS), folder, tmp_path / "out").train.parent
    (warning,) = (record.getMessage() for record in caplog.records)
    assert re.fullmatch(
        r"source 'text' is encoded by tokenizers, which is slower: fastokens cannot read .*Metaspace\)", warning
    )
    assert engines(found) == {"tokenizers"}


def test_without_fastokens_the_same_is_written(tmp_path, tokenizer, any_size, monkeypatch):
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    fast = contents(run(source, tokenizer, tmp_path / "fast").train.parent)
    monkeypatch.setattr(preparation, "is_installed", lambda: False)
    other = run(source, tokenizer, tmp_path / "other").train.parent
    assert engines(other) == {"tokenizers"}
    assert without_engine(contents(other)) == without_engine(fast)


def test_a_difference_passes_from_a_worker(tmp_path):
    assert type(worker_pool._plain_error(EnginesDiffer("why"))) is EnginesDiffer
