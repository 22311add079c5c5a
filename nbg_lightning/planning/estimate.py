"""Instant estimates of a training run by formulas, for the summary at its start; `nbg plan` simulates instead.

Activations are counted per position and block, as autograd keeps them for a block of hidden size D, query width Q, key and
value width K and inner width F: ``5 D + 2 Q + 2 K + 4 F`` numbers without checkpointing, half of the blocks' products with
selective checkpointing, and D with full checkpointing, plus one recomputed block.
"""

from __future__ import annotations

import math

from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig
from nbg_lightning.planning.memory import GIB, Memory
from nbg_lightning.planning.workload import Cluster, TrainingPhase, Workload, micro_batches

_CHUNK = {"cpu": 2**27, "cuda": 2**30}  # bytes of logits at once, as the heads cut them
_SELECTIVE = 0.55  # of what is kept without checkpointing


def estimated_memory(workload: Workload, phase: TrainingPhase, cluster: Cluster, device_type: str) -> Memory:
    """Estimated peak memory of a step, within a quarter of the simulated value.

    Raises:
        ValueError: the ranks do not divide the step or the copies.
    """
    shape, parallel = workload.shape, workload.parallel
    count, rows = micro_batches(workload, phase, cluster.ranks)
    shard = cluster.ranks // cluster.copies(parallel)
    size = 2 if parallel.compute_dtype == "bfloat16" else 4
    parameters = shape.num_parameters
    block = (parameters - 2 * shape.vocab_size * shape.hidden_size) / shape.num_hidden_layers
    whole = parameters if shard == 1 else max(shape.vocab_size * shape.hidden_size, block) * 2
    frozen_bytes = 0 if workload.trained.lora is None else parameters * size
    accumulating = count > 1 and not parallel.sync_every_micro_batch
    tokens = rows * phase.window // parallel.context
    chunk = min(_CHUNK[device_type] / size, tokens * workload.predicted * shape.vocab_size)
    in_float32 = 4 if size == 2 and device_type == "cuda" else 0  # the softmax of a chunk
    head = (
        chunk * (size + in_float32)
        + shape.vocab_size * shape.hidden_size * (4 + size)
        + 2 * tokens * shape.hidden_size * size
    )
    trained = workload.num_trained
    beside = 4 * trained / shard if workload.trained.averaged else 0.0
    for frozen in (workload.teacher, shape if workload.second_reference else None):
        beside += 0.0 if frozen is None else frozen.num_parameters * size / shard
    return Memory(
        states=(12 * trained - 4 * workload.num_matrix_parameters + frozen_bytes) / shard / GIB,
        gathered=whole * size / GIB,
        gradients=(4 * trained if accumulating else 0.0) / GIB,
        activations=(tokens * _kept(shape, parallel) * size + head) / GIB,
        other=beside / GIB,
    )


def _kept(shape: LanguageModelConfig, parallel: ParallelConfig) -> float:
    """Numbers per position that the backward needs, over all blocks."""
    queries, keys = (heads * shape.head_dim for heads in (shape.num_attention_heads, shape.num_key_value_heads))
    one = 5 * shape.hidden_size + 2 * queries + 2 * keys + 4 * shape.intermediate_size
    if parallel.context > 1:  # what is exchanged around attention, and the keys and values that are repeated for it
        keys *= parallel.context // math.gcd(shape.num_key_value_heads, parallel.context)
        one += queries + 2 * keys
    layers = shape.layer_passes
    if parallel.activation_checkpointing == "full":
        return layers * shape.hidden_size + one
    return layers * one * (_SELECTIVE if parallel.activation_checkpointing == "selective" else 1.0)
