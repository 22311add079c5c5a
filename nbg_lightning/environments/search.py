"""Search in the user's own texts: research tasks that stay on the machine."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from nbg_lightning.environments.environment import EpisodeLimits
from nbg_lightning.environments.passages import PassageIndex, read_documents
from nbg_lightning.environments.tools import ToolEnvironment

_LONGEST = 600  # characters of a passage in a list of results


class SearchEnvironment(ToolEnvironment):
    """The model may search and read the texts of a folder; a turn without a call is its answer, scored by the reward.

    Results are passages, best first by BM25 (`PassageIndex`), with their document and line. With ``vectors``, passages that
    share no word with the query are found too, by the contexts of their words in the folder (`PassageVectors`), and the two
    rankings are fused. The index is built once and shared by all episodes.

    Args:
        folder: folder with ``.md``, ``.txt`` or ``.rst`` files at any depth; links out of it are not followed.
        results: number of passages per search.
        instruction: text of a system turn, for questions without one.
        show_tools: whether the prompt includes the tools' schemas.
        limits: limits of the episodes.
        vectors: also rank by vector similarity.

    Raises:
        FileNotFoundError: there is no such folder, or no text in it.
        ValueError: ``results`` below 1.
    """

    def __init__(
        self,
        folder: str,
        results: int = 5,
        instruction: str | None = None,
        show_tools: bool = True,
        limits: EpisodeLimits = EpisodeLimits(),  # noqa: B008 - never mutated
        vectors: bool = False,
    ):
        if results < 1:
            raise ValueError(f"results is invalid: {results}; give at least 1")
        self.folder, self.results, self.vectors = folder, results, vectors
        index_of(folder, vectors)
        super().__init__([self.search, self.read], instruction, show_tools, limits)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        index_of(self.folder, self.vectors)  # once, in the process that episodes are forked from

    def search(self, query: str) -> str:
        """Search the documents for passages with the words of a query.

        Args:
            query: words.
        """
        found = index_of(self.folder, self.vectors).best(query, self.results)
        shown = [f"{each.document}, line {each.first}:\n{_cut(each.text)}" for each in found]
        return "\n\n".join(shown) or "(nothing found)"

    def read(self, document: str, first: int = 1, lines: int = 40) -> str:
        """Read lines of a document.

        Args:
            document: as a search names it.
            first: number of the first line.
            lines: how many.
        """
        documents = index_of(self.folder, self.vectors).documents
        if document not in documents:
            raise ValueError(f"there is no document {document!r:.200}; search for those that there are")
        begin = max(1, first)
        return "\n".join(documents[document][begin - 1 : begin - 1 + max(1, lines)]) or "(no such lines)"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


@functools.cache
def index_of(folder: str, vectors: bool = False) -> PassageIndex:
    """The index of a folder, built once per process."""
    return PassageIndex(read_documents(folder), vectors)
