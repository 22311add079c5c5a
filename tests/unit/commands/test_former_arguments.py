"""Former argument names are accepted in configs and options, and files record the first name."""

from __future__ import annotations

import inspect

import yaml

from nbg_lightning.commands.former_arguments import with_current_configs
from nbg_lightning.commands.settings import read_config
from nbg_lightning.construction.provenance import describe
from nbg_lightning.moved import ARGUMENTS, with_current_arguments, with_recorded_arguments
from nbg_lightning.rewards import MathReward

FORMER = {"class_path": "nbg_lightning.rewards.MathReward", "init_args": {"last_resort": True}}
CURRENT = {"class_path": "nbg_lightning.rewards.MathReward", "init_args": {"sympy_fallback": True}}


def test_configs_of_a_run_are_read_under_both_names(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"model": {"init_args": {"reward": FORMER, "group_size": 2}}, "seed": 3}))
    expected = {"model": {"init_args": {"reward": CURRENT, "group_size": 2}}, "seed": 3}
    for argv in (["fit", "--config", str(file)], ["fit", f"--config={file}"]):
        assert yaml.safe_load(with_current_configs(argv)[-1].removeprefix("--config=")) == expected
    assert read_config([str(file)]) == expected


def test_what_has_no_former_name_stays_as_it_is(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"model": {"init_args": {"reward": CURRENT}}}))
    argv = ["fit", "--config", str(file), "--model.init_args.reward.init_args.find", "boxed", "--last_resort=true"]
    assert with_current_configs(argv) == argv
    own = {"class_path": "mine.MathReward", "init_args": {"last_resort": 1}}
    assert with_current_arguments({"reward": [own]}) == {"reward": [own]}


def test_options_and_configs_that_are_laid_over_others():
    argv = ["--model.init_args.reward.init_args.last_resort=true", "--reward.last_resort", "true"]
    assert with_current_configs(argv) == [each.replace("last_resort", "sympy_fallback") for each in argv]
    over = {"reward": {"init_args": {"last_resort": False}}}
    assert with_current_arguments(over) == {"reward": {"init_args": {"sympy_fallback": False}}}


def test_recorded_identities_do_not_know_the_new_name():
    assert with_recorded_arguments(with_current_arguments(FORMER)) == FORMER
    recorded = {"class": "nbg_lightning.rewards.math.MathReward", "find": "announced", "name": "math"}
    assert describe(MathReward()) == recorded
    assert describe(MathReward(sympy_fallback=True)) == {**recorded, "last_resort": True}


def test_new_names_are_arguments_of_their_classes():
    for kind, names in ARGUMENTS.items():
        assert set(names.values()) <= set(inspect.signature({"MathReward": MathReward}[kind]).parameters)
