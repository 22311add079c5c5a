"""The Trainer's defaults, and what it refuses."""

from __future__ import annotations

import pytest
from lightning.pytorch.callbacks import ProgressBar

from nbg_lightning.callbacks import GracefulStop, StepCheckpoint, Throughput
from nbg_lightning.strategy import FSDP2Strategy
from nbg_lightning.trainer import Trainer


def test_defaults(tmp_path):
    trainer = Trainer(accelerator="cpu", devices=1, default_root_dir=str(tmp_path))
    kinds = [type(callback) for callback in trainer.callbacks]
    assert {StepCheckpoint, GracefulStop, Throughput} <= set(kinds)
    assert isinstance(trainer.strategy, FSDP2Strategy)
    assert trainer.max_epochs == 1
    assert str(trainer.logger.log_dir).startswith(str(tmp_path))


def test_what_is_given_is_not_doubled(tmp_path):
    mine = StepCheckpoint(every_n_steps=7)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=str(tmp_path),
        callbacks=[mine],
        logger=False,
        enable_progress_bar=False,
    )
    assert [c for c in trainer.callbacks if isinstance(c, StepCheckpoint)] == [mine]
    assert not any(isinstance(c, ProgressBar) for c in trainer.callbacks)
    assert trainer.logger is None


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "16-mixed", 64])
def test_precision_belongs_to_the_module(tmp_path, precision):
    with pytest.raises(ValueError, match=r"parallel.compute_dtype to bfloat16"):
        Trainer(accelerator="cpu", devices=1, default_root_dir=str(tmp_path), precision=precision)
