"""Filters for messages that other libraries print in every run and that users cannot act on."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Any

from typing_extensions import override


class _StandardError(logging.Handler):
    """Prints to what is standard error now: a progress bar puts itself in its place, to stay below the lines."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


_NOISE = (  # regular expressions for the beginning of a warning, and why it is not needed
    (
        r"You have overridden `on_before_batch_transfer` in `LightningModule`",
        "the module cuts batches, whatever the datamodule",
    ),
    (
        r"You're resuming from a checkpoint that ended before the epoch ended",
        "the datamodules' order is a function of the step",
    ),
    (r"It is recommended to use `self\.log\(.*sync_dist", "the modules reduce sums and counts themselves"),
    (r"The number of training batches \(\d+\) is smaller than the logging interval", "the end of training is logged"),
    (r"The '\w+_dataloader' does not have many workers", "packed rows are read from memory maps"),
    (r".*is set, but there is no last checkpoint available", "StepCheckpoint says it"),
    (r"Checkpoint directory .* exists and is not empty", "a resumed run has one folder"),
    (r"Experiment logs directory .* exists", "a resumed run has one folder"),
    (r"LightningCLI's args parameter is intended to run from within Python", "it does"),
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", "Lightning's call, which works"),
    (r"Please use DTensor instead and we are deprecating ShardedTensor", "torch's own call"),
    (r"TypedStorage is deprecated", "torch's own call"),
    (r"No device id is provided via `init_process_group`", "ranks have one device each"),
    (r"Total length of `\w+` across ranks is zero", "GRPO without held-out questions has nothing to validate"),
    (r"Trying to infer the `batch_size` from an ambiguous collection", "metrics are weighted by their own counts"),
)


def quiet_libraries() -> None:
    """Hide known noise by name; other warnings, errors and the library's own messages stay visible."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.formatwarning = _one_line  # type: ignore[assignment]  # a name that Python lets be replaced
    quiet_training()


def quiet_training() -> None:
    """Hide messages that Lightning and torch print in every training run, and show the library's own; also for use in
    scripts.
    """
    logging.basicConfig(format="%(message)s", handlers=[_StandardError()])
    logging.getLogger("nbg_lightning").setLevel(logging.INFO)
    # Lightning's loggers have levels and handlers of their own, so that the parent's would not reach them.
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "torchao", "torchtitan", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for start, _reason in _NOISE:
        warnings.filterwarnings("ignore", start)


def _one_line(message: Warning | str, *_: Any) -> str:
    """A warning without the line of code that gave it."""
    return f"warning: {' '.join(str(message).split())}\n"
