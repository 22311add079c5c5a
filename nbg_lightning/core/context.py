"""Context parallelism: the tokens of a micro-batch over several ranks, which exchange heads for tokens around attention.

Every layer but attention looks at one token at a time, so that each rank of a context group computes its own columns of the rows.
Around attention (`head_exchange`) a rank has all tokens of its own heads: attention is that of one rank with fewer heads, so that
packed documents are exact.

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
    """This rank's place among the ranks of a mesh; None where each has whole rows. All ranks call it together.

    Raises:
        ValueError: a context size that does not fit the ranks.
    """
    check_context(size, shape, mesh.size())
    return ContextShard(size, mesh) if size > 1 else None


class ContextShard:
    """This rank's place in its context group: ``size`` neighbouring ranks that share each micro-batch.

    Args:
        size: ranks of a group.
        mesh: one-dimensional mesh of all ranks.

    Attributes:
        rank: of this process in its group.
        group: the group's process group.
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
        """Whether what all ranks of the group have alike is counted here."""
        return self.rank == 0

    def columns(self, values: Tensor) -> Tensor:
        """This rank's part of ``[B, L, ...]``."""
        length = values.shape[1] // self.size
        return values[:, self.rank * length : (self.rank + 1) * length].contiguous()

    def input(self, whole: ModelInput) -> ModelInput:
        """This rank's columns of what goes through the decoder; documents stay those of all columns."""
        assert whole.documents is not None
        documents = whole.documents._replace(context=ContextGroup(self.group.group_name, self.size))
        return ModelInput(self.columns(whole.tokens), self.columns(whole.positions), documents)

    def find(self, places: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Where some places of flattened rows are in this rank's columns (0 where they are not), and whether they are there.

        Args:
            places: any number of them.
            length: of a whole row.
        """
        own = length // self.size
        row, column = places // length, places % length
        return torch.where(mine := column // own == self.rank, row * own + column % own, 0), mine

    def add_up(self, values: Tensor) -> Tensor:
        """The sum of a tensor over the group, in its place."""
        torch.distributed.all_reduce(values, group=self.group)
        return values

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over the group, differentiable.

        The loss is the sum of what the ranks of the group make of it, so that its gradient is the sum of theirs; each must have
        one.
        """
        total: Tensor = _Sum.apply(values, self.add_up)  # type: ignore[no-untyped-call]
        return total

    def gather(self, value: Any) -> list[Any]:
        """The value of every rank of the group, in their order."""
        return gather_objects(value, self.group)

    def shard(self, batch: PackedBatch) -> PackedBatch:
        """This rank's columns of a micro-batch; its samples are counted on the first rank of the group.

        Raises:
            ValueError: the rows' length is no multiple of the group's size.
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
    """The sum over a group; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, add_up: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.add_up = add_up
        return add_up(values.clone())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.add_up(grad.clone()), None
