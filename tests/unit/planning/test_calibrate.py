"""Measuring this machine with a tiny model: numbers are positive, finite and of the right magnitude."""

import math
import time

import pytest
import torch

from nbg_lightning.core.config import LanguageModelConfig
from nbg_lightning.planning.calibrate import Stopwatch, calibrate

SHAPE = LanguageModelConfig(512, 64, 128, 2, 2, 1, 32, 512)


@pytest.fixture(scope="module")
def meter():
    return Stopwatch(torch.device("cpu"), time.process_time)


def test_parts_of_a_step(meter):
    rates = meter.rates(SHAPE, "float32")
    assert set(rates.heads) == {"pretraining", "SFT", "DPD", "GRPO"}
    values = [rates.blocks, *rates.heads.values(), meter.decode_bandwidth(SHAPE)]
    assert all(math.isfinite(value) and value > 0 for value in values)
    assert max(rates.blocks, *rates.heads.values()) < 1.5 * meter.products(torch.float32)  # no part beats the products


def test_the_fastest_run_counts(meter):
    found = iter([9.0, 5.0, 1.0, 3.0])
    clock = Stopwatch(torch.device("cpu"), iter([0, 5, 10, 11, 20, 23]).__next__)
    assert clock.seconds(lambda: next(found)) == 1


def test_a_gpu_that_is_not_there():
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="there is no GPU to measure; give --device cpu"):
            calibrate("cuda")
