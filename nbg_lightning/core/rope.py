"""Rotary position embeddings, computed once per forward and shared by all layers.

Shape suffixes: B rows, L positions, N heads, H head dimension.

torchtitan keeps one table per layer for a fixed theta and maximum length. Here the table is computed from the positions of the
batch, so that theta may change between stages of a run (ABF) and there is no maximum length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torchtitan.models.common.rope import RoPE

from nbg_lightning.core.config import Llama3RopeScaling


def inverse_frequencies(
    head_dim: int, theta: float, scaling: Llama3RopeScaling | None = None, device: torch.device | str | None = None
) -> Tensor:
    """``theta ** (-2i / head_dim)`` for i in [0, head_dim / 2), float32, with optional Llama 3 scaling.

    Source: RoFormer (arXiv 2104.09864); scaling as in transformers' ``rope_type: llama3``.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64, device=device).float() / head_dim
    frequencies = 1.0 / (theta**exponents)
    if scaling is None:
        return frequencies
    wavelengths = 2 * math.pi / frequencies
    longest = scaling.original_max_position_embeddings / scaling.low_freq_factor
    shortest = scaling.original_max_position_embeddings / scaling.high_freq_factor
    smooth = (scaling.original_max_position_embeddings / wavelengths - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    between = (1 - smooth) * frequencies / scaling.factor + smooth * frequencies
    stretched = torch.where(wavelengths > longest, frequencies / scaling.factor, between)
    return torch.where(wavelengths < shortest, frequencies, stretched)


def rotary_table(positions_BL: Tensor, frequencies: Tensor) -> Tensor:
    """cos and sin of ``position x frequency``, concatenated: ``[B, L, 1, H]`` in float32."""
    angles = positions_BL[..., None].float() * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)[:, :, None, :]


def rotate(x_BLNH: Tensor, table_BL1H: Tensor) -> Tensor:
    """Rotate the pairs (i, i + H/2) of every head by the table's angles, in float32; keeps the dtype."""
    cos, sin = table_BL1H.chunk(2, dim=-1)
    first, second = x_BLNH.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).type_as(x_BLNH)


class SharedRotary(RoPE):
    """torchtitan's per-layer RoPE module without a cache: it receives this forward's table as ``positions``."""

    @dataclass(kw_only=True, slots=True)
    class Config(RoPE.Config):
        pass

    def __init__(self, config: Config):
        torch.nn.Module.__init__(self)
        self.config = config

    def _init_self_buffers(self, *, buffer_device: torch.device | None = None) -> None:
        """Do nothing: there is no cache."""

    def forward(self, query: Tensor, key: Tensor, positions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        assert positions is not None, "LanguageModel.forward passes the rotary table"
        return rotate(query, positions), rotate(key, positions)
