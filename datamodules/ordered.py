"""Windows of tokens in an order that is a pure function."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from nbg_lightning.core.batch import PackedBatch
from nbg_lightning.data.order import SampleOrder, Samples, sample_hash
from nbg_lightning.datamodules.ahead import ReadAhead, places
from nbg_lightning.datamodules.steps import StepDataModule

# Tokens, labels, positions and loss weights (or None) of one window.
TokenWindow = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]


class OrderedDataModule(StepDataModule):
    """Serves windows of tokens, each read individually, in the order of a mixture plan.

    Subclasses define `source_windows`, `read` and `fingerprints`.

    Args:
        seed: seed of the order.
        num_workers: processes that prefetch rows; 0 reads in the main process.
    """

    @abstractmethod
    def read(self, source: str, window: int, length: int) -> TokenWindow:
        """Read one window of a source. Called in workers: it may use only this object's plain attributes."""

    @property
    def windows_ahead(self) -> int:
        """Number of windows that a worker prefetches beyond the current step: above 0 only if reads wait for a network."""
        return 0

    def step_dataset(self, order: SampleOrder) -> Dataset[Any]:
        return StepDataset(self, order)


class StepDataset(Dataset[Any]):
    """Reads the rows of one rank's share of a step, in a worker."""

    def __init__(self, datamodule: OrderedDataModule, order: SampleOrder):
        plan = order.plan
        self.read, self.seed = datamodule.read, datamodule.seed
        self.lengths = [plan.sequence_length_of(stage) for stage in range(len(plan.stages))]
        self.sources = plan.sources
        self.ahead = ReadAhead(self.read_row, order, datamodule.windows_ahead) if datamodule.windows_ahead else None

    def read_row(self, stage: int, source: int, window: int) -> Any:
        """A window of a source, both given by their index in the plan."""
        return self.read(self.sources[source], window, self.lengths[stage])

    def rows(self, samples: Samples) -> list[Any]:
        """The rows of samples."""
        if self.ahead is not None:
            return self.ahead.rows(samples)
        return [self.read_row(*place) for place in places(samples)]

    def __getitem__(self, samples: Samples) -> PackedBatch:
        hashes = sample_hash(self.seed, samples).view(np.int64)
        return stack_rows(self.rows(samples), samples.source, hashes)


def stack_rows(rows: list[TokenWindow], source: np.ndarray, hashes: np.ndarray) -> PackedBatch:
    """Stack rows of equal length into a batch."""
    tokens, labels, positions, weights = zip(*rows, strict=True)
    return PackedBatch(
        tokens=torch.from_numpy(np.stack(tokens)),
        labels=torch.from_numpy(np.stack(labels)),
        positions=torch.from_numpy(np.stack(positions)),
        weights=None if weights[0] is None else torch.from_numpy(np.stack(weights)),
        source=torch.from_numpy(np.asarray(source, dtype=np.int64)),
        sample_hash=torch.from_numpy(np.asarray(hashes, dtype=np.int64)),
    )
