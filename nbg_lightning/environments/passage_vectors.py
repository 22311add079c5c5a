"""Passage retrieval by vector similarity: latent semantic analysis (Deerwester et al. 1990) of the folder itself."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

_DIM = 128
"""Leading singular vectors that are kept, and at most a quarter of the passages: with nearly all, only words count."""
_MIN_COSINE = 0.3  # below it passages have little to do with the query; as in the recall of documents
_FUSION_K = 60  # of reciprocal rank fusion (Cormack et al. 2009), as usual


class PassageVectors:
    """Finds passages whose words occur in contexts similar to the query's, even if they share no word with it.

    A passage is the vector ``log(1 + count) * idf`` of its words, of length 1, projected on the leading right singular
    vectors of all passages; the score is the cosine. No model is needed, but similarity is learned from the passages: use
    at least a few hundred.

    Args:
        texts: words of each passage.

    Example:
        >>> index = PassageVectors([["car", "motor"], ["motor", "engine"], ["cat", "fur"], ["fur", "dog"]])
        >>> sorted(index.best(["car"], 2))  # the second shares no word with the query
        [0, 1]
    """

    def __init__(self, texts: Sequence[Sequence[str]]):
        from scipy.sparse import csr_matrix
        from scipy.sparse.linalg import svds

        counts = [Counter(words) for words in texts]
        present = Counter(word for each in counts for word in each)
        self._columns = {word: column for column, word in enumerate(sorted(present))}
        self._idf = np.array([np.log((1 + len(texts)) / (1 + present[word])) + 1 for word in self._columns])
        rows = [self._weights(each) for each in counts]
        place = np.repeat(np.arange(len(rows)), [len(columns) for columns, _ in rows])
        columns = np.concatenate([columns for columns, _ in rows]) if rows else np.zeros(0, np.int64)
        values = np.concatenate([values for _, values in rows]) if rows else np.zeros(0)
        matrix = csr_matrix((values, (place, columns)), shape=(len(rows), len(self._columns)))
        dim = min(_DIM, max(2, len(rows) // 4), min(matrix.shape) - 1)
        if dim < 1:  # a passage or a word alone: nothing stands in company
            self._projection, self._vectors = np.zeros((len(self._columns), 1)), np.zeros((len(rows), 1))
            return
        self._projection = svds(matrix, k=dim, rng=np.random.default_rng(0))[2].T
        self._vectors = _unit(matrix @ self._projection)

    def best(self, query: Sequence[str], number: int) -> list[int]:
        """The indices of the passages with the highest cosine, best first; none if no passage contains a word of the query."""
        columns, values = self._weights(Counter(query))
        if not len(columns):
            return []
        cosines = self._vectors @ _unit(values[None] @ self._projection[columns])[0]
        order = np.argsort(-cosines, kind="stable")[:number]
        return [int(place) for place in order if cosines[place] > _MIN_COSINE]

    def _weights(self, counts: Counter[str]) -> tuple[np.ndarray, np.ndarray]:
        known = [(self._columns[word], number) for word, number in sorted(counts.items()) if word in self._columns]
        columns = np.array([column for column, _ in known], np.int64)
        values = np.log1p([number for _, number in known]) * self._idf[columns]
        return columns, values / (np.linalg.norm(values) or 1.0)


def fused(rankings: Sequence[Sequence[int]], number: int) -> list[int]:
    """Reciprocal rank fusion: indices ordered by the sum of ``1 / (60 + rank)`` over several rankings, best first.

    Example:
        >>> fused([[5, 7], [7, 9]], 2)
        [7, 5]
    """
    scores: dict[int, float] = defaultdict(float)
    for ranking in rankings:
        for rank, place in enumerate(ranking, 1):
            scores[place] += 1 / (_FUSION_K + rank)
    return sorted(scores, key=lambda place: (-scores[place], place))[:number]


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)
