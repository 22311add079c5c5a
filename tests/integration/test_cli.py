"""The command line for users: fast help, quiet output, one seed, stop and resume, exit codes."""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

OURS = (  # how the lines of a run begin; anything else on standard error is noise of another library
    "training a tokenizer",
    "web/",
    "qa/",
    "documents longer than",
    "stage '",
    "saved ",
    "[",
    "  ",  # a row of a block
    "PretrainModule begins",
    "PretrainModule finished",
)


# -- speed and discovery ------------------------------------------------------------------------------------------------


def test_help_is_quick_and_imports_no_torch():
    code = (
        "import sys, time; from nbg_lightning.cli import main; code = main(['--help']);"
        "print('torch' in sys.modules, 'lightning' in sys.modules, time.process_time()); sys.exit(code)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    done = runs[0]
    torch, lightning, _ = done.stdout.splitlines()[-1].split()
    assert (torch, lightning) == ("False", "False")
    assert min(float(run.stdout.split()[-1]) for run in runs) < 0.4  # of processor time, with the interpreter's start
    for command in ("fit", "validate", "test", "predict", "schedule", "export", "import"):
        assert f"  {command} " in done.stdout


def processor_seconds_of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_print_config(workshop):
    begin = processor_seconds_of_children()
    result = workshop.finish(workshop.start("fit", "--config", workshop.yaml, "--print_config"))
    seconds = processor_seconds_of_children() - begin
    print(f"nbg fit --print_config: {seconds:.1f} s of the processor")
    assert result.code == 0
    assert result.err == ""
    printed = yaml.safe_load(result.out)
    assert printed["seed"] == 0
    assert printed["model"]["init_args"]["max_grad_norm"] == 1.0  # defaults are shown too
    assert "seed_everything" not in printed  # one seed
    assert seconds < 12  # of the processor, whatever else runs: 8 on 2 cores


def test_printed_config_is_a_config(workshop):
    result = workshop.nbg("fit", "--config", workshop.yaml, "--print_config")
    printed = workshop.folder / "printed.yaml"
    printed.write_text(result.out)
    again = workshop.nbg("fit", "--config", printed, "--print_config")
    assert yaml.safe_load(again.out) == yaml.safe_load(result.out)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_no_command_is_help(workshop, arguments):
    result = workshop.nbg(*arguments)
    assert result.code == 0
    assert result.out.startswith("usage: nbg COMMAND")


def test_version(workshop):
    assert workshop.nbg("--version").out.startswith("nbg_lightning 0.")


def test_unknown_command(workshop):
    result = workshop.nbg("fitt")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert result.err == "nbg: error: no command 'fitt' (did you mean fit?); nbg --help lists all commands\n"
    assert "; there are: fit, validate, " in workshop.nbg("zzz").err


def test_fit_without_config_says_what_to_give(workshop):
    result = workshop.nbg("fit")
    assert result.code == 2
    assert (
        result.err
        == "nbg fit: error: there is no model; give --config FILE, such as --config configs/pretrain/quickstart.yaml, "
        "or --model NAME, such as --model PretrainModule\n"
    )


# -- errors in one line -------------------------------------------------------------------------------------------------


def test_debug_shows_the_traceback(workshop):
    with pytest.raises(ValueError, match="there is no model"):
        workshop.nbg("fit", "--debug")


# -- the noise of other libraries ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def loud(workshop):
    """A whole run in a process of its own."""
    folder = workshop.folder / "loud"
    process = workshop.start("fit", "--config", workshop.yaml, "--trainer.default_root_dir", folder)
    return folder, workshop.finish(process)


def test_output_is_ours_only(loud):
    _, result = loud
    assert result.code == 0, result.err
    foreign = [line for line in result.err.splitlines() if line.strip() and not line.startswith(OURS)]
    assert foreign == []
    assert "warmup" in result.out  # the table


# -- configs, precedence, seed ------------------------------------------------------------------------------------------


def test_later_wins(workshop):
    """--config a --config b --key v, from left to right; what b does not name stays as a has it (Lightning#17533)."""
    b = workshop.write("b.yaml", {"model": {"init_args": {"micro_batch_tokens": 1024, "max_grad_norm": 2.0}}})

    def printed(*arguments):
        result = workshop.nbg("fit", *arguments, "--print_config")
        assert result.code == 0, result.err
        return yaml.safe_load(result.out)["model"]["init_args"]

    found = printed("--config", workshop.yaml, "--config", b)
    assert (found["core"], found["micro_batch_tokens"], found["max_grad_norm"]) == ("nano", 1024, 2.0)
    found = printed("--config", workshop.yaml, "--config", b, "--model.init_args.micro_batch_tokens", "77")
    assert (found["core"], found["micro_batch_tokens"], found["max_grad_norm"]) == ("nano", 77, 2.0)
    found = printed("--config", workshop.yaml, "--model.init_args.micro_batch_tokens", "77", "--config", b)
    assert found["micro_batch_tokens"] == 1024


def test_one_seed_reaches_everything(workshop, run, tmp_path):
    import lightning.pytorch as pl

    from nbg_lightning.commands.trainer import TrainerCLI
    from nbg_lightning.trainer import Trainer

    class Built(TrainerCLI):
        def _run_subcommand(self, subcommand):
            """Only build."""

    arguments = ["fit", "--config", workshop.yaml, "--trainer.default_root_dir", str(tmp_path), "--seed", "7"]
    pl.seed_everything(7, workers=True, verbose=False)
    expected = torch.randn(1)
    cli = Built(trainer_class=Trainer, seed_everything_default=False, auto_configure_optimizers=False, args=arguments)
    assert cli.model.seed == cli.datamodule.seed == 7
    assert os.environ["PL_GLOBAL_SEED"] == "7"
    pl.seed_everything(7, workers=True, verbose=False)
    assert torch.equal(torch.randn(1), expected)


def test_same_seed_same_run_other_seed_other_run(workshop, run, loud, tmp_path):
    same, _ = loud
    assert workshop.table(same) == workshop.table(run)
    assert workshop.chain(same) == workshop.chain(run)
    other = tmp_path / "other"
    assert workshop.fit(other, "--seed", "1").code == 0
    assert workshop.chain(other) != workshop.chain(run)
    assert workshop.table(other)["warmup"]["val/loss"] != workshop.table(run)["warmup"]["val/loss"]


def test_the_run_keeps_its_config(workshop, run):
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["seed"] == 0
    assert saved["data"]["init_args"]["validation_rows"] == 16  # defaults too
    assert saved["trainer"]["callbacks"][0]["init_args"]["tokens_per_step"] == 512
    assert workshop.nbg("fit", "--config", run / "config.yaml", "--print_config").code == 0


# -- stop, resume, evaluate ---------------------------------------------------------------------------------------------


def test_resume_last(workshop, run, tmp_path):
    """The first half, then the rest: the same samples, and the same losses, as in one piece."""
    assert workshop.fit(tmp_path, "--trainer.max_steps", 4).code == 0
    assert list(workshop.table(tmp_path)) == ["warmup", "stable"]
    result = workshop.fit(tmp_path, "--ckpt_path", "last")
    assert result.code == 0, result.err
    assert workshop.chain(tmp_path) == workshop.chain(run)
    # The checkpoint of step 4 is older than the validation after that step: its row comes from the file.
    assert workshop.table(tmp_path) == workshop.table(run)


def test_resume_without_a_checkpoint_begins(workshop, run, tmp_path, caplog):
    """A job that was killed before its first checkpoint is started again by the same line."""
    partial = tmp_path / "checkpoints" / "step-00000002.partial"
    partial.mkdir(parents=True)
    (partial / "__0_0.distcp").write_bytes(b"half")
    result = workshop.fit(tmp_path, "--ckpt_path", "last")
    assert result.code == 0, result.err
    assert f"no checkpoint in {tmp_path}/checkpoints yet: training begins at step 0" in caplog.text
    assert workshop.chain(tmp_path) == workshop.chain(run)
    assert not partial.exists()


def test_a_damaged_last_checkpoint_is_named(workshop, run, tmp_path):
    shutil.copytree(run / "checkpoints", tmp_path / "checkpoints")
    last = tmp_path / "checkpoints" / "step-00000006"
    (last / "meta.pt").unlink()
    result = workshop.fit(tmp_path, "--ckpt_path", "last")
    assert result.code == 2
    assert result.err == (
        f"nbg fit: error: checkpoint {last} is damaged: files are missing; move it away, or name another: "
        "step-00000002, step-00000004\n"
    )


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_evaluation_without_a_checkpoint_is_an_error(workshop, tmp_path, command):
    arguments = ["--config", workshop.yaml, "--trainer.default_root_dir", tmp_path, "--ckpt_path", "last"]
    result = workshop.nbg(command, *arguments)
    assert result.code == 2
    assert f"ckpt_path is invalid: last; there is no complete checkpoint in {tmp_path}/checkpoints" in result.err


def test_resume_from_nowhere_names_the_neighbours(workshop, run, tmp_path):
    result = workshop.fit(tmp_path, "--ckpt_path", run / "checkpoints" / "step-00000005")
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert "no checkpoint at" in result.err
    assert "did you mean" in result.err and "step-00000006?" in result.err


@pytest.mark.parametrize("command", ["validate", "test"])
def test_evaluation_of_a_checkpoint(workshop, run, command):
    result = workshop.nbg(command, "--config", workshop.yaml, "--ckpt_path", run / "checkpoints" / "step-00000006")
    assert result.code == 0, result.err
    printed = re.search(r"^val/loss +([\d.]+)$", result.out, re.M)[1]
    assert f"{float(printed):.4g}" == f"{workshop.table(run)['decay']['val/loss']:.4g}"
    assert len(printed) > len("0.1234")  # all digits, and once
    assert result.out.count("val/loss ") == 1


def test_prediction_is_kept(workshop, run):
    arguments = ["--config", workshop.yaml, "--trainer.default_root_dir", run, "--ckpt_path", "last"]
    result = workshop.nbg("predict", *arguments)
    assert result.code == 0, result.err
    assert f"predictions: {run}/predictions-0.pt" in result.out
    rows = [row for batch in torch.load(run / "predictions-0.pt", weights_only=True) for row in batch]
    assert rows[0]["tokens"].shape == rows[0]["losses"].shape == (64,)
    total = sum(row["losses"].sum().item() for row in rows)
    tokens = sum((row["losses"] > 0).sum().item() for row in rows)
    assert total / tokens == pytest.approx(workshop.table(run)["decay"]["val/loss"], rel=1e-5)


def test_signals_save_and_say_how_to_go_on(workshop, tmp_path):
    """Two long runs; one gets a scheduler's SIGTERM, the other Ctrl-C as a terminal sends it: to the whole group."""

    def longer(config):
        config["trainer"]["callbacks"][0]["init_args"]["stages"][1]["tokens"] = 512 * 5000
        config["trainer"]["val_check_interval"] = 4000
        config["data"]["init_args"]["num_workers"] = 1

    config = workshop.changed("longer.yaml", longer)
    folders = {signal.SIGTERM: tmp_path / "term", signal.SIGINT: tmp_path / "int"}
    processes = {
        number: workshop.start("fit", "--config", config, "--trainer.default_root_dir", folder)
        for number, folder in folders.items()
    }
    for number, folder in folders.items():
        process, end = processes[number], time.monotonic() + 90
        while not (folder / "checkpoints" / "step-00000004").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.05)
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    for number, folder in folders.items():
        result = workshop.finish(processes[number])
        assert result.code == 128 + number, result.err
        assert "Traceback" not in result.err
        step = int(max(path.name for path in (folder / "checkpoints").iterdir()).removeprefix("step-"))
        assert f"stopped by {number.name} after step {step}; go on with: --ckpt_path last" in result.out
        # And it does go on.
        result = workshop.fit(folder, "--ckpt_path", "last", "--trainer.max_steps", step + 1, config=config)
        assert result.code == 0, result.err
        assert (folder / "checkpoints" / f"step-{step + 1:08d}").is_dir()


def test_ctrl_c_before_training(workshop, monkeypatch):
    from nbg_lightning.datamodules.curriculum import CurriculumDataModule

    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(CurriculumDataModule, "prepare_data", interrupt)
    before = signal.getsignal(signal.SIGINT)
    try:
        result = workshop.fit(workshop.folder / "never")
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning turns it off while it ends
    assert (result.code, result.err) == (130, "nbg fit: interrupted\n")


# -- two ranks ----------------------------------------------------------------------------------------------------------


def test_two_ranks_are_the_same_run(workshop, run):
    folder = workshop.folder / "two"
    process = workshop.start(
        "fit", "--config", workshop.yaml, "--trainer.default_root_dir", folder, "--trainer.devices", 2
    )
    result = workshop.finish(process)
    assert result.code == 0, result.err
    assert workshop.chain(folder) == workshop.chain(run)
    one, two = workshop.table(run), workshop.table(folder)
    for stage, row in one.items():
        assert two[stage] == pytest.approx(row, rel=1e-5)
    assert result.err.count("saved ") == 3  # said once
    assert [line for line in result.err.splitlines() if line.strip() and not line.startswith(OURS)] == []


def test_an_error_of_two_ranks_is_told_once_and_both_end(workshop):
    def three_windows(config):
        table = config["trainer"]["callbacks"][0]["init_args"]
        table["tokens_per_step"] = 384  # three windows of 128

    config = workshop.changed("three.yaml", three_windows)
    folder = workshop.folder / "odd"
    process = workshop.start("fit", "--config", config, "--trainer.default_root_dir", folder, "--trainer.devices", 2)
    result = workshop.finish(process)
    assert result.code == 2, result.err
    assert result.err.count("error:") == 1
    assert (
        "2 ranks do not divide the 3 windows of a step in stage 'decay'; make tokens_per_step a multiple of 2 x 128"
        in (result.err)
    )
    assert "Traceback" not in result.err  # and both have ended: `finish` waits for all that hold the pipes


LATE = """
import os
import time

import lightning.pytorch as pl


class Late(pl.Callback):
    def __init__(self, code: int):
        self.code = code

    def teardown(self, trainer, pl_module, stage):
        if trainer.global_rank == 1:
            time.sleep(2.0)
            self.lines = open("late.txt", "w")  # and never closed
            self.lines.write("last line")
            if self.code:
                os._exit(self.code)
"""


@pytest.mark.parametrize("code", [0, 7])
def test_the_first_rank_waits_for_the_others(workshop, code):
    """What a callback of another rank does at the end is neither cut off nor, where it fails, lost."""
    (workshop.folder / "my_late.py").write_text(LATE)
    (workshop.folder / "late.txt").unlink(missing_ok=True)
    late = ("--trainer.callbacks+", "my_late.Late", f"--trainer.callbacks.code={code}")
    line = ("fit", "--config", workshop.yaml, "--trainer.default_root_dir", workshop.folder / f"late-{code}")
    result = workshop.finish(workshop.start(*line, "--trainer.devices", 2, "--trainer.max_steps", 2, *late))
    assert result.code == code, result.err
    assert (workshop.folder / "late.txt").read_text() == ("" if code else "last line")
    assert ("rank 1 ended with exit code 7 after the first one was done" in result.err) == bool(code)


RAISES = """
import lightning.pytorch as pl


class Raises(pl.Callback):
    def __init__(self, name: str):
        self.name = name

    def on_fit_end(self, trainer, pl_module):
        raise {"bug": AssertionError("a bug"), "exit": SystemExit(0)}[self.name]
"""


@pytest.mark.parametrize(("name", "codes"), [("bug", {1, 2}), ("exit", {0})])
def test_what_nobody_catches_ends_ranks_as_it_ends_a_process(workshop, name, codes):
    """With a traceback from the rank that tells it, whose code is 1; the first rank's is 2 where that is another one."""
    (workshop.folder / "my_raises.py").write_text(RAISES)
    raises = ("--trainer.callbacks+", "my_raises.Raises", f"--trainer.callbacks.name={name}")
    line = ("fit", "--config", workshop.yaml, "--trainer.default_root_dir", workshop.folder / f"raises-{name}")
    result = workshop.finish(workshop.start(*line, "--trainer.devices", 2, "--trainer.max_steps", 2, *raises))
    assert result.code in codes, result.err
    assert result.err.count("AssertionError: a bug") == (name == "bug")


def test_a_checkpoint_behind_a_url_is_resumed_and_begun_from(workshop, tmp_path):
    """By the command, which asks the store and not this machine's folders."""

    def into_the_store(config):
        config["trainer"]["callbacks"][1]["init_args"] |= {"dirpath": "memory://store/run"}

    config = workshop.changed("store.yaml", into_the_store)
    whole = workshop.fit(tmp_path / "whole", config=config)
    assert whole.code == 0, whole.err
    resumed = workshop.fit(tmp_path / "resumed", "--ckpt_path", "memory://store/run/step-00000004")
    assert resumed.code == 0, resumed.err
    assert workshop.table(tmp_path / "resumed")["decay"] == workshop.table(tmp_path / "whole")["decay"]
    begun = workshop.fit(tmp_path / "begun", "--model.base_weights", "memory://store/run")
    assert begun.code == 0, begun.err
    losses = [workshop.table(tmp_path / name)["warmup"]["val/loss"] for name in ("begun", "whole")]
    assert losses[0] < losses[1] - 0.5
    missing = workshop.fit(tmp_path / "missing", "--ckpt_path", "memory://store/run/step-00000005")
    assert missing.code and "memory://store/run/step-00000005" in missing.err.splitlines()[-1]
