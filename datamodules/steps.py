"""Samples whose order is a pure function: the part that all training datamodules share."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Protocol, runtime_checkable

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from nbg_lightning.chat.template import ChatTemplate
from nbg_lightning.contracts import SharesSamples
from nbg_lightning.data.kind import DataKind
from nbg_lightning.data.order import SampleOrder, Samples, chain, undone_link
from nbg_lightning.data.timed_loader import TimedLoader
from nbg_lightning.schedule.curriculum import saved_plan
from nbg_lightning.schedule.mixture import MixturePlan, check_resumed

ALL = "all sources"  # in a plan without weights; no source can have this name: it has a space


@runtime_checkable
class StartsFromWeights(Protocol):
    """A module that may begin with trained weights; all modules of this library are such."""

    base_weights: str | None


def starting_weights(trainer: pl.Trainer | None) -> str | None:
    """The weights that the trainer's module begins with, if it begins with any."""
    module = None if trainer is None else trainer.lightning_module
    return module.base_weights if isinstance(module, StartsFromWeights) else None


class StepSampler(Sampler[Samples]):
    """The samples of this rank, one optimizer step at a time, from ``first_step`` to the end of the plan.

    It runs in the main process, so a mixture switch is exact however far workers prefetch. Its length is that of the whole
    run: Lightning adds the steps done before a resume to those it sees.
    """

    def __init__(self, order: SampleOrder, first_step: int, rank: int, num_ranks: int):
        self.order, self.first_step = order, first_step
        self.rank, self.num_ranks = rank, num_ranks

    def __len__(self) -> int:
        return self.order.plan.num_steps

    def __iter__(self) -> Iterator[Samples]:
        for step in range(self.first_step, self.order.plan.num_steps):
            yield self.samples(step)

    def samples(self, step: int) -> Samples:
        """This rank's share of one step."""
        begin, end = self.order.plan.sample_range(step)
        share = (end - begin) // self.num_ranks
        return self.order.lookup(begin + self.rank * share, begin + (self.rank + 1) * share)


class StepDataModule(pl.LightningDataModule, ABC):
    """Serves the samples of several sources in the order of a mixture plan, and proves what it served.

    Which sample comes at which global index is a function of (seed, plan, source sizes) alone. The state is one integer, so a
    run resumes exactly, with other numbers of ranks and workers too; beside it the checkpoint has a hash chain of all samples
    that were consumed and the fingerprints of the sources.

    A subclass has `source_windows`, `step_dataset` and `fingerprints`.

    Args:
        seed: of the order.
        num_workers: processes that read samples ahead; 0 reads in the main process.

    Attributes:
        chat_template: the chat format that samples are rendered in, which checkpoints record; None without chats.
        base_weights: weights that a command has instead of a trainer, whose module names them.
        curriculum: the plan that is followed: that of `FGWSD`, or the datamodule's own; None before either is there.
        order: the samples of that plan.
        step: optimizer steps that are done.
        chain: the hash chain over their samples.
        undone: (first, last): after step ``last`` the weights became again those after step ``first``.
    """

    kind: ClassVar[DataKind | None] = None
    """The kind of the samples; None for a datamodule of the user's own, which any module takes."""
    unit: ClassVar[str] = "tokens"
    """What a plan counts, as progress shows it."""

    def __init__(self, seed: int = 0, num_workers: int = 0):
        super().__init__()
        self.seed = seed
        self.num_workers = num_workers
        self.chat_template: ChatTemplate | None = None
        self.base_weights: str | None = None
        self.curriculum: MixturePlan | None = None
        self.order: SampleOrder | None = None
        self.step = 0
        self.chain = ""
        self.undone: list[tuple[int, int]] = []

    def starting_weights(self) -> str | None:
        """The weights that the run begins with, if it begins with any."""
        return starting_weights(self.trainer) or self.base_weights

    @property
    def rank_and_ranks(self) -> tuple[int, int]:
        """The number of this rank among those that read samples of their own, and how many these are; (0, 1) without a trainer.

        Ranks that share samples (`SharesSamples`) have one number.
        """
        if not self.trainer:
            return 0, 1
        module = self.trainer.lightning_module
        together = module.ranks_per_sample if isinstance(module, SharesSamples) else 1
        return self.trainer.global_rank // together, self.trainer.world_size // together

    # -- what a subclass defines ---------------------------------------------------------------------------------------

    @abstractmethod
    def source_windows(self, source: str, length: int) -> int:
        """Number of samples of a length that a source has for training."""

    @abstractmethod
    def step_dataset(self, order: SampleOrder) -> Dataset[Any]:
        """Make the dataset that reads `Samples`, one rank's share of an optimizer step, as a batch, in workers."""

    def verify_data(self) -> None:
        """Compare all prepared data with its digests; here there is none on disk.

        Raises:
            ValueError: a file has changed since it was written; it is named.
        """

    @abstractmethod
    def fingerprints(self) -> dict[str, str]:
        """The content of each source, as a hash."""

    # -- order ---------------------------------------------------------------------------------------------------------

    def use_curriculum(self, curriculum: MixturePlan) -> None:
        """Follow this plan (`FGWSD` calls it in its setup, after this datamodule's)."""
        unknown = sorted(set(curriculum.sources) - set(self.fingerprints()))
        if unknown:
            raise ValueError(
                f"the {curriculum.subject} mixes unknown sources {', '.join(unknown)}; "
                f"there are {', '.join(self.fingerprints())}"
            )
        self.curriculum = curriculum
        self.order = SampleOrder(self.seed, curriculum, self.source_windows)
        self.step, self.chain, self.undone = 0, "", []

    def train_dataloader(self) -> DataLoader[Any]:
        if self.order is None:
            raise ValueError(
                f"{type(self).__name__} has no curriculum; add the FGWSD callback to the trainer, give sequence_length, or call "
                "use_curriculum"
            )
        rank, num_ranks = self.rank_and_ranks
        self.check_ranks(num_ranks)
        self.order.plan.check_ranks(num_ranks)
        return TimedLoader(
            self.step_dataset(self.order),
            sampler=StepSampler(self.order, self.step, rank, num_ranks),
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
        )

    def check_ranks(self, num_ranks: int) -> None:
        """Refuse a number of ranks that does not divide a step, as far as that is known before data are prepared.

        Raises:
            ValueError: naming what would fit.
        """

    @property
    def known_windows(self) -> list[int]:
        """Lengths of rows that are known before data are prepared, beside those of a curriculum."""
        return []

    def advance(self, hash_total: int) -> None:
        """One optimizer step was made of samples whose hashes sum to this, over all ranks, modulo 2**64."""
        self.step += 1
        self.chain = chain(self.chain, hash_total % 2**64)

    def undo(self, step: int, chain_then: str) -> None:
        """The weights are those after an earlier step again, whose link of the chain this was; the order of the data goes on."""
        self.undone.append((step, self.step))
        self.chain = undone_link(chain_then, step, self.step)

    # -- state: equal on all ranks, plain types only -------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "chain": self.chain,
            "undone": [list(each) for each in self.undone],
            "seed": self.seed,
            "fingerprints": self.fingerprints(),
            "curriculum": None if self.curriculum is None else dataclasses.asdict(self.curriculum),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.curriculum is None:
            return  # validation of a checkpoint: nothing is trained on
        if state["seed"] != self.seed:  # first: the seed also decides what is held out, so the sources differ as well
            raise ValueError(
                f"the checkpoint's data order has seed {state['seed']}, this run has {self.seed}; set seed to {state['seed']}"
            )
        changed = sorted(
            name for name, value in state["fingerprints"].items() if self.fingerprints().get(name, value) != value
        )
        if changed:
            raise ValueError(
                f"source {', '.join(changed)} has changed since the checkpoint; restore its data and tokenizer, or start "
                "a new run from these weights"
            )
        check_resumed(saved_plan(state["curriculum"]), self.curriculum, state["step"])
        self.step, self.chain = state["step"], state["chain"]
        self.undone = [(first, last) for first, last in state.get("undone", [])]
