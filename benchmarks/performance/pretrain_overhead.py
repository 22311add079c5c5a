"""Overhead of the whole `nbg fit` relative to a bare PyTorch loop with the same core, data and dtype.

    python benchmarks/performance/pretrain_overhead.py

The bare loop is the minimum that trains this model: precomputed batches, forward, backward, clipping, fused AdamW; no
Lightning, FSDP2, datamodule or logging. The other side is a real fit: Trainer, FSDP2Strategy, FGWSD, the datamodule
with its order and hash chain, TensorBoard, throughput. Both run the same steps on the same batches and reach the same
losses (asserted). Blocks of steps alternate in one process; each gives a paired ratio of seconds per step.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import lightning.pytorch as pl
import torch
from paired import ratio, write_result

import nbg_lightning as nbg
from nbg_lightning.core.create import create_model
from nbg_lightning.data.sources import PackageSource
from nbg_lightning.data.tokenizer import TokenizerConfig
from nbg_lightning.modules.optimizer import AdamWConfig, build_adamw
from nbg_lightning.modules.pretrain import cross_entropy


class BareLoop:
    """The same training in twenty lines."""

    def __init__(
        self, shape: nbg.LanguageModelConfig, batches: list, micro_batch_tokens: int, curriculum: nbg.Curriculum
    ):
        self.model = create_model(shape)
        self.optimizer = build_adamw(self.model.parameters(), AdamWConfig())
        self.batches, self.micro_batch_tokens, self.curriculum = batches, micro_batch_tokens, curriculum
        self.step, self.losses = 0, []

    def run(self, num_steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(num_steps):
            batch = self.batches[self.step]
            count = (batch.labels >= 0).sum().item()
            total = 0.0
            for micro in batch.split(self.micro_batch_tokens):
                loss = cross_entropy(self.model, micro).loss / count
                loss.backward()
                total += loss.item()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            for group in self.optimizer.param_groups:
                group["lr"] = self.curriculum.learning_rate(self.step)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.losses.append(total)
            self.step += 1
        return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", default="tiny")
    parser.add_argument("--tokens-per-step", type=int, default=16384)
    parser.add_argument("--sequence-length", type=int, default=512)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--steps-per-block", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    steps = (arguments.blocks + 1) * arguments.steps_per_block  # the first block warms up
    curriculum = dict(
        stages=[nbg.Stage("stable", steps * arguments.tokens_per_step, 1e-3, {"code": 1})],
        tokens_per_step=arguments.tokens_per_step,
        sequence_length=arguments.sequence_length,
    )

    class Alternate(pl.Callback):
        """After each block of steps of the fit, the same steps of the bare loop."""

        def __init__(self) -> None:
            self.fit_seconds: list[float] = []
            self.bare_seconds: list[float] = []
            self.losses: list[float] = []

        def on_train_start(self, trainer, pl_module):  # type: ignore[no-untyped-def]
            self.begin = time.perf_counter()

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):  # type: ignore[no-untyped-def]
            self.losses.append(float(trainer.callback_metrics["train/loss"]))
            if trainer.global_step % arguments.steps_per_block == 0:
                self.fit_seconds.append(time.perf_counter() - self.begin)
                self.bare_seconds.append(bare.run(arguments.steps_per_block))
                self.begin = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        data = nbg.CurriculumDataModule(
            {"code": PackageSource(packages="stdlib", content="code")},
            TokenizerConfig(train_vocab_size=4096, train_bytes="4M"),
            data_dir=f"{folder}/data",
            num_workers=1,
        )
        data.prepare_data()
        data.setup("fit")
        data.use_curriculum(nbg.Curriculum(**curriculum))
        batches = list(data.train_dataloader())
        module = nbg.PretrainModule(
            arguments.core, parallel=nbg.ParallelConfig(compute_dtype="float32"), micro_batch_tokens=8192
        )
        bare = BareLoop(module.shape, batches, 8192, data.curriculum)
        alternate = Alternate()
        trainer = nbg.Trainer(
            accelerator="cpu",
            devices=1,
            callbacks=[nbg.FGWSD(**curriculum), alternate, nbg.StepCheckpoint()],
            default_root_dir=f"{folder}/run",
            limit_val_batches=0,
        )
        trainer.fit(module, datamodule=data)
    difference = max(abs(a - b) for a, b in zip(alternate.losses, bare.losses, strict=True))
    assert difference < 1e-4, f"the two sides do not train the same: losses differ by {difference}"
    results = {
        "fit_over_bare": ratio(alternate.fit_seconds[1:], alternate.bare_seconds[1:]),
        "seconds_per_block": {"fit": alternate.fit_seconds, "bare": alternate.bare_seconds},
        "largest_loss_difference": difference,
    }
    write_result("pretrain_overhead", vars(arguments), results)


if __name__ == "__main__":
    main()
