"""The cost of imports, and that every public name exists."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
HEAVY = ("torch", "lightning", "torchtitan", "transformers", "datasets", "matplotlib", "rich", "torchmetrics")

# Modules of which worker processes and the quick commands must not pay for torch.
LIGHT = {
    "nbg_lightning": HEAVY,
    "nbg_lightning.cli": HEAVY,
    "nbg_lightning.schedule.curriculum": HEAVY,
    "nbg_lightning.callbacks": HEAVY,
    "nbg_lightning.core": HEAVY,
    "nbg_lightning.core.config": HEAVY,
    "nbg_lightning.data": HEAVY,
    "nbg_lightning.data.order": HEAVY,
    "nbg_lightning.data.shards": HEAVY,
    "nbg_lightning.data.sources": HEAVY,
    "nbg_lightning.data.prepare": HEAVY,
    "nbg_lightning.datamodules": HEAVY,
    "nbg_lightning.modules": HEAVY,
    "nbg_lightning.modules.pretrain": ("torchtitan", "datasets"),
}


def loaded_after(module):
    code = f"import sys, {module}; print(*sorted(set(name.split('.')[0] for name in sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_light_modules_load_nothing_heavy():
    found = {module: sorted(loaded_after(module) & set(heavy)) for module, heavy in LIGHT.items()}
    assert found == {module: [] for module in LIGHT}


def test_rooms_point_one_way():
    """The contracts of pyproject.toml: which room may import which, and that torchtitan is the core's alone."""
    lint = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    assert "Contracts: 2 kept, 0 broken." in run.stdout


@pytest.mark.parametrize("package", SETUPTOOLS["packages"])
def test_every_public_name_resolves(package):
    module = importlib.import_module(package)
    for name in getattr(module, "__all__", []):
        assert getattr(module, name) is not None
        assert name in dir(module)


def test_what_stands_beside_each_other_is_public_beside_each_other():
    """Callbacks, modules and datamodules that a config names are at the top of the library, all of them."""
    import nbg_lightning
    from nbg_lightning import callbacks, datamodules, modules

    bases = {"LanguageModule", "OrderedDataModule", "PreparedDataModule", "QuestionDataModule", "RenderedDataModule"}
    bases |= {"StepDataModule"}
    named = {name for room in (modules, datamodules) for name in room.__all__ if name.endswith("Module")}
    assert {*callbacks.__all__, *(named - bases)} <= set(nbg_lightning.__all__)
    assert bases <= named


def test_unknown_names_are_attribute_errors():
    import nbg_lightning

    with pytest.raises(AttributeError, match="module 'nbg_lightning' has no attribute 'Trainr'"):
        _ = nbg_lightning.Trainr
    assert not hasattr(nbg_lightning, "Trainr")
