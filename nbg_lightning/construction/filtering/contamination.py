"""Detection of documents that contain benchmark items, by shared word n-grams.

An item is contained if one of its n-grams occurs in the document (13 words, as for GPT-3: Brown et al. 2020, arXiv 2005.14165,
appendix C); case, spacing and punctuation are ignored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nbg_lightning.construction.filtering.hashing import hash_words, ngrams
from nbg_lightning.construction.outcomes import OutcomeCounts
from nbg_lightning.construction.step import DocumentRow, DocumentStep

if TYPE_CHECKING:
    import pyarrow


class Contamination(DocumentStep):
    """Column ``contaminated``: the benchmark with the first n-gram that the document shares; null if there is none.

    Args:
        hashes: uint64, sorted hashes of the benchmarks' n-grams.
        owners: index of the benchmark of each hash.
        names: names of the benchmarks.
        size: number of words in an n-gram.
        counts: items by benchmark, and those too short to be searched for.
    """

    def __init__(
        self, hashes: np.ndarray, owners: np.ndarray, names: Sequence[str], size: int, counts: Mapping[str, Any]
    ):
        self.hashes, self.owners, self.names, self.size = hashes, owners, list(names), size
        self.counts = dict(counts)

    @classmethod
    def from_items(cls, benchmarks: Mapping[str, Iterable[str]], size: int = 13) -> Contamination:
        """Search for the items of these benchmarks.

        Args:
            benchmarks: texts by name.
            size: number of words in an n-gram. Shorter items are only counted, since they may occur anywhere by chance.

        Raises:
            ValueError: a benchmark has no item that is long enough.
        """
        if size < 2:
            raise ValueError(f"ngram is invalid: {size} words; give at least 2 (13 is usual)")
        hashes, owners = [], []
        counts = OutcomeCounts()
        for number, (name, texts) in enumerate(benchmarks.items()):
            items = [text.encode("utf-8", "replace") for text in texts]
            words = hash_words(items, marks=False)
            lengths = np.diff(words.offsets)
            counts.add(name, number=int((lengths >= size).sum()))
            for item in np.flatnonzero(lengths < size)[:1]:
                counts.add(f"{name}/too_short", items[item].decode()[:80], int((lengths < size).sum()))
            found = np.unique(ngrams(words, size)[0])
            if not len(found):
                raise ValueError(
                    f"benchmark {name!r} is invalid: none of its {len(items)} items has {size} words; lower ngram"
                )
            hashes.append(found)
            owners.append(np.full(len(found), number, np.int32))
        joined = np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)
        owner = np.concatenate(owners) if owners else np.zeros(0, np.int32)
        order = np.argsort(joined, kind="stable")
        return cls(joined[order], owner[order], list(benchmarks), size, counts.to_dict())

    @property
    def columns(self) -> dict[str, pyarrow.DataType]:
        import pyarrow

        return {"contaminated": pyarrow.string()}

    def identity(self) -> dict[str, Any]:
        digest = hashlib.blake2b(self.hashes.tobytes() + self.owners.tobytes(), digest_size=16).hexdigest()
        return {"step": "Contamination", "size": self.size, "names": self.names, "hashes": digest}

    def values(self, texts: Sequence[str]) -> list[DocumentRow]:
        rows: list[DocumentRow] = [{"contaminated": None} for _ in texts]
        if not len(self.hashes):
            return rows
        words = hash_words([text.encode("utf-8", "replace") for text in texts], marks=False)
        found, first = ngrams(words, self.size)
        place = np.minimum(np.searchsorted(self.hashes, found), len(self.hashes) - 1)
        hits = np.flatnonzero(self.hashes[place] == found)[::-1]  # reversed, so that the first hit is written last
        for document, owner in zip(
            words.documents[first[hits]].tolist(), self.owners[place[hits]].tolist(), strict=True
        ):
            rows[document]["contaminated"] = self.names[owner]
        return rows
