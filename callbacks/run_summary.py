"""Summaries on the first rank: the run's setup when it starts, and its results when it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from nbg_lightning import log
from nbg_lightning.callbacks.checkpoint import StepCheckpoint, checkpoints
from nbg_lightning.callbacks.graceful_stop import stop_signal
from nbg_lightning.callbacks.learning_rate import rules_of
from nbg_lightning.callbacks.next_commands import next_commands
from nbg_lightning.callbacks.run_status import RunState, RunStatus
from nbg_lightning.contracts import (
    CountsSamples,
    HasChatTemplate,
    NamesUnit,
    TrainsLanguageModel,
    callbacks_of,
    curriculum_of,
    datamodule_of,
    is_fast_dev_run,
)
from nbg_lightning.core.products import uses_onednn
from nbg_lightning.error_line import first_line
from nbg_lightning.planning.devices import DEVICES, Device
from nbg_lightning.planning.estimate import estimated_memory
from nbg_lightning.planning.of_config import phases_of, task_of
from nbg_lightning.planning.time import step_time
from nbg_lightning.planning.workload import Cluster, Trained, Workload
from nbg_lightning.quantities import count_text, size_text
from nbg_lightning.schedule.tokens import format_tokens
from nbg_lightning.url_path import PathOrUrl

_SECONDS_BETWEEN_RECORDS = 30.0
_SOURCES = 6  # listed by name; the others are counted
_BYTES_PER_PARAMETER = 4 + 4 + 8  # weights, gradients, and AdamW's two moments, all in float32
_RESULTS = (  # (label, metrics, of which the first available one is shown)
    ("loss", ("train/loss",)),
    ("reward", ("reward/mean",)),
    ("accuracy", ("train/accuracy",)),
    ("validation loss", ("val/loss",)),
    ("validation accuracy", ("val/accuracy", "val/token_accuracy")),
    ("held-out reward", ("val/reward/mean",)),
)
LabelledText = tuple[str, str]


class RunSummary(pl.Callback):
    """Prints a summary of the run before its first step, and of its results after the last one.

    At the start: model, devices, data, chat format, learning rate, steps, memory of the training state, and output folder.
    At the end: the last losses, rewards, accuracies and benchmarks, the checkpoint, and suggested next commands, the first
    of which prompts the model with an example from the data. After a validation or test, the metrics are printed as one
    table on standard output, instead of Lightning's. Regardless of ``start`` and ``end``, `RunStatus` in the run's folder,
    which `nbg runs` reads, is kept up to date.

    Args:
        start: print the summary at the start.
        end: print the results at the end.
    """

    def __init__(self, start: bool = True, end: bool = True):
        self.start, self.end = start, end
        self._begin = 0.0
        self._first_step = 0
        self._written = 0.0
        self._is_verbose = True  # of the current evaluation

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin, self._first_step = time.monotonic(), trainer.global_step
        if self.start and trainer.is_global_zero:
            say_block(f"{type(pl_module).__name__} begins", start_rows(trainer, pl_module))
        self._record(trainer, "running")

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() - self._written >= _SECONDS_BETWEEN_RECORDS:
            self._record(trainer, "running")

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self._written:  # it had started
            self._record(trainer, "failed", f"{type(exception).__name__}: {first_line(exception)}")

    def _record(self, trainer: pl.Trainer, state: RunState, error: str | None = None) -> None:
        if not trainer.is_global_zero or is_fast_dev_run(trainer):
            return
        self._written = time.monotonic()
        plan, step = curriculum_of(trainer), trainer.global_step
        steps = plan.num_steps if plan is not None else None
        if trainer.max_steps >= 0:
            steps = trainer.max_steps if steps is None else min(steps, trainer.max_steps)
        stage = None if plan is None else plan.stages[plan.stage_at(max(step - 1, 0))].name
        module = type(trainer.lightning_module).__name__
        found = results(trainer.callback_metrics)
        RunStatus(module, state, step, steps, stage, found, error).write(Path(trainer.default_root_dir))

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # After every callback's on_fit_end, so that this is the last word.
        if stage != "fit" or not self._written:
            return
        ended: RunState = "finished" if stop_signal(trainer) is None else "stopped"
        self._record(trainer, ended)
        self._written = 0.0
        if self.end and trainer.is_global_zero and trainer.global_step > self._first_step:
            say_block(f"{type(pl_module).__name__} {ended}", self.end_rows(trainer, pl_module))

    def end_rows(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> list[LabelledText]:
        """The results, as labels and texts."""
        steps = trainer.global_step - self._first_step
        took = timedelta(seconds=round(time.monotonic() - self._begin))
        rate = trainer.callback_metrics.get("throughput/tokens_per_second")
        speed = "" if rate is None else f", {format_tokens(float(rate))} tokens a second"
        rows = [("steps", f"{steps:,} in {took} (now at step {trainer.global_step:,}){speed}")]
        rows += metric_rows(trainer.callback_metrics)
        checkpoint = _last_checkpoint(trainer)
        rows.append(("checkpoint", "none" if checkpoint is None else str(checkpoint)))
        if checkpoint is not None:
            rows += [("next", command) for command in next_commands(trainer, str(checkpoint))]
        return rows

    # -- validation and test -------------------------------------------------------------------------------------------

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.end:
            self._is_verbose, trainer.validate_loop.verbose = trainer.validate_loop.verbose, False

    @override
    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.end:
            self._is_verbose, trainer.test_loop.verbose = trainer.test_loop.verbose, False

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._say_metrics(trainer)

    @override
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._say_metrics(trainer)

    def _say_metrics(self, trainer: pl.Trainer) -> None:
        found = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if not name.startswith("benchmark/")  # a suite prints its table itself
        }
        if self.end and self._is_verbose and trainer.is_global_zero and found:
            print(metric_table(found), flush=True)


def say_block(title: str, rows: list[LabelledText]) -> None:
    """Print labels and texts in two columns as one log message; a repeated label is omitted."""
    width = max(len(label) for label, _ in rows)
    lines, before = [title], ""
    for label, text in rows:
        lines.append(f"  {'' if label == before else label:<{width}}  {text}")
        before = label
    log.info("\n".join(lines))


# -- the beginning -----------------------------------------------------------------------------------------------------


def start_rows(trainer: pl.Trainer, pl_module: pl.LightningModule) -> list[LabelledText]:
    """The setup of a run, as labels and texts."""
    return [
        *_model_rows(trainer, pl_module),
        ("device", _devices(trainer, pl_module, cast(TrainsLanguageModel, pl_module).parallel.compute_dtype)),
        *_data_rows(trainer),
        *_schedule_rows(trainer),
        ("writes", _writes(trainer)),
    ]


def _model_rows(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Iterator[LabelledText]:
    module = cast(TrainsLanguageModel, pl_module)
    shape = module.shape
    yield (
        "model",
        f"{format_tokens(shape.num_parameters)} parameters: {shape.num_hidden_layers} layers of {shape.hidden_size:,}, "
        f"vocabulary {shape.vocab_size:,}, window {shape.max_position_embeddings:,}",
    )
    if trainer.global_step:
        yield "from", f"step {trainer.global_step:,} of this run"
    elif module.base_weights is not None:
        yield "from", module.base_weights
    if module.saves_trained_only:
        yield "trained", f"{format_tokens(module.num_trained)} parameters of an adapter; the rest stays"
    yield from _plan_rows(trainer, pl_module)


def _plan_rows(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Iterator[LabelledText]:
    """Predicted memory and time if steps consist of windows; otherwise the memory of the training state."""
    module = cast(TrainsLanguageModel, pl_module)
    plan, kind = curriculum_of(trainer), trainer.strategy.root_device.type
    task = task_of(type(pl_module))
    datamodule = datamodule_of(trainer)
    in_tokens = not isinstance(datamodule, NamesUnit) or datamodule.unit == "tokens"
    if plan is None or not in_tokens or module.saves_trained_only or kind not in ("cpu", "cuda"):
        size = size_text(_training_state(trainer, module))
        yield "memory", f"{size} a rank for weights, gradients and AdamW; activations come on top"
        return
    trained = Trained(averaged=module.ema_decay is not None)
    phases = phases_of(plan)
    work = Workload(task, module.shape, module.sharding, module.micro_batch_tokens, phases, trained=trained)
    cluster = Cluster(trainer.world_size, max(1, trainer.world_size // trainer.num_nodes))
    try:
        largest = max((estimated_memory(work, phase, cluster, kind) for phase in phases), key=lambda each: each.total)
    except ValueError:  # ranks that do not divide a step are reported elsewhere
        return
    shares = f"{size_text(largest.states * 2**30)} of it weights and AdamW, {size_text(largest.activations * 2**30)} activations"
    yield "memory", f"about {size_text(largest.total * 2**30)} a rank: {shares}"
    if (device := _device_in_table(trainer)) is not None:
        seconds = sum((phase.steps or 0) * step_time(work, phase, cluster, device).total for phase in phases)
        one = step_time(work, phases[0], cluster, device).total
        yield (
            "time",
            f"about {one:.3g} s a step, {timedelta(seconds=round(seconds))} in all on {device.name} (nbg plan says more)",
        )
    else:
        yield (
            "time",
            "unknown for this device; measure it: nbg plan --calibrate FILE, then nbg plan CONFIG --device FILE",
        )


def _training_state(trainer: pl.Trainer, module: TrainsLanguageModel) -> float:
    """Bytes of training state per rank; for an adapter, with the frozen base in the compute dtype."""
    trained, frozen = module.shape.num_parameters, 0
    if module.saves_trained_only:
        trained, frozen = module.num_trained, module.shape.num_parameters
    frozen *= 2 if module.parallel.compute_dtype == "bfloat16" else 4
    return (trained * (_BYTES_PER_PARAMETER + 4 * (module.ema_decay is not None)) + frozen) / trainer.world_size


def _device_in_table(trainer: pl.Trainer) -> Device | None:
    """The GPU's entry in the table of published specifications."""
    device = trainer.strategy.root_device
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device).lower()
    return next((own for key, own in DEVICES.items() if key in name), None)


def _devices(trainer: pl.Trainer, module: pl.LightningModule, dtype: str) -> str:
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    ranks = "1 rank" if trainer.world_size == 1 else f"{trainer.world_size:,} ranks"
    nodes = "" if trainer.num_nodes == 1 else f" on {trainer.num_nodes} nodes"
    by_onednn = dtype == "float32" and any(p.ndim == 2 and uses_onednn(p, p) for p in module.parameters())
    return f"{name}, {ranks}{nodes}, {dtype}{' by oneDNN' if by_onednn else ''}"


def _data_rows(trainer: pl.Trainer) -> Iterator[LabelledText]:
    datamodule, plan = datamodule_of(trainer), curriculum_of(trainer)
    if plan is not None:
        length = plan.sequence_length_of(0)
        counted = isinstance(datamodule, CountsSamples)
        names = [
            f"{name}: {count_text(datamodule.source_windows(name, length), 'sample')}" if counted else name
            for name in plan.sources[:_SOURCES]
        ]
        more = [f"{len(plan.sources) - _SOURCES} more sources"] if len(plan.sources) > _SOURCES else []
        yield "data", ", ".join([*names, *more])
    if isinstance(datamodule, HasChatTemplate) and datamodule.chat_template is not None:
        yield "template", datamodule.chat_template.described


def _schedule_rows(trainer: pl.Trainer) -> Iterator[LabelledText]:
    plan, datamodule = curriculum_of(trainer), datamodule_of(trainer)
    if plan is not None:
        unit = datamodule.unit if isinstance(datamodule, NamesUnit) else "tokens"
        steps = min(plan.num_steps, trainer.max_steps) if trainer.max_steps >= 0 else plan.num_steps
        size = int(plan.tokens_per_step)
        yield "steps", f"{steps:,} of {format_tokens(size)} {unit}: {format_tokens(steps * size)} {unit} in all"
    elif trainer.max_steps >= 0:
        yield "steps", f"{trainer.max_steps:,}"
    for rule in rules_of(trainer):
        yield "learning rate", rule.described(trainer)
    if not rules_of(trainer) and trainer.optimizers:
        yield "learning rate", f"{trainer.optimizers[0].param_groups[0]['lr']:g}, constant"


def _writes(trainer: pl.Trainer) -> str:
    callbacks = callbacks_of(trainer)
    saving = next((each for each in callbacks if isinstance(each, StepCheckpoint)), None)
    when = "nothing is saved"
    if saving is not None:
        every = saving.every_n_steps
        when = "a checkpoint at the end" if every is None else f"a checkpoint every {every:,} steps and at the end"
    return f"{trainer.default_root_dir}: {when}"


def metric_table(metrics: Mapping[str, float]) -> str:
    """Metrics with full precision, one per line, as printed after a validation or test.

    >>> print(metric_table({"val/loss": 0.1, "val/accuracy": 1.0}))
    metric        value
    val/loss      0.1
    val/accuracy  1.0
    """
    rows = [("metric", "value"), *((name, repr(float(value))) for name, value in metrics.items())]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


# -- the end -----------------------------------------------------------------------------------------------------------


def metric_rows(metrics: Mapping[str, Any]) -> list[LabelledText]:
    """The results among a run's metrics: losses, rewards, accuracies, and those of every benchmark."""
    rows = [(label, f"{value:.4g}") for label, value in results(metrics).items()]
    rows += [(name, f"{float(value):.4g}") for name, value in metrics.items() if name.startswith("benchmark/")]
    return rows


def results(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The losses, rewards and accuracies among a run's metrics, by their display labels."""
    found = {}
    for label, names in _RESULTS:
        name = next((each for each in names if each in metrics), None)
        # A policy's loss is near 0, whatever it does.
        if name is not None and not (label == "loss" and "reward/mean" in metrics):
            found[label] = float(metrics[name])
    return found


def _last_checkpoint(trainer: pl.Trainer) -> PathOrUrl | None:
    callbacks = callbacks_of(trainer)
    for callback in callbacks:
        if isinstance(callback, StepCheckpoint) and callback.dirpath is not None:
            return next(iter(checkpoints(callback.dirpath)[-1:]), None)
    return None
