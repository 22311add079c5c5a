"""Continuations by the model, to read during training."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import lightning.pytorch as pl
from rich.console import Console
from rich.text import Text
from typing_extensions import override

from nbg_lightning.contracts import datamodule_of
from nbg_lightning.engines.native import NativeEngine
from nbg_lightning.engines.protocol import Prompt, Sampling
from nbg_lightning.loggers.tables import log_text, shows_tables
from nbg_lightning.printable import printable

if TYPE_CHECKING:
    from nbg_lightning.core.model import LanguageModel


class SampleText(pl.Callback):
    """Continues a few prompts after each validation, for every logger that supports text, and on the terminal when training
    ends.

    The engine does not use torch's global generator: training is the same with and without it.

    Args:
        prompts: beginnings of texts.
        num_tokens: length of each continuation.
        temperature: sampling temperature; 0 is greedy.
    """

    def __init__(self, prompts: list[str], num_tokens: int = 48, temperature: float = 0.7):
        if not prompts or num_tokens < 1 or temperature < 0:
            raise ValueError(
                f"SampleText is invalid: prompts={prompts!r:.40}, num_tokens={num_tokens}, temperature={temperature}; "
                "give prompts, "
                "num_tokens of at least 1, and a temperature of at least 0"
            )
        self.prompts, self.num_tokens, self.temperature = prompts, num_tokens, temperature

    def _write(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> list[tuple[str, str]]:
        tokenizer = datamodule_of(trainer).tokenizer
        begin = () if tokenizer.bos_id is None else (tokenizer.bos_id,)
        end = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
        sampling = Sampling(max_new_tokens=self.num_tokens, temperature=self.temperature, stop_ids=end)
        prompts = [Prompt((*begin, *tokenizer.encode(prompt))) for prompt in self.prompts]
        with NativeEngine(cast("LanguageModel", pl_module.model)) as engine:
            completions = [first for first, *_ in engine.generate(prompts, sampling)]
        texts = [
            f"[{completion.error}]" if completion.error else tokenizer.decode(completion.ids, skip_special_tokens=True)
            for completion in completions
        ]
        return list(zip(self.prompts, texts, strict=True))

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or not shows_tables(trainer.loggers):
            return  # the same on all ranks: sampling is collective
        texts = self._write(trainer, pl_module)
        if trainer.is_global_zero:
            log_text(trainer.loggers, "samples", texts, trainer.global_step)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        texts = self._write(trainer, pl_module)
        if trainer.is_global_zero:
            console = Console()
            for prompt, text in texts:
                console.print(Text.assemble((printable(prompt), "bold"), printable(text)), end="\n\n")
