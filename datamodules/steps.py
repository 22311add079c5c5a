"""Samples in an order that is a pure function: the base of all training datamodules."""

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
    """A module that may start from existing weights, as all modules of this library may."""

    base_weights: str | None


def starting_weights(trainer: pl.Trainer | None) -> str | None:
    """The weights that the trainer's module starts from; None if there are none."""
    module = None if trainer is None else trainer.lightning_module
    return module.base_weights if isinstance(module, StartsFromWeights) else None


class StepSampler(Sampler[Samples]):
    """The samples of this rank, one optimizer step at a time, from ``first_step`` to the end of the plan.

    It runs in the main process, so mixture changes are exact regardless of prefetching. Its length is that of the whole
    run, since Lightning adds the steps done before a resume to those it sees.
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
    """Serves samples of several sources in the order of a mixture plan, and records verifiably which ones it served.

    The sample at each global index is a function of (seed, plan, source sizes) alone. The position is one integer, so a run
    resumes exactly, even with another number of ranks or workers; checkpoints also contain a hash chain of all consumed
    samples and the fingerprints of the sources.

    Subclasses define `source_windows`, `step_dataset` and `fingerprints`.

    Args:
        seed: seed of the order.
        num_workers: processes that prefetch samples; 0 reads in the main process.

    Attributes:
        chat_template: chat format of the samples, recorded in checkpoints; None without chats.
        base_weights: initial weights, set by commands that run without a trainer (whose module would name them).
        curriculum: the current plan: that of `FGWSD`, or the datamodule's own; None until either is set.
        order: the samples of that plan.
        step: optimizer steps done.
        chain: hash chain over their samples.
        undone: (first, last): after step ``last``, the weights were restored to those after step ``first``.
    """

    kind: ClassVar[DataKind | None] = None
    """The kind of the samples; None for a custom datamodule, which any module accepts."""
    unit: ClassVar[str] = "tokens"
    """The unit that a plan counts, for progress."""

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
        """The weights that the run starts from; None if there are none."""
        return starting_weights(self.trainer) or self.base_weights

    @property
    def rank_and_ranks(self) -> tuple[int, int]:
        """This rank's index among the ranks that read distinct samples, and the number of those; (0, 1) without a trainer.

        Ranks that share samples (`SharesSamples`) have the same index.
        """
        if not self.trainer:
            return 0, 1
        module = self.trainer.lightning_module
        together = module.ranks_per_sample if isinstance(module, SharesSamples) else 1
        return self.trainer.global_rank // together, self.trainer.world_size // together

    # -- what a subclass defines ---------------------------------------------------------------------------------------

    @abstractmethod
    def source_windows(self, source: str, length: int) -> int:
        """Number of training samples of a given length in a source."""

    @abstractmethod
    def step_dataset(self, order: SampleOrder) -> Dataset[Any]:
        """Create the dataset that reads `Samples`, one rank's share of an optimizer step, as a batch. Runs in workers."""

    def verify_data(self) -> None:
        """Verify all prepared data against its digests; the base class has none on disk.

        Raises:
            ValueError: a file has changed since it was written; it is named.
        """

    @abstractmethod
    def fingerprints(self) -> dict[str, str]:
        """Content hash of each source."""

    # -- order ---------------------------------------------------------------------------------------------------------

    def use_curriculum(self, curriculum: MixturePlan) -> None:
        """Follow this plan (`FGWSD` calls it in its setup, which runs after this datamodule's)."""
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
        """Raise if the number of ranks does not divide a step, as far as this is known before data is prepared.

        Raises:
            ValueError: suggesting numbers that would work.
        """

    @property
    def known_windows(self) -> list[int]:
        """Row lengths that are known before data is prepared, besides those of a curriculum."""
        return []

    def advance(self, hash_total: int) -> None:
        """Record one optimizer step, whose sample hashes sum to this value over all ranks, modulo 2**64."""
        self.step += 1
        self.chain = chain(self.chain, hash_total % 2**64)

    def undo(self, step: int, chain_then: str) -> None:
        """Record that the weights were restored to an earlier step, given by its link in the chain; the data order
        continues.
        """
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
            return  # validating a checkpoint: no training data is used
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
