"""The parser of commands with options of their own: an error is one line, and a config may stand with ``--config`` or alone."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from nbg_lightning.commands.meant import unrecognized

CONFIGS = ("config", "recipe")  # arguments before which --config may stand


class CommandParser(argparse.ArgumentParser):
    """argparse's, whose errors a command prints as one line.

    Raises:
        ValueError: on parsing, for options that it does not have or cannot read.
    """

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        if args is not None and any(each.dest in CONFIGS and not each.option_strings for each in self._actions):
            args = [argument.removeprefix("--config=") for argument in args if argument != "--config"]
        return super().parse_known_args(args, namespace)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse's; options may stand between arguments of any number, as in ``generate MODEL --json PROMPT``."""
        any_number = any(not each.option_strings and each.nargs in ("?", "*", "+") for each in self._actions)
        return (super().parse_intermixed_args if any_number else super().parse_args)(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Called by argparse."""
        options = [option for action in self._actions for option in action.option_strings]
        raise ValueError(
            f"{unrecognized(message, self.prog.removeprefix('nbg '), options)} ({self.prog} --help lists what it takes)"
        )
