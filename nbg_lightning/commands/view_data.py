"""The data of a config as records of a page: rendered as they will be trained or asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from nbg_lightning.chat.renderer import RenderCounts, Rendered, render_samples
from nbg_lightning.commands.data_preview import FirstRows, Prepared, document_windows, prepare, window_length
from nbg_lightning.commands.settings import make_datamodule, read_config
from nbg_lightning.data.reading import Notes, describe, likely_mistakes, read_conversations
from nbg_lightning.pages.records import ShownAnswer, ShownPiece, ShownRecord, ShownRecords, ShownTurn, fact
from nbg_lightning.pages.samples import pair_turns, rendered_turn
from nbg_lightning.pages.values import as_text, key_of

if TYPE_CHECKING:
    from nbg_lightning.datamodules.chat import ChatDataModule
    from nbg_lightning.datamodules.curriculum import CurriculumDataModule
    from nbg_lightning.datamodules.preference import PreferenceDataModule
    from nbg_lightning.datamodules.questions import QuestionDataModule

Show = Callable[[str, Any, int], ShownRecords]
"""A source's name, the source and how many of its first samples as a collection."""


def data_collections(config: str, limit: int) -> list[ShownRecords]:
    """The first samples of each source of a config, ``limit`` in all.

    Raises:
        FileNotFoundError, ValueError: a config without a datamodule of the library, or sources that are not there.
    """
    from nbg_lightning.datamodules.chat import ChatDataModule
    from nbg_lightning.datamodules.curriculum import CurriculumDataModule
    from nbg_lightning.datamodules.preference import PreferenceDataModule
    from nbg_lightning.datamodules.questions import QuestionDataModule

    settings = read_config([config])
    data = make_datamodule(settings, config)
    show: Show
    if isinstance(data, PreferenceDataModule):
        show = _pairs(data)
    elif isinstance(data, ChatDataModule):
        show = _conversations(data)
    elif isinstance(data, QuestionDataModule):
        show = _questions(data)
    elif isinstance(data, CurriculumDataModule):
        show = _windows(data, window_length(settings))
    else:
        raise ValueError(
            f"{config}: {type(data).__name__} has no sources that can be shown; give a config with data of "
            "conversations, pairs, questions or texts"
        )
    share = max(1, limit // max(1, len(data.sources)))
    return [show(name, source, share) for name, source in data.sources.items()]


def _title(name: str, source: Any, made: Prepared | None = None) -> str:
    return f"{name} ({type(source).__name__}){f', {made.chat_format}' if made else ''}"


def _rendered_collection(
    title: str, noun: str, records: list[ShownRecord], counts: RenderCounts, notes: Notes
) -> ShownRecords:
    said = [f"{counts.invalid:,} invalid; first: {counts.errors[0]}"] if counts.invalid else []
    said += [f"{counts.too_long:,} too long; first: {counts.dropped_long[0]}"] if counts.too_long else []
    facts = fact("read as", describe(notes)) + fact("of the first rows", counts.summary())
    return ShownRecords(title, noun, records, len(records), [*likely_mistakes(notes), *said], facts)


def _conversations(data: ChatDataModule) -> Show:
    made = prepare(data)

    def show(name: str, source: Any, limit: int) -> ShownRecords:
        counts, notes = RenderCounts(), Notes()
        first = FirstRows(source, limit)
        found = read_conversations(first.rows, notes, source.format, source.ignored_keys)
        records = []
        for index, sample in render_samples(made.renderer, found, counts, name, place=first.place):
            facts = fact("tokens", len(sample)) + fact("trained", sample.num_trained)
            turn = rendered_turn(sample, made.tokenizer)
            records.append(ShownRecord(key_of(name, index), first.place(index), name, (turn,), facts=facts))
        return _rendered_collection(_title(name, source, made), "conversations", records, counts, notes)

    return show


def _pairs(data: PreferenceDataModule) -> Show:
    from nbg_lightning.data.pairs import PreferencePair, render_pairs
    from nbg_lightning.data.reading import add_notes

    made = prepare(data)

    def show(name: str, source: Any, limit: int) -> ShownRecords:
        counts, notes = RenderCounts(), Notes()

        def read(row: Any) -> PreferencePair:
            pair = PreferencePair.from_dict(row, source.format, source.ignored_keys)
            add_notes(notes, pair.notes)
            return pair

        first = FirstRows(source, limit)
        records = []
        for number, (pair, sides) in enumerate(
            render_pairs(made.renderer, first.rows, counts, data.sequence_length, first.place, read)
        ):
            rendered = [Rendered(ids.tolist(), mask.astype(float).tolist(), []) for ids, mask in sides.sides]
            prompt, *turns = pair_turns(rendered[0], rendered[1], made.tokenizer)
            answers = [
                ShownAnswer(
                    side,
                    (turn,),
                    None,
                    fact("tokens", len(each))
                    + fact("trained", each.num_trained)
                    + fact("score", pair.scores and pair.scores[place]),
                )
                for place, (side, turn, each) in enumerate(zip(("chosen", "rejected"), turns, rendered, strict=True))
            ]
            records.append(ShownRecord(key_of(name, number), f"{name} pair {number}", name, (prompt,), tuple(answers)))
        return _rendered_collection(_title(name, source, made), "pairs", records, counts, notes)

    return show


def _questions(data: QuestionDataModule) -> Show:
    from nbg_lightning.data.question_sources import QuestionCounts

    data.load_format()

    def show(name: str, source: Any, limit: int) -> ShownRecords:
        counts, records = QuestionCounts(), []
        refused = ""
        for number, question in enumerate(islice(source.questions(name, counts), limit)):
            try:
                ids = list(data.format.prompt(question.messages, question.data.get("tools")).ids)
            except ValueError as error:
                refused = refused or f"question {number} has no prompt: {error}"
                continue
            turn = rendered_turn(Rendered(ids, [0.0] * len(ids), []), data.tokenizer)
            gold = None if question.answer is None else as_text(question.answer)
            facts = fact("tokens of the prompt", len(ids)) + fact("data", ", ".join(question.data) or None)
            records.append(ShownRecord(question.key, f"{name} {number}", name, (turn,), gold=gold, facts=facts))
        notes = [f"{counts.invalid:,} rows are no valid questions; first: {counts.first}"] if counts.invalid else []
        return ShownRecords(
            _title(name, source), "questions", records, len(records), [*notes, *filter(None, [refused])]
        )

    return show


def _windows(data: CurriculumDataModule, length: int) -> Show:
    tokenizer = data.load_tokenizer()

    def show(name: str, source: Any, limit: int) -> ShownRecords:
        texts = (text for part in source.parts() for text in part.documents())
        windows: Iterator[list[list[int]]] = document_windows(texts, tokenizer, length)
        records = []
        for number, documents in enumerate(islice(windows, limit)):
            turns = tuple(
                ShownTurn(f"document {place}: {len(ids):,} tokens", (ShownPiece(tokenizer.decode(ids), 1.0),))
                for place, ids in enumerate(documents)
            )
            facts = fact("tokens", sum(map(len, documents))) + fact("documents", len(documents))
            records.append(ShownRecord(key_of(name, number), f"{name} window {number}", name, turns, facts=facts))
        title = f"{_title(name, source)}, windows of {length:,} tokens"
        return ShownRecords(title, "windows", records, len(records))

    return show
