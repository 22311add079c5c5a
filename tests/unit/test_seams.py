"""Names that one package writes and another reads are the same in both."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import yaml

from nbg_lightning.commands.settings import read_config
from nbg_lightning.commands.table import GROUPS, OWN_COMMANDS, TRAINER_COMMANDS
from nbg_lightning.config_files import read_yaml
from nbg_lightning.recipe import plan
from nbg_lightning.recipe.card import LAST
from nbg_lightning.recipe.charts import CHARTS
from nbg_lightning.recipe.plan import CHANGES, Recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "configs" / "recipe").glob("*.yaml"))
LISTED = runpy.run_path(str(Path(__file__).with_name("test_docs_pages.py")))[
    "listed"
]()  # tested against what is logged


def test_commands_of_recipes_are_those_of_the_command_line() -> None:
    assert set(plan.LAUNCHED) <= {*TRAINER_COMMANDS, *OWN_COMMANDS}


def test_help_lists_each_command_once() -> None:
    listed = [name for names in GROUPS.values() for name in names]
    assert sorted(listed) == sorted([*TRAINER_COMMANDS, *OWN_COMMANDS])


def test_messages_name_commands_that_there_are() -> None:
    """What a message or a config tells to type is a command."""
    named = {}
    for folder in ("nbg_lightning", "callbacks", "datamodules", "configs"):
        for path in (each for kind in ("py", "yaml") for each in (ROOT / folder).rglob(f"*.{kind}")):
            for found in re.findall(r"(?<![\w\"])nbg ([a-z]+(?:-[a-z]+)?)(?=[ ;,:.`'\")])", path.read_text("utf-8")):
                named.setdefault(found, path)
    prose = {"command", "for", "picks"}  # a sentence that speaks of nbg
    assert set(named) - prose <= {*TRAINER_COMMANDS, *OWN_COMMANDS}, named


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.title)
def test_every_chart_of_a_report_has_a_logged_metric(chart) -> None:  # type: ignore[no-untyped-def]
    assert [name for name in LISTED if chart.has(name)]


def test_every_metric_that_a_model_card_tells_is_logged() -> None:
    assert set(LAST) <= LISTED


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_no_step_of_a_recipe_is_left_with_a_placeholder(file: Path, tmp_path: Path) -> None:
    recipe = Recipe.from_yaml(file)
    for name, step in recipe.steps.items():
        (tmp_path / CHANGES).write_text(recipe.changes(name) or "{}")
        files = [*map(str, step.config), str(tmp_path / CHANGES)]
        if step.command in TRAINER_COMMANDS:
            merged = read_config(files)
        else:  # arguments of a builder: the last file wins, key by key
            merged = {key: value for each in files for key, value in read_yaml(each).items()}
        given = [*recipe.arguments(name), yaml.safe_dump(merged)]
        assert [text for text in given if re.search(r"\$\{", text)] == [], name
