"""YAML files of users, and those that the package ships as ``configs/...``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from nbg_lightning.suggestion import did_you_mean

_PREFIX = "configs/"


def shipped(path: str) -> str:
    """The installed file that ``configs/...`` names, where there is no such file here; any other path as it is."""
    if not path.startswith(_PREFIX) or Path(path).exists():
        return path
    installed = Path(str(files("nbg_lightning.configs"))) / path.removeprefix(_PREFIX)
    return str(installed) if installed.exists() else path


def resolve_arguments(argv: Sequence[str]) -> list[str]:
    """Options of a command with shipped configs as files, refusing a ``--config`` that is not there.

    Raises:
        FileNotFoundError: no such file, with the one that was meant if there is one like it.
    """
    resolved: list[str] = []
    for argument in argv:
        option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
        if equals or not option:
            argument = option + equals + shipped(value)
        resolved.append(argument)
        named = resolved[-2] == "--config" if len(resolved) > 1 and not option else option == "--config" and equals
        if named:
            config_file(argument.removeprefix("--config="))
    return resolved


def config_file(path: str | Path) -> Path:
    """An existing file, also a shipped one by ``configs/...``.

    Raises:
        FileNotFoundError: no such file, with the one that was meant if there is one like it.
    """
    found = Path(shipped(str(path))).expanduser()
    if found.is_dir():
        raise FileNotFoundError(f"{path} is a folder: give a YAML file in it")
    if found.is_file() or not re.search(r"[./]", str(path)):  # jsonargparse also takes YAML text in its place
        return found
    raise FileNotFoundError(f"there is no config {path}{did_you_mean(str(path), _neighbours(found), 0.85)}")


def _neighbours(path: Path) -> list[str]:
    """Configs that may have been meant: those beside it, and those that are shipped."""
    beside = (
        [str(path.parent / each.name) for each in sorted(path.parent.glob("*.y*ml"))] if path.parent.is_dir() else []
    )
    root = Path(str(files("nbg_lightning.configs")))
    return beside + [_PREFIX + str(each.relative_to(root)) for each in sorted(root.rglob("*.yaml"))]


def read_yaml(path: str | Path) -> Any:
    """The content of a YAML file.

    Raises:
        FileNotFoundError: as `config_file`.
        ValueError: it is not YAML.
    """
    file = config_file(path)
    try:
        return parse_yaml(file.read_text("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not YAML: it is not UTF-8 ({error.reason} at byte {error.start})") from None


def parse_yaml(text: str, name: str) -> Any:
    """YAML text, in which ``1e-4`` is a number (YAML 1.2; PyYAML's 1.1 takes it for a text).

    Args:
        text: the YAML.
        name: of its file, for errors.

    Raises:
        ValueError: it is not YAML.
    """
    import yaml

    try:
        return yaml.load(text, _loader())
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{name} is not YAML: {' '.join(str(error).split())}") from None


@cache
def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """PyYAML's, with the floats of YAML 1.2."""

    number = re.compile(r"[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    return Loader
