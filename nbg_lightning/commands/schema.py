"""`nbg schema [COMMAND]`: the JSON schema of a command's configs, for editors."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from nbg_lightning.commands.parser import CommandParser
from nbg_lightning.commands.table import OWN_COMMANDS, TRAINER_COMMANDS, own_command
from nbg_lightning.suggestion import did_you_mean


def main(argv: list[str]) -> int:
    """Run the command.

    Raises:
        ValueError: a command that has no configs.
    """
    arguments = parser().parse_args(argv)
    text = schema_text(arguments.command)
    if arguments.output is None:
        print(text, end="")
        return 0
    from nbg_lightning.data.durable import write_atomic

    write_atomic(Path(arguments.output), text)
    return 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = CommandParser(prog="nbg schema", description="Print the JSON schema of a command's configs, for editors.")
    made.add_argument(
        "command", nargs="?", default="fit", metavar="COMMAND", help="fit (default), or a build-... command"
    )
    made.add_argument("--output", metavar="FILE", help="write to this file instead of standard output")
    return made


def schema_text(command: str) -> str:
    """The schema of a command's configs, as a file has it.

    Raises:
        ValueError: a command that has no configs.
    """
    from nbg_lightning.commands.config_schema import class_schema, training_schema

    builders = [name for name, (module, _) in OWN_COMMANDS.items() if module.startswith("builder:")]
    if command in TRAINER_COMMANDS:
        schema = training_schema()
    elif command in builders:
        schema = class_schema(f"a config of nbg {command}", own_command(command).kind)
    else:
        known = [*TRAINER_COMMANDS, *builders]
        raise ValueError(
            f"command is invalid: {command}{did_you_mean(command, known)}; those with configs: {', '.join(known)}"
        )
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
