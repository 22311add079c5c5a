"""Recipes: parsing, validation, and identity of steps."""

import json

import pytest
import yaml

from nbg_lightning.recipe.plan import Recipe


def write(where, steps, **others):
    path = where / "recipe.yaml"
    content = {"name": "r", "folder": str(where / "runs"), "steps": steps, **others}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("model: {a: 1}\n")
    return path


def steps(config):
    return {
        "first": {"command": "fit", "config": str(config)},
        "second": {
            "command": "fit",
            "config": [str(config)],
            "set": {"model.base_weights": "${first.checkpoint}", "steps": 3, "deep": {"list": ["${first.folder}/x"]}},
        },
        "pairs": {
            "command": "build-pairs",
            "set": {"out": "${folder}", "fast": True},
            "outputs": {"pairs": "pairs.jsonl"},
        },
        "third": {"command": "export", "arguments": ["${second.checkpoint}", "${folder}/hf", "${pairs.pairs}"]},
    }


def test_references_become_paths(tmp_path, config):
    recipe = Recipe.from_yaml(write(tmp_path, steps(config)))
    runs = tmp_path / "runs"
    assert recipe.arguments("second") == [
        "fit",
        *("--config", str(config)),
        *("--trainer.default_root_dir", str(runs / "second")),
        *("--model.base_weights", str(runs / "first/checkpoints/LAST")),
        *("--steps", "3"),
        *("--deep", json.dumps({"list": [f"{runs}/first/x"]})),
    ]
    assert recipe.arguments("pairs") == ["build-pairs", "--out", str(runs / "pairs"), "--fast"]
    assert recipe.arguments("third") == [
        "export",
        str(runs / "second/checkpoints/LAST"),
        f"{runs}/third/hf",
        str(runs / "pairs/pairs.jsonl"),
    ]


def test_changes_are_one_more_config(tmp_path, config):
    content = steps(config)
    content["second"]["changes"] = {"data": {"tokenizer": "${first.checkpoint}", "sizes": [1, 2]}}
    content["rate"] = {"command": "pass-rate", "config": str(config), "changes": {"a": 1}, "set": {"-n": 4, "k": True}}
    recipe = Recipe.from_yaml(write(tmp_path, content))
    runs = tmp_path / "runs"
    assert recipe.arguments("second")[:5] == [
        "fit", "--config", str(config), "--config", str(runs / "second/changes.yaml"),
    ]  # fmt: skip
    assert yaml.safe_load(recipe.changes("second")) == {
        "data": {"tokenizer": f"{runs}/first/checkpoints/LAST", "sizes": [1, 2]}
    }
    assert recipe.changes("first") is None
    rate = ["--config", str(config), "--config", str(runs / "rate/changes.yaml"), "-n", "4", "--k"]
    assert recipe.arguments("rate") == ["pass-rate", *rate]
    content["second"]["changes"]["data"]["tokenizer"] = "${nobody.checkpoint}"
    with pytest.raises(ValueError, match="is not an earlier step; there are first"):
        Recipe.from_yaml(write(tmp_path, content))


def test_a_key_changes_with_all_that_decides_and_nothing_else(tmp_path, config):
    data = tmp_path / "data.jsonl"
    data.write_text("{}\n")
    content = steps(config)
    content["first"]["set"] = {"data.path": str(data)}
    before = Recipe.from_yaml(write(tmp_path, content))
    keys = {name: before.key(name) for name in before.steps}

    def changed(**others):
        again = Recipe.from_yaml(write(tmp_path, content, **others))
        return {name for name in again.steps if again.key(name) != keys[name]}

    assert changed() == set()
    assert changed(folder=str(tmp_path / "elsewhere"), about="other words") == set()
    content["second"]["about"] = "words"
    assert changed() == set()
    content["second"]["set"]["steps"] = 4
    assert changed() == {"second", "third"}, "a step's options are its own and its followers'"
    content["second"]["set"]["steps"] = 3
    data.write_text("{}\n{}\n")
    assert changed() == {"first", "second", "third"}, "so is the content of files that it names"
    data.write_text("{}\n")
    config.write_text("model: {a: 1}  # a comment changes nothing\n")
    assert changed() == set()
    config.write_text("model: {a: 2}\n")
    assert changed() == {"first", "second", "third"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["second"]["set"].update(x="${nobody.checkpoint}"), "is not an earlier step; there are first"),
        (lambda s: s["first"].update(set={"x": "${second.checkpoint}"}), "is not an earlier step; there are none"),
        (lambda s: s["second"]["set"].update(x="${first.pairs}"), "there are folder, checkpoint of 'first'"),
        (lambda s: s["first"].update(comand="fit"), "unknown key 'comand'"),
        (lambda s: s["first"].pop("command"), "has no command"),
        (lambda s: s["first"].update(changes=[1]), "changes is invalid: \\[1\\]; give a mapping"),
        (lambda s: s["first"].update(config=[{}]), "config is invalid: .*; give a file, or a list of files"),
        (lambda s: s["first"].update(config=5), "config is invalid: 5; give a file, or a list of files"),
        (lambda s: s["first"].update(arguments=5), "arguments is invalid: 5; give a list"),
        (lambda s: s["first"].update(set="x"), "set is invalid: x; give a mapping from options"),
        (lambda s: s["first"].update(outputs=[1]), "outputs is invalid: .*; give a mapping from names"),
        (lambda s: s.update({"a b": {"command": "fit"}}), "cannot name a step"),
        (lambda s: s["first"].update(measures="second"), "not an earlier step"),
    ],
)
def test_a_broken_recipe_is_refused_with_the_mend(tmp_path, config, change, message):
    content = steps(config)
    change(content)
    with pytest.raises(ValueError, match=message):
        Recipe.from_yaml(write(tmp_path, content))


def test_missing_files(tmp_path, config):
    with pytest.raises(FileNotFoundError, match=r"there is no config .*none"):
        Recipe.from_yaml(tmp_path / "none.yaml")
    content = steps(config)
    content["first"]["config"] = "nowhere.yaml"
    with pytest.raises(FileNotFoundError, match=r"step 'first': there is no config nowhere\.yaml"):
        Recipe.from_yaml(write(tmp_path, content))


@pytest.mark.parametrize("text", ["steps: [", "steps: []", "- a", "nothing: 1", ""])
def test_what_is_no_recipe(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"recipe\.yaml"):
        Recipe.from_yaml(path)
