"""User errors: one line with cause and fix, exit code 2, and nothing lost."""

import contextlib
import json
import shutil
import subprocess

import pytest
import torch
import yaml

PROGRESS = ("training a tokenizer", "web/", "qa/", "web:", "qa:")  # of a preparation before it fails


def complains(result, *parts, command="fit"):
    """One line, of which these are parts."""
    assert result.code == 2, result
    lines = [line for line in result.err.splitlines() if not line.startswith(PROGRESS)]
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"nbg {command}: error: ")
    for part in parts:
        assert part in lines[0]
    assert len(lines[0]) < 600
    assert "Traceback" not in result.err
    return lines[0]


@pytest.fixture
def attempt(workshop, tmp_path):
    """Run the config with a change made by a function."""

    def run(change, *arguments):
        config = workshop.changed("bad.yaml", change)
        return workshop.fit(tmp_path / "run", *arguments, config=config)

    return run


def table(config):
    return config["trainer"]["callbacks"][0]["init_args"]


def data(config):
    return config["data"]["init_args"]


# -- the YAML -----------------------------------------------------------------------------------------------------------

YAML = {
    "unknown top key": (lambda c: c.update(modle={"core": "nano"}), ["modle.core"]),
    "unknown trainer key": (lambda c: c["trainer"].update(max_step=3), ["does not accept option 'trainer.max_step'"]),
    "unknown data key": (
        lambda c: data(c).update(folder="x"),
        ["data: nbg_lightning.CurriculumDataModule", "'folder'"],
    ),
    "unknown model key": (
        lambda c: c["model"]["init_args"].update(dropout=0.1),
        ["model: nbg_lightning.PretrainModule: Option 'dropout' is not accepted", "nbg fit --help"],
    ),
    "unknown source key": (
        lambda c: data(c)["sources"]["web"]["init_args"].update(column="x"),
        ["sources: nbg_lightning.data.JsonLines: Option 'column'"],
    ),
    "unknown stage key": (lambda c: table(c)["stages"][0].update(weight=3), ["stages", "'weight'"]),
    "wrong class": (
        lambda c: c["data"].update(class_path="nbg_lightning.Nope"),
        ["data: nbg_lightning.Nope", "'Nope'"],
    ),
    "wrong module": (lambda c: c["model"].update(class_path="nope.Nope"), ["model: nope.Nope: No module named 'nope'"]),
    "wrong callback": (
        lambda c: c["trainer"]["callbacks"][2].update(class_path="nbg_lightning.callbacks.Nope"),
        ["trainer.callbacks: nbg_lightning.callbacks.Nope", "'Nope'"],
    ),
    "wrong kind of class": (
        lambda c: c["data"].update(class_path="nbg_lightning.PretrainModule", init_args={}),
        ["data", "nbg_lightning.PretrainModule"],
    ),
    "missing argument": (lambda c: table(c)["stages"][0].pop("mixture"), ["arguments are required: mixture"]),
    "wrong type": (lambda c: data(c).update(num_workers="many"), ["num_workers is invalid: many; expected int"]),
    "unknown preset": (lambda c: c["model"]["init_args"].update(core="nanoo"), ["core: expected Literal[", "'nano'"]),
    "no data": (lambda c: c.pop("data"), ["FGWSD needs a datamodule"]),
    "no table": (lambda c: c["trainer"]["callbacks"].pop(0), ["no curriculum; add the FGWSD callback"]),
    "zero weights": (
        lambda c: table(c)["stages"][1].update(mixture={"web": 0, "qa": 0}),
        ["stage 'stable': all weights of the mixture are 0; give at least one source a positive weight"],
    ),
    "broken step size": (
        lambda c: table(c).update(tokens_per_step=500),
        ["tokens_per_step 500 is not a multiple of the sequence_length 64 of stage 'warmup'; use 448 or 512"],
    ),
    "two tokenizers": (lambda c: data(c)["tokenizer"].update(name_or_path="x"), ["give one of name_or_path and"]),
    "other strategy": (
        lambda c: c["trainer"].update(strategy="ddp"),
        ["trainer.strategy is invalid: ddp; leave it out"],
    ),
    "no such device": (lambda c: c["trainer"].update(accelerator="cuda"), ["CUDA"]),
}


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")  # Lightning's, of a config without data
@pytest.mark.parametrize("case", YAML)
def test_yaml(attempt, case):
    if case == "no such device" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    change, parts = YAML[case]
    complains(attempt(change), *parts)


def test_no_such_config(workshop, tmp_path):
    complains(workshop.nbg("fit", "--config", tmp_path / "none.yaml"), "there is no config", "none.yaml")


def test_config_that_is_no_yaml(workshop, tmp_path):
    """With several configs, the broken one is named."""
    (tmp_path / "broken.yaml").write_text("model: [\n")
    result = workshop.nbg("fit", "--config", workshop.yaml, "--config", tmp_path / "broken.yaml")
    complains(result, f"{tmp_path}/broken.yaml is not YAML", "line 2")


def test_unknown_option(workshop):
    complains(workshop.nbg("fit", "--config", workshop.yaml, "--learning_rate", "3"), "unrecognized", "--learning_rate")


# -- sources ------------------------------------------------------------------------------------------------------------


def test_unknown_source(attempt):
    complains(
        attempt(lambda c: table(c)["stages"][2].update(mixture={"qa": 1, "books": 2})),
        "the curriculum mixes unknown sources books; there are web, qa",
    )


@pytest.fixture
def text(attempt, tmp_path):
    """Train on these lines as the source ``web``."""

    def run(*lines):
        path = tmp_path / "web.jsonl"
        path.write_text("".join(line + "\n" for line in lines))
        return attempt(
            lambda c: (
                data(c)["sources"]["web"]["init_args"].update(path=str(path)),
                data(c).update(data_dir=str(tmp_path / "prepared")),
            )
        )

    return run


GOOD = json.dumps({"text": "a line that is as it should be"})


def test_no_such_file(attempt, tmp_path):
    complains(
        attempt(lambda c: data(c)["sources"]["web"]["init_args"].update(path=str(tmp_path / "none.jsonl"))),
        "source 'web': ",
        f"'{tmp_path}/none.jsonl' does not exist; check the path",
    )


@pytest.mark.parametrize("lines", [[], [json.dumps({"text": ""})], [json.dumps({"text": None})]])
def test_empty_source(text, lines):
    complains(text(*lines), "source 'web': ", "no ")


def test_malformed_json(text, tmp_path):
    complains(text(GOOD, GOOD, '{"text": "half', GOOD), f"{tmp_path}/web.jsonl:3: malformed JSON", "fix or remove")


def test_missing_field(text, tmp_path):
    line = complains(text(GOOD, json.dumps({"body": "x", "id": 3})), f"{tmp_path}/web.jsonl:2: no field 'text'")
    assert "there are 'body', 'id': set text_field to one of them" in line


def test_text_that_is_no_string(text, tmp_path):
    complains(text(GOOD, json.dumps({"text": 3})), f"{tmp_path}/web.jsonl:2: the text is of type int")


def test_source_shorter_than_a_window(text):
    complains(text(*[json.dumps({"text": f"tiny {i}"}) for i in range(3)]), "web", "window")


def test_vocabulary_mismatch(attempt, monkeypatch):
    """Said before anything is built."""
    from nbg_lightning.modules.base import LanguageModule

    monkeypatch.setattr(LanguageModule, "configure_model", lambda self: pytest.fail("the model was built"))
    shape = {
        "vocab_size": 280,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 64,
    }
    complains(
        attempt(lambda c: c["model"]["init_args"].update(core=shape)),
        "the tokenizer has 300 ids, the model's vocabulary 280; ",
        "vocab_size of at least 300",
    )


# -- what changed since -------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(workshop, run, tmp_path):
    """A copy of texts, prepared data and run, to be broken; and its config."""
    for name in ("texts", "prepared"):
        shutil.copytree(workshop.folder / name, tmp_path / name)
    shutil.copytree(run / "checkpoints", tmp_path / "run" / "checkpoints")
    content = (workshop.folder / "config.yaml").read_text().replace(str(workshop.folder), str(tmp_path))
    (tmp_path / "copy.yaml").write_text(content)

    def resume(step="last"):
        where = step if step == "last" else tmp_path / "run" / "checkpoints" / f"step-{step:08d}"
        return workshop.fit(tmp_path / "run", "--ckpt_path", where, config=str(tmp_path / "copy.yaml"))

    return tmp_path, resume


def test_changed_source(copy):
    folder, resume = copy
    shutil.rmtree(folder / "prepared")
    config = yaml.safe_load((folder / "copy.yaml").read_text())
    assert resume(4).code == 0  # the same texts in new files: the same run
    with (folder / "texts" / "qa.jsonl").open("a") as file:
        file.write(GOOD + "\n")
    tokenizer = next((folder / "prepared").glob("tokenizer-*"))
    config["data"]["init_args"]["tokenizer"] = {"name_or_path": str(tokenizer)}
    (folder / "copy.yaml").write_text(yaml.safe_dump(config))
    complains(
        resume(4), "source qa has changed since the checkpoint; restore its data and tokenizer, or start a new run"
    )


def test_truncated_shard(copy):
    folder, resume = copy
    assert resume(4).code == 0  # copied texts have other times, so they are prepared for themselves
    shard = max(folder.glob("prepared/web-*/train/*.tokens"), key=lambda path: path.stat().st_mtime)
    shard.write_bytes(shard.read_bytes()[:-2])
    complains(resume(4), "source 'web': ", str(shard), "again")


# -- checkpoints --------------------------------------------------------------------------------------------------------


def test_corrupt_checkpoint_names_another(copy):
    folder, resume = copy
    last = folder / "run" / "checkpoints" / "step-00000006"
    shard = next(last.glob("*.distcp"))
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 3])
    complains(resume(), f"checkpoint {last} cannot be read", "resume from another: step-00000002, step-00000004")
    assert resume(4).code == 0


def test_corrupt_state(copy):
    folder, resume = copy
    (folder / "run" / "checkpoints" / "step-00000006" / "meta.pt").write_bytes(b"nonsense")
    complains(resume(), "step-00000006 cannot be read", "step-00000004")


def test_a_last_checkpoint_that_lacks_files_is_no_older_one(copy, workshop):
    folder, resume = copy
    (folder / "run" / "checkpoints" / "step-00000006" / "meta.pt").unlink()
    complains(resume(6), "step-00000006", "step-00000002, step-00000004")
    complains(resume(), "step-00000006 is damaged: files are missing", "step-00000002, step-00000004")
    assert resume(4).code == 0
    assert workshop.chain(folder / "run") == workshop.chain(workshop.folder / "run")


def test_foreign_checkpoints(copy, workshop):
    folder, _ = copy
    file = folder / "other.ckpt"
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.0"}, file)
    for path in (file, folder / "texts"):
        result = workshop.fit(folder / "run", "--ckpt_path", path, config=str(folder / "copy.yaml"))
        complains(result, f"{path} is not a complete checkpoint of this library")


def test_checkpoint_of_another_model(workshop, run, attempt):
    line = complains(
        attempt(
            lambda c: c["model"]["init_args"].update(core="tiny"), "--ckpt_path", run / "checkpoints" / "step-00000004"
        ),
        "the checkpoint's model has another shape: ",
        "hidden_size 128 there, 256 here",
    )
    assert line.endswith("use the config of that run")


def test_other_seed(workshop, run, tmp_path):
    result = workshop.fit(tmp_path, "--seed", "3", "--ckpt_path", run / "checkpoints" / "step-00000004")
    complains(result, "the checkpoint's data order has seed 0, this run has 3; set seed to 0")


# -- a full disk --------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """Mounts file systems of a few megabytes."""
    with contextlib.ExitStack() as mounted:

        def mount(name, size):
            folder = tmp_path / name
            folder.mkdir()
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True
            )
            if done.returncode:
                pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
            mounted.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
            return folder

        if shutil.which("mount") is None:
            pytest.skip("there is no mount command")
        yield mount


def test_disk_full_in_preparation(workshop, small_disk, tmp_path):
    disk = small_disk("full", "100k")
    config = workshop.changed("full.yaml", lambda c: data(c).update(data_dir=str(disk)))
    result = workshop.fit(tmp_path / "run", config=config)
    complains(result, "o space left")
    subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
    assert workshop.fit(tmp_path / "run", config=config).code == 0  # what was done is used again


def test_disk_full_in_a_save(workshop, run, small_disk, tmp_path):
    """The second checkpoint does not fit: the first one is intact, and the run resumes from it when there is space."""
    one = sum(file.stat().st_size for file in (run / "checkpoints" / "step-00000002").rglob("*"))
    disk = small_disk("run", int(one * 1.6) + 100_000)
    result = workshop.fit(disk)
    complains(result, f"disk full while saving {disk}/checkpoints/step-00000004", "older checkpoints are intact")
    assert [path.name for path in (disk / "checkpoints").iterdir()] == ["step-00000002"]
    subprocess.run(["mount", "-o", f"remount,size={4 * one + 1_000_000}", str(disk)], check=True)
    resumed = workshop.fit(disk, "--ckpt_path", "last")
    assert resumed.code == 0, resumed.err
    assert workshop.chain(disk) == workshop.chain(run)
