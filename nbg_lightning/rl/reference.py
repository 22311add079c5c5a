"""The frozen reference policy of a KL penalty."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.distributed.device_mesh import DeviceMesh

from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig
from nbg_lightning.core.lora import adapter_off
from nbg_lightning.core.sharding import reshard
from nbg_lightning.rl.policy_loss import rollout_statistics
from nbg_lightning.rl.rollout_batch import RolloutBatch

if TYPE_CHECKING:
    from nbg_lightning.core.model import LanguageModel


class BasePolicy:
    """The policy itself with its adapter disabled: frozen weights without a second model.

    Args:
        model: the policy, with an adapter.
    """

    def __init__(self, model: LanguageModel):
        self.model = model

    @torch.no_grad()
    def with_log_probs(self, micro: Sequence[RolloutBatch], temperature: float) -> list[RolloutBatch]:
        """The micro-batches with the log-probs of their tokens under the reference."""
        with adapter_off(self.model):
            return _with_log_probs(self.model, micro, temperature)


class ReferencePolicy:
    """Frozen weights with the policy's model config, sharded like it. Not a submodule: neither trained, saved nor moved.

    Args:
        weights: as in `nbg_lightning.core.weights.open_weights`.
        shape: the policy's model config.
        parallel: the policy's dtype, compilation and sharding.
        mesh: data-parallel mesh to shard over; None for a whole model in this process.
        device: device of the parameters.
    """

    def __init__(
        self,
        weights: str,
        shape: LanguageModelConfig,
        parallel: ParallelConfig,
        mesh: DeviceMesh | None,
        device: torch.device,
    ):
        from nbg_lightning.core.create import create_model  # torchtitan takes a second to import
        from nbg_lightning.core.weights import load_base_weights

        model = create_model(shape, parallel, mesh, device, draw=False)
        load_base_weights(model, weights)
        self.model = model.requires_grad_(False).eval()

    @torch.no_grad()
    def with_log_probs(self, micro: Sequence[RolloutBatch], temperature: float) -> list[RolloutBatch]:
        """The micro-batches with the log-probs of their tokens under the reference."""
        return _with_log_probs(self.model, micro, temperature)


def reference_policy(
    weights: str,
    policy: LanguageModel,
    own_base: bool,
    parallel: ParallelConfig,
    mesh: DeviceMesh | None,
    device: torch.device,
) -> ReferencePolicy | BasePolicy:
    """A second model with these weights, or the policy itself if they are the base of its adapter."""
    return BasePolicy(policy) if own_base else ReferencePolicy(weights, policy.shape, parallel, mesh, device)


def _with_log_probs(model: LanguageModel, micro: Sequence[RolloutBatch], temperature: float) -> list[RolloutBatch]:
    found = [rollout_statistics(model, part, temperature).log_probs[: part.num_trained] for part in micro]
    reshard(model)
    return [dataclasses.replace(part, reference_log_probs=own) for part, own in zip(micro, found, strict=True)]
