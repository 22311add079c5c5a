"""What an option, key, value or argument that is not accepted may have meant."""

from __future__ import annotations

import re
from collections.abc import Iterable

from nbg_lightning.suggestion import closest, did_you_mean

_OPTION = re.compile(r"(?:([\w.]+): )?(?:Option '|unrecognized arguments: --)([\w.]+)")
_CLASS = re.compile(r"there is no class (\w+); write package\.module\.Name")
_UNRECOGNIZED = re.compile(r"unrecognized arguments: (\S.*)$", re.IGNORECASE)
_CHOICE = re.compile(r"expected Literal\[([^\]]*)\]; given value: (\S+)")


def with_suggestion(message: str) -> str:
    """A parser's error in one line, and the name that was meant, if one is like the one that was given.

    Args:
        message: such as ``data: nbg_lightning.ChatDataModule: Option 'tokeniser' is not accepted``.
    """
    if match := _CHOICE.search(message):
        return message + did_you_mean(match.group(2), re.findall(r"'([^']*)'", match.group(1)))
    if match := _CLASS.search(message):
        import nbg_lightning

        public: list[str] = nbg_lightning.__all__  # type: ignore[attr-defined]  # lazy_names makes it
        meant = match.group(1) if match.group(1) in public else closest(match.group(1), public, 0.6)
        return f"{message} (did you mean nbg_lightning.{meant}?)" if meant else message
    if not (match := _OPTION.search(message)):
        return message
    owner, option = match.group(1), match.group(2)
    if owner is None and option.startswith("trainer."):
        owner, option = "nbg_lightning.Trainer", option.removeprefix("trainer.")
    return message + did_you_mean(option.partition(".")[0], _parameters(owner))


def unrecognized(message: str, command: str, options: Iterable[str]) -> str:
    """A parser's error of arguments that a command does not take, and how they were meant.

    Args:
        message: such as ``unrecognized arguments: config.yaml``; any other is returned as it is.
        command: that was given.
        options: that it has, with their dashes.

    Example:
        >>> unrecognized("unrecognized arguments: run.yaml", "fit", ["--config"])
        'unrecognized arguments: run.yaml; give a config as: nbg fit --config run.yaml'
    """
    match = _UNRECOGNIZED.search(message)
    if match is None:
        return message
    options = list(options)
    given = match.group(1).split()
    files = given if not any(each.startswith("-") for each in given) else []
    if files and "--config" in options:
        configs = files if all(each.endswith((".yaml", ".yml")) for each in files) else ["FILE"]
        return f"{message}; give a config as: nbg {command} {' '.join(f'--config {each}' for each in configs)}"
    return message + did_you_mean(given[0].partition("=")[0], options)


def _parameters(owner: str | None) -> list[str]:
    """Names that a class accepts; empty if the value is not a class."""
    from nbg_lightning.import_path import import_object
    from nbg_lightning.keywords import constructor_parameters

    if owner is None or "." not in owner:
        return []
    try:
        return list(constructor_parameters(import_object(owner)))
    except (ValueError, ImportError, AttributeError, TypeError):
        return []
