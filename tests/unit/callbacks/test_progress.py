"""Progress on a terminal, in a log, and without a known end."""

import io
import logging
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from rich.console import Console

from nbg_lightning.callbacks import progress as module
from nbg_lightning.callbacks.progress import TokenProgress
from nbg_lightning.testing import train_small


@pytest.fixture
def terminal(monkeypatch):
    """What a terminal of 120 columns would be sent."""
    stream = io.StringIO()

    def console(**_):
        return Console(file=stream, force_terminal=True, width=120)

    monkeypatch.setattr(module, "Console", console)
    return stream


def plain(text):
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_bar_on_a_terminal(tmp_path, terminal):
    bar = TokenProgress()
    train_small(tmp_path, callbacks=[bar], enable_progress_bar=True)
    shown = plain(terminal.getvalue())
    last = shown.strip().splitlines()[-1]
    assert last.startswith("decay")
    assert "3.07K/3.07K tokens" in last
    assert re.search(r"loss \d\.\d{3}", last)
    assert bar._bar is None  # the terminal is given back


def test_bar_of_a_resumed_run_starts_where_it_was(tmp_path, terminal):
    bar, completed = TokenProgress(), []

    class Look(pl.Callback):
        def on_train_batch_start(self, *_):
            completed.append(bar._bar.tasks[0].completed)

    train_small(tmp_path, max_steps=8)
    train_small(tmp_path, resume="last", callbacks=[bar, Look()], enable_progress_bar=True)
    assert completed == [8, 9, 10, 11]


def test_bar_ends_with_an_exception(tmp_path, terminal):
    class Fail(pl.Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 3:
                raise OSError("gone")

    bar = TokenProgress()
    with pytest.raises(OSError, match="gone"):
        train_small(tmp_path, callbacks=[bar, Fail()], enable_progress_bar=True)
    assert bar._bar is None
    assert terminal.getvalue().rstrip().endswith("\x1b[?25h")  # the cursor is back


def test_lines_in_a_log(tmp_path, capfd):
    train_small(tmp_path, callbacks=[TokenProgress(seconds=0)], enable_progress_bar=True, max_steps=6)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("[")]
    assert len(lines) == 6
    assert lines[0].startswith("[warmup] 256/1.54K tokens  loss ")
    assert re.search(r"\d:\d\d:\d\d left$", lines[0])
    assert lines[-1].startswith("[stable] 1.54K/1.54K tokens")
    assert lines[-1].endswith("0:00:00 left")


def test_lines_are_rare(tmp_path, capfd):
    train_small(tmp_path, callbacks=[TokenProgress(seconds=100)], enable_progress_bar=True)
    assert not [line for line in capfd.readouterr().err.splitlines() if line.startswith("[")]


def test_disabled(tmp_path, terminal, capfd):
    bar = TokenProgress(seconds=0)
    bar.disable()
    train_small(tmp_path, callbacks=[bar], enable_progress_bar=True)
    assert terminal.getvalue() == ""


def test_unknown_end(capfd):
    """An iterable dataset without max_steps: no total, and no time left."""
    bar = TokenProgress(seconds=0)
    trainer = SimpleNamespace(
        datamodule=None,
        num_training_batches=float("inf"),
        max_steps=-1,
        global_step=0,
        is_global_zero=True,
        progress_bar_metrics={"train/loss": torch.tensor(2.5)},
        callback_metrics={},
    )
    bar.on_train_start(trainer, None)
    trainer.global_step = 3
    bar.on_train_batch_end(trainer, None, None, None, 0)
    assert capfd.readouterr().err.strip() == "[train] step 3  loss 2.500"


SCRIPT = """
import logging, sys
from nbg_lightning.quiet import quiet_libraries
quiet_libraries()
from rich.console import Console
from rich.progress import Progress
with Progress(console=Console(stderr=True)) as bar:
    bar.add_task("bar", total=10)
    bar.refresh()
    logging.getLogger("nbg_lightning").info("a message")
    bar.refresh()
"""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no pseudo terminals")
def test_messages_stand_above_the_bar():
    """On a real terminal a message clears the bar's line first; written past it, it would land behind the bar."""
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=theirs, env=environment)
    os.close(theirs)
    sent = b""
    while True:
        try:
            block = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not block:
            break
        sent += block
    assert process.wait() == 0
    os.close(ours)
    before = sent.decode().split("a message")[0]
    assert before.endswith("\x1b[2K"), repr(before[-80:])  # the bar's line has been erased


def test_messages_go_to_the_present_standard_error(monkeypatch):
    from nbg_lightning.quiet import _StandardError

    handler, stream = _StandardError(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    handler.emit(logging.LogRecord("x", logging.INFO, "", 0, "a message", (), None))
    assert stream.getvalue() == "a message\n"
