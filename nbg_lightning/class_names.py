"""Short class names in YAML: ``SFTModule`` for ``nbg_lightning.SFTModule``, and ``SFTModule: {...}`` with its arguments."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from nbg_lightning.suggestion import did_you_mean

# Where a short name is looked for. No two rooms have a public class of the same name.
_ROOMS = (
    *("modules", "datamodules", "callbacks", "data", "rewards", "engines", "rl", "evaluation", "teachers"),
    *("construction", "testing", "loggers", "environments"),
)
_LIGHTNING = {  # its packages import torch, so the names stand here
    "callbacks": "DeviceStatsMonitor EarlyStopping LearningRateMonitor ModelCheckpoint RichProgressBar Timer TQDMProgressBar",
    "loggers": "CometLogger CSVLogger MLFlowLogger TensorBoardLogger WandbLogger",
}
SINGLE = frozenset({"model", "data", "reward", "engine", "judge", "advantages", "environment", "source", "strategy"})
"""Keys whose value is an object: its class by name, or with arguments."""
LISTS = frozenset({"callbacks", "callbacks+", "benchmarks", "rewards", "logger"})
"""Keys whose value is a list of objects."""
NAMED = frozenset({"sources", "validation_sources", "conversations", "questions"})
"""Keys whose value has an object under each name."""
_SURE = frozenset(
    {"callbacks", "callbacks+", "benchmarks", "rewards", "reward", "engine", "advantages"}
)  # nothing else
_CLASS = re.compile(r"[A-Z]\w*")
_PATH = re.compile(r"\w+(\.\w+)*\.[A-Z]\w*")
_PARTS = {"class_path", "init_args", "dict_kwargs"}


@cache
def class_names() -> Mapping[str, str]:
    """Public classes of the library, and Lightning's callbacks and loggers: short name to import path."""
    found: dict[str, str] = {}
    for room in _ROOMS:
        package = f"{__package__}.{room}"
        found |= {name: f"{package}.{name}" for name in importlib.import_module(package).__all__ if name[0].isupper()}
    found |= {name: f"{__package__}.{name}" for name in importlib.import_module(str(__package__)).__all__}
    for room, names in _LIGHTNING.items():
        found |= {name: f"lightning.pytorch.{room}.{name}" for name in names.split()}
    return found


def full_name(name: str) -> str:
    """The import path of a short name; any other text as it is.

    >>> full_name("SFTModule"), full_name("my_module.Mine")
    ('nbg_lightning.SFTModule', 'my_module.Mine')
    """
    return class_names().get(name, name)


def with_whole_names(node: Any, key: str = "", place: str = "") -> Any:
    """Expand every class of a YAML document to ``class_path`` and ``init_args``.

    ``class_path: SFTModule`` is expanded to the full import path everywhere. Under the keys of `SINGLE`, `LISTS` and
    `NAMED` an object may also be ``SFTModule`` alone or ``SFTModule: {base_weights: ...}``; arguments next to
    ``class_path`` are moved into ``init_args``.

    Args:
        node: the parsed YAML; it is not modified.
        key: key of the node.
        place: path of keys to it, for errors.

    Raises:
        ValueError: an unknown class, or arguments without names.

    Example:
        >>> with_whole_names({"callbacks": ["Throughput", {"WarmupDecay": {"lr": 1e-4}}]})["callbacks"][1]
        {'class_path': 'nbg_lightning.WarmupDecay', 'init_args': {'lr': 0.0001}}
    """
    if key in LISTS and isinstance(node, dict) and len(node) > 1 and all(map(_is_class, node)):
        node = [{name: arguments} for name, arguments in node.items()]
    if isinstance(node, list):
        whole = [_object(each, key, place) if key in LISTS else each for each in node]
        return [with_whole_names(each, "", f"{place}[{index}]") for index, each in enumerate(whole)]
    if key in SINGLE or (key in LISTS and isinstance(node, (str, dict))):
        node = _object(node, key, place)
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("class_path"), str):
        node = _folded(node, place)
    if key in NAMED:
        node = {name: _object(each, "source", f"{place}.{name}") for name, each in node.items()}
    return {
        name: with_whole_names(each, name if isinstance(name, str) else "", f"{place}.{name}" if place else str(name))
        for name, each in node.items()
    }


def _object(node: Any, key: str, place: str) -> Any:
    """``Name`` and ``{Name: arguments}`` as a class with its arguments; all else as it is."""
    if isinstance(node, str) and _CLASS.fullmatch(node):
        is_class = key in _SURE or place in ("model", "data") or node in class_names()
        return {"class_path": class_path(node, place)} if is_class else node
    if not isinstance(node, dict) or len(node) != 1:
        return node
    ((name, arguments),) = node.items()
    if not _is_class(name):
        return node
    if arguments is not None and not isinstance(arguments, dict):
        raise ValueError(f"{place} is invalid: {name}: {arguments!r:.60}; write {name}: {{ARGUMENT: VALUE}}")
    return {"class_path": class_path(name, place), **({"init_args": arguments} if arguments else {})}


def _is_class(name: Any) -> bool:
    return isinstance(name, str) and bool(_CLASS.fullmatch(name) or _PATH.fullmatch(name))


def class_path(name: str, place: str) -> str:
    """The import path of a class from its short name, or the path itself.

    Args:
        name: name of a class.
        place: location in the config, for errors.

    Raises:
        ValueError: there is no such short name; suggests the closest one.
    """
    if "." in name or name in class_names():
        return full_name(name)
    raise ValueError(
        f"{place} is invalid: there is no class {name}{did_you_mean(name, class_names())}; name one of your own by "
        f"package.module.{name}"
    )


def _folded(node: dict[str, Any], place: str) -> dict[str, Any]:
    """A class with the arguments next to it moved into ``init_args``."""
    beside = {name: value for name, value in node.items() if name not in _PARTS}
    whole = {**{k: v for k, v in node.items() if k in _PARTS}, "class_path": full_name(node["class_path"])}
    if not beside:
        return whole
    inside = node.get("init_args") or {}
    if both := sorted(str(name) for name in beside.keys() & inside.keys()):
        raise ValueError(f"{place} is invalid: {both[0]} stands beside init_args and in it; leave one of the two")
    return {**whole, "init_args": {**inside, **beside}}
