"""Suggested commands after a run: prompt the model, chat with it, view rollouts, evaluate it, export it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl

from nbg_lightning.callbacks.sample_table import FILE as ROLLOUTS
from nbg_lightning.contracts import GivesExamplePrompts, HasChatTemplate, TrainsLanguageModel, datamodule_of

_LOOKED_AT = 100  # prompts of the data that are considered
_LONGEST = 300  # characters of a prompt that is short enough to type
PromptMessages = Sequence[Mapping[str, Any]]


def next_commands(trainer: pl.Trainer, checkpoint: str | Path) -> list[str]:
    """Suggested commands for the model that a run has saved.

    Args:
        trainer: the run's trainer; its datamodule provides example prompts.
        checkpoint: the newest checkpoint.
    """
    datamodule = datamodule_of(trainer)
    converses = isinstance(datamodule, HasChatTemplate) and datamodule.chat_template is not None
    folder = shlex.quote(str(checkpoint))
    root = Path(trainer.default_root_dir)
    name = root.name or "model"
    if cast(TrainsLanguageModel, trainer.lightning_module).shape.score_head:  # it writes nothing
        return [f"nbg export {folder} {shlex.quote(f'out/{name}')}"]
    prompt = None
    if isinstance(datamodule, GivesExamplePrompts):
        with suppress(OSError, ValueError, LookupError):  # missing data must not fail a finished run
            prompt = prompt_arguments(islice(datamodule.example_prompts(), _LOOKED_AT))
    if prompt is None and not converses:
        prompt = '"Once upon a time"'
    return [
        *([] if prompt is None else [f"nbg generate {folder} {prompt}"]),
        *([f"nbg chat {folder}"] if converses else []),
        *([f"nbg view {shlex.quote(str(root))}"] if (root / ROLLOUTS).exists() else []),
        f"nbg test --config configs/benchmark/small.yaml --model.base_weights {folder}",
        f"nbg export {folder} {shlex.quote(f'out/{name}')}",
    ]


def prompt_arguments(prompts: Iterable[PromptMessages]) -> str | None:
    """The arguments of `nbg generate` for the prompt that is easiest to type; None if none can be typed.

    Prompts without a system message are preferred, then single-line ones, then earlier ones.

    >>> prompt_arguments([[{"role": "user", "content": "What is 2 + 3?"}]])
    "'What is 2 + 3?'"
    """
    found = [each for each in map(_arguments, prompts) if each is not None]
    if not found:
        return None
    text, system = min(found, key=lambda each: (each[1] is not None, each[0].startswith("$")))
    return text if system is None else f"--system {system} {text}"


def _arguments(messages: PromptMessages) -> tuple[str, str | None] | None:
    """A prompt's user turn and system message as shell arguments; None if it has other turns, or is long or unprintable."""
    roles = [message.get("role") for message in messages]
    if roles not in (["user"], ["system", "user"]):
        return None
    texts = [_quoted(message.get("content")) for message in reversed(messages)]
    if texts[0] is None or texts[-1] is None:
        return None
    return texts[0], texts[1] if len(texts) > 1 else None


def _quoted(text: Any) -> str | None:
    """A text quoted for bash and zsh; None if it cannot be, such as one with a leading dash, which would be an option.

    >>> _quoted("2 + 3?"), _quoted("-1")
    ("'2 + 3?'", None)
    """
    if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST or text.startswith("-"):
        return None
    if not text.replace("\n", "").isprintable():
        return None
    if "\n" not in text:
        return shlex.quote(text)
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"$'{escaped}'"
