"""Deliberative generation refinement: a loop of drafts, an instruction-specific checklist, evaluators, and a reviser.

Nanbeige4-3B report, SFT: for each instruction a checklist is generated along with drafts by several models; evaluators score
and critique by it, a revision model rewrites, and the revision is evaluated again, until it is good.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any, ClassVar

from nbg_lightning.construction.checks import check_least
from nbg_lightning.construction.outcomes import dropped, unusable_reason
from nbg_lightning.construction.prompt_templates import check_template, conversation_text, fill_template
from nbg_lightning.construction.solutions.checklist import (
    GENERAL,
    HIGHEST,
    LOWEST,
    Criterion,
    Evaluation,
    checklist_text,
    example_criteria,
    example_remarks,
    read_checklist,
    read_evaluation,
)
from nbg_lightning.construction.store import JsonRecord
from nbg_lightning.construction.workflow import (
    ModelRequest,
    ModelResponse,
    Workflow,
    readable,
    request_usable,
    user_turn,
)
from nbg_lightning.construction.workflow_builder import WorkflowBuilder, WorkflowItem, named
from nbg_lightning.data.question import Question
from nbg_lightning.data.question_sources import QuestionCounts, QuestionSource
from nbg_lightning.engines.protocol import Sampling

CHECKLIST = """\
Write a checklist by which answers to the instruction below can be judged. Write {minimum} to {maximum} criteria, each in a line \
of its own that begins with a dash and one of these words in brackets: [correctness] [completeness] [consistency] \
[executability] [safety]. The criteria must be about this instruction, not about answers in general. For the instruction "Add \
2 and 3 and give the result as a word" good criteria are:
- [correctness] The result is five.
- [completeness] The result is given as a word, not as a digit.

Instruction:
{instruction}

Checklist:"""

EVALUATION = """\
Judge the answer below by the checklist. For every criterion write a line with its number, a colon, a score from 0 (not at all) \
to 9 (entirely), a dash, and the reason. Then write a line that begins with "Critique:" and says what must be changed. Like this:
1: 9 - the result is five
2: 3 - the result is a digit
Critique: Give the result as a word.

Instruction:
{instruction}

Answer:
{answer}

Checklist:
{checklist}

Write a score for each of the {number} criteria, then the critique."""

REVISION = """\
Rewrite the answer below, so that it fulfils every criterion of the checklist and the critique does not hold any more. Write \
only the new answer, complete in itself; do not speak of the old answer, the checklist or the critique.

Instruction:
{instruction}

Answer:
{answer}

Checklist, with the scores from 0 to 9 that the answer was given:
{scored_checklist}

Critique:
{critique}

New answer:"""


@dataclass(frozen=True)
class Candidate:
    """A judged answer to the instruction.

    Attributes:
        name: name of the step that generated it.
        text: the answer.
        evaluations: evaluations by evaluator; unusable ones are omitted.
    """

    name: str
    text: str
    evaluations: dict[str, Evaluation]

    @property
    def score(self) -> float | None:
        """Mean over evaluators of the mean over criteria, 0 to 9; None without evaluations."""
        return fmean(each.mean for each in self.evaluations.values()) if self.evaluations else None

    def to_dict(self) -> JsonRecord:
        """The candidate as JSON."""
        return {
            "name": self.name,
            "text": self.text,
            "score": self.score,
            "evaluations": {name: dataclasses.asdict(each) for name, each in self.evaluations.items()},
        }


@dataclass(kw_only=True)
class RefinementBuilder(WorkflowBuilder):
    """Build refined solutions for instructions, with their full history.

    ``refined.jsonl``: one conversation per line, with the solution as its last turn and details under ``refinement``.
    ``traces.jsonl``: for every instruction, including dropped ones: the checklist, every candidate with every evaluation, the
    stop reason, and every answer of every model with its outcome.

    The loop for one instruction: the checklist and the drafts are requested together; every evaluator scores every draft; then
    the best candidate is revised and the revision is scored, until the best score is at least ``threshold``
    (``threshold``), a revision gains less than ``minimum_gain`` (``no_gain``), there is no usable revision or score of it
    (``unrevised``, ``unscored``), or ``rounds`` revisions were made (``round_limit``). The best candidate is the solution.

    Args:
        questions: sources of instructions, by name.
        drafters: models that write drafts, ``drafting.n`` drafts each.
        checklister: model that writes the checklist; by default the first evaluator.
        evaluators: models that score.
        reviser: model that writes revisions.
        drafting, listing, evaluating, revising: sampling settings of each.
        threshold: score, 0 to 9, that is good enough.
        minimum_gain: minimum gain of a revision.
        rounds: maximum number of revisions; 0 only chooses among the drafts.
        minimum_criteria, maximum_criteria: size of a checklist.
        general_checklist: use one general criterion per dimension if no checklist could be generated (counted); otherwise such
            instructions are dropped.
        reject_copies: treat a checklist or evaluation that repeats the example of its prompt as unusable (``copied``): weak
            models do that, and such scores mean nothing.
        minimum_evaluators: minimum number of evaluators for a candidate to have a score.
        minimum_score: solutions below are dropped as ``low_score``.
        tries: maximum number of answers sampled for a step until one is usable.
        checklist_prompt, evaluation_prompt, revision_prompt: prompt templates.
    """

    name: ClassVar[str] = "build-refinements"

    questions: dict[str, QuestionSource]
    drafters: list[str]
    evaluators: list[str]
    reviser: str
    checklister: str | None = None
    drafting: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=2048, temperature=0.8, top_p=0.95))
    listing: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=512, temperature=0.6, top_p=0.95))
    evaluating: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=1024, temperature=0.6, top_p=0.95))
    revising: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=2048, temperature=0.6, top_p=0.95))
    threshold: float = 8.0
    minimum_gain: float = 0.1
    rounds: int = 3
    minimum_criteria: int = 3
    maximum_criteria: int = 8
    general_checklist: bool = True
    reject_copies: bool = True
    minimum_evaluators: int = 1
    minimum_score: float = 0.0
    tries: int = 3
    checklist_prompt: str = CHECKLIST
    evaluation_prompt: str = EVALUATION
    revision_prompt: str = REVISION

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, given in (
            ("questions", self.questions),
            ("drafters", self.drafters),
            ("evaluators", self.evaluators),
        ):
            if not given:
                raise ValueError(f"{name} is invalid: empty; name at least one")
        for role, names in (("drafters", self.drafters), ("evaluators", self.evaluators)):
            if len(set(names)) < len(names):
                raise ValueError(
                    f"{role} is invalid: {names} names a model twice; set drafting.n for several drafts of one model"
                )
        for name, score in (("threshold", self.threshold), ("minimum_score", self.minimum_score)):
            if not LOWEST <= score <= HIGHEST:
                raise ValueError(f"{name} is invalid: {score}; give {LOWEST} to {HIGHEST}")
        check_least(0, rounds=self.rounds, minimum_gain=self.minimum_gain)
        check_least(1, tries=self.tries, minimum_criteria=self.minimum_criteria)
        if self.minimum_criteria > self.maximum_criteria:
            raise ValueError(
                f"minimum_criteria is invalid: {self.minimum_criteria}; give at most maximum_criteria={self.maximum_criteria}"
            )
        if not 1 <= self.minimum_evaluators <= len(self.evaluators):
            raise ValueError(
                f"minimum_evaluators is invalid: {self.minimum_evaluators}; give 1 to the number of evaluators, "
                f"{len(self.evaluators)}"
            )
        check_template(self.checklist_prompt, "checklist_prompt", ("minimum", "maximum", "instruction"))
        check_template(self.evaluation_prompt, "evaluation_prompt", ("instruction", "answer", "checklist", "number"))
        check_template(
            self.revision_prompt, "revision_prompt", ("instruction", "answer", "scored_checklist", "critique")
        )
        self.question_counts = {name: QuestionCounts() for name in self.questions}

    def roles(self) -> dict[str, Sequence[str]]:
        return {
            "drafters": self.drafters,
            "checklister": named(self.checklister),
            "evaluators": self.evaluators,
            "reviser": named(self.reviser),
        }

    # -- one instruction -------------------------------------------------------------------------------------------------

    def items(self) -> Iterator[WorkflowItem]:
        for name, source in self.questions.items():
            counts = self.question_counts[name] = QuestionCounts()
            for question in source.questions(name, counts):
                length = sum(len(str(message["content"])) for message in question.messages)
                if length > self.max_characters:
                    yield question.key, dropped("too_long", f"{length:,} characters", source=name)
                else:
                    yield question.key, partial(self.refine, question)

    def input_counts(self) -> dict[str, QuestionCounts]:
        return self.question_counts

    def refine(self, question: Question) -> Workflow:
        """Refine the solution of one instruction."""
        trace: list[JsonRecord] = []
        record: JsonRecord = {"question": question.to_dict(), "trace": trace}
        instruction = conversation_text(question.messages)
        criteria, drafts = yield from self._begin(question, instruction, trace)
        if not drafts:
            return dropped(*unusable_reason(trace, "draft"), **record)
        source = "made for the instruction"
        if criteria is None:
            if not self.general_checklist:
                return dropped(*unusable_reason(trace, "checklist"), **record)
            criteria, source = GENERAL, "general"
        record["checklist"] = {"source": source, "criteria": [dataclasses.asdict(each) for each in criteria]}
        candidates = yield from self._judge(instruction, criteria, drafts, trace)
        scored = [(score, each) for each in candidates if (score := each.score) is not None]
        record["candidates"] = [each.to_dict() for each in candidates]
        if not scored:
            return dropped(*unusable_reason(trace, "evaluation"), **record)
        first = max(score for score, _ in scored)
        score, best = first, next(each for value, each in scored if value == first)
        stop, round_number = "round_limit", 0
        while True:
            if score >= self.threshold:
                stop = "threshold"
                break
            if round_number == self.rounds:
                break
            round_number += 1
            new = yield from self._revise(instruction, criteria, best, round_number, trace)
            if new is None:
                stop = "unrevised"
                break
            [judged] = yield from self._judge(instruction, criteria, [(f"revision/{round_number}", new)], trace)
            record["candidates"].append(judged.to_dict())
            if judged.score is None:
                stop = "unscored"
                break
            gain = judged.score - score
            if gain > 0:
                score, best = judged.score, judged
            if gain < self.minimum_gain and score < self.threshold:
                stop = "no_gain"
                break
        record |= {
            "solution": best.text,
            "refinement": {
                "score": score,
                "first_score": first,
                "rounds": round_number,
                "stop": stop,
                "candidate": best.name,
                "checklist": source,
            },
        }
        if score < self.minimum_score:
            return dropped("low_score", f"{score:.2f}", **record)
        return {"status": "kept", **record}

    def _begin(
        self, question: Question, instruction: str, trace: list[JsonRecord]
    ) -> Generator[
        list[ModelRequest[Any]], list[ModelResponse], tuple[tuple[Criterion, ...] | None, list[tuple[str, str]]]
    ]:
        """Request the checklist and the drafts together; neither sees the other."""
        prompt = fill_template(
            self.checklist_prompt,
            minimum=self.minimum_criteria,
            maximum=self.maximum_criteria,
            instruction=instruction,
        )
        lister = self.checklister or self.evaluators[0]
        drafting = dataclasses.replace(self.drafting, n=1)
        checklist = ModelRequest(lister, "checklist", user_turn(prompt), self.listing, self._read_checklist)
        drafts = [
            ModelRequest(drafter, f"draft/{drafter}/{number}", question.messages, drafting, readable)
            for drafter in self.drafters
            for number in range(self.drafting.n)
        ]
        requests: list[ModelRequest[Any]] = [checklist, *drafts]
        criteria, *texts = yield from request_usable(requests, self.tries, trace)
        names = [draft.step for draft in drafts]
        return criteria, [(name, text) for name, text in zip(names, texts, strict=True) if text is not None]

    def _read_checklist(self, response: ModelResponse) -> tuple[Criterion, ...]:
        example = example_criteria(self.checklist_prompt) if self.reject_copies else frozenset()
        return read_checklist(readable(response, whole=False), self.minimum_criteria, self.maximum_criteria, example)

    def _judge(
        self,
        instruction: str,
        criteria: Sequence[Criterion],
        answers: Sequence[tuple[str, str]],
        trace: list[JsonRecord],
    ) -> Generator[list[ModelRequest[Any]], list[ModelResponse], list[Candidate]]:
        """Have every answer scored by every evaluator."""
        example = example_remarks(self.evaluation_prompt) if self.reject_copies else frozenset()

        def read(response: ModelResponse) -> Evaluation:
            return read_evaluation(readable(response, whole=False), len(criteria), example)

        requests = []
        for name, answer in answers:
            prompt = fill_template(
                self.evaluation_prompt,
                instruction=instruction,
                answer=answer,
                checklist=checklist_text(criteria),
                number=len(criteria),
            )
            requests += [
                ModelRequest(each, f"evaluation/{name}/{each}", user_turn(prompt), self.evaluating, read)
                for each in self.evaluators
            ]
        found = yield from request_usable(requests, self.tries, trace)
        candidates = []
        for index, (name, answer) in enumerate(answers):
            own = found[index * len(self.evaluators) : (index + 1) * len(self.evaluators)]
            given = {each: made for each, made in zip(self.evaluators, own, strict=True) if made is not None}
            enough = len(given) >= self.minimum_evaluators
            candidates.append(Candidate(name, answer, given if enough else {}))
        return candidates

    def _revise(
        self,
        instruction: str,
        criteria: Sequence[Criterion],
        best: Candidate,
        round_number: int,
        trace: list[JsonRecord],
    ) -> Generator[list[ModelRequest[Any]], list[ModelResponse], str | None]:
        """Have the best candidate revised according to its scores and critiques."""
        lines = []
        for index, line in enumerate(checklist_text(criteria).splitlines()):
            scores = ", ".join(f"{each.scores[index]:g}" for each in best.evaluations.values())
            remarks = "; ".join(each.remarks[index] for each in best.evaluations.values() if each.remarks[index])
            lines.append(f"{line} Score: {scores}" + (f" ({remarks})" if remarks else ""))
        critiques = [each.critique for each in best.evaluations.values() if each.critique]
        prompt = fill_template(
            self.revision_prompt,
            instruction=instruction,
            answer=best.text,
            scored_checklist="\n".join(lines),
            critique="\n".join(f"- {each}" for each in critiques) or "none beside the scores",
        )
        request = ModelRequest(self.reviser, f"revision/{round_number}", user_turn(prompt), self.revising, readable)
        [text] = yield from request_usable([request], self.tries, trace)
        return text

    # -- all of them -----------------------------------------------------------------------------------------------------

    def outputs(self, records: Callable[[], Iterator[JsonRecord]]) -> dict[str, Iterable[JsonRecord]]:
        return {"refined": (_row(record) for record in records() if record["status"] == "kept"), "traces": records()}

    def summary(self, records: Iterable[JsonRecord]) -> JsonRecord:
        stops: dict[str, int] = {}
        rounds: dict[str, int] = {}
        checklists: dict[str, int] = {}
        scores, gains = [], []
        for record in records:
            if "checklist" in record:
                source = record["checklist"]["source"]
                checklists[source] = checklists.get(source, 0) + 1
            if found := record.get("refinement"):
                stops[found["stop"]] = stops.get(found["stop"], 0) + 1
                rounds[str(found["rounds"])] = rounds.get(str(found["rounds"]), 0) + 1
                scores.append(found["score"])
                gains.append(found["score"] - found["first_score"])
        return {
            "checklists": checklists,
            "stops": stops,
            "rounds": rounds,
            "mean_score": fmean(scores) if scores else None,
            "mean_gain": fmean(gains) if gains else None,
        }


def _row(record: JsonRecord) -> JsonRecord:
    """A conversation for `ChatJsonLines`, with the other fields of its question."""
    question = record["question"]
    solution = {"role": "assistant", "content": record["solution"]}
    return {
        "key": record["key"],
        "messages": [*question["messages"], solution],
        "answer": question["answer"],
        "source": question["source"],
        "data": question["data"],
        "refinement": record["refinement"],
    }
