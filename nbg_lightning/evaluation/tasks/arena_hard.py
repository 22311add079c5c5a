"""Arena-Hard v2: hard user requests, compared with another model's answers (Li et al. 2024, arXiv 2406.11939)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from nbg_lightning.evaluation.benchmark import HubName, Item
from nbg_lightning.evaluation.results import Record
from nbg_lightning.evaluation.rows import ItemsMissing, Row, file_rows, hub_file
from nbg_lightning.evaluation.statistics import Interval, mean_interval
from nbg_lightning.evaluation.style_control import controlled_win_rate, style, style_difference
from nbg_lightning.evaluation.tasks.judged import PairwiseJudged
from nbg_lightning.scoring.judgements import read_pairwise
from nbg_lightning.scoring.result import Verdict

_HUB_FOLDER = "data/arena-hard-v2.0"
_STRONG = 3.0  # a clear verdict counts as so many
BASELINES = {"creative_writing": "gemini-2.0-flash-001", "": "o3-mini-2025-01-31"}
"""Which model's answers are the baseline of a category; the empty name is for all others."""


@dataclass(kw_only=True)
class ArenaHard(PairwiseJudged):
    """750 requests. Each answer is judged twice against its category's baseline, once in each position.

    ``win_rate`` is the authors' metric: over all verdicts, where ``>>`` counts three times; ``win_rate_style`` is the same
    at equal length and markdown (`nbg_lightning.evaluation.style_control`). ``accuracy`` is `PairwiseJudged`'s, for which a
    verdict counts only if both positions agree.

    ``path`` is a folder with ``question.jsonl`` (``uid``, ``category``, ``prompt``) and ``model_answer/MODEL.jsonl`` as in
    the authors' repository, or a JSON-lines file with ``prompt`` and ``baseline``.

    Args:
        baselines: name of the baseline model by category; the empty name applies to all others.
        categories: categories to use, such as ``hard_prompt``; all by default.
    """

    baselines: dict[str, str] = field(default_factory=lambda: dict(BASELINES))
    categories: list[str] = field(default_factory=list)

    label: ClassVar[str] = "arena_hard_v2"
    licence: ClassVar[str] = "Apache-2.0"
    primary: ClassVar[str] = "win_rate"
    hub: ClassVar[HubName | None] = HubName("lmarena-ai/arena-hard-auto")

    def _rows(self) -> tuple[str, Iterator[tuple[str, Row]]]:
        if self.path is not None and not (Path(self.path).expanduser() / "model_answer").is_dir():
            origin, rows = super()._rows()
        else:
            origin, rows = self._of_folder()
        return origin, (row for row in rows if self._is_wanted(row[1]))

    def _is_wanted(self, row: Row) -> bool:
        return "" in row or not self.categories or row.get("category") in self.categories

    def _file(self, name: str) -> Path:
        if self.path is not None:
            return Path(self.path).expanduser() / name
        assert self.hub is not None
        return hub_file(self.hub.name, f"{_HUB_FOLDER}/{name}")

    def _of_folder(self) -> tuple[str, Iterator[tuple[str, Row]]]:
        questions, rows = file_rows(self._file("question.jsonl"))
        return str(questions), self._with_baselines(rows)

    def _with_baselines(self, rows: Iterator[tuple[str, Row]]) -> Iterator[tuple[str, Row]]:
        answers: dict[str, dict[str, str]] = {}
        for place, row in rows:
            if "" in row or not self._is_wanted(row):
                yield place, row
                continue
            model = self.baselines.get(str(row.get("category")), self.baselines.get("", ""))
            if model not in answers:
                answers[model] = self._answers(model)
            baseline = answers[model].get(str(row.get("uid")))
            yield place, {**row, "baseline": baseline} if baseline else {"": f"{model} has no answer to it"}

    def _answers(self, model: str) -> dict[str, str]:
        """Answers of a model by the question's uid."""
        try:
            rows = file_rows(self._file(f"model_answer/{model}.jsonl"))[1]
        except ItemsMissing as error:
            raise ItemsMissing(
                f"{self.name}: {error}; give the file for its baseline {model!r}, or choose baselines"
            ) from None
        return {str(row["uid"]): text for _, row in rows if "uid" in row and (text := _answer(row))}

    def verdict(self, item: Item, judgements: list[str]) -> Verdict:
        first, swapped = map(read_pairwise, judgements)
        verdict = super().verdict(item, judgements)
        votes = [_vote(first), _vote(1.0 - swapped)]
        total = sum(weight for _, weight in votes)
        won = sum(win * weight for win, weight in votes)
        return Verdict(verdict.score, extra={"win_rate": (won, total)})

    @override
    def over_all(self, records: Sequence[Record], confidence: float) -> dict[str, tuple[float, Interval | None]]:
        assert self._loaded is not None
        baselines = {item.id: style(item.answer) for item in self._loaded.items if item.error is None}
        wins, totals, differences, items = [], [], [], []
        for number, record in enumerate(records):
            for sample in record["samples"]:
                if "win_rate" in sample.get("extra", ()):
                    won, total = sample["extra"]["win_rate"]
                    wins.append(won)
                    totals.append(total)
                    differences.append(style_difference(style(sample["text"]), baselines[record["id"]]))
                    items.append(number)
        if not wins:
            return {}
        shares = np.array(wins) / np.array(totals)
        rate, interval = controlled_win_rate(shares.tolist(), totals, np.array(differences), items, confidence)
        own = mean_interval(wins, totals, confidence, (0.0, 1.0), items)
        return {"win_rate": (sum(wins) / sum(totals), own), "win_rate_style": (rate, interval)}


def _vote(worth: float) -> tuple[float, float]:
    """The result of a verdict for the answer (1 won, 0.5 tie, 0 lost), and its weight."""
    win = 1.0 if worth > 0.5 else 0.0 if worth < 0.5 else 0.5
    return win, _STRONG if worth in (0.0, 1.0) else 1.0


def _answer(row: dict[str, Any]) -> str | None:
    """The text of a row of a model's answers."""
    try:
        content = row["messages"][-1]["content"]
        text = content["answer"] if isinstance(content, dict) else content
    except (KeyError, IndexError, TypeError):
        return None
    return text if isinstance(text, str) else None
