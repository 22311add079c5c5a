"""What `nbg data preview` says in words: special tokens, lengths of samples, how full windows get; and how much it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbg_lightning.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from nbg_lightning.datamodules.rendered import RenderedDataModule

DEFAULT_WINDOW = 2048  # tokens, where a config says nothing
WINDOW_BOUND = 1 << 16  # conversations that the packing is estimated from


@dataclass(frozen=True)
class Look:
    """How much is shown.

    Attributes:
        console: where.
        num_samples: samples printed of each source.
        look_at: samples that lengths, packing and warnings are made from.
        window: tokens of a pretraining window.
        weights: of the model that a benchmark asks, which may have the tokenizer.
    """

    console: Console
    num_samples: int
    look_at: int
    window: int = DEFAULT_WINDOW
    weights: str | None = None


def special_tokens(tokenizer: Any) -> str:
    """The tokens that matter in a chat format, with their ids."""
    named = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    parts = [f"{role} {tokenizer.decode([index])} = {index}" for role, index in named.items() if index is not None]
    added = tokenizer.transformers.get_added_vocab()
    parts += [f"{text} = {index}" for text, index in sorted(added.items(), key=lambda pair: pair[1])][:24]
    return printable("special tokens: " + ", ".join(dict.fromkeys(parts)))


def lengths_and_packing(lengths: list[int], data: RenderedDataModule) -> str:
    """Quantiles of the lengths, and how full windows get by each way of packing."""
    import numpy as np

    from nbg_lightning.data.packing import best_fit_decreasing, length_buckets, packing_efficiency, padded_batches

    array = np.array(lengths[:WINDOW_BOUND])
    inputs = np.maximum(1, array - 1)
    shares = {
        name: packing_efficiency(packer(inputs, data.sequence_length), inputs, data.sequence_length)
        for name, packer in (
            ("best_fit", best_fit_decreasing),
            ("bucketed", length_buckets),
            ("padded", padded_batches),
        )
    }
    listed = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    return f"{quantiles(lengths)}\npacking of these {len(array)} into windows of {data.sequence_length:,}: {listed}"


def quantiles(lengths: list[int]) -> str:
    """How long samples are."""
    import numpy as np

    low, middle, high = (int(q) for q in np.quantile(lengths, [0.1, 0.5, 0.9]))
    return f"lengths: {min(lengths):,} to {max(lengths):,} tokens, median {middle:,}, 80 % between {low:,} and {high:,}"
