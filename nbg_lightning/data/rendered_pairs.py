"""Pairs on disk: the layout of `conversations`, where a document is a pair, the chosen ids followed by the rejected ones.

The byte of each id gives its side and whether it is trained, in place of a conversation's loss weight.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from nbg_lightning.chat.formats import AUTO
from nbg_lightning.chat.renderer import RenderCounts, Renderer
from nbg_lightning.data.chat_sources import ChatPart, as_json
from nbg_lightning.data.conversations import Document, RenderedSource, RenderingEncoder, counted
from nbg_lightning.data.pairs import PreferencePair, RenderedPair, render_pairs
from nbg_lightning.data.reading import Notes, add_notes

FORMAT = "nbg_lightning pairs 1"
BATCH_PAIRS = 128
TRAINED, REJECTED = 1, 2  # bits of the code


class RenderedPairs(RenderedSource):
    """One prepared (pair source, split), read through memory maps; a document is a pair.

    Raises:
        As `TokenizedSource`.
    """

    format = FORMAT

    def pair(self, index: int) -> RenderedPair:
        """Ids and loss masks of a pair.

        Raises:
            IndexError: there is no pair with that index.
        """
        ids, codes = self.document(index)
        whose = codes.astype(np.int64)
        middle = int(np.searchsorted(whose >= REJECTED, True))
        mask = whose % 2 == TRAINED
        return RenderedPair(ids[:middle], mask[:middle], ids[middle:], mask[middle:])

    def lengths(self) -> np.ndarray:
        """One more than the positions of every pair, as for conversations: each of its sequences has a last id."""
        return super().lengths() - 1


class PairEncoder(RenderingEncoder):
    """Renders the rows of pair sources.

    Pairs with the same prompt are all in the same split.

    Args:
        renderer: the renderer with its options; sent to the workers.
        longest_pair: maximum positions of a pair.
        vocab_size: vocabulary size of the tokenizer.
        tokenizer_fingerprint: fingerprint of the tokenizer.
        settings: all settings of the renderer that affect ids and masks, JSON-able.
        row_format: format of the rows (see `PreferencePair.from_dict`).
        ignored_keys: message keys to ignore.
    """

    reader = RenderedPairs
    batch_documents = BATCH_PAIRS

    def __init__(
        self,
        renderer: Renderer,
        longest_pair: int,
        vocab_size: int,
        tokenizer_fingerprint: str,
        settings: dict[str, Any],
        row_format: str = AUTO,
        ignored_keys: Collection[str] = (),
    ) -> None:
        self.renderer, self.longest_pair = renderer, longest_pair
        self.vocab_size, self.tokenizer_fingerprint = vocab_size, tokenizer_fingerprint
        self.settings = settings
        self.row_format, self.ignored_keys = row_format, tuple(ignored_keys)

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "longest_pair": self.longest_pair}

    def documents(self, part: ChatPart, counts: RenderCounts, notes: Notes, size: list[int]) -> Iterator[Document]:
        def read(row: Any) -> PreferencePair:
            pair = PreferencePair.from_dict(row, self.row_format, self.ignored_keys)
            add_notes(notes, pair.notes)
            return pair

        rows = counted(part.rows(), size, lambda row: len(as_json(row)))
        for pair, rendered in render_pairs(self.used_renderer, rows, counts, self.longest_pair, part.place, read):
            ids = [*rendered.chosen_ids.tolist(), *rendered.rejected_ids.tolist()]
            codes = np.concatenate((rendered.chosen_mask * TRAINED, rendered.rejected_mask * TRAINED + REJECTED))
            yield Document(pair.prompt_key, ids, size[0], codes.astype(float).tolist())
            size[0] = 0

    def remark(self, summary: dict[str, Any], empty: bool) -> str:
        counts = RenderCounts(**summary["counts"])
        if not empty:
            return ""  # the datamodule reports it at every start of a run
        first = "".join(f"; the first: {error}" for error in (*counts.errors, *counts.dropped_long)[:1])
        return f"no pair to train on: {counts.seen} read, {counts.too_long} too long, {counts.invalid} invalid{first}"
