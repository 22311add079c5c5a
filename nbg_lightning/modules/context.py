"""Context parallelism as a module has it: which settings it takes, and its micro-batches by tokens."""

from __future__ import annotations

from collections.abc import Sequence

from nbg_lightning.core.batch import PackedBatch
from nbg_lightning.core.config import LanguageModelConfig
from nbg_lightning.core.context import ContextShard
from nbg_lightning.core.context_size import check_context


def check_module_context(size: int, shape: LanguageModelConfig, module: str, splits: bool) -> None:
    """Refuse a context size with which a module cannot train.

    Args:
        size: ``parallel.context``.
        shape: of the model.
        module: name of its class.
        splits: whether it trains on parts of rows (`LanguageModule.splits_context`).

    Raises:
        ValueError: naming what would fit.
    """
    check_context(size, shape)
    if size > 1 and not splits:
        raise ValueError(f"parallel.context is invalid: {size}; {module} needs whole rows: set it to 1")


def check_whole_rows(size: int) -> None:
    """Refuse a teacher of another tokenizer where each rank has a part of every row.

    Raises:
        ValueError: ranks share rows.
    """
    if size > 1:
        raise ValueError(
            f"parallel.context is invalid: {size}; set it to 1: a teacher of another tokenizer needs whole rows"
        )


def check_stage(size: int, stage: str) -> None:
    """Refuse predictions where each rank has a part of every row.

    Raises:
        ValueError: ranks share rows.
    """
    if stage == "predict" and size > 1:
        raise ValueError(f"parallel.context is invalid here: {size}; set it to 1: predictions are of whole rows")


def micro_batches(batch: PackedBatch, micro_batch_tokens: int, context: ContextShard | None) -> Sequence[PackedBatch]:
    """Cut a batch into micro-batches, and these into this rank's part of the tokens.

    Args:
        batch: of whole rows, on the CPU.
        micro_batch_tokens: positions of a forward on a rank at most, or a row's part.
        context: this rank's place among those that share each micro-batch; None where it has whole rows.
    """
    if context is None:
        return batch.split(micro_batch_tokens)
    return [context.shard(part) for part in batch.split(micro_batch_tokens * context.size)]
