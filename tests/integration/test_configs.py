"""Every shipped YAML file parses and documents its purpose and launch command, and the small ones run."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml

CONFIGS = Path(__file__).parents[2] / "configs"
BUILDERS = sorted(CONFIGS.glob("construction/*.yaml"))  # of nbg build-...: no model, no trainer
RECIPES = sorted(CONFIGS.glob("recipe/*.yaml"))  # of nbg recipe: steps
ALL = sorted(path for path in CONFIGS.rglob("*.yaml") if path not in BUILDERS + RECIPES)
GOLDEN = Path(__file__).parents[1] / "golden"
MEANINGS = json.loads((GOLDEN / "resolved_configs.json").read_text())
QUICKSTART = CONFIGS / "pretrain" / "quickstart.yaml"
ON = {  # what is no task by itself is merged onto one
    "model": QUICKSTART,
    "trainer": QUICKSTART,
    "engine": CONFIGS / "benchmark" / "small.yaml",
    "wsd-baseline": QUICKSTART,
    "wsm": QUICKSTART,
    "token_only": CONFIGS / "dpd" / "tiny.yaml",
    "dpo_only": CONFIGS / "dpd" / "tiny.yaml",
}
MERGES = [
    [QUICKSTART, CONFIGS / "pretrain" / "wsd-baseline.yaml", CONFIGS / "trainer" / "cpu.yaml"],
    [CONFIGS / "pretrain" / "nanbeige4-3b.yaml", CONFIGS / "trainer" / "cluster.yaml"],
    [
        CONFIGS / "pretrain" / "nanbeige4-3b.yaml",
        CONFIGS / "model" / "nanbeige4-1b.yaml",
        CONFIGS / "trainer" / "cluster.yaml",
    ],
]


def with_base(path):
    base = ON.get(path.stem) or ON.get(path.parent.name)
    return [base, path] if base else [path]


def resolved(name):
    """A config that ships as its command understands it."""
    spec = importlib.util.spec_from_file_location("make_resolved_configs", GOLDEN / "make_resolved_configs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.resolved(name)


def parsed(paths, *arguments):
    """The config as `nbg fit` understands it; nothing is built."""
    from nbg_lightning.commands.trainer import parse

    return parse(["fit", *(option for path in paths for option in ("--config", str(path))), *arguments])


def test_there_are_configs():
    assert len(ALL) >= 8


@pytest.mark.parametrize("path", [*ALL, *BUILDERS], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_begins_with_what_it_does_and_how_it_is_launched(path):
    comment = re.match(r"(#.*\n)+", path.read_text())
    assert comment, "a config begins with a comment"
    assert re.search(r"nbg(_lightning\.cli)? (fit|test|build-[a-z]+) ", comment[0]), "with the launch line"
    named = re.findall(r"configs/[\w/.-]+\.yaml", comment[0])
    assert all((CONFIGS.parent / name).is_file() for name in named), named
    own = path.relative_to(CONFIGS.parent).as_posix()
    assert own in comment[0] or "TASK" in comment[0]


@pytest.mark.parametrize("name", MEANINGS)
def test_means_what_it_meant(name, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    found = json.loads(json.dumps(resolved(name)))
    assert {key: found.get(key) for key in MEANINGS[name]} == MEANINGS[name]


def test_every_config_has_its_meaning_recorded():
    recorded = {name for name in MEANINGS if not name.startswith("construction/")}
    assert recorded == {path.relative_to(CONFIGS).as_posix() for path in ALL}


@pytest.mark.parametrize("paths", MERGES, ids=lambda paths: "+".join(path.stem for path in paths))
def test_merges(paths):
    config = parsed(paths, "--trainer.max_steps", "3")
    last = yaml.safe_load(paths[-1].read_text())["trainer"]
    assert config.trainer.accelerator == last["accelerator"]
    assert config.trainer.max_steps == 3
    first = yaml.safe_load(paths[0].read_text())
    assert set(config.data.init_args.sources) == set(first["data"]["init_args"]["sources"])


def test_a_model_replaces_only_the_model():
    config = parsed([QUICKSTART, CONFIGS / "model" / "smollm2-135m.yaml"])
    assert config.model.init_args.core == "smollm2-135m"
    assert config.model.init_args.micro_batch_tokens == 4096


def small(workshop, path):
    """The least of a config's data, on the smallest model: the sources keep their names."""
    names = list(yaml.safe_load(QUICKSTART.read_text())["data"]["init_args"]["sources"])
    jsonl = workshop.config["data"]["init_args"]["sources"]["web"]
    override = {
        "model": {"init_args": {"core": "nano"}},
        "data": {
            "init_args": {
                "sources": dict.fromkeys(names, jsonl),
                "tokenizer": {"train_vocab_size": 300, "train_bytes": 20_000},
                "data_dir": str(workshop.folder / "small"),
                "validation_tokens": 512,
                "prepare_workers": 0,
                "num_workers": 0,
            }
        },
        "trainer": {"default_root_dir": str(workshop.folder / path.stem), "max_steps": 2, "val_check_interval": 2},
    }
    return workshop.write(f"small-{path.stem}.yaml", override)


@pytest.mark.parametrize("name", ["quickstart", "wsd-baseline"])
def test_runs_two_steps(workshop, name):
    path = CONFIGS / "pretrain" / f"{name}.yaml"
    options = [option for file in [*with_base(path), small(workshop, path)] for option in ("--config", file)]
    result = workshop.nbg("fit", *options)
    assert result.code == 0, result.err
    folder = workshop.folder / name
    assert [checkpoint.name for checkpoint in (folder / "checkpoints").iterdir()] == ["step-00000002"]
    row = workshop.table(folder)["warmup"]
    assert row["step"] == 2
    assert 0 < row["val/docstrings/loss"] < 7


def test_sft_runs_two_steps(workshop, run):
    """From a checkpoint, with its tokenizer: reasoning-gym's conversations, a few of them."""
    checkpoint = str(run / "checkpoints" / "step-00000006")
    tasks = {"class_path": "nbg_lightning.data.ReasoningGymChat", "init_args": {"tasks": ["gcd"], "count": 40}}
    data = {
        "tokenizer": checkpoint,
        "sources": {"numbers": tasks},
        "data_dir": str(workshop.folder / "small"),
        "validation_fraction": 0.2,
        "prepare_workers": 0,
        "num_workers": 0,
    }
    override = workshop.write(
        "small-sft.yaml",
        {
            "model": {"init_args": {"base_weights": checkpoint}},
            "data": {"init_args": data},
            "trainer": {"default_root_dir": str(workshop.folder / "sft"), "max_steps": 2, "limit_val_batches": 1},
        },
    )
    result = workshop.nbg("fit", "--config", CONFIGS / "sft" / "tiny.yaml", "--config", override)
    assert result.code == 0, result.err
    assert (workshop.folder / "sft" / "checkpoints" / "step-00000002").is_dir()


@pytest.mark.parametrize("overlay", [None, "token_only", "dpo_only"])
def test_dpd_runs_two_steps(workshop, run, overlay):
    """From a checkpoint, with a later one as its teacher, on a few pairs; joint and each ablation."""
    first, later = (str(run / "checkpoints" / f"step-{step:08d}") for step in (4, 6))
    rows = [{"prompt": f"say {n}", "chosen": f"{n} it is", "rejected": "no " * (n % 5 + 1)} for n in range(40)]
    (workshop.folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {
        "tokenizer": first,
        "sources": {"pairs": {"init_args": {"path": str(workshop.folder / "pairs.jsonl")}}},
        "sequence_length": 256,
        "tokens_per_step": 1024,
        "data_dir": str(workshop.folder / "small"),
        "validation_fraction": 0.2,
        "prepare_workers": 0,
        "num_workers": 0,
    }
    name = f"dpd-{overlay}"
    own = {"model": {"init_args": {"base_weights": first, **({} if overlay == "dpo_only" else {"teacher": later})}}}
    trainer = {"default_root_dir": str(workshop.folder / name), "max_steps": 2, "val_check_interval": 2}
    override = workshop.write(f"small-{name}.yaml", {**own, "data": {"init_args": data}, "trainer": trainer})
    paths = [CONFIGS / "dpd" / f"{stem}.yaml" for stem in ("tiny", overlay) if stem]
    result = workshop.nbg("fit", *(option for path in [*paths, override] for option in ("--config", path)))
    assert result.code == 0, result.err
    assert (workshop.folder / name / "checkpoints" / "step-00000002").is_dir()


def test_a_reward_model_runs_two_steps(workshop, run):
    """From a checkpoint, on a few pairs; it is exported, and refused where a model has to write."""
    first = str(run / "checkpoints" / "step-00000004")
    rows = [{"prompt": f"say {n}", "chosen": f"{n} it is", "rejected": "no " * (n % 5 + 1)} for n in range(40)]
    (workshop.folder / "reward-pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {
        "tokenizer": first,
        "sources": {"pairs": {"init_args": {"path": str(workshop.folder / "reward-pairs.jsonl")}}},
        "sequence_length": 256,
        "tokens_per_step": 1024,
        "data_dir": str(workshop.folder / "small"),
        "validation_fraction": 0.2,
        "prepare_workers": 0,
        "num_workers": 0,
    }
    trainer = {"default_root_dir": str(workshop.folder / "reward"), "max_steps": 2, "val_check_interval": 2}
    model = {"init_args": {"base_weights": first}}
    override = workshop.write("small-reward.yaml", {"model": model, "data": {"init_args": data}, "trainer": trainer})
    result = workshop.nbg("fit", "--config", CONFIGS / "reward" / "tiny.yaml", "--config", override)
    assert result.code == 0, result.err
    checkpoint = workshop.folder / "reward" / "checkpoints" / "step-00000002"
    assert checkpoint.is_dir()
    asked = workshop.nbg("generate", str(checkpoint), "say 4")
    assert asked.code != 0
    assert "is a reward model: it scores texts and cannot continue them" in asked.err
    assert "Traceback" not in asked.err


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_understood_step_by_step(path, capsys, monkeypatch, tmp_path):
    from nbg_lightning.commands.recipe import main

    comment = re.match(r"(#.*\n)+", path.read_text())
    assert comment and f"nbg recipe configs/recipe/{path.name}" in comment[0]
    monkeypatch.chdir(CONFIGS.parent)
    assert main([str(path), "--dry-run", "--folder", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "all configs are valid; nothing was run" in said
    assert said.count(": to run") == len(yaml.safe_load(path.read_text())["steps"])
