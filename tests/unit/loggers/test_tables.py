"""One table for every logger, read back from what the real packages keep; no network.

MLflow and trackio are not among the development packages, since they change versions of others: they are tested where
they are installed (``pip install mlflow-skinny trackio``).
"""

import csv
import json
import sqlite3
from importlib.util import find_spec

import pytest
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from nbg_lightning.loggers import LogsTables, RunRecord, TrackioLogger, log_table, log_text
from nbg_lightning.loggers.tables import markdown_cell, markdown_table, shows_tables

COLUMNS = ["answer", "reward"]
ROWS = [["a | b\n<script>\x1b[31m", 0.5], ["=1+2", None]]
SEEN = r"<script>\x1b[31m"


def tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(str(folder), name="t", version="")

    def read():
        logger.finalize("success")
        (event,) = EventAccumulator(str(folder / "t")).Reload().Tensors("rollouts/text_summary")
        table = event.tensor_proto.string_val[0].decode()
        assert event.step == 7 and table.startswith("| answer | reward |\n|---|---|\n| a \\| b<br>&lt;script&gt;")
        return table.replace("&lt;", "<").replace("&gt;", ">").replace("\\\\", "\\")

    return logger, read


def wandb(folder):
    logger = WandbLogger(save_dir=str(folder), offline=True, project="p")

    def read():
        import wandb

        wandb.teardown()  # and its process
        (file,) = folder.rglob("*.table.json")
        table = json.loads(file.read_text())
        assert table["columns"] == COLUMNS and table["data"][0][1] == 0.5 and table["data"][1][1] is None
        return table["data"][0][0]

    return logger, read


def in_csv(folder):
    logger = CSVLogger(str(folder), name="c", version="")

    def read():
        with open(folder / "c" / "rollouts.csv", newline="") as stream:
            rows = list(csv.reader(stream))
        assert rows[0] == ["step", *COLUMNS] and rows[1][::2] == ["7", "0.5"] and rows[2] == ["7", "=1+2", ""]
        return rows[1][1]

    return logger, read


def mlflow(folder):
    logger = MLFlowLogger("e", tracking_uri=f"file:{folder}/ml")

    def read():
        (file,) = folder.rglob("step-00000007.json")
        table = json.loads(file.read_text())
        assert table["columns"] == COLUMNS and table["data"][1][1] is None and file.parent.name == "rollouts"
        return table["data"][0][0]

    return logger, read


def trackio(folder):
    logger = TrackioLogger("p", "r")

    def read():
        logger.finalize("success")
        (file,) = (file for file in folder.rglob("*.db"))
        with sqlite3.connect(file) as base:
            (row,) = base.execute("select metrics from metrics").fetchall()
        base.close()
        answer = json.loads(row[0])["rollouts"]["_value"][0]["answer"]
        return answer.replace("&lt;", "<").replace("&gt;", ">").replace("\\\\", "\\")

    return logger, read


PACKAGES = {"mlflow": mlflow, "trackio": trackio}
KINDS = [tensorboard, wandb, in_csv, *(make for name, make in PACKAGES.items() if find_spec(name))]


@pytest.mark.parametrize("make", KINDS)
def test_a_table_arrives(make, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")  # the loggers set these two themselves
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/ml")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    logger, read = make(tmp_path)
    assert shows_tables([logger])
    log_table([logger], "rollouts", COLUMNS, ROWS, 7)
    assert SEEN in read()


class OwnLogger(RunRecord):
    """A logger of a user, with tables."""

    def __init__(self, folder):
        super().__init__(folder)
        self.tables = []

    def log_table(self, key, columns=None, data=None, *, step=None):
        self.tables.append((key, columns, data, step))


class ScalarsOnly(Logger):
    """A logger of a user, without."""

    name = version = "plain"

    def log_metrics(self, metrics, step=None):
        raise AssertionError

    def log_hyperparams(self, params, *args, **kwargs):
        raise AssertionError


def test_loggers_of_users(tmp_path):
    own = OwnLogger(tmp_path)
    assert isinstance(own, LogsTables)
    loggers = [ScalarsOnly(), RunRecord(tmp_path), own]
    log_table(loggers, "t", ["a"], [["x"]], 3)
    log_text(loggers, "samples", [("say ", "a\x07b")], 4)
    assert own.tables == [("t", ["a"], [["x"]], 3), ("samples", ["prompt", "text"], [["say ", "a\\x07b"]], 4)]
    assert not shows_tables(loggers[:2]) and shows_tables(loggers)
    assert not list(tmp_path.iterdir())


def test_texts_are_paragraphs_in_markdown(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(str(tmp_path), name="t", version="")
    log_text([logger], "samples", [("Say ", "<b>\nyes"), ("2", "3")], 1)
    logger.finalize("success")
    (event,) = EventAccumulator(str(tmp_path / "t")).Reload().Tensors("samples/text_summary")
    assert event.tensor_proto.string_val[0].decode() == "**Say **&lt;b&gt;<br>yes\n\n**2**3"


def test_a_csv_grows_over_steps(tmp_path):
    for step in (1, 2):
        log_table([CSVLogger(str(tmp_path), name="c", version="")], "a/b", ["x"], [[step]], step)
    assert (tmp_path / "c" / "a-b.csv").read_text().split() == ["step,x", "1,1", "2,2"]


def test_cells_of_markdown():
    assert markdown_table(["a"], []) == "| a |\n|---|"
    assert markdown_cell("\\|") == "\\\\\\|"
    assert markdown_cell("a\u2028b\x0cc") == "a\\\\u2028b\\\\x0cc"


def test_trackio_that_is_not_there_is_said(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ImportError, match="TrackioLogger needs trackio; pip install trackio"):
        TrackioLogger().log_metrics({"a": 1.0}, 1)
