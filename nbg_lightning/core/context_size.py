"""Checks of the context size against the model, its windows and the ranks."""

from __future__ import annotations

from nbg_lightning.core.config import LanguageModelConfig


def check_context(size: int, shape: LanguageModelConfig, num_ranks: int | None = None) -> None:
    """Check that a model can be trained with a context size on this number of ranks.

    Raises:
        ValueError: it cannot; the message names sizes that fit.
    """
    heads = shape.num_attention_heads
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"parallel.context is invalid: {size!r}; give a number of ranks, 1 to leave it out")
    if heads % size:
        fitting = ", ".join(str(n) for n in range(1, heads + 1) if heads % n == 0)
        raise ValueError(f"parallel.context is invalid: {size}; it must divide the {heads} attention heads: {fitting}")
    if num_ranks is not None and num_ranks % size:
        raise ValueError(f"parallel.context is invalid: {size}; it must divide the {num_ranks} ranks")


def check_window(size: int, length: int) -> None:
    """Check that a context group can split a window evenly.

    Raises:
        ValueError: it cannot; the message says what to set.
    """
    if length % size:
        raise ValueError(
            f"parallel.context is invalid: {size}; it must divide the windows of {length:,} tokens: set sequence_length to a "
            "multiple of it"
        )
