"""A live frozen model, used as teacher or reference: sharded like the student and outside its module tree."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule

from nbg_lightning.core.batch import PackedBatch
from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.core.documents import ModelInput
from nbg_lightning.core.head import HeadFunction
from nbg_lightning.core.head_teachers import LiveTargets
from nbg_lightning.core.initialize import allocate
from nbg_lightning.core.model import LanguageModel, model_config
from nbg_lightning.core.parallelize import parallelize
from nbg_lightning.core.sharding import reshard
from nbg_lightning.core.weights import load_base_weights, read_shape

T = TypeVar("T")


class HasInput(Protocol):
    """An object that provides the input of a decoder."""

    @property
    def input(self) -> ModelInput: ...


class LiveTeacher:
    """Frozen weights of any size, from a Hugging Face folder, the hub or a checkpoint.

    Not a submodule: its owner neither trains, saves nor moves it. Its parameters are stored in the compute dtype, which is
    what FSDP2 would gather anyway.

    Args:
        weights: as in `nbg_lightning.core.weights.open_weights`.
        parallel: dtype, compilation and sharding; activation checkpointing and float8 are not used.
        mesh: data-parallel mesh to shard over; None for a whole model in this process.
        device: device of the parameters.

    Attributes:
        shape: the model config.
        model: the frozen model.
        where: ``weights``, for messages.

    Raises:
        ValueError, FileNotFoundError: weights that cannot be read.
    """

    def __init__(
        self,
        weights: str | Path,
        parallel: ParallelConfig | None = None,
        mesh: DeviceMesh | None = None,
        device: torch.device | str = "cpu",
    ):
        parallel = parallel or ParallelConfig()
        self.where = str(weights)
        self.shape = read_shape(weights)
        quiet = dataclasses.replace(parallel, activation_checkpointing="none", float8="none")
        with torch.device("meta"):
            model: LanguageModel = model_config(self.shape).build()
        model.requires_grad_(False).to(getattr(torch, parallel.compute_dtype))
        parallelize(model, quiet, mesh)
        if isinstance(model.lm_head, FSDPModule):  # `targets` hands out the whole weight, until `release`
            model.lm_head.set_reshard_after_forward(False, recurse=False)
        allocate(model, torch.device(device))
        load_base_weights(model, weights)
        self.model = model.eval()

    @torch.no_grad()
    def run(self, batch: PackedBatch, head: HeadFunction[T]) -> T:
        """Apply a function to the final hidden states ``[B, L, D]`` and the head's weight ``[V, D]``."""
        result = self.model(*batch.input, head)
        self.release()
        return result

    @torch.no_grad()
    def targets(self, batch: HasInput, positions: Tensor) -> LiveTargets:
        """Final hidden states at some positions of the flattened input, and the head's whole weight.

        The weight is valid until `release` is called.

        Raises:
            RuntimeError: the hidden states are not finite.
        """
        found = self.model(*batch.input, partial(_picked, positions=positions))
        if not torch.isfinite(found.hidden).all():
            raise RuntimeError(
                f"the teacher {self.where} gives NaN or infinite hidden states; check its weights, or compute in another dtype"
            )
        return found

    def release(self) -> None:
        """Free the gathered weights."""
        reshard(self.model)


def _picked(hidden_BLD: Tensor, weight_VD: Tensor, positions: Tensor) -> Any:
    return LiveTargets(hidden_BLD.flatten(0, 1).index_select(0, positions), weight_VD)
