"""The commands that run Lightning's Trainer, and Trainer options that would not do what they say here.

Options are checked twice: in configs, before torch is imported, and when a `Trainer` is created or used in Python.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

TRAINER_COMMANDS = {
    "fit": "train: nbg fit --config configs/pretrain/quickstart.yaml",
    "validate": "compute the validation loss of a checkpoint: nbg validate --config ... --ckpt_path ...",
    "test": "run a benchmark suite, or a checkpoint's validation by trainer.test: nbg test --config configs/benchmark/small.yaml",
    "predict": "compute the loss of every token: nbg predict --config ... --ckpt_path ...",
}
_LENGTH = "the stages or the schedule decide the length: raise their tokens or steps, and data are repeated"
_BATCH = "a batch is one whole optimizer step: set model.init_args.micro_batch_tokens to what memory holds"
_FEW = "give a source of a few samples, and stages of more tokens than it has"
_STRATEGY = (
    "leave it out (FSDP2Strategy shards over all devices, also over one), or give class_path nbg_lightning.FSDP2Strategy with "
    "init_args"
)
# Not MASTER_ADDR, which a training of one node leaves in its process.
LAUNCHER_VARIABLES = (
    *("TORCHELASTIC_RUN_ID", "NODE_RANK", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"),
    *("LSB_JOBID", "RANK", "WORLD_SIZE"),
)


class Refusal(NamedTuple):
    """An option, when it is rejected, and what to do.

    Attributes:
        name: name of the option.
        is_wrong: whether a given value is rejected.
        instead: what to set instead.
    """

    name: str
    is_wrong: Callable[[Any], bool]
    instead: str


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_word(value: Any) -> bool:
    """Whether it is a name of Lightning's rather than a class."""
    return isinstance(value, str) and bool(re.fullmatch(r"[a-z0-9_]+", value))


ALWAYS = (
    Refusal(
        "precision",
        lambda value: value not in (None, 32, "32", "32-true"),
        "it would cast behind FSDP2's back: leave it out, and set model.init_args.parallel.compute_dtype to bfloat16",
    ),
    Refusal("strategy", lambda value: value != "auto" and _is_word(value), _STRATEGY),
    Refusal(
        "accelerator",
        lambda value: isinstance(value, str) and value.lower() not in ("auto", "cpu", "cuda", "gpu"),
        "models are sharded over cpu or cuda: write one of them, or auto",
    ),
    Refusal(
        "devices", lambda value: _number(value) and value < 1 and value != -1, "give a number from 1, or auto for all"
    ),
    Refusal(
        "devices",
        lambda value: isinstance(value, str) and not re.fullmatch(r"auto|-1|\d+(\s*,\s*\d+)*,?", value.strip()),
        "give a number from 1, a list of GPUs, or auto for all",
    ),
    Refusal("num_nodes", lambda value: _number(value) and value < 1, "give a number from 1"),
    Refusal(
        "max_steps", lambda value: _number(value) and value < -1, "give a number of steps from 0, or -1 for no limit"
    ),
)
"""Rejected with any module."""

STEPS = (
    Refusal("max_epochs", lambda value: value not in (None, 1, 0, -1), _LENGTH),
    Refusal("min_epochs", lambda value: value not in (None, 0, 1), _LENGTH),
    Refusal("reload_dataloaders_every_n_epochs", bool, _LENGTH),
)
"""Rejected with datamodules that count steps."""

TRAINING = (
    Refusal("accumulate_grad_batches", lambda value: value not in (None, 1), _BATCH),
    Refusal("gradient_clip_val", bool, "set model.init_args.max_grad_norm"),
    Refusal(
        "gradient_clip_algorithm",
        lambda value: value == "value",
        "the norm is clipped: set model.init_args.max_grad_norm",
    ),
    Refusal("overfit_batches", bool, _FEW),
    Refusal(
        "num_nodes",
        lambda value: _number(value) and value > 1 and not any(name in os.environ for name in LAUNCHER_VARIABLES),
        "nothing starts the other nodes: run the command by torchrun or Slurm on each of them (docs/clusters.md)",
    ),
)
"""Rejected when training one of the library's modules."""


def refuse(options: Mapping[str, Any], refusals: tuple[Refusal, ...]) -> None:
    """Raise for the first rejected option.

    Args:
        options: values by name; absent ones are not checked.
        refusals: the rules that apply.

    Raises:
        ValueError: with what to set instead.

    Example:
        >>> refuse({"gradient_clip_val": 1.0}, TRAINING)
        Traceback (most recent call last):
        ValueError: trainer.gradient_clip_val is invalid with this module: 1.0; set model.init_args.max_grad_norm
    """
    for name, is_wrong, instead in refusals:
        if name in options and is_wrong(options[name]):
            if refusals is ALWAYS:
                raise ValueError(f"trainer.{name} is invalid: {options[name]}; {instead}")
            raise ValueError(f"trainer.{name} is invalid with this module: {options[name]}; {instead}")
