"""`nbg merge` and `MergeCheckpoints` on checkpoints of a real run, and their one-line errors."""

import dataclasses
import shutil

import pytest
import torch

from nbg_lightning.callbacks.merge import MergeCheckpoints
from nbg_lightning.cli import main
from nbg_lightning.core.weights import open_weights
from nbg_lightning.testing.grpo import GRPO_SHAPE, small_tokenizer, train_small_grpo


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with four checkpoints that ends by merging the last three, and a shorter one of another shape."""
    root = tmp_path_factory.mktemp("merge")
    tokenizer = small_tokenizer(root)
    train_small_grpo(
        root / "run", tokenizer=tokenizer, steps=4, checkpoint_every=1, callbacks=[MergeCheckpoints(3, "linear")]
    )
    other = {"core": dataclasses.replace(GRPO_SHAPE, num_hidden_layers=1)}
    train_small_grpo(root / "other", tokenizer=tokenizer, steps=1, module_options=other)
    return root


def steps(runs, *numbers):
    return [str(runs / "run" / "checkpoints" / f"step-{number:08d}") for number in numbers]


def average(places, factors):
    found = {}
    for place, factor in zip(places, factors, strict=True):
        weights = open_weights(place)
        for name, tensor in weights.read(list(weights.shapes)).items():
            found[name] = found.get(name, 0.0) + factor * tensor.double()
    return found


def assert_is_average(folder, places, factors):
    weights = open_weights(folder)
    for name, expected in average(places, factors).items():
        torch.testing.assert_close(weights.read([name])[name], expected.float(), msg=name)


def test_rules_go_by_age_and_numbers_by_order(runs, tmp_path, capsys):
    newest, oldest = steps(runs, 4, 2)
    assert main(["merge", newest, oldest, "--weights", "linear", "--out", str(tmp_path / "rule")]) == 0
    told = capsys.readouterr().out
    assert "0.3333" in told and "the average of 2 checkpoints" in told and "logits of transformers" in told
    assert_is_average(tmp_path / "rule", [oldest, newest], [1 / 3, 2 / 3])
    assert main(["merge", newest, oldest, "--weights", "1,3", "--out", str(tmp_path / "given"), "--no-verify"]) == 0
    assert_is_average(tmp_path / "given", [newest, oldest], [0.25, 0.75])


def test_a_run_ends_by_merging(runs):
    assert_is_average(runs / "run" / "merged" / "step-00000004", steps(runs, 2, 3, 4), [1 / 6, 2 / 6, 3 / 6])


def refused(capsys, *arguments):
    assert main(["merge", *arguments]) == 2
    return capsys.readouterr().err


def test_what_cannot_be_merged_is_one_line(runs, tmp_path, capsys):
    out = ["--out", str(tmp_path / "none")]
    first, second = steps(runs, 1, 2)
    other = str(runs / "other" / "checkpoints" / "step-00000001")
    copy = tmp_path / "elsewhere" / "step-00000002"
    shutil.copytree(second, copy)
    cases = {
        "give two checkpoints or more": [first],
        "is of another run than": [first, str(copy)],
        "is given twice": [first, first],
        "has another shape: num_hidden_layers 1 there, 2 in": [first, other, "--across-runs"],
        "--weights is invalid: 'uniforn'": [first, second, "--weights", "uniforn"],
        "weights is invalid: 3 numbers for 2": [first, second, "--weights", "1,2,3"],
        "decay is invalid: 2.0": [first, second, "--weights", "ema", "--decay", "2"],
        "does not exist": [first, str(tmp_path / "missing")],
        "is no checkpoint of a run": [str(runs / "run" / "merged" / "step-00000004"), first],
    }
    for message, arguments in cases.items():
        told = refused(capsys, *arguments, *out)
        assert message in told and told.count("\n") == 1, (message, told)
    assert not (tmp_path / "none").exists()


def test_other_runs_are_merged_where_that_is_said(runs, tmp_path):
    folder = str(runs / "run" / "merged" / "step-00000004")
    (first,) = steps(runs, 1)
    arguments = [
        "merge",
        folder,
        first,
        "--across-runs",
        "--weights",
        "1,1",
        "--out",
        str(tmp_path / "out"),
        "--no-verify",
    ]
    assert main(arguments) == 0
    assert_is_average(tmp_path / "out", [folder, first], [0.5, 0.5])


def test_too_few_checkpoints_are_kept(runs, tmp_path):
    with pytest.raises(
        ValueError, match="MergeCheckpoints needs the last 3 checkpoints; give StepCheckpoint every_n_steps"
    ):
        train_small_grpo(tmp_path / "run", tokenizer=runs / "tokenizer", steps=1, callbacks=[MergeCheckpoints(3)])
    with pytest.raises(ValueError, match="number is invalid: 1"):
        MergeCheckpoints(1)
