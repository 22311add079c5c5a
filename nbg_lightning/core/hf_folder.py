"""Export of a model as a Hugging Face folder, verified against transformers."""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from nbg_lightning import log
from nbg_lightning.core.hf_config import make_hf_config
from nbg_lightning.core.names import hf_name
from nbg_lightning.core.parameter_shapes import groups_by_size
from nbg_lightning.core.safetensors_file import write_safetensors
from nbg_lightning.core.weight_sources import (
    CONFIG,
    HuggingFaceFolder,
    LiveWeights,
    Weights,
    named_parameters,
    read_json,
    shape_from,
    write_json,
)
from nbg_lightning.host_memory import host_memory

if TYPE_CHECKING:
    from nbg_lightning.core.model import LanguageModel

DTYPES = ("bfloat16", "float32", "float16")
_PROBE_SHAPE = (2, 64)
# Reordered float32 products differ by some 1e-6 of the largest logit; a wrong setting by far more.
_TOLERANCE = 1e-4
_END_OF_TURN = "<|im_end|>"
_READ_BYTES = 2**27  # float32 originals held in memory while they are converted


class ExportedTokenizer(Protocol):
    """What an export needs of a tokenizer: special ids, chat format, and its files (see `data.Tokenizer`)."""

    name_or_path: str
    chat_template: Any

    @property
    def vocab_size(self) -> int: ...

    @property
    def bos_id(self) -> int | None: ...

    @property
    def eos_id(self) -> int | None: ...

    @property
    def pad_id(self) -> int | None: ...

    @property
    def transformers(self) -> Any: ...

    def save_pretrained(self, folder: Any) -> Any: ...


@dataclass
class Comparison:
    """Logits of our model and of transformers on a few random rows of tokens, both computed in float32.

    Attributes:
        difference: largest absolute difference.
        largest: largest absolute logit.
        rounding: largest absolute difference caused by rounding the weights to the folder's dtype.
    """

    difference: float
    largest: float
    rounding: float = 0.0

    @property
    def limit(self) -> float:
        """The allowed difference: 1e-4 of the largest logit, or 1e-4 if that is below 1."""
        return _TOLERANCE * max(1.0, self.largest)

    def check(self, where: str) -> None:
        """Check that transformers computes the same.

        Raises:
            ValueError: the difference is above the limit, or not a number.
        """
        if not self.difference <= self.limit:  # also false for NaN
            raise ValueError(
                f"{where}: logits of transformers differ from ours by {self.difference:.1e} "
                f"(allowed {self.limit:.1e}, largest logit {self.largest:.1f}); do not use it, and report this with the "
                "model's name"
            )


def save_hugging_face(
    model: LanguageModel,
    out: str | Path,
    tokenizer: ExportedTokenizer | None = None,
    dtype: str = "bfloat16",
    max_shard_size: int = 5 * 10**9,
    verify: bool = True,
) -> Comparison | None:
    """Write a model in memory, sharded or not, as a Hugging Face folder. Collective over all ranks; rank 0 writes.

    One parameter is gathered at a time; rank 0 holds one output file in memory. Verification needs the whole model once more on
    rank 0's CPU, in float32.

    Args:
        model: a `LanguageModel`.
        out: the folder; it must not exist, and appears when it is complete.
        tokenizer: copied into the folder, with its chat format.
        dtype: dtype of the exported weights (they are float32 in training).
        max_shard_size: maximum size of a safetensors file in bytes.
        verify: load the folder with transformers and compare logits.

    Returns:
        The comparison on rank 0, if verified.
    """
    return write_hugging_face(
        LiveWeights(model), out, token_ids(tokenizer), tokenizer, dtype, max_shard_size, stops(tokenizer), verify
    )


def token_ids(tokenizer: ExportedTokenizer | None) -> dict[str, Any]:
    """The special token ids for ``config.json``."""
    if tokenizer is None:
        return {}
    return {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
    }


def stops(tokenizer: ExportedTokenizer | None) -> dict[str, Any]:
    """The stop tokens for ``generation_config.json``, including the end-of-turn token of ChatML.

    Without it a chat model continues after its answer up to the length limit.
    """
    if tokenizer is None:
        return {}
    template = tokenizer.chat_template.text if tokenizer.chat_template else str(tokenizer.transformers.chat_template)
    if _END_OF_TURN not in template:
        return {}
    ids = {tokenizer.eos_id, tokenizer.transformers.get_added_vocab().get(_END_OF_TURN)} - {None}
    return {"eos_token_id": sorted(ids)}


def write_hugging_face(
    weights: Weights,
    out: str | Path,
    ids: dict[str, Any],
    tokenizer: ExportedTokenizer | None = None,
    dtype: str = "bfloat16",
    max_shard_size: int = 5 * 10**9,
    generation: dict[str, Any] | None = None,
    verify: bool = True,
) -> Comparison | None:
    """Write weights from any source as a Hugging Face folder, verified against transformers.

    Args:
        weights: the weights.
        out: the folder; it must not exist. It is written under a temporary name and renamed at the end.
        ids: ``bos_token_id``, ``eos_token_id``, ``pad_token_id``.
        tokenizer: copied into the folder, with its chat format.
        dtype: dtype of the written weights.
        max_shard_size: maximum size of a safetensors file in bytes.
        generation: additional settings of ``generation_config.json``.
        verify: load the folder with transformers and compare logits.

    Raises:
        ValueError: an invalid setting, a tokenizer that does not match, logits that differ, or too little memory
            to compare them; nothing is left behind.
        OSError: no space left on the device.
    """
    out = Path(out)
    writes = not dist.is_initialized() or dist.get_rank() == 0
    if dtype not in DTYPES:
        raise ValueError(f"dtype is invalid: {dtype}; there are {', '.join(DTYPES)}")
    if max_shard_size < 1:
        raise ValueError(f"max_shard_size is invalid: {max_shard_size}; give a number of bytes above 0")
    if tokenizer is not None and tokenizer.vocab_size > weights.shape.vocab_size:
        raise ValueError(
            f"tokenizer {tokenizer.name_or_path} has {tokenizer.vocab_size} ids, the model {weights.shape.vocab_size}; "
            "give the tokenizer that it was trained with"
        )
    if writes:
        _check_room(out, weights, dtype)
        if verify:
            _check_memory(weights)
    with new_folder(out) if writes else nullcontext() as temporary:
        _write_tensors(weights, temporary, dtype, max_shard_size)
        if temporary is not None:
            write_json(temporary / "config.json", make_hf_config(weights.shape, dtype, **ids))
            settings = {key: value for key, value in ids.items() if value is not None}
            write_json(temporary / "generation_config.json", settings | (generation or {}))
            if tokenizer is not None:
                tokenizer.save_pretrained(temporary)
        comparison = compare(weights, temporary, dtype) if verify else None
        if writes and comparison is not None:
            comparison.check(weights.where)
    return comparison


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, renamed to its final name when the block ends; after an error nothing is left behind."""
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        yield temporary
        take_usual_modes(temporary)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def compare(
    weights: Weights,
    folder: Path | None,
    dtype: str | None = None,
    theirs: Callable[[Tensor], Tensor] | None = None,
) -> Comparison | None:
    """Compare our logits from ``weights``, rounded to ``dtype`` if given, with those of transformers from a folder.

    One model is in memory at a time, in float32 on the CPU. If `weights` are sharded, this is collective over all ranks;
    rank 0 computes.

    Args:
        weights: the source.
        folder: the folder that transformers loads (on rank 0).
        dtype: dtype of the weights in the folder, if it is coarser than that of ``weights``.
        theirs: computes the logits of token ids ``[B, L]`` in place of transformers.
    """
    computes = not dist.is_initialized() or dist.get_rank() == 0
    generator = torch.Generator().manual_seed(0)
    tokens_BL = torch.randint(weights.shape.vocab_size, _PROBE_SHAPE, generator=generator)
    model = _load(weights, computes)
    if model is None:
        return None
    exact_BLV = _logits(model, tokens_BL)
    if dtype is not None:
        for parameter in model.parameters():
            parameter.data.copy_(parameter.data.to(getattr(torch, dtype)))
    ours_BLV = _logits(model, tokens_BL)
    del model
    gc.collect()  # modules are reference cycles, and another model of this size follows
    assert folder is not None
    if theirs is None:
        read = _transformers_logits if weights.shape.num_loops == 1 else _own_logits
        theirs_BLV = read(folder, tokens_BL)
    else:
        theirs_BLV = theirs(tokens_BL)
    difference = (ours_BLV - theirs_BLV).abs().max().item()
    rounding = (exact_BLV - ours_BLV).abs().max().item()
    return Comparison(difference, ours_BLV.abs().max().item(), rounding)


def _load(weights: Weights, keep: bool) -> LanguageModel | None:
    """A separate float32 model with these weights; ranks without ``keep`` still take part in reading."""
    from nbg_lightning.core.create import create_model

    model = create_model(weights.shape) if keep else None
    parameters = {} if model is None else named_parameters(model)
    for names in groups_by_size(weights.shapes, 4, _READ_BYTES):
        for name, tensor in weights.read(names).items():
            if model is not None:
                parameters[name].data.copy_(tensor)
    return model


@torch.no_grad()
def _logits(model: Callable[[Tensor], Tensor], tokens_BL: Tensor) -> Tensor:
    return model(tokens_BL)


def _own_logits(folder: Path, tokens_BL: Tensor) -> Tensor:
    """The folder's logits as computed by this library, since transformers has no looped model."""
    log.warn("transformers has no code for num_loops: the folder is compared as this library reads it")
    model = _load(HuggingFaceFolder(str(folder)), keep=True)
    assert model is not None
    return _logits(model, tokens_BL)


@torch.no_grad()
def _transformers_logits(folder: Path, tokens_BL: Tensor) -> Tensor:
    import transformers

    scores = shape_from(read_json(folder / CONFIG), str(folder)).score_head
    kind = transformers.AutoModelForSequenceClassification if scores else transformers.AutoModelForCausalLM
    try:
        loaded: Any = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, local_files_only=True)
    except Exception as error:  # of many types; each means that the folder cannot be used
        raise ValueError(
            f"transformers cannot load {folder} ({str(error).strip().splitlines()[0]}); check its files, or download it again"
        ) from error
    model, report = loaded
    left = sorted(report["missing_keys"]) + sorted(report["mismatched_keys"])
    if left:
        raise ValueError(
            f"transformers finds no weights for {', '.join(map(str, left[:4]))} in {folder}; report this with the model's name"
        )
    model = model.eval()
    if not scores:
        return model(tokens_BL).logits
    return model.score(
        model.model(tokens_BL).last_hidden_state
    )  # logits of every position; its own forward returns only the last


def take_usual_modes(folder: Path) -> None:
    """Set permissions as the umask allows: temporary folders and safetensors files are created readable by the owner only."""
    probe = folder / ".mode"
    probe.mkdir()
    (probe / "file").touch()
    folder_mode, file_mode = probe.stat().st_mode & 0o777, (probe / "file").stat().st_mode & 0o777
    shutil.rmtree(probe)
    for path in folder.iterdir():
        path.chmod(folder_mode if path.is_dir() else file_mode)
    folder.chmod(folder_mode)


def _write_tensors(weights: Weights, folder: Path | None, dtype: str, max_shard_size: int) -> None:
    """Write the safetensors file by file; without a folder (on other ranks), only take part in reading."""
    target = getattr(torch, dtype)
    groups = list(groups_by_size(weights.shapes, target.itemsize, max_shard_size))
    index: dict[str, str] = {}
    total = 0
    for number, names in enumerate(groups, start=1):
        single = len(groups) == 1
        file = "model.safetensors" if single else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        tensors = _read_in_parts(weights, names)
        if folder is None:
            deque(tensors, maxlen=0)
            continue
        shapes = {hf_name(name, weights.shape.score_head): weights.shapes[name] for name in names}
        total += write_safetensors(folder / file, shapes, target, tensors)
        index |= dict.fromkeys(shapes, file)
    if folder is not None and len(groups) > 1:
        content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))}
        write_json(folder / "model.safetensors.index.json", content)


def _read_in_parts(weights: Weights, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one file under Hugging Face's names, read some at a time. Collective."""
    for group in groups_by_size({name: weights.shapes[name] for name in names}, 4, _READ_BYTES):
        read = weights.read(group)
        for name in group:
            yield hf_name(name, weights.shape.score_head), read.pop(name)


def _check_room(out: Path, weights: Weights, dtype: str) -> None:
    if out.exists():
        raise FileExistsError(f"{out} exists; give another name, or remove it first")
    out.parent.mkdir(parents=True, exist_ok=True)
    needed = weights.shape.num_parameters * getattr(torch, dtype).itemsize
    free = shutil.disk_usage(out.parent).free
    if free < needed:
        raise OSError(
            f"{out} needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; free space, or choose another disk"
        )


def _check_memory(weights: Weights) -> None:
    """Refuse to compare a model that this machine cannot hold in float32: the kernel would kill the process."""
    needed = weights.shape.num_parameters * 4
    memory = host_memory()
    if memory < needed:
        raise ValueError(
            f"the check against transformers needs {needed / 1e9:.1f} GB and this machine or container has "
            f"{memory / 1e9:.1f} GB; write without it (--no-verify, in Python verify=False), or use a larger one"
        )
