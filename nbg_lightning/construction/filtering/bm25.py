"""BM25 (Robertson and Zaragoza 2009) on hashed words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from nbg_lightning.construction.filtering.embedding import count_matrix

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_K1, _B = 1.5, 0.75  # the usual values


@dataclass(frozen=True)
class WordStatistics:
    """Word statistics of a corpus.

    Attributes:
        documents: number of documents.
        words: number of words.
        present: int64[2^bits], number of documents with a word of each column.
    """

    documents: int
    words: int
    present: np.ndarray

    @cached_property
    def idf(self) -> np.ndarray:
        """float32[2^bits]: ``log(1 + (N - n + 1/2) / (n + 1/2))``, Lucene's, which is never negative."""
        rest = (self.documents - self.present + 0.5) / (self.present + 0.5)
        return np.log1p(rest).astype(np.float32)


def bm25(counts: csr_matrix, queries: csr_matrix, statistics: WordStatistics) -> np.ndarray:
    """BM25 scores: ``sum_t idf_t tf (k1 + 1) / (tf + k1 (1 - b + b length / mean length))`` over the words t of a query.

    Args:
        counts: [documents, columns].
        queries: [queries, columns], 1 for the words of a query.
        statistics: word statistics of the corpus.

    Returns:
        float32[documents, queries].
    """
    lengths = np.asarray(counts.sum(1)).ravel()
    norm = _K1 * (1 - _B + _B * lengths / max(1e-9, statistics.words / max(1, statistics.documents)))
    weighted = counts.copy()
    per_value = np.repeat(norm, np.diff(counts.indptr))
    weighted.data = (counts.data * (_K1 + 1) / (counts.data + per_value)).astype(np.float32)
    return np.asarray((weighted @ (queries.multiply(statistics.idf)).tocsr().T).todense(), np.float32)


def query_matrix(texts: Sequence[str], statistics: WordStatistics, bits: int, terms: int) -> csr_matrix:
    """Select query words: 1 for the `terms` words of each text with the highest ``(1 + log tf) idf``.

    Words that do not occur in the corpus are ignored.
    """
    queries = count_matrix(texts, bits)
    idf = statistics.idf
    for row in range(queries.shape[0]):
        part = slice(queries.indptr[row], queries.indptr[row + 1])
        columns = queries.indices[part]
        weight = (1 + np.log(queries.data[part])) * idf[columns] * (statistics.present[columns] > 0)
        kept = np.zeros(len(weight), np.float32)
        kept[np.lexsort((columns, -weight))[:terms]] = 1
        queries.data[part] = kept * (weight > 0)
    queries.eliminate_zeros()
    return queries
