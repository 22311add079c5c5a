"""`nbg build-reasoning`: the chain of thought that leads to a refined solution; see `construction.solutions.reconstruction`."""

from __future__ import annotations

from typing import Any

SUMMARY = "chains of thought that lead to refined solutions, checked against them: SFT conversations with thinking"


def parser() -> Any:
    """Its options; nothing is made."""
    from nbg_lightning.commands.builder import builder_parser
    from nbg_lightning.construction.solutions.reconstruction import Reconstruction

    return builder_parser(Reconstruction)


def main(argv: list[str]) -> int:
    """Build conversations with thinking by a YAML file."""
    from nbg_lightning.commands.builder import run_builder
    from nbg_lightning.construction.solutions.reconstruction import Reconstruction

    return run_builder(Reconstruction, argv)
