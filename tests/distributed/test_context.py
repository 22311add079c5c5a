"""Ranks that share each micro-batch by tokens: four gloo ranks, launched once, against one rank in this process."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh

from nbg_lightning.core.batch import document_offsets
from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig
from nbg_lightning.core.context import ContextShard
from nbg_lightning.core.create import create_model
from nbg_lightning.core.documents import Documents, ModelInput
from nbg_lightning.core.lora_config import LoRAConfig
from nbg_lightning.data.sources import InMemory
from nbg_lightning.datamodules import CurriculumDataModule
from nbg_lightning.modules.optimizer import AdamWConfig
from nbg_lightning.modules.pretrain import PretrainModule
from nbg_lightning.modules.sft import SFTModule
from nbg_lightning.schedule.curriculum import Stage
from nbg_lightning.testing import SMALL_LENGTH, SMALL_SHAPE, SyntheticDataModule, run_ranks, train_small
from nbg_lightning.trainer import Trainer

HEADS = {"as many": (4, 4), "fewer": (4, 1), "not divided": (12, 6)}
SETTINGS = {
    "context 4": {"context": 4, "activation_checkpointing": "full"},
    "context 2, data 2": {"context": 2, "activation_checkpointing": "selective", "sync_every_micro_batch": True},
}
MORE_SETTINGS = {
    "hybrid": {"context": 2, "replicate": 2},
    "weights stay gathered": {"context": 4, "reshard_after_forward": False},
    "compiled": {"context": 2, "compile": True},
    "compiled, checkpointing": {"context": 4, "compile": True, "activation_checkpointing": "selective"},
}
LOOPED = dataclasses.replace(SMALL_SHAPE, num_loops=2)
VALIDATION = {"limit_val_batches": 1.0, "val_check_interval": 6}


def parallel(**settings):
    return ParallelConfig(**{"compute_dtype": "float32", "compile": False, **settings})


def shape(heads, kv_heads):
    return LanguageModelConfig(61, 24, 48, 2, heads, kv_heads, head_dim=8)


def packed(rows=3, length=24):
    """Documents of any lengths, one token and whole rows too."""
    random = np.random.default_rng(0)
    tokens = torch.from_numpy(random.integers(0, 61, (rows, length)))
    begins = [[0, 1, 2, 9, 20], [0], [0, 5, 6, 17, 23]]
    positions = torch.stack(
        [torch.arange(length) - torch.tensor([max(b for b in row if b <= t) for t in range(length)]) for row in begins]
    )
    return ModelInput(tokens, positions, Documents(document_offsets(positions)))


def hidden_and_gradients(heads, kv_heads, context=None):
    """A forward of packed documents, and the gradients of a weighted sum of its logits; all of them whole."""
    model = create_model(shape(heads, kv_heads), seed=1)
    whole = packed()
    factors = torch.linspace(-1, 1, whole.tokens.numel() * 61).view(*whole.tokens.shape, 61)
    own = whole if context is None else context.input(whole)
    logits = model(*own)
    (logits * (factors if context is None else context.columns(factors))).sum().backward()
    return logits.detach(), {name: p.grad for name, p in model.named_parameters()}


def on_four_ranks(folder):
    mesh = init_device_mesh("cpu", (4,))
    results = {}
    for size in (2, 4):
        context = ContextShard(size, mesh)
        for name, heads in HEADS.items():
            logits, gradients = hidden_and_gradients(*heads, context)
            for gradient in gradients.values():
                torch.distributed.all_reduce(gradient, group=context.group)
            results[size, name] = context.rank, logits, gradients
    for name, settings in SETTINGS.items():
        options = {"checkpoint_every": 6, **VALIDATION} if name == "context 4" else {}
        results[name] = small_run(f"{folder}/{name}", settings, **options)
    middle = f"{folder}/context 4/checkpoints/step-00000006"
    results["resumed"] = small_run(f"{folder}/resumed", {"context": 2}, resume=middle)
    results["sft"] = sft_run(f"{folder}/sft", 4, context=2)
    results["errors"] = errors(folder)
    return results


def with_more_parts(folder):
    """Cases that the small test omits: other shardings, optimizers, adapters, looped blocks, background checkpoints."""
    results = {name: small_run(f"{folder}/{name}", settings, max_steps=6) for name, settings in MORE_SETTINGS.items()}
    results["muon"] = small_run(f"{folder}/muon", {"context": 2}, optimizer=AdamWConfig(algorithm="muon"), max_steps=6)
    results["looped"] = small_run(f"{folder}/looped", {"context": 4}, core=LOOPED, max_steps=6)
    results["background"] = small_run(f"{folder}/background", {"context": 2}, checkpoint_every=4, asynchronous=True)
    saved = f"{folder}/background/checkpoints/step-00000008"
    results["resumed"] = small_run(f"{folder}/resumed", {"context": 4}, resume=saved)
    lora = {"lora": LoRAConfig(rank=4), "base_weights": saved, "ema_decay": None}
    results["lora"] = small_run(f"{folder}/lora", {"context": 4}, **lora, max_steps=6)
    float8 = {"context": 2, "float8": "emulate"}
    results["float8"] = small_run(f"{folder}/float8", float8, base_weights=saved, max_steps=2)
    return results


MODULE = ("optimizer", "core", "lora", "base_weights", "ema_decay")


def small_run(folder, settings, devices=4, **options):
    own = {name: options.pop(name) for name in MODULE if name in options}
    module_options = {"ema_decay": 0.9, "micro_batch_tokens": 32, "parallel": parallel(**settings), **own}
    return train_small(folder, devices=devices, module_options=module_options, **options)


def sft_run(folder, devices, **settings):
    module = SFTModule(SMALL_SHAPE, parallel=parallel(**settings), micro_batch_tokens=64, seed=0)
    return train_small(folder, devices=devices, module=module, max_steps=3)


def errors(folder):
    found = {}
    for name, size in {"ranks": 8, "heads": 3, "window": 4}.items():
        try:
            module = PretrainModule(shape(8, 8) if name == "ranks" else SMALL_SHAPE, parallel=parallel(context=size))
            stages = None
            if name == "window":
                stages = [Stage("odd", 4 * 256, 1e-3, {"a": 1}, sequence_length=2)]
            train_small(f"{folder}/error", devices=4, module=module, stages=stages)
        except ValueError as error:
            found[name] = str(error)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("context")


@pytest.fixture(scope="module")
def ranks(folder):
    return run_ranks(on_four_ranks, 4, str(folder), folder=folder, timeout=400)


@pytest.fixture(scope="module")
def more(folder):
    return run_ranks(with_more_parts, 4, str(folder / "more"), folder=folder, timeout=600)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("one"), {}, devices=1, **VALIDATION)


def assert_same_run(found, expected, done=0):
    """Losses, gradients and weights to 1e-5; the samples exactly."""
    assert found.column("chain") == expected.column("chain")[done:]
    assert found.losses == pytest.approx(expected.losses[done:], rel=1e-5)
    assert found.grad_norms == pytest.approx(expected.grad_norms[done:], rel=1e-5)
    for kind in ("weights", "averages"):
        for name, value in getattr(expected, kind).items():
            torch.testing.assert_close(getattr(found, kind)[name], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("heads", HEADS)
def test_documents_of_any_lengths(ranks, size, heads):
    logits, gradients = hidden_and_gradients(*HEADS[heads])
    for found in ranks:
        place, own_logits, own_gradients = found[size, heads]
        length = logits.shape[1] // size
        torch.testing.assert_close(own_logits, logits[:, place * length : (place + 1) * length], rtol=1e-5, atol=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(own_gradients[name], gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_run_is_that_of_one_rank(ranks, one, settings):
    for rank in ranks:
        assert_same_run(rank[settings], one)


def test_a_validation_is_that_of_one_rank(ranks, one):
    expected = {name: value for name, value in one.metrics.items() if name.startswith("val/")}
    assert expected
    for rank in ranks:
        assert {name: rank["context 4"].metrics[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_ranks_of_a_group_read_the_same_samples(ranks, one):
    """Each with its part of the tokens; they are counted once."""
    sources = [rank["context 2, data 2"].column("source") for rank in ranks]
    assert sources[0] == sources[1]
    assert sources[2] == sources[3]
    hashes = [rank["context 2, data 2"].column("sample_hash") for rank in ranks]
    assert [a + c for a, c in zip(hashes[0], hashes[2], strict=True)] == one.column("sample_hash")
    assert {value for step in hashes[1] + hashes[3] for value in step} == {0}
    assert ranks[0]["context 4"].steps[0]["length"] == SMALL_LENGTH // 4


def test_resume_onto_another_context_size(ranks, one, folder, tmp_path):
    for rank in ranks:
        assert_same_run(rank["resumed"], one, done=6)
    alone = small_run(tmp_path, {}, devices=1, resume=Path(folder, "context 4/checkpoints/step-00000006"))
    assert_same_run(alone, one, done=6)


def test_sft(ranks, tmp_path):
    single = sft_run(tmp_path, 1)
    for rank in ranks:
        assert_same_run(rank["sft"], single)


def test_what_does_not_fit_is_refused_in_a_line(ranks):
    for rank in ranks:
        assert rank["errors"] == {
            "ranks": "parallel.context is invalid: 8; it must divide the 4 ranks",
            "heads": "parallel.context is invalid: 3; it must divide the 4 attention heads: 1, 2, 4",
            "window": "parallel.context is invalid: 4; it must divide the windows of 2 tokens: set sequence_length to a multiple "
            "of it",
        }


@pytest.mark.parametrize("size", [0, -2, True, 1.5, "2"])
def test_a_size_that_is_no_number_of_ranks(size):
    with pytest.raises(
        ValueError, match=r"parallel\.context is invalid: .*; give a number of ranks, 1 to leave it out"
    ):
        PretrainModule(SMALL_SHAPE, parallel=parallel(context=size))


@pytest.mark.slow
@pytest.mark.parametrize("settings", MORE_SETTINGS)
def test_other_ways_of_spreading(more, tmp_path, settings):
    alone = small_run(tmp_path, {}, devices=1, max_steps=6)
    for rank in more:
        assert_same_run(rank[settings], alone)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["muon", "looped", "lora"])
def test_other_optimizers_and_models(more, folder, tmp_path, name):
    lora = {"lora": LoRAConfig(rank=4), "base_weights": str(folder / "more/background/checkpoints/step-00000008")}
    own = {
        "muon": {"optimizer": AdamWConfig(algorithm="muon")},
        "looped": {"core": LOOPED},
        "lora": {**lora, "ema_decay": None},
    }
    alone = small_run(tmp_path, {}, devices=1, max_steps=6, **own[name])
    for rank in more:
        assert_same_run(rank[name], alone)


@pytest.mark.slow
def test_checkpoints_beside_training(more, one):
    for rank in more:
        assert_same_run(rank["background"], one)
        assert_same_run(rank["resumed"], one, done=8)


@pytest.mark.slow
def test_float8(more, folder, tmp_path):
    """The forward is that of one rank. Gradients of weights are rounded by the tokens of a rank, as without a group."""
    trained = {"base_weights": str(folder / "more/background/checkpoints/step-00000008"), "max_steps": 2}
    alone = small_run(tmp_path, {"float8": "emulate"}, devices=1, **trained)
    plain = small_run(tmp_path / "plain", {}, devices=1, **trained)
    assert abs(alone.losses[0] - plain.losses[0]) > 1e-4
    for rank in more:
        assert rank["float8"].column("chain") == alone.column("chain")
        assert rank["float8"].losses[0] == pytest.approx(alone.losses[0], rel=1e-5)
        assert rank["float8"].grad_norms == pytest.approx(alone.grad_norms, rel=0.1)


class WholeRows(SFTModule):
    splits_context = False


def test_modules_that_need_whole_rows_say_so():
    with pytest.raises(ValueError, match=r"parallel\.context is invalid: 2; WholeRows needs whole rows: set it to 1"):
        WholeRows(core=SMALL_SHAPE, parallel=parallel(context=2))


def test_predictions_are_of_whole_rows(tmp_path):
    module = PretrainModule(SMALL_SHAPE, parallel=parallel(context=2))
    trainer = Trainer(accelerator="cpu", devices=1, default_root_dir=str(tmp_path), logger=False)
    with pytest.raises(ValueError, match="set it to 1: predictions are of whole rows"):
        trainer.predict(module, datamodule=SyntheticDataModule({"a": 9}, SMALL_SHAPE.vocab_size))


def test_windows_of_validation_are_checked_before_data_are_prepared():
    data = CurriculumDataModule({"a": InMemory(["a text"])}, validation_length=6)
    with pytest.raises(ValueError, match=r"parallel\.context is invalid: 4; it must divide the windows of 6 tokens"):
        Trainer(accelerator="cpu", devices=4, logger=False).fit(
            PretrainModule(SMALL_SHAPE, parallel=parallel(context=4)), datamodule=data
        )
