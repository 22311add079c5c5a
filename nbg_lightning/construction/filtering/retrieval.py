"""Recall: documents of a corpus that are like curated seed documents, by words and by vectors.

Every seed ranks the whole corpus twice: by BM25 (Robertson and Zaragoza 2009) on its most telling words, and by the cosine of
vectors. The ranks are fused (reciprocal rank fusion, Cormack et al. 2009). What a recall is worth is bounded by the trust
in the document's source and by its quality score::

    relevance = sum over the two rankings of (k + 1) / (k + rank) / 2        in (0, 1], 1 for first in both
    worth     = max over seeds of relevance * min(trust, quality / 9)

The corpus is read part by part, so that memory does not grow with it; statistics of words are those of the whole corpus.
"""

from __future__ import annotations

import hashlib
import heapq
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nbg_lightning.construction.extra import require
from nbg_lightning.construction.filtering.documents import Limits, document_id, read_part, readable_place
from nbg_lightning.construction.filtering.embedding import Embedding, HashedEmbedding, count_matrix
from nbg_lightning.construction.filtering.rubric import HIGHEST
from nbg_lightning.construction.filtering.table import (
    PartWriter,
    Table,
    part_file,
    read_groups,
    read_record,
    table_report,
)
from nbg_lightning.construction.filtering.tagger import QUALITY
from nbg_lightning.construction.jobs import EngineName, run_jobs
from nbg_lightning.construction.store import REPORT, Counts, Store
from nbg_lightning.data.durable import atomic
from nbg_lightning.data.progress import Progress
from nbg_lightning.data.sources import Source

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_K1, _B = 1.5, 0.75  # the usual ones of BM25
_SAMPLE_CHARACTERS = 1 << 14  # of a document, that the embedding learns from: bounds memory
COLUMNS = ("recall", "relevance", "seed", "lexical_rank", "vector_rank")


@dataclass(frozen=True)
class RecallSettings:
    """How documents are recalled.

    Args:
        depth: best documents of each ranking and seed.
        query_terms: words of a seed that BM25 looks for: those of highest tf-idf.
        bits: 2^bits columns for hashed words in BM25.
        fusion_k: k of reciprocal rank fusion; larger ones make ranks more equal.
        min_cosine: least similarity of vectors to count as found.
        min_terms: least share of a seed's query terms, by weight of idf, that a document must have for BM25 to count.
        min_worth: what a document must be worth to be recalled at all.

    Raises:
        ValueError: a setting that cannot be.
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
            raise ValueError("recall: depth, query_terms and fusion_k must be at least 1, bits 8 to 26")

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


@dataclass(frozen=True)
class Statistics:
    """Of the words of a corpus.

    Attributes:
        documents: how many.
        words: of all of them.
        present: int64[2^bits], documents that have a word of this column.
    """

    documents: int
    words: int
    present: np.ndarray

    @cached_property
    def idf(self) -> np.ndarray:
        """float32[2^bits]: ``log(1 + (N - n + 1/2) / (n + 1/2))``, Lucene's, which is never negative."""
        rest = (self.documents - self.present + 0.5) / (self.present + 0.5)
        return np.log1p(rest).astype(np.float32)


def bm25(counts: csr_matrix, queries: csr_matrix, statistics: Statistics) -> np.ndarray:
    """``sum_t idf_t tf (k1 + 1) / (tf + k1 (1 - b + b length / mean length))`` over the words t of a query.

    Args:
        counts: [documents, columns].
        queries: [queries, columns], 1 where a query has a word.
        statistics: of the corpus.

    Returns:
        float32[documents, queries].
    """
    lengths = np.asarray(counts.sum(1)).ravel()
    norm = _K1 * (1 - _B + _B * lengths / max(1e-9, statistics.words / max(1, statistics.documents)))
    weighted = counts.copy()
    per_value = np.repeat(norm, np.diff(counts.indptr))
    weighted.data = (counts.data * (_K1 + 1) / (counts.data + per_value)).astype(np.float32)
    return np.asarray((weighted @ (queries.multiply(statistics.idf)).tocsr().T).todense(), np.float32)


def query_matrix(texts: Sequence[str], statistics: Statistics, bits: int, terms: int) -> csr_matrix:
    """1 for the `terms` words of each text with the highest ``(1 + log tf) idf``, as far as the corpus has them."""
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


@dataclass(frozen=True)
class _CountJob:
    index: int
    corpus_file: Path
    folder: Path
    bits: int


def _count(job: _CountJob) -> None:
    """Statistics of one part to a file."""
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
def _read_statistics(file: Path) -> Statistics:
    with np.load(file) as arrays:
        return Statistics(int(arrays["sizes"][0]), int(arrays["sizes"][1]), arrays["present"])


def _search(job: _SearchJob) -> None:
    """The best documents of one part for every seed, by both rankings, to a file."""
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
    """Columns of a corpus: what its documents are worth by their likeness to seeds; 0 for those that are not recalled.

    Args:
        corpus: of `nbg build-corpus`.
        seeds: curated documents.
        out: folder of the columns.
        tags: of `nbg build-tags`, with the column ``quality``; without them quality bounds nothing.
        settings: see `RecallSettings`.
        embedding: `HashedEmbedding` by default.
        trust: 0 to 1 for sources; that of the corpus by default.
        engine: where parts are searched.
        num_workers: how many at a time.

    Raises:
        ValueError: no usable seed, tags of another corpus, or no seed recalls anything.
    """
    require("scipy.sparse", "recall")
    settings, embedding = settings or RecallSettings(), embedding or HashedEmbedding()
    trusted = {**corpus.report.get("trust", {}), **(trust or {})}
    if tags is not None:
        tags.check_aligned(corpus)
        if QUALITY not in tags.schema.names:
            raise ValueError(f"{tags.folder} has no column {QUALITY!r}: give the tags of a tagger")
    about = {
        "build": "recall",
        "corpus": corpus.fingerprint,
        "seeds": seeds.identity(),
        "tags": None if tags is None else tags.report.get("about", {"fingerprint": tags.fingerprint}),
        "settings": settings.to_dict(),
        "trust": trusted,
        **embedding.identity(),
    }
    with Store(out, about) as store:
        if (store.folder / REPORT).is_file():
            return Table(store.folder)
        work = store.folder / "search"
        work.mkdir(exist_ok=True)
        texts, places, counts = _seed_texts(seeds)
        statistics = _statistics(corpus, work, settings.bits, engine, num_workers)
        embedding.fit(_sample(corpus, getattr(embedding, "sample", 0), getattr(embedding, "seed", 0)), work)
        seeds_file = _write_seeds(work, texts, statistics, settings, embedding)
        jobs = {
            work / f"found-{index:06d}.npz": _SearchJob(index, file, work, seeds_file, settings, embedding)
            for index, file in enumerate(corpus.files)
        }
        _run_missing("searching", _search, jobs, engine, num_workers)
        worth = _Worth(corpus, tags, trusted, settings)
        found = worth.fuse(work, len(texts))
        recalls, without = worth.best_of(found, len(texts))
        counts.add("recalls_nothing", number=len(without))
        if len(without) == len(texts):
            raise ValueError(
                f"none of {len(texts)} seeds recalls anything: lower min_cosine, min_terms or min_worth, "
                "or give seeds that are like what is looked for"
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


def _seed_texts(seeds: Source) -> tuple[list[str], list[str], Counts]:
    counts = Counts()
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
        raise ValueError(f"there is no usable seed ({counts.summary()}): check the seeds' path and text_field")
    return list(texts), list(texts.values()), counts


def _run_missing(
    title: str, function: Callable[[Any], Any], jobs: dict[Path, Any], engine: EngineName, num_workers: int | None
) -> None:
    """Run the jobs whose result, by its file, is not there from an earlier start."""
    missing = [job for file, job in jobs.items() if not file.is_file()]
    with Progress(title, len(jobs), unit="parts") as progress:
        progress.advance(len(jobs) - len(missing), fresh=False)
        for _ in run_jobs(function, missing, engine, num_workers):
            progress.advance(1)


def _statistics(corpus: Table, work: Path, bits: int, engine: EngineName, num_workers: int | None) -> Statistics:
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
    return Statistics(documents, words, present)


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
    work: Path, texts: list[str], statistics: Statistics, settings: RecallSettings, embedding: Embedding
) -> Path:
    from scipy.sparse import save_npz

    file = work / "seeds.npy"
    save_npz(file.with_suffix(".queries.npz"), query_matrix(texts, statistics, settings.bits, settings.query_terms))
    file.with_suffix(".ids").write_text("".join(document_id(text) + "\n" for text in texts))
    np.save(file, embedding.vectors(texts))
    return file


@dataclass(frozen=True)
class Recall:
    """Why a document is recalled.

    Attributes:
        worth: see the module.
        relevance: of the best seed's fused ranks.
        seed: number of that seed.
        lexical_rank: 1 for first; 0 where BM25 did not find it.
        vector_rank: the same of vectors.
    """

    worth: float
    relevance: float
    seed: int
    lexical_rank: int
    vector_rank: int


class _Worth:
    """Ranks of parts to what documents are worth."""

    def __init__(self, corpus: Table, tags: Table | None, trust: Mapping[str, float], settings: RecallSettings):
        self.corpus, self.tags, self.trust, self.settings = corpus, tags, trust, settings

    def fuse(self, work: Path, num_seeds: int) -> dict[tuple[int, int], dict[int, list[int]]]:
        """(part, row) to seed to its two ranks."""
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
                order = np.argsort(-all_scores[:, seed], kind="stable")[: self.settings.depth]
                order = order[np.isfinite(all_scores[order, seed])]
                for rank, place in enumerate(order.tolist(), 1):
                    key = int(all_parts[place]), int(all_numbers[place, seed])
                    fused.setdefault(key, {}).setdefault(seed, [0, 0])[ranking] = rank
        return fused

    def best_of(
        self, fused: dict[tuple[int, int], dict[int, list[int]]], num_seeds: int
    ) -> tuple[dict[tuple[int, int], Recall], list[int]]:
        """The recall of every document that is worth enough, and the seeds that recall nothing."""
        bounds = self._bounds(fused)
        recalls: dict[tuple[int, int], Recall] = {}
        fruitful: set[int] = set()
        for key in sorted(fused):
            best: Recall | None = None
            for seed, ranks in sorted(fused[key].items()):
                relevance = fused_relevance(ranks, self.settings.fusion_k)
                recall = Recall(relevance * bounds[key], relevance, seed, *ranks)
                if recall.worth > 0 and recall.worth >= self.settings.min_worth:
                    fruitful.add(seed)
                    if best is None or recall.worth > best.worth:
                        best = recall
            if best is not None:
                recalls[key] = best
        return recalls, [seed for seed in range(num_seeds) if seed not in fruitful]

    def _bounds(self, fused: Mapping[tuple[int, int], Any]) -> dict[tuple[int, int], float]:
        """min(trust, quality / 9) of the documents that are found."""
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
    """Reciprocal rank fusion, scaled to 1 for the first of all rankings; a rank of 0 is "not found".

    Example:
        >>> fused_relevance([1, 1], 60), fused_relevance([1, 0], 60)
        (1.0, 0.5)
    """
    return sum((k + 1) / (k + rank) for rank in ranks if rank) / len(ranks)


def _column(file: Path, name: str) -> list[Any]:
    return [row[name] for rows in read_groups(file, [name]) for row in rows]


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
