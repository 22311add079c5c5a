"""Former names of arguments (`moved.ARGUMENTS`) in the configs and options of a command: they are read, as their new names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nbg_lightning.config_files import config_content, yaml_text
from nbg_lightning.moved import ARGUMENTS, with_current_arguments


def with_current_configs(argv: Sequence[str]) -> list[str]:
    """The arguments with former names of arguments as they are today; configs that change become texts."""
    arguments = list(argv)
    for index, argument in enumerate(arguments):
        before = arguments[index - 1] if index else ""
        if argument.startswith("--config=") or (before == "--config" and not argument.startswith("--")):
            config = read_config_option(argument)
            if (current := with_current_arguments(config)) != config:
                prefix = "--config=" if argument.startswith("--config=") else ""
                arguments[index] = prefix + yaml_text(current)
        elif argument.startswith("--"):
            arguments[index] = _current_option(argument)
    return arguments


def _current_option(argument: str) -> str:
    """An option of a nested setting, such as ``--model.init_args.reward.init_args.last_resort``, by its name of today."""
    option, equals, value = argument.partition("=")
    place, _, name = option.rpartition(".")
    current = next((names[name] for names in ARGUMENTS.values() if place and name in names), name)
    return argument if current == name else f"{place}.{current}{equals}{value}"


def read_config_option(argument: str) -> dict[str, Any]:
    """The content of ``--config=FILE`` or of a text in its place; empty where the parser will say what is wrong with it."""
    content = config_content(argument.removeprefix("--config="))
    return content if isinstance(content, dict) else {}
