"""Check that the data, weights and checkpoint that a training config names exist, from names and folders alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nbg_lightning.class_source import class_attribute, find
from nbg_lightning.commands.shipped_runs import made_by
from nbg_lightning.config_files import parse_yaml
from nbg_lightning.data.sources.files import find_files
from nbg_lightning.remote import is_url
from nbg_lightning.suggestion import did_you_mean

_WORDS = ("last", "best", "hpc", "registry")  # that Lightning accepts as a checkpoint, or as the beginning of one
_WEIGHTS = (".safetensors", ".bin", ".metadata", ".distcp", "meta.pt", ".index.json", ".ckpt")
_ANY = ("",)  # endings
_MOST_NAMES = 12  # of checkpoints in an error
_MOST_FOLDERS = 1000  # that are looked into; the reader of the weights says the rest


def check_inputs(configs: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> None:
    """Refuse paths of data, weights and checkpoints at which there is nothing.

    Args:
        configs: in their order, in the long form.
        options: of the command line, by their keys.

    Raises:
        FileNotFoundError: nothing is there; names the setting and what was meant.
        ValueError: a folder without weights, or a file without the field that is read.
    """
    weights = _last(configs, options, "model", "base_weights")
    if isinstance(weights, str):
        _check_weights(weights)
    tokenizer = _last(configs, options, "data", "tokenizer")
    if isinstance(tokenizer, str) and _is_missing_path(tokenizer):
        raise FileNotFoundError(
            f"tokenizer is invalid: {tokenizer}; there is no such folder{_meant(tokenizer)}; {made_by(tokenizer)}give a "
            "tokenizer's folder, a checkpoint, or a model's name on the hub"
        )
    checkpoint = options.get("ckpt_path", next((c["ckpt_path"] for c in reversed(configs) if "ckpt_path" in c), None))
    if isinstance(checkpoint, str) and not checkpoint.startswith(_WORDS) and _is_missing_path(checkpoint, is_hub=False):
        raise FileNotFoundError(
            f"no checkpoint at {checkpoint}{_meant(checkpoint)}; {_beside(checkpoint)}give a folder of a run, or last"
        )
    for name, source in _sources(configs, options).items():
        _check_source(str(name), _mapping(source))


def _sources(configs: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> dict[str, Any]:
    """All sources by their names; what comes later takes the place of an earlier one. None where an option changes one."""
    given = [_mapping(_init_args(config, "data").get("sources")) for config in configs]
    for key, value in options.items():
        if key in ("data.sources", "data.init_args.sources"):
            given.append(_mapping(parse_yaml(value or "", f"--{key}")))
        elif "sources" in key:
            return {}
    return {name: source for sources in given for name, source in sources.items()}


def check_model(name: str) -> None:
    """Refuse a path that is not a model: it does not exist, or is a folder without weights.

    Raises:
        FileNotFoundError: nothing is there; with what was meant.
        ValueError: a folder without weights.
    """
    if ("/" not in name.rstrip("/") and not Path(name).expanduser().exists()) or _is_missing_path(name):
        raise FileNotFoundError(
            f"{name} does not exist{_meant(name)}; {made_by(name)}give a folder, or a hub name such as organisation/model"
        )
    if (folder := Path(name).expanduser()).is_dir() and not _has_weights(folder):
        raise ValueError(
            f"model is invalid: {name}; the folder has no weights (no .safetensors file and no checkpoint): give a checkpoint, "
            "a run that has saved one, or a Hugging Face folder"
        )


def _last(configs: Sequence[Mapping[str, Any]], options: Mapping[str, Any], part: str, key: str) -> Any:
    """A setting's value; of options first."""
    for name in (f"{part}.init_args.{key}", f"{part}.{key}"):
        if name in options:
            return options[name]
    return next((given[key] for config in reversed(configs) if key in (given := _init_args(config, part))), None)


def _check_source(name: str, source: Mapping[str, Any]) -> None:
    """The path of one of the library's sources."""
    class_path, arguments = source.get("class_path"), _mapping(source.get("init_args"))
    path = arguments.get("path")
    if not isinstance(class_path, str) or not class_path.startswith("nbg_lightning.") or not isinstance(path, str):
        return
    if class_attribute(find(class_path), "kind") is None:
        return
    if is_url(path):
        return
    if not Path(path).expanduser().is_dir():
        try:
            find_files(path, _ANY)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"source {name!r}: {error}{_meant(path)}") from None
    if class_path in ("nbg_lightning.data.JsonLines", "nbg_lightning.data.sources.JsonLines") and os.path.isfile(path):
        _check_first_line(name, path, str(arguments.get("text_field", "text")))


def _check_first_line(name: str, path: str, field: str) -> None:
    """The first document of a file of JSON lines, as its source reads it."""
    from nbg_lightning.data.sources.json_lines import JsonLines

    if next(iter(JsonLines(path=path, text_field=field).documents()), None) is None:
        raise ValueError(
            f"source {name!r}: path is invalid: {path}; it has no document: give a file with a line of JSON for each"
        )


def _check_weights(given: str) -> None:
    path = Path(given).expanduser()
    if _is_missing_path(given):
        raise FileNotFoundError(
            f"base_weights is invalid: {given}; there is no such folder{_meant(given)}; {made_by(given)}give a Hugging "
            "Face folder, a checkpoint, or a model's name on the hub"
        )
    if path.is_dir() and not _has_weights(path):
        raise ValueError(
            f"base_weights is invalid: {given}; the folder has no weights (no .safetensors file and no checkpoint): give the "
            "folder that has them"
        )


def _is_missing_path(given: str, is_hub: bool = True) -> bool:
    """Whether nothing is at what can only be a path: a name on the hub, where one may stand, is ``owner/name``.

    URLs are not checked: nothing uses the network before the command has started.
    """
    if is_url(given):
        return False
    owner, slash, name = given.partition("/")
    is_path = given.startswith((".", "/", "~")) or "/" in name or (bool(slash) and os.path.isdir(owner)) or not is_hub
    path = Path(given).expanduser()
    is_last = path.name == "last" and path.parent.is_dir()  # the newest checkpoint of a run
    return is_path and not path.exists() and not is_last


def _has_weights(folder: Path) -> bool:
    for number, (_, _, names) in enumerate(os.walk(folder)):
        if number > _MOST_FOLDERS or any(name.endswith(_WEIGHTS) for name in names):
            return True
    return False


def _meant(path: str) -> str:
    parent = Path(path).expanduser().parent
    beside = [str(Path(path).parent / each.name) for each in parent.iterdir()] if parent.is_dir() else []
    return did_you_mean(path, beside, 0.8)


def _beside(checkpoint: str) -> str:
    """The checkpoints of the folder in which one is looked for, the newest of many."""
    folder = Path(checkpoint).expanduser().parent
    names = sorted(each.name for each in folder.glob("step-*") if each.is_dir()) if folder.is_dir() else []
    return f"there are {', '.join(names[-_MOST_NAMES:])}; " if names else ""


def _init_args(config: Mapping[str, Any], part: str) -> dict[str, Any]:
    return _mapping(_mapping(config.get(part)).get("init_args"))


def _mapping(node: Any) -> dict[str, Any]:
    return node if isinstance(node, dict) else {}
