"""Descriptions of everything that determines an output, as plain JSON: objects by class and arguments, files by size and time."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbg_lightning.construction.store import JsonRecord
from nbg_lightning.moved import ARGUMENTS, recorded_name

NAMES_WEIGHTS = ("weights", "folder")  # arguments of engines that name local files
_NAMES_FILES = (*NAMES_WEIGHTS, "path")  # the same, and of sources
_SECRETS = {"api_key"}


def describe(value: Any) -> Any:
    """Describe an object as JSON: its class and those arguments of its ``__init__`` that it stores.

    Any class can be described, including a user's, so this looks up the object's own argument names. API keys are
    omitted. For local files, sizes and times are part of the description.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): describe(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(each) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.init]
    else:
        names = [name for name in inspect.signature(type(value).__init__).parameters if name != "self"]
    kept = {name: getattr(value, name) for name in names if hasattr(value, name) and name not in _SECRETS}
    found: JsonRecord = {name: describe(each) for name, each in kept.items() if not callable(each)}
    for former, name in ARGUMENTS.get(type(value).__name__, {}).items():
        if found.pop(name, False):  # recorded under its first name, and only if it is set
            found[former] = describe(kept[name])
    found["class"] = recorded_name(type(value))
    for name in _NAMES_FILES:
        if isinstance(kept.get(name), (str, Path)) and (files := _files(Path(kept[name]).expanduser())):
            found["files"] = digest([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])
    return found


def digest(value: Any) -> str:
    """Hash a JSON value: 16 hex digits, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _files(path: Path) -> list[Path]:
    """The file, or all files of a folder or pattern, sorted."""
    if path.is_file():
        return [path]
    found = path.rglob("*") if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))
    return sorted(file for file in found if file.is_file())
