"""The wheel contains the whole package, and works without a checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from nbg_lightning.testing import launchable_environment

ROOT = Path(__file__).parents[2]
SOURCES = ("nbg_lightning", "callbacks", "datamodules", "configs", "pyproject.toml", "README.md", "LICENSE")
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def typed(command, folder, **environment):
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**launchable_environment(), "PYTHONPATH": "", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: setuptools writes beside the sources, and takes what an older build has left there."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "sources"
    copy.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    typed([*PIP, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, "."], copy)
    [made] = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The ``bin`` of an environment that has the wheel, and what the wheel needs from the environment of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    typed([sys.executable, "-m", "venv", "--without-pip", folder], folder)
    python = folder / "bin" / "python"
    typed([*PIP, "--python", python, "install", "--no-deps", "--no-index", "--no-compile", wheel], folder)
    # A line of a .pth file is a path and no more: the .pth files there, of which one is this checkout's, are not read.
    own = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    needed = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    (Path(own) / "needed.pth").write_text("".join(f"{path}\n" for path in needed))
    return folder / "bin"


def test_the_wheel_has_every_file_of_the_package_once(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert len(names) == len(set(names))
    there = {name for name in names if ".dist-info/" not in name}
    assert all(name.startswith("nbg_lightning/") for name in there)
    expected = set()
    for top, place in {
        "nbg_lightning": "nbg_lightning",
        **{each: f"nbg_lightning/{each}" for each in ("callbacks", "datamodules", "configs")},
    }.items():
        for folder, folders, files in os.walk(ROOT / top):  # which follows no links
            folders[:] = [each for each in folders if each != "__pycache__"]
            relative = Path(place, os.path.relpath(folder, ROOT / top))
            expected |= {(relative / name).as_posix() for name in files if not name.endswith(".pyc")}
    assert there == expected


def test_extras_and_command(wheel):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    with zipfile.ZipFile(wheel) as archive:
        [metadata, commands] = (
            archive.read(next(name for name in archive.namelist() if name.endswith(f".dist-info/{file}"))).decode()
            for file in ("METADATA", "entry_points.txt")
        )
    assert {line.removeprefix("Provides-Extra: ") for line in metadata.splitlines() if "Provides-Extra" in line} == {
        *extras
    }
    assert "nbg = nbg_lightning.cli:main" in commands


def test_training_from_the_wheel_in_any_folder(installed, tmp_path):
    where = typed([installed / "python", "-c", "import nbg_lightning; print(nbg_lightning.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    typed([installed / "nbg", "init", "pretrain", "mine"], tmp_path)
    fit = [installed / "nbg", "fit", "--config", "pretrain.yaml", "--config", "configs/trainer/cpu.yaml"]
    said = typed(fit, tmp_path / "mine")
    assert "PretrainModule finished" in said
    assert "warning" not in said.lower(), said
    assert not (tmp_path / "mine" / "configs").exists()
    assert (tmp_path / "mine" / "runs/pretrain/checkpoints/step-00000020/meta.pt").is_file()


@pytest.mark.slow
def test_sft_from_the_wheel_as_init_says(installed, tmp_path):
    said = typed([installed / "nbg", "init", "sft", "mine"], tmp_path)
    lines = [line.partition("  # ")[0].strip() for line in said.partition("Now run:")[2].splitlines()]
    commands = [line.split()[1:] for line in lines if line.startswith("nbg")]
    assert [each[0] for each in commands] == ["fit", "data", "fit", "chat"]
    for command in commands[:-1]:
        said = typed([installed / "nbg", *command], tmp_path / "mine")
    assert "SFTModule finished" in said and "next " in said
    answer = typed([installed / "nbg", "generate", "runs/sft", "--max-new-tokens", "4", "2 + 3?"], tmp_path / "mine")
    assert answer.strip()
