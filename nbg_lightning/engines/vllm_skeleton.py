"""The folder that vLLM starts from, and weights in the form that it loads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from nbg_lightning.core.config import LanguageModelConfig
from nbg_lightning.core.hf_config import make_hf_config

if TYPE_CHECKING:
    from nbg_lightning.data.tokenizer import Tokenizer

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


def write_skeleton(shape: LanguageModelConfig, folder: str | Path, tokenizer: Tokenizer | None = None) -> Path:
    """Write a folder from which vLLM can start a model that receives its weights later.

    Args:
        shape: the model's shape.
        folder: created.
        tokenizer: copied beside the config; needed by vLLM for stop strings only.

    Raises:
        ValueError: a looped model, which vLLM does not support.
    """
    if shape.num_loops > 1:
        raise ValueError(f"num_loops={shape.num_loops} is not supported by vLLM; use NativeEngine")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(make_hf_config(shape), indent=2), "utf-8")
    return folder


def with_untied_head(weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """The stream, followed by the embedding as the head if there is none."""
    embedding, has_head = None, False
    for name, weight in weights:
        if name == _EMBEDDING:
            embedding = weight
        has_head = has_head or name == _HEAD
        yield name, weight
    if not has_head and embedding is not None:
        yield _HEAD, embedding
