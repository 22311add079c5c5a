"""Resource plan of a workload on a cluster: what it takes, whether it fits, and what to change if it does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from nbg_lightning.planning.devices import Device
from nbg_lightning.planning.memory import Memory, peak_memory
from nbg_lightning.planning.time import StepTime, step_time
from nbg_lightning.planning.workload import Cluster, TrainingPhase, Workload, micro_batches


@dataclass(frozen=True)
class PhasePlan:
    """A phase on a cluster.

    Attributes:
        phase: the phase.
        forwards: micro-batches per rank and step.
        rows: windows per micro-batch.
        memory: memory of a rank at the peak.
        time: time of a step.
    """

    phase: TrainingPhase
    forwards: int
    rows: int
    memory: Memory
    time: StepTime

    @property
    def hours(self) -> float | None:
        """Duration of the whole phase; None if its number of steps is unknown."""
        return None if self.phase.steps is None else self.phase.steps * self.time.total / 3600


@dataclass(frozen=True)
class Remedy:
    """A setting that takes less memory.

    Attributes:
        setting: the setting, as typed.
        total: GiB with it.
    """

    setting: str
    total: float


@dataclass(frozen=True)
class ResourcePlan:
    """The plan of a workload on a cluster of devices.

    Attributes:
        workload: the workload.
        cluster: the ranks.
        device: the device of each rank.
        phases: the phases, in order.
        room: GiB available to training, after the device's reserve and the engine's share.
        changes: if it does not fit, settings that take less memory, those that fit first.
    """

    workload: Workload
    cluster: Cluster
    device: Device
    phases: tuple[PhasePlan, ...]
    room: float
    changes: tuple[Remedy, ...]

    @property
    def fits(self) -> bool:
        """Whether all phases do."""
        return all(phase.memory.total <= self.room for phase in self.phases)


def plan_resources(workload: Workload, cluster: Cluster, device: Device) -> ResourcePlan:
    """Simulate memory, predict time, and search for a remedy if something does not fit.

    Raises:
        ValueError: ranks that do not divide a step.
    """
    room = room_of(workload, cluster, device)
    phases = []
    for phase in workload.phases:
        forwards, rows = micro_batches(workload, phase, cluster.ranks)
        memory = peak_memory(workload, phase, cluster, device.kind)
        phases.append(PhasePlan(phase, forwards, rows, memory, step_time(workload, phase, cluster, device)))
    largest = max(phases, key=lambda each: each.memory.total)
    changes: list[Remedy] = []
    if largest.memory.total > room:
        changes = [
            Remedy(setting, peak_memory(changed, largest.phase, on, device.kind).total)
            for setting, changed, on in _remedies(workload, largest, cluster)
        ]
        changes = sorted((each for each in changes if each.total < largest.memory.total), key=lambda each: each.total)
    return ResourcePlan(workload, cluster, device, tuple(phases), room, tuple(changes))


def room_of(workload: Workload, cluster: Cluster, device: Device) -> float:
    """GiB available to a rank's training; the ranks of a node share the memory of a ``cpu``."""
    sharing = min(cluster.ranks, cluster.in_node) if device.kind == "cpu" else 1
    return device.memory / sharing * (1 - workload.engine_share) - device.reserved


def _remedies(workload: Workload, plan: PhasePlan, cluster: Cluster) -> Iterator[tuple[str, Workload, Cluster]]:
    """Alternatives with a single setting changed."""
    parallel = workload.parallel
    if plan.rows > 1:
        smaller = replace(workload, micro_batch_tokens=plan.phase.window)
        yield f"model.init_args.micro_batch_tokens: {plan.phase.window}", smaller, cluster
    if parallel.activation_checkpointing != "full":
        changed = workload.with_parallel(activation_checkpointing="full")
        yield "model.init_args.parallel.activation_checkpointing: full", changed, cluster
    if plan.forwards > 1 and not parallel.sync_every_micro_batch:
        changed = workload.with_parallel(sync_every_micro_batch=True)
        yield "model.init_args.parallel.sync_every_micro_batch: true", changed, cluster
    if plan.rows == 1 and (context := _larger_context(workload, plan.phase, cluster)) is not None:
        yield f"model.init_args.parallel.context: {context}", workload.with_parallel(context=context), cluster
    if cluster.copies(parallel) > 1:
        yield "model.init_args.parallel.replicate: 1", workload.with_parallel(replicate=1), cluster
    if workload.parallel.compute_dtype == "float32":
        yield (
            "model.init_args.parallel.compute_dtype: bfloat16",
            workload.with_parallel(compute_dtype="bfloat16"),
            cluster,
        )
    more = Cluster(cluster.ranks * 2, cluster.in_node)
    windows = plan.phase.tokens_per_step // plan.phase.window
    if windows % (more.ranks // parallel.context) == 0 and cluster.copies(parallel) == 1:
        yield f"--ranks {more.ranks}", workload, more


def _larger_context(workload: Workload, phase: TrainingPhase, cluster: Cluster) -> int | None:
    """The next context size that heads, window and ranks allow; at most the ranks of a node, which exchange in every layer."""
    sizes = range(workload.parallel.context + 1, min(cluster.ranks, cluster.in_node) + 1)
    whole = (workload.shape.num_attention_heads, phase.window, cluster.ranks)
    windows = phase.tokens_per_step // phase.window
    fitting = (
        size for size in sizes if all(number % size == 0 for number in whole) and windows % (cluster.ranks // size) == 0
    )
    return next(fitting, None)
