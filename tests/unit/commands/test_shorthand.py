"""Short forms of configs are equivalent to long forms, which stay unchanged."""

import re
from pathlib import Path

import pytest
import yaml

from nbg_lightning.commands.short_arguments import expand_arguments
from nbg_lightning.commands.shorthand import Classes, expand_configs, expand_settings
from nbg_lightning.commands.trainer import parse
from nbg_lightning.config_files import parse_yaml, read_yaml, yaml_text

CONFIGS = Path(__file__).parents[3] / "configs"
SHORT = """
model: {SFTModule: {core: {preset: nano, max_position_embeddings: 8K}, optimizer: {lr: 1e-4}}}
data: {sources: my/chats.jsonl, tokenizer: some/folder, sequence_length: 1e3, tokens_per_step: 8K}
trainer: {callbacks: [WarmupDecay: {lr: 1e-3}, Throughput]}
"""
LONG = """
model:
  class_path: nbg_lightning.SFTModule
  init_args:
    core: {vocab_size: 512, hidden_size: 128, intermediate_size: 256, num_hidden_layers: 2, num_attention_heads: 2,
      num_key_value_heads: 1, head_dim: 64, max_position_embeddings: 8000, tie_word_embeddings: true}
    optimizer: {lr: 0.0001}
data:
  class_path: nbg_lightning.ChatDataModule
  init_args:
    sources:
      chats: {class_path: nbg_lightning.data.ChatJsonLines, init_args: {path: my/chats.jsonl}}
    tokenizer: some/folder
    sequence_length: 1000
    tokens_per_step: 8K
trainer:
  callbacks:
    - {class_path: nbg_lightning.WarmupDecay, init_args: {lr: 0.001}}
    - class_path: nbg_lightning.Throughput
"""


def expanded(*configs):
    return expand_configs([parse_yaml(config, "test") for config in configs])


TRAININGS = [path for path in sorted(CONFIGS.rglob("*.yaml")) if path.parent.name != "recipe"]
SHORT_MODEL = re.compile(r"^model:\n  [A-Z]", re.MULTILINE)  # model: {CLASS: {...}}, as tests/golden has it resolved
WRITTEN_OUT = [path for path in TRAININGS if not SHORT_MODEL.search(path.read_text("utf-8"))]


def name_of(path):
    return f"{path.parent.name}/{path.stem}"


def long_form(path, content):
    return expand_settings(content) if path.parent.name == "construction" else expand_configs([content])[0]


@pytest.mark.parametrize("path", WRITTEN_OUT, ids=name_of)
def test_configs_that_are_written_out_stay_as_they_are(path, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    content = read_yaml(path)
    assert yaml_text(long_form(path, content)) == yaml_text(content)


@pytest.mark.parametrize("path", TRAININGS, ids=name_of)
def test_a_long_form_is_its_own(path, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    once = long_form(path, read_yaml(path))
    assert yaml_text(long_form(path, parse_yaml(yaml_text(once), "once"))) == yaml_text(once)


def test_a_short_config_is_its_long_form(tmp_path):
    paths = {}
    for name, text in (("short", SHORT), ("long", LONG)):
        paths[name] = tmp_path / f"{name}.yaml"
        paths[name].write_text(text)
    short, long = (parse(["fit", "--config", str(path)]) for path in paths.values())
    for config in (short, long):
        del config["config"]
    assert short == long


def test_options_have_short_forms_too():
    config = f"--config={SHORT}"
    options = [
        config,
        "--data.sources.more",
        "corpus/*.parquet",
        "--trainer.callbacks+",
        "StageTable",
        "--model.micro_batch_tokens=64k",
    ]
    found = parse(["fit", *options])
    assert list(found.data.init_args.sources) == ["chats", "more"]
    assert found.data.init_args.sources["more"].class_path == "nbg_lightning.data.ChatParquet"
    assert found.trainer.callbacks[-1].class_path == "nbg_lightning.StageTable"
    assert found.model.init_args.micro_batch_tokens == 64_000


@pytest.mark.parametrize(
    "options",
    [
        ["--model.core.preset", "tiny", "--model.core.max_position_embeddings", "8K"],
        ["--model.core={preset: tiny, max_position_embeddings: 8K}"],
        ["--model.init_args.core", "{preset: tiny, max_position_embeddings: 8000}"],
    ],
)
def test_a_preset_is_changed_by_options(options):
    core = parse(["fit", f"--config={SHORT}", *options]).model.init_args.core
    assert (core.hidden_size, core.max_position_embeddings) == (256, 8000)
    assert parse(["fit", f"--config={SHORT}", "--model.core", "tiny"]).model.init_args.core == "tiny"


def test_an_exponent_under_a_key_for_counts_and_shares_is_a_count(tmp_path):
    """Whether the parser converts it to int or float depends on the order of imports; Lightning treats both alike."""
    import lightning.pytorch as pl

    (tmp_path / "more.yaml").write_text("{trainer: {limit_val_batches: 1e1}}")
    found = parse(["fit", f"--config={SHORT}", f"--config={tmp_path / 'more.yaml'}"])["trainer.limit_val_batches"]
    taken = pl.Trainer(limit_val_batches=found, accelerator="cpu", logger=False, enable_checkpointing=False)
    assert (taken.limit_val_batches, type(taken.limit_val_batches)) == (10, int)


@pytest.mark.parametrize(
    ("key", "text", "number"),
    [
        ("trainer.max_steps", "1e3", 1000),
        ("trainer.log_every_n_steps", "1.5e+1", 15),
        ("trainer.limit_val_batches", "1.0", 1.0),
        ("model.init_args.micro_batch_tokens", "4e3", 4000),
        ("model.init_args.optimizer.lr", "1e-4", 1e-4),
        ("model.init_args.optimizer.weight_decay", "2e0", 2.0),
        ("data.init_args.num_workers", "2e0", 2),
        ("seed", "1e3", 1000),
    ],
)
def test_an_exponent_is_a_number_of_the_kind_that_is_wanted(tmp_path, key, text, number):
    content = text
    for name in reversed(key.split(".")):
        content = f"{{{name}: {content}}}"
    (tmp_path / "more.yaml").write_text(content)
    found = parse(["fit", f"--config={SHORT}", f"--config={tmp_path / 'more.yaml'}"])[key]
    assert (found, type(found)) == (number, type(number))


@pytest.mark.parametrize("argument", [["--seed", "1e3"], ["--seed=1e3"], ["--trainer.max_steps", "1e3"]])
def test_an_option_with_an_exponent(argument):
    assert parse(["fit", f"--config={SHORT}", *argument])[argument[0].partition("=")[0][2:]] == 1000


def test_a_fraction_is_no_count(tmp_path):
    (tmp_path / "more.yaml").write_text("trainer: {max_steps: 1.5e0}")
    with pytest.raises(ValueError, match=r"max_steps: expected int. Got value: 1.5"):
        parse(["fit", f"--config={SHORT}", f"--config={tmp_path / 'more.yaml'}"])


def test_a_class_that_there_is_not_is_answered_before_the_parser():
    with pytest.raises(
        ValueError, match=r"trainer.callbacks\+ is invalid: there is no class WarmupDecai \(did you mean Warm"
    ):
        expand_arguments(["fit", "--trainer.callbacks+", "WarmupDecai"])
    with pytest.raises(ValueError, match=r"model is invalid: there is no class SFTModul \(did you mean SFTModule\?\)"):
        expanded("model: SFTModul")


def test_arguments_without_short_forms_stay_themselves(tmp_path):
    path = tmp_path / "long.yaml"
    path.write_text(LONG)
    argv = ["fit", "--config", str(path), "--trainer.max_steps", "3", "--print_config", "--trainer.logger", "false"]
    assert expand_arguments(argv) == argv


def test_a_later_config_says_what_it_changes_only():
    _, over = expanded(SHORT, "data: {sources: {web: corpus/*.jsonl}, epochs: 2}")
    assert over["data"] == {
        "init_args": {
            "sources": {
                "web": {"class_path": "nbg_lightning.data.ChatJsonLines", "init_args": {"path": "corpus/*.jsonl"}}
            },
            "epochs": 2,
        }
    }
    assert expanded("data: {sources: a.jsonl}", SHORT)[0]["data"]["init_args"]["sources"]["a"]["class_path"].endswith(
        "ChatJsonLines"
    )


@pytest.mark.parametrize(
    ("model", "data"),
    [
        ("PretrainModule", "CurriculumDataModule"),
        ("SFTModule", "ChatDataModule"),
        ("DPDModule", "PreferenceDataModule"),
        ("GRPOModule", "PromptDataModule"),
    ],
)
def test_what_only_one_class_fits_needs_no_name(model, data):
    (one,) = expanded(f"model: {model}\ndata: {{sources: {{}}}}")
    assert one["data"]["class_path"] == f"nbg_lightning.{data}"
    (other,) = expanded(f"model: {{core: nano}}\ndata: {{{data}: {{sources: {{}}}}}}")
    assert other["model"] == {"class_path": f"nbg_lightning.{model}", "init_args": {"core": "nano"}}


def test_data_without_a_model_are_left_to_the_config_that_names_it():
    (config,) = expanded("data: {sources: a.jsonl, epochs: 2}")
    assert config == {"data": {"init_args": {"sources": "a.jsonl", "epochs": 2}}}


def test_a_suite_needs_no_class():
    (config,) = expanded("model: {base_weights: runs/a}\ndata: {suite: {benchmarks: [Questions: {path: q.jsonl}]}}")
    assert config["model"]["class_path"] == "nbg_lightning.PretrainModule"
    assert config["data"]["class_path"] == "nbg_lightning.BenchmarkDataModule"
    assert config["data"]["init_args"]["suite"]["benchmarks"][0]["class_path"] == "nbg_lightning.evaluation.Questions"


def test_the_class_that_an_option_names_decides():
    (config,) = expand_configs([{"data": {"sources": "a.jsonl"}}], Classes(model="nbg_lightning.DPDModule"))
    assert config["data"]["init_args"]["sources"]["a"]["class_path"] == "nbg_lightning.data.PairJsonLines"


def test_files_that_ship_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (config,) = expanded("data: {suite: {benchmarks: [Questions: {path: configs/benchmark/questions.jsonl}]}}")
    found = config["data"]["init_args"]["suite"]["benchmarks"][0]["init_args"]["path"]
    assert Path(found).is_absolute() and Path(found).is_file()


def test_a_guess_is_said():
    said = []
    config = yaml.safe_load("data: {ChatDataModule: {sources: {chats: my/chats.jsonl}}}")
    expand_configs([config, config], say=said.append)
    assert said == ["source chats: my/chats.jsonl is read as JSON lines (ChatJsonLines)"]


def test_a_text_that_looks_like_a_number_stays_a_text():
    content = {"name": "1e-4", "other": "5", "yes": "true", "number": 1e-4, "half": 0.5}
    assert parse_yaml(yaml_text(content), "test") == content


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("model: ServedModel\ndata: {sources: a.jsonl}", "nbg_lightning.ServedModel trains on data of any kind"),
        ("model: {SFTModule: {core: {preset: nan}}}", "model.core.preset is invalid: nan (did you mean nano?)"),
        ("model: SFTModule\ndata: {sources: {a: no-such-thing}}", "data.sources.a: no-such-thing is invalid"),
        ("model: SFTModule\ndata: {sources: [x/a.jsonl, y/a.jsonl]}", "two are called a"),
    ],
)
def test_what_is_unclear_is_answered_in_one_line(config, said):
    with pytest.raises(ValueError, match=rf"^.*{re.escape(said)}.*$") as error:
        expanded(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "added"),
    [
        (["--model=PretrainModule", "--data.sequence_length=64"], ["--data=nbg_lightning.CurriculumDataModule"]),
        (["--data", "ChatDataModule", "--model.core", "nano"], ["--model=nbg_lightning.SFTModule"]),
        (["--model=PretrainModule", "--data=CurriculumDataModule", "--data.seed=1"], []),
        (["--config", "model: SFTModule\n", "--data.init_args.epochs=1"], ["--data=nbg_lightning.ChatDataModule"]),
        (["--config", "data: ChatDataModule\n", "--data.epochs=1"], []),
        (["--model=PretrainModule", "--config", "trainer: {}\n"], []),
        (["--model.core=nano", "--data.sequence_length=64"], []),
    ],
)
def test_options_alone_get_the_classes_that_fit(options, added):
    assert expand_arguments(["fit", *options])[1 : 1 + len(added)] == added
    classes = [each for each in expand_arguments(["fit", *options]) if each.startswith(("--model=", "--data="))]
    assert len(classes) == len(added) + sum(
        each.startswith(("--model", "--data")) and "." not in each for each in options
    )


def test_an_option_names_an_object_by_its_short_name():
    found = expand_arguments(
        ["fit", "--model", "GRPOModule", "--model.reward", "ModelReward", "--model.reward.weights", "run"]
    )
    assert "--model.reward=nbg_lightning.rewards.ModelReward" in found
    own = expand_arguments(["fit", "--model", "GRPOModule", "--model.reward=my_rewards.Mine", "--model.engine", "null"])
    assert {"--model.reward=my_rewards.Mine", "--model.engine=null"} <= set(own)
    with pytest.raises(ValueError, match=r"there is no class ModelRewrd .did you mean ModelReward"):
        expand_arguments(["fit", "--model", "GRPOModule", "--model.reward", "ModelRewrd"])
