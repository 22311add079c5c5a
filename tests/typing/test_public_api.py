"""Public names are typed: a type checker sees what a package exports."""

import ast
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def folder_of(room):
    return ROOT / SETUPTOOLS["package-dir"].get(room, room.replace(".", "/"))


ROOMS = [room for room in SETUPTOOLS["packages"] if "lazy_names(" in (folder_of(room) / "__init__.py").read_text()]


def seen_by_type_checkers(room):
    """Names that the block under ``if TYPE_CHECKING`` imports, with the modules they come from."""
    found = {}
    for node in ast.parse((folder_of(room) / "__init__.py").read_text()).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for line in node.body:
                found |= {alias.asname: line.module for alias in line.names}
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_type_checkers_see_every_public_name(room):
    module, seen = importlib.import_module(room), seen_by_type_checkers(room)
    assert sorted(seen) == module.__all__
    for name, home in seen.items():
        assert getattr(module, name) is getattr(importlib.import_module(home), name)


def test_a_wrong_name_or_argument_fails():
    # As a user's checker sees it, and with a cache of its own: with other settings, that of `make lint` would be made anew.
    own = ["--strict", "--config-file=", "--follow-imports=silent", "--cache-dir=.mypy_cache/public_api"]
    command = [sys.executable, "-m", "mypy", *own]
    run = subprocess.run([*command, "tests/typing/public_api.py"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
