"""Short class names are expanded, and only where a class can be given."""

import importlib
import re

import pytest

from nbg_lightning.class_names import class_names, with_whole_names


def test_every_short_name_is_at_its_path():
    for name, path in class_names().items():
        module, _, last = path.rpartition(".")
        assert last == name and name in importlib.import_module(module).__all__, path


@pytest.mark.parametrize(
    ("short", "whole"),
    [
        ({"model": "SFTModule"}, {"model": {"class_path": "nbg_lightning.SFTModule"}}),
        (
            {"model": {"SFTModule": {"core": "nano"}}},
            {"model": {"class_path": "nbg_lightning.SFTModule", "init_args": {"core": "nano"}}},
        ),
        (
            {"model": {"class_path": "SFTModule", "core": "nano"}},
            {"model": {"class_path": "nbg_lightning.SFTModule", "init_args": {"core": "nano"}}},
        ),
        (
            {"callbacks": [{"my.own.Mine": {"a": 1}}, "Throughput", "LearningRateMonitor"]},
            {
                "callbacks": [
                    {"class_path": "my.own.Mine", "init_args": {"a": 1}},
                    {"class_path": "nbg_lightning.Throughput"},
                    {"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"},
                ]
            },
        ),
        (
            {"callbacks": {"WarmupDecay": {"lr": 1}, "Throughput": None}},
            {
                "callbacks": [
                    {"class_path": "nbg_lightning.WarmupDecay", "init_args": {"lr": 1}},
                    {"class_path": "nbg_lightning.Throughput"},
                ]
            },
        ),
        (
            {"logger": [{"CSVLogger": {"save_dir": "a"}}, "TrackioLogger"]},
            {
                "logger": [
                    {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "a"}},
                    {"class_path": "nbg_lightning.loggers.TrackioLogger"},
                ]
            },
        ),
        ({"logger": "CSVLogger"}, {"logger": {"class_path": "lightning.pytorch.loggers.CSVLogger"}}),
        (
            {"sources": {"sums": {"SumChat": None}, "SumChat": "a.jsonl"}},
            {"sources": {"sums": {"class_path": "nbg_lightning.testing.SumChat"}, "SumChat": "a.jsonl"}},
        ),
        (
            {"reward": {"CombinedReward": {"rewards": ["FormatReward"]}}},
            {
                "reward": {
                    "class_path": "nbg_lightning.rewards.CombinedReward",
                    "init_args": {"rewards": [{"class_path": "nbg_lightning.rewards.FormatReward"}]},
                }
            },
        ),
    ],
)
def test_becomes_whole(short, whole):
    before = repr(short)
    assert with_whole_names(short) == whole
    assert repr(short) == before


@pytest.mark.parametrize(
    "as_it_is",
    [
        {"logger": True},
        {"logger": False, "strategy": "auto", "model": {"init_args": {"core": "nano"}}},
        {"mixture": {"SumChat": 1}, "name": "SFTModule", "judge": "Teacher"},
        {"callbacks": None, "benchmarks": []},
        {"engine": {"url": "http://SFTModule"}},
        {"parallel": {"compute_dtype": "float32"}},
    ],
)
def test_what_is_no_class_stays(as_it_is):
    assert with_whole_names(as_it_is) == as_it_is


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"trainer": {"callbacks": ["WarmupDecai"]}},
            "trainer.callbacks is invalid: there is no class WarmupDecai (did",
        ),
        ({"model": {"SFTmodule": {}}}, "did you mean SFTModule"),
        ({"callbacks": [{"WarmupDecay": 1e-4}]}, "write WarmupDecay: {ARGUMENT: VALUE}"),
        (
            {"data": {"class_path": "ChatDataModule", "init_args": {"a": 1}, "a": 2}},
            "a stands beside init_args and in it",
        ),
    ],
)
def test_a_wrong_one_is_answered_in_one_line(wrong, said):
    with pytest.raises(ValueError, match=rf"^.*{re.escape(said)}.*$") as error:
        with_whole_names(wrong)
    assert "\n" not in str(error.value)
