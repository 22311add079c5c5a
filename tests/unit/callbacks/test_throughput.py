"""Rates are tokens over the seconds of steps only."""

from types import SimpleNamespace

import pytest
import torch

from nbg_lightning.callbacks import throughput as module
from nbg_lightning.callbacks.throughput import RankStep, Throughput, compared, measure_matmul_peak
from nbg_lightning.core.config import preset
from nbg_lightning.data.timed_loader import TimedLoader

PEAK = 1e9


class Clock:
    """Time that passes only when told to."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def steps(monkeypatch):
    """Run steps of given seconds, with pauses between them, and return what each has logged."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "measure_matmul_peak", lambda *_: PEAK)

    def run(seconds, window=20, world_size=1, tokens=1000, length=64, pause=50.0, wait=0.0):
        logged, loader = [], TimedLoader([])
        shape = preset("nano")
        model = SimpleNamespace(
            device=torch.device("cpu"),
            parallel=SimpleNamespace(compute_dtype="float32"),
            step_tokens=tokens,
            step_length=length,
            shape=shape,
            log=lambda name, value: logged[-1].update({name: value}),
        )
        trainer = SimpleNamespace(world_size=world_size, global_step=0, log_every_n_steps=2, train_dataloader=loader)
        callback = Throughput(window)
        callback.on_train_start(trainer, model)
        for second in seconds:
            logged.append({})
            loader.seconds_waited += wait
            clock.now += pause  # validation, or a checkpoint
            callback.on_train_batch_start(trainer, model, None, 0)
            clock.now += second
            trainer.global_step += 1
            callback.on_train_batch_end(trainer, model, None, None, 0)
        return logged, shape

    return run


def test_rate_of_the_steps_alone(steps):
    logged, _ = steps([2.0, 2.0, 4.0])
    assert [row["throughput/tokens_per_second"] for row in logged] == pytest.approx([500, 500, 375])


def test_window(steps):
    logged, _ = steps([10.0, 1.0, 1.0], window=2)
    assert logged[-1]["throughput/tokens_per_second"] == pytest.approx(1000)


@pytest.mark.parametrize("world_size", [1, 4])
def test_flops_of_a_rank(steps, world_size):
    """The rate is that of all ranks, model FLOP/s and MFU are those of one."""
    logged, shape = steps([2.0], world_size=world_size)
    flops = 500 * shape.flops_per_token(64) / world_size
    assert logged[0]["throughput/flops_per_second"] == pytest.approx(flops)
    assert logged[0]["throughput/mfu"] == pytest.approx(flops / PEAK)


def test_ranks_are_compared_in_steps_that_are_logged(steps):
    logged, _ = steps([3.0, 1.0], wait=0.5)
    assert not any("data_wait" in name for name in logged[0])
    found = {name.removeprefix("throughput/"): value for name, value in logged[1].items()}
    assert found["slowest_seconds"] == found["fastest_seconds"] == 2.0
    assert found["data_wait"] == pytest.approx(1.0 / 5.0)
    assert 0 < found["memory_gib"] < 100


def test_the_rank_that_waits_for_data_is_named():
    found = compared([RankStep(2.0, 0.1, 3 * 2**30), RankStep(1.0, 0.5, 2**30), RankStep(2.5, 0.0, 2**30)])
    assert found == {
        "slowest_seconds": 2.5,
        "fastest_seconds": 1.0,
        "data_wait": 0.5,
        "data_wait_rank": 1.0,
        "memory_gib": 3.0,
    }


def test_longer_windows_cost_more(steps):
    short, _ = steps([2.0], length=64)
    long, _ = steps([2.0], length=1024)
    assert long[0]["throughput/mfu"] > short[0]["throughput/mfu"]


def test_peak_counts_a_product_as_two_operations_a_term(monkeypatch):
    """With a clock that gives every product a second, the peak is 2 n^3."""
    ticks = iter(range(1000))
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    assert measure_matmul_peak(torch.device("cpu"), torch.float32, seconds=3.0) == 2 * 1536**3


def test_window_must_be_positive():
    with pytest.raises(ValueError, match="window is invalid: 0"):
        Throughput(window=0)
