"""The steps of the shipped recipes, merged as their commands merge them."""

from pathlib import Path

import pytest

from nbg_lightning.commands.schedule import read_config
from nbg_lightning.recipe.plan import CHANGES, Recipe

RECIPES = sorted((Path(__file__).parents[2] / "configs" / "recipe").glob("*.yaml"))


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_sources_of_pairs_are_those_of_the_step_that_makes_them(file, tmp_path):
    """A source of the config under another name would stay beside the recipe's: a file that nobody has."""
    recipe = Recipe.from_yaml(file)
    checked = 0
    for name, step in recipe.steps.items():
        if not (step.config and any(output == "pairs" for _, output in step.references)):
            continue
        (tmp_path / CHANGES).write_text(recipe.changes(name) or "{}")
        config = read_config([*step.config, str(tmp_path / CHANGES)])
        paths = [source["init_args"]["path"] for source in config["data"]["init_args"]["sources"].values()]
        assert paths == [str(recipe.find("pairs", "pairs"))], name
        checked += 1
    assert checked == 2, "the cache and DPD"
