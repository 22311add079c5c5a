"""A function's arguments as options and YAML keys of a command."""

from __future__ import annotations

import inspect
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from typing import Any

from nbg_lightning.commands.meant import unrecognized, with_suggestion
from nbg_lightning.error_line import one_line


def call(function: Callable[..., Any], name: str, argv: Sequence[str]) -> Any:
    """Call the function with the options and ``--config`` files of a command, later ones winning.

    Args:
        function: with typed arguments, described in its docstring.
        name: of the command.
        argv: what the user wrote after it.

    Raises:
        ValueError: options that the function does not have or cannot read.
    """
    parser = parser_of(function, name)
    try:
        settings = parser.instantiate_classes(parser.parse_args(list(argv)))
    except ArgumentError as error:
        raise ValueError(explained(error, name, parser)) from error
    values = {argument: settings[argument] for argument in inspect.signature(function).parameters}
    return function(**values)


def explained(error: ArgumentError, command: str, parser: Any) -> str:
    """What a parser of `config_parser` refuses, in one line, with what may have been meant."""
    options = [option for action in parser._actions for option in action.option_strings]
    return with_suggestion(unrecognized(one_line(str(error)), command, options))


def config_parser(command: str, description: str) -> Any:
    """A parser with ``--config`` for a command whose settings are the arguments of a function or class, yet to be added."""
    import jsonargparse

    parser = jsonargparse.ArgumentParser(
        prog=f"nbg {command}", description=description, exit_on_error=False, default_env=False
    )
    parser.add_argument("--config", action="config", help="YAML file with the settings below; may be given again")
    return parser


def parser_of(function: Callable[..., Any], name: str) -> Any:
    """The options of a command, which are the arguments of its function."""
    parser = config_parser(name, (function.__doc__ or "").strip().split("\n\n")[0])
    parser.add_function_arguments(function)
    return parser


def say(text: str) -> None:
    """A line for the terminal, not broken."""
    from rich.console import Console

    Console().print(text, soft_wrap=True, markup=False, highlight=False)
