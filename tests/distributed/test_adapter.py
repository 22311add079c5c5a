"""An adapter on two gloo ranks, launched once, against one rank in this process."""

import dataclasses

import pytest
import torch

from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.core.lora_config import LoRAConfig
from nbg_lightning.core.weights import open_adapter
from nbg_lightning.testing import run_ranks, train_small

EXACT = ParallelConfig(compute_dtype="float32")
OPTIONS = {"lora": LoRAConfig(rank=3, alpha=6), "ema_decay": 0.9, "parallel": EXACT}  # 2 ranks do not divide 3 rows


def on_a_rank(folder, base):
    options = {**OPTIONS, "base_weights": base}
    found = {"plain": train_small(folder / "plain", devices=2, module_options=options, max_steps=6, checkpoint_every=3)}
    gathered = {**options, "parallel": dataclasses.replace(EXACT, reshard_after_forward=False)}
    found["gathered"] = train_small(folder / "gathered", devices=2, module_options=gathered, max_steps=6)
    middle = folder / "plain" / "checkpoints" / "step-00000003"
    found["resumed"] = train_small(folder / "resumed", devices=2, module_options=options, max_steps=6, resume=middle)
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    train_small(folder / "base", max_steps=2)
    base = str(folder / "base" / "checkpoints" / "step-00000002")
    one = train_small(folder / "one", module_options={**OPTIONS, "base_weights": base}, max_steps=6)
    (folder / "ranks").mkdir()
    return folder, base, one, run_ranks(on_a_rank, 2, folder, base, folder=folder / "ranks")


def test_two_ranks_are_one_rank(runs):
    _, _, one, ranks = runs
    for rank in ranks:
        for name in ("plain", "gathered"):
            assert rank[name].losses == pytest.approx(one.losses, rel=1e-5)
            for kind in ("weights", "averages"):
                for key, tensor in getattr(one, kind).items():
                    torch.testing.assert_close(getattr(rank[name], kind)[key], tensor, rtol=0, atol=1e-5)


def test_resume_is_exact_and_one_rank_goes_on_from_two(runs, tmp_path):
    folder, base, one, ranks = runs
    for rank in ranks:
        assert rank["resumed"].losses == rank["plain"].losses[3:]
        for name, tensor in rank["plain"].weights.items():
            assert torch.equal(rank["resumed"].weights[name], tensor), name
    middle = folder / "plain" / "checkpoints" / "step-00000003"
    again = train_small(tmp_path, module_options={**OPTIONS, "base_weights": base}, max_steps=6, resume=middle)
    assert again.losses == pytest.approx(one.losses[3:], rel=1e-5)
    for name, tensor in open_adapter(folder / "plain").tensors.items():
        torch.testing.assert_close(tensor, one.weights[name], rtol=0, atol=1e-5)
