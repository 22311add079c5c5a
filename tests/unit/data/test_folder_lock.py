"""One process at a time in a folder: who is refused, and that stale locks do not block."""

import os
import signal
import subprocess
import sys

import pytest

from nbg_lightning.data.folder_lock import LOCK, FolderInUse, folder_lock

HOLD = """
import sys, time
from pathlib import Path
from nbg_lightning.data.folder_lock import folder_lock
with folder_lock(Path(sys.argv[1]), "trains"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_is_told_who_has_it(holder, tmp_path):
    with pytest.raises(FolderInUse) as caught, folder_lock(tmp_path, "trains"):
        pass
    text = str(caught.value)
    assert text.startswith(f"process {holder.pid} on ")
    assert f"trains in {tmp_path} since " in text
    assert "wait for it, end it, or give another folder" in text
    assert "\n" not in text


def test_a_killed_holder_does_not_block(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    with folder_lock(tmp_path, "trains"):
        assert f'"process": {os.getpid()}' in (tmp_path / LOCK).read_text()
    with folder_lock(tmp_path, "trains"):
        pass


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, caplog):
    def cannot(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", cannot)
    with folder_lock(tmp_path, "trains"):
        pass
    assert f"{tmp_path} cannot be locked (Operation not supported)" in caplog.text
