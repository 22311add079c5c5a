"""Independence of the number of ranks: two gloo ranks, launched once, against one rank in this process."""

import errno
import os
import signal
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from nbg_lightning.core.batch import IGNORE
from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.core.create import create_model
from nbg_lightning.modules.metrics import SourceLoss
from nbg_lightning.schedule.curriculum import Stage
from nbg_lightning.testing import (
    SMALL_LENGTH,
    SMALL_SHAPE,
    SMALL_STEP_TOKENS,
    SyntheticDataModule,
    full_tensors,
    run_ranks,
    train_small,
)

WINDOWS = {"a": 97, "b": 23}
PARALLEL = {
    "plain": {},
    "reduce every micro-batch": {"sync_every_micro_batch": True},
    "keep gathered": {"reshard_after_forward": False},
    "hybrid": {"replicate": 2},
    "hybrid, reduce every micro-batch": {"replicate": 2, "sync_every_micro_batch": True},
    "full checkpointing": {"activation_checkpointing": "full"},
    "selective checkpointing": {"activation_checkpointing": "selective"},
}


class Unbalanced(SyntheticDataModule):
    """Source "a" is not trained on, so ranks have very different counts of tokens, and some micro-batches none."""

    def read(self, source, window, length):
        tokens, labels, positions, weights = super().read(source, window, length)
        return tokens, labels * 0 + IGNORE if source == "a" else labels, positions, weights


class SignalRank(pl.Callback):
    """SIGTERM for one rank only, in the middle of the run."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_rank == 1 and trainer.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)


def source_losses(part):
    """What a rank's half of some made-up losses adds to the metric."""
    generator = torch.Generator().manual_seed(0)
    losses = torch.rand(8, 16, generator=generator) * 5
    trained = torch.rand(8, 16, generator=generator) < 0.7
    source = torch.tensor([0, 1, 0, 1, 1, 1, 0, 0])
    metric = SourceLoss({"a": 4.0, "b": 2.0, "c": 3.0})
    metric.update(losses[part], trained[part], source[part])
    return metric.compute(), (losses, trained, source)


def disk_full_on_one_rank(folder):
    """The second checkpoint cannot be written by rank 1; how each rank ends, and what is left on disk."""
    import torch.distributed.checkpoint.filesystem as filesystem

    write = filesystem._write_item

    class Fill(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_rank == 1 and trainer.global_step == 5:

                def fail(*_, **__):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

                filesystem._write_item = fail

    try:
        train_small(folder, devices=2, checkpoint_every=3, callbacks=[Fill()])
    except OSError as error:
        return str(error)
    finally:
        filesystem._write_item = write
    return "no error"


def on_two_ranks(folder):
    """All that needs two ranks, in one launch."""
    rank = torch.distributed.get_rank()
    mesh = init_device_mesh("cpu", (2,))
    model = create_model(SMALL_SHAPE, ParallelConfig(compute_dtype="float32"), mesh, seed=3)
    results = {"initial": full_tensors(model.named_parameters())}
    results["local"] = sum(p.to_local().numel() for p in model.parameters() if isinstance(p, DTensor))
    for name, settings in PARALLEL.items():
        parallel = ParallelConfig(compute_dtype="float32", **settings)
        options = {"parallel": parallel, "ema_decay": 0.9, "micro_batch_tokens": 64}
        results[name] = train_small(f"{folder}/{name}", devices=2, module_options=options)
    for rows in (1, 2, 8):
        options = {"micro_batch_tokens": rows * SMALL_LENGTH}
        results[f"{rows} rows"] = train_small(f"{folder}/{rows} rows", devices=2, module_options=options)
    results["unbalanced"] = train_small(f"{folder}/unbalanced", devices=2, datamodule=Unbalanced(WINDOWS, 61))
    validation = {"limit_val_batches": 1.0, "val_check_interval": 6, "module_options": {"ema_decay": 0.9}}
    results["validation"] = train_small(f"{folder}/validation", devices=2, **validation)
    results["metric"] = source_losses(slice(4 * rank, 4 * rank + 4))[0]
    results["stopped"] = train_small(f"{folder}/stopped", devices=2, callbacks=[SignalRank()])
    results["full"] = disk_full_on_one_rank(f"{folder}/full")
    stages = [Stage("long", 10 * SMALL_STEP_TOKENS, 1e-3, {"a": 1}, sequence_length=SMALL_STEP_TOKENS)]
    try:
        train_small(f"{folder}/indivisible", devices=2, stages=stages)
    except ValueError as error:
        results["indivisible"] = str(error)
    return results


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def ranks(folder):
    return run_ranks(on_two_ranks, 2, str(folder), folder=folder)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return train_small(tmp_path_factory.mktemp("one"), module_options={"ema_decay": 0.9})


def assert_same_run(found, expected):
    assert found.losses == pytest.approx(expected.losses, rel=1e-5)
    assert found.grad_norms == pytest.approx(expected.grad_norms, rel=1e-5)
    assert found.column("chain") == expected.column("chain")
    for kind in ("weights", "averages"):
        for name, value in getattr(found, kind).items():
            torch.testing.assert_close(value, getattr(expected, kind)[name], rtol=0, atol=1e-5)


def test_initial_weights(ranks):
    """Bit for bit those of one rank; and each rank holds half of them."""
    model = create_model(SMALL_SHAPE, seed=3)
    for rank in ranks:
        for name, weight in full_tensors(model.named_parameters()).items():
            assert torch.equal(rank["initial"][name], weight), name
    total = SMALL_SHAPE.num_parameters
    assert sum(rank["local"] for rank in ranks) == total
    assert abs(ranks[0]["local"] - total / 2) < 0.02 * total


@pytest.mark.parametrize("settings", PARALLEL)
def test_sharding_changes_nothing(ranks, one, settings):
    for rank in ranks:
        assert_same_run(rank[settings], one)
        assert len(rank[settings].averages) == len(one.weights)


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_micro_batches_change_nothing(ranks, one, rows):
    assert_same_run(ranks[0][f"{rows} rows"], one)


def test_each_rank_reads_its_own_samples(ranks, one):
    """Together, and in order, what one rank reads."""
    first, second = (rank["plain"].column("sample_hash") for rank in ranks)
    assert [left + right for left, right in zip(first, second, strict=True)] == one.column("sample_hash")


def test_unbalanced_counts(ranks, tmp_path):
    """Ranks and micro-batches with few trained tokens, or none, weigh as much as their tokens."""
    single = train_small(tmp_path, datamodule=Unbalanced(WINDOWS, 61), module_options={"micro_batch_tokens": 256})
    for rank in ranks:
        found = rank["unbalanced"]
        assert found.losses[4:] == pytest.approx(single.losses[4:], rel=1e-5)
        assert found.grad_norms == pytest.approx(single.grad_norms, rel=1e-5)
        for name, weight in single.weights.items():
            torch.testing.assert_close(found.weights[name], weight, rtol=0, atol=1e-5)


def test_validation(ranks, tmp_path):
    validation = {"limit_val_batches": 1.0, "val_check_interval": 6, "module_options": {"ema_decay": 0.9}}
    single = train_small(tmp_path, **validation)
    for rank in ranks:
        found = {k: v for k, v in rank["validation"].metrics.items() if k.startswith("val/")}
        assert len(found) == 5
        assert found == pytest.approx({k: single.metrics[k] for k in found}, rel=1e-5)
        assert_same_run(rank["validation"], single)


def test_source_loss_is_summed_over_ranks(ranks):
    """Equal on both, to one process with all rows, and to the definition in float64."""
    whole, (losses, trained, source) = source_losses(slice(None))
    for rank in ranks:
        assert rank["metric"] == pytest.approx(whole, rel=1e-12)
    for index, name in enumerate("ab"):
        mask = trained & (source == index)[:, None]
        expected = (losses.double() * mask).sum() / mask.sum()
        assert whole[f"val/{name}/loss"] == pytest.approx(expected.item(), rel=1e-12)
    assert whole["val/loss"] == pytest.approx(((losses.double() * trained).sum() / trained.sum()).item(), rel=1e-12)


def test_signal_to_one_rank_stops_both_after_the_same_step(ranks, folder):
    for rank in ranks:
        # It came before or after the exchange of step 5, so this step or the next is the last.
        assert rank["stopped"].column("step") == ranks[0]["stopped"].column("step")
        assert len(rank["stopped"].steps) in (5, 6)
    last = len(ranks[0]["stopped"].steps)
    assert [path.name for path in (folder / "stopped" / "checkpoints").iterdir()] == [f"step-{last:08d}"]


def test_disk_full_on_one_rank_ends_both_and_keeps_the_last_checkpoint(ranks, folder, one):
    for rank in ranks:
        assert rank["full"].startswith("disk full while saving")
        assert "\n" not in rank["full"]
    names = sorted(path.name for path in Path(folder / "full" / "checkpoints").iterdir())
    assert names == ["step-00000003"]
    resumed = train_small(folder / "full", resume="last")
    assert resumed.losses == pytest.approx(one.losses[3:], rel=1e-5)


def test_windows_must_divide_among_ranks(ranks):
    for rank in ranks:
        assert rank["indivisible"].startswith("2 ranks do not divide the 1 windows of a step in stage 'long'")
        assert "use fewer ranks" in rank["indivisible"]
