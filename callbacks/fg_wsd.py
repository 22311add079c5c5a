"""FG-WSD, fine-grained warmup-stable-decay: a data curriculum on top of a learning-rate schedule."""

from __future__ import annotations

from typing import Any, cast

import lightning.pytorch as pl
from torch.optim import Optimizer
from typing_extensions import override

from nbg_lightning import log
from nbg_lightning.callbacks.learning_rate import LearningRateRule
from nbg_lightning.contracts import TakesCurriculum, TrainsLanguageModel, datamodule_of
from nbg_lightning.schedule.curriculum import Curriculum, Stage
from nbg_lightning.schedule.tokens import format_tokens


class FGWSD(LearningRateRule):
    """Drives the learning rate and the data mixture from one table of stages (Nanbeige4-3B, arXiv 2512.06266, section on
    pretraining).

    The stable phase of warmup-stable-decay is divided into sub-stages of increasing data quality; data mixture and learning
    rate change independently of each other. The datamodule takes its mixture from the table, and this callback sets the
    learning rate at each step and, for stages that give one, the RoPE base (adjusted base frequency, ABF). Everything is a
    pure function of the step, so there is no state to save. Training ends with the last stage.

    Args:
        stages: the stages, in order (see `Stage`).
        tokens_per_step: tokens per optimizer step over all ranks, the same in all stages.
        sequence_length: window length for stages that do not set their own.
    """

    def __init__(self, stages: list[Stage], tokens_per_step: int | str, sequence_length: int):
        self.curriculum = Curriculum(stages=stages, tokens_per_step=tokens_per_step, sequence_length=sequence_length)

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        datamodule = datamodule_of(trainer)
        if not isinstance(datamodule, TakesCurriculum):
            raise ValueError(
                "FGWSD needs a datamodule that follows a curriculum; use CurriculumDataModule, or WarmupDecay in its place"
            )
        datamodule.use_curriculum(self.curriculum)
        for index, row in enumerate(self.curriculum.stages):
            achieved = self.curriculum.tokens_of(index)
            if stage == "fit" and achieved != row.tokens:
                log.info(f"stage {row.name!r}: {row.tokens:,} tokens are {achieved:,} in whole steps")

    @override
    def described(self, trainer: pl.Trainer) -> str:
        rates = [rate for stage in self.curriculum.stages for rate in stage.learning_rate_ends]
        ends = [f"{rate:g}" for place, rate in enumerate(rates) if place == 0 or rate != rates[place - 1]]
        return f"{' -> '.join(ends)} in {len(self.curriculum.stages)} stages"

    @override
    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # A run that had come to its end may go on with stages added since: whether its last batch was the last is for
        # the present table to say.
        progress = checkpoint.get("loops", {}).get("fit_loop", {}).get("epoch_loop.batch_progress", {})
        progress["is_last_batch"] = False

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        steps = self.curriculum.num_steps
        if trainer.max_steps > steps:
            log.warn(f"max_steps={trainer.max_steps} has no effect: the curriculum ends at step {steps}")
        self._announced = -1

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        index = self.curriculum.stage_at(trainer.global_step)
        stage = self.curriculum.stages[index]
        # Set in every stage: a stage without a base of its own returns to the model's.
        module = cast(TrainsLanguageModel, pl_module)
        module.model.rope_theta = stage.rope_theta or module.shape.rope_theta
        if index != self._announced:
            self._announced = index
            total = format_tokens(self.curriculum.num_tokens)
            done = format_tokens(trainer.global_step * int(self.curriculum.tokens_per_step))
            mixture = ", ".join(f"{name} {weight:g}" for name, weight in stage.mixture.items() if weight)
            log.info(f"stage {stage.name!r} from step {trainer.global_step} ({done} of {total}): {mixture}")

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        lr = self.curriculum.learning_rate(trainer.global_step)
        for group in optimizer.param_groups:
            group["lr"] = lr

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = trainer.global_step
        index = self.curriculum.stage_at(done - 1)
        stage = self.curriculum.stages[index]
        pl_module.log("data/tokens", float(done * self.curriculum.tokens_per_step))
        pl_module.log("data/stage", float(index))
        total = sum(stage.mixture.values())
        for name in self.curriculum.sources:
            pl_module.log(f"data/mixture/{name}", stage.mixture.get(name, 0.0) / total)
        if done >= self.curriculum.num_steps:
            trainer.should_stop = True
