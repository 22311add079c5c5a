"""Training an adapter: saving, resuming, errors and memory; references without a second model."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.core.create import create_model
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.core.lora import trained_parameters
from nbg_lightning.core.lora_config import LoRAConfig
from nbg_lightning.core.parameter_shapes import adapter_shapes
from nbg_lightning.core.weights import load_base_weights, open_adapter, open_weights
from nbg_lightning.data.pair_batch import pair_row, stack_pairs
from nbg_lightning.data.pairs import RenderedPair
from nbg_lightning.modules.adapter import AdapterOff
from nbg_lightning.modules.dpd import DPDModule
from nbg_lightning.modules.pretrain import PretrainModule
from nbg_lightning.rl.policy_loss import PolicyLossConfig
from nbg_lightning.schedule.curriculum import Stage
from nbg_lightning.teachers.live import LiveTeacher
from nbg_lightning.testing import SMALL_SHAPE, SMALL_STEP_TOKENS, train_small
from nbg_lightning.testing.grpo import GRPO_SHAPE, small_tokenizer, train_small_grpo

LORA = LoRAConfig(rank=4, dropout=0.1)
EXACT = ParallelConfig(compute_dtype="float32")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    run = train_small(folder, max_steps=4)
    return str(folder / "checkpoints" / "step-00000004"), run


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    """Six steps of an adapter with averages, and a checkpoint in the middle."""
    folder = tmp_path_factory.mktemp("adapter")
    options = {"base_weights": base[0], "lora": LORA, "ema_decay": 0.9}
    return folder, options, train_small(folder, module_options=options, max_steps=6, checkpoint_every=3)


def middle(folder):
    return next(folder.rglob("step-00000003"))


def test_the_base_stays_and_a_checkpoint_holds_the_adapter_alone(base, trained):
    folder, _, run = trained
    assert run.losses[3] < run.losses[0]  # of one source
    for name, weight in base[1].weights.items():
        assert torch.equal(run.weights[name], weight), name
    adapter = open_adapter(middle(folder))
    shapes = adapter_shapes(SMALL_SHAPE, LORA)
    assert {name: tuple(tensor.shape) for name, tensor in adapter.tensors.items()} == shapes
    assert set(run.averages) == {name.replace(".", "__") for name in shapes}
    merged, averaged = open_weights(folder), open_weights(folder, ema=True)
    name, place = "layers.1.feed_forward.w2.weight", "layers.1.feed_forward.w2"
    a, b = (run.weights[f"{place}.{side}"] for side in ("lora_a", "lora_b"))
    torch.testing.assert_close(merged.read([name])[name], run.weights[name] + LORA.scale * b @ a)
    a, b = (run.averages[f"{place}.{side}".replace(".", "__")] for side in ("lora_a", "lora_b"))
    torch.testing.assert_close(averaged.read([name])[name], run.weights[name] + LORA.scale * b @ a)


def test_resume_is_exact_with_dropout_and_averages(trained, tmp_path):
    folder, options, run = trained
    resumed = train_small(tmp_path, module_options=options, resume=middle(folder), max_steps=6)
    assert resumed.losses == run.losses[3:]
    for kind in ("weights", "averages"):
        for name, tensor in getattr(run, kind).items():
            assert torch.equal(getattr(resumed, kind)[name], tensor), name


def test_another_run_goes_on_from_the_adapter_or_from_both_merged(trained, tmp_path):
    folder, options, _ = trained
    begun = {**options, "ema_decay": None}
    onward = train_small(
        tmp_path / "on", module_options={**begun, "lora": dataclasses.replace(LORA, weights=str(folder))}, max_steps=1
    )
    above = train_small(tmp_path / "above", module_options={**begun, "base_weights": str(folder)}, max_steps=1)
    assert above.losses[0] == pytest.approx(onward.losses[0], abs=0.02)
    name = "layers.0.attention.wo.weight"
    deep = open_weights(tmp_path / "above").read([name])[name]
    torch.testing.assert_close(deep, open_weights(folder).read([name])[name], atol=0.05, rtol=0)


def test_cuts_and_checkpointing_change_nothing(base, tmp_path):
    lora = LoRAConfig(rank=4)
    runs = [
        train_small(
            tmp_path / str(index), module_options={"base_weights": base[0], "lora": lora, **options}, max_steps=3
        )
        for index, options in enumerate(
            (
                {},
                {"micro_batch_tokens": 512},
                {"parallel": dataclasses.replace(EXACT, activation_checkpointing="full")},
                {"parallel": dataclasses.replace(EXACT, sync_every_micro_batch=True)},
            )
        )
    ]
    for run in runs[1:]:
        assert run.losses == pytest.approx(runs[0].losses, rel=1e-5)
        for name, weight in runs[0].weights.items():
            torch.testing.assert_close(run.weights[name], weight, rtol=0, atol=1e-5)


def test_gradients_and_optimizer_take_memory_for_the_adapter_only(base, tmp_path):
    """Measured in bytes that the gradients and the optimizer's tensors hold."""
    held = {}

    class Measured(PretrainModule):
        def on_before_optimizer_step(self, optimizer):
            held["gradients"] = sum(p.grad.nbytes for p in self.model.parameters() if p.grad is not None)

        def on_train_end(self):
            states = self.optimizers().optimizer.state.values()
            held["states"] = sum(x.nbytes for state in states for x in state.values() if x.ndim)
            held["adapter"] = sum(parameter.nbytes for parameter in trained_parameters(self.model).values())

    module = Measured(SMALL_SHAPE, parallel=EXACT, base_weights=base[0], lora=LORA)
    train_small(tmp_path, module=module, max_steps=2)
    numbers = sum(torch.Size(size).numel() for size in adapter_shapes(SMALL_SHAPE, LORA).values())
    assert held["adapter"] == held["gradients"] == 4 * numbers
    assert held["states"] == 2 * 4 * numbers


def test_in_bfloat16_the_base_is_kept_in_it_and_the_adapter_in_float32(base, tmp_path):
    module = PretrainModule(SMALL_SHAPE, base_weights=base[0], lora=LORA)
    train_small(tmp_path, module=module, max_steps=1)
    kept = {parameter.requires_grad: parameter.dtype for parameter in module.model.parameters()}
    assert kept == {False: torch.bfloat16, True: torch.float32}


@pytest.mark.slow
def test_a_rank_of_full_width_learns_what_a_full_fine_tune_learns(tmp_path):
    """A base that knows one source, then another: all weights, and an adapter as wide as the model, whose head stays."""
    first = [Stage("first", 60 * SMALL_STEP_TOKENS, 1e-2, {"a": 1.0})]
    train_small(tmp_path / "base", stages=first)
    ends = {}
    for name, steps, lora in (("full", 60, None), ("adapter", 100, LoRAConfig(rank=48, alpha=96))):
        then = [Stage("then", steps * SMALL_STEP_TOKENS, [1e-2, 1e-3], {"b": 1.0})]
        options = {"base_weights": str(tmp_path / "base" / "checkpoints" / "step-00000060"), "lora": lora}
        run = train_small(tmp_path / name, stages=then, module_options=options)
        assert run.losses[0] > 7
        ends[name] = sum(run.losses[-5:]) / 5
    assert ends["adapter"] < ends["full"] < 0.2


# -- what is refused ---------------------------------------------------------------------------------------------------


def refusal(folder, trained, **options):
    with pytest.raises(ValueError, match="the checkpoint") as error:
        train_small(folder, module_options=options, resume=middle(trained[0]), max_steps=6)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_checkpoint_of_another_adapter_is_refused(base, trained, tmp_path):
    told = refusal(tmp_path, trained, base_weights=base[0], lora=LoRAConfig(rank=8), ema_decay=0.9)
    assert told == "the checkpoint has another adapter: rank 4 there, 8 here; use the config of that run"
    told = refusal(tmp_path, trained, base_weights=base[0], ema_decay=0.9)
    assert told.startswith("the checkpoint's run trained an adapter; set lora as that run had it")


def test_an_adapter_of_another_base_is_refused(base, trained, tmp_path):
    train_small(tmp_path / "other", max_steps=1)
    other = str(tmp_path / "other" / "checkpoints" / "step-00000001")
    told = refusal(tmp_path / "x", trained, base_weights=other, lora=LORA, ema_decay=0.9)
    assert told.startswith("the checkpoint's adapter was trained on other base weights (digest ")
    assert told.endswith("set base_weights to those")
    with pytest.raises(ValueError, match="was trained on other base weights") as error:
        open_weights(trained[0], base=other)
    assert "\n" not in str(error.value)
    options = {"base_weights": other, "lora": dataclasses.replace(LORA, weights=str(trained[0]))}
    with pytest.raises(ValueError, match="was trained on other base weights"):
        train_small(tmp_path / "y", module_options=options, max_steps=1)


def test_a_base_that_is_gone_is_named(base, trained, tmp_path):
    moved = Path(base[0]).rename(tmp_path / "moved")
    try:
        with pytest.raises(FileNotFoundError, match=r"the base of the adapter .* cannot be had"):
            open_weights(trained[0])
        assert open_weights(trained[0], base=moved).shape == SMALL_SHAPE
    finally:
        moved.rename(base[0])


def test_an_adapter_needs_base_weights():
    with pytest.raises(ValueError, match="lora is invalid without base_weights"):
        PretrainModule(SMALL_SHAPE, lora=LORA)


# -- references --------------------------------------------------------------------------------------------------------


def test_the_reference_of_dpo_is_the_model_with_the_adapter_off(base):
    module = DPDModule(base_weights=base[0], parallel=EXACT, lora=LoRAConfig(rank=4), w_pos=0.0, w_neg=0.0)
    module.model = create_model(SMALL_SHAPE, EXACT, lora=LoRAConfig(rank=4), draw=False)
    load_base_weights(module.model, base[0])
    for name, parameter in trained_parameters(module.model).items():
        if name.endswith("lora_b"):
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    module.terms = ("dpo", "margin", "accuracy", "chosen_shift", "rejected_shift")
    ids = np.arange(12) % 61
    pair = RenderedPair(ids, ids > 5, ids[::-1].copy(), ids > 5)
    [micro] = stack_pairs([pair_row([pair], 40)], np.zeros(1), np.zeros(1)).split(40)
    found = {}
    for name, reference in (("off", AdapterOff(module.model, base[0])), ("second", LiveTeacher(base[0], EXACT))):
        module.reference = reference
        found[name] = {term: values.sum().item() for term, values in module.scores(micro, {}).values.items()}
    assert found["off"] == found["second"]
    assert found["off"]["chosen_shift"] != 0


def test_the_reference_of_grpo_is_the_model_with_the_adapter_off(tmp_path):
    for name in ("model", "same"):
        save_hugging_face(create_model(GRPO_SHAPE, seed=3), tmp_path / name, dtype="float32", verify=False)
    tokenizer = small_tokenizer(tmp_path)
    runs = {}
    for name, reference in (("off", None), ("second", str(tmp_path / "same"))):
        loss = {"name": "grpo", "kl_coefficient": 0.1, "mask_truncated": False, "reference": reference}
        options = {
            "base_weights": str(tmp_path / "model"),
            "lora": LoRAConfig(rank=4),
            "loss": PolicyLossConfig(**loss),
        }
        runs[name] = train_small_grpo(tmp_path / name, tokenizer=tokenizer, steps=2, module_options=options)
    for name, weight in runs["off"].weights.items():
        assert torch.equal(weight, runs["second"].weights[name]), name
