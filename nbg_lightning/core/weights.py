"""Base weights: opening them from any source, and loading them at the start of a run."""

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
    """Open weights from any supported source.

    Args:
        source: a Hugging Face folder, a hub name (which is downloaded), a checkpoint, or a run's folder, which means its newest
            checkpoint; an adapter, in a checkpoint or a peft folder, is merged with its base.
        ema: use the averaged weights of a checkpoint.
        base: location of an adapter's base, if it differs from the recorded one.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it is something else, or cannot be used.
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
    """Open an adapter, without its base.

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
    """The shape of the model at any source that `open_weights` accepts; for a hub model only the config is downloaded.

    Args:
        source: the source.
        may_score: accept a reward model, which scores texts and cannot generate.

    Raises:
        ValueError: it is a reward model and that is not accepted, or it cannot be read.
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
    """Initialize a model from existing weights, on any number of ranks.

    From a Hugging Face folder every rank reads every tensor, one at a time, and keeps its shard; from a checkpoint every rank
    reads its own shards. The whole model is never in memory a second time.

    A model with a score head takes all weights but the head from one without: its own head keeps its initial values.

    Args:
        model: a `LanguageModel` with allocated memory, sharded or not.
        source: as in `open_weights`.
        ema: use the averaged weights of a checkpoint.

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


# Settings that a run may change silently, and with a warning: longer contexts deliberately use another base.
_WITHOUT_EFFECT = ("max_position_embeddings", "initializer_range")
_ROPE = ("rope_theta", "rope_scaling")


def check_same_model(there: LanguageModelConfig, here: LanguageModelConfig, where: str) -> None:
    """Check that weights fit a model; different rotary settings only cause a warning.

    Equal tensor shapes are not sufficient: with other heads or another epsilon the model would compute something else.

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
    """Download a model from the Hugging Face hub into the local cache.

    Raises:
        FileNotFoundError: neither a folder nor a model on the hub.
    """
    if not _HUB_NAME.fullmatch(name):
        raise FileNotFoundError(f"{name} does not exist; give a folder, or a hub name such as organisation/model")
    from huggingface_hub import constants, snapshot_download

    from nbg_lightning.core.hub_download import once_a_node

    wanted = only or ["*.json", "*.safetensors", "*.jinja", "*.model"]
    doubles = ["consolidated*", "original/*"]  # duplicates of the weights in Mistral's and Meta's own formats

    def get(there: bool) -> str:
        return snapshot_download(name, allow_patterns=wanted, ignore_patterns=doubles, local_files_only=there)

    try:
        return Path(once_a_node(" ".join([name, *wanted]), get, Path(constants.HF_HUB_CACHE)))
    except TimeoutError:
        raise
    except Exception as error:  # the hub client raises many types; each means that the model is not available
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
    """Whether to read a folder as a checkpoint; a URL always is one."""
    return isinstance(folder, UrlPath) or (folder / "meta.pt").exists() or (folder / ".metadata").exists()
