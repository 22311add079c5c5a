"""A signal to one of two ranks during sampling or scoring: both drop the step, save the previous one, and resume from it."""

import signal
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from nbg_lightning import stopping
from nbg_lightning.engines import native
from nbg_lightning.testing import run_ranks
from nbg_lightning.testing.grpo import EvenReward, small_tokenizer, train_small_grpo

LONG = 60.0  # seconds; longer than any test waits


class SlowOnOneRank(EvenReward):
    """The second rank gets a signal while it scores the second step."""

    calls = 0

    def score(self, groups):
        self.calls += 1
        if self.calls == 2 and dist.get_rank() == 1:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(LONG)
        return super().score(groups)


def signal_while_decoding(draw):
    """The first rank gets a signal at the third token of the second step."""
    tokens = {}

    def with_signal(logits, sampling, seeds, steps):
        tokens[sampling.seed] = tokens.get(sampling.seed, 0) + 1
        if (sampling.seed, tokens[sampling.seed], dist.get_rank()) == (1, 3, 0):
            signal.raise_signal(signal.SIGTERM)
        assert not stopping.stop_asked() or tokens[sampling.seed] == 3
        return draw(logits, sampling, seeds, steps)

    return with_signal


def stopped(folder, tokenizer):
    folder = Path(folder)
    options = {"tokenizer": tokenizer, "devices": 2, "steps": 3}
    found = {"straight": train_small_grpo(folder / "straight", **options).weights}
    begin = time.monotonic()
    scoring = train_small_grpo(folder / "scoring", reward=SlowOnOneRank(), **options)
    draw, native.draw = native.draw, signal_while_decoding(native.draw)
    sampling = train_small_grpo(folder / "sampling", **options)
    native.draw = draw
    found |= {"steps": [len(scoring.metrics), len(sampling.metrics)], "seconds": time.monotonic() - begin}
    for name in ("scoring", "sampling"):
        found[name] = train_small_grpo(folder / name, resume="last", **options).weights
    return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    return folder, run_ranks(stopped, 2, str(folder), str(small_tokenizer(folder)), folder=folder)


def test_both_ranks_leave_before_the_same_step(ranks):
    for rank in ranks[1]:
        assert rank["steps"] == [1, 1]
        assert rank["seconds"] < LONG


@pytest.mark.parametrize("name", ["scoring", "sampling"])
def test_a_resumed_run_ends_with_the_same_weights(ranks, name):
    folder, found = ranks
    assert sorted(path.name for path in (folder / name / "checkpoints").iterdir()) == ["step-00000001", "step-00000003"]
    for rank in found:
        for weight, value in rank["straight"].items():
            assert torch.equal(rank[name][weight], value), weight
