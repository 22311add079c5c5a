"""Frozen models used in training, with their identity: a resumed run must use those it started with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.distributed.device_mesh import DeviceMesh

from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.core.context_size import check_context

if TYPE_CHECKING:
    from nbg_lightning.teachers.live import LiveTeacher


class Frozen(NamedTuple):
    """A frozen model and the fingerprint of its weights."""

    model: LiveTeacher
    fingerprint: str


def open_frozen(weights: str, parallel: ParallelConfig, mesh: DeviceMesh | None, device: torch.device) -> Frozen:
    """Load a frozen model, sharded like the student. Collective.

    Raises:
        ValueError: ``parallel.context`` does not divide its heads.
    """
    from nbg_lightning.core.fingerprint import weights_fingerprint
    from nbg_lightning.core.weights import read_shape  # torchtitan takes a second to import
    from nbg_lightning.teachers.live import LiveTeacher

    check_context(parallel.context, read_shape(weights))
    frozen = LiveTeacher(weights, parallel, mesh, device)
    fingerprint = weights_fingerprint(frozen.model)
    frozen.release()
    return Frozen(frozen, fingerprint)


def check_same_frozen(saved: Mapping[str, str], present: Mapping[str, str]) -> None:
    """Raise if a run would be resumed with other frozen models than its checkpoint's.

    Args:
        saved: name to fingerprint, in the checkpoint.
        present: the same of this run; models that only one of the two has are not compared.

    Raises:
        ValueError: naming those that differ.
    """
    changed = [name for name, value in present.items() if saved.get(name, value) != value]
    if changed:
        raise ValueError(
            f"the {' and the '.join(changed)} of the checkpoint's run had other weights; resume with the same ones, or start "
            "a new run from the checkpoint with base_weights"
        )
