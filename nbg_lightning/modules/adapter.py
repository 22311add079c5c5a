"""The adapter of a module and the identity of its base: enough for checkpoints that contain the adapter alone."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from nbg_lightning.core.checkpoint_folder import checkpoint_at
from nbg_lightning.core.config import LanguageModelConfig
from nbg_lightning.core.lora import adapter_off
from nbg_lightning.core.lora_config import LoRAConfig
from nbg_lightning.core.parameter_shapes import adapter_shapes
from nbg_lightning.core.sharding import reshard
from nbg_lightning.distributed import broadcast_object, get_rank

if TYPE_CHECKING:
    from nbg_lightning.core.batch import PackedBatch
    from nbg_lightning.core.head import HeadFunction
    from nbg_lightning.core.model import LanguageModel

T = TypeVar("T")


class TrainedAdapter:
    """The adapter of a run, and the base it belongs to.

    Args:
        lora: adapter settings.
        base: the run's ``base_weights``.

    Attributes:
        fingerprint: fingerprint of the base weights; set by `load`.

    Raises:
        ValueError: there is no base.
    """

    def __init__(self, lora: LoRAConfig, base: str | None):
        if base is None:
            raise ValueError(
                "lora is invalid without base_weights: it would adapt random weights; set base_weights, or leave lora out"
            )
        self.lora, self.base = lora, base
        self.fingerprint = ""

    def load(self, model: LanguageModel) -> None:
        """Fingerprint the base, and load ``lora.weights`` if given. Collective.

        The fingerprint is that of the stored weights, since the model may hold them in another dtype.

        Raises:
            ValueError: the adapter belongs to another base, or has other settings.
        """
        from nbg_lightning.core.fingerprint import source_fingerprint
        from nbg_lightning.core.weights import open_adapter, open_weights

        found = source_fingerprint(open_weights(self.base)) if get_rank() == 0 else None  # reads all of the weights
        self.fingerprint = broadcast_object(found)
        if self.lora.weights is not None:
            adapter = open_adapter(self.lora.weights)
            adapter.check_base(self.fingerprint, self.base)
            adapter.load_into(model, self.lora)

    def begins_from(self, weights: str) -> bool:
        """Whether these weights are the adapter's base, that is, the model with its adapter disabled."""
        return checkpoint_at(weights) == self.base

    @property
    def first_weights(self) -> str | None:
        """The fingerprint of a fresh run's initial weights: that of its base, since a new adapter has no effect; None if
        the adapter was loaded.
        """
        return self.fingerprint if self.lora.weights is None else None

    def num_parameters(self, shape: LanguageModelConfig) -> int:
        """Number of adapter parameters."""
        return sum(math.prod(size) for size in adapter_shapes(shape, self.lora).values())

    def record(self) -> dict[str, Any]:
        """The adapter's entry in checkpoints."""
        place = str(Path(self.base).absolute()) if Path(self.base).exists() else self.base
        return {"lora": dataclasses.asdict(self.lora), "base": place, "fingerprint": self.fingerprint}


class AdapterOff:
    """The base of a model with an adapter, with the interface of `LiveTeacher`: a reference without a second model.

    Args:
        model: model with an adapter.
        where: name of its base, for messages.
    """

    def __init__(self, model: LanguageModel, where: str):
        self.model, self.shape, self.where = model, model.shape, where

    @torch.no_grad()
    def run(self, batch: PackedBatch, head: HeadFunction[T]) -> T:
        """Apply a function to the base's hidden states ``[B, L, D]`` and head weight ``[V, D]``."""
        with adapter_off(self.model):
            result: T = self.model(*batch.input, head)
        reshard(self.model)
        return result


def check_adapter(saved: Mapping[str, Any] | None, here: TrainedAdapter | None) -> None:
    """Raise if a checkpoint's run trained something else.

    Args:
        saved: result of `TrainedAdapter.record`; None if all weights were trained.
        here: record of the run that is to be resumed.

    Raises:
        ValueError: what differs, and what to do.
    """
    if saved is None and here is None:
        return
    if saved is None or here is None:
        trained, advice = (
            ("all weights", "leave lora out") if saved is None else ("an adapter", "set lora as that run had it")
        )
        raise ValueError(
            f"the checkpoint's run trained {trained}; {advice}, or start a new run from the checkpoint with base_weights"
        )
    there = LoRAConfig(**{**saved["lora"], "weights": None})
    if different := here.lora.differences(there):
        raise ValueError(f"the checkpoint has another adapter: {different}; use the config of that run")
    if here.fingerprint and saved["fingerprint"] != here.fingerprint:
        raise ValueError(
            f"the checkpoint's adapter was trained on other base weights (digest {saved['fingerprint']}, of {saved['base']}) "
            f"than base_weights has ({here.fingerprint}, of {here.base}); set base_weights to those"
        )


@contextmanager
def dropout_seed(seed: int, step: int, rank: int, device: torch.device) -> Iterator[None]:
    """Make random numbers inside the block depend on (seed, step, rank) alone, and restore the generators after it.

    A resumed run thus applies the same dropout as an uninterrupted one.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(zlib.crc32(f"dropout.{seed}.{step}.{rank}".encode()))
        yield
