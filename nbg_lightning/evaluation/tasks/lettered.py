"""Multiple choice with letters: rated by log-likelihood, or answered by generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from nbg_lightning.data.golds import LETTERS, Choices
from nbg_lightning.evaluation.benchmark import Benchmark, Item, Kind
from nbg_lightning.scoring.result import Verdict
from nbg_lightning.scoring.verdicts import score_letter


def option_index(answer: Any, count: int) -> int:
    """The index of the correct option, given as an index from 0 or as a letter (``B``, ``b``, ``(B)``).

    Raises:
        ValueError: it is not one of the letters. An index is checked by `Lettered.lettered`.
    """
    letters = tuple(LETTERS[:count])
    return Choices(letters, letters).right(answer) if isinstance(answer, str) else answer


@dataclass(kw_only=True)
class Lettered(Benchmark):
    """A question, its options as "A. ...", and one correct letter.

    Args:
        answers: ``rated`` compares the log-likelihoods of the letters; ``written`` parses the letter from a generated
            answer, for chat models.
    """

    answers: Literal["rated", "written"] = "rated"

    instruction: ClassVar[str] = (
        "Think step by step, and end with: The answer is (X), where X is the letter of one option."
    )
    stop_texts: ClassVar[tuple[str, ...]] = ("\n\nQuestion:", "\nQuestion:")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.kind: Kind = "choices" if self.answers == "rated" else "generate"  # type: ignore[misc]  # the class's, by its settings

    @staticmethod
    def lettered(
        identity: str, question: str, options: list[str], right: int, category: str | None = None, **data: object
    ) -> Item:
        """An item whose choices are letters.

        Raises:
            ValueError: the right answer is none of the options.
        """
        if isinstance(right, bool) or not 0 <= right < len(options) or len(options) < 2:
            raise ValueError(f"option {right} of {len(options)} cannot be the right one")
        data = {"options": options, "letter": LETTERS[right], **data}
        return Item(identity, question.strip(), right, tuple(LETTERS[: len(options)]), category, data)

    def options(self, item: Item) -> str:
        """The question with its options."""
        lines = [f"{letter}. {option}" for letter, option in zip(item.choices, item.data["options"], strict=True)]
        return "\n".join([item.question, *lines])

    def text(self, item: Item) -> str:
        return f"Question: {self.options(item)}\nAnswer:"

    def message(self, item: Item) -> str:
        rated = "Answer with the letter of one option only."
        return f"{self.options(item)}\n\n{rated if self.answers == 'rated' else self.instruction}"

    def solution(self, item: Item) -> str:
        return item.data["letter"] if self.answers == "rated" else f"The answer is ({item.data['letter']})."

    def score(self, item: Item, text: str) -> Verdict:
        return score_letter(text, item.data["letter"], item.choices, item.data["options"])
