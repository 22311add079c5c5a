"""`nbg build-corpus`: sources as they are to a corpus without unusable documents, duplicates and benchmark items."""

from __future__ import annotations

from typing import Any, Literal

from nbg_lightning.commands.function import call, parser_of, say
from nbg_lightning.data.sources import Source

SUMMARY = "sources to a corpus: unusable documents, duplicates and benchmark items counted and taken out, signals added"


def build_corpus(
    sources: dict[str, Source],
    out: str,
    trust: dict[str, float] | None = None,
    max_bytes: int = 10_000_000,
    broken_encoding: Literal["drop", "replace"] = "drop",
    near_duplicates: bool = True,
    similarity: float = 0.8,
    benchmarks: dict[str, Source] | None = None,
    ngram: int = 13,
    signals: bool = True,
    engine: Literal["local", "ray"] = "local",
    num_workers: int | None = None,
    seed: int = 0,
) -> None:
    """Sources to a corpus: unusable documents, duplicates and benchmark items are counted and taken out.

    Args:
        sources: name to source of text.
        out: folder that is made.
        trust: 0 to 1 for sources, 1 by default: of duplicates the most trusted stays, and it bounds a recall's worth.
        max_bytes: longer documents are dropped.
        broken_encoding: drop documents that are not UTF-8, or replace what cannot be read.
        near_duplicates: drop documents that are nearly another one.
        similarity: of near duplicates' word 5-grams (Jaccard), at least.
        benchmarks: name to source of a benchmark's items; documents that share an n-gram with one are dropped.
        ngram: words of these n-grams.
        signals: add columns of Gopher's and C4's signals, and the rules that a document fails.
        engine: processes of this machine, or Ray Data.
        num_workers: processes; one for each core by default, 0 for none beside this one.
        seed: of the hashes of near duplicates.
    """
    from nbg_lightning.construction.filtering.corpus import CorpusSettings
    from nbg_lightning.construction.filtering.corpus import build_corpus as build
    from nbg_lightning.construction.filtering.deduplicate import NearDuplicates
    from nbg_lightning.construction.filtering.documents import Limits

    near = NearDuplicates(similarity, seed=seed) if near_duplicates else None
    settings = CorpusSettings(Limits(max_bytes, broken_encoding), near, signals)
    corpus = build(sources, out, settings, benchmarks, ngram, trust, engine, num_workers)
    report = corpus.report
    say(f"{out}: {report['rows']:,} documents, {report['bytes'] / 1e6:,.1f} MB; dropped: {report['dropped']}")
    for name, counts in report["sources"].items():
        say(f"  {name}: " + ", ".join(f"{kind} {number:,}" for kind, number in counts.items()))
    for reason, places in report["examples"].items():
        say(f"  {reason}, for example: {places[0]}")


def main(argv: list[str]) -> int:
    """Run the command."""
    call(build_corpus, "build-corpus", argv)
    return 0


def parser() -> Any:
    """The options."""
    return parser_of(build_corpus, "build-corpus")
