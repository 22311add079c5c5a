"""Fusion of two rankings (reciprocal rank fusion, Cormack et al. 2009), and the worth of a recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nbg_lightning.construction.filtering.rubric import HIGHEST
from nbg_lightning.construction.filtering.table import Table, read_groups
from nbg_lightning.construction.filtering.tagger import QUALITY


@dataclass(frozen=True)
class Recall:
    """The recall of a document: the seed that it resembles most.

    Attributes:
        worth: bounded relevance, see `retrieval`.
        relevance: fused ranks for the best seed.
        seed: index of that seed.
        lexical_rank: rank by BM25, from 1; 0 if not found.
        vector_rank: rank by embedding, from 1; 0 if not found.
    """

    worth: float
    relevance: float
    seed: int
    lexical_rank: int
    vector_rank: int


class RecallRanking:
    """Fuses the ranks of the documents of all parts for each seed, and bounds the worth of each recall.

    Args:
        corpus: the corpus to recall from.
        tags: columns with quality; without them, quality is not a bound.
        trust: trust by source.
        depth: number of top documents of each ranking and seed.
        fusion_k: k of reciprocal rank fusion.
        min_worth: minimum worth of a recall.
    """

    def __init__(
        self,
        corpus: Table,
        tags: Table | None,
        trust: Mapping[str, float],
        depth: int,
        fusion_k: int,
        min_worth: float,
    ):
        self.corpus, self.tags, self.trust = corpus, tags, trust
        self.depth, self.fusion_k, self.min_worth = depth, fusion_k, min_worth

    def fuse(self, work: Path, num_seeds: int) -> dict[tuple[int, int], dict[int, list[int]]]:
        """Merge the rankings of all parts: (part, row) to seed to its two ranks."""
        fused: dict[tuple[int, int], dict[int, list[int]]] = {}
        for ranking, name in enumerate(("lexical", "vector")):
            scores, numbers, parts = [], [], []
            for index in range(len(self.corpus.files)):
                with np.load(work / f"found-{index:06d}.npz") as arrays:
                    scores.append(arrays[f"{name}_scores"])
                    numbers.append(arrays[f"{name}_numbers"])
                    parts.append(np.full(len(scores[-1]), index))
            all_scores, all_numbers, all_parts = np.concatenate(scores), np.concatenate(numbers), np.concatenate(parts)
            for seed in range(num_seeds):
                order = np.argsort(-all_scores[:, seed], kind="stable")[: self.depth]
                order = order[np.isfinite(all_scores[order, seed])]
                for rank, place in enumerate(order.tolist(), 1):
                    key = int(all_parts[place]), int(all_numbers[place, seed])
                    fused.setdefault(key, {}).setdefault(seed, [0, 0])[ranking] = rank
        return fused

    def best_of(
        self, fused: dict[tuple[int, int], dict[int, list[int]]], num_seeds: int
    ) -> tuple[dict[tuple[int, int], Recall], list[int]]:
        """The recall of every document of sufficient worth, and the seeds that recall nothing."""
        bounds = self._bounds(fused)
        recalls: dict[tuple[int, int], Recall] = {}
        fruitful: set[int] = set()
        for key in sorted(fused):
            best: Recall | None = None
            for seed, ranks in sorted(fused[key].items()):
                relevance = fused_relevance(ranks, self.fusion_k)
                recall = Recall(relevance * bounds[key], relevance, seed, *ranks)
                if recall.worth > 0 and recall.worth >= self.min_worth:
                    fruitful.add(seed)
                    if best is None or recall.worth > best.worth:
                        best = recall
            if best is not None:
                recalls[key] = best
        return recalls, [seed for seed in range(num_seeds) if seed not in fruitful]

    def _bounds(self, fused: Mapping[tuple[int, int], Any]) -> dict[tuple[int, int], float]:
        """min(trust, quality / 9) of the documents found."""
        rows: dict[int, list[int]] = {}
        for part, row in fused:
            rows.setdefault(part, []).append(row)
        bounds: dict[tuple[int, int], float] = {}
        for part, wanted in sorted(rows.items()):
            sources = _column(self.corpus.files[part], "source")
            quality = None if self.tags is None else _column(self.tags.files[part], QUALITY)
            for row in wanted:
                bound = float(self.trust.get(sources[row], 1.0))
                bounds[part, row] = bound if quality is None else min(bound, quality[row] / HIGHEST)
        return bounds


def fused_relevance(ranks: Sequence[int], k: int) -> float:
    """Reciprocal rank fusion, scaled to 1 for the first place in all rankings; rank 0 means "not found".

    Example:
        >>> fused_relevance([1, 1], 60), fused_relevance([1, 0], 60)
        (1.0, 0.5)
    """
    return sum((k + 1) / (k + rank) for rank in ranks if rank) / len(ranks)


def _column(file: Path, name: str) -> list[Any]:
    return [row[name] for rows in read_groups(file, [name]) for row in rows]
