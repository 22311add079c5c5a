"""A suite on a module that is being trained or tested, which leaves no trace in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng

from nbg_lightning.core.sharding import reshard
from nbg_lightning.data.tokenizer import Tokenizer
from nbg_lightning.evaluation.fingerprint import weights_fingerprint
from nbg_lightning.evaluation.results import SuiteResult
from nbg_lightning.evaluation.suite import Suite

if TYPE_CHECKING:
    from nbg_lightning.modules.base import LanguageModule


@contextmanager
def undisturbed(module: LanguageModule, averaged: bool) -> Iterator[None]:
    """Evaluate inside: afterwards random states, training mode, weights and shards are as they were.

    Args:
        module: whose model is evaluated.
        averaged: put in the averaged weights, where the module keeps them.
    """
    training = module.training
    module.eval()
    reshard(module.model)
    swapped = module.ema.swapped_in(module.model) if averaged and module.ema_decay is not None else nullcontext()
    try:
        with isolate_rng(), torch.no_grad(), swapped:
            yield
            reshard(module.model)  # before the weights are swapped back
    finally:
        module.train(training)


def run_on_module(
    suite: Suite,
    module: LanguageModule,
    tokenizer: Tokenizer,
    folder: str | Path | None,
    label: str,
    averaged: bool = True,
    **engine_options: Any,
) -> SuiteResult:
    """Run a suite on a module's live weights. All ranks call it together.

    Args:
        suite: what is asked.
        module: with a model.
        tokenizer: the model's.
        folder: see `Suite.run`.
        label: see `Suite.run`.
        averaged: see `undisturbed`.
        **engine_options: go to `NativeEngine`.
    """
    from nbg_lightning.rollout.native import NativeEngine

    with undisturbed(module, averaged), NativeEngine(module.model, tokenizer.decode, **engine_options) as engine:
        return suite.run(engine, tokenizer, None, folder, label, weights_fingerprint(module.model))


def print_table(result: SuiteResult) -> None:
    """The table, and where to read what was written."""
    from rich.console import Console

    console = Console()
    console.print(result.table())
    if result.folder is not None:
        console.print(f"every item, with what was written: {result.folder}", soft_wrap=True)
