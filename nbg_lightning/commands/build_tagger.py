"""`nbg build-tagger`: a small fast model of the annotator's scores."""

from __future__ import annotations

from typing import Any

from nbg_lightning.commands.function import call, parser_of

SUMMARY = "a small model of an annotator's scores that tags megabytes a second on a core, with its rank correlations"


def build_tagger(
    corpus: str,
    annotations: str,
    out: str,
    rubric: str | None = None,
    validation_share: float = 0.2,
    bits: int = 18,
    pairs: bool = True,
    max_bytes: int = 1 << 20,
    seed: int = 0,
) -> None:
    """A small model of an annotator's scores, with its rank correlations on documents that it has not seen.

    Args:
        corpus: folder of `nbg build-corpus`.
        annotations: folder of `nbg build-annotations`.
        out: folder that is made.
        rubric: YAML with the weights of dimensions in the quality; the library's own by default.
        validation_share: of documents held out.
        bits: features are hashed to 2^bits columns.
        pairs: neighbouring words are features too.
        max_bytes: a longer document is judged by its beginning.
        seed: of the choice of held-out documents.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable

    from nbg_lightning.construction.filtering.features import HashedFeatures
    from nbg_lightning.construction.filtering.rubric import load_rubric
    from nbg_lightning.construction.filtering.table import Table
    from nbg_lightning.construction.filtering.tagger import load_annotated, train_tagger

    table = Table(corpus)
    found = load_rubric(rubric)
    data = load_annotated(table, annotations)
    about = {"corpus": table.fingerprint, "rubric": found.to_dict()}
    report = train_tagger(data, out, found, HashedFeatures(bits, pairs, max_bytes), validation_share, seed, about)
    shown = RichTable(title=f"{report['held_out']:,} of {report['documents']:,} held out", box=box.SIMPLE_HEAD)
    for column in ("dimension", "rank correlation", "mean absolute error", "AUC"):
        shown.add_column(column, justify="left" if column == "dimension" else "right")
    for name, own in {**report["dimensions"], "quality": report["quality"]}.items():
        numbers = (own.get(key) for key in ("rank_correlation", "mean_absolute_error", "auc"))
        shown.add_row(name, *("" if number is None else f"{number:.3f}" for number in numbers))
    Console().print(shown)


def main(argv: list[str]) -> int:
    """Run the command."""
    call(build_tagger, "build-tagger", argv)
    return 0


def parser() -> Any:
    """The options."""
    return parser_of(build_tagger, "build-tagger")
