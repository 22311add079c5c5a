"""Records as an HTML page with search and filters, for one run or two side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nbg_lightning.pages.document import asset, document, shortened, text
from nbg_lightning.pages.records import (
    Bar,
    Facts,
    ShownAnswer,
    ShownOutcome,
    ShownPiece,
    ShownRecord,
    ShownRecords,
    ShownTurn,
    Side,
    side_by_side,
)

PAGE_CHARACTERS = 20_000_000  # of all texts together: what a browser opens at once
SHORTEST_TEXT = 200  # characters that are left of a text, however many there are
_OUTCOMES = {
    "right": "all right",
    "wrong": "all wrong",
    "mixed": "some right, or between",
    "unscored": "without a score",
}
_CHANGES = {"better": "second run better", "worse": "second run worse", "same": "the same"}
_ORDERS = {
    "file": "as in the file",
    "low": "lowest score first",
    "high": "highest score first",
    "spread": "largest spread first",
    "long": "longest first",
}


def viewer_page(
    title: str,
    collections: Sequence[ShownRecords],
    others: Sequence[ShownRecords] | None = None,
    names: tuple[str, str] = ("first", "second"),
    max_characters: int = 20_000,
) -> str:
    """The page as HTML.

    Args:
        title: title of the page.
        collections: records of the run.
        others: records of a second run, shown next to those with the same key.
        names: names of the two runs.
        max_characters: longer texts are truncated in the middle, with a note of how much is omitted; the limit is lowered
            if needed, so that the page has at most `PAGE_CHARACTERS`.
    """
    sides = side_by_side(
        [record for each in collections for record in each.records],
        None if others is None else [record for each in others for record in each.records],
    )
    num_texts = sum(map(_num_texts, sides))
    limit = min(max_characters, max(SHORTEST_TEXT, PAGE_CHARACTERS // max(1, num_texts)))
    cards = "".join(
        _card(side, place, names if others is not None else None, limit) for place, side in enumerate(sides)
    )
    body = "".join(
        [
            f"<h1>{text(title)}</h1>",
            _summaries(collections, others, names),
            legend(sides),
            _tools(sides, others is not None),
            f"<main id=cards>{cards}</main>",
        ]
    )
    return document(title, body, asset("viewer.css"), asset("viewer.js"))


def _num_texts(side: Side) -> int:
    return sum(
        len(record.prompt) + sum(len(answer.turns) for answer in record.answers)
        for record in (side.first, side.second)
        if record
    )


def _summaries(
    collections: Sequence[ShownRecords], others: Sequence[ShownRecords] | None, names: tuple[str, str]
) -> str:
    own = "".join(map(_collection, collections))
    if others is None:
        return own
    second = "".join(map(_collection, others))
    return f"<div class='sides two'><div><b>{text(names[0])}</b>{own}</div><div><b>{text(names[1])}</b>{second}</div></div>"


def _collection(collection: ShownRecords) -> str:
    shown = len(collection.records)
    few = "" if shown == collection.total else f", of which {shown:,} are here, evenly spread (--limit shows more)"
    parts = [
        f"<p>{text(collection.title)}: {collection.total:,} {text(collection.noun)}{few}</p>",
        _facts(collection.facts),
        *(f"<p class=worse>{text(note)}</p>" for note in collection.notes),
    ]
    if collection.bars is not None:
        title, bars = collection.bars
        parts.append(f"<div class=quiet>{text(title)}</div><div class=chart>{''.join(map(_bar, bars))}</div>")
    return "".join(parts)


def _bar(bar: Bar) -> str:
    length = min(1.0, max(0.0, bar.length))
    return f"<span>{text(bar.label)}</span><progress value={length:.4f}></progress><span>{text(bar.value)}</span>"


def legend(sides: Sequence[Side]) -> str:
    """The legend of these records' marks; empty if no weights are known."""
    weights = {piece.weight for side in sides for piece in _pieces(side)} - {None}
    if not weights:
        return ""
    marks = ["<mark>covered by the loss</mark>"] if 1.0 in weights else []
    if weights - {0.0, 1.0}:
        marks.append("<mark class=weighted>with a weight other than 1</mark>")
    return f"<p class=legend>{' '.join(marks)} <span class=quiet>context is plain</span></p>"


def _pieces(side: Side) -> Iterable[ShownPiece]:
    for record in (side.first, side.second):
        if record is not None:
            for turn in (*record.prompt, *(turn for answer in record.answers for turn in answer.turns)):
                yield from turn.pieces


def _tools(sides: Sequence[Side], two: bool) -> str:
    records = [side.record for side in sides]
    groups = list(dict.fromkeys(record.group for record in records))
    outcomes = {name: label for name, label in _OUTCOMES.items() if any(r.outcome == name for r in records)}
    scored = set(outcomes) - {"unscored"}
    orders = _ORDERS if scored else {name: _ORDERS[name] for name in ("file", "long")}
    parts = ["<label>search (all words)<input type=search id=search autocomplete=off></label>"]
    if len(groups) > 1:
        parts.append(_select("group", "of", {"": "all", **{name: name for name in groups}}))
    if len(outcomes) > 1:
        parts.append(_select("outcome", "answers", {"": "all", **outcomes}))
    if two:
        parts.append(_select("change", "change", {"": "all", **_CHANGES}))
    parts += [
        _select("order", "order", orders),
        "<button id=back type=button aria-label='previous page'>&larr;</button>",
        "<button id=next type=button aria-label='next page'>&rarr;</button>",
        "<span class=count id=count aria-live=polite></span>",
    ]
    return f"<div class=tools hidden role=search>{''.join(parts)}</div>"


def _select(name: str, label: str, options: dict[str, str]) -> str:
    listed = "".join(f'<option value="{text(value)}">{text(said)}</option>' for value, said in options.items())
    return f"<label>{label}<select id={name}>{listed}</select></label>"


def _card(side: Side, place: int, names: tuple[str, str] | None, limit: int) -> str:
    record = side.record
    scores = record.scores
    spread = f"{max(scores) - min(scores):.6g}" if scores else ""
    score = "" if record.score is None else f"{record.score:.6g}"
    length = sum(len(piece.text) for piece in _pieces(side))
    change = f' data-change="{side.change}"' if names else ""
    begin = (
        f'<article data-place={place} data-group="{text(record.group)}" data-outcome={record.outcome} data-score="{score}" '
        f'data-spread="{spread}" data-length={length}{change}>'
        f"<header><h3>{text(record.title)}</h3>{_changed(side) if names else ''}</header>"
    )
    if names is None:
        return begin + record_html(record, limit) + "</article>"
    columns = []
    same_prompt = side.first is not None and side.second is not None and side.first.prompt == side.second.prompt
    for name, each in zip(names, (side.first, side.second), strict=True):
        missing = "<p class=quiet>not in this run</p>"
        columns.append(
            f"<div><b>{text(name)}</b>{missing if each is None else record_html(each, limit, prompt=not same_prompt)}</div>"
        )
    common = _question(record, limit) if same_prompt else ""
    return f"{begin}{common}<div class='sides two'>{''.join(columns)}</div></article>"


def _changed(side: Side) -> str:
    if not side.change:
        return ""
    assert side.first is not None and side.second is not None
    before, after = side.first.score, side.second.score
    mark = {"better": "better", "worse": "worse", "same": "quiet"}[side.change]
    return f"<span class={mark}>{before:.3g} &rarr; {after:.3g}</span>"


def record_html(record: ShownRecord, limit: int, prompt: bool = True) -> str:
    """A record with its answers, turn by turn, with trained tokens marked; for pages with ``viewer.css``.

    Args:
        record: the record.
        limit: characters per text; longer ones are truncated in the middle.
        prompt: whether the prompt is shown.
    """
    answers = "".join(_answer(answer, limit) for answer in record.answers)
    return (_prompt(record, limit) if prompt else _facts(record.facts)) + (
        f"<div class=answers>{answers}</div>" if answers else ""
    )


def _prompt(record: ShownRecord, limit: int) -> str:
    return _facts(record.facts) + _question(record, limit)


def _question(record: ShownRecord, limit: int) -> str:
    gold = "" if record.gold is None else f"<div class=facts>gold <b>{text(shortened(record.gold, limit))}</b></div>"
    return "".join(_turn(turn, limit) for turn in record.prompt) + gold


def _answer(answer: ShownAnswer, limit: int) -> str:
    outcome: ShownOutcome = ShownRecord("", "", "", answers=(answer,)).outcome
    score = () if answer.score is None else (("score", f"{answer.score:.4g}"),)
    return (
        f"<div class='answer {outcome}'><div class=facts>{text(answer.name)} {_pairs((*score, *answer.facts))}</div>"
        f"{''.join(_turn(turn, limit) for turn in answer.turns)}</div>"
    )


def _turn(turn: ShownTurn, limit: int) -> str:
    role = f"<div class=role>{text(turn.role)}</div>" if turn.role else ""
    return f"{role}<pre class=text tabindex=0>{''.join(_cut(turn.pieces, limit))}</pre>"


def _cut(pieces: Sequence[ShownPiece], limit: int) -> Iterable[str]:
    """The pieces of a text as HTML, with as much of its beginning and end as the limit allows."""
    total = sum(len(piece.text) for piece in pieces)
    end = limit // 2
    begin = limit - end if total > limit else total
    place, said = 0, False
    for piece in pieces:
        stop = place + len(piece.text)
        yield _marked(piece, piece.text[: max(0, begin - place)])
        if total > limit and stop > begin:
            if not said:
                yield f"\n<i class=quiet>[… {total - limit:,} of {total:,} characters left out …]</i>\n"
                said = True
            yield _marked(piece, piece.text[max(0, total - end - place) :])
        place = stop


def _marked(piece: ShownPiece, part: str) -> str:
    if not part:
        return ""
    if not piece.weight:
        return text(part)
    kind = "" if piece.weight == 1 else " class=weighted"
    title = "" if piece.weight == 1 else f" title='weight {piece.weight:g}'"
    return f"<mark{kind}{title}>{text(part)}</mark>"


def _facts(facts: Facts) -> str:
    return f"<div class=facts>{_pairs(facts)}</div>" if facts else ""


def _pairs(facts: Facts) -> str:
    return " · ".join(f"{text(name)} <b>{text(shortened(value, SHORTEST_TEXT))}</b>" for name, value in facts)
