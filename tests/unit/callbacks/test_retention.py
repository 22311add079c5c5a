"""Which checkpoints are kept: the newest, every nth permanently, and recent ones."""

import pytest

from nbg_lightning.callbacks.checkpoint import StepCheckpoint, checkpoints
from nbg_lightning.callbacks.retention import Keep
from nbg_lightning.testing import train_small

STEPS = [2, 4, 6, 8, 10, 12]
AGES = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("keep", "leaving"),
    [
        (Keep(1), [2, 4, 6, 8, 10]),
        (Keep(6), []),
        (Keep(60), []),
        (Keep(2, every=4), [2, 6]),
        (Keep(1, every=1), []),
        (Keep(1, hours=3.5), [2, 4, 6]),
        (Keep(1, hours=0.1), [2, 4, 6, 8, 10]),
        (Keep(1, every=6, hours=2.5), [2, 4, 8]),
    ],
)
def test_what_leaves(keep, leaving):
    assert keep.leaving(STEPS, AGES) == leaving


def test_a_clock_that_was_set_back_removes_nothing_that_is_young():
    """Files from the future have a negative age."""
    assert Keep(1, hours=1).leaving([1, 2, 3], [-5.0, 2.0, 0.0]) == [2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"last": 0}, "keep.last is invalid: 0; give at least 1"),
        ({"every": 0}, "keep.every is invalid: 0; give at least 1"),
        ({"hours": -1.0}, "keep.hours is invalid: -1.0; give a number above 0"),
        ({"hours": float("nan")}, "keep.hours is invalid: nan; give a number above 0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Keep(**settings)


@pytest.mark.parametrize("every_n_steps", [None, 300])
def test_a_multiple_at_which_nothing_is_saved_is_refused(every_n_steps):
    with pytest.raises(ValueError, match=r"keep.every is invalid: 1000; give a multiple of every_n_steps"):
        StepCheckpoint(every_n_steps, keep=Keep(every=1000))


def test_in_a_run(tmp_path):
    train_small(tmp_path, checkpoint_every=1, keep=Keep(last=2, every=4))
    found = [path.name for path in checkpoints(tmp_path / "checkpoints")]
    assert found == ["step-00000004", "step-00000008", "step-00000011", "step-00000012"]
