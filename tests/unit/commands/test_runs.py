"""Listing runs from their folders, whatever these contain."""

import json
import os
import subprocess
import sys

import pytest

from nbg_lightning.callbacks.run_status import RECORD, RunStatus
from nbg_lightning.commands import runs as command
from nbg_lightning.commands.run_folder import find_runs, read_run
from nbg_lightning.data.folder_lock import folder_lock
from nbg_lightning.testing import train_small


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    train_small(folder / "pretrain", checkpoint_every=5, limit_val_batches=1, val_check_interval=4)
    return folder


def rows(folder, capsys):
    assert command.main([str(folder), "--json"]) == 0
    return {os.path.basename(row["path"]): row for row in json.loads(capsys.readouterr().out)}


def test_a_run_is_a_row(trained, capsys):
    [row] = rows(trained, capsys).values()
    assert (row["state"], row["module"], row["step"], row["steps"]) == ("finished", "PretrainModule", 12, 12)
    assert row["stage"] == "decay" and row["checkpoint"].endswith("step-00000012")
    assert set(row["results"]) == {"loss", "validation loss"}
    assert row["size"] > 100_000 and row["problem"] is None
    assert command.main([str(trained)]) == 0
    shown = capsys.readouterr().out
    assert "pretrain" in shown and "finished" in shown and "12/12" in shown


def test_states(trained, tmp_path, capsys):
    class Fails(Exception):
        pass

    def fail(*_):
        raise Fails("no more")

    from nbg_lightning.callbacks import RunSummary

    summary = RunSummary()
    summary.on_train_batch_start = fail
    with pytest.raises(Fails):
        train_small(tmp_path / "failed", callbacks=[summary])
    RunStatus("SFTModule", "running", 3, 9).write(tmp_path / "killed")
    RunStatus("SFTModule", "running", 4, 9).write(tmp_path / "running")
    with folder_lock(tmp_path / "running", "trains"):
        found = rows(tmp_path, capsys)
    states = {name: row["state"] for name, row in found.items()}
    assert states == {"failed": "failed", "killed": "killed", "running": "running"}
    assert found["failed"]["problem"] == "Fails: no more"


def test_hostile_folders_are_rows(tmp_path, capsys):
    records = {
        "empty": "",
        "list": "[]",
        "types": '{"step": "many"}',
        "nothing": '{"step": 1, "steps": [], "stage": {}}',
        "deep": "[" * 100_000,
        "large": '{"module": "' + "x" * 2_000_000 + '"}',
        "results": '{"results": {"loss": "low"}}',
        "infinite": '{"results": {"loss": NaN, "reward": -Infinity}}',
        "escape": json.dumps({"module": "x", "state": "finished", "stage": "\x1b[31m\u202estage"}),
    }
    for name, content in records.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / RECORD).write_text(content)
    (tmp_path / "folder" / RECORD).mkdir(parents=True)
    (tmp_path / "half" / "checkpoints" / "step-00000007").mkdir(parents=True)
    (tmp_path / "half" / "checkpoints" / "step-00000007.partial").mkdir()
    (tmp_path / "foreign" / "benchmarks" / "x").mkdir(parents=True)
    (tmp_path / "foreign" / "benchmarks" / "x" / "results.json").write_text('{"benchmarks": 7}')
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "config.yaml").write_text("")
    (tmp_path / "stages" / "stages.json").write_text("{}")
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "again").symlink_to(tmp_path)
    (tmp_path / "loop" / "config.yaml").symlink_to("/nowhere")
    found = rows(tmp_path, capsys)
    assert set(found) == {*records, "folder", "half", "foreign", "stages", "loop"}
    assert {name for name, row in found.items() if row["problem"]} == {
        *("empty", "list", "types", "nothing", "deep", "large", "results", "folder", "foreign", "stages")
    }
    assert found["half"]["checkpoint"] is None
    assert command.main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "\x1b[31m" not in shown and "\u202e" not in shown


def test_a_benchmark_is_shown(tmp_path):
    for number, value in enumerate((0.25, 0.5)):
        folder = tmp_path / "benchmarks" / f"step-{number}"
        folder.mkdir(parents=True)
        entry = {"name": "sums", "primary": "accuracy", "metrics": {"accuracy": value}}
        (folder / "results.json").write_text(json.dumps({"suite": "s", "benchmarks": [entry]}))
        os.utime(folder / "results.json", (number, number))
    assert read_run(tmp_path).benchmarks == {"sums": 0.5}


def test_no_runs(tmp_path):
    with pytest.raises(FileNotFoundError, match="none; there is no such folder"):
        command.main([str(tmp_path / "none")])
    with pytest.raises(FileNotFoundError, match="there is no run in"):
        command.main([str(tmp_path)])
    assert list(find_runs(tmp_path)) == []


def test_a_list_of_runs_needs_no_torch(tmp_path):
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "config.yaml").touch()
    code = "import sys; from nbg_lightning.cli import main; code = main(['runs']); sys.exit(code or int('torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True).returncode == 0
