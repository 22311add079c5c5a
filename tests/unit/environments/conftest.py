"""A small model, its tokenizer, and an engine with scripted turns and the model's log-probs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from nbg_lightning.core.create import create_model
from nbg_lightning.data.tokenizer import Tokenizer
from nbg_lightning.engines.protocol import Completion, Prompt, Sampling
from nbg_lightning.testing.grpo import GRPO_SHAPE, small_tokenizer

STOP = "<|im_end|>"
sys.path.insert(0, str(Path(__file__).parent))  # for `shop`


class ScriptedEngine:
    """Writes what a script says to each prompt's text; its log-probs are those of a model, a sequence at a time."""

    def __init__(self, model, tokenizer: Tokenizer, script: Callable[[str], str]):
        self.model, self.tokenizer, self.script = model, tokenizer, script
        self.rounds: list[int] = []

    def __call__(self, prompts: Sequence[Prompt], sampling: Sampling, seconds: float) -> list[list[Completion]]:
        self.rounds.append(len(prompts))
        return [[self._completion(n, prompt, sampling)] for n, prompt in enumerate(prompts)]

    def _completion(self, number: int, prompt: Prompt, sampling: Sampling) -> Completion:
        text = self.script(self.tokenizer.decode(prompt.ids))
        ids = (*self.tokenizer.encode(text), self.tokenizer.transformers.convert_tokens_to_ids(STOP))
        reason = "stop" if len(ids) <= sampling.max_new_tokens else "length"
        ids = ids[: sampling.max_new_tokens]
        with torch.no_grad():
            logits = self.model(torch.tensor([[*prompt.ids, *ids[:-1]]]))[0][len(prompt.ids) - 1 :]
        log_probs = (logits / sampling.temperature).log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
        return Completion(ids, tuple(log_probs.tolist()), reason, number, 0, 0)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Tokenizer:
    return Tokenizer(small_tokenizer(tmp_path_factory.mktemp("environments")))


@pytest.fixture(scope="session")
def model():
    import dataclasses

    made = create_model(dataclasses.replace(GRPO_SHAPE, max_position_embeddings=4096), seed=1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2.0)  # so that log-probs differ from token to token
    return made


@pytest.fixture(scope="session")
def scripted(model, tokenizer):
    return lambda script: ScriptedEngine(model, tokenizer, script)


@pytest.fixture(scope="session")
def scripted_engine():
    """`ScriptedEngine`, of any model."""
    return ScriptedEngine
