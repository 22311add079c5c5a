"""The table of stages is also right after a resume, where a checkpoint is older than the validation of its step."""

import json

import lightning.pytorch as pl
import pytest
from rich.console import Console

from nbg_lightning.callbacks.stage_table import StageTable
from nbg_lightning.testing import train_small

OPTIONS = {"limit_val_batches": 1.0, "val_check_interval": 4, "checkpoint_every": 4}


def rows(folder):
    return json.loads((folder / "stages.json").read_text())


def fit(folder, **options):
    return train_small(folder, **{**OPTIONS, "callbacks": [StageTable()], **options})


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    fit(folder)
    return folder


def test_rows_are_the_ends_of_stages(straight):
    assert {name: row["step"] for name, row in rows(straight).items()} == {"warmup": 4, "stable": 8, "decay": 12}


def test_resumed_table_is_whole(straight, tmp_path):
    fit(tmp_path, max_steps=8)
    assert list(rows(tmp_path)) == ["warmup", "stable"]
    fit(tmp_path, resume="last")
    assert rows(tmp_path) == rows(straight)


def test_rows_after_the_checkpoint_are_dropped(straight, tmp_path):
    """Going back: what was validated later is of a past that is no more."""
    (tmp_path / "stages.json").write_text((straight / "stages.json").read_text())
    seen = []

    class Look(pl.Callback):
        def on_train_batch_start(self, trainer, *_):
            table = next(callback for callback in trainer.callbacks if isinstance(callback, StageTable))
            seen.append(list(table.stages))

    fit(tmp_path, resume=straight / "checkpoints" / "step-00000004", callbacks=[StageTable(), Look()])
    assert seen[0] == ["warmup"]
    assert rows(tmp_path) == rows(straight)


def test_a_new_run_begins_a_new_table(tmp_path):
    (tmp_path / "stages.json").write_text(json.dumps({"of another run": {"step": 2, "val/loss": 1.0}}))
    fit(tmp_path, max_steps=4)
    assert list(rows(tmp_path)) == ["warmup"]


def test_the_file_is_there_from_the_first_validation_on(tmp_path):
    class Fail(pl.Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 6:
                raise OSError("the machine is gone")

    with pytest.raises(OSError, match="gone"):
        fit(tmp_path, callbacks=[StageTable(), Fail()])
    assert list(rows(tmp_path)) == ["warmup"]


def test_own_path(tmp_path):
    fit(tmp_path / "run", max_steps=4, callbacks=[StageTable(str(tmp_path / "tables" / "one.json"))])
    assert list(json.loads((tmp_path / "tables" / "one.json").read_text())) == ["warmup"]


def test_printed(straight, capsys):
    table = StageTable()
    table.stages = rows(straight)
    del table.stages["warmup"]["val/b/loss"]  # a source that joined later
    console = Console(width=100, record=True)
    console.print(table.table())
    lines = console.export_text().splitlines()
    assert "end of each stage: loss (bits per byte)" in lines[0]
    warmup, decay = (next(line for line in lines if name in line) for name in ("warmup", "decay"))
    assert warmup.split("│")[4].strip() == "-"
    last = rows(straight)["decay"]
    assert f"{last['val/b/loss']:.3f} ({last['val/b/bits_per_byte']:.3f})" in decay
