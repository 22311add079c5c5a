"""The inputs that the answers of a `GRPOModule` run depend on, and sampling that a signal can interrupt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nbg_lightning import stopping
from nbg_lightning.callbacks.checkpoint import fail_before_step
from nbg_lightning.contracts import ServesAnyStep, datamodule_of
from nbg_lightning.engines.protocol import Sampling
from nbg_lightning.engines.supervised import EngineDied
from nbg_lightning.rl.collector import Collected, PromptedQuestions
from nbg_lightning.rl.step import AnswerPacking
from nbg_lightning.rl.training_rollouts import RunOfSteps, TrainingRollouts

if TYPE_CHECKING:
    import lightning.pytorch as pl
    import torch

    from nbg_lightning.core.context import ContextShard
    from nbg_lightning.core.model import LanguageModel
    from nbg_lightning.engines.chat import ChatFormat


class TrainsOnAnswers(Protocol):
    """The attributes of a `GRPOModule` with a built model that are read here."""

    model: LanguageModel
    format: ChatFormat
    answers: TrainingRollouts
    context: ContextShard | None
    seed: int
    group_size: int
    max_new_tokens: int
    temperature: float
    micro_batch_tokens: int
    shortest_prefix: int | None

    @property
    def trainer(self) -> pl.Trainer: ...

    @property
    def device(self) -> torch.device: ...

    def sampling(self, n: int, seed: int) -> Sampling: ...


def answer_sampling(module: TrainsOnAnswers, n: int, seed: int) -> Sampling:
    """A module's sampling settings, with ``n`` answers per question."""
    stops, seconds = module.format.stop_ids, module.answers.settings.question_deadline
    return Sampling(module.max_new_tokens, module.temperature, n=n, stop_ids=stops, seed=seed, seconds=seconds)


def run_of_steps(module: TrainsOnAnswers, batch: PromptedQuestions) -> RunOfSteps:
    """The steps of a module's run, from a batch on; its model must be built."""
    data: Any = datamodule_of(module.trainer)
    planned = data.curriculum.num_steps if isinstance(data, ServesAnyStep) and data.curriculum is not None else 0
    most = module.trainer.max_steps

    def sampling(step: int) -> Sampling:
        return module.sampling(module.group_size, (module.seed << 32) + step)

    def questions(step: int) -> PromptedQuestions:
        if not isinstance(data, ServesAnyStep):
            raise ValueError(
                f"max_staleness is invalid with {type(data).__name__}, which cannot serve the questions of a later step; give it "
                "step_batch, or set max_staleness to 0"
            )
        batch: PromptedQuestions = data.step_batch(step)
        return batch

    settings = {
        "seed": module.seed,
        "group_size": module.group_size,
        "max_new_tokens": module.max_new_tokens,
        "temperature": module.temperature,
    }
    return RunOfSteps(
        module.model,
        module.device,
        module.format,
        questions,
        sampling,
        planned,
        planned if most < 0 else min(planned, most),
        Path(module.trainer.default_root_dir),
        settings,
        len(batch.questions),
    )


def packing_of(module: TrainsOnAnswers) -> AnswerPacking:
    """How a module packs its answers into micro-batches."""
    balances = module.answers.settings.balance_ranks
    return AnswerPacking(module.micro_batch_tokens, module.shortest_prefix, module.device, module.context, balances)


def unless_stopped(trainer: Any, draw: Callable[[], Collected | None], plan: str) -> Collected | None:
    """The sampled answers; None if a signal requests a stop, which is collective. A dead engine ends the run after saving
    it.
    """
    try:
        with stopping.dropping(plan):
            return draw()
    except EngineDied as error:
        fail_before_step(trainer, str(error), "engine", error)
