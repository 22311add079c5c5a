"""`nbg build-answers`: a model's best correct answers to each question, as conversations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nbg_lightning.construction.pairs.rejection import RejectionSampler
from nbg_lightning.construction.provenance import describe
from nbg_lightning.construction.store import JsonRecord
from nbg_lightning.rewards.protocol import Reward


@dataclass(kw_only=True)
class AnswerBuilder(RejectionSampler):
    """Build conversations from the best correct answers to each question (rejection sampling, RFT).

    Args:
        reward: scores the answers.
    """

    name: ClassVar[str] = "build-answers"
    record_format: ClassVar[str] = "nbg_lightning answers 1"

    reward: Reward

    def scorer(self) -> Reward:
        return self.reward

    def scorer_identity(self) -> JsonRecord:
        found: JsonRecord = describe(self.reward)
        return found
