"""The Trainer's defaults, and its errors."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar

from nbg_lightning.callbacks import FGWSD, GracefulStop, StepCheckpoint, Throughput
from nbg_lightning.callbacks.checkpoint import checkpoints
from nbg_lightning.data.folder_lock import FolderInUse, folder_lock
from nbg_lightning.modules.pretrain import PretrainModule
from nbg_lightning.strategy import FSDP2Strategy
from nbg_lightning.testing import (
    SMALL_LENGTH,
    SMALL_SHAPE,
    SMALL_STEP_TOKENS,
    SyntheticDataModule,
    small_stages,
    train_small,
)
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


@pytest.mark.parametrize("devices", [[0, 1], "0,1", "0"])
def test_ranks_of_a_cpu_have_no_numbers(tmp_path, devices):
    with pytest.raises(ValueError, match=r"^trainer\.devices is invalid: .*; give the number of CPU ranks, such as 1$"):
        Trainer(accelerator="cpu", devices=devices, default_root_dir=str(tmp_path))


def test_a_checkpoint_of_ours_stands_beside_a_users(tmp_path):
    """One that watches a metric may save nothing at all."""
    theirs = ModelCheckpoint(dirpath=str(tmp_path / "best"), monitor="val/loss")
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=str(tmp_path),
        logger=False,
        callbacks=[FGWSD(small_stages(), SMALL_STEP_TOKENS, SMALL_LENGTH), theirs],
    )
    assert trainer.checkpoint_callback is theirs, "ckpt_path='best' is theirs"
    trainer.fit(PretrainModule(SMALL_SHAPE), datamodule=SyntheticDataModule({"a": 97, "b": 23}, SMALL_SHAPE.vocab_size))
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-00000012"]


@pytest.mark.parametrize(
    ("option", "value", "instead"),
    [
        ("max_epochs", 3, "raise their tokens or steps"),
        ("accumulate_grad_batches", 4, "model.init_args.micro_batch_tokens"),
        ("gradient_clip_val", 1.0, "model.init_args.max_grad_norm"),
        ("overfit_batches", 2, "a source of a few samples"),
        ("overfit_batches", 0.5, "a source of a few samples"),
        ("reload_dataloaders_every_n_epochs", 1, "the stages or the schedule decide the length"),
    ],
)
def test_options_without_effect_are_refused(tmp_path, option, value, instead):
    with pytest.raises(
        ValueError, match=f"trainer.{option} is invalid with this module: {value}; .*{instead}"
    ) as caught:
        train_small(tmp_path, **{option: value})
    assert "\n" not in str(caught.value)


def test_limited_batches_are_trained_and_saved(tmp_path):
    assert len(train_small(tmp_path, limit_train_batches=3).steps) == 3
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-00000003"]


def test_a_run_without_checkpoints_says_so(tmp_path, caplog):
    train_small(tmp_path, max_steps=1, enable_checkpointing=False)
    assert "nothing was saved: checkpoints are off (trainer.enable_checkpointing)" in caplog.text
    assert not (tmp_path / "checkpoints").exists()


def test_nothing_to_do_is_said(tmp_path, caplog):
    train_small(tmp_path, max_steps=4)
    with caplog.at_level("INFO", logger="nbg_lightning"):
        assert train_small(tmp_path, max_steps=2, resume="last").steps == []
    assert "nothing to do: the checkpoint is at step 4, and max_steps is 2" in caplog.text


def test_a_curriculum_that_has_come_to_its_end_says_so(tmp_path, caplog):
    last = train_small(tmp_path).steps[-1]["step"]
    with caplog.at_level("INFO", logger="nbg_lightning"):
        assert train_small(tmp_path, resume="last").steps == []
    assert f"nothing to do: the checkpoint is at step {last}, and the data end there" in caplog.text


def test_a_folder_in_use_is_refused(tmp_path):
    with folder_lock(tmp_path, "trains"), pytest.raises(FolderInUse, match=f"trains in {tmp_path} since"):
        train_small(tmp_path)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "deepspeed"])
def test_other_strategies_are_refused_by_name(strategy):
    with pytest.raises(ValueError, match=rf"trainer\.strategy is invalid: {strategy}; leave it out"):
        Trainer(strategy=strategy, accelerator="cpu")


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"trainer\.accelerator is invalid: gpu; .* sees no CUDA device"):
        Trainer(accelerator="gpu")
