"""The workload of a parsed config of `nbg fit`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbg_lightning.core.config import LanguageModelConfig, Llama3RopeScaling, ParallelConfig, preset
from nbg_lightning.import_path import import_object
from nbg_lightning.planning.workload import Task, TrainingPhase, Workload
from nbg_lightning.schedule.curriculum import Curriculum
from nbg_lightning.schedule.of_config import read_curriculum
from nbg_lightning.schedule.tokens import parse_tokens


def workload_of(config: Mapping[str, Any], core: LanguageModelConfig | None = None) -> Workload:
    """What a config trains.

    Args:
        config: of `nbg fit`, with all defaults, as plain mappings; nothing of it is built, and no data are read.
        core: shape of the model, where the config takes it from weights that are not there.

    Raises:
        ValueError: the model's shape cannot be known, or the data's windows.
    """
    task = _task(config["model"]["class_path"])
    model, data = config["model"]["init_args"], (config.get("data") or {}).get("init_args") or {}
    shape = _shape(model, core)
    fields: dict[str, Any] = {}
    if task == "GRPO":
        fields = _of_rollouts(model, data)
        phases = [_answers_phase(data, fields)]
    else:
        phases = _phases(config, data)
    teacher = model.get("teacher")
    if (
        isinstance(teacher, str)
        and not teacher.startswith(("http://", "https://"))
        and not (data.get("cache") or model.get("cache"))
    ):
        fields["teacher"] = _weights_shape(teacher, "model.init_args.teacher")
    return Workload(
        task, shape, ParallelConfig(**model["parallel"]), model["micro_batch_tokens"], tuple(phases), **fields
    )


def _task(class_path: str) -> Task:
    from nbg_lightning.modules import DPDModule, GRPOModule, SFTModule

    found = import_object(class_path)
    tasks: dict[type, Task] = {GRPOModule: "GRPO", DPDModule: "DPD", SFTModule: "SFT"}
    return next(
        (task for kind, task in tasks.items() if isinstance(found, type) and issubclass(found, kind)), "pretraining"
    )


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
        return read_shape(weights)
    except (OSError, ValueError) as error:
        raise ValueError(f"{key}: {error}; where weights are not there yet, give --core PRESET") from None


def _phases(config: Mapping[str, Any], data: Mapping[str, Any]) -> list[TrainingPhase]:
    if curriculum := read_curriculum(config):
        return [_stage_phase(curriculum, index) for index in range(len(curriculum.stages))]
    if "sequence_length" not in data or "tokens_per_step" not in data:
        raise ValueError(
            "the config has no windows to plan: it needs the FGWSD callback, or data of packed conversations"
        )
    window, size = int(data["sequence_length"]), parse_tokens(data["tokens_per_step"])
    steps = None if data.get("tokens") is None else parse_tokens(data["tokens"]) // size
    return [TrainingPhase("all steps", window, size, steps, window)]


def _stage_phase(curriculum: Curriculum, index: int) -> TrainingPhase:
    window, name = curriculum.sequence_length_of(index), curriculum.stages[index].name
    return TrainingPhase(name, window, int(curriculum.tokens_per_step), curriculum.steps_of(index), window)


def _of_rollouts(model: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    engine, loss = model.get("engine") or {}, model.get("loss") or {}
    on_the_devices = str(engine.get("class_path", "")).endswith("VLLMEngine")
    return {
        "answer": int(model["max_new_tokens"]),
        "answers_per_step": int(data["prompts_per_step"]) * int(model["group_size"]),
        "engine_share": float(engine["init_args"]["gpu_memory"]) if on_the_devices else 0.0,
        "reference": isinstance(loss, Mapping) and bool(loss.get("kl_coefficient")),
    }


def _answers_phase(data: Mapping[str, Any], fields: Mapping[str, Any]) -> TrainingPhase:
    """Every answer as long as it may be: the longest that a step can become."""
    longest = int(data.get("max_prompt_tokens") or 0) + fields["answer"]
    return TrainingPhase("full answers", longest, fields["answers_per_step"] * longest, data.get("steps"), longest)
