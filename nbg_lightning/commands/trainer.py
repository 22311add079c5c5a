"""`nbg fit|validate|test|predict`: LightningCLI with the library's trainer, one seed, and quiet logs."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from typing_extensions import override

from nbg_lightning.callbacks.graceful_stop import GracefulStop
from nbg_lightning.trainer import Trainer


class SaveConfig(SaveConfigCallback):
    """Writes the whole configuration of a run beside its logs; resumed runs write theirs again."""

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.is_global_zero and stage == "fit":
            path = Path(trainer.default_root_dir) / "config.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, path, skip_none=False, overwrite=True, multifile=False, skip_validation=True)


class TrainerCLI(LightningCLI):
    """LightningCLI whose ``--seed`` reaches model, data order and Lightning alike."""

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--seed", type=int, default=0, help="of the weights and of the data order")
        parser.link_arguments("seed", "model.init_args.seed")
        parser.link_arguments("seed", "data.init_args.seed")

    @override
    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand] if self.subcommand else self.config
        pl.seed_everything(config["seed"], workers=True, verbose=False)


def _quiet() -> None:
    """Hide what is noise in every run; errors and the library's own messages stay."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("nbg_lightning").setLevel(logging.INFO)
    for name in ("lightning", "torchao", "torchtitan", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("lightning.utilities.rank_zero").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning|torch|torchtitan|torchao")


def main(argv: list[str]) -> int:
    """Parse, run, and answer with an exit code: 0, or 128 + the signal that ended training early."""
    _quiet()
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    cli = TrainerCLI(
        trainer_class=Trainer,
        save_config_callback=SaveConfig,
        seed_everything_default=False,
        parser_kwargs={"default_env": False},
        auto_configure_optimizers=False,
        args=argv,
    )
    stops = [callback for callback in cli.trainer.callbacks if isinstance(callback, GracefulStop)]
    received = stops[0].received if stops else None
    if received is None:
        return 0
    if cli.trainer.is_global_zero:
        print(f"stopped by {received.name} after step {cli.trainer.global_step}; go on with: --ckpt_path last")
    return 128 + int(received)
