"""`nbg schedule`: the plan of every shipped curriculum, and verification of the data that a checkpoint consumed."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from nbg_lightning.cli import main
from nbg_lightning.commands.settings import read_config
from nbg_lightning.schedule.of_config import read_curriculum

PRETRAIN = Path(__file__).parents[3] / "configs" / "pretrain"


@pytest.fixture(autouse=True)
def wide(monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def schedule(*arguments):
    return main(["schedule", *map(str, arguments)])


# -- plans --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(PRETRAIN.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_curriculum_that_ships(path, capsys, tmp_path):
    begin = time.process_time()
    assert schedule(path, "--png", tmp_path / "new" / "plan.png", "--json", tmp_path / "other" / "plan.json") == 0
    assert time.process_time() - begin < 15  # under a second on an idle machine
    assert (tmp_path / "new" / "plan.png").read_bytes().startswith(b"\x89PNG")
    plan = json.loads((tmp_path / "other" / "plan.json").read_text())
    curriculum = read_curriculum(read_config([str(path)]))
    assert plan["steps"] == curriculum.num_steps
    assert [stage["name"] for stage in plan["stages"]] == [stage.name for stage in curriculum.stages]
    out = capsys.readouterr().out
    assert all(source in out for source in curriculum.sources)


def test_the_paper_curriculum(capsys, tmp_path):
    assert schedule(PRETRAIN / "nanbeige4-3b.yaml", "--json", tmp_path / "plan.json") == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert [stage["requested_tokens"] for stage in plan["stages"]] == [10**11, 124 * 10**11, 65 * 10**11, 4 * 10**12]
    assert sum(stage["requested_tokens"] for stage in plan["stages"]) == plan["requested_tokens"] == 23 * 10**12
    assert abs(plan["tokens"] - plan["requested_tokens"]) < 4 * plan["tokens_per_step"]
    ends = [(stage["learning_rate_start"], stage["learning_rate_end"]) for stage in plan["stages"]]
    assert ends == [(0.0, 4.5e-4), (4.5e-4, 4.5e-4), (4.5e-4, 4.5e-4), (4.5e-4, 1.5e-6)]
    assert plan["stages"][3]["sequence_length"] == 65536
    out = capsys.readouterr().out
    assert "23T tokens in 2,741,813 steps" in out
    assert "1.00" in out  # an epoch of HQ before the HQ stage


def test_plan_needs_no_torch():
    code = (
        "import sys; from nbg_lightning.cli import main; code = main(['schedule', sys.argv[1]]);"
        "sys.exit(code or ('torch' in sys.modules and 9))"
    )
    path = PRETRAIN / "nanbeige4-3b.yaml"
    assert subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True).returncode == 0


def test_picture_is_named_after_the_last_config(capsys, tmp_path):
    assert schedule(PRETRAIN / "quickstart.yaml", PRETRAIN / "wsd-baseline.yaml") == 0
    assert (tmp_path / "wsd-baseline.png").is_file()
    out = capsys.readouterr().out
    assert "stable" in out
    assert "hq-stable" not in out  # the second config's table took the place of the first


# -- a prepared run -----------------------------------------------------------------------------------------------------

TABLE = {
    "tokens_per_step": 256,
    "sequence_length": 32,
    "stages": [
        {"name": "first", "tokens": 512, "lr": [0, 0.01], "mixture": {"a": 1, "b": 1}},
        {"name": "last", "tokens": 600, "lr": [0.01, 0], "mixture": {"a": 3, "b": 1}},
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture(scope="module")
def config(folder):
    """A curriculum over two text files."""
    for name in "ab":
        lines = [json.dumps({"text": f"{name} is the text of line {line} " * 6}) for line in range(60)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    sources = {
        name: {"class_path": "nbg_lightning.data.JsonLines", "init_args": {"path": str(folder / f"{name}.jsonl")}}
        for name in "ab"
    }
    return {
        "seed": 3,
        "data": {
            "class_path": "nbg_lightning.CurriculumDataModule",
            "init_args": {
                "sources": sources,
                "tokenizer": {"train_vocab_size": 280, "train_bytes": 10_000},
                "data_dir": str(folder / "data"),
                "prepare_workers": 0,
            },
        },
        "trainer": {"callbacks": [{"class_path": "nbg_lightning.FGWSD", "init_args": TABLE}]},
    }


def written(folder, name, config):
    path = folder / name
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def path(folder, config):
    return written(folder, "config.yaml", config)


@pytest.fixture(scope="module")
def run(folder, path):
    """A folder with a checkpoint that this config's datamodule has led to."""
    import torch

    from nbg_lightning.commands.schedule import datamodule_of
    from nbg_lightning.data.order import sample_hash

    config = read_config([str(path)])
    data = datamodule_of(config)
    data.use_curriculum(read_curriculum(config))
    for step in range(3):
        samples = data.order.lookup(*data.curriculum.sample_range(step))
        data.advance(int(sample_hash(3, samples).sum(dtype="uint64")))
    checkpoint = folder / "run" / "checkpoints" / "step-00000003"
    checkpoint.mkdir(parents=True)
    torch.save({"CurriculumDataModule": data.state_dict()}, checkpoint / "meta.pt")
    (checkpoint / ".metadata").touch()
    return folder / "run"


def test_prepared_sizes_give_epochs(path, tmp_path, capsys):
    assert schedule(path, "--json", tmp_path / "plan.json") == 0
    assert "?" in capsys.readouterr().out  # sizes that are not given
    assert schedule(path, "--prepared", "--json", tmp_path / "plan.json") == 0
    mixture = json.loads((tmp_path / "plan.json").read_text())["stages"][1]["mixture"]
    assert mixture and all(0 < share["cumulative_epochs"] < 10 for share in mixture)
    assert "asks for 600 tokens and gets 512" in capsys.readouterr().out  # rounded, and said


def test_verified(path, run, capsys):
    for where in (run, run / "checkpoints", run / "checkpoints" / "step-00000003"):
        assert schedule(path, "--verify", where) == 0
        out = capsys.readouterr().out
        assert "verified: the 3 steps of" in out
        assert "chain " in out


def refused(capsys, *arguments):
    assert schedule(*arguments) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if "error" in line or "Traceback" in line]
    assert len(err) == 1
    assert err[0].startswith("nbg schedule: error: ")
    return err[0]


def changed(folder, config, change):
    other = yaml.safe_load(yaml.safe_dump(config, sort_keys=False))
    change(other)
    return written(folder, "changed.yaml", other)


def test_other_mixture_is_not_verified(folder, config, run, capsys):
    def change(config):
        config["trainer"]["callbacks"][0]["init_args"]["stages"][0]["mixture"] = {"a": 2, "b": 1}

    line = refused(capsys, changed(folder, config, change), "--verify", run)
    assert "the samples consumed in 3 steps are not those of this config" in line


def test_other_seed_is_not_verified(folder, config, run, capsys):
    line = refused(capsys, changed(folder, config, lambda c: c.update(seed=4)), "--verify", run)
    assert "the checkpoint's run had seed 3, this config has 4; give the config.yaml that the run has saved" in line


def test_changed_source_is_not_verified(folder, config, run, tmp_path, capsys):
    text = (folder / "b.jsonl").read_text().replace("line 7 ", "line 8 ")
    (tmp_path / "b.jsonl").write_text(text)
    tokenizer = next((folder / "data").glob("tokenizer-*"))

    def change(config):
        init = config["data"]["init_args"]
        init["sources"]["b"]["init_args"]["path"] = str(tmp_path / "b.jsonl")
        init["tokenizer"] = {"name_or_path": str(tokenizer)}

    line = refused(capsys, changed(folder, config, change), "--verify", run)
    assert "source b is not what the checkpoint was trained on" in line


def test_damaged_checkpoint(path, tmp_path, capsys):
    checkpoint = tmp_path / "step-00000001"
    checkpoint.mkdir()
    (checkpoint / ".metadata").touch()
    (checkpoint / "meta.pt").write_bytes(b"nonsense")
    assert "cannot be read" in refused(capsys, path, "--verify", checkpoint)


def test_no_checkpoint(path, tmp_path, capsys):
    assert "is not a complete checkpoint, and there is none in it" in refused(capsys, path, "--verify", tmp_path)


# -- invalid configs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: [", "is not YAML"),
        ("- a\n- b", "it holds a list"),
        ("seed: 1", "trainer.callbacks is invalid: it has no FGWSD"),
        ("trainer: {callbacks: [WarmupDecay: {lr: 1e-4}]}", "WarmupDecay has no stages to draw"),
        (
            "trainer: {callbacks: [{class_path: nbg_lightning.FGWSD, init_args: {tokens_per_step: 8}}]}",
            "FGWSD: 'stages'",
        ),
    ],
)
def test_bad_configs(tmp_path, capsys, text, said):
    (tmp_path / "bad.yaml").write_text(text)
    assert said in refused(capsys, tmp_path / "bad.yaml")


def test_another_class_keeps_the_settings_that_it_has_too(tmp_path):
    """As `nbg fit` merges them."""
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    reward = {"class_path": "nbg_lightning.rewards.MathReward", "init_args": {"find": "number", "workers": 1}}
    other = {"class_path": "nbg_lightning.rewards.FunctionReward", "init_args": {"function": "math.gcd"}}
    first.write_text(yaml.safe_dump({"model": {"init_args": {"group_size": 4, "reward": reward}}}))
    second.write_text(yaml.safe_dump({"model": {"init_args": {"reward": other}}}))
    merged = read_config([str(first), str(second)])["model"]["init_args"]
    assert merged == {"group_size": 4, "reward": {**other, "init_args": {"function": "math.gcd", "workers": 1}}}
    second.write_text(yaml.safe_dump({"model": {"init_args": {"reward": {"init_args": {"workers": 2}}}}}))
    assert read_config([str(first), str(second)])["model"]["init_args"]["reward"]["init_args"]["find"] == "number"


def test_bad_configs_of_data(folder, config, tmp_path, capsys):
    line = refused(capsys, changed(folder, config, lambda c: c["data"]["init_args"].update(bla=1)), "--prepared")
    assert "nbg_lightning.CurriculumDataModule: Option 'bla' is not accepted" in line
    assert "has no data.class_path" in refused(capsys, changed(folder, config, lambda c: c.pop("data")), "--prepared")


def test_no_such_config(tmp_path, capsys):
    assert f"no config {tmp_path}/none.yaml" in refused(capsys, tmp_path / "none.yaml")
