"""Context parallelism: the tokens of a micro-batch are split over ranks, which exchange heads for tokens around attention.

All layers except attention process each token independently, so each rank of a context group computes its own columns of the
rows. In attention (`head_exchange`) a rank has all tokens of its share of the heads, so that it is the attention of a single rank
with fewer heads, and exact for packed documents.

Shape suffixes: B rows, L positions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from nbg_lightning.core.batch import PackedBatch
from nbg_lightning.core.config import LanguageModelConfig
from nbg_lightning.core.context_size import check_context, check_window
from nbg_lightning.core.documents import ContextGroup, ModelInput
from nbg_lightning.distributed import gather_objects


def context_shard(size: int, shape: LanguageModelConfig, mesh: DeviceMesh) -> ContextShard | None:
    """This rank's place in its context group; None without context parallelism. Collective over all ranks.

    Raises:
        ValueError: the context size does not fit the ranks.
    """
    check_context(size, shape, mesh.size())
    return ContextShard(size, mesh) if size > 1 else None


class ContextShard:
    """This rank's place in its context group: ``size`` neighbouring ranks that share each micro-batch.

    Args:
        size: ranks per group.
        mesh: one-dimensional mesh of all ranks.

    Attributes:
        rank: this process's rank in its group.
        group: the process group.
    """

    def __init__(self, size: int, mesh: DeviceMesh):
        self.size = size
        groups = init_device_mesh(mesh.device_type, (mesh.size() // size, size), mesh_dim_names=("data", "context"))[
            "context"
        ]
        self.rank: int = groups.get_local_rank()
        self.group = groups.get_group()

    @property
    def is_first(self) -> bool:
        """Whether this rank counts the values that all ranks of the group have in common."""
        return self.rank == 0

    def columns(self, values: Tensor) -> Tensor:
        """This rank's columns of ``[B, L, ...]``."""
        length = values.shape[1] // self.size
        return values[:, self.rank * length : (self.rank + 1) * length].contiguous()

    def input(self, whole: ModelInput) -> ModelInput:
        """This rank's columns of the decoder's input; the documents remain those of the whole rows."""
        assert whole.documents is not None
        documents = whole.documents._replace(context=ContextGroup(self.group.group_name, self.size))
        return ModelInput(self.columns(whole.tokens), self.columns(whole.positions), documents)

    def find(self, places: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Map positions in flattened rows to this rank's columns (0 if elsewhere), and whether they are in them.

        Args:
            places: positions, any number of them.
            length: length of a whole row.
        """
        own = length // self.size
        row, column = places // length, places % length
        return torch.where(mine := column // own == self.rank, row * own + column % own, 0), mine

    def add_up(self, values: Tensor) -> Tensor:
        """Sum a tensor over the group, in place."""
        torch.distributed.all_reduce(values, group=self.group)
        return values

    def sum(self, values: Tensor) -> Tensor:
        """Sum a tensor over the group, differentiably.

        The loss is the sum of the ranks' terms, and so is its gradient; every rank of the group must compute
        one.
        """
        total: Tensor = _Sum.apply(values, self.add_up)  # type: ignore[no-untyped-call]
        return total

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks of the group, in rank order."""
        return gather_objects(value, self.group)

    def shard(self, batch: PackedBatch) -> PackedBatch:
        """This rank's columns of a micro-batch; its samples are counted on the first rank of the group.

        Raises:
            ValueError: the row length is not a multiple of the group's size.
        """
        check_window(self.size, batch.tokens.shape[1])
        own = self.input(batch.input)
        return dataclasses.replace(
            batch,
            tokens=own.tokens,
            positions=own.positions,
            documents=own.documents,
            labels=self.columns(batch.labels),
            weights=None if batch.weights is None else self.columns(batch.weights),
            sample_hash=batch.sample_hash if self.is_first else torch.zeros_like(batch.sample_hash),
        )


class _Sum(torch.autograd.Function):
    """Sum over a group, in the forward and in the backward."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, add_up: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.add_up = add_up
        return add_up(values.clone())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.add_up(grad.clone()), None
