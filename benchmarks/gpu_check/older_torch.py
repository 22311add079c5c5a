"""Names of torch 2.13, needed by torchtitan and the core, for torch 2.11 and 2.12. Import it before the library."""

from __future__ import annotations

import inspect
from typing import Any


def fill_in() -> list[str]:
    """Add missing names; returns them."""
    import torch.distributed.fsdp as fsdp
    from torch.nn.attention import varlen

    added = []
    if not hasattr(fsdp, "DataParallelMeshDims"):
        fsdp.DataParallelMeshDims = type("DataParallelMeshDims", (), {})
        added.append("torch.distributed.fsdp.DataParallelMeshDims")
    if "enable_gqa" not in inspect.signature(varlen.varlen_attn).parameters:
        kernel = varlen.varlen_attn  # takes grouped heads without being told

        def varlen_attn(*arguments: Any, enable_gqa: bool = False, **options: Any) -> Any:
            return kernel(*arguments, **options)

        varlen.varlen_attn = varlen_attn
        added.append("torch.nn.attention.varlen.varlen_attn(enable_gqa)")
    return added
