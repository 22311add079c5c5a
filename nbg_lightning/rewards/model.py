"""Scores of a reward model that runs in this process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from typing_extensions import override

from nbg_lightning.chat.conversation import Conversation, ConversationError
from nbg_lightning.core.checkpoint_folder import checkpoint_at
from nbg_lightning.core.prefixes import SHORTEST_SHARED, pack_sequences, rows_that_fit
from nbg_lightning.data.tokenizer import load_tokenizer
from nbg_lightning.engines.chat import Answer, ChatFormat, Template
from nbg_lightning.error_line import first_line
from nbg_lightning.rewards.protocol import Group, Reward, RewardResult
from nbg_lightning.scoring.result import failure, unreadable

if TYPE_CHECKING:
    from nbg_lightning.core.model import LanguageModel

_NO_END = "the answer has no end"


class ModelReward(Reward):
    """The score of a reward model: one trained by `RewardModule`, or an ``AutoModelForSequenceClassification`` folder with
    one label.

    A conversation with its answer is rendered in the reward model's chat format and scored at the end of the answer's turn,
    as in training. Answers of a group share their prompt. Each rank holds a whole model. A truncated answer, or one whose
    reasoning has no end, scores 0 as ``probability`` and has no score as ``raw``; an answer too long for the window has
    none.

    Args:
        weights: a checkpoint or run folder of `RewardModule`, a Hugging Face folder, or a name on the hub.
        tokenizer: the reward model's tokenizer; by default that of ``weights``.
        template: its chat format.
        scale: ``probability`` is ``sigmoid(r)``, from 0 to 1; ``raw`` is r itself.
        reasoning: whether the reward model sees the reasoning before an answer; must match the pairs that it was trained
            on.
        micro_batch_tokens: maximum tokens per forward pass (a longer answer has its own).
        device: device of the model; CUDA if available, by default.
        dtype: dtype of weights and matrix products.
        name: name in metrics.

    Raises:
        FileNotFoundError, ValueError: weights that cannot be read or are not a reward model, or an invalid setting.
    """

    def __init__(
        self,
        weights: str,
        tokenizer: str | None = None,
        template: Template = "auto",
        scale: Literal["probability", "raw"] = "probability",
        reasoning: bool = False,
        micro_batch_tokens: int = 8192,
        device: str | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
        name: str = "model",
    ):
        from nbg_lightning.core.weights import read_shape

        if scale not in ("probability", "raw"):
            raise ValueError(f"scale is invalid: {scale!r}; choose probability or raw")
        if micro_batch_tokens < 1:
            raise ValueError(f"micro_batch_tokens is invalid: {micro_batch_tokens}; give at least 1")
        self.weights = checkpoint_at(weights)
        self.shape = read_shape(self.weights, may_score=True)
        if not self.shape.score_head:
            raise ValueError(
                f"weights is invalid: {weights} names tokens and gives no score; train a reward model from it with RewardModule"
            )
        self.tokenizer, self.template, self.scale, self.reasoning = tokenizer, template, scale, reasoning
        self.micro_batch_tokens, self.device, self.dtype, self.name = micro_batch_tokens, device, dtype, name
        self._format: ChatFormat | None = None
        self._model: LanguageModel | None = None

    def __enter__(self) -> ModelReward:
        import torch

        from nbg_lightning.core.create import create_model
        from nbg_lightning.core.weights import load_base_weights

        self._format = ChatFormat(load_tokenizer(self.tokenizer or self.weights), self.template)
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        model = create_model(self.shape, device=device, draw=False).eval().requires_grad_(False)
        load_base_weights(model, self.weights)
        for parameter in model.parameters():  # not `model.to`: the tables of the rotary embedding stay float32
            parameter.data = parameter.data.to(getattr(torch, self.dtype))
        self._model = model
        return self

    def __exit__(self, *_: object) -> None:
        self._model = self._format = None

    @override
    def score(self, groups: Sequence[Group]) -> list[list[RewardResult]]:
        results: list[list[RewardResult]] = []
        places: list[tuple[int, int]] = []
        sequences: list[np.ndarray] = []
        for row, group in enumerate(groups):
            results.append([])
            for column, answer in enumerate(group.answers):
                found = self._ids(group, answer)
                if isinstance(found, np.ndarray):
                    places.append((row, column))
                    sequences.append(found)
                    found = failure("not scored")
                results[row].append(found)
        for (row, column), score in zip(places, self.scores(sequences), strict=True):
            results[row][column] = self._result(score)
        return results

    def _result(self, score: float) -> RewardResult:
        if not math.isfinite(score):
            return failure(f"the reward model gives {score}")
        return RewardResult(_sigmoid(score) if self.scale == "probability" else score, detail=f"score {score:.4g}")

    def _ids(self, group: Group, answer: Answer) -> np.ndarray | RewardResult:
        """The ids of the conversation up to the end of the answer's turn, or the reason why it has no score."""
        if answer.final is None or answer.completion.finish_reason == "length":
            return unreadable(_NO_END) if self.scale == "probability" else failure(_NO_END)
        if self._format is None or self._format.renderer is None:
            raise RuntimeError("ModelReward is not open; use it in a with block")
        said = {"role": "assistant", "content": answer.final}
        if self.reasoning and answer.reasoning:
            said["reasoning_content"] = answer.reasoning
        try:
            turns: list[Any] = [*group.question.messages, said]  # Conversation parses them
            rendered = self._format.renderer.render(Conversation(turns))
        except (ConversationError, ValueError) as error:
            return unreadable(f"the answer cannot be rendered: {first_line(error)}")
        end = int(np.flatnonzero(np.array(rendered.loss_weights) > 0)[-1]) + 1
        if end > self.shape.max_position_embeddings:
            return failure(
                f"the conversation has {end:,} tokens, and the window of the reward model is "
                f"{self.shape.max_position_embeddings:,}"
            )
        return np.array(rendered.ids[:end], np.int64)

    def scores(self, sequences: Sequence[np.ndarray]) -> list[float]:
        """The score of each sequence of ids, taken at its last position.

        Raises:
            ValueError: ids beyond the model's vocabulary.
        """
        import torch

        from nbg_lightning.data.scored_batch import read_scores

        if self._model is None:
            raise RuntimeError("ModelReward is not open; use it in a with block")
        largest = max((int(ids.max()) for ids in sequences), default=0)
        if largest >= self.shape.vocab_size:
            raise ValueError(
                f"tokenizer is invalid: it gives the id {largest}, and {self.weights} has {self.shape.vocab_size:,}; give the "
                "tokenizer of the reward model"
            )
        found = [0.0] * len(sequences)
        device = next(self._model.parameters()).device
        for row in rows_that_fit(sequences, self.micro_batch_tokens, SHORTEST_SHARED):
            packed = pack_sequences([sequences[index] for index in row], SHORTEST_SHARED)
            ends = torch.tensor([int(places[-1]) for places in packed.places], device=device)
            with torch.inference_mode():
                scores = self._model(*packed.input.to(device), lambda h, w, ends=ends: read_scores(h, w, ends))
            for index, score in zip(row, scores.tolist(), strict=True):
                found[index] = score
        return found


def _sigmoid(score: float) -> float:
    """``1 / (1 + exp(-score))`` without overflow."""
    return 1 / (1 + math.exp(-score)) if score >= 0 else math.exp(score) / (1 + math.exp(score))
