"""What the model writes, to read while it learns."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.text import Text
from torch import Tensor
from typing_extensions import override

from nbg_lightning.core.sharding import reshard


@torch.no_grad()
def continue_text(
    model: torch.nn.Module, prompt: Tensor, num_tokens: int, temperature: float, seed: int, eos_id: int | None = None
) -> list[int]:
    """Sample a continuation of ``prompt`` (ids ``[L]``) token by token, each from a forward over the whole text.

    It has ``num_tokens`` ids, or fewer where the model says ``eos_id``, which is left out.

    Every rank of a sharded model must call this together; all get the same text. For a few short samples: it keeps no
    key-value cache.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens = prompt[None]
    for _ in range(num_tokens):
        last = model(tokens, head=lambda hidden, weight: hidden[:, -1] @ weight.t()).float().cpu()
        if temperature == 0:
            token = last.argmax(dim=-1, keepdim=True)
        else:
            token = torch.multinomial((last / temperature).softmax(dim=-1), 1, generator=generator)
        if token.item() == eos_id:
            break
        tokens = torch.cat((tokens, token.to(tokens.device)), dim=1)
    return tokens[0, len(prompt) :].tolist()


class SampleText(pl.Callback):
    """Continues a few prompts after each validation, into TensorBoard, and on the terminal when training ends.

    Draws from a generator of its own: training is the same with and without it.

    Args:
        prompts: beginnings of texts.
        num_tokens: length of a continuation.
        temperature: 0 is greedy.
    """

    def __init__(self, prompts: list[str], num_tokens: int = 48, temperature: float = 0.7):
        if not prompts or num_tokens < 1 or temperature < 0:
            raise ValueError("SampleText needs a prompt, num_tokens of at least 1, and a temperature of at least 0")
        self.prompts, self.num_tokens, self.temperature = prompts, num_tokens, temperature

    def _write(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> list[tuple[str, str]]:
        tokenizer = trainer.datamodule.tokenizer
        training = pl_module.training
        pl_module.eval()
        texts = []
        for index, prompt in enumerate(self.prompts):
            ids = torch.tensor(
                [b for b in [tokenizer.bos_id] if b is not None] + tokenizer.encode(prompt), device=pl_module.device
            )
            new = continue_text(pl_module.model, ids, self.num_tokens, self.temperature, index, tokenizer.eos_id)
            texts.append((prompt, tokenizer.decode(new, skip_special_tokens=True)))
        reshard(pl_module.model)
        pl_module.train(training)
        return texts

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if trainer.sanity_checking or not boards:
            return  # on all ranks alike: the samples are written together
        texts = self._write(trainer, pl_module)
        if trainer.is_global_zero:
            body = "\n\n".join(f"**{prompt}**{text}" for prompt, text in texts)
            for board in boards:
                board.experiment.add_text("samples", body, trainer.global_step)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        texts = self._write(trainer, pl_module)
        if trainer.is_global_zero:
            console = Console()
            for prompt, text in texts:
                console.print(Text.assemble((prompt, "bold"), text), end="\n\n")
