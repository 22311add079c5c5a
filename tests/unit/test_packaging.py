"""pyproject.toml against what is on disk."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def folder_of(package):
    """Where a package's source is, by the package-dir map."""
    return ROOT / SETUPTOOLS["package-dir"].get(package, package.replace(".", "/"))


def packages_on_disk():
    inside = {path.parent for path in (ROOT / "nbg_lightning").rglob("__init__.py")}
    inside = {
        path
        for path in inside
        if not any(
            (ROOT / "nbg_lightning" / part) in [path, *path.parents] for part in ("callbacks", "datamodules", "configs")
        )
    }
    names = {".".join(path.relative_to(ROOT).parts) for path in inside}
    return names | set(SETUPTOOLS["package-dir"])


def test_every_package_is_listed():
    assert set(SETUPTOOLS["packages"]) == packages_on_disk()
    assert len(SETUPTOOLS["packages"]) == len(set(SETUPTOOLS["packages"]))


@pytest.mark.parametrize("package", SETUPTOOLS["packages"])
def test_listed_packages_exist(package):
    assert (folder_of(package) / "__init__.py").is_file()


def test_every_folder_with_modules_is_a_package():
    """A module in a folder without ``__init__.py`` would be left out of the wheel, but for data such as `nbg init` writes."""
    data = {
        path
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        for path in folder_of(package).glob(pattern)
    }
    assert ROOT / "nbg_lightning/commands/starts/guess.py" in data
    for top in {folder_of(package) for package in SETUPTOOLS["packages"]}:
        for path in set(top.rglob("*.py")) - data:
            assert (path.parent / "__init__.py").is_file(), path


@pytest.mark.parametrize("folder", ["callbacks", "datamodules"])
def test_folders_are_importable_under_one_name_only(folder):
    """Under two names a class would be two classes."""
    run = subprocess.run([sys.executable, "-c", f"import {folder}"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith(f"ImportError: {folder} is invalid as a package")
    assert run.stderr.splitlines()[-1].endswith(f"; import nbg_lightning.{folder}")


def test_data_files():
    assert (ROOT / "nbg_lightning" / "py.typed").is_file()
    for package, patterns in SETUPTOOLS["package-data"].items():
        for pattern in patterns:
            assert list(folder_of(package).glob(pattern)), f"{package}: nothing is called {pattern}"


def test_version():
    import nbg_lightning

    assert nbg_lightning.__version__ == PROJECT["project"]["version"]


def test_pinned_where_interfaces_move():
    assert "torchtitan==0.3.0" in PROJECT["project"]["dependencies"]
    assert any(each.startswith("lightning>=2.6.4,<2.7") for each in PROJECT["project"]["dependencies"])
