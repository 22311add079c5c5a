"""Checkpoints by step: which exist, which are kept, and which is the last."""

import pytest

from nbg_lightning.callbacks.checkpoint import StepCheckpoint, checkpoints
from nbg_lightning.core.checkpoint_folder import is_complete
from nbg_lightning.testing import train_small


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_the_newest_are_kept_and_the_end_is_saved(tmp_path):
    train_small(tmp_path, checkpoint_every=5, keep=2)
    assert names(tmp_path) == ["step-00000010", "step-00000012"]
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == names(tmp_path)


def test_without_an_interval_only_the_end_is_saved(tmp_path):
    train_small(tmp_path)
    assert names(tmp_path) == ["step-00000012"]


def test_a_step_is_saved_once(tmp_path, monkeypatch):
    """The last step is due for its interval, for the stop, and for the end of training."""
    saved = []
    monkeypatch.setattr(
        "nbg_lightning.trainer.Trainer.save_checkpoint", lambda self, path, **_: saved.append(path.name)
    )
    train_small(tmp_path, checkpoint_every=6)
    assert saved == ["step-00000006", "step-00000012"]


def test_saving_again_replaces(tmp_path):
    """A run that is resumed from an older checkpoint writes the newer ones again."""
    train_small(tmp_path, checkpoint_every=4)
    old = {path.name: (path / "meta.pt").stat().st_mtime_ns for path in checkpoints(tmp_path / "checkpoints")}
    train_small(tmp_path, checkpoint_every=4, resume=tmp_path / "checkpoints" / "step-00000004")
    new = {path.name: (path / "meta.pt").stat().st_mtime_ns for path in checkpoints(tmp_path / "checkpoints")}
    assert names(tmp_path) == ["step-00000004", "step-00000008", "step-00000012"]
    assert new["step-00000004"] == old["step-00000004"]
    assert new["step-00000008"] > old["step-00000008"]


def test_unfinished_folders_are_no_checkpoints(tmp_path):
    for name in ("step-00000001", "step-00000002.partial", "step-00000003.old", "step-00000004", "step-00000005"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".metadata").touch()
        (tmp_path / name / "meta.pt").touch()
    (tmp_path / "step-00000004" / "meta.pt").unlink()
    (tmp_path / "step-00000005" / ".metadata").unlink()
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000001"]
    assert not is_complete(tmp_path / "step-00000002.partial")


def test_steps_are_sorted_as_numbers(tmp_path):
    for step in (99_999_999, 100_000_000, 5):
        folder = tmp_path / f"step-{step:08d}"
        folder.mkdir()
        (folder / ".metadata").touch()
        (folder / "meta.pt").touch()
    assert [int(path.name[5:]) for path in checkpoints(tmp_path)] == [5, 99_999_999, 100_000_000]


@pytest.mark.parametrize("options", [{"keep": 0}, {"every_n_steps": 0}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match="is invalid: 0; give at least 1"):
        StepCheckpoint(**options)


def test_own_folder(tmp_path):
    callback = StepCheckpoint(dirpath=str(tmp_path / "elsewhere"))
    assert callback.state_dict() == {}
    assert callback.state_key == "StepCheckpoint"
    assert callback._folder(None) == str(tmp_path / "elsewhere")
