"""`nbg build-chains`: training conversations of a chain-completion model; see `construction.solutions.chains`."""

from __future__ import annotations

from typing import Any

SUMMARY = "conversations that train a chain-completion model, from conversations with thinking"


def parser() -> Any:
    """Its options; nothing is made."""
    from nbg_lightning.commands.builder import builder_parser
    from nbg_lightning.construction.solutions.chains import Chains

    return builder_parser(Chains)


def main(argv: list[str]) -> int:
    """Build training conversations by a YAML file."""
    from nbg_lightning.commands.builder import run_builder
    from nbg_lightning.construction.solutions.chains import Chains

    return run_builder(Chains, argv)
