"""A small recorded run on synthetic data."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from typing_extensions import override

from nbg_lightning.callbacks.checkpoint import StepCheckpoint
from nbg_lightning.callbacks.fg_wsd import FGWSD
from nbg_lightning.callbacks.retention import Keep
from nbg_lightning.callbacks.throughput import Throughput
from nbg_lightning.core.batch import PackedBatch, packed_row
from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig
from nbg_lightning.core.names import clean_name
from nbg_lightning.core.sharding import reshard
from nbg_lightning.datamodules.ordered import OrderedDataModule, TokenWindow, stack_rows
from nbg_lightning.modules.base import LanguageModule
from nbg_lightning.modules.pretrain import PretrainModule
from nbg_lightning.schedule.curriculum import Stage
from nbg_lightning.trainer import Trainer


def forget_digests(checkpoint: Path) -> None:
    """Remove a checkpoint's digests, so that its files may be changed."""
    (checkpoint / "digests.json").unlink()
    meta = torch.load(checkpoint / "meta.pt", weights_only=True)
    del meta["digests"]
    torch.save(meta, checkpoint / "meta.pt")


# -- made-up data ------------------------------------------------------------------------------------------------------


class SyntheticDataModule(OrderedDataModule):
    """Synthetic documents: in each source the next token is a fixed function of the last, with some noise.

    A model can learn this within a few steps, differently for each source. Each window is a function of
    (source, window, length) only.

    Args:
        windows: number of windows of each source, for any length.
        vocab_size: ids are in ``[0, vocab_size)``.
        document_tokens: length of documents, which are cut at window boundaries.
        noise: share of random tokens.
        seed: seed of the data order.
        num_workers: number of data loader processes.
    """

    def __init__(
        self,
        windows: dict[str, int],
        vocab_size: int,
        document_tokens: int = 12,
        noise: float = 0.1,
        seed: int = 0,
        num_workers: int = 0,
    ):
        super().__init__(seed, num_workers)
        if document_tokens < 1:
            raise ValueError(f"document_tokens is invalid: {document_tokens}; give at least 1")
        self.windows, self.vocab_size = windows, vocab_size
        self.document_tokens, self.noise = document_tokens, noise
        self.bytes_per_token = {name: 2.0 + index for index, name in enumerate(windows)}

    @override
    def source_windows(self, source: str, length: int) -> int:
        return self.windows[source]

    @override
    def fingerprints(self) -> dict[str, str]:
        settings = (self.vocab_size, self.document_tokens, self.noise)
        return {
            name: hashlib.blake2b(repr((name, count, settings)).encode(), digest_size=8).hexdigest()
            for name, count in self.windows.items()
        }

    @override
    def read(self, source: str, window: int, length: int) -> TokenWindow:
        kind = list(self.windows).index(source)
        random = np.random.default_rng((kind, window, length))
        tokens = random.integers(0, self.vocab_size, length + 1)
        predictable = random.random(length + 1) >= self.noise
        for t in range(1, length + 1):
            if predictable[t]:
                tokens[t] = (tokens[t - 1] * (2 * kind + 3) + 1) % self.vocab_size
        first = int(random.integers(0, self.document_tokens))
        starts = np.unique(np.concatenate(([0], np.arange(first, length + 1, self.document_tokens))))
        return (*packed_row(tokens, starts), None)

    def validation_batch(self, length: int = 32, rows: int = 2) -> PackedBatch:
        """Some windows of each source that are never trained on."""
        names = list(self.windows)
        read = [self.read(name, self.windows[name] + row, length) for name in names for row in range(rows)]
        source = np.repeat(np.arange(len(names)), rows)
        return stack_rows(read, source, np.zeros(len(read), dtype=np.int64))

    def val_dataloader(self) -> DataLoader[Any]:
        batch = self.validation_batch()
        rank, ranks = self.rank_and_ranks
        share = len(batch) // ranks
        rows = [batch._rows(slice(rank * share, (rank + 1) * share))]
        return DataLoader(rows, batch_size=None)  # type: ignore[arg-type]  # a list is a dataset by its methods


# -- a small run -------------------------------------------------------------------------------------------------------

SMALL_SHAPE = LanguageModelConfig(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
)
"""A model of 16 thousand parameters: a step takes some milliseconds."""

SMALL_STEP_TOKENS, SMALL_LENGTH = 256, 32


def small_stages() -> list[Stage]:
    """Warm-up, a stable stage with another mixture, and a decay with longer windows and another RoPE base; 12 steps."""
    steps = 4 * SMALL_STEP_TOKENS
    return [
        Stage("warmup", steps, [0.0, 1e-2], {"a": 1.0, "b": 0.0}),
        Stage("stable", steps, 1e-2, {"a": 1.0, "b": 3.0}),
        Stage("decay", steps, [1e-2, 0.0], {"b": 1.0}, sequence_length=2 * SMALL_LENGTH, rope_theta=1e5),
    ]


class StepRecorder(pl.Callback):
    """Records the samples and results of each step, on every rank.

    Args:
        terms: further metrics to record, logged as ``train/NAME``; a missing one is an error.

    Attributes:
        steps: for each optimizer step its number (from 1), ``loss``, ``grad_norm``, ``lr``, hash ``chain``,
            ``rope_theta``, window ``length``, this rank's ``source`` and ``sample_hash`` of each row, and the terms.
    """

    def __init__(self, terms: Sequence[str] = ()) -> None:
        self.terms = tuple(terms)
        self.steps: list[dict[str, Any]] = []

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        metrics = trainer.callback_metrics
        self.steps.append(
            {
                "step": trainer.global_step,
                **{name: float(metrics.get(f"train/{name}", "nan")) for name in ("loss", "grad_norm", "lr")},
                "chain": trainer.datamodule.chain,  # type: ignore[attr-defined]  # Lightning does not declare it
                "rope_theta": pl_module.model.rope_theta,  # type: ignore[union-attr]  # the module's is a language model
                "length": batch[0].tokens.shape[1],
                "source": torch.cat([micro.source for micro in batch]).tolist(),
                "sample_hash": torch.cat([micro.sample_hash for micro in batch]).tolist(),
                **{name: float(metrics[f"train/{name}"]) for name in self.terms},
            }
        )
        print(f"step {trainer.global_step}", flush=True)


class UnmeasuredThroughput(Throughput):
    """Disables throughput: measuring this machine's peak takes longer than a small run."""

    def on_train_start(self, *_: Any) -> None: ...

    def on_train_batch_end(self, *_: Any) -> None: ...


@dataclass
class SmallRun:
    """The record of a `train_small` run: one entry per step, and the full weights on the CPU."""

    steps: list[dict[str, Any]]
    weights: dict[str, Tensor]
    averages: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def losses(self) -> list[float]:
        return [step["loss"] for step in self.steps]

    @property
    def grad_norms(self) -> list[float]:
        return [step["grad_norm"] for step in self.steps]

    def column(self, name: str) -> list[Any]:
        """One entry of every step's record."""
        return [step[name] for step in self.steps]


def full_tensors(named: Any) -> dict[str, Tensor]:
    """Full CPU copies of named parameters or buffers, sharded or not; collective over all ranks."""
    full = {}
    for name, tensor in named:
        value = tensor.detach()
        full[clean_name(name)] = (value.full_tensor() if isinstance(value, DTensor) else value).cpu().clone()
    return full


def train_small(
    folder: str | Path,
    *,
    devices: int = 1,
    stages: list[Stage] | None = None,
    module: LanguageModule | None = None,
    datamodule: OrderedDataModule | None = None,
    num_workers: int = 0,
    resume: str | Path | None = None,
    checkpoint_every: int | None = None,
    keep: int | Keep = 10,
    asynchronous: bool = False,
    dirpath: str | None = None,
    callbacks: Sequence[pl.Callback] = (),
    module_options: dict[str, Any] | None = None,
    **trainer_options: Any,
) -> SmallRun:
    """Train a tiny model for the 12 steps of `small_stages` with the library's real components, and record the run.

    Args:
        folder: ``default_root_dir``.
        devices: ranks; inside `run_ranks`, the number of ranks there.
        stages: the stages of `FGWSD`.
        module: by default a `PretrainModule` of `SMALL_SHAPE` in float32.
        datamodule: by default `SyntheticDataModule` with the sources ``a`` and ``b``.
        num_workers: workers of the default datamodule.
        resume: ``ckpt_path``.
        checkpoint_every: number of steps between checkpoints.
        keep: number of checkpoints to keep.
        asynchronous: write checkpoints in the background.
        dirpath: folder of the checkpoints.
        callbacks: additional callbacks.
        module_options: overrides for the default module.
        **trainer_options: arguments of `Trainer`.
    """
    if module is None:
        exact = ParallelConfig(compute_dtype="float32")
        defaults: dict[str, Any] = {"core": SMALL_SHAPE, "parallel": exact, "micro_batch_tokens": 64}
        module = PretrainModule(**{**defaults, **(module_options or {})})
    if datamodule is None:
        datamodule = SyntheticDataModule({"a": 97, "b": 23}, SMALL_SHAPE.vocab_size, num_workers=num_workers)
    recorder = StepRecorder()
    trainer = Trainer(
        **{
            "accelerator": "cpu",
            "devices": devices,
            "default_root_dir": str(folder),
            "logger": False,
            "limit_val_batches": 0,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            **trainer_options,
            "callbacks": [
                FGWSD(small_stages() if stages is None else stages, SMALL_STEP_TOKENS, SMALL_LENGTH),
                recorder,
                UnmeasuredThroughput(),
                StepCheckpoint(checkpoint_every, keep, dirpath, asynchronous),
                *callbacks,
            ],
        }
    )
    trainer.fit(module, datamodule=datamodule, ckpt_path=resume)
    reshard(module.model)
    return SmallRun(
        steps=recorder.steps,
        weights=full_tensors(module.model.named_parameters()),
        averages=full_tensors(module.ema.named_buffers()) if module.ema_decay is not None else {},
        metrics={name: float(value) for name, value in trainer.callback_metrics.items()},
    )
