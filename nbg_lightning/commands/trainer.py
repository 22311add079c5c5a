"""`nbg fit|validate|test|predict`: LightningCLI with the library's trainer, one seed, and quiet logs."""

from __future__ import annotations

import argparse
import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from typing_extensions import override

from nbg_lightning import log, stopping
from nbg_lightning.callbacks.checkpoint import kept
from nbg_lightning.callbacks.graceful_stop import stop_signal
from nbg_lightning.commands.meant import unrecognized, with_suggestion
from nbg_lightning.commands.moved_keys import with_moved_keys
from nbg_lightning.commands.precheck import NO_MODEL
from nbg_lightning.commands.short_arguments import expand_arguments
from nbg_lightning.config_files import read_yaml
from nbg_lightning.credentials import redacted
from nbg_lightning.error_line import one_line
from nbg_lightning.last_words import speaks
from nbg_lightning.quiet import quiet_libraries
from nbg_lightning.strategy import RankLauncher
from nbg_lightning.trainer import Trainer

_OPTIONS = ("--config", "--seed", "--model", "--data", "--trainer", "--ckpt_path", "--print_config", "--verbose")
_SPOKEN = "nbg_lightning/error"  # in the store of the ranks: how many had something to say


class SaveConfig(SaveConfigCallback):
    """Writes the whole configuration of a run beside its logs; resumed runs write theirs again."""

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.is_global_zero and stage == "fit":
            path = Path(trainer.default_root_dir) / "config.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            self.parser.save(
                redacted(self.config), path, skip_unset=False, overwrite=True, multifile=False, skip_validation=True
            )


class TrainerCLI(LightningCLI):
    """LightningCLI whose ``--seed`` reaches model, data order and Lightning alike."""

    @override
    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Omit ``--seed_everything``: a second seed besides ours would not affect the data order."""

    @override
    def _set_seed(self) -> None:
        """See `before_instantiate_classes`."""

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--seed", type=int, default=0, help="seed of the initial weights and of the data order")
        parser.link_arguments("seed", "model.init_args.seed")
        parser.link_arguments("seed", "data.init_args.seed")

    @override
    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand] if self.subcommand else self.config
        pl.seed_everything(config["seed"], workers=True, verbose=False)

    def before_fit(self) -> None:
        """A run that is stopped before its first step says where it stands, too."""
        if (handler := stopping.current()) is not None:
            handler.kept = lambda: kept(self.trainer)

    def after_predict(self) -> None:
        """Keep what a long run has computed: LightningCLI would drop it."""
        path = Path(self.trainer.default_root_dir) / f"predictions-{self.trainer.global_rank}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(self.trainer.predict_loop.predictions, path)
        print(f"predictions: {path}")


_CLI_OPTIONS: dict[str, Any] = dict(
    trainer_class=Trainer,
    save_config_callback=SaveConfig,
    seed_everything_default=False,
    parser_kwargs={"default_env": False, "exit_on_error": False},
    auto_configure_optimizers=False,
)


class _ParsingCLI(TrainerCLI):
    """Reads options and configs, and builds and runs nothing."""

    @override
    def before_instantiate_classes(self) -> None:
        """Nothing is built, so nothing is random."""

    @override
    def instantiate_classes(self) -> None:
        """Nothing is built."""

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run."""


def parse(argv: list[str]) -> Namespace:
    """The config as `nbg fit|validate|test|predict` understands it; nothing is built.

    Args:
        argv: the command and its options.

    Raises:
        ValueError: it is not understood.
    """
    quiet_libraries()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "LightningCLI's args parameter")
            cli = _ParsingCLI(**_CLI_OPTIONS, args=with_moved_keys(expand_arguments(argv)))
    except argparse.ArgumentError as error:
        raise ValueError(_explained(str(error), argv)) from error
    return cli.config[argv[0]]


def _speaks() -> bool:
    """Whether this process tells the error: of several ranks that fail together or one by another, only the first."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        try:
            return dist.distributed_c10d._get_default_store().add(_SPOKEN, 1) == 1
        except RuntimeError:
            return False  # the rank that keeps the store has left, and did not do so silently
    return speaks()


def main(argv: list[str]) -> int:
    """Parse, run, and answer with an exit code: 0, 2 after an error, or 128 + the signal that ended training early.

    Raises:
        ValueError: options, config or data are wrong.
        OSError: a file or disk is.
    """
    quiet_libraries()
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    try:
        return _run(argv)
    except stopping.Stopped:
        _tell_other_ranks()
        raise
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning makes this exit code 1 of it
            raise KeyboardInterrupt from None
        raise
    except Exception as error:
        if not _speaks():
            return 2
        if isinstance(error, argparse.ArgumentError):
            raise ValueError(_explained(str(error), argv)) from error
        if isinstance(error, MisconfigurationException):
            raise ValueError(str(error)) from error
        if isinstance(error, dist.DistNetworkError) and "EADDRINUSE" in str(error):
            raise ValueError(
                f"MASTER_PORT is invalid: {os.environ.get('MASTER_PORT')}; another process listens there: end it, or give "
                "another port (nbg picks a free one without the variable)"
            ) from error
        raise


def _explained(message: str, argv: list[str]) -> str:
    """A parser's message, and where to look."""
    command = argv[0]
    if message.endswith(f"arguments are required: {command}.model"):
        return NO_MODEL
    if "not accept" in message or "unrecognized" in message:
        lists = f"nbg {command} --help lists options, nbg {command} --data.help CLASS those of a class"
        return f"{with_suggestion(unrecognized(one_line(message), command, _OPTIONS))} ({lists})"
    if "Problems parsing config" in message:
        return f"{_first_unreadable(argv)} is not YAML: {one_line(message)}"
    return with_suggestion(one_line(message))


def _first_unreadable(argv: list[str]) -> str:
    """The config that the parser's message does not name."""
    for argument in argv:
        path = Path(argument.removeprefix("--config="))
        if path.is_file():
            try:
                read_yaml(path)
            except ValueError:
                return str(path)
    return "the config"


def _tell_other_ranks() -> None:
    """A rank that leaves breaks what the others wait for: they need not say so."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        with suppress(RuntimeError):  # the rank that keeps the store has left
            dist.distributed_c10d._get_default_store().add(_SPOKEN, 1)


def _run(argv: list[str]) -> int:
    cli = TrainerCLI(**_CLI_OPTIONS, args=with_moved_keys(expand_arguments(argv, log.info)))
    handler = stopping.current()
    received = stop_signal(cli.trainer) or (None if handler is None else handler.received)
    launcher = cli.trainer.strategy.launcher
    failed = launcher.wait() if isinstance(launcher, RankLauncher) else 0
    if received is None:
        return failed
    if cli.trainer.is_global_zero:
        print(f"stopped by {received.name} after step {cli.trainer.global_step}; {kept(cli.trainer)}", flush=True)
    return 128 + int(received)
