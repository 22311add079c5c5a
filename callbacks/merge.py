"""Averages a run's last checkpoints, as a replacement for learning-rate decay."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
from typing_extensions import override

from nbg_lightning import log
from nbg_lightning.callbacks.checkpoint import StepCheckpoint
from nbg_lightning.callbacks.graceful_stop import stop_signal
from nbg_lightning.core.checkpoint_folder import checkpoints_below
from nbg_lightning.core.merging import MergedWeights, MergeRule, check_one_run, merge_weights


class MergeCheckpoints(pl.Callback):
    """Writes the average of a run's last checkpoints to ``<default_root_dir>/merged/step-XXXXXXXX`` (WSM, arXiv 2507.17634).

    If a curriculum ends at a constant learning rate, averaging evenly spaced checkpoints approximates a decay over the same
    steps: ``uniform`` corresponds to a linear decay, ``one_minus_sqrt`` and ``cosine`` to those
    (`core.merging.merge_weights`). The end need not be known in advance: the run can continue from its last checkpoint and
    is merged again at its new end. The output is a Hugging Face folder in float32, written by rank 0, a group of tensors at
    a time, after the last checkpoint is saved.

    Args:
        number: number of checkpoints to average; `StepCheckpoint` must keep at least as many.
        weights: weighting scheme of the average.
        decay: decay factor of ``weights: ema``.

    Raises:
        ValueError: an invalid setting; in setup, if too few checkpoints are kept.
    """

    def __init__(self, number: int = 4, weights: MergeRule = "uniform", decay: float = 0.8):
        if number < 2:
            raise ValueError(f"number is invalid: {number}; give at least two checkpoints")
        self.factors = merge_weights(weights, number, decay)
        self.number = number
        self._ended = False

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        kept = next((each for each in trainer.checkpoint_callbacks if isinstance(each, StepCheckpoint)), None)
        if kept is None or kept.every_n_steps is None or kept.keep.last < self.number:
            raise ValueError(
                f"MergeCheckpoints needs the last {self.number} checkpoints; give StepCheckpoint every_n_steps, and keep: "
                f"{self.number} or more"
            )

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._ended = stop_signal(trainer) is None  # a stopped run will be resumed, and merged at its end

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Merge, once the last checkpoint is saved."""
        if stage == "fit" and trainer.is_global_zero and self._ended:
            self.merge(Path(trainer.default_root_dir))
        self._ended = False

    def merge(self, root: Path) -> None:
        """Write the average of the newest checkpoints in a run's folder, unless it exists."""
        from nbg_lightning.core.hf_folder import stops, token_ids, write_hugging_face
        from nbg_lightning.core.weight_sources import TrainingCheckpoint
        from nbg_lightning.data.tokenizer import checkpoint_template, load_tokenizer

        names = checkpoints_below(root)[-self.number :]
        if len(names) < self.number:
            log.warn(
                f"{root} has {len(names)} checkpoints, not the {self.number} of MergeCheckpoints: nothing is merged"
            )
            return
        out = root / "merged" / Path(names[-1]).name
        if out.exists():
            log.info(f"{out} already exists: nothing is merged")
            return
        parts = [TrainingCheckpoint(root / name) for name in names]
        check_one_run(parts)
        newest = parts[-1]
        tokenizer = None if newest.tokenizer is None else load_tokenizer(newest.tokenizer)
        if tokenizer is not None:
            tokenizer.chat_template = checkpoint_template(newest.where) or tokenizer.chat_template
        merged = MergedWeights(parts, self.factors)
        write_hugging_face(merged, out, token_ids(tokenizer), tokenizer, "float32", generation=stops(tokenizer))
        log.info(f"merged {', '.join(Path(name).name for name in names)} into {out}")
