"""The optimizer step: exact for any micro-batches, equal to a plain loop, and safe for bad batches.

One rank, in this process; several ranks are in tests/distributed.
"""

import dataclasses
import math

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.strategies import SingleDeviceStrategy

from nbg_lightning.core.batch import IGNORE, PackedBatch
from nbg_lightning.core.config import ParallelConfig, preset
from nbg_lightning.core.create import create_model
from nbg_lightning.data.order import SampleOrder, expected_chain
from nbg_lightning.modules.base import LanguageModule
from nbg_lightning.modules.optimizer import AdamWConfig
from nbg_lightning.modules.pretrain import PretrainModule
from nbg_lightning.schedule.curriculum import Curriculum
from nbg_lightning.testing import (
    SMALL_LENGTH,
    SMALL_SHAPE,
    SMALL_STEP_TOKENS,
    StepRecorder,
    SyntheticDataModule,
    full_tensors,
    small_stages,
    train_small,
)

FLOAT32 = ParallelConfig(compute_dtype="float32")
CURRICULUM = Curriculum(small_stages(), SMALL_STEP_TOKENS, SMALL_LENGTH)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    return train_small(tmp_path_factory.mktemp("baseline"))


class WeightRecorder(pl.Callback):
    """The weights after each step."""

    def __init__(self):
        self.weights = []

    def on_train_start(self, trainer, pl_module):
        self.weights.append(full_tensors(pl_module.model.named_parameters()))

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.weights.append(full_tensors(pl_module.model.named_parameters()))


def assert_same_run(found, expected, tolerance=1e-5):
    assert found.losses == pytest.approx(expected.losses, rel=tolerance)
    assert found.grad_norms == pytest.approx(expected.grad_norms, rel=tolerance)
    assert found.column("chain") == expected.column("chain")
    for name, weight in expected.weights.items():
        torch.testing.assert_close(found.weights[name], weight, rtol=0, atol=1e-5)


def plain_loop(max_grad_norm, decay, optimizer_config, skip=()):
    """What the module does, in plain PyTorch: one unsharded model, whole batches, full logits."""
    model = create_model(SMALL_SHAPE, seed=0)
    data = SyntheticDataModule({"a": 97, "b": 23}, SMALL_SHAPE.vocab_size)
    order = SampleOrder(0, CURRICULUM, data.source_windows)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": optimizer_config.weight_decay},
        {"params": vectors, "weight_decay": 0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=optimizer_config.betas, eps=optimizer_config.eps)
    averages = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses, norms = [], []
    for step in range(CURRICULUM.num_steps):
        stage = CURRICULUM.stage_at(step)
        model.rope_theta = CURRICULUM.stages[stage].rope_theta or SMALL_SHAPE.rope_theta
        samples = order.lookup(*CURRICULUM.sample_range(step))
        length = CURRICULUM.sequence_length_of(stage)
        names = [CURRICULUM.sources[source] for source in samples.source]
        rows = [data.read(name, int(window), length)[:3] for name, window in zip(names, samples.window, strict=True)]
        tokens, labels, positions = (torch.tensor(np.stack(column)) for column in zip(*rows, strict=True))
        loss = F.cross_entropy(model(tokens, positions).flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = CURRICULUM.learning_rate(step)
        if step not in skip:
            optimizer.step()
        optimizer.zero_grad()
        for name, parameter in model.named_parameters():
            averages[name] = decay * averages[name] + (1 - decay) * parameter.detach()
        losses.append(loss.item())
        norms.append(norm.item())
    return losses, norms, full_tensors(model.named_parameters()), averages


@pytest.mark.parametrize(("max_grad_norm", "weight_decay"), [(0.25, 0.1), (100.0, 0.0)])
def test_equals_a_plain_loop(tmp_path, max_grad_norm, weight_decay):
    """Losses, norms, weights and averages of 12 steps, with clipping in force (norms are about 1) and without."""
    optimizer = AdamWConfig(weight_decay=weight_decay)
    run = train_small(
        tmp_path, module_options={"max_grad_norm": max_grad_norm, "optimizer": optimizer, "ema_decay": 0.8}
    )
    losses, norms, weights, averages = plain_loop(max_grad_norm, 0.8, optimizer)
    assert min(norms) > 0.25
    assert run.losses == pytest.approx(losses, rel=1e-5)
    assert run.grad_norms == pytest.approx(norms, rel=1e-5)
    for name, weight in weights.items():
        torch.testing.assert_close(run.weights[name], weight, rtol=0, atol=1e-5)
        torch.testing.assert_close(run.averages[name.replace(".", "__")], averages[name], rtol=0, atol=1e-5)
        assert not torch.allclose(averages[name], weight, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_micro_batches_change_nothing(tmp_path, baseline, rows):
    run = train_small(tmp_path, module_options={"micro_batch_tokens": rows * SMALL_LENGTH})
    assert_same_run(run, baseline)


def test_synchronising_every_micro_batch_changes_nothing(tmp_path, baseline):
    parallel = ParallelConfig(compute_dtype="float32", sync_every_micro_batch=True)
    assert_same_run(train_small(tmp_path, module_options={"parallel": parallel}), baseline)


def test_learning_happens(baseline):
    assert baseline.losses[3] < baseline.losses[0] - 0.4


def test_hash_chain_is_the_expected_one(baseline):
    order = SampleOrder(0, CURRICULUM, lambda source, length: {"a": 97, "b": 23}[source])
    for done, chain in enumerate(baseline.column("chain"), 1):
        assert chain == expected_chain(order, CURRICULUM, done)


class DtypeRecorder(pl.Callback):
    """The dtypes of all that training keeps, and of what flows through a block."""

    def __init__(self):
        self.kept, self.computed = set(), set()

    def on_train_start(self, trainer, pl_module):
        block = pl_module.model.layers["0"]
        block.feed_forward.w1.register_forward_hook(lambda module, inputs, out: self.computed.add(out.dtype))

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        for parameter in pl_module.model.parameters():
            self.kept |= {("parameter", parameter.dtype), ("gradient", parameter.grad.dtype)}
            self.kept |= {("state", value.dtype) for value in optimizer.state[parameter].values()}


def test_bf16_keeps_float32_parameters_gradients_and_states(tmp_path, baseline):
    recorder = DtypeRecorder()
    run = train_small(tmp_path, module_options={"parallel": ParallelConfig()}, callbacks=[recorder])
    assert recorder.computed == {torch.bfloat16}
    assert recorder.kept == {(kind, torch.float32) for kind in ("parameter", "gradient", "state")}
    assert run.losses == pytest.approx(baseline.losses, rel=0.02)
    assert run.losses != baseline.losses


class Poisoned(PretrainModule):
    """The loss of one micro-batch of step 6 is not finite."""

    value = math.nan

    def losses(self, batch):
        terms = super().losses(batch)
        return {"loss": terms["loss"] * self.value} if self.global_step == 5 else terms


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_step_is_skipped_and_counted(tmp_path, baseline, caplog, value):
    """Weights and averages stay as they were; step number, learning rate and data go on; later steps are as they ought."""
    module = Poisoned(SMALL_SHAPE, parallel=FLOAT32, micro_batch_tokens=64, ema_decay=0.8, max_grad_norm=0.25)
    module.value = value
    recorder = WeightRecorder()
    run = train_small(tmp_path, module=module, callbacks=[recorder])
    assert "step 5: loss or gradient is not finite; the step is skipped" in caplog.text
    assert module.skipped_steps == 1
    assert run.metrics["train/skipped_steps"] == 1.0
    before, after = recorder.weights[5], recorder.weights[6]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert run.column("step") == list(range(1, 13))
    assert run.column("lr") == baseline.column("lr")
    assert run.column("chain") == baseline.column("chain")
    losses, _, weights, averages = plain_loop(0.25, 0.8, AdamWConfig(), skip={5})
    assert run.losses[6:] == pytest.approx(losses[6:], rel=1e-5)
    for name, weight in weights.items():
        torch.testing.assert_close(run.weights[name], weight, rtol=0, atol=1e-5)
        torch.testing.assert_close(run.averages[name.replace(".", "__")], averages[name], rtol=0, atol=1e-5)


class Untrained(SyntheticDataModule):
    """Nothing of source "a" is trained on; the first four steps have nothing else."""

    def read(self, source, window, length):
        tokens, labels, positions, weights = super().read(source, window, length)
        return tokens, labels * 0 + IGNORE if source == "a" else labels, positions, weights


def test_batch_without_a_trained_token_changes_nothing(tmp_path, caplog):
    recorder = WeightRecorder()
    run = train_small(tmp_path, datamodule=Untrained({"a": 97, "b": 23}, 61), callbacks=[recorder])
    assert "step 0: no token of the batch is trained; it changes nothing" in caplog.text
    assert all(torch.equal(recorder.weights[0][name], recorder.weights[4][name]) for name in recorder.weights[0])
    assert not torch.equal(recorder.weights[4]["norm.weight"], recorder.weights[5]["norm.weight"])
    assert all(math.isnan(loss) for loss in run.losses[:4])  # not logged: a loss of 0 would be a lie
    assert all(loss > 0 for loss in run.losses[4:])
    assert len(run.steps) == 12


class Weighted(SyntheticDataModule):
    """Every loss counts twice or not at all."""

    def read(self, source, window, length):
        tokens, labels, positions, _ = super().read(source, window, length)
        return tokens, labels, positions, (tokens % 2 * 2).astype("float32")


def test_token_weights_reach_the_loss(tmp_path, baseline):
    """First step: the weighted sum over the count of trained tokens, written out."""
    run = train_small(tmp_path, datamodule=Weighted({"a": 97, "b": 23}, 61), max_steps=1)
    data = Weighted({"a": 97, "b": 23}, 61)
    samples = SampleOrder(0, CURRICULUM, data.source_windows).lookup(*CURRICULUM.sample_range(0))
    rows = [data.read("a", int(window), SMALL_LENGTH) for window in samples.window]
    tokens, labels, positions, weights = (torch.tensor(np.stack(column)) for column in zip(*rows, strict=True))
    logits = create_model(SMALL_SHAPE, seed=0)(tokens, positions)
    losses = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORE, reduction="none")
    assert run.losses[0] == pytest.approx(((losses * weights).sum() / (labels != IGNORE).sum()).item(), rel=1e-5)
    assert run.losses[0] != pytest.approx(baseline.losses[0], rel=1e-3)


class TestValidation:
    OPTIONS = {"limit_val_batches": 1.0, "val_check_interval": 6}  # noqa: RUF012 - a constant

    @staticmethod
    def expected(weights, rope_theta):
        """Mean loss of each source with the given weights, in plain PyTorch."""
        model = create_model(SMALL_SHAPE)
        model.load_state_dict(weights)
        model.rope_theta = rope_theta
        batch = SyntheticDataModule({"a": 97, "b": 23}, SMALL_SHAPE.vocab_size).validation_batch()
        with torch.no_grad():
            logits = model(batch.tokens, batch.positions).double()
        losses = F.cross_entropy(logits.transpose(1, 2), batch.labels, ignore_index=IGNORE, reduction="none")
        trained = batch.labels != IGNORE
        return {
            name: (losses[batch.source == index].sum() / trained[batch.source == index].sum()).item()
            for index, name in enumerate(("a", "b"))
        }

    def test_losses_by_source(self, tmp_path):
        run = train_small(tmp_path, **self.OPTIONS)
        for name, loss in self.expected(run.weights, 1e5).items():
            assert run.metrics[f"val/{name}/loss"] == pytest.approx(loss, rel=1e-5)
            bits = loss / math.log(2) / {"a": 2.0, "b": 3.0}[name]
            assert run.metrics[f"val/{name}/bits_per_byte"] == pytest.approx(bits, rel=1e-5)

    def test_averages_are_swapped_in_and_out(self, tmp_path):
        """Validation sees the averages; training is bit for bit the same as without validation."""
        run = train_small(tmp_path / "with", module_options={"ema_decay": 0.9}, **self.OPTIONS)
        averages = {name.replace("__", "."): value for name, value in run.averages.items()}
        for name, loss in self.expected(averages, 1e5).items():
            assert run.metrics[f"val/{name}/loss"] == pytest.approx(loss, rel=1e-5)
        own = self.expected(run.weights, 1e5)
        assert run.metrics["val/a/loss"] != pytest.approx(own["a"], rel=1e-3)
        without = train_small(tmp_path / "without", module_options={"ema_decay": 0.9})
        assert without.losses == run.losses
        for kind in ("weights", "averages"):
            for name, value in getattr(without, kind).items():
                assert torch.equal(value, getattr(run, kind)[name])


class TestSettings:
    @pytest.mark.parametrize("options", [{"micro_batch_tokens": 0}, {"max_grad_norm": 0.0}])
    def test_must_be_positive(self, options):
        with pytest.raises(ValueError, match=r"(micro_batch_tokens|max_grad_norm) is invalid: "):
            PretrainModule("nano", **options)

    def test_average_decay_is_a_share(self, tmp_path):
        with pytest.raises(ValueError, match=r"ema_decay is invalid: 1\.5"):
            train_small(tmp_path, module_options={"ema_decay": 1.5})

    def test_preset_by_name(self):
        assert PretrainModule("nano").shape.hidden_size == 128

    def test_other_strategies_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match=r"PretrainModule needs Trainer\(strategy="):
            train_small(tmp_path, strategy=SingleDeviceStrategy("cpu"))

    def test_defaults_are_not_shared(self):
        first, second = PretrainModule("nano"), PretrainModule("nano")
        assert dataclasses.asdict(first.parallel) == dataclasses.asdict(second.parallel)

    def test_subclass_must_say_what_the_loss_is(self):
        with pytest.raises(TypeError, match="abstract methods count, losses"):
            LanguageModule("nano")


def test_recorder_sees_every_step(baseline):
    assert isinstance(baseline.steps[0], dict)
    assert StepRecorder().steps == []
    assert baseline.column("length") == [32] * 8 + [64] * 4


def test_a_checkpoint_from_before_a_field_of_the_shape_is_of_the_same_model():
    shape = preset("nano")
    module = PretrainModule(core=shape)
    saved = dataclasses.asdict(shape)
    del saved["qkv_bias"]
    module.check_checkpoint({"nbg_lightning": {"shape": saved, "averaged": False}})
    with pytest.raises(ValueError, match="qkv_bias False there, True here"):
        PretrainModule(core=preset("nano", qkv_bias=True)).check_checkpoint(
            {"nbg_lightning": {"shape": saved, "averaged": False}}
        )


@pytest.mark.parametrize("documents", [1, 4, 16])
def test_a_steps_length_is_that_of_its_documents(documents):
    """MFU counts attention of short documents in a long row by their length, not by the row's."""

    class OneRank:
        world_size = 1

    module, trainer = PretrainModule(SMALL_SHAPE), OneRank()
    module.trainer = trainer
    positions = torch.arange(64 // documents).repeat(2, documents)
    tokens = torch.zeros(2, 64, dtype=torch.int64)
    batch = PackedBatch(tokens, tokens, positions, torch.zeros(2), torch.zeros(2, dtype=torch.int64))
    module.all_reduce_counts(batch.split(64), torch.tensor(0))
    assert (module.step_length, module.step_tokens) == (64 // documents, 128)
