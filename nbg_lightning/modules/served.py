"""A module without a model, for benchmarks of a served model."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from typing_extensions import override

from nbg_lightning.contracts import datamodule_of
from nbg_lightning.core.checkpoint_folder import checkpoint_at
from nbg_lightning.datamodules.benchmark import BenchmarkDataModule
from nbg_lightning.engines.capabilities import takes_weights


class ServedModel(pl.LightningModule):
    """Stands in for the module in ``trainer.test`` if all answers come from an engine with its own weights.

    No weights are loaded here, so ``nbg test`` on a hosted model needs no memory for it.

    Args:
        base_weights: where `BenchmarkDataModule` finds the tokenizer, unless it is given one; nothing else is read.
        seed: unused; every module in YAML accepts it.
    """

    def __init__(self, base_weights: str | None = None, seed: int = 0):
        super().__init__()
        self.base_weights = None if base_weights is None else checkpoint_at(base_weights)
        self.seed = seed

    @override
    def configure_callbacks(self) -> list[pl.Callback]:
        data = datamodule_of(self.trainer)
        if not isinstance(data, BenchmarkDataModule) or takes_weights(data.engine):
            raise ValueError(
                "ServedModel has no weights; give BenchmarkDataModule an engine that has its own, such as ServerEngine, or "
                "use another module"
            )
        return data.callbacks()

    @override
    def configure_model(self) -> None:
        """Build nothing."""

    @override
    def validation_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        return None

    @override
    def test_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        return None
