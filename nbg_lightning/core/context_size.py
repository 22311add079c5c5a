"""Which context sizes a model, its windows and its ranks allow."""

from __future__ import annotations

from nbg_lightning.core.config import LanguageModelConfig


def check_context(size: int, shape: LanguageModelConfig, num_ranks: int | None = None) -> None:
    """Refuse a context size with which a model cannot be trained on so many ranks.

    Raises:
        ValueError: naming what would fit.
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
    """Refuse windows that a context group cannot share evenly.

    Raises:
        ValueError: with what to set.
    """
    if length % size:
        raise ValueError(
            f"parallel.context is invalid: {size}; it must divide the windows of {length:,} tokens: set sequence_length to a "
            "multiple of it"
        )
