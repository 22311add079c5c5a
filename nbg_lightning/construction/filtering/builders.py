"""The six builders of filtering, from sources to pools: `nbg build-corpus` ... `nbg build-selection`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from nbg_lightning.construction.builder import Builder, ReportTable
from nbg_lightning.construction.filtering.annotate import AnnotationSettings, annotate, engine_settings, label_by_source
from nbg_lightning.construction.filtering.columns import build_columns
from nbg_lightning.construction.filtering.corpus import CorpusSettings, build_corpus
from nbg_lightning.construction.filtering.deduplicate import NearDuplicates
from nbg_lightning.construction.filtering.documents import Limits
from nbg_lightning.construction.filtering.embedding import Embedding
from nbg_lightning.construction.filtering.features import HashedFeatures
from nbg_lightning.construction.filtering.pools import PoolSize, SelectionSettings
from nbg_lightning.construction.filtering.retrieval import RecallSettings, build_recall
from nbg_lightning.construction.filtering.rubric import load_rubric
from nbg_lightning.construction.filtering.selection import build_selection
from nbg_lightning.construction.filtering.table import Table
from nbg_lightning.construction.filtering.tagger import Tagger, load_annotated, train_tagger
from nbg_lightning.construction.step import DocumentStep, StepPipeline
from nbg_lightning.construction.store import JsonRecord
from nbg_lightning.data.sources import Source
from nbg_lightning.data.tokenizer import load_tokenizer
from nbg_lightning.engines.chat import ChatModel, Template
from nbg_lightning.engines.protocol import Engine

_SHOWN_PLACES = 5  # number of seeds without a recall that are named


@dataclass(kw_only=True)
class CorpusBuilder(Builder):
    """Build a corpus from sources: unusable documents, duplicates and benchmark items are counted and removed.

    Args:
        sources: sources of text, by name.
        out: folder to create.
        trust: 0 to 1 by source, 1 by default: of duplicates the most trusted is kept, and it bounds the worth of a recall.
        max_bytes: longer documents are dropped.
        broken_encoding: drop documents that are not UTF-8, or replace the invalid bytes.
        near_duplicates: drop near duplicates of other documents.
        similarity: minimum Jaccard similarity of near duplicates' word 5-grams.
        benchmarks: sources of benchmark items, by name; documents that share an n-gram with one are dropped.
        ngram: number of words in these n-grams.
        signals: add columns with Gopher's and C4's signals, and the rules that a document fails.
        engine: processes on this machine, or Ray Data.
        num_workers: number of processes; by default one per core, 0 to work in this process.
        seed: seed of the hashes for near duplicates.
    """

    name: ClassVar[str] = "build-corpus"

    sources: dict[str, Source]
    trust: dict[str, float] | None = None
    max_bytes: int = 10_000_000
    broken_encoding: Literal["drop", "replace"] = "drop"
    near_duplicates: bool = True
    similarity: float = 0.8
    benchmarks: dict[str, Source] | None = None
    ngram: int = 13
    signals: bool = True
    engine: Literal["local", "ray"] = "local"
    num_workers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        near = NearDuplicates(self.similarity, seed=self.seed) if self.near_duplicates else None
        self._settings = CorpusSettings(Limits(self.max_bytes, self.broken_encoding), near, self.signals)

    def run(self) -> JsonRecord:
        return build_corpus(
            self.sources,
            self.out,
            self._settings,
            self.benchmarks,
            self.ngram,
            self.trust,
            self.engine,
            self.num_workers,
        ).report

    def shown(self, report: JsonRecord) -> list[str | ReportTable]:
        size = f"{report['rows']:,} documents, {report['bytes'] / 1e6:,.1f} MB"
        shown: list[str | ReportTable] = [f"{self.out}: {size}; dropped: {report['dropped']}"]
        for name, counts in report["sources"].items():
            shown.append(f"  {name}: " + ", ".join(f"{kind} {number:,}" for kind, number in counts.items()))
        return [*shown, *(f"  {reason}, for example: {places[0]}" for reason, places in report["examples"].items())]


@dataclass(kw_only=True)
class AnnotationBuilder(Builder):
    """Let a strong model score a sample of a corpus by a rubric, to train a tagger on.

    Args:
        corpus: folder of `nbg build-corpus`.
        out: folder to create or resume.
        engine: the annotator, such as nbg_lightning.engines.ServerEngine.
        tokenizer: the annotator's tokenizer, if its engine takes ids; not needed for a server that takes messages.
        template: chat format of the annotator.
        rubric: YAML file with the dimensions; by default the library's own 20.
        number: number of documents.
        per_source: take the same number from every source, as far as possible.
        max_characters: characters of a document that the annotator sees.
        attempts: maximum number of answers per document.
        max_new_tokens: maximum tokens of an answer.
        temperature: temperature of the first attempt.
        retry_temperature: temperature of further ones.
        batch: documents per call to the engine.
        labels: instead of an engine, dimension to source to score (0 to 9), such as {wanted: {ham: 9, spam: 0}}.
        seed: seed of the choice of documents and of generation.
    """

    name: ClassVar[str] = "build-annotations"

    corpus: str
    engine: Engine | None = None
    tokenizer: str | None = None
    template: Template = "auto"
    rubric: str | None = None
    number: int = 2000
    per_source: bool = True
    max_characters: int = 6000
    attempts: int = 3
    max_new_tokens: int = 512
    temperature: float = 0.0
    retry_temperature: float = 0.7
    batch: int = 64
    labels: dict[str, dict[str, float]] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.engine is None) == (self.labels is None):
            given = "None without labels" if self.engine is None else "given beside labels"
            raise ValueError(f"engine is invalid: {given}; give either an engine that annotates, or labels of sources")
        self._settings = AnnotationSettings(**{each.name: vars(self)[each.name] for each in fields(AnnotationSettings)})

    def run(self) -> JsonRecord:
        corpus = Table(self.corpus)
        if self.engine is None:
            return label_by_source(corpus, self.labels or {}, self.out, self.number, self.seed)
        tokenizer = None if self.tokenizer is None else load_tokenizer(self.tokenizer)
        annotator = {
            "engine": engine_settings(self.engine),
            "tokenizer": tokenizer and tokenizer.fingerprint,
            "template": self.template,
        }
        with self.engine:
            chat = ChatModel(self.engine, tokenizer, self.template)
            return annotate(corpus, chat, load_rubric(self.rubric), self.out, self._settings, annotator)

    def shown(self, report: JsonRecord) -> list[str | ReportTable]:
        if self.engine is None:
            return [f"{self.out}: {report['scored']:,} documents have the labels of their sources"]
        shown: list[str | ReportTable] = [
            f"{self.out}: {report['scored']:,} of {report['documents']:,} documents scored"
        ]
        for kind in ("failed_answers", "given_up"):
            for name, found in report[kind].items():
                first = f", first {found['first']}" if "first" in found else ""
                shown.append(f"  {kind.replace('_', ' ')}: {name} {found['count']:,}{first}")
        return shown


@dataclass(kw_only=True)
class TaggerBuilder(Builder):
    """Train a small model on an annotator's scores, and report rank correlations on held-out documents.

    Args:
        corpus: folder of `nbg build-corpus`.
        annotations: folder of `nbg build-annotations`.
        out: folder to create.
        rubric: YAML file with the dimensions' weights in the quality; by default the library's own.
        validation_share: share of held-out documents.
        bits: features are hashed to 2^bits columns.
        pairs: use pairs of neighbouring words as features too.
        max_bytes: longer documents are judged by their beginning.
        seed: seed of the choice of held-out documents.
    """

    name: ClassVar[str] = "build-tagger"

    corpus: str
    annotations: str
    rubric: str | None = None
    validation_share: float = 0.2
    bits: int = 18
    pairs: bool = True
    max_bytes: int = 1 << 20
    seed: int = 0

    def __post_init__(self) -> None:
        self._features = HashedFeatures(self.bits, self.pairs, self.max_bytes)

    def run(self) -> JsonRecord:
        corpus, rubric = Table(self.corpus), load_rubric(self.rubric)
        made_from = {"corpus": corpus.fingerprint, "rubric": rubric.to_dict()}
        data = load_annotated(corpus, self.annotations)
        return train_tagger(data, self.out, rubric, self._features, self.validation_share, self.seed, made_from)

    def shown(self, report: JsonRecord) -> list[str | ReportTable]:
        measures = ("rank_correlation", "mean_absolute_error", "auc")
        rows: list[tuple[str, ...]] = []
        for name, own in {**report["dimensions"], "quality": report["quality"]}.items():
            values = [own.get(measure) for measure in measures]
            rows.append((name, *("" if value is None else f"{value:.3f}" for value in values)))
        title = f"{report['held_out']:,} of {report['documents']:,} held out"
        return [ReportTable(title, ("dimension", "rank correlation", "mean absolute error", "AUC"), rows)]


@dataclass(kw_only=True)
class TagBuilder(Builder):
    """Tag every document of a corpus with a tagger's scores, and with its bits per byte under a given model.

    Args:
        corpus: folder of `nbg build-corpus`.
        out: folder to create or resume.
        tagger: folder of `nbg build-tagger`; adds a column per dimension, and quality.
        perplexity_weights: a model; adds the column bits_per_byte.
        perplexity_tokens: maximum tokens of a document that the model sees.
        perplexity_tokenizer: the model's tokenizer; by default that of its folder or checkpoint.
        engine: processes on this machine, or Ray Data.
        num_workers: number of processes; by default one per core, 0 to work in this process.
    """

    name: ClassVar[str] = "build-tags"

    corpus: str
    tagger: str | None = None
    perplexity_weights: str | None = None
    perplexity_tokens: int = 1024
    perplexity_tokenizer: str | None = None
    engine: Literal["local", "ray"] = "local"
    num_workers: int | None = None

    def __post_init__(self) -> None:
        if self.tagger is None and self.perplexity_weights is None:
            raise ValueError(
                "tagger is invalid: None without perplexity_weights; give tagger, perplexity_weights or both"
            )

    def run(self) -> JsonRecord:
        from nbg_lightning.construction.filtering.perplexity import Perplexity

        corpus = Table(self.corpus)
        steps: list[DocumentStep] = [] if self.tagger is None else [Tagger(self.tagger)]
        if self.perplexity_weights is not None:
            steps.append(Perplexity(self.perplexity_weights, self.perplexity_tokens, self.perplexity_tokenizer))
        return build_columns("tags", corpus, StepPipeline(steps), self.out, self.engine, self.num_workers).report

    def shown(self, report: JsonRecord) -> list[str | ReportTable]:
        speed = report["this_run"]["megabytes_per_second_of_a_core"]
        return [f"{self.out}: {report['rows']:,} documents tagged, {speed:,.1f} MB a second of one core's time"]


@dataclass(kw_only=True)
class RecallBuilder(Builder):
    """Find documents of a corpus that resemble seed documents, by BM25 and embeddings, bounded by trust and quality.

    Args:
        corpus: folder of `nbg build-corpus`.
        seeds: source of curated documents.
        out: folder to create or resume.
        tags: folder of `nbg build-tags`; without it, quality is not a bound.
        trust: 0 to 1 by source; by default that of the corpus.
        embedding: embedding of texts; by default hashed words with a truncated SVD.
        depth: number of top documents of each ranking and seed.
        query_terms: number of most significant words of a seed, for BM25.
        fusion_k: k of reciprocal rank fusion.
        min_cosine: minimum cosine similarity of embeddings.
        min_terms: minimum share of a seed's query terms, by weight.
        min_worth: minimum worth of a recalled document.
        engine: processes on this machine, or Ray Data.
        num_workers: number of processes; by default one per core, 0 to work in this process.
    """

    name: ClassVar[str] = "build-recall"

    corpus: str
    seeds: Source
    tags: str | None = None
    trust: dict[str, float] | None = None
    embedding: Embedding | None = None
    depth: int = 100
    query_terms: int = 64
    fusion_k: int = 60
    min_cosine: float = 0.3
    min_terms: float = 0.1
    min_worth: float = 0.0
    engine: Literal["local", "ray"] = "local"
    num_workers: int | None = None

    def __post_init__(self) -> None:
        self._settings = RecallSettings(
            self.depth,
            self.query_terms,
            fusion_k=self.fusion_k,
            min_cosine=self.min_cosine,
            min_terms=self.min_terms,
            min_worth=self.min_worth,
        )

    def run(self) -> JsonRecord:
        return build_recall(
            Table(self.corpus),
            self.seeds,
            self.out,
            None if self.tags is None else Table(self.tags),
            self._settings,
            self.embedding,
            self.trust,
            self.engine,
            self.num_workers,
        ).report

    def shown(self, report: JsonRecord) -> list[str | ReportTable]:
        recalled = f"{report['recalled']:,} of {report['rows']:,} documents"
        shown: list[str | ReportTable] = [f"{self.out}: {report['seeds']:,} seeds recall {recalled}"]
        shown += [f"  seeds: {name} {found['count']:,}" for name, found in report["seed_problems"].items()]
        return [*shown, *(f"  recalls nothing: {place}" for place in report["seeds_without_recall"][:_SHOWN_PLACES])]


@dataclass(kw_only=True)
class SelectionBuilder(Builder):
    """Select HQ and MQ pools by score, with a report of histograms and samples, and a YAML file for training on them.

    Args:
        corpus: folder of `nbg build-corpus`.
        columns: folders of `nbg build-tags` and `nbg build-recall`.
        out: folder to create or resume.
        score: weights by column; by default 1 for quality, and 2 for recall if it is given.
        hq: size of HQ; by default a share of 0.3.
        mq: size of MQ, which follows HQ; by default a share of 0.4.
        exclude: patterns of rules that exclude a document from both, such as ``gopher/*``; by default much repetition.
        limits: [minimum, maximum] by column; null for no limit.
        tokenizer: counts tokens; without it, they are estimated as bytes / 4.
        tokens_per_step: tokens per step of the stages in the YAML file.
        sequence_length: sequence length of the stages in the YAML file.
        engine: processes on this machine, or Ray Data.
        num_workers: number of processes; by default one per core, 0 to work in this process.
        seed: seed of the order of equal scores, and of the samples shown.
    """

    name: ClassVar[str] = "build-selection"

    corpus: str
    columns: list[str]
    score: dict[str, float] | None = None
    hq: PoolSize | None = None
    mq: PoolSize | None = None
    exclude: list[str] | None = None
    limits: dict[str, list[float | None]] | None = None
    tokenizer: str | None = None
    tokens_per_step: int = 8192
    sequence_length: int = 256
    engine: Literal["local", "ray"] = "local"
    num_workers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float | None, float | None]] = {}
        for name, limit in (self.limits or {}).items():
            if len(limit) != 2:
                raise ValueError(f"limits of {name} is invalid: {limit}; give [least, most], null for no limit")
            limits[name] = limit[0], limit[1]
        default = SelectionSettings()
        self._settings = SelectionSettings(
            self.score,
            default.exclude if self.exclude is None else tuple(self.exclude),
            limits,
            self.hq or default.high_quality,
            self.mq or default.medium_quality,
            self.tokens_per_step,
            self.sequence_length,
            self.seed,
        )

    def run(self) -> JsonRecord:
        return build_selection(
            Table(self.corpus),
            [Table(folder) for folder in self.columns],
            self.out,
            self._settings,
            self.tokenizer,
            self.engine,
            self.num_workers,
        )

    def shown(self, report: JsonRecord) -> list[str | ReportTable]:
        shown: list[str | ReportTable] = []
        for pool, own in report["pools"].items():
            size = f"{own['documents']:,} documents, {own['tokens']:,} tokens"
            shown.append(f"{self.out}/{pool}: {size}, score {own['least_score']:.3f} or more")
        excluded = sum(report["excluded"].values())
        shown.append(f"tokens are {report['tokens_are']}; excluded: {excluded:,} documents")
        return [*shown, f"look at {self.out}/report.md, and train with {self.out}/curriculum.yaml"]
