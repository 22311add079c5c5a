"""The frozen policy that a KL penalty is measured from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch.distributed.device_mesh import DeviceMesh

from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig
from nbg_lightning.core.sharding import reshard
from nbg_lightning.rl.policy_loss import rollout_statistics
from nbg_lightning.rl.rollout_batch import RolloutBatch


class ReferencePolicy:
    """Frozen weights of the policy's shape, sharded like it. It is no module: neither trained, nor saved, nor moved.

    Args:
        weights: as in `nbg_lightning.core.weights.open_weights`.
        shape: the policy's.
        parallel: the policy's dtype, compilation and sharding.
        mesh: data-parallel mesh to shard over; None for a whole model in this process.
        device: where the parameters live.
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
        """The micro-batches with the log-probs that their tokens have here."""
        found = [rollout_statistics(self.model, part, temperature).log_probs[: part.num_trained] for part in micro]
        reshard(self.model)
        return [dataclasses.replace(part, reference_log_probs=own) for part, own in zip(micro, found, strict=True)]
