"""Muon: two ranks equal one, and a resumed run equals an uninterrupted one."""

import pytest
import torch

from nbg_lightning.modules.optimizer import AdamWConfig
from nbg_lightning.testing import run_ranks, train_small

FACTORS = {"embedding": 2.0, "vectors": 0.5}
OPTIONS = {"module_options": {"ema_decay": 0.9, "optimizer": AdamWConfig(algorithm="muon", lr_factors=FACTORS)}}
DONE = "step-00000005"


def on_a_rank(folder):
    return train_small(f"{folder}/two", devices=2, checkpoint_every=5, **OPTIONS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("muon")
    one = train_small(folder / "one", checkpoint_every=5, **OPTIONS)
    return folder, one, run_ranks(on_a_rank, 2, str(folder), folder=folder / "ranks")


def assert_same(found, expected, done, tolerance):
    assert found.losses == pytest.approx(expected.losses[done:], rel=tolerance)
    assert found.column("lr") == expected.column("lr")[done:]
    for kind in ("weights", "averages"):
        for name, value in getattr(expected, kind).items():
            torch.testing.assert_close(getattr(found, kind)[name], value, rtol=0, atol=tolerance)


def test_two_ranks_are_one_rank(runs):
    _, one, two = runs
    for found in two:
        assert_same(found, one, 0, 1e-5)


def test_resume_is_exact_and_one_rank_goes_on_from_two(runs, tmp_path):
    folder, one, _ = runs
    assert_same(train_small(tmp_path / "a", resume=folder / "one" / "checkpoints" / DONE, **OPTIONS), one, 5, 0.0)
    assert_same(train_small(tmp_path / "b", resume=folder / "two" / "checkpoints" / DONE, **OPTIONS), one, 5, 1e-5)


def test_it_is_not_resumed_with_another_optimizer(runs, tmp_path):
    folder, _, _ = runs
    with pytest.raises(ValueError, match=r"run had optimizer\.algorithm muon, not adamw"):
        train_small(tmp_path, resume=folder / "one" / "checkpoints" / DONE, module_options={"ema_decay": 0.9})
