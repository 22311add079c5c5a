"""Single-process pretraining without a trainer, for experiments with hundreds of short runs.

It uses the components of `PretrainModule`, `CurriculumDataModule` and `FGWSD` and gives the same numbers (a test compares the
weights), without what a short run does not need: logging, checkpoints, signals. A step of 1,024 tokens of a small model takes a
third of the processor time. Long runs are compiled, by the rule of ``compile: auto``, and may resume after a kill.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from nbg_lightning import AdamWConfig, LanguageModelConfig
    from nbg_lightning.core.model import LanguageModel
    from nbg_lightning.datamodules import CurriculumDataModule
    from nbg_lightning.schedule.curriculum import Curriculum


def pretrain(
    core: LanguageModelConfig,
    optimizer: AdamWConfig,
    curriculum: Curriculum,
    data: CurriculumDataModule,
    seed: int,
    merged: int = 0,
    checkpoint: RunCheckpoint | None = None,
) -> LanguageModel:
    """Train a model by a curriculum, and return it.

    Args:
        core: shape of the model.
        optimizer: settings of AdamW.
        curriculum: learning rate and mixture of each step.
        data: a datamodule that has not been set up.
        seed: of the weights.
        merged: average the weights of so many points at equal distances in the last stage, as `nbg merge` does; 0 does not.
        checkpoint: from which a killed run resumes; by default it begins anew.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    import torch

    from nbg_lightning import ParallelConfig
    from nbg_lightning.core.batch import IGNORE
    from nbg_lightning.core.compilation import compiling_pays, host_compiler
    from nbg_lightning.core.create import create_model
    from nbg_lightning.modules.optimizer import build_optimizer
    from nbg_lightning.modules.pretrain import cross_entropy

    data.prepare_data()
    data.setup("fit")
    data.use_curriculum(curriculum)
    order, batches = data.order, data.step_dataset(data.order)
    rows = curriculum.tokens_per_step // curriculum.sequence_length
    operations = core.flops_per_token(curriculum.sequence_length) * curriculum.num_steps * curriculum.tokens_per_step
    compiled = compiling_pays(operations, "cpu") and host_compiler("cpu") is not None
    model = create_model(core, ParallelConfig(compile=compiled), seed=seed)
    adamw = build_optimizer(model.named_parameters(), optimizer)
    points = merged_points(curriculum, merged)
    kept: list[dict[str, Any]] = []
    begin = 0 if checkpoint is None else checkpoint.restore(model, adamw, kept)
    for step in range(begin, curriculum.num_steps):
        batch = batches[order.lookup(step * rows, (step + 1) * rows)]
        loss = cross_entropy(model, batch).loss / (batch.labels != IGNORE).sum()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss of step {step} is not finite; lower the learning rate")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in adamw.param_groups:
            group["lr"] = curriculum.learning_rate(step)
        adamw.step()
        adamw.zero_grad()
        if step + 1 in points:
            kept.append({name: value.detach().double() for name, value in model.named_parameters()})
        if checkpoint is not None:
            checkpoint.save(step + 1, model, adamw, kept)
    if merged:
        average(model, kept)
    return model


def merged_points(curriculum: Curriculum, number: int) -> list[int]:
    """Steps after which weights are kept, at equal distances in the last stage, last first."""
    steps = curriculum.tokens_of(len(curriculum.stages) - 1) // curriculum.tokens_per_step
    return [curriculum.num_steps - round(place * steps / number) for place in range(number)]


class RunCheckpoint:
    """What a killed run resumes from, written at most every few minutes: a shorter run has none.

    Args:
        file: in a folder of this run only.
        seconds: between two writes.
    """

    def __init__(self, file: Path, seconds: float = 300.0):
        self.file, self.seconds, self._last = file, seconds, time.monotonic()

    def restore(self, model: LanguageModel, optimizer: Optimizer, kept: list[dict[str, Any]]) -> int:
        """Load what is there; returns the number of steps that are done."""
        import torch

        from nbg_lightning.data.durable import remove_leftovers

        remove_leftovers(self.file.parent)
        if not self.file.is_file():
            return 0
        try:
            found = torch.load(self.file, weights_only=True)
            model.load_state_dict(found["model"])
            optimizer.load_state_dict(found["optimizer"])
            kept.extend(found["kept"])
            return int(found["steps"])
        except Exception as error:  # torch and pickle have any class
            raise ValueError(
                f"{self.file} is damaged ({type(error).__name__}); remove it, and the run begins anew"
            ) from error

    def save(self, steps: int, model: LanguageModel, optimizer: Optimizer, kept: list[dict[str, Any]]) -> None:
        """Write, if it is time."""
        import torch

        from nbg_lightning.data.durable import atomic

        if time.monotonic() - self._last < self.seconds:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        with atomic(self.file) as stream:
            torch.save({**states, "kept": kept, "steps": steps}, stream)
        self._last = time.monotonic()


def average(model: LanguageModel, kept: list[dict[str, Any]]) -> None:
    """Give a model the uniform average of weights, oldest first."""
    import torch

    from nbg_lightning.core.merging import merge_weights

    factors = merge_weights("uniform", len(kept))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(sum(factor * each[name] for factor, each in zip(factors, kept, strict=True)))
