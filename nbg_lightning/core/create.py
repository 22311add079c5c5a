"""From a config to a model that is ready to train: the order of the steps is all there is here."""

from __future__ import annotations

import torch
from torch.distributed.device_mesh import DeviceMesh

from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig
from nbg_lightning.core.initialize import allocate, initialize
from nbg_lightning.core.lora import attach_adapter
from nbg_lightning.core.lora_config import LoRAConfig
from nbg_lightning.core.model import LanguageModel, model_config
from nbg_lightning.core.parallelize import parallelize


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
    """Build on meta, wrap, give it memory, draw the weights.

    Args:
        shape: the model's shape.
        parallel: speed and memory settings.
        mesh: data-parallel mesh; None for one unsharded float32 model (tests, notebooks).
        device: where the parameters live.
        seed: weights are a pure function of (seed, parameter name).
        draw: False leaves the weights as the memory was: others are loaded before the first use. An adapter
            and a head that scores are drawn.
        lora: give it an adapter, and freeze all else. What is frozen is kept in the dtype of the computation on a mesh, in
            which FSDP2 would gather it in any case.

    Example:
        >>> from nbg_lightning.core import preset
        >>> create_model(preset("nano"))(torch.tensor([[1, 2, 3]])).shape
        torch.Size([1, 3, 512])
    """
    parallel = parallel or ParallelConfig()
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
