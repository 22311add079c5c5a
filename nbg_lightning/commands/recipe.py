"""`nbg recipe FILE`: all stages of a recipe in one go, and a report of what came out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nbg_lightning.commands.parser import CommandParser

if TYPE_CHECKING:
    from nbg_lightning.recipe.plan import Recipe

SUMMARY = "Run the steps of a recipe in order, skipping finished ones, and write an HTML report."
_MEANING = {"done": "done", "run": "to run", "resume": "to resume", "redo": "to redo (its settings or data changed)"}


def main(argv: list[str]) -> int:
    """Run the command.

    Raises:
        FileNotFoundError, ValueError: a recipe or a config that cannot be used, before anything is run.
    """
    arguments = parser().parse_args(argv)

    import dataclasses

    from nbg_lightning.data.folder_lock import folder_lock
    from nbg_lightning.recipe.plan import Recipe
    from nbg_lightning.recipe.run import StepFailed, run_recipe

    recipe = Recipe.from_yaml(arguments.recipe)
    if arguments.folder:
        recipe = dataclasses.replace(recipe, folder=arguments.folder)
    names = _chosen(recipe, arguments.first, arguments.only)
    if arguments.dry_run:
        return _dry_run(recipe, names)
    if not arguments.report:
        from nbg_lightning.commands.recipe_check import check_step

        for name in names:
            check_step(recipe, name)
        try:
            with folder_lock(Path(recipe.folder), "runs a recipe"):
                run_recipe(recipe, names)
        except StepFailed as error:
            _report(recipe)
            print(f"nbg recipe: error: {error}", file=sys.stderr)
            return 1
    _report(recipe)
    return 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = CommandParser(prog="nbg recipe", description=SUMMARY)
    made.add_argument("recipe", metavar="FILE", help="YAML file, such as configs/recipe/quickstart.yaml")
    made.add_argument("--from", dest="first", metavar="STEP", help="start from this step")
    made.add_argument("--only", metavar="STEP", help="run this step alone")
    made.add_argument(
        "--dry-run", action="store_true", help="check every step's config and print its command; run nothing"
    )
    made.add_argument("--report", action="store_true", help="write the report from existing results; run nothing")
    made.add_argument("--folder", help="output folder, instead of the recipe's own")
    return made


def _chosen(recipe: Recipe, first: str | None, only: str | None) -> list[str]:
    names = list(recipe.steps)
    for name in (first, only):
        if name is not None and name not in recipe.steps:
            raise ValueError(f"step is invalid: {name}; there are {', '.join(names)}")
    if first and only:
        raise ValueError("--from and --only exclude each other; give one of them")
    return [only] if only else names[names.index(first) :] if first else names


def _dry_run(recipe: Recipe, names: list[str]) -> int:
    from nbg_lightning.commands.recipe_check import check_step
    from nbg_lightning.recipe.run import command_of, shown, state_of

    for name in names:
        facts = check_step(recipe, name)
        state = state_of(recipe, name)
        print(f"{name}: {_MEANING[state]}" + (f" ({facts})" if facts else ""))
        print(f"  {shown(command_of(recipe, name, state == 'resume'))}")
    print(f"{len(names)} steps: all configs are valid; nothing was run")
    return 0


def _report(recipe: Recipe) -> None:
    from nbg_lightning.recipe.gather import gather
    from nbg_lightning.recipe.report import write_report
    from nbg_lightning.recipe.summary import summary

    reports = gather(recipe)
    print("\n".join([*summary(reports), f"report: {write_report(recipe, reports)}"]), flush=True)
