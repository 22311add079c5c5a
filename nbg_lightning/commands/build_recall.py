"""`nbg build-recall`: what documents are worth by their likeness to curated seeds."""

from __future__ import annotations

from typing import Any, Literal

from nbg_lightning.commands.function import call, parser_of, say
from nbg_lightning.construction.filtering.embedding import Embedding
from nbg_lightning.data.sources import Source

SUMMARY = "documents of a corpus that are like seed documents, by BM25 and vectors, bounded by trust and quality"


def build_recall(
    corpus: str,
    seeds: Source,
    out: str,
    tags: str | None = None,
    trust: dict[str, float] | None = None,
    embedding: Embedding | None = None,
    depth: int = 100,
    query_terms: int = 64,
    fusion_k: int = 60,
    min_cosine: float = 0.3,
    min_terms: float = 0.1,
    min_worth: float = 0.0,
    engine: Literal["local", "ray"] = "local",
    num_workers: int | None = None,
) -> None:
    """Documents of a corpus that are like seed documents, by BM25 and vectors, bounded by trust and quality.

    Args:
        corpus: folder of `nbg build-corpus`.
        seeds: source of curated documents.
        out: folder that is made, or gone on with.
        tags: folder of `nbg build-tags`; without it quality bounds nothing.
        trust: 0 to 1 for sources; that of the corpus by default.
        embedding: vectors of documents; hashed words and a truncated SVD by default.
        depth: best documents of each ranking and seed.
        query_terms: most telling words of a seed, for BM25.
        fusion_k: of reciprocal rank fusion.
        min_cosine: least likeness by vectors.
        min_terms: least share of a seed's telling words, by weight.
        min_worth: what a document must be worth to be recalled.
        engine: processes of this machine, or Ray Data.
        num_workers: processes; one for each core by default, 0 for none beside this one.
    """
    from nbg_lightning.construction.filtering.retrieval import RecallSettings
    from nbg_lightning.construction.filtering.retrieval import build_recall as build
    from nbg_lightning.construction.filtering.table import Table

    settings = RecallSettings(
        depth,
        query_terms,
        fusion_k=fusion_k,
        min_cosine=min_cosine,
        min_terms=min_terms,
        min_worth=min_worth,
    )
    tagged = None if tags is None else Table(tags)
    report = build(Table(corpus), seeds, out, tagged, settings, embedding, trust, engine, num_workers).report
    say(f"{out}: {report['seeds']:,} seeds recall {report['recalled']:,} of {report['rows']:,} documents")
    for name, found in report["seed_problems"].items():
        say(f"  seeds: {name} {found['count']:,}")
    for place in report["seeds_without_recall"][:5]:
        say(f"  recalls nothing: {place}")


def main(argv: list[str]) -> int:
    """Run the command."""
    call(build_recall, "build-recall", argv)
    return 0


def parser() -> Any:
    """The options."""
    return parser_of(build_recall, "build-recall")
