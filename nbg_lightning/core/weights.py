"""Weights from elsewhere, as the start of a training."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

from nbg_lightning import log
from nbg_lightning.core.checkpoint_folder import checkpoint_at, local_or_url
from nbg_lightning.core.config import LanguageModelConfig
from nbg_lightning.core.names import HEAD
from nbg_lightning.core.other_formats import other_format
from nbg_lightning.core.weight_sources import (
    CONFIG,
    HuggingFaceFolder,
    TrainingCheckpoint,
    named_parameters,
    read_json,
    shape_from,
)
from nbg_lightning.error_line import first_line
from nbg_lightning.url_path import PathOrUrl, UrlPath

if TYPE_CHECKING:
    from nbg_lightning.core.adapter_weights import AdaptedWeights, Adapter
    from nbg_lightning.core.model import LanguageModel

ADAPTER = "adapter_config.json"  # of a peft folder
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def open_weights(
    source: str | Path, ema: bool = False, base: str | Path | None = None
) -> HuggingFaceFolder | TrainingCheckpoint | AdaptedWeights:
    """Weights by their place.

    Args:
        source: a Hugging Face folder, a model's name on the hub (it is downloaded), one of our checkpoints, or a run's folder,
            whose newest one is meant; an adapter, in a checkpoint or a peft folder, is merged with its base.
        ema: the averaged weights of a checkpoint.
        base: where the base of an adapter is, if not where it was.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: something else is there, or it cannot be used.
    """
    folder = _local(source) or download(str(source))
    checkpoint = TrainingCheckpoint(folder, ema) if _is_checkpoint(folder) else None
    if ema and checkpoint is None:
        raise ValueError(
            f"{source} is not a checkpoint of this library, and only those have averaged weights; leave out ema"
        )
    if _has_adapter(folder, checkpoint):
        return _merged(folder, checkpoint, base)
    if base is not None:
        raise ValueError(f"the base {base} has no effect: {source} has all its weights, and no adapter; leave it out")
    return checkpoint or HuggingFaceFolder(str(folder))


def open_adapter(source: str | Path, ema: bool = False) -> Adapter:
    """The adapter at a place, without its base.

    Raises:
        FileNotFoundError, ValueError: there is none, or it cannot be used.
    """
    from nbg_lightning.core.adapter_weights import checkpoint_adapter
    from nbg_lightning.core.peft_folder import read_peft

    folder = _local(source) or download(str(source))
    checkpoint = TrainingCheckpoint(folder, ema) if _is_checkpoint(folder) else None
    if not _has_adapter(folder, checkpoint):
        raise ValueError(f"{source} has no adapter; give a peft folder, or a checkpoint of a run with lora")
    return read_peft(str(folder)) if checkpoint is None else checkpoint_adapter(checkpoint)


def _has_adapter(folder: PathOrUrl, checkpoint: TrainingCheckpoint | None) -> bool:
    if checkpoint is not None:
        return checkpoint.adapter is not None
    return isinstance(folder, Path) and (folder / ADAPTER).is_file() and not (folder / CONFIG).is_file()


def _merged(folder: PathOrUrl, checkpoint: TrainingCheckpoint | None, base: str | Path | None) -> AdaptedWeights:
    from nbg_lightning.core.adapter_weights import AdaptedWeights, checkpoint_adapter
    from nbg_lightning.core.peft_folder import read_peft

    adapter = read_peft(str(folder)) if checkpoint is None else checkpoint_adapter(checkpoint)
    base = adapter.record.base if base is None else base
    try:
        found = open_weights(base)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"the base of the adapter {folder} cannot be had ({first_line(error)}); give the folder of the base"
        ) from error
    except RecursionError:
        raise ValueError(
            f"the adapter {folder} is invalid: it is its own base; do not use files of this origin"
        ) from None
    return AdaptedWeights(found, adapter, checkpoint)


def read_shape(source: str | Path, may_score: bool = False) -> LanguageModelConfig:
    """The shape of the model at a place that `open_weights` understands; of a hub model only the config is fetched.

    Args:
        source: the place.
        may_score: whether a reward model will do, which gives scores and writes nothing.

    Raises:
        ValueError: it is one, and will not do; or it cannot be read.
    """
    shape = _read_shape(source)
    if shape.score_head and not may_score:
        raise ValueError(
            f"{source} is a reward model: it scores texts and cannot continue them; use it as the weights of ModelReward, or as "
            "base_weights of RewardModule"
        )
    return shape


def _read_shape(source: str | Path) -> LanguageModelConfig:
    folder = _local(source) or download(str(source), [CONFIG, ADAPTER])
    if _is_checkpoint(folder):
        return TrainingCheckpoint(folder).shape
    if _has_adapter(folder, None):
        from nbg_lightning.core.peft_folder import read_peft_record

        record = read_peft_record(Path(str(folder)))
        shape = _read_shape(record.base)
        return shape.scoring if record.scores else shape
    return shape_from(read_json(Path(str(folder), CONFIG)), str(source))


def load_base_weights(model: LanguageModel, source: str | Path, ema: bool = False) -> None:
    """Start a model from weights made elsewhere, at any number of ranks.

    Of a Hugging Face folder every rank reads every tensor, one at a time, and keeps its shard; of a checkpoint every rank
    reads its shards. The whole model is never held a second time.

    A model that scores takes all but the head of one that does not: its own stays as it was drawn.

    Args:
        model: a `LanguageModel` that has memory, sharded or not.
        source: as in `open_weights`.
        ema: the averaged weights of a checkpoint.

    Raises:
        ValueError: another model, with the settings that differ; or weights that cannot be read.
        FileNotFoundError: nothing is there.
    """
    weights = open_weights(source, ema)
    parameters, there = named_parameters(model), weights.shape
    if model.shape.score_head and not there.score_head:
        there = there.scoring
        del parameters[HEAD]
    check_same_model(there, model.shape, weights.where)
    weights.load_into(parameters)


# What a run may choose anew without a word, and with one: longer contexts come with another base on purpose.
_WITHOUT_EFFECT = ("max_position_embeddings", "initializer_range")
_ROPE = ("rope_theta", "rope_scaling")


def check_same_model(there: LanguageModelConfig, here: LanguageModelConfig, where: str) -> None:
    """Whether weights fit a model; other rotary settings are a choice, of which a warning tells.

    Tensors of equal shapes are not enough: other heads or another epsilon would compute something else.

    Raises:
        ValueError: naming the settings that differ.
    """

    def differing(names: list[str]) -> str:
        changed = [name for name in names if getattr(there, name) != getattr(here, name)]
        return ", ".join(f"{name} {getattr(there, name)} there, {getattr(here, name)} here" for name in changed)

    fixed = [field.name for field in dataclasses.fields(there) if field.name not in _WITHOUT_EFFECT + _ROPE]
    if other := differing(fixed):
        raise ValueError(f"{where} has another shape: {other}; leave core out, and the shape is taken from there")
    if other := differing(list(_ROPE)):
        log.warn(f"the weights of {where} were trained with other rotary embeddings: {other}")


def download(name: str, only: list[str] | None = None) -> Path:
    """A model of the Hugging Face hub, in the local cache.

    Raises:
        FileNotFoundError: neither a folder nor a model of the hub.
    """
    if not _HUB_NAME.fullmatch(name):
        raise FileNotFoundError(f"{name} does not exist; give a folder, or a hub name such as organisation/model")
    from huggingface_hub import constants, snapshot_download

    from nbg_lightning.core.hub_download import once_a_node

    wanted = only or ["*.json", "*.safetensors", "*.jinja", "*.model"]
    doubles = ["consolidated*", "original/*"]  # the same weights once more, in Mistral's and Meta's own form

    def get(there: bool) -> str:
        return snapshot_download(name, allow_patterns=wanted, ignore_patterns=doubles, local_files_only=there)

    try:
        return Path(once_a_node(" ".join([name, *wanted]), get, Path(constants.HF_HUB_CACHE)))
    except TimeoutError:
        raise
    except Exception as error:  # the hub client raises many kinds; each means that the model cannot be had
        raise FileNotFoundError(
            f"{name} is neither a folder nor a model that can be had from the hub ({first_line(error)}); "
            "check the name, or download the model and give its folder"
        ) from error


def _local(source: str | Path) -> PathOrUrl | None:
    path = local_or_url(checkpoint_at(source))
    if isinstance(path, UrlPath):
        return path
    if path.is_file():
        raise ValueError(f"{source} is a file; {other_format(path) or 'give the folder that holds it'}")
    if path.is_dir() and not _is_checkpoint(path) and not any((path / name).is_file() for name in (CONFIG, ADAPTER)):
        advice = other_format(path) or "there is no config.json"
        raise ValueError(
            f"{source} is neither a Hugging Face model nor a checkpoint, nor a run that has saved one; {advice}"
        )
    return path if path.is_dir() else None


def _is_checkpoint(folder: PathOrUrl) -> bool:
    """Whether a folder is to be read as a checkpoint; behind a URL there is nothing else."""
    return isinstance(folder, UrlPath) or (folder / "meta.pt").exists() or (folder / ".metadata").exists()
