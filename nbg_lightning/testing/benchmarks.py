"""Utilities for tests of evaluation: a tokenizer of some fifty characters, and an engine with scripted answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from nbg_lightning.data.tokenizer import Tokenizer
from nbg_lightning.engines.protocol import Completion, Prompt, Sampling

CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789 \n+-*/=:?.,()'"


def character_tokenizer(folder: str | Path, bos: bool = True) -> Tokenizer:
    """A tokenizer of 54 ids, one per character, written to a folder; capital letters are lowercased."""
    from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers import Tokenizer as Backend

    names = ["<unk>", "<s>", "</s>", *CHARACTERS]
    backend = Backend(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
        **({"bos_token": "<s>"} if bos else {}),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return Tokenizer(folder)


def write_rows(file: str | Path, rows: Iterable[dict[str, Any]]) -> str:
    """Write a JSON-lines file; returns its path."""
    Path(file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


class AnsweringEngine:
    """Returns the texts that a function gives for each prompt, without a model.

    Args:
        answer: maps prompt and sample index to a text or a `Completion`; its exceptions are raised by the engine.
    """

    weight_version = 0

    def __init__(self, answer: Callable[[Prompt, int], str | Completion]):
        self.answer = answer
        self.calls: list[tuple[list[Prompt], Sampling]] = []

    def __enter__(self) -> AnsweringEngine:
        return self

    def __exit__(self, *_: object) -> None: ...

    def sync(self, weights: Any, version: int) -> None: ...

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, deadline: float | None = None
    ) -> list[list[Completion]]:
        self.calls.append((list(prompts), sampling))
        return [
            [self._completion(self.answer(prompt, sample), index, sample) for sample in range(sampling.n)]
            for index, prompt in enumerate(prompts)
        ]

    @staticmethod
    def _completion(answer: str | Completion, index: int, sample: int) -> Completion:
        if isinstance(answer, Completion):
            return answer
        return Completion((1,) * len(answer), (), "stop", index, sample, 0, text=answer)
