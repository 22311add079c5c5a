"""Pairs on disk: the layout of `conversations`, where a document is a pair, the chosen ids followed by the rejected ones.

The byte of each id gives its side and whether it is trained, in place of a conversation's loss weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from nbg_lightning.chat.renderer import RenderCounts
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


@dataclass(eq=False)
class PairEncoder(RenderingEncoder):
    """Renders the rows of pair sources; see `RenderingEncoder` for the other arguments.

    Pairs with the same prompt are all in the same split.

    Args:
        longest_pair: maximum positions of a pair.
    """

    reader: ClassVar[type[RenderedSource]] = RenderedPairs
    batch_documents: ClassVar[int] = BATCH_PAIRS
    noun: ClassVar[str] = "pair"

    longest_pair: int = field(kw_only=True)

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
