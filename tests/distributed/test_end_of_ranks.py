"""Ranks end with their own exit code, although gloo's threads may still be busy."""

from __future__ import annotations

import subprocess
import sys

# Each pair of processes starts all-reduces whose results nobody waits for; the second rank joins them while the first one ends.
PAIRS = """
import os, sys, tempfile, time
import torch, torch.distributed as dist
from nbg_lightning.distributed import end_rank

def rank(number, store, delay):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=number, world_size=2)
    kept.append(dist.group.WORLD)  # as sharded modules keep it: its threads run on
    dist.barrier()
    time.sleep(delay if number else 0)
    for _ in range(40):
        tensor = torch.ones(200_000)
        tensor.kept_by_python = True
        dist.all_reduce(tensor, async_op=True)
    if number:
        time.sleep(0.2)

torch.set_num_threads(1)
kept, codes = [], []
for pair in range(int(sys.argv[1])):
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for number in range(2):
            child = os.fork()
            if not child:
                rank(number, f"{folder}/store", 0.002 * pair)
                end_rank(3 + number)
            children.append(child)
        codes += [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
print(codes)
"""


def test_a_busy_rank_ends_with_its_own_code(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", PAIRS, "12"], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert "terminate" not in ended.stderr
    assert ended.stdout.split("\n")[0] == str([3, 4] * 12)
    # Ending by sys.exit, one process in four of these aborts.


def test_a_closed_stream_changes_no_exit_code():
    end = "from nbg_lightning.distributed import end_rank; end_rank(3)"
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        code = subprocess.run(["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, end], check=False).returncode
        assert code == 3, closed


OPEN = """
import ctypes, sys, threading, time
from nbg_lightning.distributed import end_rank
lines, raw = open("lines.txt", "w"), open("raw.bin", "wb")
lines.write("last line")
raw.write(b"last bytes")
ctypes.CDLL(None).printf(b"of C\\n")
threading.Thread(target=lambda: (time.sleep(0.2), open("thread.txt", "w").write("done"))).start()
print("of Python", end="")
end_rank(3)
"""


def test_what_open_files_buffer_is_written(tmp_path):
    ended = subprocess.run([sys.executable, "-c", OPEN], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert ended.returncode == 3, ended.stderr
    assert (tmp_path / "lines.txt").read_text() == "last line"
    assert (tmp_path / "raw.bin").read_bytes() == b"last bytes"
    assert (tmp_path / "thread.txt").read_text() == "done"
    assert "of Python" in ended.stdout
    assert "of C\n" in ended.stdout


STUCK = """
import os, threading, time
from nbg_lightning import distributed
distributed._FLUSH_SECONDS = 1.0
reader, writer = os.pipe()  # a disk that does not answer
stuck, lines = open(writer, "wb"), open("lines.txt", "w")
threading.Thread(target=lambda: stuck.write(bytes(4_000_000)), daemon=True).start()
time.sleep(0.3)
lines.write("last line")
distributed.end_rank(3)
"""


def test_a_file_that_a_thread_is_stuck_in_does_not_keep_the_rank(tmp_path):
    """As a checkpoint's that is written in the background to a disk that does not answer."""
    ended = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert ended.returncode == 3, ended.stderr
    assert (tmp_path / "lines.txt").read_text() == "last line"
