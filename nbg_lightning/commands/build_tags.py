"""`nbg build-tags`: the scores of every document of a corpus."""

from __future__ import annotations

from typing import Any, Literal

from nbg_lightning.commands.function import call, parser_of, say

SUMMARY = "the tagger's scores of every document of a corpus, and what a given model's perplexity says"


def build_tags(
    corpus: str,
    out: str,
    tagger: str | None = None,
    perplexity_weights: str | None = None,
    perplexity_tokens: int = 1024,
    perplexity_tokenizer: str | None = None,
    engine: Literal["local", "ray"] = "local",
    num_workers: int | None = None,
) -> None:
    """The tagger's scores of every document of a corpus, and what a given model's perplexity says.

    Args:
        corpus: folder of `nbg build-corpus`.
        out: folder that is made, or gone on with.
        tagger: folder of `nbg build-tagger`; columns for every dimension, and quality.
        perplexity_weights: a model; a column bits_per_byte.
        perplexity_tokens: of a document that the model sees, at most.
        perplexity_tokenizer: the model's; that of its folder or checkpoint by default.
        engine: processes of this machine, or Ray Data.
        num_workers: processes; one for each core by default, 0 for none beside this one.
    """
    from nbg_lightning.construction.filtering.columns import build_columns
    from nbg_lightning.construction.filtering.perplexity import Perplexity
    from nbg_lightning.construction.filtering.table import Table
    from nbg_lightning.construction.filtering.tagger import Tagger
    from nbg_lightning.construction.step import Chain, Step

    if tagger is None and perplexity_weights is None:
        raise ValueError("there is nothing to tag with: give tagger, perplexity_weights or both")
    documents = Table(corpus)
    steps: list[Step] = [] if tagger is None else [Tagger(tagger)]
    if perplexity_weights is not None:
        steps.append(Perplexity(perplexity_weights, perplexity_tokens, perplexity_tokenizer))
    table = build_columns("tags", documents, Chain(steps), out, engine, num_workers)
    speed = table.report["this_run"]["megabytes_per_second_of_a_core"]
    say(f"{out}: {len(table):,} documents tagged, {speed:,.1f} MB a second of one core's time")


def main(argv: list[str]) -> int:
    """Run the command."""
    call(build_tags, "build-tags", argv)
    return 0


def parser() -> Any:
    """The options."""
    return parser_of(build_tags, "build-tags")
