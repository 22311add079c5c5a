"""Simulation of a training step of the real model on one of any number of ranks, without memory or devices, and its peak
memory.

The model is built and wrapped as for training, in a fake process group and of fake tensors, and runs a step with the heads
of its task under `torch.distributed._tools.fsdp2_mem_tracker.FSDPMemTracker`. Optimizer states exist from the start, as
from the second step of a run on. Loops over chunks run only twice, since further iterations take the same memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig
from nbg_lightning.core.context import ContextShard, context_shard
from nbg_lightning.core.documents import Documents, ModelInput
from nbg_lightning.core.head import chunks_as_on, linear_cross_entropy, linear_token_statistics
from nbg_lightning.core.head_distillation import linear_log_probs, linear_preference
from nbg_lightning.core.head_teachers import LiveTargets, TopK
from nbg_lightning.core.lora import attach_adapter
from nbg_lightning.core.lora_config import LoRAConfig
from nbg_lightning.core.model import LanguageModel, model_config
from nbg_lightning.core.names import part_of
from nbg_lightning.core.parallelize import parallelize
from nbg_lightning.core.sharding import reshard, set_gradient_sync
from nbg_lightning.planning.workload import Workload

Head = Callable[[Tensor, Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class SimulatedStep:
    """The properties of a step that determine its memory.

    Attributes:
        window: positions of a row.
        rows: rows per micro-batch; with ``parallel.context`` a rank has its columns of each.
        forwards: micro-batches; two stand for more.
        ranks: number of ranks, one per device.
        copies: copies of the sharded model.
        device_type: ``cuda`` or ``cpu``, which determines the chunk size of the heads.
    """

    window: int
    rows: int
    forwards: int
    ranks: int
    copies: int
    device_type: str


@contextmanager
def fake_group(ranks: int) -> Iterator[None]:
    """Act as rank 0 of a fake process group.

    Raises:
        RuntimeError: the process has a process group.
    """
    if dist.is_initialized():
        raise RuntimeError("a process group is there already; use nbg plan, or another process")
    dist.init_process_group("fake", rank=0, world_size=ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()


def simulate(workload: Workload, step: SimulatedStep) -> dict[str, int]:
    """Bytes at the peak of a step by FSDPMemTracker's kinds, inside `fake_group`."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh("cpu", (step.ranks,), mesh_dim_names=("dp",))
    if step.copies > 1:  # made outside of fake mode
        names = ("dp_replicate", "dp_shard")
        mesh = init_device_mesh("cpu", (step.copies, step.ranks // step.copies), mesh_dim_names=names)
    context = context_shard(workload.parallel.context, workload.shape, init_device_mesh("cpu", (step.ranks,)))
    with FakeTensorMode(allow_non_fake_inputs=True), chunks_as_on(step.device_type):
        model = _build(workload.shape, workload.parallel, mesh, lora=workload.trained.lora)
        frozen = _Frozen(workload, mesh)
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        shards, optimizer, momentum = _optimizer(trained, workload)
        averages = sum(shard.untyped_storage().nbytes() for shard in shards) if workload.trained.averaged else 0
        tracker = FSDPMemTracker(model, optimizer)
        # Before they are first gathered, where the tracker would take them for activations.
        tracker.track_inputs(tuple(frozen.shards()))
        with tracker:
            _gradients(workload, model, frozen, step, context)
            for shard, parameter in zip(shards, trained.values(), strict=True):
                shard.grad = parameter.grad._local_tensor if isinstance(parameter.grad, DTensor) else None
            torch.nn.utils.clip_grad_norm_(shards, 1.0)
            optimizer.step()
        snapshot = next(iter(tracker.get_tracker_snapshot("peak").values()))
    sizes = {str(getattr(kind, "value", kind)): size for kind, size in snapshot.items()}
    states = sizes.get("OptState", 0) + momentum
    return {**sizes, "OptState": states, "Total": sizes["Total"] + averages + momentum}  # what the tracker does not see


def _optimizer(trained: dict[str, Any], workload: Workload) -> tuple[list[nn.Parameter], torch.optim.Optimizer, int]:
    """AdamW on this rank's shards, with its states: on DTensors the tracker would count whole parameters.

    Matrices that Muon updates have a momentum in place of them, whose bytes are counted.
    """
    shards, of_adamw, momentum = [], [], 0
    for name, parameter in trained.items():
        shard = nn.Parameter(parameter._local_tensor)
        shard.data = parameter._local_tensor
        shards.append(shard)
        if workload.trained.algorithm == "muon" and part_of(name, parameter.ndim) == "matrices":
            momentum += shard.untyped_storage().nbytes()
        else:
            shard.grad = torch.zeros_like(shard)
            of_adamw.append(shard)
    optimizer = torch.optim.AdamW(of_adamw, lr=1e-3, fused=True)
    optimizer.step()
    optimizer.zero_grad()
    return shards, optimizer, momentum


def _build(
    shape: LanguageModelConfig,
    parallel: ParallelConfig,
    mesh: Any,
    frozen: str | None = None,
    lora: LoRAConfig | None = None,
) -> LanguageModel:
    """The wrapped model; with ``frozen`` without gradients, its weights in that dtype; with ``lora`` an adapter beside such."""
    with torch.device("cpu"):
        model: LanguageModel = model_config(shape).build()
    if frozen is not None:
        _freeze(model, getattr(torch, frozen))
    if lora is not None:
        _freeze(model, getattr(torch, parallel.compute_dtype))
        attach_adapter(model, lora)
    parallelize(model, parallel, mesh)
    return model


def _freeze(model: nn.Module, dtype: torch.dtype) -> None:
    """Give a model frozen weights of that dtype; `Module.to` cannot, for the first fake tensors of a process."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter.detach().to(dtype), requires_grad=False))
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point():
                setattr(module, name, buffer.to(dtype))


class _Frozen:
    """The models beside the one that is trained: `LiveTeacher` of DPD's teacher and reference, `ReferencePolicy` of GRPO's."""

    def __init__(self, workload: Workload, mesh: Any):
        parallel = dataclasses.replace(workload.parallel, activation_checkpointing="none")
        dtype = parallel.compute_dtype
        self.teacher = self.reference = None
        if workload.teacher is not None:
            self.teacher = _build(workload.teacher, parallel, mesh, dtype)
            if isinstance(self.teacher.lm_head, FSDPModule):  # its whole weight is read by the student's head
                self.teacher.lm_head.set_reshard_after_forward(False, recurse=False)
        if workload.second_reference:
            self.reference = _build(workload.shape, parallel, mesh, "float32" if workload.task == "GRPO" else dtype)

    def shards(self) -> Iterator[Tensor]:
        """This rank's weights of both."""
        models: list[Any] = [model for model in (self.teacher, self.reference) if model is not None]
        return (parameter._local_tensor for model in models for parameter in model.parameters())

    def targets(self, workload: Workload, inputs: ModelInput, predicting_T: Tensor) -> TopK | LiveTargets | None:
        """What the teacher gives for a micro-batch, after the reference has run."""
        with torch.no_grad():
            if self.reference is not None:
                self.reference(*inputs, partial(_reference_head, predicting_T=predicting_T))
                reshard(self.reference)
            if self.teacher is not None:
                return self.teacher(*inputs, partial(_teacher_head, predicting_T=predicting_T))
        if not workload.cached_ids:
            return None
        size = (len(predicting_T), workload.cached_ids)
        ids, log_probs = torch.zeros(size, dtype=torch.int32), torch.zeros(size, dtype=torch.float32)
        return TopK(ids, log_probs, torch.zeros(len(predicting_T)))

    def release(self) -> None:
        """Free the teacher's gathered head."""
        if self.teacher is not None:
            reshard(self.teacher)


def _gradients(
    workload: Workload, model: LanguageModel, frozen: _Frozen, step: SimulatedStep, context: ContextShard | None
) -> None:
    """The forwards and backwards of a step."""
    inputs = _inputs(step, context)
    tokens = inputs.tokens
    predicting_T = torch.arange(round(tokens.numel() * workload.predicted))
    for number in range(step.forwards):
        set_gradient_sync(model, number == step.forwards - 1 or workload.parallel.sync_every_micro_batch)
        targets = frozen.targets(workload, inputs, predicting_T)
        head = partial(HEADS[workload.task], labels_BL=tokens, predicting_T=predicting_T, targets=targets)
        loss = model(*inputs, head)
        frozen.release()
        del targets, head
        (loss / tokens.numel()).backward()
        del loss


def _inputs(step: SimulatedStep, context: ContextShard | None) -> ModelInput:
    """A micro-batch of documents that fill their windows: whole rows, or a rank's columns of them."""
    rows, window = step.rows, step.window
    tokens = torch.zeros(rows, window, dtype=torch.int64)
    positions = torch.arange(window).expand(rows, -1).contiguous()
    offsets = torch.arange(0, rows * window + 1, window, dtype=torch.int32)
    whole = ModelInput(tokens, positions, Documents(offsets))
    return whole if context is None else context.input(whole)


# -- heads, as the modules of each task call them ----------------------------------------------------------------------


def _pretraining(hidden_BLD: Tensor, weight_VD: Tensor, labels_BL: Tensor, **_: Any) -> Tensor:
    return linear_cross_entropy(hidden_BLD, weight_VD, labels_BL).loss


def _picked(hidden_BLD: Tensor, predicting_T: Tensor) -> Tensor:
    return hidden_BLD.flatten(0, 1).index_select(0, predicting_T)


def _sft(hidden_BLD: Tensor, weight_VD: Tensor, labels_BL: Tensor, predicting_T: Tensor, **_: Any) -> Tensor:
    labels = labels_BL.flatten().index_select(0, predicting_T)
    return linear_cross_entropy(_picked(hidden_BLD, predicting_T), weight_VD, labels).loss


def _dpd(
    hidden_BLD: Tensor, weight_VD: Tensor, labels_BL: Tensor, predicting_T: Tensor, targets: TopK | LiveTargets | None
) -> Tensor:
    """Omit the preference term, which needs values but no additional memory."""
    labels = labels_BL.flatten().index_select(0, predicting_T)
    sequence = torch.zeros_like(labels)
    return linear_preference(_picked(hidden_BLD, predicting_T), weight_VD, labels, sequence, 2, teacher=targets).loss


def _grpo(hidden_BLD: Tensor, weight_VD: Tensor, labels_BL: Tensor, predicting_T: Tensor, **_: Any) -> Tensor:
    labels = labels_BL.flatten().index_select(0, predicting_T)
    found = linear_token_statistics(_picked(hidden_BLD, predicting_T), weight_VD, labels)
    return found.log_probs.clone().sum() + found.entropies.clone().sum() * 0.0


def _reference_head(hidden_BLD: Tensor, weight_VD: Tensor, predicting_T: Tensor) -> Tensor:
    return linear_log_probs(_picked(hidden_BLD, predicting_T), weight_VD, torch.zeros_like(predicting_T))


def _teacher_head(hidden_BLD: Tensor, weight_VD: Tensor, predicting_T: Tensor) -> Any:
    return LiveTargets(_picked(hidden_BLD, predicting_T), weight_VD)


HEADS: dict[str, Callable[..., Tensor]] = {"pretraining": _pretraining, "SFT": _sft, "DPD": _dpd, "GRPO": _grpo}
