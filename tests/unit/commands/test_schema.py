"""The editor schema accepts every shipped config, and rejects misspelt keys."""

import json
import os
from pathlib import Path

import jsonschema
import pytest

from nbg_lightning.commands.init import JOBS, write
from nbg_lightning.commands.schema import main, schema_text
from nbg_lightning.config_files import parse_yaml, read_yaml

ROOT = Path(__file__).parents[3] / "configs"
OTHERS = ("construction", "recipe", "engine")  # configs of builders and recipes, and parts of configs
CONFIGS = [path for path in sorted(ROOT.rglob("*.yaml")) if not set(OTHERS) & set(path.parts)]
SHIPPED = ROOT / "schema.json"


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(SHIPPED.read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_what_is_shipped_is_what_the_classes_are():
    current = SHIPPED.read_text("utf-8") == schema_text("fit")  # a separate name, so that no report prints both texts
    assert current, "configs/schema.json is out of date; type: nbg schema --output configs/schema.json"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_config_names_the_schema_and_follows_it(path, validator):
    line = path.read_text("utf-8").partition("\n")[0]
    name = line.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / name).resolve() == SHIPPED
    validator.validate(read_yaml(str(path)))


@pytest.mark.parametrize("job", [name for name in JOBS if name != "recipe"])
def test_configs_of_init_follow_it(job, validator, tmp_path):
    configs = [name for name in write(JOBS[job], tmp_path) if name.endswith(".yaml")]
    assert configs
    for name in configs:
        text = (tmp_path / name).read_text("utf-8")
        schema = text.partition("\n")[0].removeprefix("# yaml-language-server: $schema=")
        assert os.path.samefile(schema, SHIPPED)
        validator.validate(parse_yaml(text, name))


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("modell: {}", "modell"),
        ("trainer: {max_stepps: 3}", "max_stepps"),
        ("model: {SFTModule: {base_weight: x}}", "base_weight"),
        ("model: {class_path: nbg_lightning.SFTModule, init_args: {base_weight: x}}", "base_weight"),
        ("trainer: {callbacks: [{WarmupDecay: {rate: 1}}]}", "rate"),
        ("trainer: {callbacks: [{class_path: WarmupDecay, init_args: {rate: 1}}]}", "rate"),
        ("data: {ChatDataModule: {sources: {a: {ChatJsonLines: {file: x}}}}}", "file"),
        ("seed: many", "many"),
    ],
)
def test_what_is_misspelt_is_refused(text, where, validator):
    errors = list(validator.iter_errors(parse_yaml(text, "text")))
    assert errors and where in str(errors[0])


def test_own_classes_and_short_forms_are_left_alone(validator):
    for text in (
        "model: {my.Module: {a: 1}}",
        "model: {class_path: my.Module, init_args: {a: 1}}",
        "model: {base_weights: x}",
        "data: {sources: [a.jsonl, b.jsonl]}",
        "data: {sources: corpus/*.jsonl}",
        "trainer: {callbacks: [Throughput], callbacks+: {StageTable: {}}}",
    ):
        validator.validate(parse_yaml(text, "text"))


def test_each_argument_has_the_words_of_its_own_line(validator):
    described = {
        (name, key): own.get("description", "")
        for name, kind in validator.schema["$defs"].items()
        for key, own in kind.get("properties", {}).items()
    }
    joined = [
        place
        for place, text in described.items()
        for other in validator.schema["$defs"][place[0]]["properties"]
        if f". {other}: " in text
    ]
    assert joined == []
    assert described["VerifiersEnvironment", "python"].startswith("path of the interpreter")
    assert described["ModelReward", "scale"] == "``probability`` is ``sigmoid(r)``, from 0 to 1; ``raw`` is r itself."
    assert described["ModelReward", "weights"].endswith("on the hub.")


def test_the_command(capsys, tmp_path):
    assert main(["build-pairs", "--output", str(tmp_path / "pairs.json")]) == 0
    schema = json.loads((tmp_path / "pairs.json").read_text())
    assert {"student", "teacher", "out"} <= set(schema["properties"])
    pairs = read_yaml(str(ROOT / "construction" / "pairs-sums.yaml"))
    jsonschema.Draft202012Validator(schema).validate(pairs)
    with pytest.raises(ValueError, match="command is invalid: chat"):
        main(["chat"])
