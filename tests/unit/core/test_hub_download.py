"""Of the ranks that share a cache one downloads; the others use its files, or time out."""

import os
import subprocess
import sys

import pytest
from filelock import FileLock

from nbg_lightning.core.hub_download import launch_of, once_a_node

RANK = """
import os, sys, time
from pathlib import Path
from nbg_lightning.core.hub_download import once_a_node
folder = Path(sys.argv[1])
def get(there):
    with (folder / "calls").open("a") as calls:
        calls.write(f"{there}\\n")
    if not there:
        time.sleep(0.3)
        (folder / "model").write_text("weights")
    return (folder / "model").read_text()
print(once_a_node("some/model", get, folder))
"""


def ranks(folder, count, **variables):
    environment = {**os.environ, "WORLD_SIZE": str(count), "MASTER_PORT": "1", **variables}
    words = [sys.executable, "-c", RANK, str(folder)]
    started = [subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return [rank.communicate(timeout=120)[0].strip() for rank in started]


def test_one_rank_asks_the_network_and_the_next_launch_asks_again(tmp_path):
    assert ranks(tmp_path, 4) == ["weights"] * 4
    assert sorted((tmp_path / "calls").read_text().split()) == ["False", "True", "True", "True"]
    assert ranks(tmp_path, 2, MASTER_PORT="2") == ["weights"] * 2
    assert (tmp_path / "calls").read_text().split().count("False") == 2


def test_a_download_that_fails_is_tried_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")

    def fail(there):
        raise OSError("no network")

    with pytest.raises(OSError, match="no network"):
        once_a_node("a/b", fail, tmp_path)
    assert once_a_node("a/b", lambda there: there, tmp_path) is False
    assert once_a_node("a/b", lambda there: there, tmp_path) is True


def test_waiting_has_a_deadline(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    once_a_node("a/b", lambda there: there, tmp_path)
    (lock,) = (tmp_path / ".nbg-locks").glob("a--b-*.lock")
    with FileLock(lock), pytest.raises(TimeoutError, match="download it before the run"):
        once_a_node("a/b", lambda there: there, tmp_path, wait_seconds=0.2)  # it returns, though nobody lets go


def test_a_process_by_itself_takes_no_lock(tmp_path, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    assert once_a_node("a/b", lambda there: there, tmp_path) is False
    assert not any(tmp_path.iterdir())
    assert launch_of({"WORLD_SIZE": "1"}) is None
    assert launch_of({"WORLD_SIZE": "2"}) != launch_of({"WORLD_SIZE": "2", "MASTER_PORT": "5"})
