"""`nbg build-problems`: coding problems with tests from programs; see `construction.problems.builder`."""

from __future__ import annotations

from typing import Any

SUMMARY = "coding problems with public and private tests, backwards from programs, measured by mutants"


def parser() -> Any:
    """Its options; nothing is made."""
    from nbg_lightning.commands.builder import builder_parser
    from nbg_lightning.construction.problems.builder import Problems

    return builder_parser(Problems)


def main(argv: list[str]) -> int:
    """Build coding problems by a YAML file."""
    from nbg_lightning.commands.builder import run_builder
    from nbg_lightning.construction.problems.builder import Problems

    return run_builder(Problems, argv)
