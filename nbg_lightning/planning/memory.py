"""Peak memory of a training step on one of any number of ranks, from the real model, without memory or devices.

The model is built and wrapped as for training, in a fake process group and of fake tensors, and runs two steps under
`torch.distributed._tools.fsdp2_mem_tracker.FSDPMemTracker`. All of it is linear in the number of layers (the same moment is the
peak), so two small numbers of layers are simulated, and a straight line is drawn through them.

Not counted: what a device keeps for itself (`Device.reserved`), and what compilation saves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig
from nbg_lightning.core.head import chunks_as_on, linear_cross_entropy, linear_token_statistics, tokens_per_chunk
from nbg_lightning.core.model import LanguageModel, model_config
from nbg_lightning.core.parallelize import parallelize
from nbg_lightning.core.sharding import reshard, set_gradient_sync
from nbg_lightning.planning.workload import Cluster, TrainingPhase, Workload, micro_batches

GIB = 2**30
_LAYERS = (4, 6)  # simulated: with fewer the head may be the peak, which is another line
_KINDS = {  # of FSDPMemTracker, as they are told
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
    """GiB of a rank at the peak of a step, by kind.

    Attributes:
        states: shards of parameters, gradients and optimizer.
        gathered: weights of the units that are whole at the peak.
        gradients: that are not yet reduced.
        activations: kept for the backward, and temporaries: chunks of the head, what a block recomputes.
        other: a batch; shards of a teacher or reference.
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


def peak_memory(workload: Workload, phase: TrainingPhase, cluster: Cluster) -> Memory:
    """The peak of a step of a phase; the process must have no process group (one is made, and ended).

    Raises:
        ValueError: the ranks do not divide the step or the copies.
    """
    count, rows = micro_batches(workload, phase, cluster.ranks)
    copies = cluster.copies(workload.parallel)
    # What changes no memory here is left out, so that phases and steps which are alike are simulated once.
    parallel = dataclasses.replace(workload.parallel, replicate=1, compile=False, float8="none")
    plain = dataclasses.replace(workload, parallel=parallel, phases=(), engine_share=0.0, answer=0, answers_per_step=0)
    if plain.task != "GRPO":
        plain = dataclasses.replace(plain, task="pretraining")
    arguments = (plain, phase.window, rows, min(count, 2), cluster.ranks, copies)
    if (key := repr(arguments)) not in _simulated:
        _simulated[key] = _peak(*arguments)
    return _simulated[key]


_simulated: dict[str, Memory] = {}


def _peak(workload: Workload, window: int, rows: int, forwards: int, ranks: int, copies: int) -> Memory:
    layers = workload.shape.num_hidden_layers
    with _fake_group(ranks):
        found = [
            (few, _simulate(_with_layers(workload, few), window, rows, forwards, ranks, copies))
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


@contextmanager
def _fake_group(ranks: int) -> Iterator[None]:
    if dist.is_initialized():
        raise RuntimeError("memory is planned in a process without a process group")
    dist.init_process_group("fake", rank=0, world_size=ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _simulate(workload: Workload, window: int, rows: int, forwards: int, ranks: int, copies: int) -> Memory:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh("cpu", (ranks,), mesh_dim_names=("dp",))
    if copies > 1:  # made outside of fake mode
        mesh = init_device_mesh("cpu", (copies, ranks // copies), mesh_dim_names=("dp_replicate", "dp_shard"))
    parallel = workload.parallel
    with FakeTensorMode(allow_non_fake_inputs=True), chunks_as_on("cuda"):
        model = _build(workload.shape, parallel, mesh)
        frozen = _frozen(workload, parallel, mesh)
        # The optimizer of a rank's shards: on DTensors the tracker would count whole parameters.
        parameters = list(model.parameters())
        shards = [nn.Parameter(parameter._local_tensor) for parameter in parameters]
        for shard, parameter in zip(shards, parameters, strict=True):
            shard.data = parameter._local_tensor
        optimizer = torch.optim.AdamW(shards, lr=1e-3, foreach=True)
        tracker = FSDPMemTracker(model, optimizer)
        if frozen is not None:
            tracker.track_external(*(parameter._local_tensor for parameter in frozen.parameters()))
        with tracker:
            for step in range(2):  # the optimizer's states exist from the first one's end
                _gradients(workload, model, frozen, rows, window, forwards, parallel)
                for shard, parameter in zip(shards, parameters, strict=True):
                    shard.grad = parameter.grad._local_tensor if parameter.grad is not None else None
                torch.nn.utils.clip_grad_norm_(shards, 1.0)
                optimizer.step()
                optimizer.zero_grad()
                model.zero_grad()
                if step == 0:
                    tracker.reset_mod_stats()
        snapshot = next(iter(tracker.get_tracker_snapshot("peak").values()))
    return _of_snapshot({str(getattr(kind, "value", kind)): size / GIB for kind, size in snapshot.items()})


def _build(shape: LanguageModelConfig, parallel: ParallelConfig, mesh: Any) -> LanguageModel:
    with torch.device("cpu"):
        model = model_config(shape).build()
    parallelize(model, parallel, mesh)
    return model


def _frozen(workload: Workload, parallel: ParallelConfig, mesh: Any) -> LanguageModel | None:
    """A live teacher, or a reference: weights that only run forward, in the dtype of the computation."""
    shape = workload.teacher or (workload.shape if workload.reference else None)
    if shape is None:
        return None
    with torch.device("cpu"):
        model = model_config(shape).build()
    model.requires_grad_(False).to(getattr(torch, parallel.compute_dtype))
    parallelize(model, dataclasses.replace(parallel, activation_checkpointing="none"), mesh)
    return model


def _gradients(
    workload: Workload,
    model: LanguageModel,
    frozen: LanguageModel | None,
    rows: int,
    window: int,
    forwards: int,
    parallel: ParallelConfig,
) -> None:
    """The forwards and backwards of a step."""
    tokens = torch.zeros(rows, window, dtype=torch.int64)
    positions = torch.arange(window).expand(rows, -1).contiguous()
    offsets = torch.arange(0, rows * window + 1, window, dtype=torch.int32)
    for number in range(forwards):
        set_gradient_sync(model, number == forwards - 1 or parallel.sync_every_micro_batch)
        kept: Any = None
        if frozen is not None:
            with torch.no_grad():
                kept = frozen(tokens, positions, offsets, _hidden_and_weight)
        if workload.task == "GRPO":
            loss = model(tokens, positions, offsets, partial(_answers, labels_T=tokens.flatten())).sum()
        else:
            # The chunk of a teacher's logits stands beside the student's.
            chunk = None if kept is None else kept[0].new_empty(tokens_per_chunk(kept[1]), kept[1].shape[0])
            loss = model(tokens, positions, offsets, partial(linear_cross_entropy, labels_T=tokens)).loss
            del chunk
        (loss / tokens.numel()).backward()
        del loss, kept
        if frozen is not None:
            reshard(frozen)


def _hidden_and_weight(hidden_BLD: Any, weight_VD: Any) -> tuple[Any, Any]:
    return hidden_BLD.flatten(0, 1).clone(), weight_VD


def _answers(hidden_BLD: Any, weight_VD: Any, labels_T: Any) -> Any:
    return linear_token_statistics(hidden_BLD.flatten(0, 1), weight_VD, labels_T, 1.0).log_probs.clone()


def _of_snapshot(sizes: dict[str, float]) -> Memory:
    total = sizes.pop("Total", None)
    names = [field.name for field in dataclasses.fields(Memory)]
    values = dict.fromkeys(names, 0.0)
    for kind, size in sizes.items():
        values[_KINDS.get(kind, "other")] += size
    if total is not None:
        values["other"] += total - sum(values.values())
    return Memory(**values)
