"""Sources of weights: a Hugging Face folder, a checkpoint of a run, or a model in memory; read one tensor at a time.

The core rotates the pairs (i, i + H/2) as Hugging Face does, so that parameters map to theirs by a plain rename.
"""

from __future__ import annotations

import dataclasses
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from typing_extensions import override

from nbg_lightning.core.checkpoint import CheckpointFiles
from nbg_lightning.core.checkpoint_folder import is_complete
from nbg_lightning.core.config import LanguageModelConfig, Llama3RopeScaling
from nbg_lightning.core.finite import require_finite
from nbg_lightning.core.hf_config import parse_hf_config
from nbg_lightning.core.lora import adapted_layers, merge
from nbg_lightning.core.lora_config import LoRAConfig
from nbg_lightning.core.names import clean_name, hf_name, is_adapter
from nbg_lightning.core.other_formats import other_format
from nbg_lightning.core.parameter_shapes import Shapes, adapter_shapes, check_shapes, parameter_shapes, some
from nbg_lightning.core.sharding import reshard
from nbg_lightning.digests import require_regular
from nbg_lightning.error_line import first_line
from nbg_lightning.url_path import PathOrUrl, place_of

if TYPE_CHECKING:
    from nbg_lightning.core.model import LanguageModel

CONFIG = "config.json"
# Rotary tables in old Llama files; transformers ignores them too.
_IGNORED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")
_FLOATS = {"F64": "float32", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"


class Weights(ABC):
    """The weights of one model, from any source.

    Attributes:
        shape: the model's shape; ``rope_theta`` is the base that the weights were last trained with.
        shapes: name and shape of every parameter (our names, without a tied head).
        where: their location, for error messages.
    """

    shape: LanguageModelConfig
    shapes: Shapes
    where: str

    @abstractmethod
    def read(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Full tensors on the CPU, in the dtype they are stored in."""

    def load_into(self, parameters: Mapping[str, Tensor]) -> None:
        """Copy all weights into the parameters of the same names, which may be shards on this rank."""
        from nbg_lightning.core.initialize import copy_full  # imports torchtitan, which takes a second

        for name, parameter in parameters.items():
            copy_full(parameter, self.read([name])[name])


class HuggingFaceFolder(Weights):
    """A folder with ``config.json`` and safetensors, in one file or several with an index.

    Tensors are memory-mapped and read one at a time; the file is closed after each.

    Attributes:
        config: the content of ``config.json``.
        dtype: dtype that the weights are stored in (float32 for float64).

    Raises:
        ValueError: an unsupported config, a broken file, or tensors that do not match the config, by name.
        FileNotFoundError: a file is missing.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.where = str(folder)
        self.config = read_json(self.folder / CONFIG)
        self.shape = shape_from(self.config, self.where)
        self.shapes = parameter_shapes(self.shape)
        self._files = self._locate()
        self.dtype = _FLOATS[self._check()]

    def _locate(self) -> dict[str, Path]:
        """Map every tensor to its file."""
        if (self.folder / _INDEX).is_file():
            index = read_json(self.folder / _INDEX).get("weight_map")
            if not isinstance(index, dict):
                raise ValueError(f"{self.folder / _INDEX} has no weight_map; download the model again")
            outside = [name for name in index.values() if not isinstance(name, str) or Path(name).name != name]
            if outside:
                raise ValueError(
                    f"{self.folder / _INDEX} is invalid: it names {str(outside[0])[:80]!r}, outside the folder; do not use "
                    "files of this origin"
                )
            files = {self.folder / name for name in index.values()}
        else:
            index, files = None, {self.folder / _SINGLE}
        absent = sorted(file.name for file in files if not file.is_file())
        if absent:
            advice = other_format(self.folder) or "save the model as safetensors, or download it again"
            raise FileNotFoundError(f"no {some(absent)} in {self.folder}; {advice}")
        found: dict[str, Path] = {}
        for file in sorted(files):
            require_regular(file)
            names = _tensor_names(file)
            if doubled := sorted(set(names) & set(found)):
                raise ValueError(
                    f"{file} has {some(doubled)}, which {found[doubled[0]].name} has too; download the model again"
                )
            found |= dict.fromkeys(names, file)
        if index is not None and index != {name: file.name for name, file in found.items()}:
            differing = sorted(n for n in {*index, *found} if n not in found or index.get(n) != found[n].name)
            raise ValueError(
                f"{self.folder / _INDEX} and the files beside it disagree on {some(differing)}; download the model again"
            )
        return {name: file for name, file in found.items() if not _IGNORED.fullmatch(name)}

    def _check(self) -> str:
        """Check the files against the config; returns the embedding's dtype."""
        found: Shapes = {}
        dtypes: dict[str, str] = {}
        for file in sorted(set(self._files.values())):
            with open_safetensors(file) as tensors:
                for name in (n for n, f in self._files.items() if f == file):
                    part = tensors.get_slice(name)
                    found[name] = tuple(part.get_shape())
                    dtypes[name] = part.get_dtype()
                    if dtypes[name] not in _FLOATS:
                        raise ValueError(
                            f"{file}: {name} is {dtypes[name]}, but only float weights are supported; take the unquantized model"
                        )
        expected = {self._name(name): size for name, size in self.shapes.items()}
        if self.shape.tie_word_embeddings and "lm_head.weight" in found:
            self._check_tie()
            del found["lm_head.weight"]
        check_shapes(found, expected, self.where)
        return dtypes[self._name("tok_embeddings.weight")]

    def _name(self, name: str) -> str:
        return hf_name(name, self.shape.score_head)

    def _check_tie(self) -> None:
        """Check that a tied head that is stored beside the embedding equals it."""
        head, embedding = (self._tensor(name) for name in ("lm_head.weight", "model.embed_tokens.weight"))
        if not torch.equal(head, embedding):
            raise ValueError(
                f"{self.where}: tie_word_embeddings is true, but lm_head.weight is not model.embed_tokens.weight; "
                "set tie_word_embeddings to false in its config.json"
            )

    def _tensor(self, name: str) -> Tensor:
        if name not in self._files:
            raise ValueError(f"{self.where} has no tensor {name}; download the model again, or take another checkpoint")
        with open_safetensors(self._files[name]) as tensors:
            return tensors.get_tensor(name)

    def read(self, names: Sequence[str]) -> dict[str, Tensor]:
        tensors = {name: self._tensor(self._name(name)) for name in names}
        for name, tensor in tensors.items():
            require_finite(self._name(name), tensor, self.where)
        return tensors

    @override
    def load_into(self, parameters: Mapping[str, Tensor]) -> None:
        """Copy all weights; every rank reads its own rows only."""
        for name, parameter in parameters.items():
            whole = parameter.detach()
            local, region = whole, [(0, size) for size in whole.shape]
            if isinstance(whole, DTensor):
                local, region = whole.to_local(), own_region(whole)
            if local.numel():
                local.copy_(self._part(self._name(name), region))
                require_finite(self._name(name), local, self.where)

    def _part(self, name: str, region: Sequence[tuple[int, int]]) -> Tensor:
        """A region of a tensor, ``(begin, end)`` in each dimension; only its rows are read."""
        with open_safetensors(self._files[name]) as tensors:
            part: Tensor = tensors.get_slice(name)[tuple(slice(begin, end) for begin, end in region)]
            return part


@dataclass
class AdapterRecord:
    """Metadata of an adapter in a checkpoint or a peft folder.

    Attributes:
        lora: the adapter's settings.
        base: location of the weights it was trained on.
        fingerprint: their `source_fingerprint`; None if unknown.
        scores: whether a score head was trained with it and is among its tensors.
    """

    lora: LoRAConfig
    base: str
    fingerprint: str | None
    scores: bool = False


class TrainingCheckpoint(Weights):
    """A sharded checkpoint (``step-XXXXXXXX``) of a run, written by any number of ranks.

    Args:
        folder: the checkpoint.
        ema: read the averaged weights instead of the last ones.

    Attributes:
        step: number of optimizer steps done.
        tokenizer: path or name of the run's tokenizer, or None if not recorded.
        adapter: set if the checkpoint holds an adapter instead of all weights. Then ``stored`` is read; `open_weights` merges it
            with its base.
        stored: name and shape of every stored parameter.
        chat_template: the run's chat format (`ChatTemplate.to_dict`), or None if not recorded.

    Raises:
        ValueError: not a complete checkpoint of this library, or without averaged weights.
    """

    def __init__(self, folder: str | PathOrUrl, ema: bool = False):
        self.folder = place_of(folder)
        self.where = str(folder)
        self._files = CheckpointFiles(self.folder)
        own = self._meta()
        self.shape = self._shape(own)
        self.shapes = parameter_shapes(self.shape)
        self.adapter = self._adapter(own.get("adapter"))
        self.stored = self.shapes if self.adapter is None else adapter_shapes(self.shape, self.adapter.lora)
        self.tokenizer: str | None = self._of(own.get("tokenizer"), "tokenizer", str)
        self.chat_template: dict[str, str] | None = self._of(own.get("chat_template"), "chat_template", dict)
        self._keys = {
            name: f"state_dict.ema.{name.replace('.', '__')}" if ema else f"state_dict.model.{name}"
            for name in self.stored
        }
        self._check(ema)

    def _meta(self) -> dict[str, Any]:
        if not is_complete(self.folder):
            raise ValueError(f"{self.where} is not a complete checkpoint; take another of its run")
        meta = self._files.meta()
        if not isinstance(own := meta.get("nbg_lightning"), dict) or not isinstance(meta.get("global_step"), int):
            raise ValueError(
                f"{self.where} has no model shape, and was not written by nbg_lightning; give a checkpoint of a run"
            )
        self.step: int = meta["global_step"]
        return own

    def _shape(self, own: Mapping[str, Any]) -> LanguageModelConfig:
        try:
            shape = dict(own["shape"])
            scaling = shape["rope_scaling"]
            shape["rope_scaling"] = None if scaling is None else Llama3RopeScaling(**scaling)
            return LanguageModelConfig(**{**shape, "rope_theta": own.get("rope_theta", shape["rope_theta"])})
        except (KeyError, TypeError, ValueError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else first_line(error)
            raise ValueError(
                f"{self.where}: its model's shape is invalid ({reason}); take another checkpoint"
            ) from None

    def _adapter(self, value: Any) -> AdapterRecord | None:
        if value is None:
            return None
        try:
            lora = LoRAConfig(**{key: value["lora"][key] for key in ("rank", "alpha", "targets", "dropout")})
            base, fingerprint = value["base"], value["fingerprint"]
            if not isinstance(base, str) or not isinstance(fingerprint, str):
                raise ValueError("it names no base")
            return AdapterRecord(lora, base, fingerprint, self.shape.score_head)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else first_line(error)
            raise ValueError(f"{self.where}: its adapter is invalid ({reason}); take another checkpoint") from None

    def _of(self, value: Any, name: str, kind: type) -> Any:
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"{self.where}: its {name} is invalid: {value!r:.40}; take another checkpoint")
        return value

    def _check(self, ema: bool) -> None:
        saved = self._files.metadata().state_dict_metadata
        if ema and not any(key.startswith("state_dict.ema.") for key in saved):
            raise ValueError(f"{self.where} has no averaged weights (it was trained without ema_decay); leave out ema")
        prefix = "state_dict.ema." if ema else "state_dict.model."
        found = {key: tuple(getattr(value, "size", ())) for key, value in saved.items() if key.startswith(prefix)}
        if self.shape.tie_word_embeddings:
            found.pop(prefix + "lm_head.weight", None)  # the tied embedding again
        check_shapes(found, {self._keys[name]: size for name, size in self.stored.items()}, self.where)

    def check_files(self) -> None:
        """Verify all files against their digests; reading weights verifies only what is read.

        Raises:
            ValueError: a file is damaged; it is named.
        """
        self._files.check()

    def read(self, names: Sequence[str]) -> dict[str, Tensor]:
        tensors = {name: torch.empty(self.stored[name]) for name in names}
        self._load(tensors, alone=True)
        return tensors

    def load_into(self, parameters: Mapping[str, Tensor]) -> None:
        """Copy all weights; every rank reads its own shards only."""
        self._load(parameters, alone=not any(isinstance(p, DTensor) for p in parameters.values()))

    def _load(self, tensors: Mapping[str, Tensor], alone: bool) -> None:
        from torch.distributed.checkpoint.api import CheckpointException

        state = {self._keys[name]: tensor.detach() for name, tensor in tensors.items()}
        alone = alone or not torch.distributed.is_initialized()
        try:
            self._files.load(state, alone)
        except (CheckpointException, Exception) as error:  # the former is a BaseException
            cause = next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
            raise ValueError(f"checkpoint {self.where} cannot be read ({first_line(cause)}); take another") from error


class LiveWeights(Weights):
    """The weights of a model in memory, with its adapter merged in. `read` is collective; all ranks get full tensors."""

    def __init__(self, model: LanguageModel):
        reshard(model)  # a forward without a backward leaves a unit gathered, in the compute dtype
        self.where = "the model"
        self.shape = dataclasses.replace(model.shape, rope_theta=model.rope_theta)
        self.shapes = parameter_shapes(self.shape)
        self._parameters = named_parameters(model)
        self._adapted = {name: layer for name, layer in adapted_layers(model).items() if layer.enabled}

    def read(self, names: Sequence[str]) -> dict[str, Tensor]:
        return {name: self.whole(name).cpu() for name in names}

    def whole(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """A full tensor on the model's device; collective over all ranks.

        Args:
            name: name of the parameter.
            dtype: dtype to round to, before shards are exchanged unless an adapter is merged; by default unchanged.
        """
        if name not in self._adapted:
            return whole_tensor(self._parameters[name], dtype)
        weight, layer = whole_tensor(self._parameters[name]), self._adapted[name]
        merged = merge(weight, whole_tensor(layer.lora_a), whole_tensor(layer.lora_b), layer.scale)
        return merged if dtype is None else merged.to(dtype)


def whole_tensor(parameter: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A parameter without gradients, rounded to ``dtype`` if given, then gathered from all ranks if it is sharded."""
    weight = parameter.detach() if dtype is None else parameter.detach().to(dtype)
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def own_region(parameter: DTensor) -> list[tuple[int, int]]:
    """This rank's shard as a region of the full tensor: ``(begin, end)`` in each dimension; empty if it has none."""
    chunks = parameter.__create_chunk_list__()  # as torch.distributed.checkpoint does
    if not chunks:
        return [(0, 0) for _ in parameter.shape]
    (chunk,) = chunks
    return [(begin, begin + size) for begin, size in zip(chunk.offsets, chunk.sizes, strict=True)]


def named_parameters(model: LanguageModel) -> dict[str, nn.Parameter]:
    """A model's parameters by clean name, without a tied head or an adapter."""
    parameters = {clean_name(name): parameter for name, parameter in model.named_parameters() if not is_adapter(name)}
    if model.shape.tie_word_embeddings:
        parameters.pop("lm_head.weight", None)
    return parameters


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not a JSON object.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"no {file.name} in {file.parent}; give the folder of a Hugging Face model, or a checkpoint of a run"
        )
    try:
        content = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({first_line(error)}); download it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is not a JSON object; download it again")
    return content


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a JSON object to a file."""
    file.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def shape_from(config: Mapping[str, Any], where: str) -> LanguageModelConfig:
    """The shape described by a ``config.json``; errors name its location."""
    try:
        return parse_hf_config(config)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def open_safetensors(file: Path) -> Any:
    """Open a safetensors file for lazy reading.

    Raises:
        ValueError: the file is broken.
    """
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        if other := other_format(file):
            raise ValueError(f"{file} is no safetensors file; {other}") from None
        raise ValueError(f"{file} is cut short or broken ({first_line(error)}); download or write it again") from error


def _tensor_names(file: Path) -> list[str]:
    with open_safetensors(file) as tensors:
        return list(tensors.keys())
