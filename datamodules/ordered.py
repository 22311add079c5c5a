"""Data whose order is a pure function: the part that all training datamodules share."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from nbg_lightning.chat.template import ChatTemplate
from nbg_lightning.core.batch import PackedBatch
from nbg_lightning.data.kind import DataKind
from nbg_lightning.data.order import SampleOrder, Samples, chain, sample_hash
from nbg_lightning.schedule.curriculum import Curriculum

# Tokens, labels, positions and loss weights (or None) of one window.
Row = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]


class StepSampler(Sampler[Samples]):
    """The samples of this rank, one optimizer step at a time, from ``first_step`` to the end of the curriculum.

    It runs in the main process, so a mixture switch is exact however far workers prefetch. Its length is that of the whole
    run: Lightning adds the steps done before a resume to those it sees.
    """

    def __init__(self, order: SampleOrder, curriculum: Curriculum, first_step: int, rank: int, num_ranks: int):
        self.order, self.curriculum, self.first_step = order, curriculum, first_step
        self.rank, self.num_ranks = rank, num_ranks

    def __len__(self) -> int:
        return self.curriculum.num_steps

    def __iter__(self) -> Iterator[Samples]:
        for step in range(self.first_step, self.curriculum.num_steps):
            begin, end = self.curriculum.sample_range(step)
            share = (end - begin) // self.num_ranks
            yield self.order.lookup(begin + self.rank * share, begin + (self.rank + 1) * share)


class StepDataset(Dataset):
    """Reads the rows of one rank's share of a step, in a worker."""

    def __init__(self, datamodule: OrderedDataModule, curriculum: Curriculum):
        self.read, self.seed = datamodule.read, datamodule.seed
        self.lengths = [curriculum.sequence_length_of(stage) for stage in range(len(curriculum.stages))]
        self.sources = curriculum.sources

    def __getitem__(self, samples: Samples) -> PackedBatch:
        length = self.lengths[int(samples.stage[0])]
        rows = [
            self.read(self.sources[source], int(window), length)
            for source, window in zip(samples.source, samples.window, strict=True)
        ]
        hashes = sample_hash(self.seed, samples).view(np.int64)
        return stack_rows(rows, samples.source, hashes)


def stack_rows(rows: list[Row], source: np.ndarray, hashes: np.ndarray) -> PackedBatch:
    """Rows of one length as a batch."""
    tokens, labels, positions, weights = zip(*rows, strict=True)
    return PackedBatch(
        tokens=torch.from_numpy(np.stack(tokens)),
        labels=torch.from_numpy(np.stack(labels)),
        positions=torch.from_numpy(np.stack(positions)),
        weights=None if weights[0] is None else torch.from_numpy(np.stack(weights)),
        source=torch.from_numpy(np.asarray(source, dtype=np.int64)),
        sample_hash=torch.from_numpy(np.asarray(hashes, dtype=np.int64)),
    )


class OrderedDataModule(pl.LightningDataModule, ABC):
    """Serves the windows of several sources in the order of a curriculum, and proves what it served.

    Which window comes at which global index is a function of (seed, curriculum, source sizes) alone. The state is one
    integer, so a run resumes exactly, with other numbers of ranks and workers too; beside it the checkpoint has a hash
    chain of all samples that were consumed and the fingerprints of the sources.

    A subclass has `source_windows`, `read` and `fingerprints`.

    Args:
        seed: of the order.
        num_workers: processes that read rows ahead; 0 reads in the main process.

    Attributes:
        chat_template: the chat format that rows are rendered in, which checkpoints record; None without chats.
        base_weights: weights that a command has instead of a trainer, whose module names them.
    """

    kind: ClassVar[DataKind | None] = None
    """What the rows are; None for a datamodule of the user's own, which any module takes."""

    def __init__(self, seed: int = 0, num_workers: int = 0):
        super().__init__()
        self.seed = seed
        self.num_workers = num_workers
        self.chat_template: ChatTemplate | None = None
        self.base_weights: str | None = None
        self.curriculum: Curriculum | None = None
        self.order: SampleOrder | None = None
        self.step = 0
        self.chain = ""

    def starting_weights(self) -> str | None:
        """The weights that the run begins with, if it begins with any."""
        module = getattr(self.trainer, "lightning_module", None)
        return getattr(module, "base_weights", None) or self.base_weights

    # -- what a subclass defines ---------------------------------------------------------------------------------------

    @abstractmethod
    def source_windows(self, source: str, length: int) -> int:
        """How many windows of a length a source has for training."""

    @abstractmethod
    def read(self, source: str, window: int, length: int) -> Row:
        """One window of a source. Called in workers: it must need nothing but this object's plain attributes."""

    def verify_data(self) -> None:
        """Compare all prepared data with its digests; here there is none on disk.

        Raises:
            ValueError: a file has changed since it was written; it is named.
        """

    @abstractmethod
    def fingerprints(self) -> dict[str, str]:
        """The content of each source, as a hash."""

    # -- order ---------------------------------------------------------------------------------------------------------

    def use_curriculum(self, curriculum: Curriculum) -> None:
        """Follow this table from now on (`FGWSD` calls it in its setup, after this datamodule's)."""
        unknown = sorted(set(curriculum.sources) - set(self.fingerprints()))
        if unknown:
            raise ValueError(
                f"the curriculum mixes unknown sources {', '.join(unknown)}; "
                f"the datamodule has {', '.join(self.fingerprints())}"
            )
        self.curriculum = curriculum
        self.order = SampleOrder(self.seed, curriculum, self.source_windows)
        self.step, self.chain = 0, ""

    def train_dataloader(self) -> DataLoader:
        if self.curriculum is None or self.order is None:
            raise ValueError(
                f"{type(self).__name__} has no curriculum: add the FGWSD callback to the trainer, or call use_curriculum"
            )
        rank, num_ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        for index, stage in enumerate(self.curriculum.stages):
            count = self.curriculum.samples_per_step(index)
            if count % num_ranks:
                raise ValueError(
                    f"{num_ranks} ranks do not divide the {count} windows of a step in stage {stage.name!r}: make "
                    f"tokens_per_step a multiple of {num_ranks} x {self.curriculum.sequence_length_of(index)}, or use fewer ranks"
                )
        return DataLoader(
            StepDataset(self, self.curriculum),
            sampler=StepSampler(self.order, self.curriculum, self.step, rank, num_ranks),
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
        )

    def advance(self, hash_total: int) -> None:
        """One optimizer step was made of samples whose hashes sum to this, over all ranks, modulo 2**64."""
        self.step += 1
        self.chain = chain(self.chain, hash_total % 2**64)

    # -- state: equal on all ranks, plain types only -------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "chain": self.chain,
            "seed": self.seed,
            "fingerprints": self.fingerprints(),
            "curriculum": None if self.curriculum is None else dataclasses.asdict(self.curriculum),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.curriculum is None:
            return  # validation of a checkpoint: nothing is trained on
        if state["seed"] != self.seed:  # first: the seed also decides what is held out, so the sources differ as well
            raise ValueError(
                f"the checkpoint's data order has seed {state['seed']}, this run has {self.seed}: set seed to {state['seed']}"
            )
        changed = sorted(
            name for name, value in state["fingerprints"].items() if self.fingerprints().get(name, value) != value
        )
        if changed:
            raise ValueError(
                f"source {', '.join(changed)} has changed since the checkpoint: restore its data and tokenizer, or start "
                "a new run from these weights"
            )
        self._check_past(Curriculum(**{**state["curriculum"], "stages": _stages(state["curriculum"])}), state["step"])
        self.step, self.chain = state["step"], state["chain"]

    def _check_past(self, saved: Curriculum, step: int) -> None:
        """Stages to come may be changed between runs; what is under way or over may not."""
        assert self.curriculum is not None
        now = self.curriculum
        if saved.tokens_per_step != now.tokens_per_step:
            raise ValueError(
                f"tokens_per_step was {saved.tokens_per_step} in the checkpoint's run and is {now.tokens_per_step} here"
            )
        begun = saved.stage_at(max(step - 1, 0)) + 1
        for index in range(begun):
            before, here = saved.stages[index], now.stages[index] if index < len(now.stages) else None
            finished = saved.first_step(index) + saved.steps_of(index) <= step
            same = (
                here is not None
                and before.mixture == here.mixture
                and before.rope_theta == here.rope_theta
                and saved.sequence_length_of(index) == now.sequence_length_of(index)
                and (now.steps_of(index) == saved.steps_of(index) if finished else now.stage_at(step - 1) == index)
            )
            if not same:
                raise ValueError(
                    f"stage {before.name!r} was already begun at the checkpoint (step {step}) and is another one now: "
                    "only stages to come can be changed when a run resumes"
                )
        # The order depends on which source is named first, second, ...
        named = list(dict.fromkeys(source for stage in saved.stages[:begun] for source in stage.mixture))
        if named != now.sources[: len(named)]:
            raise ValueError(
                f"the stages begun at the checkpoint name their sources in the order {', '.join(named)}, this run has "
                f"{', '.join(now.sources)}: write the mixtures in the old order"
            )


def _stages(curriculum: dict[str, Any]) -> list[Any]:
    from nbg_lightning.schedule.curriculum import Stage

    return [Stage(**stage) for stage in curriculum["stages"]]
