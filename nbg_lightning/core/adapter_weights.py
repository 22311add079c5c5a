"""Adapters on disk: those in a run's checkpoint or a peft folder, and merged with their base."""

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
    """An adapter: the two matrices of every adapted layer, a trained score head if there is one, and metadata.

    Attributes:
        record: settings and base weights of the adapter.
        tensors: full tensors on the CPU, by the core's names (``layers.0.attention.wo.lora_a``).
        where: its location, for error messages.
    """

    record: AdapterRecord
    tensors: dict[str, Tensor]
    where: str

    def check_base(self, fingerprint: str, base: str) -> None:
        """Check that the base is the one that the adapter was trained on, if that is known.

        Raises:
            ValueError: it is another one; both are named.
        """
        if self.record.fingerprint not in (None, fingerprint):
            raise ValueError(
                f"the adapter {self.where} was trained on other base weights (digest {self.record.fingerprint}, of "
                f"{self.record.base}) than {base} has ({fingerprint}); give the base that it was trained on"
            )

    def load_into(self, model: LanguageModel, lora: LoRAConfig) -> None:
        """Copy it into the adapter of a model, sharded or not. A score head that it lacks keeps its initial values.

        Raises:
            ValueError: the adapter has other settings, or belongs to a reward model and this model is not one.
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
    """Base weights with an adapter merged in, ``W + alpha / rank x B A`` in float32; a score head is taken from the adapter.

    Args:
        base: the weights that the adapter was trained on.
        adapter: from a checkpoint or a peft folder.
        source: the checkpoint that the adapter comes from, if any.

    Raises:
        ValueError: the base is another one, or the shapes do not match.
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
        found = {name: tensors[name] for name in names if name in tensors}  # for the head alone the name is the base's
        found |= self.base.read([name for name in names if name not in found])
        for name in names:
            place = name.removesuffix(".weight")
            if f"{place}.{LORA_A}" in tensors:
                a, b = tensors[f"{place}.{LORA_A}"], tensors[f"{place}.{LORA_B}"]
                found[name] = merge(found[name], a, b, self.adapter.record.lora.scale)
        return found


def checkpoint_of(weights: Weights) -> TrainingCheckpoint | None:
    """The checkpoint that weights, or their adapter, come from; None if they do not come from a checkpoint of a run."""
    source = weights.source if isinstance(weights, AdaptedWeights) else weights
    return source if isinstance(source, TrainingCheckpoint) else None


def checkpoint_adapter(checkpoint: TrainingCheckpoint) -> Adapter:
    """The adapter stored in a checkpoint."""
    assert checkpoint.adapter is not None, "of checkpoints that have one"
    return Adapter(checkpoint.adapter, checkpoint.read(list(checkpoint.stored)), checkpoint.where)
