"""The summary of a run: one block before its first step, one after its last."""

import dataclasses
import logging
import re

import lightning.pytorch as pl
import pytest
import torch

from nbg_lightning.callbacks import RunSummary
from nbg_lightning.callbacks.checkpoint import checkpoints
from nbg_lightning.core import products
from nbg_lightning.testing import SMALL_SHAPE, run_ranks, train_small

NOISE = ("GPU available", "TPU", "litlogger", "Trainer.fit` stopped", "│ Validate metric", "Restoring states", "Tip:")


def blocks(text):
    """Title of each block, to its rows; what continues a row has its label."""
    found, title, label = {}, None, None
    for line in text.splitlines():
        if re.fullmatch(r"\w+ (begins|finished|stopped)", line):
            title = found.setdefault(line, {})
        elif title is not None and line.startswith("  "):
            name, _, value = line.strip().partition("  ")
            label = name if value and not line.startswith("     ") else label
            title.setdefault(label, []).append((value or name).strip())
        else:
            title = None
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tmp_path_factory.mktemp("run") / "mine"


def test_both_blocks_and_no_noise(finished, caplog, capfd):
    run = train_small(finished, checkpoint_every=5, limit_val_batches=1, val_check_interval=4)
    shown = "\n".join(record.getMessage() for record in caplog.records)
    said = blocks(shown)
    begin, end = said["PretrainModule begins"], said["PretrainModule finished"]
    assert begin["device"] == ["cpu, 1 rank, float32"]
    assert begin["data"] == ["a: 97 samples, b: 23 samples"]
    assert begin["steps"] == ["12 of 256 tokens: 3.07K tokens in all"]
    assert begin["learning rate"][0].endswith("stages")
    assert begin["writes"] == [f"{finished}: a checkpoint every 5 steps and at the end"]
    assert end["steps"][0].startswith("12 in 0:00:")
    assert end["loss"] == [f"{run.metrics['train/loss']:.4g}"]
    assert end["validation loss"] == [f"{run.metrics['val/loss']:.4g}"]
    [newest] = checkpoints(finished / "checkpoints")[-1:]
    assert end["checkpoint"] == [str(newest)]
    assert [command.split()[:2] for command in end["next"]] == [
        ["nbg", name] for name in ("generate", "test", "export")
    ]
    assert all(str(newest) in command for command in end["next"])
    assert shown.rstrip().endswith("out/mine")
    heard = shown + "".join(capfd.readouterr())
    assert [noise for noise in NOISE if noise in heard] == []


def test_a_resumed_run_counts_its_own_steps(caplog, tmp_path):
    train_small(tmp_path, max_steps=8)
    caplog.clear()
    train_small(tmp_path, resume="last")
    said = blocks("\n".join(record.getMessage() for record in caplog.records))
    assert said["PretrainModule begins"]["from"] == ["step 8 of this run"]
    assert said["PretrainModule finished"]["steps"][0].startswith("4 in ")
    caplog.clear()
    train_small(tmp_path, resume="last")
    assert "finished" not in caplog.text


@pytest.mark.parametrize("verbose", [True, False])
def test_a_validation_ends_with_one_table_of_all_digits(tmp_path, capfd, verbose):
    class Keeps(pl.Callback):
        def on_fit_end(self, trainer, pl_module):
            self.trainer = trainer

    kept = Keeps()
    train_small(tmp_path, max_steps=1, limit_val_batches=1, callbacks=[kept])
    trainer = kept.trainer
    capfd.readouterr()
    [found] = trainer.validate(trainer.lightning_module, datamodule=trainer.datamodule, verbose=verbose)
    assert found["val/loss"] > 0
    said = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert said == [["metric", "value"], *([name, repr(value)] for name, value in found.items())] * verbose


def test_it_can_be_switched_off(tmp_path, caplog):
    train_small(tmp_path, callbacks=[RunSummary(start=False, end=False)], max_steps=2)
    assert "begins" not in caplog.text and "finished" not in caplog.text


def test_a_failed_run_has_no_result(tmp_path, caplog):
    class Fails(RunSummary):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 2:
                raise OSError("disk is full")

    with pytest.raises(OSError, match="disk is full"):
        train_small(tmp_path, callbacks=[Fails()])
    assert "PretrainModule begins" in caplog.text and "finished" not in caplog.text


def _on_two_ranks(folder):
    heard = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    logging.getLogger("nbg_lightning").addHandler(handler)
    train_small(folder, devices=2, max_steps=2)
    return "\n".join(heard)


def test_products_by_onednn_are_named_and_learn_the_same(tmp_path, monkeypatch, caplog):
    runs = []
    for by_onednn in (True, False):
        monkeypatch.setattr(products, "_onednn", by_onednn)
        core = dataclasses.replace(SMALL_SHAPE, hidden_size=256, intermediate_size=256)
        runs.append(train_small(tmp_path / str(by_onednn), module_options={"core": core}, max_steps=3))
    devices = [line for record in caplog.records for line in record.getMessage().splitlines() if "cpu, 1 rank" in line]
    assert [line.split("rank, ")[1] for line in devices] == ["float32 by oneDNN", "float32"]
    torch.testing.assert_close(*(torch.tensor(run.losses) for run in runs), rtol=1e-5, atol=0)


@pytest.mark.slow
def test_two_ranks_speak_once(tmp_path):
    first, second = run_ranks(_on_two_ranks, 2, str(tmp_path / "run"), folder=tmp_path)
    assert first.count("PretrainModule begins") == first.count("PretrainModule finished") == 1
    assert "cpu, 2 ranks, float32" in first
    assert "begins" not in second and "finished" not in second
