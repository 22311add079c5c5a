"""One source prepared by several machines, or on Ray: the same files as on one machine."""

import json
import multiprocessing
import shutil
import subprocess
import sys

import pytest

from nbg_lightning.data import JsonLines, prepare_source, sources
from nbg_lightning.data.encoder import TextEncoder
from nbg_lightning.data.folder_lock import FolderInUse
from nbg_lightning.data.prepare import PreparationSettings, prepare_encoded, prepare_share
from nbg_lightning.data.share import Share
from nbg_lightning.data.tokenizer import train_bpe

TEXTS = [f"document number {i} of {i * i} " * (i % 9 + 1) for i in range(200)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_bpe(TEXTS, 280, tmp_path_factory.mktemp("tokenizer") / "bpe")


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.source, "MIN_PART_BYTES", 2000)
    monkeypatch.setattr(sources.source, "MAX_PART_BYTES", 2000)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return JsonLines(str(tmp_path / "a.jsonl"))


@pytest.fixture
def one_machine(source, tokenizer, tmp_path):
    return prepare_source("text", source, tokenizer, tmp_path / "one", 0.1, num_workers=0, progress=False).train.parent


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def share_of(source, tokenizer, root, text, fraction=0.1, seed=0):
    settings = PreparationSettings(root, fraction, seed, num_workers=0, progress=False)
    return prepare_share("text", source, TextEncoder(tokenizer), settings, Share.parse(text))


def only_folder(root):
    (folder,) = (found for found in root.iterdir() if found.is_dir())
    return folder


@pytest.mark.parametrize(
    "order", [["1/1"], ["3/3", "1/3", "2/3"], [f"{n}/8" for n in range(1, 9)], ["1/2", "2/4", "2/2"]]
)
def test_any_number_of_machines_makes_the_files_of_one(source, tokenizer, tmp_path, one_machine, order):
    finished = [share_of(source, tokenizer, tmp_path / "many", text) for text in order]
    assert finished == [False] * (len(order) - 1) + [True]
    assert contents(only_folder(tmp_path / "many")) == contents(one_machine)
    assert share_of(source, tokenizer, tmp_path / "many", "1/5")  # nothing is left to do


def test_machines_at_once(source, tokenizer, tmp_path, one_machine):
    context = multiprocessing.get_context("fork")
    root = tmp_path / "many"
    machines = [context.Process(target=share_of, args=(source, tokenizer, root, f"{n}/3")) for n in (1, 2, 3)]
    for machine in machines:
        machine.start()
    for machine in machines:
        machine.join(60)
    assert [machine.exitcode for machine in machines] == [0, 0, 0]
    assert contents(only_folder(root)) == contents(one_machine)


def test_a_machine_that_is_gone_is_done_again(source, tokenizer, tmp_path, one_machine):
    root = tmp_path / "many"
    share_of(source, tokenizer, root, "1/2")
    folder = only_folder(root)
    shutil.rmtree(folder / "validation")
    (folder / "train" / ".part-000001.tokens.9.tmp").write_text("of a killed process")
    (folder / "train" / ".part-000000.tokens.9.tmp").write_text("of another machine's part")
    assert not share_of(source, tokenizer, root, "2/2")  # parts without their files are left to others
    assert [file.name for file in (folder / "train").glob(".*")] == [".part-000000.tokens.9.tmp"]
    assert share_of(source, tokenizer, root, "1/2")
    assert contents(folder) == contents(one_machine)


def test_one_machine_ends_what_several_began(source, tokenizer, tmp_path, one_machine):
    root = tmp_path / "many"
    share_of(source, tokenizer, root, "2/3")
    done = {file: file.stat().st_mtime_ns for file in only_folder(root).glob("parts/*")}
    found = prepare_source("text", source, tokenizer, root, 0.1, num_workers=0, progress=False).train.parent
    assert contents(found) == contents(one_machine)
    assert {file: file.stat().st_mtime_ns for file in done} == done


def test_a_share_or_all_that_another_process_does(source, tokenizer, tmp_path):
    root = tmp_path / "many"
    share_of(source, tokenizer, root, "1/2")
    command = (
        "import sys; from pathlib import Path; from nbg_lightning.data.folder_lock import folder_lock\n"
        "with folder_lock(Path(sys.argv[1]), 'prepares part 2/2', '.part-2-of-2'): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", command, only_folder(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        for work in (
            lambda: share_of(source, tokenizer, root, "2/2"),
            lambda: prepare_source("text", source, tokenizer, root, 0.1, num_workers=0, progress=False),
        ):
            with pytest.raises(FolderInUse, match=f"process {other.pid} on .* prepares part 2/2"):
                work()
        other.stdin.close()
    assert share_of(source, tokenizer, root, "2/2")


def test_other_settings_are_refused(source, tokenizer, tmp_path):
    root = tmp_path / "many"
    share_of(source, tokenizer, root, "1/2")
    with pytest.raises(
        ValueError, match=r"source 'text': validation_fraction, seed is invalid: .*/text-[0-9a-f]{16} has"
    ):
        share_of(source, tokenizer, root, "2/2", fraction=0.2, seed=1)
    assert share_of(source, tokenizer, root, "2/2")
    assert not share_of(source, tokenizer, root, "1/2", fraction=0.2)  # a finished folder is no rival


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/3/2", "", "1e1/20", "9" * 30 + "/1"])
def test_a_part_that_is_none(text):
    with pytest.raises(ValueError, match="part is invalid") as caught:
        Share.parse(text)
    assert len(str(caught.value)) < 150


def test_ray_makes_the_same_files(source, tokenizer, tmp_path, one_machine):
    import ray

    try:
        settings = PreparationSettings(tmp_path / "ray", 0.1, num_workers=1, progress=False, engine="ray")
        found = prepare_encoded("text", source, TextEncoder(tokenizer), settings).train.parent
    finally:
        ray.shutdown()
    assert contents(found) == contents(one_machine)
