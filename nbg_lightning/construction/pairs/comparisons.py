"""Comparisons: conversations that train a pairwise judge to name the better of two answers.

The folder of a build::

        manifest.json         what determines the comparisons: sources, criteria, ties
    conversations.jsonl   the result: {"messages", "source", "verdict"} for `ChatDataModule`
        report.json           how many pairs gave comparisons, and why others did not

Every pair is included in both orders, so that the position of an answer carries no information. The prompt is that of
`PairwisePreferenceReward`, which uses the trained judge.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from nbg_lightning.chat.conversation import ConversationError, Message
from nbg_lightning.construction.builder import Builder, ReportTable
from nbg_lightning.construction.outcomes import OutcomeCounts
from nbg_lightning.construction.provenance import describe
from nbg_lightning.construction.store import JsonRecord, Store
from nbg_lightning.data.chat_sources import ChatPart
from nbg_lightning.data.pair_sources import PairSource
from nbg_lightning.data.pairs import PreferencePair
from nbg_lightning.rewards.judge import conversation_text
from nbg_lightning.rewards.preference import CRITERIA, PROMPT

FORMAT = "nbg_lightning comparisons 1"


@dataclass(kw_only=True)
class ComparisonBuilder(Builder):
    """Build conversations that train a pairwise judge from pairs, in both orders, with ties.

    Args:
        out: folder of the build; see the module.
        pairs: sources of pairs by name; the name is recorded in the conversations as ``source``.
        criteria: what the judge is told to prefer; must equal the ``criteria`` of `PairwisePreferenceReward`.
        tie_margin: maximum score difference of a tie; None for no ties. Pairs without scores are never ties.
        longest: maximum characters of a prompt; longer ones are dropped.

    Raises:
        ValueError: invalid settings, before anything is read.
    """

    name: ClassVar[str] = "build-comparisons"

    pairs: dict[str, PairSource]
    criteria: str = CRITERIA
    tie_margin: float | None = None
    longest: int = 100_000

    def __post_init__(self) -> None:
        if not self.pairs:
            raise ValueError("pairs is invalid: empty; name at least one source")
        if self.tie_margin is not None and not 0 <= self.tie_margin < float("inf"):
            raise ValueError(f"tie_margin is invalid: {self.tie_margin}; give a number of at least 0, or leave it out")
        if self.longest < 1:
            raise ValueError(f"longest is invalid: {self.longest}; give at least 1")

    def run(self) -> JsonRecord:
        """See `Builder.run`."""
        manifest = {
            "format": FORMAT,
            "pairs": {name: {**source.identity(), "format": source.format} for name, source in self.pairs.items()},
            "criteria": self.criteria,
            "tie_margin": self.tie_margin,
            "longest": self.longest,
            "sources": describe(sorted(self.pairs)),
        }
        counts, dropped = OutcomeCounts(), OutcomeCounts()
        with Store(self.out, manifest) as store:
            file = store.write_lines("conversations", self._comparisons(counts, dropped))
            if not counts.number:
                raise RuntimeError(f"{self.name}: no pair gives a comparison ({dropped.summary()}); check the sources")
            report: JsonRecord = {
                "conversations": sum(counts.number.values()),
                "verdicts": counts.to_dict(),
                "dropped": dropped.to_dict(),
                "file": str(file),
            }
            store.write_report(report)
        return report

    def _comparisons(self, counts: OutcomeCounts, dropped: OutcomeCounts) -> Iterator[JsonRecord]:
        for name, source in self.pairs.items():
            for part in source.parts():
                assert isinstance(part, ChatPart)
                for row in part.rows():
                    try:
                        pair = PreferencePair.from_dict(row, source.format, source.ignored_keys)
                    except ConversationError as error:
                        dropped.add("invalid", str(error))
                        continue
                    for comparison in self._both_orders(pair, name, dropped):
                        counts.add(str(comparison["verdict"]))
                        yield comparison

    def _both_orders(self, pair: PreferencePair, source: str, dropped: OutcomeCounts) -> list[JsonRecord]:
        """The pair as two conversations; none if it is not a single answer against another."""
        prompt = pair.chosen.messages[: pair.num_prompt]
        answers = [side.messages[pair.num_prompt :] for side in (pair.chosen, pair.rejected)]
        if any(len(turns) != 1 or turns[0].tool_calls for turns in answers):
            dropped.add("several_turns", "an answer has several turns or calls tools")
            return []
        better, worse = (turns[0].content.strip() for turns in answers)
        if not better or not worse or better == worse:
            dropped.add("same_answer" if better == worse else "empty_answer")
            return []
        even = (
            self.tie_margin is not None
            and pair.scores is not None
            and abs(pair.scores[0] - pair.scores[1]) <= self.tie_margin
        )
        made = []
        for first, second, verdict in ((better, worse, "A"), (worse, better, "B")):
            text = PROMPT.format(criteria=self.criteria, conversation=_shown(prompt), first=first, second=second)
            if len(text) > self.longest:
                dropped.add("too_long")
                return []
            verdict = "tie" if even else verdict
            said = [{"role": "user", "content": text}, {"role": "assistant", "content": verdict}]
            made.append({"messages": said, "source": source, "verdict": verdict})
        return made

    def shown(self, report: JsonRecord) -> list[str | ReportTable]:
        """See `Builder.shown`."""
        verdicts = [(verdict, f"{each['count']:,}") for verdict, each in report["verdicts"].items()]
        lines: list[str | ReportTable] = [
            f"{report['conversations']:,} comparisons: {report['file']}",
            ReportTable("verdicts", ("verdict", "comparisons"), verdicts),
        ]
        if report["dropped"]:
            rows = [(reason, f"{each['count']:,}", each.get("first", "")) for reason, each in report["dropped"].items()]
            lines.append(ReportTable("pairs without a comparison", ("reason", "pairs", "such as"), rows))
        return [*lines, f"to look at them: nbg view {report['file']}"]


def _shown(prompt: list[Message]) -> str:
    return conversation_text([{"role": message.role, "content": message.content} for message in prompt])
