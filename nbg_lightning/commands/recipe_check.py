"""Whether a step's configuration is understood, before hours are spent on those before it."""

from __future__ import annotations

import tempfile
from argparse import ArgumentError
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from nbg_lightning.commands.settings import check_config
from nbg_lightning.commands.table import OWN_COMMANDS, TRAINER_COMMANDS, own_command
from nbg_lightning.config_files import resolve_arguments
from nbg_lightning.error_line import one_line
from nbg_lightning.recipe.plan import CHANGES, Recipe


def check_step(recipe: Recipe, name: str) -> str:
    """Parse the configuration of a step as its command will; nothing is built, no weights or data need be there.

    Returns:
        What is known of its size, or an empty text.

    Raises:
        ValueError: the configuration is not understood; names the step.
    """
    with tempfile.TemporaryDirectory() as temporary:
        if changes := recipe.changes(name):
            (Path(temporary) / CHANGES).write_text(changes, "utf-8")
        return _parse(recipe, name, recipe.arguments(name, Path(temporary)))


def _parse(recipe: Recipe, name: str, arguments: list[str]) -> str:
    try:
        arguments = resolve_arguments(arguments)
        if recipe.steps[name].command in TRAINER_COMMANDS:
            check_config([given for option, given in pairwise(arguments) if option == "--config"])
            from nbg_lightning.commands.trainer import parse

            return _size(parse(arguments).as_dict())
        _parse_own(arguments)
    except (ArgumentError, ValueError, OSError) as error:
        raise ValueError(f"step {name!r}: {one_line(str(error))}") from error
    return ""


def _parse_own(arguments: list[str]) -> None:
    command, *options = arguments
    if command not in OWN_COMMANDS:
        known = ", ".join([*TRAINER_COMMANDS, *OWN_COMMANDS])
        raise ValueError(f"there is no command {command!r}; there are {known}")
    own_command(command).parser().parse_args(options)


def _size(config: Mapping[str, Any]) -> str:
    """Steps and tokens of a training with a curriculum in its callbacks."""
    from nbg_lightning.schedule.of_config import read_curriculum
    from nbg_lightning.schedule.tokens import format_tokens

    curriculum = read_curriculum(config)
    return (
        "" if curriculum is None else f"{curriculum.num_steps:,} steps, {format_tokens(curriculum.num_tokens)} tokens"
    )
