"""Seconds of a training step, from counted operations and bytes against what a device can do."""

from __future__ import annotations

import dataclasses

from nbg_lightning.core.config import LanguageModelConfig
from nbg_lightning.planning.devices import Device
from nbg_lightning.planning.workload import Cluster, TrainingPhase, Workload, micro_batches

_FLOAT8_SHARE = 0.6  # of the gain that float8 products promise, after scales and casts
_BYTES = {"bfloat16": 2, "float32": 4}


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds of a step on a rank.

    Attributes:
        compute: forward, backward and recomputation.
        communication: gathers and reductions; beside the products as far as those last.
        optimizer: reading and writing the states.
        rollouts: drawing the answers, at full length.
        communicated: 10^9 bytes that a rank receives.
    """

    compute: float
    communication: float
    optimizer: float
    rollouts: float
    communicated: float

    @property
    def total(self) -> float:
        """Of the step: what is communicated hides behind what is computed."""
        return max(self.compute, self.communication) + self.optimizer + self.rollouts


def step_time(workload: Workload, phase: TrainingPhase, cluster: Cluster, device: Device) -> StepTime:
    """Predict a step.

    Compute is `flops` over the products that a step reaches (`Device.efficiency`). Under FSDP2 a rank gathers the weights of
    every unit once forward and once backward in each micro-batch, and reduces float32 gradients once a step (or in each
    micro-batch); with copies of the model, gathers stay in a copy and shards of gradients are added up over the copies.
    """
    count, _ = micro_batches(workload, phase, cluster.ranks)
    copies = cluster.copies(workload.parallel)
    shard = cluster.ranks // copies
    size = workload.shape.num_parameters
    gathers = count * (2 if workload.parallel.reshard_after_forward else 1)
    reductions = count if workload.parallel.sync_every_micro_batch else 1
    share = (shard - 1) / shard
    gathered = gathers * size * _BYTES[workload.parallel.compute_dtype] * share
    reduced = reductions * size * 4 * share
    across = 2 * size * 4 / shard * (copies - 1) / copies  # all-reduce of a rank's shard
    inside = device.link if shard <= cluster.in_node else device.network
    communication = (gathered + reduced) / inside / 1e9 + across / device.network / 1e9
    # Adam reads weights, gradients and both moments, and writes three of them, in float32.
    optimizer = size / shard * 7 * 4 / device.bandwidth / 1e9
    return StepTime(
        flops(workload, phase) / cluster.ranks / products(workload, device),
        communication,
        optimizer,
        _rollouts(workload, cluster, device),
        (gathered + reduced + across) / 1e9,
    )


def products(workload: Workload, device: Device) -> float:
    """FLOP/s that a step reaches."""
    peak = device.products
    if workload.parallel.compute_dtype == "float32":
        peak /= 2  # TF32
    if workload.parallel.float8 not in ("none", "emulate") and device.float8_products is not None:
        peak *= 1 + (device.float8_products / device.products - 1) * _FLOAT8_SHARE
    return peak * 1e12 * device.efficiency


def flops(workload: Workload, phase: TrainingPhase) -> float:
    """Operations of a step over all ranks: model, recomputation, and forwards of a teacher or reference.

    Full checkpointing runs the blocks' forward once more: a third of their share of ``6 N + 6 L d s``.
    """
    shape = workload.shape
    of_model = shape.flops_per_token(phase.attended)
    head = 6.0 * shape.vocab_size * shape.hidden_size
    total = of_model + ((of_model - head) / 3 if workload.parallel.activation_checkpointing == "full" else 0.0)
    frozen: LanguageModelConfig | None = workload.teacher or (shape if workload.reference else None)
    if frozen is not None:
        total += frozen.flops_per_token(phase.attended) / 3
    return total * phase.tokens_per_step


def _rollouts(workload: Workload, cluster: Cluster, device: Device) -> float:
    """Decoding reads all weights for each token of the answers under way, and the keys and values of each: at full length."""
    if not workload.answer:
        return 0.0
    shape = workload.shape
    answers = -(-workload.answers_per_step // cluster.ranks)
    per_token = 2 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim * 2
    room = workload.engine_share * device.memory * 2**30 - 2 * shape.num_parameters
    at_once = min(answers, max(1, int(room / (per_token * workload.answer)))) if room > 0 else 1
    rounds = -(-answers // at_once)
    read = 2 * shape.num_parameters + at_once * per_token * workload.answer / 2
    return rounds * workload.answer * read / device.bandwidth / 1e9
