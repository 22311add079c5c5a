"""The workload of a parsed config of `nbg fit`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from nbg_lightning.core.config import LanguageModelConfig, Llama3RopeScaling, ParallelConfig, preset
from nbg_lightning.core.lora_config import LoRAConfig
from nbg_lightning.core.prefixes import shortest_shared
from nbg_lightning.data.kind import DataKind
from nbg_lightning.import_path import import_object
from nbg_lightning.planning.answers import Answers
from nbg_lightning.planning.workload import Task, Trained, TrainingPhase, Workload
from nbg_lightning.schedule.mixture import MixturePlan
from nbg_lightning.schedule.of_config import read_curriculum
from nbg_lightning.schedule.tokens import parse_tokens

_CACHED_IDS = 64  # of a token, as `nbg build-cache` lists by default


def workload_of(
    config: Mapping[str, Any], core: LanguageModelConfig | None = None, answer_tokens: float | None = None
) -> Workload:
    """The workload of a config.

    Args:
        config: config of `nbg fit` with all defaults, as plain mappings; nothing is built from it, and no data is read.
        core: model config, if the config takes it from weights that do not exist.
        answer_tokens: mean tokens of a sampled answer; by default the longest. It has no effect on other tasks.

    Raises:
        ValueError: the model config, or the windows of the data, cannot be determined.
    """
    task = task_of(import_object(config["model"]["class_path"]))
    model, data = config["model"]["init_args"], (config.get("data") or {}).get("init_args") or {}
    shape = _shape(model, core)
    fields: dict[str, Any] = {}
    if task == "GRPO":
        fields = _of_rollouts(model, data)
        answers = answers_of(model, data, answer_tokens)
        phases = [answers.phase(data.get("steps"), int(model["parallel"].get("context", 1)))]
    else:
        phases = _phases(config, data)
    fields |= _of_teacher(task, model, data, core)
    lora = None if model.get("lora") is None else LoRAConfig(**model["lora"])
    algorithm = (model.get("optimizer") or {}).get("algorithm", "adamw")
    fields["trained"] = Trained(lora, algorithm, averaged=model.get("ema_decay") is not None)
    if lora is not None and fields.get("reference") and _own_reference(model):
        fields["reference"] = "own"
    return Workload(
        task, shape, ParallelConfig(**model["parallel"]), model["micro_batch_tokens"], tuple(phases), **fields
    )


def _own_reference(model: Mapping[str, Any]) -> bool:
    """Whether the reference is the base of the adapter that is trained."""
    loss = model.get("loss") or {}
    given = model.get("reference") or (loss.get("reference") if isinstance(loss, Mapping) else None)
    return given is None or given == model.get("base_weights")


def _of_teacher(
    task: Task, model: Mapping[str, Any], data: Mapping[str, Any], core: LanguageModelConfig | None
) -> dict[str, Any]:
    """The frozen models besides the trained one, or the cache that replaces them; a served teacher takes no memory here.

    A teacher whose weights do not exist yet is assumed to have the config ``core``.
    """
    fields: dict[str, Any] = {}
    cached = bool(data.get("cache") or model.get("cache"))
    if task == "DPD":
        fields["reference"] = bool(model["w_dpo"]) and not cached
        fields["cached_ids"] = _CACHED_IDS if cached and (model["w_pos"] or model["w_neg"]) else 0
    teacher = model.get("teacher")
    if isinstance(teacher, str) and not teacher.startswith(("http://", "https://")) and not cached:
        try:
            fields["teacher"] = _weights_shape(teacher, "model.init_args.teacher")
        except ValueError:
            if core is None:
                raise
            fields["teacher"] = core
    return fields


@runtime_checkable
class SaysItsData(Protocol):
    """A module class that declares the kind of its data, as `LanguageModule` does."""

    trains_on: DataKind | None
    gives_scores: bool


_TASKS: dict[str | None, Task] = {"conversations": "SFT", "pairs": "DPD", "questions": "GRPO"}


def task_of(module: Any) -> Task:
    """The task of a module's class, by the kind of its data (`LanguageModule.trains_on`); pretraining for other classes.

    A reward model is planned as SFT: there is no second model, and its head takes less memory than planned.
    """
    if not isinstance(module, SaysItsData):
        return "pretraining"
    return "SFT" if module.gives_scores else _TASKS.get(module.trains_on, "pretraining")


def _shape(model: Mapping[str, Any], core: LanguageModelConfig | None) -> LanguageModelConfig:
    given = model.get("core")
    if isinstance(given, str):
        return preset(given)
    if isinstance(given, Mapping):
        scaling = given.get("rope_scaling")
        return LanguageModelConfig(**{**given, "rope_scaling": Llama3RopeScaling(**scaling) if scaling else None})
    return core or _weights_shape(str(model.get("base_weights")), "model.init_args.base_weights")


def _weights_shape(weights: str, key: str) -> LanguageModelConfig:
    from nbg_lightning.core.weights import read_shape

    try:
        return dataclasses.replace(read_shape(weights, may_score=True), score_head=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{key}: {error}; give --core PRESET where weights are not there yet") from None


def _phases(config: Mapping[str, Any], data: Mapping[str, Any]) -> list[TrainingPhase]:
    if curriculum := read_curriculum(config):
        return list(phases_of(curriculum))
    if "sequence_length" not in data or "tokens_per_step" not in data:
        raise ValueError(
            "the config has no windows to plan; add the FGWSD callback, or give data of packed conversations"
        )
    window, size = int(data["sequence_length"]), parse_tokens(data["tokens_per_step"])
    steps = None if data.get("tokens") is None else parse_tokens(data["tokens"]) // size
    return [TrainingPhase("all steps", window, size, steps, window)]


def phases_of(curriculum: MixturePlan) -> tuple[TrainingPhase, ...]:
    """Each stage of a curriculum as a phase."""
    length, size = curriculum.sequence_length_of, int(curriculum.tokens_per_step)
    return tuple(
        TrainingPhase(stage.name, length(index), size, curriculum.steps_of(index), length(index))
        for index, stage in enumerate(curriculum.stages)
    )


def _of_rollouts(model: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    engine, loss = model.get("engine") or {}, model.get("loss") or {}
    kind, settings = str(engine.get("class_path", "")).rpartition(".")[2], engine.get("init_args") or {}
    on_the_devices = kind == "VLLMEngine"
    longest = int(data.get("max_prompt_tokens") or 0) + int(model["max_new_tokens"])
    fields: dict[str, Any] = {}
    if kind in ("", "NativeEngine"):
        fields["cache_positions"] = int(settings.get("max_batch_tokens", 65_536))
        fields["cache_rows"] = int(settings.get("max_rows", 256))
    return {
        **fields,
        "predicted": int(model["max_new_tokens"]) / longest,
        "answer": int(model["max_new_tokens"]),
        "answers_per_step": int(data["prompts_per_step"]) * int(model["group_size"]),
        "engine_share": float(settings["gpu_memory"]) if on_the_devices else 0.0,
        "reference": isinstance(loss, Mapping) and bool(loss.get("kl_coefficient")),
    }


def answers_of(
    model: Mapping[str, Any], data: Mapping[str, Any], answer_tokens: float | None = None, prompt: float | None = None
) -> Answers:
    """The answers of a step of GRPO.

    Args:
        model: arguments of the module.
        data: arguments of the datamodule.
        answer_tokens: mean tokens of an answer; by default the longest.
        prompt: mean tokens of a prompt; by default the longest.

    Raises:
        ValueError: answers longer than allowed.
    """
    longest, longest_prompt = int(model["max_new_tokens"]), int(data.get("max_prompt_tokens") or 0)
    if answer_tokens is not None and not 0 < answer_tokens <= longest:
        raise ValueError(
            f"answer_tokens is invalid: {answer_tokens:g}; give a mean above 0, and at most max_new_tokens, {longest:,}"
        )
    return Answers(
        prompts=int(data["prompts_per_step"]),
        group=int(model["group_size"]),
        longest_prompt=longest_prompt,
        longest=longest,
        prompt=float(longest_prompt if prompt is None else prompt),
        mean=float(longest if answer_tokens is None else answer_tokens),
        room=int(model["micro_batch_tokens"]) * int(model["parallel"].get("context", 1)),
        shortest_shared=shortest_shared(model.get("share_prefixes", "auto")),
    )
