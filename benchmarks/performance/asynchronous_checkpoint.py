"""Time that training is blocked by a save: synchronous against background checkpoints, in one run.

Both kinds of saves alternate, in pairs with the same state. Besides the pause it measures how much writing slows down the
steps meanwhile, on a machine that trains on its CPU.

    python benchmarks/performance/asynchronous_checkpoint.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from paired import ratio, write_result

import nbg_lightning as nbg
from nbg_lightning.core.checkpoint_save import BackgroundSaver
from nbg_lightning.testing import SyntheticDataModule


class AlternatingSaves(pl.Callback):
    """Alternates both kinds of saves every few steps, recording step times with and without a concurrent write."""

    def __init__(self, folder: Path, every: int):
        self.folder, self.every = folder, every
        self.at_once: list[float] = []
        self.background: list[float] = []
        self.written: list[float] = []
        self.steps_beside: list[float] = []
        self.steps_alone: list[float] = []
        self._saver: BackgroundSaver | None = None

    def on_train_batch_start(self, *_: Any) -> None:
        self._begin = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        seconds = time.perf_counter() - self._begin
        self._saver = self._saver or BackgroundSaver(lambda: None)
        if self._saver.path is not None:
            if not self._saver.is_done:
                self.steps_beside.append(seconds)
                return
            self._saver.collect()
            self.written.append(time.perf_counter() - self._started)
            return
        self.steps_alone.append(seconds)
        if trainer.global_step % self.every:
            return
        begin = time.perf_counter()
        trainer.save_checkpoint(self.folder / "at-once")
        middle = time.perf_counter()
        trainer.save_checkpoint(self.folder / "background", storage_options=self._saver)
        self._started = time.perf_counter()
        self.at_once.append(middle - begin)
        self.background.append(self._started - middle)

    def on_train_end(self, *_: Any) -> None:
        assert self._saver is not None
        self._saver.wait(600.0)
        self._saver.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden-size", type=int, default=640)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=2)
    arguments = parser.parse_args()
    shape = nbg.LanguageModelConfig(
        vocab_size=8192,
        hidden_size=arguments.hidden_size,
        intermediate_size=4 * arguments.hidden_size,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.hidden_size // 64,
        num_key_value_heads=arguments.hidden_size // 64,
        head_dim=64,
        tie_word_embeddings=True,
    )
    with tempfile.TemporaryDirectory() as name:
        saves = AlternatingSaves(Path(name), arguments.every)
        stages = [nbg.Stage("stable", arguments.steps * 128, 1e-3, {"a": 1.0})]
        trainer = nbg.Trainer(
            accelerator="cpu",
            devices=1,
            default_root_dir=name,
            logger=False,
            limit_val_batches=0,
            callbacks=[nbg.FGWSD(stages, 128, 64), saves],
            enable_checkpointing=False,
        )
        module = nbg.PretrainModule(shape, parallel=nbg.ParallelConfig(compute_dtype="float32"))
        trainer.fit(module, datamodule=SyntheticDataModule({"a": 97}, shape.vocab_size))
        size = sum(file.stat().st_size for file in Path(name, "at-once").iterdir())
    pauses, waits = saves.background[1:], saves.at_once[1:]  # the first allocates the host memory
    results = {
        "parameters": shape.num_parameters,
        "checkpoint_bytes": size,
        "pause_over_save_at_once": ratio(pauses, waits),
        "seconds": {
            "at_once": waits,
            "pause": pauses,
            "first_pause": saves.background[0],
            "written_after": saves.written,
        },
        "step_beside_a_write_over_alone": statistics.median(saves.steps_beside) / statistics.median(saves.steps_alone),
    }
    write_result("asynchronous_checkpoint", {**vars(arguments), "threads": torch.get_num_threads()}, results)


if __name__ == "__main__":
    main()
