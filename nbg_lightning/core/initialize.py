"""Memory and first values for a model built on meta, the same for every number of ranks."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate
from torchtitan.models.common.param_init import skip_param_init

from nbg_lightning.core.model import LanguageModel
from nbg_lightning.core.names import clean_name, is_adapter


def copy_full(target: Tensor, full: Tensor) -> None:
    """Copy a whole tensor into a parameter, of which this rank may hold a shard only. No communication."""
    with torch.no_grad():
        if isinstance(target, DTensor):
            everywhere = [Replicate()] * target.device_mesh.ndim
            full = DTensor.from_local(full.to(target.device), target.device_mesh, everywhere, run_check=False)
            full = full.redistribute(placements=target.placements)
        target.copy_(full)


def allocate(model: LanguageModel, device: torch.device) -> None:
    """Give a model on meta memory on ``device``; what stands in it is not defined."""
    model.to_empty(device=device)
    if model.enable_weight_tying:
        model.tok_embeddings.weight = model.lm_head.weight


def initialize(model: LanguageModel, seed: int, new_only: bool = False) -> None:
    """Draw the weights of a model that has memory.

    Each whole parameter is drawn on the CPU from a generator seeded by (seed, its name), and every rank keeps its shard.
    So neither the number of ranks, nor the wrappers, nor the order of modules changes a weight: the usual way, drawing
    DTensors in place, gives each gloo rank the same numbers for different shards.

    Args:
        model: a model that has memory, sharded or not.
        seed: of all weights.
        new_only: draw what a base has not: an adapter and a head that scores. The base stays as it is.
    """
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if new_only and not is_adapter(f"{prefix}.{name}") and not (model.shape.score_head and prefix == "lm_head"):
                continue
            draw = (getattr(module, "_param_init", None) or {}).get(name)
            if draw is skip_param_init:
                continue
            assert draw is not None, f"{prefix}.{name} has no initializer"
            # Hashed into 32 bits, which are all that torch's CPU generator reads of a seed.
            seed_of_name = zlib.crc32(f"{seed}.{clean_name(f'{prefix}.{name}')}".encode())
            copy_full(parameter, _draw(draw, parameter.shape, seed_of_name))


def _draw(draw: object, shape: torch.Size, seed: int) -> Tensor:
    full = torch.empty(shape, dtype=torch.float32, device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        assert callable(draw)
        draw(nn.Parameter(full, requires_grad=False))
    return full
