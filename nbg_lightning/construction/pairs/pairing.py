"""Creation of pairs from scored answers, with the outcome of every question."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nbg_lightning.chat.conversation import Conversation, ConversationError
from nbg_lightning.construction.outcomes import OutcomeCounts
from nbg_lightning.construction.pairs.answers import answer_state, finished_answers, states_of
from nbg_lightning.construction.pairs.choice import PairRule, choose_pairs
from nbg_lightning.construction.store import JsonRecord, KeyedLines
from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import Answer, ChatFormat
from nbg_lightning.rewards.protocol import Reward, RewardResult


class PairMaker:
    """Creates pairs from scored answers, and counts the outcome of every question and answer.

    Args:
        sides: reads the answers of a question: those that may be chosen, and those that may be rejected.
        formats: formats of the chosen and of the rejected answers.
        reward: the reward that scored them.
        rule: the rule for pairs.
        seed: breaks ties between pairs with equal margins.
        provenance: provenance of all pairs.
    """

    def __init__(
        self,
        sides: Callable[[Question], tuple[list[Answer], list[Answer]]],
        formats: tuple[ChatFormat, ChatFormat],
        reward: Reward,
        rule: PairRule,
        seed: int,
        provenance: JsonRecord,
    ):
        self.sides, self.formats, self.reward, self.rule = sides, formats, reward, rule
        self.seed, self.provenance = seed, provenance
        self.dropped = OutcomeCounts()  # questions
        self.answers = {"chosen": Counter[str](), "rejected": Counter[str]()}
        self.scores: dict[str, list[float]] = {"chosen": [], "rejected": []}
        self.num_pairs = self.num_kept = self.num_same_tokens = self.num_sampled = 0
        self.by_source: Counter[str] = Counter()

    def rows(self, question: Question, scores: KeyedLines) -> Iterator[JsonRecord]:
        """The pairs of one question."""
        chosen, rejected = self.sides(question)
        for side, answers in (("chosen", chosen), ("rejected", rejected)):
            self.answers[side].update(map(answer_state, answers))
        problem = self.reward.check(question)
        if problem is not None:
            self.dropped.add("the reward cannot score it", f"{named(question)}: {problem}")
            return
        sides = finished_answers(chosen), finished_answers(rejected)
        for name, all_of_side, candidates in zip(("chosen", "rejected"), (chosen, rejected), sides, strict=True):
            if not candidates:
                self.dropped.add(f"no finished {name} answer", f"{named(question)}: {states_of(all_of_side)}")
                return
        results = [RewardResult(score, status, detail) for score, status, detail in scores[question.key]["scores"]]
        scored = _scored(sides[0], results[: len(sides[0])]), _scored(sides[1], results[len(sides[0]) :])
        for name, found in zip(("chosen", "rejected"), scored, strict=True):
            self.scores[name] += [score for _, score in found]
            self.answers[name]["without a score"] += sum(
                r.status != "ok" for r in (results[: len(sides[0])] if name == "chosen" else results[len(sides[0]) :])
            )
            if not found:
                detail = next((f"{r.status}: {r.detail}" for r in results if r.status != "ok"), "")
                self.dropped.add(f"no {name} answer has a score", f"{named(question)}: {detail}")
                return
        yield from self._pairs(question, *scored)

    def _pairs(
        self, question: Question, chosen: list[tuple[Answer, float]], rejected: list[tuple[Answer, float]]
    ) -> Iterator[JsonRecord]:
        rule = self.rule
        best, worst = max(score for _, score in chosen), min(score for _, score in rejected)
        if best < rule.min_chosen_score:
            text = f"{named(question)}: the best has {best:g}, min_chosen_score is {rule.min_chosen_score:g}"
            self.dropped.add("no good chosen answer", text)
            return
        texts = [[(answer.text.strip(), score) for answer, score in side] for side in (chosen, rejected)]
        places = choose_pairs(texts[0], texts[1], rule, f"{self.seed} {question.key}")
        if not places:
            text = f"{named(question)}: {best:g} against {worst:g}, margin is {rule.margin:g}"
            self.dropped.add("not clearly separated", text)
            return
        rows: list[JsonRecord] = []
        for first, second in places:
            try:
                rows.append(self._row(question, chosen[first], rejected[second], len(rows)))
            except ConversationError as error:
                self.dropped.add("pairs that cannot be rendered", f"{named(question)}: {error}")
        self.num_kept += bool(rows)
        self.num_pairs += len(rows)
        self.by_source[question.source] += len(rows)
        if not rows:
            self.dropped.add("no pair can be rendered")
        yield from rows

    def _row(
        self, question: Question, chosen: tuple[Answer, float], rejected: tuple[Answer, float], number: int
    ) -> JsonRecord:
        sides = {}
        for name, (answer, _), form in zip(("chosen", "rejected"), (chosen, rejected), self.formats, strict=True):
            message = answer_message(answer)
            sides[name] = [message]
            self._compare_tokens(question, message, answer, form)
        return {
            "prompt": list(question.messages),
            **sides,
            "source": question.source,
            "id": f"{question.key}-{number}",
            "chosen_score": chosen[1],
            "rejected_score": rejected[1],
            "chosen_sample": chosen[0].completion.sample_index,
            "rejected_sample": rejected[0].completion.sample_index,
            "provenance": self.provenance,
        }

    def _compare_tokens(self, question: Question, message: dict[str, Any], answer: Answer, form: ChatFormat) -> None:
        """Count whether training will see the sampled tokens: the same text in other tokens is a different sequence."""
        turns: list[Any] = [*question.messages, message]  # parsed by Conversation
        conversation = Conversation(turns)
        if form.renderer is None:
            return
        rendered = form.renderer.render(conversation)
        if answer.completion.ids:
            self.num_sampled += 1
            whole = (*form.prompt(question.messages).ids, *answer.completion.ids)
            self.num_same_tokens += tuple(rendered.ids[: len(whole)]) == whole

    def report(self) -> dict[str, Any]:
        """The counts for ``report.json``; kept and dropped questions add up to all."""

        def mean(values: list[float]) -> float | None:
            return math.fsum(values) / len(values) if values else None

        return {
            "questions_with_pairs": self.num_kept,
            "dropped_questions": self.dropped.to_dict(),
            "pairs_by_source": dict(self.by_source),
            "answers": {side: dict(sorted(counter.items())) for side, counter in self.answers.items()},
            "mean_score": {side: mean(values) for side, values in self.scores.items()},
            "same_tokens_when_rendered": {"of": self.num_sampled, "same": self.num_same_tokens},
        }


def _scored(answers: Sequence[Answer], results: Sequence[RewardResult]) -> list[tuple[Answer, float]]:
    return [(a, r.score) for a, r in zip(answers, results, strict=True) if r.score is not None]


def answer_message(answer: Answer) -> dict[str, Any]:
    """A finished answer as a conversation turn."""
    message = {"role": "assistant", "content": answer.final}
    return message if answer.reasoning is None else {**message, "reasoning_content": answer.reasoning}


def named(question: Question) -> str:
    """A question by source, key, beginning and end (where questions from one template differ), for reports."""
    text = " ".join(str(question.messages[-1]["content"]).split())
    shown = text if len(text) <= 72 else f"{text[:36]} ... {text[-31:]}"
    return f"{question.source} {question.key[:12]} {shown!r}"
