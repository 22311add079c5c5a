"""The shape of a module's model: as it is given or as its base weights have it, and whether a checkpoint has the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from nbg_lightning.core.config import LanguageModelConfig, preset


def model_shape(core: str | LanguageModelConfig | None, base_weights: str | None) -> LanguageModelConfig:
    """The shape of a preset, or as given; without either that of the base weights.

    Raises:
        ValueError: there is none.
    """
    if core is not None:
        return preset(core) if isinstance(core, str) else core
    if base_weights is None:
        raise ValueError(
            "core is invalid: None without base_weights; give a preset or a shape, or base_weights to take the shape from"
        )
    from nbg_lightning.core.weights import read_shape

    return read_shape(base_weights)


def check_shape(saved: Mapping[str, Any], shape: LanguageModelConfig) -> None:
    """Whether a checkpoint's model has this shape; fields that it does not know yet have their defaults there.

    Raises:
        ValueError: naming the fields that differ.
    """
    fields = dataclasses.fields(LanguageModelConfig)
    defaults = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    there, here = {**defaults, **saved}, dataclasses.asdict(shape)
    if there != here:
        differing = sorted(key for key, value in here.items() if there.get(key) != value)
        raise ValueError(
            "the checkpoint's model has another shape: "
            + ", ".join(f"{key} {there.get(key)} there, {here[key]} here" for key in differing)
            + "; use the config of that run"
        )
