"""Memory and initial values for a model built on meta, independent of the number of ranks."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate
from torchtitan.models.common.param_init import skip_param_init

from nbg_lightning.core.model import LanguageModel
from nbg_lightning.core.names import clean_name, is_adapter
from nbg_lightning.core.sharding import first_row

BLOCK = 2**20  # elements of a parameter that are drawn at a time, in whole rows


def copy_full(target: Tensor, full: Tensor) -> None:
    """Copy a full tensor into a parameter, which may be a shard on this rank. No communication."""
    with torch.no_grad():
        if isinstance(target, DTensor):
            everywhere = [Replicate()] * target.device_mesh.ndim
            full = DTensor.from_local(full.to(target.device), target.device_mesh, everywhere, run_check=False)
            full = full.redistribute(placements=target.placements)
        target.copy_(full)


def allocate(model: LanguageModel, device: torch.device) -> None:
    """Allocate uninitialized memory on ``device`` for a model on meta."""
    model.to_empty(device=device)
    if model.enable_weight_tying:
        model.tok_embeddings.weight = model.lm_head.weight


def initialize(model: LanguageModel, seed: int, new_only: bool = False, whole: bool = False) -> None:
    """Draw the initial weights of a model with allocated memory.

    A parameter is drawn on the CPU in blocks of rows of at most `BLOCK` elements, each from a generator seeded by (seed, name,
    block), and a rank draws only the blocks that it holds rows of. Weights are therefore independent of the number of ranks, of
    wrappers and of the order of modules, and no rank draws all of a large model. Drawing DTensors in place, the usual way, would
    give every gloo rank the same numbers for different shards.

    Args:
        model: a model with allocated memory, sharded by rows or not.
        seed: seed of all weights.
        new_only: draw only what a base does not contain: an adapter and a score head. The base is not changed.
        whole: draw every parameter as one block, whatever its size.
    """
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if new_only and not is_adapter(f"{prefix}.{name}") and not (model.shape.score_head and prefix == "lm_head"):
                continue
            draw = (getattr(module, "_param_init", None) or {}).get(name)
            if draw is skip_param_init:
                continue
            assert callable(draw), f"{prefix}.{name} has no initializer"
            _draw_rows(parameter, draw, f"{seed}.{clean_name(f'{prefix}.{name}')}", whole)


def _draw_rows(parameter: Tensor, draw: Callable[[Tensor], object], key: str, whole: bool) -> None:
    """Draw the rows that this rank holds; at most the blocks at its two ends are drawn in excess."""
    local, first = (parameter.to_local(), first_row(parameter)) if isinstance(parameter, DTensor) else (parameter, 0)
    every = parameter.shape[0] if whole else max(1, BLOCK // parameter.shape[1:].numel())
    last = first + len(local)
    for begin in range(first // every * every, last, every):
        end = min(begin + every, parameter.shape[0])
        drawn = _draw(draw, (end - begin, *parameter.shape[1:]), key if begin == 0 else f"{key}.{begin // every}")
        kept = slice(max(begin, first), min(end, last))
        with torch.no_grad():
            local[kept.start - first : kept.stop - first].copy_(drawn[kept.start - begin : kept.stop - begin])


def _draw(draw: Callable[[Tensor], object], shape: tuple[int, ...], key: str) -> Tensor:
    drawn = torch.empty(shape, dtype=torch.float32, device="cpu")
    with torch.random.fork_rng(devices=[]):
        # Hashed to 32 bits, since torch's CPU generator uses no more of a seed.
        torch.manual_seed(zlib.crc32(key.encode()))
        draw(nn.Parameter(drawn, requires_grad=False))
    return drawn
