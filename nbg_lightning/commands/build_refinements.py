"""`nbg build-refinements`: drafts, checklists, evaluators and rewriting in a loop; see `construction.solutions.refinement`."""

from __future__ import annotations

from typing import Any

SUMMARY = "refined solutions to instructions: drafts, a checklist, evaluators, a rewriter, in a loop"


def parser() -> Any:
    """Its options; nothing is made."""
    from nbg_lightning.commands.builder import builder_parser
    from nbg_lightning.construction.solutions.refinement import Refinement

    return builder_parser(Refinement)


def main(argv: list[str]) -> int:
    """Build refined solutions by a YAML file."""
    from nbg_lightning.commands.builder import run_builder
    from nbg_lightning.construction.solutions.refinement import Refinement

    return run_builder(Refinement, argv)
