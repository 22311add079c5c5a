"""Exported files are readable as far as the umask allows."""

import os

import pytest
import torch
from safetensors.torch import save_file

from nbg_lightning.core.hf_folder import take_usual_modes


@pytest.mark.parametrize(("umask", "folder_mode", "file_mode"), [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600)])
def test_modes_follow_the_umask(tmp_path, umask, folder_mode, file_mode):
    folder = tmp_path / "made"
    folder.mkdir(mode=0o700)
    save_file({"weight": torch.zeros(2)}, folder / "model.safetensors")  # 0600 whatever the umask
    before = os.umask(umask)
    try:
        take_usual_modes(folder)
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == folder_mode
    assert [(path.name, path.stat().st_mode & 0o777) for path in folder.iterdir()] == [("model.safetensors", file_mode)]
