"""Prediction of a training step's duration, from counted operations and bytes and the device's specifications."""

from __future__ import annotations

import dataclasses
import math

from nbg_lightning.core.config import LanguageModelConfig
from nbg_lightning.core.names import part_of
from nbg_lightning.core.parameter_shapes import parameter_shapes
from nbg_lightning.planning.devices import DECODED_ROWS, Device
from nbg_lightning.planning.workload import Cluster, TrainingPhase, Workload, micro_batches

_FLOAT8_SHARE = 0.6  # of the gain that float8 products promise, after scales and casts
_BYTES = {"bfloat16": 2, "float32": 4}


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Predicted duration of a step on a rank, in seconds.

    Attributes:
        compute: forward, backward and recomputation, including the exchanges of a context group, for which attention waits.
        communication: gathers and reductions, overlapped with compute, except on a ``cpu``.
        optimizer: reading and writing the optimizer states.
        rollouts: sampling the answers.
        communicated: 10^9 bytes that a rank receives.
        hidden: whether communication overlaps with compute.
    """

    compute: float
    communication: float
    optimizer: float
    rollouts: float
    communicated: float
    hidden: bool = True

    @property
    def total(self) -> float:
        """Duration of the step: communication is hidden behind compute if the device can overlap them."""
        both = max(self.compute, self.communication) if self.hidden else self.compute + self.communication
        return both + self.optimizer + self.rollouts


def step_time(workload: Workload, phase: TrainingPhase, cluster: Cluster, device: Device) -> StepTime:
    """Predict a step.

    Compute time is `flops` divided by the achieved products (`Device.efficiency`), or, with measured rates, the operations
    of blocks and heads divided by their rates. Under FSDP2 a rank gathers the weights of every unit once forward and once
    backward in each micro-batch, and reduces float32 gradients once a step (or in each micro-batch); with copies of the
    model, gathers stay within a copy and gradient shards are all-reduced over the copies. A context group exchanges heads
    for tokens around attention (`core.head_exchange`).
    """
    count, _ = micro_batches(workload, phase, cluster.ranks)
    if workload.task == "GRPO":  # whose micro-batches are filled with the answers that there are
        count = max(1, math.ceil(count * phase.computed))
    copies = cluster.copies(workload.parallel)
    shard = cluster.ranks // copies
    trained = workload.num_trained
    size = workload.shape.num_parameters + workload.num_adapter
    gathers = count * (2 if workload.parallel.reshard_after_forward else 1)
    reductions = count if workload.parallel.sync_every_micro_batch else 1
    share = (shard - 1) / shard
    gathered = gathers * size * _BYTES[workload.parallel.compute_dtype] * share
    reduced = reductions * trained * 4 * share
    across = 2 * trained * 4 / shard * (copies - 1) / copies  # all-reduce of a rank's shard
    inside = device.link if shard <= cluster.in_node else device.network
    communication = (gathered + reduced) / inside / 1e9 + across / device.network / 1e9
    exchanged = _exchanged(workload, phase) / cluster.ranks
    waits = exchanged / (device.link if workload.parallel.context <= cluster.in_node else device.network) / 1e9
    if device.kind == "cpu":  # FSDP2's copies into and out of its buffers, which other devices make beside the products
        copied = 2 * gathers * size * _BYTES[workload.parallel.compute_dtype] + 3 * reductions * trained * 4
        communication += copied / device.bandwidth / 1e9
    # Adam reads weights, gradients and both moments, and writes three of them, in float32; an average reads two and writes one.
    # Muon reads weights, gradients and momentum, writes two, and makes the same matrices on every rank.
    by_muon = workload.num_matrix_parameters
    moved = trained * (7 + 3 * workload.trained.averaged) - by_muon * 2
    optimizer = moved / shard * 4 / device.bandwidth / 1e9 + muon_flops(workload) / products(workload, device)
    optimizer += by_muon * 2 * share / inside / 1e9  # gathered in bfloat16
    return StepTime(
        _compute(workload, phase, device) / cluster.ranks + waits,
        communication,
        optimizer,
        _rollouts(workload, phase, cluster, device),
        (gathered + reduced + across + exchanged) / 1e9,
        device.kind != "cpu",
    )


def _exchanged(workload: Workload, phase: TrainingPhase) -> float:
    """Bytes of a step that the ranks of context groups receive: queries, keys, values and results of every layer, of which each
    rank keeps its own part, forward and backward, and forward once more where blocks are recomputed."""
    size, parallel = workload.parallel.context, workload.parallel
    times = 3 if parallel.activation_checkpointing == "full" else 2

    def of(shape: LanguageModelConfig) -> float:
        repeats = size // math.gcd(shape.num_key_value_heads, size)
        heads = 2 * shape.num_attention_heads + 2 * shape.num_key_value_heads * repeats
        return float(shape.layer_passes * heads * shape.head_dim * _BYTES[parallel.compute_dtype])

    total = of(workload.shape) * times + sum(of(shape) for shape in _frozen(workload))
    return total * phase.tokens_per_step * phase.computed * (size - 1) / size


def _compute(workload: Workload, phase: TrainingPhase, device: Device) -> float:
    """Seconds of a step's operations, if one device did all of them."""
    rates = device.rates.get(workload.parallel.compute_dtype)
    if rates is None:
        return flops(workload, phase) / products(workload, device)
    blocks, heads = block_flops(workload, phase), head_flops(workload, phase)
    of_head = rates.heads.get(workload.task, rates.blocks)
    return blocks / (rates.blocks * 1e12) + heads / (of_head * 1e12)


def products(workload: Workload, device: Device) -> float:
    """FLOP/s that a step reaches."""
    peak = device.products
    if workload.parallel.compute_dtype == "float32":
        peak = device.float32_products or peak / 2  # TF32
    if workload.parallel.float8 not in ("none", "emulate") and device.float8_products is not None:
        peak *= 1 + (device.float8_products / device.products - 1) * _FLOAT8_SHARE
    return peak * 1e12 * device.efficiency


def flops(workload: Workload, phase: TrainingPhase) -> float:
    """Operations of a step over all ranks: model, recomputation, and forwards of a teacher and a reference."""
    return block_flops(workload, phase) + head_flops(workload, phase)


def block_flops(workload: Workload, phase: TrainingPhase) -> float:
    """Operations of the blocks of all models in a step.

    Full checkpointing runs the blocks' forward once more: a third of their share of ``6 N + 6 L d s``. Weights that are frozen
    beside an adapter have no gradient, which is ``2 N``.
    """
    again = 4 / 3 if workload.parallel.activation_checkpointing == "full" else 1.0
    total = (_blocks(workload.shape, phase.attended) + 6.0 * workload.num_adapter) * again
    if workload.trained.lora is not None:
        total -= _blocks(workload.shape, 0) / 3
    total += sum(_blocks(shape, phase.attended) / 3 for shape in _frozen(workload))
    return total * phase.tokens_per_step * phase.computed


def head_flops(workload: Workload, phase: TrainingPhase) -> float:
    """Operations of the heads in a step, at the positions whose logits are made: three products of the model's, one of others'.

    GRPO's head makes its logits once more in the backward; a frozen head has no gradient, which is one product less.
    """
    again = (4 / 3 if workload.task == "GRPO" else 1.0) - (1 / 3 if workload.trained.lora is not None else 0.0)
    total = _head(workload.shape) * again + sum(_head(shape) / 3 for shape in _frozen(workload))
    return total * phase.tokens_per_step * (workload.predicted if phase.predicted is None else phase.predicted)


def muon_flops(workload: Workload) -> float:
    """Operations of Muon's iterations of a step, on each rank: five times three products for every matrix of the blocks."""
    if workload.trained.algorithm != "muon":
        return 0.0
    matrices = (
        size for name, size in parameter_shapes(workload.shape).items() if part_of(name, len(size)) == "matrices"
    )
    return sum(5 * (4.0 * min(size) ** 2 * max(size) + 2.0 * min(size) ** 3) for size in matrices)


def _head(shape: LanguageModelConfig) -> float:
    return 6.0 * shape.vocab_size * shape.hidden_size


def _blocks(shape: LanguageModelConfig, attended: int) -> float:
    return shape.flops_per_token(attended) - _head(shape)


def _frozen(workload: Workload) -> list[LanguageModelConfig]:
    return [each for each in (workload.teacher, workload.shape if workload.reference else None) if each is not None]


def _rollouts(workload: Workload, phase: TrainingPhase, cluster: Cluster, device: Device) -> float:
    """Sampling time: prompts are read once per group; in each of `decode_steps` all weights are read, and the KV caches of the
    current answers.

    The room for answers is that of the longest, the caches that are read are those of a mean answer. On a ``cpu`` products do
    not run beside reading: those of `DECODED_ROWS` answers are in the measured bandwidth, those of others add to it.
    """
    if not workload.answer:
        return 0.0
    shape = workload.shape
    answers = -(-workload.answers_per_step // cluster.ranks)
    mean = workload.answer if phase.answer is None else min(phase.answer, workload.answer)
    per_token = 2 * shape.layer_passes * shape.num_key_value_heads * shape.head_dim * 2
    if workload.cache_positions:  # on the live weights, in their dtype
        size = _BYTES[workload.parallel.compute_dtype]
        longest = max(each.window for each in workload.phases)
        at_once = max(1, min(answers, workload.cache_rows, workload.cache_positions // longest))
    else:
        size, room = 2, workload.engine_share * device.memory * 2**30 - 2 * shape.num_parameters
        at_once = min(answers, max(1, int(room / (per_token * workload.answer)))) if room > 0 else 1
    steps = decode_steps(mean, workload.answer, answers, at_once)
    under_way = answers * mean / steps
    read = size * shape.num_parameters + under_way * per_token * mean / 2
    bandwidth = device.decode_bandwidth or device.bandwidth
    reading, an_answer = read / bandwidth / 1e9, 2.0 * shape.num_parameters / products(workload, device)
    prompts = phase.computed * phase.tokens_per_step - workload.answers_per_step * (mean - 1)
    prefill = max(0.0, prompts) / cluster.ranks * an_answer
    if device.kind == "cpu":
        others = under_way - (DECODED_ROWS if device.decode_bandwidth else 0)
        return prefill + steps * (reading + max(0.0, others) * an_answer)
    return prefill + steps * max(
        reading, under_way * an_answer
    )  # all answers under way share the reading of the weights


def decode_steps(mean: float, longest: int, answers: int, at_once: int) -> float:
    """Steps in which a rank decodes its answers: all tokens by the number that decode at once, but at least the longest answer.

    The longest of n answers is taken to have ``mean (1 + 1/2 + ... + 1/n)`` tokens, the expectation for exponentially
    distributed lengths, and at most the allowed number.

    Example:
        >>> decode_steps(mean=96, longest=96, answers=16, at_once=8)
        192
        >>> round(decode_steps(mean=12, longest=96, answers=4, at_once=4))
        25
    """
    tail = min(longest, mean * sum(1 / number for number in range(1, answers + 1)))
    return max(tail, -(-answers // at_once) * mean)
