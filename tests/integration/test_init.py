"""The files of `nbg init` can be trained, tested and chatted with by the printed commands, from another folder."""

import os
import shlex

import pytest

from nbg_lightning.cli import main
from nbg_lightning.commands.init import JOBS, STAND_IN, write


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """The folder of the job `pretrain`, whose commands have been typed."""
    folder = tmp_path_factory.mktemp("init") / "pretrain"
    write(JOBS["pretrain"], folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in JOBS["pretrain"].commands:
            assert main(shlex.split(command)[1:]) == 0, command
    return folder


def test_pretraining_leaves_the_model_that_the_others_begin_with(stand_in):
    assert (stand_in / STAND_IN / "checkpoints" / "step-00000020" / "meta.pt").is_file()


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in JOBS if name not in ("pretrain", "sft")]


@pytest.mark.parametrize("name", ["sft", *SLOW])
def test_every_command_of_a_job_runs(name, stand_in, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", name, "my job"]) == 0
    typed = [
        line.partition("  # ")[0].strip() for line in capsys.readouterr().out.partition("Now run:")[2].splitlines()
    ]
    typed = [line for line in typed if line]
    assert typed[0] == "cd 'my job'"
    monkeypatch.chdir(tmp_path / "my job")
    if JOBS[name].needs_model:
        assert typed.pop(1).startswith("nbg fit --config pretrain.yaml")
        (tmp_path / "my job" / "runs").mkdir()
        (tmp_path / "my job" / "runs" / "pretrain").symlink_to(stand_in / "runs" / "pretrain")
    with open(os.devnull) as nothing:
        monkeypatch.setattr("sys.stdin", nothing)  # a chat ends at once
        for command in typed[1:]:
            assert main(shlex.split(command)[1:]) == 0, command


@pytest.mark.parametrize("name", JOBS)
def test_nothing_is_overwritten(name, tmp_path, capsys):
    (tmp_path / JOBS[name].files[-1]).write_text("mine")
    assert main(["init", name, str(tmp_path)]) == 2
    assert "already; give another folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [JOBS[name].files[-1]]


def test_a_model_of_ones_own(tmp_path, capsys):
    assert main(["init", "sft", str(tmp_path / "a"), "--model", "owner/name"]) == 0
    assert 'SFTModule: {base_weights: "owner/name"}' in (tmp_path / "a" / "sft.yaml").read_text()
    assert not (tmp_path / "a" / "pretrain.yaml").exists()
    assert "stand-in" not in capsys.readouterr().out
    assert main(["init", "pretrain", str(tmp_path / "b"), "--model", "owner/name"]) == 2
    assert "--model has no effect" in capsys.readouterr().err


def test_a_job_that_there_is_not(capsys):
    assert main(["init", "stf"]) == 2
    assert "job is invalid: stf (did you mean sft?)" in capsys.readouterr().err
    assert main(["init"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in JOBS)
