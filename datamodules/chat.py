"""Conversations for supervised fine-tuning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

from nbg_lightning.chat import Renderer
from nbg_lightning.data.chat_sources import ChatSource
from nbg_lightning.data.conversations import ConversationEncoder, Packing, RenderingEncoder
from nbg_lightning.data.kind import DataKind
from nbg_lightning.data.tokenizer import TokenizerConfig
from nbg_lightning.datamodules.rendered import RenderedDataModule, RenderingKeywords
from nbg_lightning.keywords import Keywords


class ChatDataModule(RenderedDataModule):
    """Renders conversations to token ids and loss weights, packs them into windows, and serves them in a fixed order.

    Everything is prepared once and cached under ``data_dir``: by parallel workers, in bounded memory, safe to interrupt.
    The hash of a conversation's ids decides whether it belongs to the validation split. Order, epochs and weights work as
    in `RenderedDataModule`.

    Args:
        sources: name to source of conversations; the name is the domain in metrics.
        tokenizer: folder or hub name of the tokenizer, a checkpoint or run folder (which record the tokenizer of their
            run), or a `TokenizerConfig`; defaults to that of the module's ``base_weights``.
        sequence_length: positions per window; also the maximum length of a conversation.
        tokens_per_step: positions per optimizer step over all ranks, padding included.
        packing: ``best_fit`` packs conversations back to back. ``bucketed`` and ``padded`` pad the conversations of a
            window to the longest of them: ``bucketed`` groups conversations of similar length, ``padded`` keeps the order
            of the data.
        train_on: assistant turns with a loss: ``all``, ``last``, or ``last_query`` (those after the last user query).
        overflow: handling of longer conversations: ``drop``, ``truncate_left`` (removes the oldest rounds) or ``error``.
        rendering: as in `RenderedDataModule`: epochs or tokens, template, max_length, on_invalid, data_dir, seed and
            others.

    Raises:
        ValueError: an invalid source, tokenizer, template or size, with the fix.
    """

    kind: ClassVar[DataKind] = "conversations"
    stage_name: ClassVar[str] = "sft"

    def __init__(
        self,
        sources: dict[str, ChatSource],
        tokenizer: TokenizerConfig | str | None = None,
        sequence_length: int = 4096,
        tokens_per_step: int | str = 65_536,
        packing: Packing = "best_fit",
        train_on: Literal["all", "last", "last_query"] = "all",
        overflow: Literal["drop", "truncate_left", "error"] = "drop",
        **rendering: Keywords[RenderingKeywords],
    ):
        super().__init__(sources, tokenizer, sequence_length, tokens_per_step, **rendering)
        self.packing = packing
        self.options = replace(self.options, train_on=train_on, overflow=overflow)

    def encoder(self, name: str, renderer: Renderer, settings: dict[str, Any]) -> RenderingEncoder:
        source, tokenizer = self.sources[name], self.tokenizer
        return ConversationEncoder(
            name, renderer, tokenizer.vocab_size, tokenizer.fingerprint, settings, source.format, source.ignored_keys
        )
