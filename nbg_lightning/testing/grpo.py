"""A small recorded run of `GRPOModule` with real components, for tests of modules, rewards, engines and callbacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from typing_extensions import override

from nbg_lightning.callbacks.checkpoint import StepCheckpoint
from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.core.sharding import reshard
from nbg_lightning.data.question_sources import QuestionList
from nbg_lightning.data.tokenizer import train_bpe
from nbg_lightning.datamodules.prompts import PromptDataModule
from nbg_lightning.modules.grpo import GRPOModule
from nbg_lightning.modules.optimizer import AdamWConfig
from nbg_lightning.rewards.protocol import Group, Reward, RewardResult
from nbg_lightning.rl.policy_loss import DEFAULT_LOSS, with_moved_settings
from nbg_lightning.rl.rollouts import Rollout
from nbg_lightning.testing.runs import SMALL_SHAPE, UnmeasuredThroughput, full_tensors
from nbg_lightning.trainer import Trainer

VOCABULARY = 290  # all bytes, the tokens of the chat format, and some words
GRPO_SHAPE = dataclasses.replace(SMALL_SHAPE, vocab_size=VOCABULARY, max_position_embeddings=256)


class EvenReward(Reward):
    """The share of even ids in an answer: easy to learn, and different for every answer."""

    name = "even"

    def __init__(self) -> None:
        self.entered = self.left = 0

    def __enter__(self) -> EvenReward:
        self.entered += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.left += 1

    @override
    def score(self, groups: Sequence[Group]) -> list[list[RewardResult]]:
        return [[RewardResult(self.of(answer.completion.ids)) for answer in group.answers] for group in groups]

    @staticmethod
    def of(ids: Sequence[int]) -> float:
        """The reward of a completion."""
        return sum(token % 2 == 0 for token in ids) / len(ids)


@dataclass
class SmallGRPORun:
    """The record of a run: metrics and rollouts (of this rank) of each step, and the final full weights on the CPU."""

    metrics: list[dict[str, float]] = field(default_factory=list)
    rollouts: list[list[Rollout]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)

    def column(self, name: str) -> list[float]:
        """A metric at every step."""
        return [step[name] for step in self.metrics]

    @property
    def scores(self) -> list[dict[tuple[str, int], list[float | None]]]:
        """The scores of each sample (question and seed), for each step."""
        return [
            {
                (rollout.question.key, rollout.prompt.seed or 0): [result.score for result in rollout.results]
                for rollout in step
            }
            for step in self.rollouts
        ]


class _Recorder(pl.Callback):
    def __init__(self, run: SmallGRPORun):
        self.run = run

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, GRPOModule)
        self.run.metrics.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        self.run.rollouts.append(list(pl_module.last_rollouts))
        print(f"step {trainer.global_step}", flush=True)


def small_tokenizer(folder: str | Path) -> Path:
    """A tokenizer with the ids of `GRPO_SHAPE`; created once per folder."""
    path = Path(folder) / "tokenizer"
    return (
        path if path.exists() else train_bpe(["what is the answer? it is 42, and nothing else."] * 3, VOCABULARY, path)
    )


def train_small_grpo(
    folder: str | Path,
    *,
    tokenizer: str | Path,
    devices: int = 1,
    steps: int = 3,
    module: Callable[..., GRPOModule] = GRPOModule,
    reward: Reward | None = None,
    resume: str | Path | None = None,
    checkpoint_every: int | None = None,
    callbacks: Sequence[pl.Callback] = (),
    module_options: dict[str, Any] | None = None,
    data_options: dict[str, Any] | None = None,
    **trainer_options: Any,
) -> SmallGRPORun:
    """Train a tiny model with random weights, on 4 questions per step with 4 answers each, and record the run.

    Args:
        folder: ``default_root_dir``.
        tokenizer: folder of `small_tokenizer`.
        devices: ranks; inside `run_ranks`, the number of ranks there.
        steps: optimizer steps.
        module: class of the module.
        reward: `EvenReward` by default.
        resume: ``ckpt_path``.
        checkpoint_every: number of steps between checkpoints.
        callbacks: additional callbacks.
        module_options: overrides for the module.
        data_options: overrides for the datamodule.
        **trainer_options: arguments of `Trainer`.
    """
    defaults: dict[str, Any] = {
        "core": GRPO_SHAPE,
        "parallel": ParallelConfig(compute_dtype="float32"),
        "optimizer": AdamWConfig(lr=3e-3, weight_decay=0.0),
        "micro_batch_tokens": 256,
        "group_size": 4,
        "max_new_tokens": 6,
    }
    settings = {**defaults, **(module_options or {})}
    if isinstance(loss := settings.get("loss", DEFAULT_LOSS), str):  # random weights rarely end an answer
        settings = with_moved_settings({"mask_truncated": False, **settings, "loss": loss})
    policy = module(**{"reward": reward or EvenReward(), **settings})
    questions = [{"question": f"{number} ?", "answer": str(number), "source": "numbers"} for number in range(24)]
    datamodule = PromptDataModule(
        **{
            "sources": {"numbers": QuestionList(questions)},
            "tokenizer": str(tokenizer),
            "prompts_per_step": 4,
            "steps": steps,
            "data_dir": str(Path(folder) / "data"),
            **(data_options or {}),
        }
    )
    run = SmallGRPORun()
    trainer = Trainer(
        **{
            "accelerator": "cpu",
            "devices": devices,
            "default_root_dir": str(folder),
            "logger": False,
            "limit_val_batches": 0,
            "enable_progress_bar": False,
            **trainer_options,
            "callbacks": [
                _Recorder(run),
                UnmeasuredThroughput(),
                StepCheckpoint(checkpoint_every, keep=20),
                *callbacks,
            ],
        }
    )
    trainer.fit(policy, datamodule=datamodule, ckpt_path=resume)
    reshard(policy.model)
    run.weights = full_tensors(policy.model.named_parameters())
    return run
