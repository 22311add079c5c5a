"""The decision of ``parallel.compile: auto``: whether a run is long enough for compilation to pay off."""

from __future__ import annotations

from typing import Any

from nbg_lightning import log
from nbg_lightning.contracts import curriculum_of
from nbg_lightning.core.compilation import COMPILED_FROM, compiling_pays, host_compiler
from nbg_lightning.core.config import LanguageModelConfig


def compiles_run(trainer: Any, shape: LanguageModelConfig, tokens_per_unit: int, device_type: str) -> bool:
    """Decide whether to compile, and log it if a run is compiled or should be.

    The decision is based on counted operations rather than measured times, so it is the same in every launch on the same
    number of ranks.

    Args:
        trainer: Lightning's trainer; only its ``fit`` is compiled.
        shape: the model config.
        tokens_per_unit: tokens that the model is trained on per unit of the data's plan (1 if it counts tokens).
        device_type: type of the rank's device.
    """
    operations = _operations(trainer, shape, tokens_per_unit)
    if not compiling_pays(operations, device_type):
        return False
    reason = f"{operations:.1e} operations to do, and compiling pays from {COMPILED_FROM[device_type]:.0e}"
    if host_compiler(device_type) is None:
        log.warn(f"blocks are not compiled, though it would pay ({reason}): there is no compiler on PATH; install g++")
        return False
    log.info(
        f"blocks are compiled in the first step, half a minute or more ({reason}); parallel.compile: false leaves it out"
    )
    return True


def _operations(trainer: Any, shape: LanguageModelConfig, tokens_per_unit: int) -> float | None:
    """Operations per rank in the steps that the plan and ``max_steps`` leave; None if their number is unknown."""
    plan = curriculum_of(trainer)
    if plan is None or trainer.state.fn != "fit":
        return None
    steps = plan.num_steps if trainer.max_steps < 0 else min(plan.num_steps, trainer.max_steps)
    tokens = steps * int(plan.tokens_per_step) * tokens_per_unit
    return tokens * shape.flops_per_token(plan.sequence_length) / trainer.world_size
