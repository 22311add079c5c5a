"""Atomic files and folders: unchanged after an error, a kill or a full disk."""

import signal
import subprocess
import sys

import pytest

from nbg_lightning.data.durable import AtomicFile, atomic, atomic_folder, locked, remove_leftovers, write_atomic

KILLED = """
import os, signal, sys
from pathlib import Path
from nbg_lightning.data.durable import atomic
with atomic(Path(sys.argv[1])) as stream:
    stream.write(b"half")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_has_its_name_when_it_is_whole(tmp_path):
    file = tmp_path / "report.json"
    with atomic(file) as stream:
        stream.write(b"new")
        assert not file.exists()
    assert file.read_bytes() == b"new" and names(tmp_path) == ["report.json"]


def test_after_an_error_the_old_content_stays(tmp_path):
    file = tmp_path / "report.json"
    write_atomic(file, "old")
    with pytest.raises(TypeError), atomic(file) as stream:
        stream.write(b"new" + None)
    assert file.read_text() == "old" and names(tmp_path) == ["report.json"]


def test_a_killed_writer_leaves_the_old_content_and_a_file_that_the_next_one_removes(tmp_path):
    file = tmp_path / "report.json"
    write_atomic(file, "old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(file)])
    assert killed.returncode == -signal.SIGKILL
    (tmp_path / ".part-000001.parquet.partial").touch()  # as earlier versions named it
    assert file.read_text() == "old" and len(names(tmp_path)) == 3
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["report.json"]


def test_half_a_surrogate_pair_is_written_as_its_escape(tmp_path):
    write_atomic(tmp_path / "text", "a\ud83d")
    assert (tmp_path / "text").read_bytes() == b"a\\ud83d"


def test_what_is_committed_is_not_discarded(tmp_path):
    writer = AtomicFile(tmp_path / "part")
    writer.stream.write(b"1")
    writer.commit()
    writer.discard()
    assert (tmp_path / "part").read_bytes() == b"1"


def test_a_folder_takes_the_place_of_an_unfinished_one(tmp_path):
    folder = tmp_path / "windows"
    folder.mkdir()
    (folder / "begins.npy").touch()
    with pytest.raises(FileNotFoundError), atomic_folder(folder) as filled:
        (filled / "missing" / "documents.npy").touch()
    assert names(folder) == ["begins.npy"]
    with atomic_folder(folder) as filled:
        (filled / "documents.npy").touch()
    assert names(folder) == ["documents.npy"] and names(tmp_path) == ["windows"]


def test_a_lock_is_free_after_the_block_and_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), locked(tmp_path / "source"):
            raise KeyError
