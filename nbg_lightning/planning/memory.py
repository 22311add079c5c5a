"""Peak memory of a training step on one of any number of ranks, from the real model, without allocating memory or using
devices.

`simulate` runs a step with fake tensors. The result is linear in the number of layers (the peak is at the same moment), so
two small numbers of layers are simulated and extrapolated.

Not counted: memory that the device reserves (`Device.reserved`), and savings by compilation.
"""

from __future__ import annotations

import dataclasses

from nbg_lightning.planning.simulate import SimulatedStep, fake_group, simulate
from nbg_lightning.planning.workload import Cluster, TrainingPhase, Workload, micro_batches

GIB = 2**30
_LAYERS = (4, 6)  # simulated: with fewer the head may be the peak, which is another line
_KINDS = {  # of FSDPMemTracker, by the names to print
    "Sharded Param": "states",
    "Sharded Grad": "states",
    "OptState": "states",
    "Unsharded Param": "gathered",
    "All Gather": "gathered",
    "Unsharded Grad": "gradients",
    "Reduce Scatter": "gradients",
    "Activation": "activations",
    "Temp": "activations",
}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Memory of a rank at the peak of a step in GiB, by kind.

    Attributes:
        states: shards of parameters, gradients and optimizer.
        gathered: unsharded weights of the units gathered at the peak.
        gradients: gradients that are not yet reduced.
        activations: activations saved for the backward, and temporaries: chunks of the head, recomputation in a block.
        other: a batch; shards of a teacher, reference or average.
    """

    states: float
    gathered: float
    gradients: float
    activations: float
    other: float

    @property
    def total(self) -> float:
        """All of them."""
        return sum(dataclasses.astuple(self))


def peak_memory(workload: Workload, phase: TrainingPhase, cluster: Cluster, device_type: str = "cuda") -> Memory:
    """Peak memory of a step of a phase; the process must have no process group (one is created, and destroyed).

    Raises:
        ValueError: the ranks do not divide the step or the copies.
    """
    count, rows = micro_batches(workload, phase, cluster.ranks)
    step = SimulatedStep(
        phase.window, rows, min(count, 2), cluster.ranks, cluster.copies(workload.parallel), device_type
    )
    # What changes no memory here is left out, so that phases and steps which are alike are simulated once.
    parallel = dataclasses.replace(workload.parallel, replicate=1, compile=False, float8="none")
    plain = dataclasses.replace(workload, parallel=parallel, phases=(), engine_share=0.0, micro_batch_tokens=0)
    plain = dataclasses.replace(plain, answer=0, answers_per_step=0, cache_positions=0)
    if (key := repr((plain, step))) not in _simulated:
        _simulated[key] = _peak(plain, step)
    update = _simulated[key]
    rollouts = rollout_memory(workload, update.states, cluster)
    return max(update, rollouts, key=lambda each: each.total)


_simulated: dict[str, Memory] = {}


def _peak(workload: Workload, step: SimulatedStep) -> Memory:
    layers = workload.shape.num_hidden_layers
    with fake_group(step.ranks):
        found = [
            (few, _of_snapshot(simulate(_with_layers(workload, few), step)))
            for few in sorted({min(layers, number) for number in _LAYERS})
        ]
    if len(found) == 1:
        return found[0][1]
    (few, first), (more, second) = found
    slope = (layers - few) / (more - few)
    values = [a + (b - a) * slope for a, b in zip(dataclasses.astuple(first), dataclasses.astuple(second), strict=True)]
    return Memory(*(max(0.0, value) for value in values))


def _with_layers(workload: Workload, layers: int) -> Workload:
    """The same with fewer layers; a teacher's are fewer in proportion."""
    share = layers / workload.shape.num_hidden_layers
    teacher = workload.teacher
    if teacher is not None:
        teacher = dataclasses.replace(teacher, num_hidden_layers=max(1, round(teacher.num_hidden_layers * share)))
    shape = dataclasses.replace(workload.shape, num_hidden_layers=layers)
    return dataclasses.replace(workload, shape=shape, teacher=teacher)


def rollout_memory(workload: Workload, states: float, cluster: Cluster) -> Memory:
    """Memory of an engine on the live weights during sampling (`NativeEngine`): unsharded weights, and the KV cache of its
    rows.

    Args:
        workload: the workload.
        states: GiB of a rank's shards at the update's peak.
        cluster: the ranks.
    """
    if not workload.cache_positions:
        return Memory(0.0, 0.0, 0.0, 0.0, 0.0)
    shape, size = workload.shape, 2 if workload.parallel.compute_dtype == "bfloat16" else 4
    answers = -(-workload.answers_per_step // cluster.ranks)
    length = max(phase.window for phase in workload.phases)
    rows = max(1, min(answers, workload.cache_rows, workload.cache_positions // length))
    per_position = 2 * shape.layer_passes * shape.num_key_value_heads * shape.head_dim * 4
    return Memory(
        states=states,
        gathered=shape.num_parameters * size / GIB,
        gradients=0.0,
        activations=(rows * length * per_position + 3 * rows * shape.vocab_size * 4) / GIB,
        other=0.0,
    )


def _of_snapshot(found: dict[str, int]) -> Memory:
    sizes = {kind: size / GIB for kind, size in found.items()}
    total = sizes.pop("Total", None)
    names = [field.name for field in dataclasses.fields(Memory)]
    values = dict.fromkeys(names, 0.0)
    for kind, size in sizes.items():
        values[_KINDS.get(kind, "other")] += size
    if total is not None:
        values["other"] += total - sum(values.values())
    return Memory(**values)
