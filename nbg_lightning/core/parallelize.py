"""Parallelism and speed of the model: activation checkpointing, compilation, FSDP2 (or HSDP), mixed precision."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torchtitan.distributed.activation_checkpoint import FullAC, SelectiveAC
from torchtitan.distributed.fsdp import apply_fsdp_to_decoder

from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.core.model import LanguageModel
from nbg_lightning.core.sharding import sharded_modules

MAX_GRAPHS = 64  # compiled graphs per block; pretraining needs 5, GRPO 6, DPD 9


class _SelectiveCheckpointing(SelectiveAC):
    """torchtitan's policy, which also keeps the outputs of attention: our operator's, and flash-attn's if it is loaded."""

    def get_save_ops(self) -> set[Any]:
        return super().get_save_ops() | {torch.ops.nbg.document_attention.default} | _flash_attn_operators()


def _flash_attn_operators() -> set[Any]:
    if importlib.util.find_spec("flash_attn") is None:
        return set()
    import flash_attn.flash_attn_interface  # noqa: F401 - registers it

    return {torch.ops.flash_attn._flash_attn_varlen_forward.default}


def data_parallel_mesh(mesh: DeviceMesh, replicate: int | str) -> DeviceMesh:
    """The mesh that FSDP2 shards over: all ranks, or ``(replicate, shard)`` for HSDP.

    Raises:
        ValueError: the number of replicas does not divide the ranks.
    """
    if replicate == 1:
        return mesh
    size = mesh.size()
    if not isinstance(replicate, int):
        raise ValueError(f"parallel.replicate is invalid here: {replicate}; give the number of copies (one a node)")
    if replicate < 1 or size % replicate:
        raise ValueError(
            f"parallel.replicate is invalid: {replicate}; it must divide the {size} data-parallel ranks (nodes: a copy a node)"
        )
    return init_device_mesh(
        mesh.device_type, (replicate, size // replicate), mesh_dim_names=("dp_replicate", "dp_shard")
    )


def parallelize(model: LanguageModel, parallel: ParallelConfig, mesh: DeviceMesh | None) -> None:
    """Wrap a model on meta in place, in the required order: checkpointing, compilation, sharding.

    Args:
        model: the result of ``model_config(...).build()``, on meta.
        parallel: the settings.
        mesh: one-dimensional data-parallel mesh; None leaves the model unsharded in float32 (single process, no trainer).
    """
    if parallel.activation_checkpointing == "full":
        FullAC.Config().build().apply(model)
    elif parallel.activation_checkpointing == "selective":
        _SelectiveCheckpointing(SelectiveAC.Config()).apply(model)
    if parallel.compile is True:
        # A block is one code object for all layers: its graphs (training, validation, decoding, with and without an adapter or
        # averaged weights) count together towards a limit of 8, beyond which fullgraph raises an error.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_GRAPHS)
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
        # On a single rank there is nothing to free: the gathered weights are the only ones.
        reshard_after_forward_policy="always" if parallel.reshard_after_forward and mesh.size() > 1 else "never",
    )
    for module in sharded_modules(model):
        # The loss is divided by the global token count, so gradients are summed; gloo has no premultiplied sum.
        module.set_force_sum_reduction_for_comms(True)
        if mesh.size() == 1:
            # torchtitan's factor of 1 costs a pass over all gradients on one rank; without a factor FSDP2 divides by the ranks.
            module.set_gradient_divide_factor(None)  # type: ignore[arg-type]  # None, its initial value, is not in the types
    if not model.enable_weight_tying and isinstance(model.lm_head, FSDPModule):
        # The last unit of the forward is the first of the backward: its weights stay gathered in between.
        model.lm_head.set_reshard_after_forward(False)
