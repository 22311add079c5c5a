"""A signal during GRPO's sampling or scoring: the step is dropped, and the last finished one is saved and resumed from."""

import logging
import signal
import time

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nbg_lightning import stopping
from nbg_lightning.callbacks.graceful_stop import GracefulStop
from nbg_lightning.engines import native
from nbg_lightning.engines.native import NativeEngine
from nbg_lightning.testing.grpo import EvenReward, small_tokenizer, train_small_grpo

STEPS = 4
LONG = 60.0  # seconds; longer than any test waits


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return small_tokenizer(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def straight(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("straight")
    return train_small_grpo(folder, tokenizer=tokenizer, steps=STEPS, logger=None, log_every_n_steps=1)


@pytest.fixture
def train(tmp_path, tokenizer, caplog):
    caplog.set_level(logging.INFO, logger="nbg_lightning")

    def run(**options):
        return train_small_grpo(tmp_path, tokenizer=tokenizer, steps=STEPS, logger=None, log_every_n_steps=1, **options)

    return run


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def logged(folder):
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("reward/mean")]


def assert_goes_on_like(straight, train, folder, done):
    resumed = train(resume="last")
    assert resumed.scores == straight.scores[done:]
    for name, weight in straight.weights.items():
        assert torch.equal(resumed.weights[name], weight), name
    steps = [step for step, _ in logged(folder)]
    assert steps == list(range(STEPS)), "each step is logged once, under its own number"


class SignalInDecoding:
    """Replaces `draw` of the native engine: a signal comes with the third token of a step."""

    def __init__(self, step):
        self.step, self.step_now, self.tokens, self.after = step, -1, 0, 0

    def __call__(self, logits, sampling, seeds, steps):
        if sampling.seed != self.step_now:
            self.step_now, self.tokens = sampling.seed, 0
        self.tokens += 1
        if stopping.stop_asked():
            self.after += 1
        if (self.step_now, self.tokens) == (self.step, 3):
            signal.raise_signal(signal.SIGTERM)
        return native_draw(logits, sampling, seeds, steps)


native_draw = native.draw


@pytest.mark.parametrize("step", [0, 2])
def test_sampling_ends_with_the_next_token(straight, train, tmp_path, monkeypatch, capfd, caplog, step):
    """In the first step nothing is saved; later the step before is."""
    signalled = SignalInDecoding(step)
    monkeypatch.setattr(native, "draw", signalled)
    run = train()
    assert signalled.after == 0
    assert len(run.metrics) == step
    assert "SIGTERM: stopping before this step, whose answers are dropped (again: at once)" in capfd.readouterr().err
    assert f"the answers of step {step + 1} are dropped: a resumed run draws the same" in caplog.text
    if step == 0:
        assert not (tmp_path / "checkpoints").exists()
    else:
        assert names(tmp_path) == ["step-00000002"]
        monkeypatch.setattr(native, "draw", native_draw)
        assert_goes_on_like(straight, train, tmp_path, 2)


class SlowReward(EvenReward):
    """In the third step a signal comes while it waits."""

    calls = 0

    def score(self, groups):
        self.calls += 1
        if self.calls == 3:
            signal.raise_signal(signal.SIGINT)
            time.sleep(LONG)
        return super().score(groups)


class CatchesAll(SlowReward):
    """It continues after an interruption that it caught."""

    def score(self, groups):
        try:
            return super().score(groups)
        except BaseException:
            return super().score(groups)


@pytest.mark.parametrize("reward", [SlowReward, CatchesAll])
def test_scoring_is_left_at_once(straight, train, tmp_path, reward):
    begin = time.monotonic()
    run = train(reward=reward())
    assert time.monotonic() - begin < LONG
    assert len(run.metrics) == 2
    assert names(tmp_path) == ["step-00000002"]
    assert_goes_on_like(straight, train, tmp_path, 2)


class SignalAfterScoring(pl.Callback):
    """Between the answers and the update: a step that has begun to change something is finished."""

    def on_after_backward(self, trainer, *_):
        if trainer.global_step == 2:
            signal.raise_signal(signal.SIGTERM)


def test_an_update_is_finished(straight, train, tmp_path, capfd):
    run = train(callbacks=[SignalAfterScoring()])
    assert len(run.metrics) == 3
    assert "SIGTERM: stopping after this step (again: at once)" in capfd.readouterr().err
    assert names(tmp_path) == ["step-00000003"]
    assert_goes_on_like(straight, train, tmp_path, 3)


class SignalInValidation(NativeEngine):
    """A signal comes when the validation after step 2 begins to sample."""

    armed = False

    def generate(self, prompts, sampling, deadline=None):
        if sampling.n == 1 and self.armed:
            signal.raise_signal(signal.SIGHUP)
        self.armed = self.weight_version == 1
        return super().generate(prompts, sampling, deadline)


def test_a_validation_is_dropped_and_its_metrics_are_nan(straight, train, tmp_path, caplog, capfd):
    """Also beside a `ModelCheckpoint` that asks for one of them."""
    validated = {
        "limit_val_batches": 1,
        "val_check_interval": 2,
        "data_options": {"validation_fraction": 0.2, "validation_prompts": 2},
    }
    best = ModelCheckpoint(tmp_path / "best", monitor="val/reward/mean", mode="max", filename="{step}")
    graceful = GracefulStop()
    run = train(module_options={"engine": SignalInValidation()}, callbacks=[graceful, best], **validated)
    assert graceful.received == signal.SIGHUP
    assert len(run.metrics) == 2
    assert "SIGHUP: stopping, and this validation is dropped (again: at once)" in capfd.readouterr().err
    assert "this validation is dropped, and its metrics are NaN" in caplog.text
    assert names(tmp_path) == ["step-00000002"]


def test_work_outside_of_a_dropping_block_is_not_cut(tmp_path):
    """Such as a benchmark in the middle of training, whose answers are all needed."""
    with stopping.handling("test"), stopping.remembering("stopping after this step"):
        signal.raise_signal(signal.SIGTERM)
        assert not stopping.stop_asked()
        assert stopping.unless_stopped(lambda: "done") == "done"
        with stopping.dropping("dropping it"):
            assert stopping.stop_asked()
            assert stopping.unless_stopped(lambda: "done") is None
        assert not stopping.stop_asked()
