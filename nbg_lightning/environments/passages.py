"""Passage retrieval from a folder of texts by BM25 (Robertson and Zaragoza 2009)."""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nbg_lightning.environments.passage_vectors import PassageVectors, fused

PATTERNS = ("*.md", "*.txt", "*.rst")
MAX_FILE = 10_000_000
"""Bytes of a file that is read."""
_K1, _B = 1.5, 0.75  # the usual ones
_WORD = re.compile(r"\w+")
_PASSAGE_WORDS = 120  # a paragraph or two
_FUSED = 5  # times as many places of each ranking as are asked for are fused


@dataclass(frozen=True)
class Passage:
    """A part of a document.

    Attributes:
        document: path of its file in the folder.
        first: number of its first line.
        text: its lines.
    """

    document: str
    first: int
    text: str


class PassageIndex:
    """Ranks passages for a query by BM25.

    The score is ``sum_t idf_t tf (k1 + 1) / (tf + k1 (1 - b + b length / mean length))`` over the words t of the query, with
    Lucene's ``idf = log(1 + (N - n + 1/2) / (n + 1/2))``.

    With vectors, that ranking is fused with the one of `PassageVectors`.

    Args:
        documents: texts by name.
        vectors: also rank by vector similarity.

    Example:
        >>> index = PassageIndex({"a": "the cat sleeps", "b": "the dog barks"})
        >>> [passage.document for passage in index.best("a barking dog barks", 1)]
        ['b']
    """

    def __init__(self, documents: Mapping[str, str], vectors: bool = False):
        self.documents = {name: text.splitlines() for name, text in documents.items()}
        self.passages = [passage for name, lines in self.documents.items() for passage in _passages(name, lines)]
        self._places: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._lengths = []
        for place, passage in enumerate(self.passages):
            counts = Counter(words(passage.text))
            self._lengths.append(counts.total())
            for word, number in counts.items():
                self._places[word].append((place, number))
        self._vectors = PassageVectors([words(each.text) for each in self.passages]) if vectors else None
        self._mean = sum(self._lengths) / max(1, len(self._lengths)) or 1.0

    def best(self, query: str, number: int) -> list[Passage]:
        """The passages with the highest scores, best first; without vectors, only those that share a word with the query."""
        found = self._by_words(query, number if self._vectors is None else _FUSED * number)
        if self._vectors is not None:
            found = fused([found, self._vectors.best(words(query), _FUSED * number)], number)
        return [self.passages[place] for place in found]

    def _by_words(self, query: str, number: int) -> list[int]:
        """Places of passages, best first by BM25."""
        scores: dict[int, float] = defaultdict(float)
        for word in set(words(query)):
            found = self._places.get(word, [])
            idf = math.log1p((len(self.passages) - len(found) + 0.5) / (len(found) + 0.5))
            for place, count in found:
                norm = _K1 * (1 - _B + _B * self._lengths[place] / self._mean)
                scores[place] += idf * count * (_K1 + 1) / (count + norm)
        best = heapq.nsmallest(number, scores.items(), key=lambda each: (-each[1], each[0]))
        return [place for place, _ in best]


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return _WORD.findall(text.lower())


def read_documents(folder: str | Path) -> dict[str, str]:
    """The texts of a folder by relative path, sorted; bytes that are not UTF-8 are replaced.

    Raises:
        FileNotFoundError: there is no such folder, or no text in it.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"folder is invalid: {folder} is no folder; give one with texts")
    files = sorted({file for pattern in PATTERNS for file in root.rglob(pattern) if file.is_file()})
    kept = [file for file in files if file.resolve().is_relative_to(root.resolve()) and file.stat().st_size <= MAX_FILE]
    if not kept:
        raise FileNotFoundError(f"folder is invalid: {folder} has no {', '.join(PATTERNS)}; give one with texts")
    return {file.relative_to(root).as_posix(): file.read_text("utf-8", "replace") for file in kept}


def _passages(name: str, lines: list[str]) -> Iterator[Passage]:
    """Split lines into passages of a maximum number of words, preferably at empty lines."""
    begin = count = 0
    for place, line in enumerate(lines):
        count += len(line.split())
        long_enough = count >= _PASSAGE_WORDS or (count >= _PASSAGE_WORDS // 2 and not line.strip())
        if long_enough or place == len(lines) - 1:
            text = "\n".join(lines[begin : place + 1]).strip()
            if text:
                yield Passage(name, begin + 1, text)
            begin, count = place + 1, 0
