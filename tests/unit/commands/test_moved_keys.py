"""Configs with keys in former places are parsed like current ones."""

import pytest
import yaml

from nbg_lightning.commands.moved_keys import with_moved_keys
from nbg_lightning.commands.trainer import parse

MODEL = {"class_path": "nbg_lightning.GRPOModule", "init_args": {"core": "nano", "loss": "dapo"}}
REWARD = {"class_path": "nbg_lightning.rewards.MathReward"}
DATA = {"class_path": "nbg_lightning.PromptDataModule", "init_args": {"sources": {}}}


@pytest.fixture
def write(tmp_path):
    def file(name, **settings):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"model": {"init_args": settings}}))
        return str(path)

    return file


@pytest.fixture
def first(tmp_path):
    path = tmp_path / "first.yaml"
    model = {**MODEL, "init_args": {**MODEL["init_args"], "reward": REWARD}}
    path.write_text(yaml.safe_dump({"model": model, "data": DATA}))
    return str(path)


def loss_of(*arguments):
    loss = parse(["fit", *arguments])["model"]["init_args"]["loss"]
    return loss if isinstance(loss, str) else {k: v for k, v in loss.as_dict().items() if v is not None}


def test_keys_beside_the_loss_are_read_in_files_and_options(first, write):
    flat = write("flat", clip_high=0.3, mask_truncated=False)
    nested = write("nested", loss={"clip_high": 0.3, "mask_truncated": False, "name": "dapo"})
    found = loss_of("--config", first, "--config", flat)
    assert found == loss_of(f"--config={first}", f"--config={nested}")
    assert (found["name"], found["clip_high"], found["mask_truncated"]) == ("dapo", 0.3, False)
    over = loss_of(
        "--config", first, f"--config={flat}", "--model.init_args.clip_high=0.4", "--model.init_args.loss", "gspo"
    )
    assert (over["name"], over["clip_high"], over["mask_truncated"]) == ("gspo", 0.4, False)


def test_a_loss_by_name_stays_a_name(first, write):
    assert loss_of("--config", first) == "dapo"
    assert loss_of("--config", first, "--config", write("other", loss="gspo")) == "gspo"


def test_another_name_keeps_the_settings_that_a_config_gave(first, write):
    nested = write("nested", loss={"name": "grpo", "clip_high": 0.28})
    for over in (
        ["--model.init_args.loss=dapo"],
        ["--model.init_args.loss", "dapo"],
        ["--config", write("dapo", loss="dapo")],
    ):
        found = loss_of("--config", first, "--config", nested, *over)
        assert (found["name"], found["clip_high"]) == ("dapo", 0.28)
    whole = loss_of("--config", first, "--config", nested, '--model.init_args.loss={"name": "cispo"}')
    assert whole["name"] == "cispo"


def test_a_part_of_a_loss_over_a_name_is_no_other_loss(first, write):
    """The first file's dapo must not be replaced by the default; a file without it changes nothing."""
    part, silent = write("part", loss={"clip_high": 0.3}), write("silent", group_size=4)
    for more in (["--config", part, "--config", silent], ["--model.init_args.loss.clip_high=0.3", "--config", silent]):
        found = loss_of("--config", first, *more)
        assert (found["name"], found["clip_high"], found["mask_truncated"]) == ("dapo", 0.3, True)


def test_the_config_that_an_earlier_run_wrote_down(tmp_path, first):
    """It has every setting next to the loss, most of them null or the default."""
    flat = {"loss": "gspo", "clip_low": None, "clip_high": None, "engine_correction": "mask", "correction_cap": 3.0}
    flat |= {
        "mask_truncated": True,
        "zero_variance": "drop",
        "kl_coefficient": 0.0,
        "kl_value": "k3",
        "kl_gradient": "k2",
    }
    path = tmp_path / "config.yaml"
    init_args = {"reward": REWARD, "core": "nano", "reference": None, "inner_updates": 2, **flat}
    path.write_text(yaml.safe_dump({"model": {**MODEL, "init_args": init_args}, "data": DATA}))
    found = loss_of("--config", str(path))
    expected = {name: value for name, value in flat.items() if value is not None and name != "loss"}
    assert found == {"name": "gspo", **expected}


def test_other_classes_keep_their_keys(tmp_path, write):
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump({"model": {"class_path": "my.Module", "init_args": {"clip_high": 0.3}}}))
    for arguments in (
        ["fit", "--config", str(own)],
        ["fit", "--model=my.Module", "--model.init_args.clip_high", "1"],
        ["fit"],
    ):
        assert with_moved_keys(arguments) == arguments
