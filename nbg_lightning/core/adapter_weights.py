"""Adapters on disk: of a checkpoint of a run or a peft folder, and merged with the base that they were trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from nbg_lightning.core.fingerprint import source_fingerprint
from nbg_lightning.core.initialize import copy_full
from nbg_lightning.core.lora import adapted_layers, merge
from nbg_lightning.core.lora_config import LoRAConfig
from nbg_lightning.core.names import HEAD, LORA_A, LORA_B
from nbg_lightning.core.parameter_shapes import adapter_shapes, check_shapes, parameter_shapes
from nbg_lightning.core.weight_sources import AdapterRecord, TrainingCheckpoint, Weights

if TYPE_CHECKING:
    from nbg_lightning.core.model import LanguageModel


@dataclass
class Adapter:
    """The two matrices of every adapted layer, a head that scores where one was trained, and what they belong to.

    Attributes:
        record: settings, and which base.
        tensors: by the core's names (``layers.0.attention.wo.lora_a``), whole, on the CPU.
        where: for messages.
    """

    record: AdapterRecord
    tensors: dict[str, Tensor]
    where: str

    def check_base(self, fingerprint: str, base: str) -> None:
        """Refuse another base than that of the training, where it is known.

        Raises:
            ValueError: naming both.
        """
        if self.record.fingerprint not in (None, fingerprint):
            raise ValueError(
                f"the adapter {self.where} was trained on other base weights (digest {self.record.fingerprint}, of "
                f"{self.record.base}) than {base} has ({fingerprint}); give the base that it was trained on"
            )

    def load_into(self, model: LanguageModel, lora: LoRAConfig) -> None:
        """Copy it into the adapter of a model, sharded or not; a head that it has not stays as it was drawn.

        Raises:
            ValueError: an adapter of other settings, or of a reward model where tokens are named.
        """
        if different := lora.differences(self.record.lora):
            raise ValueError(
                f"lora.weights is invalid: {self.where} has another adapter: {different}; use its settings"
            )
        if self.record.scores:
            if not model.shape.score_head:
                raise ValueError(
                    f"lora.weights is invalid: {self.where} is the adapter of a reward model; use it in RewardModule"
                )
            copy_full(model.lm_head.weight, self.tensors[HEAD])
        for name, layer in adapted_layers(model).items():
            place = name.removesuffix(".weight")
            copy_full(layer.lora_a, self.tensors[f"{place}.{LORA_A}"])
            copy_full(layer.lora_b, self.tensors[f"{place}.{LORA_B}"])


class AdaptedWeights(Weights):
    """Base weights with an adapter merged in: ``W + alpha / rank x B A``, in float32; a head that scores is the adapter's.

    Args:
        base: that the adapter was trained on.
        adapter: of a checkpoint or a peft folder.
        source: the checkpoint, where it is one.

    Raises:
        ValueError: another base, or shapes that do not fit it.
    """

    def __init__(self, base: Weights, adapter: Adapter, source: TrainingCheckpoint | None = None):
        self.base, self.adapter, self.source = base, adapter, source
        self.where = adapter.where
        shape = base.shape if source is None else source.shape
        self.shape = shape.scoring if adapter.record.scores else shape
        self.shapes = parameter_shapes(self.shape)
        found = {name: tuple(tensor.shape) for name, tensor in adapter.tensors.items()}
        check_shapes(found, adapter_shapes(self.shape, adapter.record.lora), f"{self.where} on {base.where}")
        if adapter.record.fingerprint is not None:
            adapter.check_base(source_fingerprint(base), base.where)

    def read(self, names: Sequence[str]) -> dict[str, Tensor]:
        tensors = self.adapter.tensors
        found = {name: tensors[name] for name in names if name in tensors}  # of the head alone the name is the base's
        found |= self.base.read([name for name in names if name not in found])
        for name in names:
            place = name.removesuffix(".weight")
            if f"{place}.{LORA_A}" in tensors:
                a, b = tensors[f"{place}.{LORA_A}"], tensors[f"{place}.{LORA_B}"]
                found[name] = merge(found[name], a, b, self.adapter.record.lora.scale)
        return found


def checkpoint_of(weights: Weights) -> TrainingCheckpoint | None:
    """The checkpoint of a run that weights come from, or their adapter does; None for all others."""
    source = weights.source if isinstance(weights, AdaptedWeights) else weights
    return source if isinstance(source, TrainingCheckpoint) else None


def checkpoint_adapter(checkpoint: TrainingCheckpoint) -> Adapter:
    """The adapter that a checkpoint holds."""
    assert checkpoint.adapter is not None, "of checkpoints that have one"
    return Adapter(checkpoint.adapter, checkpoint.read(list(checkpoint.stored)), checkpoint.where)
