"""A workload: a model, its parallelism, and steps with a number of tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig
from nbg_lightning.core.context_size import check_context, check_window
from nbg_lightning.core.lora_config import LoRAConfig
from nbg_lightning.core.names import part_of
from nbg_lightning.core.parameter_shapes import adapter_shapes, parameter_shapes

Task = Literal["pretraining", "SFT", "DPD", "GRPO"]
Algorithm = Literal["adamw", "muon"]


@dataclass(frozen=True)
class TrainingPhase:
    """Steps with one window length.

    Memory is planned for full windows. Time is planned for a mean step, which the last four attributes describe.

    Attributes:
        name: name of the stage, for the table.
        window: positions of a row.
        tokens_per_step: positions of an optimizer step over all ranks.
        steps: number of steps; None if it depends on the data.
        attended: mean document length, weighted by tokens; at most the window.
        computed: share of the positions that the blocks compute; the others are padding, or copies of a shared prefix.
        predicted: share of the positions whose logits are computed; by default the workload's.
        answer: mean tokens of a sampled answer; by default the longest.
    """

    name: str
    window: int
    tokens_per_step: int
    steps: int | None
    attended: int
    computed: float = 1.0
    predicted: float | None = None
    answer: float | None = None


@dataclass(frozen=True)
class Trained:
    """Which part of a model is trained, and how.

    Attributes:
        lora: the adapter that is trained instead of the model; None if all weights are.
        algorithm: algorithm of the optimizer.
        averaged: whether an average of the weights is kept.
    """

    lora: LoRAConfig | None = None
    algorithm: Algorithm = "adamw"
    averaged: bool = False


@dataclass(frozen=True)
class Workload:
    """A training run, before it is distributed over ranks.

    Attributes:
        task: kind of training.
        shape: model config.
        parallel: parallelism and compute settings.
        micro_batch_tokens: positions of a forward pass on a rank.
        phases: phases, in order.
        teacher: config of a live teacher, if there is one.
        reference: whether there is a frozen policy with the same config; ``own``: it is the model with its adapter
            disabled.
        cached_ids: ids per token in a teacher's cache; 0 without one.
        trained: all weights or an adapter, the optimizer, and whether an average is kept.
        predicted: share of the positions whose logits are computed; 1 if it depends on the data.
        engine_share: share of the device's memory for an engine on the trainer's devices.
        answer: maximum tokens of an answer; 0 if none are sampled.
        answers_per_step: answers sampled per step.
        cache_positions: positions of the KV cache of an engine on the live weights; 0 if another engine is used.
        cache_rows: maximum number of answers that it samples concurrently.
    """

    task: Task
    shape: LanguageModelConfig
    parallel: ParallelConfig
    micro_batch_tokens: int
    phases: tuple[TrainingPhase, ...]
    teacher: LanguageModelConfig | None = None
    reference: bool | Literal["own"] = False
    cached_ids: int = 0
    trained: Trained = Trained()
    predicted: float = 1.0
    engine_share: float = 0.0
    answer: int = 0
    answers_per_step: int = 0
    cache_positions: int = 0
    cache_rows: int = 256

    @property
    def second_reference(self) -> bool:
        """Whether the reference is a model of its own."""
        return bool(self.reference) and self.reference != "own"

    @property
    def num_trained(self) -> int:
        """Parameters that are trained: the model's, or the adapter's."""
        return self.shape.num_parameters if self.trained.lora is None else self.num_adapter

    @property
    def num_adapter(self) -> int:
        """Parameters of the adapter."""
        lora = self.trained.lora
        return 0 if lora is None else sum(math.prod(size) for size in adapter_shapes(self.shape, lora).values())

    @property
    def num_matrix_parameters(self) -> int:
        """Parameters that Muon updates: the matrices of the blocks."""
        if self.trained.algorithm != "muon":
            return 0
        shapes = parameter_shapes(self.shape).items()
        return sum(math.prod(size) for name, size in shapes if part_of(name, len(size)) == "matrices")

    def with_parallel(self, **changes: object) -> Workload:
        """The same with other settings of ``parallel``."""
        return replace(self, parallel=replace(self.parallel, **changes))  # type: ignore[arg-type]  # fields of many types, by name


@dataclass(frozen=True)
class Cluster:
    """Ranks, one per device.

    Attributes:
        ranks: total number of ranks.
        in_node: ranks per node.
    """

    ranks: int
    in_node: int

    @property
    def nodes(self) -> int:
        """How many nodes; the last may be partly used."""
        return -(-self.ranks // self.in_node)

    def copies(self, parallel: ParallelConfig) -> int:
        """Copies of the sharded model.

        Raises:
            ValueError: they do not divide the ranks.
        """
        copies = self.nodes if parallel.replicate == "nodes" else int(parallel.replicate)
        if self.ranks % copies:
            raise ValueError(f"parallel.replicate is invalid: {copies}; it must divide the {self.ranks} ranks")
        return copies


def micro_batches(workload: Workload, phase: TrainingPhase, ranks: int) -> tuple[int, int]:
    """How the share of a step of a rank, or of a context group, is divided: the number of forward passes, and rows of each.

    Raises:
        ValueError: the ranks do not divide the windows of a step, or a context group the ranks, the heads or the window.
    """
    context = workload.parallel.context
    check_context(context, workload.shape, ranks)
    check_window(context, phase.window)
    windows, readers = phase.tokens_per_step // phase.window, ranks // context
    if windows % readers:
        of = "ranks" if context == 1 else f"groups of {context} ranks"
        raise ValueError(
            f"{readers} {of} do not divide the {windows:,} windows of a step in {phase.name}; use a divisor, make "
            f"tokens_per_step a multiple of {readers} x {phase.window}, or have several ranks share a window (parallel.context)"
        )
    rows = min(max(1, workload.micro_batch_tokens * context // phase.window), windows // readers)
    return -(-windows // readers // rows), rows
