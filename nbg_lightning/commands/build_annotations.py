"""`nbg build-annotations`: scores of a sample of a corpus by a strong model, or by what is known of its sources."""

from __future__ import annotations

from typing import Any

from nbg_lightning.commands.function import call, parser_of, say
from nbg_lightning.engines.chat import Template
from nbg_lightning.engines.protocol import Engine
from nbg_lightning.moved import recorded_name

SUMMARY = "scores of a sample of a corpus by a strong model and a rubric: what a tagger learns from"


def build_annotations(
    corpus: str,
    out: str,
    engine: Engine | None = None,
    tokenizer: str | None = None,
    template: Template = "auto",
    rubric: str | None = None,
    number: int = 2000,
    per_source: bool = True,
    max_characters: int = 6000,
    attempts: int = 3,
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    retry_temperature: float = 0.7,
    batch: int = 64,
    labels: dict[str, dict[str, float]] | None = None,
    seed: int = 0,
) -> None:
    """Scores of a sample of a corpus by a strong model and a rubric: what a tagger learns from.

    Args:
        corpus: folder of `nbg build-corpus`.
        out: folder that is made, or gone on with.
        engine: the annotator, such as nbg_lightning.engines.ServerEngine.
        tokenizer: the annotator's, where its engine takes ids; none for a server that takes messages.
        template: chat format of the annotator.
        rubric: YAML with the dimensions; the library's own 20 by default.
        number: of documents.
        per_source: the same number of every source, as far as it has them.
        max_characters: of a document that the annotator sees.
        attempts: answers that are asked for before a document is given up.
        max_new_tokens: of an answer.
        temperature: of the first attempt.
        retry_temperature: of further ones.
        batch: documents in a call to the engine.
        labels: instead of an engine, dimension to source to score (0 to 9), such as {wanted: {ham: 9, spam: 0}}.
        seed: of the choice of documents and of the sampling.
    """
    from nbg_lightning.construction.filtering.annotate import AnnotationSettings, annotate, label_by_source
    from nbg_lightning.construction.filtering.rubric import load_rubric
    from nbg_lightning.construction.filtering.table import Table
    from nbg_lightning.data.tokenizer import load_tokenizer
    from nbg_lightning.engines.chat import Writer

    if (engine is None) == (labels is None):
        raise ValueError("give either an engine that annotates, or labels of sources")
    table = Table(corpus)
    if labels is not None:
        report = label_by_source(table, labels, out, number, seed)
        say(f"{out}: {report['scored']:,} documents have the labels of their sources")
        return
    assert engine is not None
    settings = AnnotationSettings(
        number, per_source, max_characters, attempts, max_new_tokens, temperature, retry_temperature, batch, seed
    )
    loaded = None if tokenizer is None else load_tokenizer(tokenizer)
    about = {"engine": describe(engine), "tokenizer": loaded and loaded.fingerprint, "template": template}
    with engine:
        report = annotate(table, Writer(engine, loaded, template), load_rubric(rubric), out, settings, about)
    say(f"{out}: {report['scored']:,} of {report['documents']:,} documents scored")
    for kind in ("failed_answers", "given_up"):
        for name, found in report[kind].items():
            first = f", first {found['first']}" if "first" in found else ""
            say(f"  {kind.replace('_', ' ')}: {name} {found['count']:,}{first}")


def describe(engine: Engine) -> dict[str, str]:
    """Class and plain settings of an engine, for provenance; nothing that looks like a secret."""
    plain = {
        name: str(value)
        for name, value in vars(engine).items()
        if not name.startswith("_")
        and isinstance(value, str | int | float | bool)
        and not any(word in name.lower() for word in ("key", "token", "secret", "password", "header", "version"))
    }
    return {"class": recorded_name(type(engine)), **plain}


def main(argv: list[str]) -> int:
    """Run the command."""
    call(build_annotations, "build-annotations", argv)
    return 0


def parser() -> Any:
    """The options."""
    return parser_of(build_annotations, "build-annotations")
