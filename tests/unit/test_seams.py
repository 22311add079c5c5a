"""Names that one package writes and another reads are the same in both."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from nbg_lightning.callbacks import sample_table
from nbg_lightning.callbacks.stage_table import StageTable
from nbg_lightning.commands import completion, run_folder
from nbg_lightning.commands.settings import read_config
from nbg_lightning.commands.table import GROUPS, OWN_COMMANDS, TRAINER_COMMANDS
from nbg_lightning.config_files import read_yaml
from nbg_lightning.evaluation import results
from nbg_lightning.pages.rollouts import ROLLOUTS
from nbg_lightning.pages.sources import Looked, open_path
from nbg_lightning.recipe import plan
from nbg_lightning.recipe.card import LAST
from nbg_lightning.recipe.charts import CHARTS
from nbg_lightning.recipe.plan import CHANGES, Recipe
from nbg_lightning.recipe.run import STATE
from nbg_lightning.testing import train_small
from nbg_lightning.testing.grpo import small_tokenizer, train_small_grpo

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


def test_files_have_one_name_where_they_are_written_and_where_they_are_read() -> None:
    assert run_folder._RESULTS == results.RESULTS
    assert STATE in run_folder._SIGNS
    assert sample_table.FILE == ROLLOUTS


def test_stages_that_a_run_leaves_are_those_of_its_folder(tmp_path: Path) -> None:
    """`StageTable` writes them; `nbg runs` reads them where there is no other record."""
    train_small(tmp_path / "run", callbacks=[StageTable()], limit_val_batches=1.0, val_check_interval=4)
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(tmp_path / "run" / "stages.json", bare)
    found, written = run_folder.read_run(bare), json.loads((bare / "stages.json").read_text())
    assert (found.stage, found.problem) == ("decay", None)
    assert found.results == {"validation loss": written["decay"]["val/loss"]}


def test_rollouts_that_a_run_leaves_are_those_that_are_shown(tmp_path: Path) -> None:
    """`SampleTable` writes them; `nbg view` and the report of a recipe read them."""
    tokenizer = small_tokenizer(tmp_path)
    (drawn,) = train_small_grpo(tmp_path / "run", tokenizer=tokenizer, steps=1).rollouts
    expected = {
        rollout.question.messages[-1]["content"]: {
            f"answer {number}": (answer.text, result.score)
            for number, (answer, result) in enumerate(zip(rollout.answers, rollout.results, strict=True))
        }
        for rollout in drawn
    }
    (shown,) = open_path(tmp_path / "run", Looked(100))
    found = {
        record.prompt[-1].pieces[0].text: {
            answer.name: (answer.turns[-1].pieces[0].text, answer.score) for answer in record.answers
        }
        for record in shown.records
    }
    assert not shown.notes
    assert found == expected


def keys_below(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The keys that a part of the schema knows, through references and alternatives; those of a class's arguments too."""
    found: dict[str, list[dict[str, Any]]] = {}
    waiting, seen = [node], set()
    while waiting:
        part = waiting.pop()
        if (name := part.get("$ref")) is not None and name not in seen:
            seen.add(name)
            waiting.append(schema["$defs"][name.removeprefix("#/$defs/")])
        waiting += [
            *part.get("anyOf", ()),
            *part.get("allOf", ()),
            *(part[word] for word in ("then", "else") if word in part),
        ]
        for key, below in part.get("properties", {}).items():
            found.setdefault(key, []).append(below)
            waiting += (
                [below] if key == "init_args" or key[0].isupper() else []
            )  # the arguments, in both ways to write them
    return found


@pytest.mark.parametrize(
    "option", sorted({*completion._TRAINER_OPTIONS} - {"--config", "--print_config", "--help"}), ids=lambda each: each
)
def test_options_that_completion_offers_are_keys_of_the_schema(option: str) -> None:
    schema = json.loads((ROOT / "configs" / "schema.json").read_text("utf-8"))
    of_class = {"optimizer": schema["$defs"]["AdamWConfig"]}  # the schema leaves open what stands under this key
    parts = [schema]
    for name in option.removeprefix("--").removesuffix("+").split("."):
        parts = [below for part in parts for below in keys_below(part, schema).get(name, ())]
        assert parts, name
        parts = [of_class[name]] if name in of_class else parts
