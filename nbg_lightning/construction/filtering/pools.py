"""Sizes of the high-quality and medium-quality pools (HQ, MQ), and the settings of their selection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nbg_lightning.schedule.tokens import parse_tokens

POOLS = ("hq", "mq")  # folder names, and names in YAML and reports: high quality, then medium quality


@dataclass(frozen=True)
class PoolSize:
    """Size of a pool, taken from the top of the ranking; give exactly one of these.

    Args:
        threshold: minimum score.
        tokens: number of tokens ("3B", 12_000), reached with the last document.
        share: share of the tokens of all documents that are not excluded, 0 to 1.

    Raises:
        ValueError: none or several are given, or the value is invalid.
    """

    threshold: float | None = None
    tokens: int | str | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.threshold, self.tokens, self.share)) != 1:
            raise ValueError(
                f"pool is invalid: {self.to_dict() or 'no size'}; give exactly one of threshold, tokens and share"
            )
        if self.share is not None and not 0 <= self.share <= 1:
            raise ValueError(f"share is invalid: {self.share}; give 0 to 1")
        if self.tokens is not None:
            parse_tokens(self.tokens)

    def cut(self, scores: np.ndarray, tokens: np.ndarray, begin: int, total: int) -> int:
        """Index in the ranking at which the pool ends (exclusive).

        Args:
            scores: scores of the documents in order, descending.
            tokens: tokens of the documents.
            begin: index at which the pool begins.
            total: total number of tokens.
        """
        if self.threshold is not None:
            return max(begin, int(np.searchsorted(-scores, -self.threshold, side="right")))
        wanted = parse_tokens(self.tokens) if self.tokens is not None else round((self.share or 0.0) * total)
        if wanted == 0:
            return begin
        return min(len(scores), begin + 1 + int(np.searchsorted(np.cumsum(tokens[begin:]), wanted)))

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON."""
        return {name: value for name, value in self.__dict__.items() if value is not None}


@dataclass(frozen=True)
class SelectionSettings:
    """Settings of a selection.

    Attributes:
        score: weights by column; by default 1 for ``quality``, and 2 for ``recall`` if it is given.
        exclude: patterns of rules; a document that fails one of them is in no pool. The default is rules on repetition that hold
            for texts of any kind and length, since source code and long manuals naturally repeat 5-grams.
        limits: [minimum, maximum] by column, None for no limit; a document outside is in no pool.
        high_quality: size of HQ.
        medium_quality: size of MQ, which follows HQ.
        tokens_per_step: tokens per step of the stages in the YAML fragment.
        sequence_length: sequence length of these stages.
        seed: seed of the order of equal documents and of the samples in the report.
    """

    score: dict[str, float] | None = None
    exclude: tuple[str, ...] = ("repetition/lines", "repetition/paragraphs", "repetition/top_*")
    limits: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    high_quality: PoolSize = field(default_factory=lambda: PoolSize(share=0.3))
    medium_quality: PoolSize = field(default_factory=lambda: PoolSize(share=0.4))
    tokens_per_step: int = 8192
    sequence_length: int = 256
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON."""
        own = {**self.__dict__, "hq": self.high_quality.to_dict(), "mq": self.medium_quality.to_dict()}
        del own["high_quality"], own["medium_quality"]
        return {**own, "exclude": list(self.exclude)}
