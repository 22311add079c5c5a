"""Context parallelism in modules: supported settings, and micro-batches split by tokens."""

from __future__ import annotations

from collections.abc import Sequence

from nbg_lightning.core.batch import PackedBatch
from nbg_lightning.core.config import LanguageModelConfig
from nbg_lightning.core.context import ContextShard
from nbg_lightning.core.context_size import check_context


def check_module_context(size: int, shape: LanguageModelConfig, module: str, splits: bool) -> None:
    """Raise for a context size that a module does not support.

    Args:
        size: ``parallel.context``.
        shape: the model config.
        module: name of its class.
        splits: whether it trains on parts of rows (`LanguageModule.splits_context`).

    Raises:
        ValueError: suggesting sizes that would work.
    """
    check_context(size, shape)
    if size > 1 and not splits:
        raise ValueError(f"parallel.context is invalid: {size}; {module} needs whole rows: set it to 1")


def check_whole_rows(size: int) -> None:
    """Raise for a teacher with another tokenizer if ranks share rows.

    Raises:
        ValueError: ranks share rows.
    """
    if size > 1:
        raise ValueError(
            f"parallel.context is invalid: {size}; set it to 1: a teacher of another tokenizer needs whole rows"
        )


def check_stage(size: int, stage: str) -> None:
    """Raise for predictions if ranks share rows.

    Raises:
        ValueError: ranks share rows.
    """
    if stage == "predict" and size > 1:
        raise ValueError(f"parallel.context is invalid here: {size}; set it to 1: predictions are of whole rows")


def micro_batches(batch: PackedBatch, micro_batch_tokens: int, context: ContextShard | None) -> Sequence[PackedBatch]:
    """Split a batch into micro-batches, and take this rank's part of the tokens of each.

    Args:
        batch: whole rows, on the CPU.
        micro_batch_tokens: maximum positions per forward pass on a rank; at least a row, or this rank's part of one.
        context: this rank's position among those that share each micro-batch; None if it has whole rows.
    """
    if context is None:
        return batch.split(micro_batch_tokens)
    return [context.shard(part) for part in batch.split(micro_batch_tokens * context.size)]
