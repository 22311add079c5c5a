"""Creation of a model that is ready to train: the steps in their order."""

from __future__ import annotations

import torch
from torch.distributed.device_mesh import DeviceMesh

from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig
from nbg_lightning.core.initialize import allocate, initialize
from nbg_lightning.core.lora import attach_adapter
from nbg_lightning.core.lora_config import LoRAConfig
from nbg_lightning.core.model import LanguageModel, model_config
from nbg_lightning.core.parallelize import parallelize
from nbg_lightning.core.products import choose_library


def create_model(
    shape: LanguageModelConfig,
    parallel: ParallelConfig | None = None,
    mesh: DeviceMesh | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    *,
    draw: bool = True,
    lora: LoRAConfig | None = None,
) -> LanguageModel:
    """Build a model on meta, wrap it, allocate memory, and initialize the weights.

    Args:
        shape: the model's shape.
        parallel: settings of parallelism, speed and memory.
        mesh: data-parallel mesh; None for an unsharded float32 model (tests, notebooks).
        device: device of the parameters.
        seed: seed of the weights, which are a pure function of (seed, parameter name).
        draw: initialize the weights; with False they are left uninitialized, to be loaded before the first use, except for an
            adapter and a score head.
        lora: add an adapter, and freeze all other weights. On a mesh, frozen weights are kept in the compute dtype, in
            which FSDP2 would gather them anyway.

    Example:
        >>> from nbg_lightning.core import preset
        >>> create_model(preset("nano"))(torch.tensor([[1, 2, 3]])).shape
        torch.Size([1, 3, 512])
    """
    parallel = parallel or ParallelConfig()
    if torch.device(device).type == "cpu":
        choose_library()
    with torch.device("meta"):
        model = model_config(shape, parallel.float8).build()
    if lora is not None:
        if mesh is not None:
            model.to(getattr(torch, parallel.compute_dtype))
        attach_adapter(model, lora)
    parallelize(model, parallel, mesh)
    allocate(model, torch.device(device))
    if draw or lora is not None or shape.score_head:
        initialize(model, seed, new_only=not draw, whole=parallel.draw == "whole")
    return model
