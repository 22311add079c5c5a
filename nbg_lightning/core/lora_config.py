"""Settings of low-rank adapters."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from nbg_lightning.suggestion import did_you_mean

TARGETS = {  # Hugging Face's name of a matrix -> its path in a block of the core
    "q_proj": "attention.qkv_linear.wq",
    "k_proj": "attention.qkv_linear.wk",
    "v_proj": "attention.qkv_linear.wv",
    "o_proj": "attention.wo",
    "gate_proj": "feed_forward.w1",
    "up_proj": "feed_forward.w3",
    "down_proj": "feed_forward.w2",
}


@dataclass
class LoRAConfig:
    """A low-rank adapter: ``y = W x + (alpha / rank) B A dropout(x)``, where only A and B are trained (arXiv 2106.09685).

    As in peft, A ``[rank, in]`` is initialized uniformly in ``+-1 / sqrt(in)`` and B ``[out, rank]`` to zero, so that a new
    adapter changes nothing.

    Attributes:
        rank: rows of A. At the smaller side of a matrix, the adapter can express any change of it.
        alpha: the adapter's output is scaled by ``alpha / rank``.
        targets: adapted matrices in every layer, by Hugging Face's names; all by default.
        dropout: share of the adapter's inputs that are zeroed in training.
        weights: an adapter to continue training, with the same rank, alpha and targets: a peft folder or a checkpoint.

    Raises:
        ValueError: a setting is invalid.

    Example:
        >>> LoRAConfig(rank=8, alpha=16).scale
        2.0
    """

    rank: int = 16
    alpha: float = 32.0
    targets: list[str] = field(default_factory=lambda: list(TARGETS))
    dropout: float = 0.0
    weights: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"lora.rank is invalid: {self.rank!r:.40}; give a whole number of at least 1, such as 16")
        for name, value, fits in (
            ("alpha", self.alpha, self.alpha > 0),
            ("dropout", self.dropout, 0 <= self.dropout < 1),
        ):
            if not (fits and math.isfinite(value)):
                wanted = "a number above 0, such as twice the rank" if name == "alpha" else "a share from 0 to below 1"
                raise ValueError(f"lora.{name} is invalid: {value}; give {wanted}")
        if not self.targets:
            raise ValueError(f"lora.targets is invalid: it is empty; choose from {', '.join(TARGETS)}")
        for target in self.targets:
            if target not in TARGETS:
                raise ValueError(
                    f"lora.targets is invalid: {target!r:.40}{did_you_mean(str(target), TARGETS)}; "
                    f"choose from {', '.join(TARGETS)}"
                )
        self.targets = [name for name in TARGETS if name in self.targets]  # in a fixed order, without duplicates

    @property
    def scale(self) -> float:
        """The factor of the adapter's product, ``alpha / rank``."""
        return self.alpha / self.rank

    def differences(self, other: LoRAConfig) -> str:
        """Differing settings that affect the weights, in words: ``rank 8 there, 16 here``."""
        names = [name for name in ("rank", "alpha", "targets") if getattr(self, name) != getattr(other, name)]
        return ", ".join(
            f"{name} {_told(getattr(other, name))} there, {_told(getattr(self, name))} here" for name in names
        )


def _told(value: object) -> str:
    return "+".join(value) if isinstance(value, list) else str(value)
