"""MultiChallenge: conversations whose last turn a model must answer in keeping with the earlier ones (arXiv 2501.17399)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from typing_extensions import override

from nbg_lightning.evaluation.benchmark import ChatMessage, Item
from nbg_lightning.evaluation.results import Record, category_mean
from nbg_lightning.evaluation.rows import Row
from nbg_lightning.evaluation.statistics import Interval
from nbg_lightning.evaluation.tasks.judged import Judged
from nbg_lightning.scoring.judgements import read_yes_or_no
from nbg_lightning.scoring.result import Verdict

_PROMPT = """Does an answer meet a criterion? Be strict: what is met only in part is not met.

<|answer|>
{text}

<|criterion|>
{criterion}

Give your reasons in a few sentences, and end with a line that is YES or NO alone."""


@dataclass(kw_only=True)
class MultiChallenge(Judged):
    """Rows of the authors' file: ``CONVERSATION``, ``TARGET_QUESTION``, ``PASS_CRITERIA`` (YES or NO) and ``AXIS``.

    A judge answers the target question about the answer; the score is 1 if this matches the criterion. Each axis is a
    category; the authors' metric is their mean, ``category_mean``.
    """

    label: ClassVar[str] = "multi_challenge"
    file_names: ClassVar[tuple[str, ...]] = ("benchmark_questions", "test")

    def parse(self, row: Row, place: str) -> Item:
        turns, wanted = row["CONVERSATION"], str(row["PASS_CRITERIA"]).strip().upper()
        if wanted not in ("YES", "NO"):
            raise ValueError(f"PASS_CRITERIA is {wanted[:20]!r}, not YES or NO")
        if not isinstance(turns, list) or not turns or turns[-1]["role"] != "user":
            raise ValueError("CONVERSATION does not end with a turn of the user")
        kept = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
        data = {"turns": kept, "criterion": row["TARGET_QUESTION"]}
        identity = str(row.get("QUESTION_ID", place))
        return Item(identity, kept[-1]["content"], wanted == "YES", category=row["AXIS"], data=data)

    @override
    def conversation(self, item: Item, shots: Sequence[Item]) -> tuple[list[ChatMessage], list[dict[str, Any]] | None]:
        return list(item.data["turns"]), None

    @override
    def text(self, item: Item) -> str:
        turns = [f"{turn['role'].capitalize()}: {turn['content']}" for turn in item.data["turns"]]
        return "\n\n".join([*turns, "Assistant:"])

    def questions(self, item: Item, text: str) -> list[str]:
        return [_PROMPT.format(text=text, criterion=item.data["criterion"])]

    def verdict(self, item: Item, judgements: list[str]) -> Verdict:
        return Verdict(float(read_yes_or_no(judgements[0]) == item.answer))

    @override
    def over_all(self, records: Sequence[Record], confidence: float) -> dict[str, tuple[float, Interval | None]]:
        return {"category_mean": (category_mean(records), None)}
