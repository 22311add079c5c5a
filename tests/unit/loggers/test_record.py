"""The run's own record: one line per step, whatever other loggers there are."""

import json

from lightning.pytorch.loggers import CSVLogger

import nbg_lightning
from nbg_lightning.loggers.record import RECORD, RunRecord, read_metrics
from nbg_lightning.recipe.gather import read_curves
from nbg_lightning.testing import train_small


def test_lines_and_what_a_kill_or_a_resume_leaves(tmp_path):
    record = RunRecord(tmp_path / "run")
    record.log_metrics({"train/loss": 2.5, "epoch": 0}, 1)
    record.log_metrics({"epoch": 0}, 1)
    record.log_metrics({"train/loss": float("nan"), "train/lr": 1e-3}, 2)
    record.log_metrics({"train/loss": 2.25}, 2)
    record.log_metrics({"train/loss": 2.0}, 2)  # a resume
    file = tmp_path / "run" / RECORD
    assert [json.loads(line) for line in file.read_text().splitlines()][:2] == [
        {"step": 1, "train/loss": 2.5}, {"step": 2, "train/loss": None, "train/lr": 1e-3},
    ]  # fmt: skip
    with file.open("a") as stream:
        stream.write('7\n{"step": "x", "a": 1}\n{"step": 3, "train/loss": "high"}\n{"step": 3, "tor')
    assert read_metrics(file) == {"train/loss": {1: 2.5, 2: 2.0}, "train/lr": {2: 1e-3}}


def test_a_trainer_keeps_one_beside_any_logger(tmp_path):
    train_small(tmp_path / "run", logger=CSVLogger(str(tmp_path), name="c", version=""), log_every_n_steps=1)
    curves = read_curves(tmp_path / "run")
    assert len(curves["train/loss"].values) > 2 and "train/lr" in curves
    assert (tmp_path / "c" / "metrics.csv").is_file() and not list((tmp_path / "run").rglob("events.out*"))


def test_a_trainer_without_loggers_keeps_none_and_one_that_is_given_is_enough(tmp_path):
    def loggers(logger):
        return nbg_lightning.Trainer(default_root_dir=str(tmp_path), accelerator="cpu", logger=logger).loggers

    assert loggers(False) == [] and list(tmp_path.iterdir()) == []
    own = RunRecord(tmp_path)
    assert loggers([own]) == [own]
    assert [type(each).__name__ for each in loggers(None)] == ["TensorBoardLogger", "RunRecord"]
