"""Errors found before torch is imported, none of which the parser would accept."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nbg_lightning.commands.precheck import NO_MODEL, TOP, check, check_builder
from nbg_lightning.commands.table import OWN_COMMANDS
from nbg_lightning.construction.former_names import SETTINGS
from nbg_lightning.trainer_options import LAUNCHER_VARIABLES

ROOT = Path(__file__).parents[3]
RUNS = sorted(
    path
    for room in ("pretrain", "sft", "dpd", "grpo", "benchmark")
    for path in (ROOT / "configs" / room).glob("*.yaml")
)


QUICKSTART = ["fit", "--config", str(ROOT / "configs/pretrain/quickstart.yaml")]

# -- what is accepted ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RUNS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_shipped_configs(path):
    for overlay in (
        [],
        ["--config", str(ROOT / "configs/model/tiny.yaml"), "--config", str(ROOT / "configs/trainer/cpu.yaml")],
    ):
        base = [] if "model" in yaml.safe_load(path.read_text()) else QUICKSTART[1:]  # it is laid over another
        check(["validate", *base, "--config", str(path), *overlay])


def nested(flat):
    """A config of dotted keys; numbers in them are places in lists."""
    tree = {}
    for key, value in flat.items():
        *parents, last = key.split(".")
        node = tree
        for each in parents:
            node = node.setdefault(each, {})
        node[last] = value
    return with_lists(tree)


def with_lists(node):
    if not isinstance(node, dict):
        return node
    if node and all(key.isdigit() for key in node):
        return [with_lists(value) for value in node.values()]
    return {key: with_lists(value) for key, value in node.items()}


def test_resolved_configs(tmp_path):
    """What a run keeps as its config.yaml, with every default."""
    resolved = json.loads((ROOT / "tests/golden/resolved_configs.json").read_text())
    runs = {name: nested(flat) for name, flat in resolved.items() if "model.class_path" in flat}
    assert len(runs) > 20
    for config in runs.values():
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        check(["validate", "--config", str(tmp_path / "config.yaml")])


def test_configs_of_the_pages(tmp_path):
    """They may name modules that a page writes, but nothing else that is not there."""
    blocks = [
        block
        for page in sorted((ROOT / "docs").glob("*.md"))
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    configs = [yaml.safe_load(block) for block in blocks]
    runs = [each for each in configs if isinstance(each, dict) and each.keys() & {"model", "data", "trainer"}]
    assert len(runs) > 15
    refused = []
    for config in runs:
        (tmp_path / "page.yaml").write_text(yaml.safe_dump(config))
        try:
            check(["validate", "--config", str(tmp_path / "page.yaml")])
        except ValueError as error:
            refused.append(str(error))
    overlays = [line for line in refused if line == NO_MODEL]
    assert len(overlays) < len(runs) - 15
    assert [line for line in refused if "No module named 'my_" not in line and line != NO_MODEL] == []


@pytest.mark.filterwarnings("ignore:LightningCLI's args")
def test_options_without_a_dot_are_those_of_the_parser():
    from nbg_lightning.commands.trainer import _CLI_OPTIONS, _ParsingCLI

    for command in ("fit", "validate", "test", "predict"):
        arguments = [command, "--config", str(ROOT / "configs/pretrain/quickstart.yaml")]
        parser = _ParsingCLI(**_CLI_OPTIONS, args=arguments)._subcommand_parsers[command]
        options = {each for action in parser._actions for each in action.option_strings if each.startswith("--")}
        tops = {each.removeprefix("--").partition(".")[0] for each in options}
        assert tops <= {*TOP, "config", "help", "print_config"}, command


ACCEPTED = [
    ["--trainer.max_steps", "3", "--seed=1", "--model.init_args.optimizer.lr", "1e-4"],
    ["--model.optimizer.lr=1e-4", "--data.num_workers", "0", "--model.core", "tiny"],
    ["--trainer.callbacks+", "nbg_lightning.StepCheckpoint", "--trainer.callbacks.every_n_steps", "10"],
    ["--trainer.callbacks+=nbg_lightning.StepCheckpoint", "--print_config"],
    ["--model.init_args.core.hidden_size", "64"],
    ["--model.help", "nbg_lightning.GRPOModule"],
    ["--help"],
    ["--print_config=skip_default"],
    ["--trainer.logger", "false", "--trainer.accumulate_grad_batches", "1"],
    ["--config", "model: {init_args: {core: tiny}}\n"],
    ["--config", "trainer: {logger: {init_args: {save_dir: runs/a}}}\n"],
    ["--data", "unittest.mock.Mock"],
    ["--model.init_args.base_weights", "owner/name"],
    ["--model.base_weights", "docs/last"],
    ["--model", "nbg_lightning.modules.PretrainModule"],
    ["--model.init_args", "{core: tiny}"],
    ["--ckpt_path", "last"],
    ["--model.init_args.parallel.replicate", "2"],
    ["--model.parallel.replicate=nodes", "--model.parallel.compile", "true"],
    ["--model.parallel.compile=auto"],
]


@pytest.mark.parametrize("options", ACCEPTED, ids=lambda options: options[0])
def test_accepted(options, monkeypatch):
    monkeypatch.chdir(ROOT)
    check([*QUICKSTART, *options])


def test_former_keys_of_grpo_are_read(tmp_path):
    config = {
        "model": {"class_path": "nbg_lightning.GRPOModule", "init_args": {"clip_low": 0.1, "kl_coefficient": 0.0}}
    }
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(config))
    check(["validate", "--config", str(tmp_path / "old.yaml")])


def test_another_class_drops_what_it_does_not_have(tmp_path):
    config = {"model": {"class_path": "nbg_lightning.SFTModule"}}
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump(config))
    grpo = ["--config", str(ROOT / "configs/grpo/tiny.yaml"), "--config", str(tmp_path / "sft.yaml")]
    check(["validate", *grpo, "--data", "nbg_lightning.ChatDataModule"])


def builder(command):
    return f"nbg_lightning.construction.{OWN_COMMANDS[command][0].partition(':')[2]}"


def test_shipped_configs_of_builders():
    checked = 0
    for path in sorted((ROOT / "configs" / "construction").glob("*.yaml")):
        if (
            found := re.search(r"nbg (build-\w+) --config configs/construction/" + path.name, path.read_text())
        ) is not None:
            check_builder(builder(found[1]), ["--config", str(path)], SETTINGS)
            checked += 1
    assert checked >= 8


def test_options_of_builders():
    check_builder(builder("build-recall"), ["--query-terms", "9", "--out=x", "--writers", "{}"], SETTINGS)
    with pytest.raises(
        ValueError, match=r"build-recall: Option 'query_tems' is not accepted \(did you mean query_terms\?\)"
    ):
        check_builder(builder("build-recall"), ["--query-tems", "9"], SETTINGS)


def test_arguments_alone_are_laid_over_the_class_of_another_config(tmp_path):
    changes = {"student": {"engine": {"init_args": {"weights": "runs/a/checkpoints/step-00000001"}}}}
    (tmp_path / "changes.yaml").write_text(yaml.safe_dump(changes))
    configs = [str(ROOT / "configs" / "construction" / "pairs-sums.yaml"), str(tmp_path / "changes.yaml")]
    check_builder(builder("build-pairs"), [part for each in configs for part in ("--config", each)], SETTINGS)


WRONG = {  # builder, config, a setting by its path, a value of another shape; part of the one line
    "no arguments": (
        "build-answers",
        "answers-tiny",
        ("model", "engine", "init_args"),
        None,
        "engine.init_args is invalid: null; write each argument as NAME: VALUE, or leave init_args out",
    ),
    "arguments in a list": (
        "build-pairs",
        "pairs-sums",
        ("questions", "sums"),
        {"init_args": [1]},
        "questions.init_args is invalid: [1]; write each argument as NAME: VALUE",
    ),
    "a number for a name": (
        "build-pairs",
        "pairs-tiny",
        ("reward",),
        {1: 2},
        "reward is invalid: its key 1 is no text",
    ),
    "a class for a model": (
        "build-answers",
        "answers-tiny",
        ("model",),
        {"class_path": "wrd"},
        "model is invalid: class_path wrd; expected keys such as engine, tokenizer, template",
    ),
    "a word for a reward": (
        "build-answers",
        "answers-tiny",
        ("reward",),
        "wrd",
        "reward is invalid: wrd; expected a class",
    ),
    "no engine": (
        "build-chains",
        "chains",
        ("models", "teacher", "engine"),
        "",
        "engine is invalid: ''; expected a class with class_path and init_args",
    ),
    "nothing for a number": (
        "build-chains",
        "chains",
        ("items_per_batch",),
        "",
        "items_per_batch is invalid: ''; expected int",
    ),
    "true for a number": ("build-chains", "chains", ("items_per_batch",), True, "is invalid: true; expected int"),
    "true for a text": ("build-problems", "problems", ("tester",), True, "tester is invalid: true; expected str"),
    "no number for yes or no": (
        "build-reasoning",
        "reasoning-tiny",
        ("check_solution",),
        float("nan"),
        "check_solution is invalid: nan; expected bool",
    ),
    "no path": ("build-corpus", "corpus", ("sources",), "", "path is invalid: ''; give a file, a folder, a pattern"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_builder_refuses_values_of_another_shape(case, tmp_path):
    command, config, place, value, said = WRONG[case]
    settings = node = yaml.safe_load((ROOT / "configs" / "construction" / f"{config}.yaml").read_text())
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(ValueError, match=re.escape(said)) as refused:
        check_builder(builder(command), ["--config", str(tmp_path / "wrong.yaml")], SETTINGS)
    assert "\n" not in str(refused.value)


# -- what is refused -------------------------------------------------------------------------------------------------------


def lines(**arguments):
    source = {"class_path": "nbg_lightning.data.JsonLines", "init_args": arguments}
    return {"data": {"init_args": {"sources": {"web": source}}}}


CHAT = {"class_path": "nbg_lightning.ChatDataModule"}
MISTAKES = {  # options to the quickstart, or a config in its place; parts of the one line
    "a config": ("configs/pretrain/quickstrt.yaml", "did you mean configs/pretrain/quickstart.yaml?"),
    "no config": (None, "there is no model; give --config FILE"),
    "an option": (["--sed", "3"], "unrecognized arguments: --sed 3 (did you mean --seed?)"),
    "an option of the trainer": (["--trainer.max_step=3"], "--trainer.max_step (did you mean max_steps?)"),
    "an option of the model": (
        ["--model.max_gradnorm", "3"],
        "'max_gradnorm' is not accepted (did you mean max_grad_norm?)",
    ),
    "a nested option": (["--model.init_args.optimizer.leer", "3"], "optimizer: Option 'leer' is not accepted"),
    "a number or a text": (
        ["--model.parallel.replicate", "node"],
        "replicate: expected Literal['nodes']; given value: node",
    ),
    "a switch or a text": (
        ["--model.parallel.compile", "autoo"],
        "compile: expected Literal['auto']; given value: autoo",
    ),
    "a preset": (["--model.core", "nanoo"], "core: expected Literal['nanbeige4-3b',"),
    "a class": (["--model", "nbg_lightning.PretrainModul"], "did you mean PretrainModule?"),
    "a module": (["--data", "nowhere.Data"], "data: nowhere.Data: No module named 'nowhere'"),
    "a key": ({"modle": {"core": "nano"}}, "option 'modle.core' (did you mean model?)"),
    "a key of the trainer": ({"trainer": {"max_step": 3}}, "option 'trainer.max_step' (did you mean max_steps?)"),
    "a stage's key": (
        {
            "trainer": {
                "callbacks": [{"class_path": "nbg_lightning.FGWSD", "init_args": {"tokens_per_stp": 1, "stages": []}}]
            }
        },
        "trainer.callbacks: nbg_lightning.FGWSD: Option 'tokens_per_stp' is not accepted (did you mean tokens_per_step?)",
    ),
    "a null": (
        {"data": {"class_path": "nbg_lightning.CurriculumDataModule", "init_args": {"data_dir": None}}},
        "data: nbg_lightning.CurriculumDataModule: data_dir is invalid: null; give a value, or leave it out for the default",
    ),
    "a callback": (
        {"trainer": {"callbacks": [{"class_path": "nbg_lightning.callbacks.Sentinl"}]}},
        "trainer.callbacks: nbg_lightning.callbacks.Sentinl: module 'nbg_lightning.callbacks' has no attribute 'Sentinl' "
        "(did you mean Sentinel?)",
    ),
    "the datamodule": (
        {"data": CHAT},
        "PretrainModule works on documents, and ChatDataModule gives conversations: use CurriculumDataModule with it, or ",
    ),
    "data": (lines(path="my/texs.jsonl"), "'my/texs.jsonl' does not exist; check the path"),
    "a column": (lines(path="my/texts.jsonl", text_field="txt"), "set text_field to one of them (did you mean text?)"),
    "weights": (["--model.base_weights", "./weigts"], "./weigts; there is no such folder (did you mean weights?)"),
    "weights of a shipped config": (
        ["--model.base_weights", "runs/sft-arithmetic/checkpoints/step-00001074"],
        "there is no such folder; make it with nbg fit --config configs/sft/arithmetic.yaml, or give a Hugging Face folder",
    ),
    "a tokenizer": (["--data.tokenizer", "./tokeniser"], "tokenizer is invalid: ./tokeniser; there is no such folder"),
    "a folder without weights": (
        ["--model.base_weights", "my"],
        "base_weights is invalid: my; the folder has no weights",
    ),
    "a checkpoint": (["--ckpt_path", "runs/a/checkpoints/step-1"], "no checkpoint at runs/a/checkpoints/step-1"),
    "a step": (
        ["--ckpt_path", "runs/b/checkpoints/step-00000015"],
        "step-00000015 (did you mean runs/b/checkpoints/step-00000010?); there are step-00000010, step-00000020; give a folder",
    ),
    "clipping": (["--trainer.gradient_clip_val", "1"], "set model.init_args.max_grad_norm"),
    "accumulation": ({"trainer": {"accumulate_grad_batches": 8}}, "set model.init_args.micro_batch_tokens"),
    "precision": (["--trainer.precision", "bf16-mixed"], "compute_dtype to bfloat16"),
    "strategy": (["--trainer.strategy=ddp"], "FSDP2Strategy shards over all devices"),
    "epochs": (["--trainer.max_epochs", "3"], "raise their tokens or steps"),
    "nodes": (["--trainer.num_nodes", "2"], "run the command by torchrun or Slurm"),
    "a source by its path": (
        {"model": "PretrainModule", "data": {"sources": {"web": "my/texs.jsonl"}}},
        "my/texs.jsonl",
    ),
    "a short class": ({"trainer": {"callbacks": ["Sentinl"]}}, "there is no class Sentinl (did you mean Sentinel?)"),
    "a config without --config": ("", "give a config as: nbg fit --config"),
    "YAML": ("broken.yaml", "broken.yaml is not YAML"),
    "a tab": ("tab.yaml", "cannot start any token in line 2, column 1: PretrainModule: {core: nano}; indent by spaces"),
    "a key twice": ("twice.yaml", "twice.yaml is not YAML: the key model stands twice"),
    "an empty config": ("empty.yaml", "--config is invalid: empty.yaml; it holds nothing"),
    "a list for a config": ("list.yaml", "--config is invalid: list.yaml; it holds a list"),
    "not text": ("binary.yaml", "binary.yaml is not YAML: it is not UTF-8"),
    "a folder for a config": ("./my", "./my is a folder; give a YAML file in it"),
    "an overlay alone": ("overlay.yaml", "there is no model; give --config FILE"),
    "one dash": (["-seed", "3"], "unrecognized arguments: -seed (did you mean --seed?)"),
    "a second config without --config": (["--seed", "3", "b.yaml"], "give a config as: nbg fit --config b.yaml"),
    "no file behind --config": (["--config"], "--config is invalid: no file is given"),
    "an option of the trainer alone": (["--max_steps", "3"], "(did you mean --trainer.max_steps?)"),
    "an option of the module alone": (["--base_weights", "x"], "(did you mean --model.base_weights?)"),
    "an option of the optimizer alone": (["--lr", "3"], "(did you mean --model.optimizer.lr?)"),
    "a word for a number": (["--trainer.max_steps", "three"], "trainer.max_steps is invalid: three; expected int"),
    "a word for a number in a config": ({"trainer": {"max_steps": "three"}}, "trainer.max_steps is invalid: three"),
    "a word for a fraction": (["--model.max_grad_norm", "big"], "max_grad_norm is invalid: big; expected float"),
    "a word for yes or no": (["--trainer.enable_progress_bar", "maybe"], "is invalid: maybe; expected bool"),
    "a seed": (["--seed", "abc"], "seed is invalid: abc; expected int"),
    "data by an option": (["--data.sources", "my/texs.jsonl"], "'my/texs.jsonl' does not exist; check the path"),
    "an empty file": (lines(path="my/nothing.jsonl"), "path is invalid: my/nothing.jsonl; it has no document"),
    "a folder without files": (
        ["--data.sources", "weights"],
        "weights is invalid: the folder has no file that ends in",
    ),
    "a checkpoint's name": (["--ckpt_path", "rumns"], "no checkpoint at rumns (did you mean runs?)"),
}


def stages(*entries):
    arguments = {"tokens_per_step": 8192, "sequence_length": 256, "stages": list(entries)}
    return {"trainer": {"callbacks": [{"class_path": "nbg_lightning.FGWSD", "init_args": arguments}]}}


def model(**arguments):
    return {"model": {"class_path": "PretrainModule", "init_args": arguments}}


def sources(value):
    return {"data": {"class_path": "CurriculumDataModule", "init_args": {"sources": value}}}


def stage(**settings):
    return stages({"name": "a", "tokens": 8192, "lr": 1e-3, "mixture": {"docstrings": 1}, **settings})


CLASS = "write the name of a class, such as "
MISTAKES |= {  # values of another shape
    "a number for a stage": (stages(5), "FGWSD: stages[0] is invalid: 5; expected keys such as name, tokens, lr"),
    "nothing for a stage": (stages(None), "stages[0] is invalid: null; expected keys such as name"),
    "a list for a stage": (stages([1]), "stages[0] is invalid: [1]; expected keys such as name"),
    "a list for a mixture": (stage(mixture=["docstrings"]), "mixture is invalid: ['docstrings']; expected NAME: VALUE"),
    "a mapping for a rate": (stage(lr={"a": 1}), "lr is invalid: {'a': 1}; expected float or a list"),
    "a list for tokens": (stage(tokens=[1]), "tokens is invalid: [1]; expected int or float or str"),
    "nothing for a callback": ({"trainer": {"callbacks": [None]}}, f"trainer.callbacks is invalid: null; {CLASS}"),
    "a number for a callback": ({"trainer": {"callbacks": [5]}}, f"trainer.callbacks is invalid: 5; {CLASS}"),
    "a number for callbacks": ({"trainer": {"callbacks": 5}}, f"trainer.callbacks is invalid: 5; {CLASS}"),
    "a callback without a class": ({"trainer": {"callbacks": [{}]}}, "trainer.callbacks is invalid: {}; "),
    "arguments of no callback": (
        {"trainer": {"callbacks": [{"init_args": {}}]}},
        "trainer.callbacks is invalid: {'init_args': {}}; ",
    ),
    "nothing for a class": ({"model": {"class_path": None}}, "model.class_path is invalid: null; write the name"),
    "a number for a class": ({"data": {"class_path": 5}}, "data.class_path is invalid: 5; write the name of a class"),
    "an empty class": ({"model": {"class_path": ""}}, "model.class_path is invalid: ''; write the name"),
    "a list of arguments": (
        {"model": {"class_path": "PretrainModule", "init_args": [1]}},
        "model.init_args is invalid: [1]; write each argument as NAME: VALUE",
    ),
    "a number for the model": ({"model": 5}, f"model is invalid: 5; {CLASS}"),
    "a list for the data": ({"data": [1]}, f"data is invalid: [1]; {CLASS}"),
    "true for the model": ({"model": True}, f"model is invalid: true; {CLASS}"),
    "a number for the trainer": ({"trainer": 5}, "trainer is invalid: 5; write its options as NAME: VALUE"),
    "a number for a source": (sources({"a": 5}), "sources.a is invalid: 5; expected a class with class_path"),
    "nothing for a source": (sources({"a": None}), "sources.a is invalid: null; expected a class"),
    "an empty source": (sources({"a": {}}), "is invalid: {}; expected a class with class_path and init_args"),
    "a list of sources": (sources([5]), "sources is invalid: [5]; expected NAME: VALUE"),
    "a source's class": (sources({"a": {"class_path": 5}}), "class_path is invalid: 5; write the name of a class"),
    "a number for the optimizer": (model(optimizer=5), "optimizer is invalid: 5; expected keys such as"),
    "a word for the optimizer": (model(optimizer="adam"), "optimizer is invalid: adam; expected keys such as"),
    "a list for the network": (model(core=[1]), "core is invalid: [1]; expected one of nanbeige4-3b"),
    "a mapping for a number": (model(micro_batch_tokens={"a": 1}), "micro_batch_tokens is invalid: {'a': 1}; expected"),
    "a list for a path": (model(base_weights=["x"]), "base_weights is invalid: ['x']; expected str"),
    "half a worker": ({"data": {"init_args": {"num_workers": 1.5}}}, "num_workers is invalid: 1.5; expected int"),
    "a list of steps": ({"trainer": {"max_steps": [3]}}, "trainer.max_steps is invalid: [3]; expected int"),
    "half a step": ({"trainer": {"max_steps": 2.5}}, "trainer.max_steps is invalid: 2.5; expected int"),
    "a number for a logger": ({"trainer": {"logger": [5]}}, f"trainer.logger is invalid: 5; {CLASS}"),
    "a list of seeds": ({"seed": [1]}, "seed is invalid: [1]; expected int"),
    "a word for callbacks": (
        {"trainer": {"callbacks": "x"}},
        "trainer.callbacks is invalid: x; write a list of classes",
    ),
    "a word for stages": (
        {"trainer": {"callbacks": [{"class_path": "nbg_lightning.FGWSD", "init_args": {"stages": "abc"}}]}},
        "stages is invalid: abc; expected a list",
    ),
    "a number for a folder": (
        {"trainer": {"default_root_dir": 5}},
        "trainer.default_root_dir is invalid: 5; expected str",
    ),
    "arguments beside arguments": (
        {"model": {"core": "nano", "init_args": 5}},
        "model.init_args is invalid: 5; write each argument as NAME: VALUE",
    ),
    "a number for an argument": ({"model": {1: 2}}, "model.init_args is invalid: its key 1 is no text; write a name"),
    "a number for an option": ({"trainer": {1: 2}}, "trainer is invalid: its key 1 is no text; write a name"),
    "a number for a key": ({3: 4}, "key is invalid: 3; write keys such as model, data and trainer"),
    "a number for an argument's key": (model(optimizer={1: 2}), "optimizer is invalid: its key 1 is no text"),
    "a number for a source's name": (
        sources({1: {"class_path": "JsonLines"}}),
        "sources is invalid: its key 1 is no text; write a name",
    ),
    "no arguments": (
        {"model": {"class_path": "PretrainModule", "init_args": None}},
        "model.init_args is invalid: null; write each argument as NAME: VALUE, or leave init_args out",
    ),
    "no arguments of a source": (
        sources({"a": {"class_path": "JsonLines", "init_args": None}}),
        "sources.init_args is invalid: null; write each argument as NAME: VALUE, or leave init_args out",
    ),
    "a list of a source's arguments": (sources({"a": {"init_args": [1]}}), "sources.init_args is invalid: [1]; write"),
    "a class in place of keys": (
        model(optimizer={"class_path": "Adam", "init_args": {}}),
        "optimizer is invalid: class_path Adam; expected keys such as lr, betas, eps",
    ),
    "a class that there is not": (
        sources({"a": {"class_path": "JsonLine", "init_args": {"path": "x"}}}),
        "there is no class JsonLine (did you mean JsonLines?)",
    ),
    "a word for a class": (sources({"a": {"class_path": "web"}}), "there is no class web; name one of your own"),
    "nothing for a number": (model(micro_batch_tokens=""), "micro_batch_tokens is invalid: ''; expected int"),
    "a list in a pair": (model(optimizer={"betas": [[1], 2]}), "betas[0] is invalid: [1]; expected float"),
    "true for a rate": (model(optimizer={"lr": True}), "lr is invalid: true; expected float"),
    "a number for yes or no": ({"trainer": {"enable_progress_bar": 5}}, "is invalid: 5; expected bool"),
    "nothing for a path": (sources(""), "path is invalid: ''; give a file, a folder, a pattern"),
    "a number for a checkpoint": ({"ckpt_path": 5}, "ckpt_path is invalid: 5; give a checkpoint's folder, or last"),
}
ELSEWHERE = {  # commands of the library's own; parts of the one line
    "a command": (["fti"], "no command 'fti' (did you mean fit?)"),
    "an option in place of a command": (["--hlep"], "no command '--hlep' (did you mean --help?)"),
    "a builder": (["build-paris"], "(did you mean build-pairs?)"),
    "a job": (["init", "sfft"], "job is invalid: sfft (did you mean sft?)"),
    "a file for a folder": (["init", "sft", "broken.yaml"], "folder is invalid: broken.yaml; it is a file"),
    "a model to talk to": (
        ["chat", "rumns"],
        "rumns does not exist (did you mean runs?); give a folder, or a hub name",
    ),
    "a folder without a model": (["chat", "my"], "model is invalid: my; the folder has no weights"),
    "a model to ask": (["generate", "rumns", "hi"], "rumns does not exist (did you mean runs?)"),
    "a checkpoint to export": (["export", "rumns", "out"], "rumns does not exist (did you mean runs?)"),
    "a folder to import": (["import", "rumns", "out"], "rumns does not exist (did you mean runs?)"),
    "runs": (["runs", "rumns"], "folder is invalid: rumns; there is no such folder"),
    "a page": (["view", "rumns"], "rumns does not exist; give a run's folder"),
    "a plan": (["plan", "brokn.yaml"], "there is no config brokn.yaml (did you mean broken.yaml?)"),
    "a schedule": (["schedule", "brokn.yaml"], "there is no config brokn.yaml (did you mean broken.yaml?)"),
    "a pass rate": (["pass-rate", "brokn.yaml"], "there is no config brokn.yaml (did you mean broken.yaml?)"),
    "a preview": (["data", "preview", "brokn.yaml"], "there is no config brokn.yaml (did you mean broken.yaml?)"),
    "a step's changes": (["recipe", "recipe.yaml", "--dry-run"], "step 'train': model is invalid: -1; write the name"),
    "a recipe": (["recipe", "brokn.yaml"], "there is no config brokn.yaml (did you mean broken.yaml?)"),
    "a schema": (["schema", "build-pair"], "command is invalid: build-pair (did you mean build-pairs?)"),
    "a result": (["compare", "my", "my"], "my is not a benchmark result"),
    "a shell": (["completion", "fish"], "invalid choice: 'fish'"),
}

READERS = {  # commands that read a config of a training for something else
    "plan": ["plan"],
    "prepare": ["prepare"],
    "schedule": ["schedule"],
    "view": ["view"],
    "pass-rate": ["pass-rate"],
    "preview": ["data", "preview"],
    "cache": ["build-cache", "--config"],
}
SHAPES = {  # file, content, part of the one line
    "list": ("- model\n", "it holds a list"),
    "nothing": ("# all of it is commented out\n", "it holds nothing"),
    "tab": ("model:\n\tPretrainModule: {}\n", "indent by spaces"),
    "twice": ("model: PretrainModule\nmodel: SFTModule\n", "the key model stands twice"),
    "number": ("model: 5\n", "model is invalid: 5"),
    "key": ("modle: 5\n", "option 'modle' (did you mean model?)"),
    "numbered": ("1: 2\n", "key is invalid: 1"),
    "callbacks": ("trainer: {callbacks: x}\n", "trainer.callbacks is invalid: x"),
    "folder": ("trainer: {default_root_dir: 5}\n", "trainer.default_root_dir is invalid: 5; expected str"),
    "flat": ("model: {core: nano, init_args: 5}\n", "model.init_args is invalid: 5"),
    "deep": (
        "data: {class_path: ChatDataModule, init_args: {sources: {a: {class_path: ChatJsonLines, init_args: {pth: x}}}}}\n",
        "'pth' is not accepted (did you mean path?)",
    ),
}
ELSEWHERE |= {
    f"{reader} of a config with {shape}": ([*arguments, f"shape-{shape}.yaml"], part)
    for reader, arguments in READERS.items()
    for shape, (_, part) in SHAPES.items()
}


def command(mistake, folder):
    quickstart = ["fit", "--config", "configs/pretrain/quickstart.yaml"]
    if mistake is None:
        return ["fit"]
    if mistake == "":
        return ["fit", "configs/pretrain/quickstart.yaml"]
    if isinstance(mistake, str):
        return ["fit", "--config", mistake]
    if isinstance(mistake, list):
        return [*quickstart, *mistake]
    path = folder / f"mistake-{len(list(folder.iterdir()))}.yaml"
    path.write_text(yaml.safe_dump(mistake))
    return [*quickstart, "--config", path.name]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Exit code, text, and the heavy modules that each mistake has led to: through the command line, all in one process."""
    folder = tmp_path_factory.mktemp("mistakes")
    for name in ("my", "weights", "runs/b/checkpoints/step-00000010", "runs/b/checkpoints/step-00000020"):
        (folder / name).mkdir(parents=True)
    texts = {
        "my/texts.jsonl": '{"text": "words"}\n',
        "my/nothing.jsonl": "",
        "broken.yaml": "model: [\n",
        "tab.yaml": "model:\n\tPretrainModule: {core: nano}\n",
        "twice.yaml": "model: PretrainModule\nmodel: SFTModule\n",
        "empty.yaml": "# all of it is commented out\n",
        "list.yaml": "- model\n",
        "overlay.yaml": "trainer: {max_steps: 3}\n",
        "recipe.yaml": (
            "name: mine\nfolder: here\nsteps:\n  train:\n    command: fit\n"
            "    config: configs/pretrain/quickstart.yaml\n    changes: {model: -1}\n"
        ),
    }
    texts |= {f"shape-{shape}.yaml": content for shape, (content, _) in SHAPES.items()}
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    commands = {name: command(mistake, folder) for name, (mistake, _) in MISTAKES.items()}
    commands |= {name: arguments for name, (arguments, _) in ELSEWHERE.items()}
    code = (
        "import contextlib, io, json, sys\n"
        "from nbg_lightning.cli import main\n"
        "answers = {}\n"
        "for name, arguments in json.load(sys.stdin).items():\n"
        "    with contextlib.redirect_stderr(io.StringIO()) as text:\n"
        "        code = main(arguments)\n"
        "    answers[name] = [code, text.getvalue(), [m for m in ('torch', 'lightning', 'transformers') if m in sys.modules]]\n"
        "print(json.dumps(answers))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=300,
        # The address is what an earlier training in this process may have left: it starts no other node.
        env={name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
        | {"MASTER_ADDR": "127.0.0.1"},
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("name", [*MISTAKES, *ELSEWHERE])
def test_a_mistake_is_answered_in_one_line_before_torch_is_imported(name, answers):
    exit_code, text, heavy = answers[name]
    assert exit_code == 2 and heavy == [], (text, heavy)
    start = "nbg" if name in ELSEWHERE else "nbg fit: error: "
    assert text.startswith(start) and ": error: " in text and text.count("\n") == 1 and len(text) < 700
    assert (MISTAKES | ELSEWHERE)[name][1] in text


ODD = {
    "classes that are no paths": "model: {class_path: ...}\ndata: {class_path: a b.c}\ntrainer: {logger: {class_path: /x.y}}\n",
}


@pytest.mark.parametrize("case", ODD)
def test_what_is_not_understood_is_left_to_the_parser(case, tmp_path):
    (tmp_path / "odd.yaml").write_text(ODD[case])
    check(["fit", "--config", str(tmp_path / "odd.yaml")])


def test_a_person_is_told_at_once_what_is_read(capsys, monkeypatch):
    from nbg_lightning.cli import _say_what_is_read

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    _say_what_is_read(["fit", "--config", "a.yaml", "--config=b.yaml"])
    assert capsys.readouterr().err == "nbg fit: reading a.yaml, b.yaml\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)  # a log needs no such line
    _say_what_is_read(["fit", "--config", "a.yaml"])
    assert capsys.readouterr().err == ""
