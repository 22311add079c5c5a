"""Display callbacks, in one real run with all of them, and their errors."""

import json
import math
import signal
import threading
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch

from nbg_lightning import stopping
from nbg_lightning.callbacks.fg_wsd import FGWSD
from nbg_lightning.callbacks.graceful_stop import GracefulStop
from nbg_lightning.callbacks.progress import TokenProgress
from nbg_lightning.callbacks.sample_text import SampleText
from nbg_lightning.callbacks.stage_table import StageTable
from nbg_lightning.callbacks.throughput import Throughput, measure_matmul_peak
from nbg_lightning.datamodules.ordered import OrderedDataModule
from nbg_lightning.modules.pretrain import PretrainModule
from nbg_lightning.schedule.curriculum import Stage
from nbg_lightning.testing import SMALL_SHAPE, SyntheticDataModule, small_stages, train_small
from nbg_lightning.trainer import Trainer

WINDOWS = {"a": 97, "b": 23}


class Letters:
    """Ids are letters."""

    bos_id, eos_id = 0, None

    def encode(self, text):
        return [ord(letter) - ord("A") for letter in text]

    def decode(self, ids, skip_special_tokens=False):
        return "".join(chr(ord("A") + token) for token in ids)


def data():
    module = SyntheticDataModule(WINDOWS, SMALL_SHAPE.vocab_size)
    module.tokenizer = Letters()
    return module


class Metrics(pl.Callback):
    """What each step logged."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, *_):
        self.steps.append({name: float(value) for name, value in trainer.callback_metrics.items()})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("callbacks")


@pytest.fixture(scope="module")
def metrics():
    return Metrics()


@pytest.fixture(scope="module")
def run(folder, metrics):
    return train_small(
        folder,
        datamodule=data(),
        callbacks=[StageTable(), SampleText(["ABC"], num_tokens=5), TokenProgress(seconds=0), Throughput(), metrics],
        limit_val_batches=1.0,
        val_check_interval=4,
        logger=True,
        enable_progress_bar=True,
    )


def test_they_do_not_change_training(run, tmp_path):
    plain = train_small(tmp_path)
    assert run.losses == plain.losses
    assert all(torch.equal(run.weights[name], plain.weights[name]) for name in plain.weights)


def test_stage_table(run, folder):
    """The last validation of each stage, with the metrics of that moment."""
    table = json.loads((folder / "stages.json").read_text())
    assert list(table) == ["warmup", "stable", "decay"]
    assert [row["step"] for row in table.values()] == [4, 8, 12]
    for row in table.values():
        bits = row["val/a/loss"] / math.log(2) / 2.0
        assert row["val/a/bits_per_byte"] == pytest.approx(bits, rel=1e-5)
    assert table["decay"]["val/loss"] == pytest.approx(run.metrics["val/loss"])
    assert table["decay"]["val/b/loss"] < table["warmup"]["val/b/loss"] - 0.2  # b was learnt after the warm-up


def test_stage_table_survives_a_resume(run):
    table = StageTable()
    table.load_state_dict({"stages": {"warmup": {"step": 4, "val/a/loss": 1.0, "val/a/bits_per_byte": 0.5}}})
    rendered = table.table()
    assert [column.header for column in rendered.columns] == ["stage", "step", "a"]
    assert list(rendered.columns[2].cells) == ["1.000 (0.500)"]


def test_curriculum_is_logged(run, metrics):
    assert [step["data/tokens"] for step in metrics.steps] == [256.0 * (step + 1) for step in range(12)]
    assert [step["data/stage"] for step in metrics.steps] == [0.0] * 4 + [1.0] * 4 + [2.0] * 4
    assert metrics.steps[5]["data/mixture/a"] == 0.25
    assert metrics.steps[5]["data/mixture/b"] == 0.75


def test_throughput(run, metrics):
    last = metrics.steps[-1]
    assert 100 < last["throughput/tokens_per_second"] < 1e7
    # A token costs what it does in a document of some length, which is at most a row's.
    cost = last["throughput/flops_per_second"] / last["throughput/tokens_per_second"]
    costs = [SMALL_SHAPE.flops_per_token(length) for length in range(1, 65)]
    assert any(cost == pytest.approx(of_length, rel=1e-6) for of_length in costs)
    assert 0 < last["throughput/mfu"] < 1


def test_peak_is_measured():
    assert measure_matmul_peak(torch.device("cpu"), torch.float32, seconds=0.05) > 1e8


def test_tensorboard_gets_metrics_and_samples(run, folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert {"train/loss", "train/lr", "data/tokens", "val/a/loss"} <= set(events.Tags()["scalars"])
    losses = events.Scalars("train/loss")
    assert [event.value for event in losses] == pytest.approx(run.losses, rel=1e-5)
    assert any("samples" in name for name in events.Tags()["tensors"])


def test_progress_prints_lines_without_a_terminal(tmp_path, capfd):
    train_small(tmp_path, callbacks=[TokenProgress(seconds=0)], enable_progress_bar=True, max_steps=6)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("[")]
    assert len(lines) == 6
    assert lines[0].startswith("[warmup] 256/1.54K tokens  loss ")
    assert lines[-1].startswith("[stable] 1.54K/1.54K tokens  loss ")
    assert lines[-1].endswith("0:00:00 left")


class TestGracefulStop:
    @staticmethod
    def start():
        callback = GracefulStop()
        callback.on_train_start(None, None)
        return callback

    @staticmethod
    def trainer():
        loop = SimpleNamespace(min_epochs=3, epoch_loop=SimpleNamespace(min_steps=9))
        return SimpleNamespace(world_size=1, should_stop=False, limit_val_batches=0.5, fit_loop=loop)

    def test_handlers_are_restored(self):
        before = [signal.getsignal(number) for number in stopping.STOP_SIGNALS]
        callback = self.start()
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        callback.on_exception(None, None, RuntimeError())
        assert [signal.getsignal(number) for number in stopping.STOP_SIGNALS] == before

    def test_a_signal_of_another_rank_ends_the_loop_and_the_own_notice_may_come_later(self, monkeypatch, capfd):
        callback, trainer = self.start(), self.trainer()
        trainer.world_size, trainer.strategy = 2, SimpleNamespace(root_device="cpu")
        monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor, operation: tensor.fill_(signal.SIGTERM))
        callback.agree(trainer)
        assert trainer.should_stop and callback.received is signal.SIGTERM
        signal.raise_signal(signal.SIGTERM)  # does not raise
        callback.on_train_end(None, None)
        assert capfd.readouterr().err == ""

    @pytest.mark.parametrize("number", sorted(stopping.STOP_SIGNALS))
    def test_the_first_signal_ends_the_loop_after_the_step(self, number, capfd):
        callback, trainer = self.start(), self.trainer()
        callback.agree(trainer)
        assert not trainer.should_stop
        signal.raise_signal(number)
        assert not trainer.should_stop
        callback.agree(trainer)
        assert trainer.should_stop
        assert callback.received is number
        assert trainer.limit_val_batches == 0, "no validation before it leaves"
        assert (trainer.fit_loop.min_epochs, trainer.fit_loop.epoch_loop.min_steps) == (None, None)
        callback.on_train_end(None, None)
        assert trainer.limit_val_batches == 0.5
        assert capfd.readouterr().err == f"{number.name}: stopping after this step (again: at once)\n"

    def test_one_notice_may_come_twice_and_the_next_interrupts(self, monkeypatch):
        callback = self.start()
        try:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)  # as `timeout` sends it: to the process, and to its group
            monkeypatch.setattr(stopping, "REPEAT_SECONDS", 0.0)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            with pytest.raises(stopping.Stopped) as caught:
                signal.raise_signal(signal.SIGTERM)
            assert caught.value.code == 143
        finally:
            callback.on_train_end(None, None)

    def test_other_threads_leave_signals_alone(self):
        before = signal.getsignal(signal.SIGTERM)
        thread = threading.Thread(target=self.start)
        thread.start()
        thread.join()
        assert signal.getsignal(signal.SIGTERM) is before


class TestFGWSD:
    @pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
    def test_needs_a_datamodule_that_follows(self, tmp_path):
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            logger=False,
            default_root_dir=str(tmp_path),
            callbacks=[FGWSD(small_stages(), 256, 32)],
        )
        with pytest.raises(ValueError, match="FGWSD needs a datamodule that follows a curriculum"):
            trainer.fit(PretrainModule("nano"), train_dataloaders=[0])

    def test_checks_the_table_at_once(self):
        with pytest.raises(ValueError, match="is not a multiple of the sequence_length"):
            FGWSD(small_stages(), 250, 32)

    def test_max_steps_beyond_the_table_is_said_to_have_no_effect(self, tmp_path, caplog):
        assert len(train_small(tmp_path, max_steps=50).steps) == 12
        assert "max_steps=50 has no effect: the curriculum ends at step 12" in caplog.text

    def test_switches_are_announced(self, tmp_path, caplog):
        with caplog.at_level("INFO", logger="nbg_lightning"):
            train_small(tmp_path)
        assert "stage 'warmup' from step 0 (0 of 3.07K): a 1" in caplog.text
        assert "stage 'stable' from step 4 (1.02K of 3.07K): a 1, b 3" in caplog.text
        assert "stage 'decay' from step 8 (2.05K of 3.07K): b 1" in caplog.text

    def test_constant_learning_rate_is_exact(self, tmp_path):
        stages = [Stage("only", 512, 3e-4, {"a": 1})]
        assert train_small(tmp_path, stages=stages).column("lr") == pytest.approx([3e-4, 3e-4], rel=1e-7)


def test_datamodule_without_a_curriculum_says_what_to_add():
    with pytest.raises(ValueError, match="has no curriculum; add the FGWSD callback"):
        data().train_dataloader()


def test_datamodule_must_define_its_parts():
    with pytest.raises(TypeError, match="abstract methods fingerprints, read, source_windows"):
        OrderedDataModule()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Throughput(window=0),
        lambda: SampleText([]),
        lambda: SampleText(["a"], num_tokens=0),
        lambda: SampleText(["a"], temperature=-1.0),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(ValueError, match="at least"):
        make()


def test_the_trainer_adds_each_kind_once(tmp_path):
    own = TokenProgress(seconds=1)
    trainer = Trainer(accelerator="cpu", devices=1, default_root_dir=str(tmp_path), callbacks=own)
    kinds = [type(callback).__name__ for callback in trainer.callbacks]
    assert sorted(kinds) == ["GracefulStop", "RunSummary", "StepCheckpoint", "Throughput", "TokenProgress"]
    assert own in trainer.callbacks
    quiet = Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=str(tmp_path),
        enable_progress_bar=False,
        enable_checkpointing=False,
    )
    assert sorted(type(callback).__name__ for callback in quiet.callbacks) == [
        "GracefulStop",
        "RunSummary",
        "Throughput",
    ]
