"""Custom items: questions in a JSON-lines file, and texts for perplexity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from nbg_lightning.data.golds import gold_text, right_choice
from nbg_lightning.data.question_sources import QuestionSource
from nbg_lightning.evaluation.benchmark import Benchmark, Item, Kind
from nbg_lightning.evaluation.rows import Row
from nbg_lightning.scoring.result import Verdict
from nbg_lightning.scoring.verdicts import score_exact, score_math, score_number


@dataclass(kw_only=True)
class Questions(Benchmark):
    """Rows of ``question`` and ``answer``; with ``choices``, ``answer`` is the correct one's text, label or index.

    Further fields: ``id``, ``category``, and ``answer_index`` or ``answerKey`` instead of ``answer`` (see `right_choice`).
    Either all rows have choices, or none. Instead of a file: a source of questions, as in `PromptDataModule`, to evaluate
    on the kind of questions that is trained on.

    Args:
        source: source of single-turn questions with a gold answer, instead of ``path``.
        scorer: how a generated answer is compared: as a text (``exact``), by its number, or as mathematics.
        answers: ``rated`` needs choices.
    """

    source: QuestionSource | None = None
    scorer: Literal["exact", "number", "math"] = "exact"
    answers: Literal["written", "rated"] = "written"

    label: ClassVar[str] = "questions"
    file_names: ClassVar[tuple[str, ...]] = ("questions", "test", "validation")
    stop_texts: ClassVar[tuple[str, ...]] = ("\n",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.kind: Kind = "choices" if self.answers == "rated" else "generate"  # type: ignore[misc]  # the class's, by its settings
        if (self.path is None) == (self.source is None):
            given = "nothing" if self.path is None else "both"
            raise ValueError(
                f"{self.name} has no path; give a JSON-lines file with question and answer in each line, or source, not {given}"
            )

    def _rows(self) -> tuple[str, Iterator[tuple[str, Row]]]:
        if self.source is None:
            return super()._rows()
        return type(self.source).__name__, self._questions(self.source)

    @staticmethod
    def _questions(source: QuestionSource) -> Iterator[tuple[str, Row]]:
        for number, question in enumerate(source.questions()):
            if len(question.messages) != 1 or question.answer is None:
                yield f"question {number}", {"": "not one turn with a gold answer"}
            else:
                kept = {
                    name: question.data[name] for name in ("choices", "category", "cluster") if name in question.data
                }
                row: Row = {"id": question.key, "question": question.messages[0]["content"], "answer": question.answer}
                yield f"question {number}", row | kept

    def parse(self, row: Row, place: str) -> Item:
        identity, question, category = str(row.get("id", place)), _asked(row), row.get("category")
        chosen = right_choice(row)
        if self.answers == "rated":
            if chosen is None:
                raise ValueError("there are no choices; give choices, or set answers to written")
            return Item(identity, question, chosen[1], chosen[0].texts, category)
        gold = gold_text(row["answer"]) if chosen is None else chosen[0].texts[chosen[1]]
        if gold is None:
            raise ValueError("there is no answer")
        return Item(identity, question, gold, category=category)

    def score(self, item: Item, text: str) -> Verdict:
        return {"exact": score_exact, "number": score_number, "math": score_math}[self.scorer](text, item.answer)


def _asked(row: Row) -> str:
    question = row["question"]
    if not isinstance(question, str) or not question.strip():
        raise ValueError("the question has no text")
    return question


@dataclass(kw_only=True)
class TextPerplexity(Benchmark):
    """Bits per byte of whole texts, each predicted from its beginning; comparable between tokenizers.

    Args:
        field: the rows' field with the text.
    """

    field: str = "text"

    label: ClassVar[str] = "perplexity"
    kind: ClassVar[Kind] = "perplexity"
    primary: ClassVar[str] = "bits_per_byte"
    file_names: ClassVar[tuple[str, ...]] = ("validation", "test")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is None:
            raise ValueError(f"{self.name} has no path; give a JSON-lines file with {self.field!r} in each line")

    def parse(self, row: Row, place: str) -> Item:
        text = row[self.field]
        if not isinstance(text, str) or not text:
            raise ValueError(f"{self.field!r} is no text, or an empty one")
        return Item(str(row.get("id", place)), answer=text, category=row.get("category"))
