"""How the model is spread and sped up: activation checkpointing, compilation, FSDP2 (or HSDP), mixed precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torchtitan.distributed.activation_checkpoint import FullAC, SelectiveAC
from torchtitan.distributed.fsdp import apply_fsdp_to_decoder

from nbg_lightning.core.model import LanguageModel


@dataclass
class ParallelConfig:
    """Everything about speed and memory that does not change the mathematics.

    Parameters, gradients and optimizer states are always float32 and sharded by FSDP2; ``compute_dtype`` is that of
    activations and products.

    Attributes:
        compute_dtype: dtype of the forward and backward.
        activation_checkpointing: keep all activations, keep those of every other product (``selective``), or recompute
            each block (``full``).
        compile: compile each block by ``torch.compile``.
        float8: torchao recipe for the linear layers of the blocks (SM89 or later), or ``emulate`` for tests.
        replicate: hybrid sharding: this many copies of the sharded model (HSDP). 1 shards over all ranks.
        reshard_after_forward: free the gathered weights of a block between forward and backward.
        sync_every_micro_batch: reduce gradients after each micro-batch (sharded gradients: less memory) instead of
            after the last (less communication).
    """

    compute_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    compile: bool = False
    float8: Literal["none", "rowwise", "rowwise_with_gw_hp", "emulate"] = "none"
    replicate: int = 1
    reshard_after_forward: bool = True
    sync_every_micro_batch: bool = False


class _SelectiveCheckpointing(SelectiveAC):
    """torchtitan's policy, which also keeps what our attention operator returns."""

    def get_save_ops(self) -> set:
        return super().get_save_ops() | {torch.ops.nbg.document_attention.default}


def data_parallel_mesh(mesh: DeviceMesh, replicate: int) -> DeviceMesh:
    """The mesh that FSDP2 shards over: all ranks, or ``(replicate, shard)`` for HSDP."""
    if replicate == 1:
        return mesh
    size = mesh.size()
    if size % replicate:
        raise ValueError(f"parallel.replicate={replicate} must divide the {size} data-parallel ranks")
    return init_device_mesh(
        mesh.device_type, (replicate, size // replicate), mesh_dim_names=("dp_replicate", "dp_shard")
    )


def parallelize(model: LanguageModel, parallel: ParallelConfig, mesh: DeviceMesh | None) -> None:
    """Wrap a model on meta in place, in the one order that works: checkpointing, compilation, sharding.

    Args:
        model: what `model_config(...).build()` gave, on meta.
        parallel: the settings.
        mesh: one-dimensional data-parallel mesh; None leaves the model unsharded in float32 (single process, no trainer).
    """
    if parallel.activation_checkpointing == "full":
        FullAC.Config().build().apply(model)
    elif parallel.activation_checkpointing == "selective":
        _SelectiveCheckpointing(SelectiveAC.Config()).apply(model)
    if parallel.compile:
        for block in model.layers.values():
            block.compile(fullgraph=True)
    if mesh is None:
        return
    mesh = data_parallel_mesh(mesh, parallel.replicate)
    apply_fsdp_to_decoder(
        model,
        mesh,
        param_dtype=getattr(torch, parallel.compute_dtype),
        reduce_dtype=torch.float32,
        pp_enabled=False,
        # On one rank there is nothing to free: the gathered weights are all there is.
        reshard_after_forward_policy="always" if parallel.reshard_after_forward and mesh.size() > 1 else "never",
    )
    for module in sharded_modules(model):
        # The loss is divided by the global token count, so gradients are summed; gloo has no premultiplied sum.
        module.set_force_sum_reduction_for_comms(True)


def sharded_modules(model: torch.nn.Module) -> list[FSDPModule]:
    """The FSDP units of a model (none if it is not sharded)."""
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def set_gradient_sync(model: torch.nn.Module, enabled: bool) -> None:
    """Whether the next backward reduces gradients over the ranks (off for all but the last micro-batch)."""
    for module in sharded_modules(model):
        module.set_requires_gradient_sync(enabled, recurse=False)


def reshard(model: torch.nn.Module) -> None:
    """Return every unit to its shards: a forward without a backward leaves the last one gathered."""
    for module in sharded_modules(model):
        module.reshard()
