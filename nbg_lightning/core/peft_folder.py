"""Export and import of adapters as peft folders, verified against peft."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor

from nbg_lightning.core.adapter_weights import AdaptedWeights, Adapter
from nbg_lightning.core.finite import require_finite
from nbg_lightning.core.hf_folder import Comparison, ExportedTokenizer, compare, new_folder
from nbg_lightning.core.lora_config import TARGETS, LoRAConfig
from nbg_lightning.core.names import HEAD, LORA_A, LORA_B, hf_name
from nbg_lightning.core.weight_sources import AdapterRecord, HuggingFaceFolder, open_safetensors, read_json, write_json
from nbg_lightning.digests import require_regular

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_BASE_DIGEST = "base_fingerprint"  # stored in the metadata of the weights, since peft has no field for it
_PREFIX = "base_model.model."
_PEFT_NAMES = {LORA_A: "lora_A.weight", LORA_B: "lora_B.weight"}
_READ = {"peft_type", "base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora"}
_SCORES, _SCORE_HEAD = "SEQ_CLS", "score"  # task type of a reward model, and its head among modules_to_save
_HEADS = {_SCORE_HEAD, "classifier"}  # names that peft lists for that task, whatever the model calls its head
_WITHOUT_EFFECT = {  # on the output: settings of initialization, storage or experiments
    "task_type", "inference_mode", "revision", "auto_mapping", "init_lora_weights", "peft_version", "megatron_core",
    "qalora_group_size", "runtime_config", "ensure_weight_tying",
}  # fmt: skip


def peft_name(name: str) -> str:
    """Peft's name of one of our parameters.

    Example:
        >>> peft_name("layers.3.attention.wo.lora_a")
        'base_model.model.model.layers.3.self_attn.o_proj.lora_A.weight'
    """
    if name == HEAD:
        return f"{_PREFIX}{hf_name(name, score_head=True)}"
    place, _, side = name.rpartition(".")
    return f"{_PREFIX}{hf_name(f'{place}.weight').removesuffix('weight')}{_PEFT_NAMES[side]}"


def write_peft(adapter: Adapter, folder: Path) -> None:
    """Write a folder that peft and vLLM can load; tensors are bit-identical."""
    record = adapter.record
    lora = record.lora
    config = {
        "peft_type": "LORA",
        "task_type": _SCORES if record.scores else "CAUSAL_LM",
        "base_model_name_or_path": record.base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": lora.targets,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    } | ({"modules_to_save": [_SCORE_HEAD]} if record.scores else {})
    write_json(folder / PEFT_CONFIG, config)
    metadata = {"format": "pt"} | ({} if record.fingerprint is None else {_BASE_DIGEST: record.fingerprint})
    tensors = {peft_name(name): tensor.contiguous() for name, tensor in adapter.tensors.items()}
    save_file(tensors, folder / PEFT_WEIGHTS, metadata=metadata)


def read_peft(folder: str | Path) -> Adapter:
    """Read the adapter of a peft folder.

    Raises:
        ValueError: an unsupported setting, named by its key, or a broken file.
        FileNotFoundError: a file is missing.
    """
    folder = Path(folder)
    record = read_peft_record(folder)
    file = folder / PEFT_WEIGHTS
    if not file.is_file():
        raise FileNotFoundError(f"no {PEFT_WEIGHTS} in {folder}; save the adapter as safetensors")
    require_regular(file)
    with open_safetensors(file) as stored:
        digest = (stored.metadata() or {}).get(_BASE_DIGEST)
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
    layers = {int(part) for name in tensors for part in name.split(".")[:5] if part.isdecimal()}
    names = _core_names(record, max(layers, default=-1) + 1)
    if unknown := sorted(set(tensors) - set(names)):
        raise ValueError(f"{file} is invalid: it has {unknown[0]:.100}, which its config does not name; save it again")
    for name, tensor in tensors.items():
        require_finite(name, tensor, str(folder))
    found = {names[name]: tensor for name, tensor in tensors.items()}
    return Adapter(dataclasses.replace(record, fingerprint=digest), found, str(folder))


def read_peft_record(folder: Path) -> AdapterRecord:
    """The settings of a peft folder's adapter, from its config only; raises like `read_peft`."""
    return _peft_record(read_json(folder / PEFT_CONFIG), folder / PEFT_CONFIG)


def _core_names(record: AdapterRecord, layers: int) -> dict[str, str]:
    """Map peft's names to ours."""
    ours = [
        f"layers.{index}.{TARGETS[target]}.{side}"
        for index in range(min(layers, 10_000))
        for target in record.lora.targets
        for side in (LORA_A, LORA_B)
    ]
    ours += [HEAD] if record.scores else []
    return {peft_name(name): name for name in ours}


def _peft_record(config: Mapping[str, Any], file: Path) -> AdapterRecord:
    if config.get("peft_type") != "LORA":
        raise ValueError(f"{file} is invalid: peft_type {config.get('peft_type')!r:.40}; supported: LORA")
    scores = config.get("task_type") == _SCORES
    for key, value in config.items():
        neutral = value in (None, False, 0, "", "none") or value in ([], {})
        if key == "modules_to_save" and scores and isinstance(value, list) and _SCORE_HEAD in value:
            neutral = all(isinstance(each, str) and each in _HEADS for each in value)
        if key not in _READ and key not in _WITHOUT_EFFECT and not neutral:
            raise ValueError(
                f"{file} is invalid: {key}={value!r:.60} may change what the adapter computes, and is not supported; train it "
                "without"
            )
    base, rank, alpha, targets = (
        config.get(key) for key in ("base_model_name_or_path", "r", "lora_alpha", "target_modules")
    )
    if not isinstance(base, str) or not isinstance(targets, list) or not isinstance(alpha, (int, float)):
        raise ValueError(
            f"{file} is invalid: base_model_name_or_path, lora_alpha or target_modules (a list) is missing; save it again"
        )
    dropout = config.get("lora_dropout") or 0.0
    try:
        if config.get("use_rslora"):  # arXiv 2312.03732: scaled by the square root of the rank
            alpha = alpha * math.sqrt(rank)  # type: ignore[arg-type,operator] # no number is an error
        lora = LoRAConfig(rank, float(alpha), [str(each) for each in targets], dropout)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from None
    return AdapterRecord(lora, base, None, scores)


def save_peft(
    weights: AdaptedWeights, out: str | Path, base: str | None = None, tokenizer: ExportedTokenizer | None = None
) -> Comparison | None:
    """Write an adapter as a peft folder, which appears when it is complete.

    Args:
        weights: the adapter with its base.
        out: the folder; it must not exist.
        base: name of the base in the folder; by default the one that the adapter records.
        tokenizer: copied into the folder.

    Returns:
        The comparison with peft; None if peft is not installed.

    Raises:
        ValueError: transformers cannot load the base, or logits differ; nothing is left behind.
    """
    out, found = Path(out), weights.adapter
    if not isinstance(weights.base, HuggingFaceFolder):
        raise ValueError(
            f"the base {weights.base.where} is a checkpoint, which peft cannot load; write it by nbg export --dtype float32, and "
            "give that folder as --base"
        )
    if out.exists():
        raise FileExistsError(f"{out} exists; give another name, or remove it first")
    out.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(out) as temporary:
        record = dataclasses.replace(found.record, base=base or found.record.base)
        write_peft(dataclasses.replace(found, record=record), temporary)
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
        comparison = compare_peft(weights, temporary)
        if comparison is not None:
            comparison.check(found.where)
    return comparison


def compare_peft(weights: AdaptedWeights, folder: Path) -> Comparison | None:
    """Compare our logits with the adapter merged with peft's from a folder; None if peft is not installed."""
    base = weights.base
    if importlib.util.find_spec("peft") is None or not isinstance(base, HuggingFaceFolder):
        return None
    scores = weights.shape.score_head
    return compare(weights, folder, theirs=lambda tokens_BL: _peft_logits(folder, base.folder, tokens_BL, scores))


@torch.no_grad()
def _peft_logits(folder: Path, base: Path, tokens_BL: Tensor, scores: bool) -> Tensor:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind, labels = (AutoModelForSequenceClassification, {"num_labels": 1}) if scores else (AutoModelForCausalLM, {})
    try:
        whole: Any = kind.from_pretrained(base, dtype=torch.float32, local_files_only=True, **labels)
        model: Any = PeftModel.from_pretrained(whole, str(folder))
    except Exception as error:  # of many types; each means that the folder cannot be used
        raise ValueError(
            f"peft cannot load {folder} ({str(error).strip().splitlines()[0]}); check its files and the version of peft"
        ) from error
    model.eval()
    if not scores:
        return cast(Tensor, model(tokens_BL).logits)
    inner = model.base_model.model
    return cast(Tensor, inner.score(inner.model(tokens_BL).last_hidden_state))  # of every position, not only the last
