import math

import pytest

from nbg_lightning import FGWSD, SFTModule, Trainer, WarmupDecay
from nbg_lightning.schedule.curriculum import warmup_decay
from nbg_lightning.testing import SMALL_SHAPE, small_stages


def test_values_by_hand():
    rates = [warmup_decay(step, 10, 2.0, warmup=0.2, decay="linear", final_lr=0.4) for step in range(10)]
    assert rates == pytest.approx([1.0, 2.0, 1.8, 1.6, 1.4, 1.2, 1.0, 0.8, 0.6, 0.4])
    cosine = [warmup_decay(step, 5, 1.0, warmup=0.0, decay="cosine") for step in range(5)]
    assert cosine == pytest.approx([(1 + math.cos(math.pi * (s + 1) / 5)) / 2 for s in range(5)])
    assert cosine[-1] == 0.0


@pytest.mark.parametrize("decay", ["linear", "sqrt", "cosine", "exponential"])
@pytest.mark.parametrize("steps", [1, 2, 33, 1000])
def test_ends_and_bounds(decay, steps):
    rates = [warmup_decay(s, steps, 1.0, 0.1, decay, 0.01) for s in range(steps)]
    assert rates[-1] == 0.01 or (steps < 2 and rates == [0.01])
    assert all(0 < rate <= 1 for rate in rates)
    top = round(0.1 * steps)
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert warmup_decay(steps - 1, steps, 1.0, 0.1, decay, 1.0) == 1.0  # constant


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0}, "lr is invalid: 0"),
        ({"lr": 1, "warmup": 1.0}, "warmup is invalid: 1.0"),
        ({"lr": 1, "decay": "step"}, "decay is invalid: 'step'"),
        ({"lr": 1, "decay": "exponential"}, "final_lr is invalid: 0"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        WarmupDecay(**options)


def test_only_one_sets_the_learning_rate(tmp_path):
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=str(tmp_path),
        logger=False,
        callbacks=[WarmupDecay(1e-3), FGWSD(small_stages(), 256, 32)],
    )
    with pytest.raises(ValueError, match="both set the learning rate"):
        trainer.callbacks[0].setup(trainer, SFTModule(SMALL_SHAPE), "fit")
