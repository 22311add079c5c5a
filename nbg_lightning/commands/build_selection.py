"""`nbg build-selection`: from scores to pools that train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from nbg_lightning.commands.function import call, parser_of, say

SUMMARY = "from scores to HQ and MQ pools, with a report of histograms and samples, and the YAML that trains on them"


@dataclass
class Pool:
    """Exactly one of these.

    Args:
        threshold: least score.
        tokens: how many, such as 3B.
        share: of all tokens that may be in a pool, 0 to 1.
    """

    threshold: float | None = None
    tokens: int | str | None = None
    share: float | None = None


def build_selection(
    corpus: str,
    columns: list[str],
    out: str,
    score: dict[str, float] | None = None,
    hq: Pool | None = None,
    mq: Pool | None = None,
    bar: list[str] | None = None,
    limits: dict[str, list[float | None]] | None = None,
    tokenizer: str | None = None,
    tokens_per_step: int = 8192,
    sequence_length: int = 256,
    engine: Literal["local", "ray"] = "local",
    num_workers: int | None = None,
    seed: int = 0,
) -> None:
    """From scores to HQ and MQ pools, with a report of histograms and samples, and the YAML that trains on them.

    Args:
        corpus: folder of `nbg build-corpus`.
        columns: folders of `nbg build-tags` and `nbg build-recall`.
        out: folder that is made, or gone on with.
        score: column to weight; by default quality 1, and recall 2 where it is given.
        hq: size of HQ; a share of 0.3 by default.
        mq: size of MQ, from the end of HQ on; a share of 0.4 by default.
        bar: patterns of rules that bar a document from both, such as ``gopher/*``; much repetition by default.
        limits: column to [least, most]; null for no limit.
        tokenizer: counts tokens; they are bytes / 4 without it.
        tokens_per_step: of the stages in the YAML.
        sequence_length: of the stages in the YAML.
        engine: processes of this machine, or Ray Data.
        num_workers: processes; one for each core by default, 0 for none beside this one.
        seed: of the order of equal scores, and of the samples that are shown.
    """
    from nbg_lightning.construction.filtering.selection import PoolSize, SelectionSettings
    from nbg_lightning.construction.filtering.selection import build_selection as build
    from nbg_lightning.construction.filtering.table import Table

    pairs: dict[str, tuple[float | None, float | None]] = {}
    for name, limit in (limits or {}).items():
        if len(limit) != 2:
            raise ValueError(f"limits of {name} are {limit}: give [least, most], null for no limit")
        pairs[name] = (limit[0], limit[1])
    defaults = SelectionSettings()
    settings = SelectionSettings(
        score,
        defaults.bar if bar is None else tuple(bar),
        pairs,
        defaults.hq if hq is None else PoolSize(hq.threshold, hq.tokens, hq.share),
        defaults.mq if mq is None else PoolSize(mq.threshold, mq.tokens, mq.share),
        tokens_per_step,
        sequence_length,
        seed,
    )
    report = build(Table(corpus), [Table(folder) for folder in columns], out, settings, tokenizer, engine, num_workers)
    for pool, own in report["pools"].items():
        say(
            f"{out}/{pool}: {own['documents']:,} documents, {own['tokens']:,} tokens, score {own['least_score']:.3f} or more"
        )
    say(f"tokens are {report['tokens_are']}; barred: {sum(report['barred'].values()):,} documents")
    say(f"look at {out}/report.md, and train with {out}/curriculum.yaml")


def main(argv: list[str]) -> int:
    """Run the command."""
    call(build_selection, "build-selection", argv)
    return 0


def parser() -> Any:
    """The options."""
    return parser_of(build_selection, "build-selection")
