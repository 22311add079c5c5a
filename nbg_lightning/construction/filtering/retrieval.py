"""Recall: documents of a corpus that resemble curated seed documents, by words and by embeddings.

Every seed ranks the whole corpus twice: by BM25 (Robertson and Zaragoza 2009) on its most significant words, and by cosine
similarity of embeddings. The rankings are fused (reciprocal rank fusion, Cormack et al. 2009). The worth of a recall is bounded
by the trust in the document's source and by its quality score::

    relevance = sum over the two rankings of (k + 1) / (k + rank) / 2        in (0, 1], 1 for first in both
    worth     = max over seeds of relevance * min(trust, quality / 9)

The corpus is read part by part, so that memory is bounded; word statistics are those of the whole corpus.
"""

from __future__ import annotations

import hashlib
import heapq
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nbg_lightning.construction.filtering.bm25 import WordStatistics, bm25, query_matrix
from nbg_lightning.construction.filtering.documents import Limits, document_id, read_part, readable_place
from nbg_lightning.construction.filtering.embedding import Embedding, HashedEmbedding, count_matrix
from nbg_lightning.construction.filtering.fusion import Recall, RecallRanking
from nbg_lightning.construction.filtering.table import (
    PartWriter,
    Table,
    part_file,
    read_groups,
    read_record,
    table_report,
)
from nbg_lightning.construction.filtering.tagger import QUALITY
from nbg_lightning.construction.outcomes import OutcomeCounts
from nbg_lightning.construction.store import REPORT, Store
from nbg_lightning.data.durable import atomic
from nbg_lightning.data.progress import Progress
from nbg_lightning.data.sources import Source
from nbg_lightning.extra import require
from nbg_lightning.jobs import EngineName, run_jobs

_SAMPLE_CHARACTERS = 1 << 14  # of a document in the embedding's sample, to bound memory
COLUMNS = ("recall", "relevance", "seed", "lexical_rank", "vector_rank")


@dataclass(frozen=True)
class RecallSettings:
    """Settings of a recall.

    Args:
        depth: number of top documents of each ranking and seed.
        query_terms: number of words of a seed for BM25: those with the highest tf-idf.
        bits: 2^bits columns for hashed words in BM25.
        fusion_k: k of reciprocal rank fusion; larger values even out the ranks.
        min_cosine: minimum cosine similarity to count as found.
        min_terms: minimum share of a seed's query terms, weighted by idf, that a document must contain to be found by BM25.
        min_worth: minimum worth of a recalled document.

    Raises:
        ValueError: a setting is invalid.
    """

    depth: int = 100
    query_terms: int = 64
    bits: int = 20
    fusion_k: int = 60
    min_cosine: float = 0.3
    min_terms: float = 0.1
    min_worth: float = 0.0

    def __post_init__(self) -> None:
        if min(self.depth, self.query_terms, self.fusion_k) < 1 or not 8 <= self.bits <= 26:
            raise ValueError(
                f"recall is invalid: depth={self.depth}, query_terms={self.query_terms}, fusion_k={self.fusion_k}, "
                f"bits={self.bits}; give at least 1 of each, and 8 to 26 bits"
            )

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _CountJob:
    index: int
    corpus_file: Path
    folder: Path
    bits: int


def _count(job: _CountJob) -> None:
    """Write the word statistics of one part to a file."""
    present = np.zeros(1 << job.bits, np.int32)
    documents = words = 0
    for rows in read_groups(job.corpus_file, ["text"]):
        counts = count_matrix([row["text"] for row in rows], job.bits)
        present += np.bincount(counts.indices, minlength=1 << job.bits).astype(np.int32)
        documents += len(rows)
        words += int(counts.sum(dtype=np.float64))
    columns = np.flatnonzero(present)
    _save(
        job.folder / f"count-{job.index:06d}.npz", columns=columns, present=present[columns], sizes=[documents, words]
    )


@dataclass(frozen=True)
class _SearchJob:
    index: int
    corpus_file: Path
    folder: Path
    seeds_file: Path
    settings: RecallSettings
    embedding: Embedding


@lru_cache(maxsize=1)
def _read_statistics(file: Path) -> WordStatistics:
    with np.load(file) as arrays:
        return WordStatistics(int(arrays["sizes"][0]), int(arrays["sizes"][1]), arrays["present"])


def _search(job: _SearchJob) -> None:
    """Write the top documents of one part for every seed, by both rankings, to a file."""
    from scipy.sparse import load_npz

    settings = job.settings
    queries = load_npz(job.seeds_file.with_suffix(".queries.npz"))
    seeds = np.load(job.seeds_file)
    own = {key: seed for seed, key in enumerate(job.seeds_file.with_suffix(".ids").read_text().split())}
    statistics = _read_statistics(job.folder / "statistics.npz")
    terms = queries.multiply(statistics.idf).tocsr()
    total = np.asarray(terms.sum(1)).ravel()
    best = {name: _Best(len(seeds), settings.depth) for name in ("lexical", "vector")}
    first = 0
    for rows in read_groups(job.corpus_file, ["id", "text"]):
        texts = [row["text"] for row in rows]
        numbers = np.arange(first, first + len(rows))
        counts = count_matrix(texts, settings.bits)
        lexical = bm25(counts, queries, statistics)
        counts.data[:] = 1
        matched = np.asarray((counts @ terms.T).todense())
        lexical[(matched < settings.min_terms * np.maximum(total, 1e-9)) | (matched <= 0)] = -np.inf
        cosine = job.embedding.vectors(texts) @ seeds.T
        cosine[cosine < settings.min_cosine] = -np.inf
        for row, each in enumerate(rows):  # a seed does not recall itself
            if (seed := own.get(each["id"])) is not None:
                lexical[row, seed] = cosine[row, seed] = -np.inf
        best["lexical"].add(numbers, lexical)
        best["vector"].add(numbers, cosine)
        first += len(rows)
    arrays = {f"{name}_{what}": values for name, each in best.items() for what, values in each.arrays().items()}
    _save(job.folder / f"found-{job.index:06d}.npz", **arrays)


class _Best:
    """The `depth` highest scores of each seed; of equal ones the first."""

    def __init__(self, num_seeds: int, depth: int):
        self.depth = depth
        self.scores = np.zeros((0, num_seeds), np.float32)
        self.numbers = np.zeros((0, num_seeds), np.int64)

    def add(self, numbers: np.ndarray, scores: np.ndarray) -> None:
        scores = np.concatenate([self.scores, scores])
        numbers = np.concatenate([self.numbers, np.repeat(numbers[:, None], scores.shape[1], 1)])
        order = np.argsort(-scores, 0, kind="stable")[: self.depth]
        self.scores, self.numbers = np.take_along_axis(scores, order, 0), np.take_along_axis(numbers, order, 0)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"scores": self.scores, "numbers": self.numbers}


def _save(file: Path, **arrays: Any) -> None:
    with atomic(file) as stream:
        np.savez_compressed(stream, **arrays)


def build_recall(
    corpus: Table,
    seeds: Source,
    out: str | Path,
    tags: Table | None = None,
    settings: RecallSettings | None = None,
    embedding: Embedding | None = None,
    trust: Mapping[str, float] | None = None,
    engine: EngineName = "local",
    num_workers: int | None = None,
) -> Table:
    """Add columns with the worth of each document by its similarity to seeds; 0 if it is not recalled.

    Args:
        corpus: a corpus of `nbg build-corpus`.
        seeds: curated documents.
        out: folder of the columns.
        tags: columns of `nbg build-tags` with ``quality``; without them, quality is not a bound.
        settings: see `RecallSettings`.
        embedding: `HashedEmbedding` by default.
        trust: 0 to 1 by source; by default that of the corpus.
        engine: where parts are searched.
        num_workers: number of concurrent jobs.

    Raises:
        ValueError: no usable seed, tags of another corpus, or no seed that recalls anything.
    """
    require("scipy.sparse", "recall")
    settings, embedding = settings or RecallSettings(), embedding or HashedEmbedding()
    trusted = {**corpus.report.get("trust", {}), **(trust or {})}
    if tags is not None:
        tags.check_aligned(corpus)
        if QUALITY not in tags.schema.names:
            raise ValueError(f"tags is invalid: no column {QUALITY!r} in {tags.folder}; give the tags of a tagger")
    manifest = {
        "build": "recall",
        "corpus": corpus.fingerprint,
        "seeds": seeds.identity(),
        "tags": None if tags is None else {"fingerprint": tags.fingerprint},
        "settings": settings.to_dict(),
        "trust": trusted,
        **embedding.identity(),
    }
    with Store(out, manifest) as store:
        if (store.folder / REPORT).is_file():
            return Table(store.folder)
        work = store.folder / "search"
        work.mkdir(exist_ok=True)
        texts, places, counts = _seed_texts(seeds)
        _search_corpus(corpus, texts, work, settings, embedding, engine, num_workers)
        ranking = RecallRanking(corpus, tags, trusted, settings.depth, settings.fusion_k, settings.min_worth)
        recalls, without = ranking.best_of(ranking.fuse(work, len(texts)), len(texts))
        counts.add("recalls_nothing", number=len(without))
        if len(without) == len(texts):
            raise ValueError(
                f"seeds is invalid: none of {len(texts)} recalls anything; lower min_cosine, min_terms or min_worth, or give "
                "seeds that are like what is looked for"
            )
        records = _write_columns(corpus, store.folder, recalls)
        values = np.array([recall.worth for recall in recalls.values()])
        report = table_report(records) | {
            "seeds": len(texts),
            "seed_problems": counts.to_dict(),
            "seeds_without_recall": [readable_place(places[index]) for index in without[:20]],
            "recalled": len(recalls),
            "worth_quantiles": {str(q): float(np.quantile(values, q)) for q in (0.1, 0.5, 0.9)},
        }
        store.write_report(report)
        shutil.rmtree(work)
        return Table(store.folder)


def _search_corpus(
    corpus: Table,
    texts: list[str],
    work: Path,
    settings: RecallSettings,
    embedding: Embedding,
    engine: EngineName,
    num_workers: int | None,
) -> None:
    """Rank the remaining parts of the corpus for every seed."""
    statistics = _statistics(corpus, work, settings.bits, engine, num_workers)
    embedding.fit(_sample(corpus, embedding.sample, embedding.seed), work)
    seeds_file = _write_seeds(work, texts, statistics, settings, embedding)
    jobs = {
        work / f"found-{index:06d}.npz": _SearchJob(index, file, work, seeds_file, settings, embedding)
        for index, file in enumerate(corpus.files)
    }
    _run_missing("searching", _search, jobs, engine, num_workers)


def _seed_texts(seeds: Source) -> tuple[list[str], list[str], OutcomeCounts]:
    counts = OutcomeCounts()
    texts: dict[str, str] = {}
    for part in seeds.parts():
        for document in read_part(part, Limits()):
            if document.problem is not None:
                counts.add(document.problem, readable_place(document.place))
            elif document.text in texts:
                counts.add("exact_duplicate", readable_place(document.place))
            else:
                texts[document.text] = document.place
    if not texts:
        raise ValueError(f"seeds is invalid: no usable document ({counts.summary()}); check its path and text_field")
    return list(texts), list(texts.values()), counts


def _run_missing(
    title: str, function: Callable[[Any], Any], jobs: dict[Path, Any], engine: EngineName, num_workers: int | None
) -> None:
    """Run the jobs whose result file does not exist yet."""
    missing = [job for file, job in jobs.items() if not file.is_file()]
    with Progress(title, len(jobs), unit="parts") as progress:
        progress.advance(len(jobs) - len(missing), fresh=False)
        for _ in run_jobs(function, missing, engine, num_workers):
            progress.advance(1)


def _statistics(corpus: Table, work: Path, bits: int, engine: EngineName, num_workers: int | None) -> WordStatistics:
    jobs = {
        work / f"count-{index:06d}.npz": _CountJob(index, file, work, bits) for index, file in enumerate(corpus.files)
    }
    _run_missing("counting words", _count, jobs, engine, num_workers)
    present = np.zeros(1 << bits, np.int64)
    documents = words = 0
    for index in range(len(corpus.files)):
        with np.load(work / f"count-{index:06d}.npz") as arrays:
            present[arrays["columns"]] += arrays["present"]
            documents, words = documents + int(arrays["sizes"][0]), words + int(arrays["sizes"][1])
    _save(work / "statistics.npz", sizes=[documents, words], present=present)
    return WordStatistics(documents, words, present)


def _sample(corpus: Table, number: int, seed: int) -> list[str]:
    """The texts with the lowest hashes of seed and id."""
    heap: list[tuple[int, str]] = []
    if number:
        for row in corpus.rows(["id", "text"]):
            digest = hashlib.blake2b(f"embedding {seed} {row['id']}".encode(), digest_size=8).digest()
            entry = (-int.from_bytes(digest, "big"), row["text"][:_SAMPLE_CHARACTERS])
            if len(heap) < number:
                heapq.heappush(heap, entry)
            elif entry > heap[0]:
                heapq.heapreplace(heap, entry)
    return [text for _, text in sorted(heap, reverse=True)]


def _write_seeds(
    work: Path, texts: list[str], statistics: WordStatistics, settings: RecallSettings, embedding: Embedding
) -> Path:
    from scipy.sparse import save_npz

    file = work / "seeds.npy"
    save_npz(file.with_suffix(".queries.npz"), query_matrix(texts, statistics, settings.bits, settings.query_terms))
    file.with_suffix(".ids").write_text("".join(document_id(text) + "\n" for text in texts))
    np.save(file, embedding.vectors(texts))
    return file


def _write_columns(corpus: Table, folder: Path, recalls: Mapping[tuple[int, int], Recall]) -> list[dict[str, Any]]:
    import pyarrow

    numbers = (pyarrow.float32(), pyarrow.float32(), pyarrow.int32(), pyarrow.int32(), pyarrow.int32())
    schema = pyarrow.schema({"id": pyarrow.string(), **dict(zip(COLUMNS, numbers, strict=True))})
    for index, file in enumerate(corpus.files):
        writer = PartWriter(folder, index, schema)
        try:
            row = 0
            for rows in read_groups(file, ["id"]):
                for each in rows:
                    recall = recalls.get((index, row), Recall(0.0, 0.0, -1, 0, 0))
                    values = (recall.worth, recall.relevance, recall.seed, recall.lexical_rank, recall.vector_rank)
                    writer.write({"id": each["id"], **dict(zip(COLUMNS, values, strict=True))})
                    row += 1
            writer.commit({})
        except BaseException:
            writer.discard()
            raise
    return [read_record(part_file(folder, index)) for index in range(len(corpus.files))]
