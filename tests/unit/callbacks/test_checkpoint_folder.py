"""A folder with checkpoints of an earlier run: nothing is lost or confused."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbg_lightning.callbacks.checkpoint import checkpoints
from nbg_lightning.core.checkpoint_folder import newest_checkpoint
from nbg_lightning.testing import train_small


def _names(folder: Path) -> list[str]:
    return [path.name for path in checkpoints(folder)]


def test_a_new_run_sets_the_old_checkpoints_aside(tmp_path: Path) -> None:
    train_small(tmp_path, checkpoint_every=4, keep=2)
    assert _names(tmp_path / "checkpoints") == ["step-00000008", "step-00000012"]
    train_small(
        tmp_path, checkpoint_every=4, keep=2, max_steps=5
    )  # ends before the old checkpoints: without care it would be taken for the older run
    assert _names(tmp_path / "checkpoints") == ["step-00000004", "step-00000005"]
    assert _names(tmp_path / "checkpoints-1") == ["step-00000008", "step-00000012"]
    assert newest_checkpoint(tmp_path).name == "step-00000005"


def test_a_branch_from_an_older_checkpoint_sets_aside_what_is_ahead(tmp_path: Path) -> None:
    train_small(tmp_path, checkpoint_every=4)
    start = tmp_path / "checkpoints" / "step-00000004"
    train_small(tmp_path, checkpoint_every=2, resume=start, max_steps=6)
    assert _names(tmp_path / "checkpoints") == ["step-00000004", "step-00000006"]
    assert _names(tmp_path / "checkpoints-1") == ["step-00000008", "step-00000012"]


def test_newest_checkpoint_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not a complete checkpoint, and there is none in it"):
        newest_checkpoint(tmp_path)
