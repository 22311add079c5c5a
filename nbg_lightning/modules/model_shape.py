"""The model config of a module: given, or read from its base weights, and compared with a checkpoint's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from nbg_lightning.core.config import LanguageModelConfig, preset


def model_shape(
    core: str | LanguageModelConfig | None, base_weights: str | None, scores: bool = False
) -> LanguageModelConfig:
    """The given model config, or that of a preset; without either, that of the base weights.

    Args:
        core: name of a preset, or a model config.
        base_weights: where the config is read from if ``core`` is None.
        scores: the model is to score texts, so its head has one row, regardless of the weights.

    Raises:
        ValueError: there is none, or it has a scoring head although tokens are to be predicted.
    """
    if scores:
        return _given_shape(core, base_weights, may_score=True).scoring
    shape = _given_shape(core, base_weights, may_score=False)
    if shape.score_head:
        raise ValueError(
            "core.score_head is invalid: true; this module trains on tokens: leave it out, or use RewardModule"
        )
    return shape


def _given_shape(
    core: str | LanguageModelConfig | None, base_weights: str | None, may_score: bool
) -> LanguageModelConfig:
    if core is not None:
        return preset(core) if isinstance(core, str) else core
    if base_weights is None:
        raise ValueError(
            "core is invalid: None without base_weights; give a preset or a shape, or base_weights to take the shape from"
        )
    from nbg_lightning.core.weights import read_shape

    return read_shape(base_weights, may_score)


def check_shape(saved: Mapping[str, Any], shape: LanguageModelConfig) -> None:
    """Check that a checkpoint's model config equals this one; fields missing there have their default values.

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
