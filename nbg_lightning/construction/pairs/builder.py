"""Preference pairs: a teacher's good answer beside a bad one of the student that has just been fine-tuned.

Nanbeige4-3B (arXiv 2512.06266), dual preference distillation: positives are sampled from the teacher, negatives from the
student **after** SFT, and a filter keeps the pairs of which one is clearly better. The folder of a build::

    about.json           what decides the answers: questions, engines, sampling, chat format, seed
    student.jsonl        the student's answers, by question
    teacher.jsonl        the teacher's, where it writes them
    scores-HASH.jsonl    what a reward says of both, together
    pairs.jsonl          the result: {"prompt", "chosen", "rejected", ...} for `PreferenceDataModule`
    report.json          how many questions gave pairs, and why the others did not

Answers are asked for in calls of the same questions whenever it runs, and a call is on the disk before the next: a build
that was killed goes on, and its pairs are those of a straight run. What failed (a server, a deadline, a verifier) is asked
again by the next run. Another margin needs no new answers; another reward none either, only new scores.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nbg_lightning import log
from nbg_lightning.chat.conversation import Conversation, ConversationError
from nbg_lightning.construction.engines import engine_identity, engine_place
from nbg_lightning.construction.store import Counts, KeyedLines, Record, Store
from nbg_lightning.construction.writers import WriterConfig, describe
from nbg_lightning.data.progress import Progress
from nbg_lightning.data.question import Question
from nbg_lightning.data.question_sources import QuestionSource
from nbg_lightning.data.question_sources import digest as questions_digest
from nbg_lightning.engines.chat import Answer, ChatFormat, with_stops
from nbg_lightning.engines.protocol import Completion, FinishReason, Prompt, Sampling
from nbg_lightning.rewards.protocol import Group, Reward, RewardResult, score_groups

PAIRS = "pairs"
FORMAT = "nbg_lightning pairs 1"
_FAILED = ("error", "deadline")  # finish reasons of what another try may give


@dataclass(frozen=True)
class PairRule:
    """Which of a question's answers become pairs.

    Attributes:
        margin: the chosen answer's score is above the rejected one's by this, at least.
        min_chosen_score: the chosen answer's score, at least.
        pairs_per_question: at most; the most clearly separated ones, and every answer once.
    """

    margin: float = 0.5
    min_chosen_score: float = 1.0
    pairs_per_question: int = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.margin) and self.margin > 0):
            raise ValueError(f"margin is {self.margin}: the chosen answer must be better by more than 0")
        if math.isnan(self.min_chosen_score) or self.pairs_per_question < 1:
            raise ValueError(
                f"min_chosen_score={self.min_chosen_score} must be a number and pairs_per_question="
                f"{self.pairs_per_question} at least 1"
            )


def choose_pairs(
    chosen: Sequence[tuple[str, float]], rejected: Sequence[tuple[str, float]], rule: PairRule, seed: str = ""
) -> list[tuple[int, int]]:
    """The pairs of one question, most clearly separated first; every answer is in one of them at most.

    Args:
        chosen: text and score of the answers that may be chosen.
        rejected: of those that may be rejected.
        rule: what a pair must be.
        seed: decides among pairs of equal margin.

    Returns:
        Places in the two lists.

    Example:
        >>> choose_pairs([("4", 1.0), ("four", 1.0)], [("5", 0.0), ("4", 1.0)], PairRule(pairs_per_question=2))
        [(1, 0)]
    """

    def order(pair: tuple[int, int]) -> tuple[float, bytes]:
        drawn = hashlib.blake2b(f"{seed} {pair[0]} {pair[1]}".encode(), digest_size=8).digest()
        return rejected[pair[1]][1] - chosen[pair[0]][1], drawn

    possible = [
        (first, second)
        for first, (good, high) in enumerate(chosen)
        for second, (bad, low) in enumerate(rejected)
        if high >= rule.min_chosen_score and high - low >= rule.margin and good != bad
    ]
    found: list[tuple[int, int]] = []
    used: tuple[set[int], set[int]] = set(), set()
    for first, second in sorted(possible, key=order):
        if first not in used[0] and second not in used[1] and len(found) < rule.pairs_per_question:
            found.append((first, second))
            used[0].add(first)
            used[1].add(second)
    return found


class PairBuilder:
    """Asks student and teacher, scores both, and keeps clear pairs.

    Args:
        out: folder of the build; see the module.
        questions: name to source; the name goes into the pairs as ``source``.
        reward: what scores answers: a verifier, a judge, a reward model. Positives and negatives of a question are one group.
        student: the model that DPD will train, after its SFT: engine, tokenizer, chat format, deadline of a call.
        teacher: the model that writes the positives; None where solutions are given.
        solutions: field of `Question.data` with given solutions (a text, a message, or a list of these) instead of a
            teacher; ``answer`` takes the gold answer itself.
        negatives, positives: answers drawn to a question.
        max_new_tokens: of an answer; what is cut off there is in no pair.
        temperature, top_p: of the student's answers.
        teacher_temperature, teacher_top_p: of the teacher's.
        margin, min_chosen_score, pairs_per_question: see `PairRule`.
        questions_per_call: asked together; a call is what a kill may cost.
        seed: of the sampling.

    Raises:
        ValueError: settings that cannot work, before anything is asked.
    """

    def __init__(
        self,
        out: str,
        questions: dict[str, QuestionSource],
        reward: Reward,
        student: WriterConfig,
        teacher: WriterConfig | None = None,
        solutions: str | None = None,
        negatives: int = 4,
        positives: int = 4,
        max_new_tokens: int = 1024,
        temperature: float = 1.0,
        top_p: float = 1.0,
        teacher_temperature: float = 1.0,
        teacher_top_p: float = 1.0,
        margin: float = 0.5,
        min_chosen_score: float = 1.0,
        pairs_per_question: int = 1,
        questions_per_call: int = 64,
        seed: int = 0,
    ):
        if not questions:
            raise ValueError("questions is empty: name at least one source")
        if (teacher is None) == (solutions is None):
            given = "neither" if teacher is None else "both"
            raise ValueError(
                f"give one of teacher (it writes the positives) and solutions (a field has them), not {given}"
            )
        if questions_per_call < 1:
            raise ValueError(f"questions_per_call is {questions_per_call}: it must be at least 1")
        self.out, self.sources, self.reward = Path(out).expanduser(), questions, reward
        self.student, self.teacher, self.solutions = student, teacher, solutions
        self.rule = PairRule(margin, min_chosen_score, pairs_per_question)
        self.questions_per_call = questions_per_call
        self.sampling = Sampling(max_new_tokens, temperature, top_p, n=negatives, seed=seed)
        self.teacher_sampling = Sampling(max_new_tokens, teacher_temperature, teacher_top_p, n=positives, seed=seed)
        for name, sampling in (("negatives", self.sampling), ("positives", self.teacher_sampling)):
            if sampling.greedy and sampling.n > 1:
                raise ValueError(f"{name}={sampling.n} greedy answers are all the same: set it to 1, or a temperature")
        self.format = student.writer().format
        self.teacher_format = self.format if teacher is None else teacher.writer().format
        self.progress = True

    def run(self) -> dict[str, Any]:
        """Build, or go on with the build in the folder.

        Returns:
            The report, which is also ``report.json``.

        Raises:
            ValueError: no question, or a folder with a build of something else.
            RuntimeError: not one pair, with the reasons.
        """
        questions, counts = self._read_questions()
        about = self._about(questions)
        scoring = describe(self.reward)
        with Store(self.out, about) as store:
            student = store.lines("student")
            self._ask("student", self.student, self.format, self.sampling, questions, student)
            teacher = None
            if self.teacher is not None:
                teacher = store.lines("teacher")
                self._ask("teacher", self.teacher, self.teacher_format, self.teacher_sampling, questions, teacher)
            scores = store.lines(f"scores-{_hash(scoring)}")
            self._score(questions, student, teacher, scores)
            provenance = {
                "build": _hash(about),
                "reward": self.reward.name,
                "student": about["student"],
                "teacher": about["teacher"] or {"solutions": self.solutions},
            }
            outcomes = _Outcomes(self, provenance)
            file = store.write_lines(
                PAIRS, (row for question in questions for row in outcomes.rows(question, student, teacher, scores))
            )
            report = {
                "pairs": outcomes.num_pairs,
                "pairs_hash": hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest(),
                **counts,
                **outcomes.report(),
                "rule": asdict(self.rule),
                "reward": scoring,
                "about": about,
                "places": {
                    "student": engine_place(self.student.engine),
                    "teacher": None if self.teacher is None else engine_place(self.teacher.engine),
                },
            }
            store.write_report(report)
        if not outcomes.num_pairs:
            raise RuntimeError(
                f"no pair in {len(questions):,} questions ({outcomes.dropped.summary()}): see {self.out / 'report.json'}; "
                "lower margin or min_chosen_score, draw more answers, or take other questions"
            )
        return report

    # -- questions -----------------------------------------------------------------------------------------------------

    def _read_questions(self) -> tuple[list[Question], dict[str, Any]]:
        found: dict[str, Question] = {}
        doubled = 0
        for name, source in self.sources.items():
            for question in source.questions(name):
                doubled += question.key in found
                found.setdefault(question.key, question)
        if not found:
            raise ValueError(f"there is no question in {', '.join(self.sources)}: check the sources")
        return list(found.values()), {"questions": len(found), "doubled_questions": doubled}

    def _about(self, questions: Sequence[Question]) -> dict[str, Any]:
        def asked(writer: WriterConfig, form: ChatFormat, sampling: Sampling) -> dict[str, Any]:
            tokenizer = None if form.tokenizer is None else form.tokenizer.fingerprint
            settings = {"template": form.template, "tokenizer": tokenizer, "sampling": asdict(sampling)}
            return {**engine_identity(writer.engine), **settings}

        about = {
            "format": FORMAT,
            "questions": questions_digest(questions),
            "questions_per_call": self.questions_per_call,
            "student": asked(self.student, self.format, self.sampling),
            "teacher": None
            if self.teacher is None
            else asked(self.teacher, self.teacher_format, self.teacher_sampling),
            "solutions": self.solutions,
        }
        return json.loads(json.dumps(about))  # as it is read again

    # -- answers -------------------------------------------------------------------------------------------------------

    def _ask(
        self,
        name: str,
        writer: WriterConfig,
        form: ChatFormat,
        sampling: Sampling,
        questions: Sequence[Question],
        lines: KeyedLines,
    ) -> None:
        """Complete the file of answers of one engine, which is open only if there is something to ask."""
        failed = {key for key in lines if any(a["finish_reason"] in _FAILED for a in lines[key]["answers"])}
        missing = {question.key for question in questions if question.key not in lines} | failed
        if not missing:
            return
        step = self.questions_per_call
        with writer.engine, Progress(f"{name}'s answers", len(questions), self.progress, "questions") as progress:
            for begin in range(0, len(questions), step):
                part = questions[begin : begin + step]
                todo = part if any(q.key in missing and q.key not in failed for q in part) else []
                todo = todo or [question for question in part if question.key in failed]
                if todo:
                    records = _answered(writer, form, sampling, todo)
                    lines.add([record for record in records if record["key"] in missing], replace=True)
                progress.advance(len(part), fresh=bool(todo))
        still = sum(any(a["finish_reason"] in _FAILED for a in lines[q.key]["answers"]) for q in questions)
        if still:
            log.warn(f"{name}: answers to {still:,} questions failed (see report.json); the next run asks again")

    def answers(
        self, question: Question, student: KeyedLines, teacher: KeyedLines | None
    ) -> tuple[list[Answer], list[Answer]]:
        """What may be chosen and what may be rejected: all answers, failed and unfinished ones too."""
        rejected = [self.format.read(_completion(record)) for record in student[question.key]["answers"]]
        if teacher is None:
            return self._given(question), rejected
        chosen = [self.teacher_format.read(_completion(record)) for record in teacher[question.key]["answers"]]
        return chosen, rejected

    def _given(self, question: Question) -> list[Answer]:
        assert self.solutions is not None
        value = question.data.get(self.solutions, question.answer if self.solutions == "answer" else None)
        values = value if isinstance(value, list) else [] if value is None else [value]
        return [self._as_answer(each, place) for place, each in enumerate(values)]

    def _as_answer(self, value: Any, place: int) -> Answer:
        if isinstance(value, dict):
            reasoning, content = value.get("reasoning_content"), str(value.get("content") or "")
            text = content if not reasoning else f"<think>\n{reasoning}\n</think>\n\n{content}"
        else:
            text = str(value)
        return self.format.read(Completion((), (), "stop", 0, place, 0, None, text))

    # -- scores --------------------------------------------------------------------------------------------------------

    def _score(
        self, questions: Sequence[Question], student: KeyedLines, teacher: KeyedLines | None, scores: KeyedLines
    ) -> None:
        """Complete the file of scores: of answers that are finished, each text once."""

        def groups(part: Sequence[Question]) -> Iterator[tuple[Question, list[Answer], str]]:
            for question in part:
                chosen, rejected = self.answers(question, student, teacher)
                candidates = [*_candidates(chosen), *_candidates(rejected)]
                texts = _hash([answer.text for answer in candidates])
                known = scores.get(question.key)
                if (
                    candidates
                    and (known is None or known["of"] != texts or any(s[1] != "ok" for s in known["scores"]))
                    and self.reward.check(question) is None
                ):
                    yield question, candidates, texts

        step = self.questions_per_call
        parts = [questions[begin : begin + step] for begin in range(0, len(questions), step)]
        if not any(True for part in parts for _ in groups(part)):
            return
        with self.reward, Progress("scores", len(questions), self.progress, "questions") as progress:
            for part in parts:
                todo = list(groups(part))
                results = score_groups(self.reward, [Group(question, tuple(answers)) for question, answers, _ in todo])
                scores.add(
                    [
                        {"key": question.key, "of": texts, "scores": [[r.score, r.status, r.detail] for r in own]}
                        for (question, _, texts), own in zip(todo, results, strict=True)
                    ],
                    replace=True,
                )
                progress.advance(len(part), fresh=bool(todo))


class _Outcomes:
    """From answers and scores to pairs, and what became of every question and answer."""

    def __init__(self, builder: PairBuilder, provenance: dict[str, Any]):
        self.builder, self.provenance = builder, provenance
        self.dropped = Counts()  # questions
        self.answers = {"chosen": Counter[str](), "rejected": Counter[str]()}
        self.scores: dict[str, list[float]] = {"chosen": [], "rejected": []}
        self.num_pairs = self.num_kept = self.num_same_tokens = self.num_sampled = 0
        self.by_source: Counter[str] = Counter()

    def rows(
        self, question: Question, student: KeyedLines, teacher: KeyedLines | None, scores: KeyedLines
    ) -> Iterator[Record]:
        """The lines of one question."""
        chosen, rejected = self.builder.answers(question, student, teacher)
        for side, answers in (("chosen", chosen), ("rejected", rejected)):
            self.answers[side].update(map(_state, answers))
        problem = self.builder.reward.check(question)
        if problem is not None:
            self.dropped.add("the reward cannot score it", f"{_named(question)}: {problem}")
            return
        sides = _candidates(chosen), _candidates(rejected)
        for name, all_of_side, candidates in zip(("chosen", "rejected"), (chosen, rejected), sides, strict=True):
            if not candidates:
                self.dropped.add(f"no finished {name} answer", f"{_named(question)}: {_why_unfinished(all_of_side)}")
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
                self.dropped.add(f"no {name} answer has a score", f"{_named(question)}: {detail}")
                return
        yield from self._pairs(question, *scored)

    def _pairs(
        self, question: Question, chosen: list[tuple[Answer, float]], rejected: list[tuple[Answer, float]]
    ) -> Iterator[Record]:
        rule = self.builder.rule
        best, worst = max(score for _, score in chosen), min(score for _, score in rejected)
        if best < rule.min_chosen_score:
            text = f"{_named(question)}: the best has {best:g}, min_chosen_score is {rule.min_chosen_score:g}"
            self.dropped.add("no good chosen answer", text)
            return
        texts = [[(answer.text.strip(), score) for answer, score in side] for side in (chosen, rejected)]
        places = choose_pairs(texts[0], texts[1], rule, f"{self.builder.sampling.seed} {question.key}")
        if not places:
            text = f"{_named(question)}: {best:g} against {worst:g}, margin is {rule.margin:g}"
            self.dropped.add("not clearly separated", text)
            return
        rows: list[Record] = []
        for first, second in places:
            try:
                rows.append(self._row(question, chosen[first], rejected[second], len(rows)))
            except ConversationError as error:
                self.dropped.add("pairs that cannot be rendered", f"{_named(question)}: {error}")
        self.num_kept += bool(rows)
        self.num_pairs += len(rows)
        self.by_source[question.source] += len(rows)
        if not rows:
            self.dropped.add("no pair can be rendered")
        yield from rows

    def _row(
        self, question: Question, chosen: tuple[Answer, float], rejected: tuple[Answer, float], number: int
    ) -> Record:
        sides = {}
        for name, (answer, _), form in (
            ("chosen", chosen, self.builder.teacher_format),
            ("rejected", rejected, self.builder.format),
        ):
            message = {"role": "assistant", "content": answer.final}
            if answer.reasoning is not None:
                message["reasoning_content"] = answer.reasoning
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
        """Whether training will see the tokens that were sampled: text written in another way is another sequence."""
        turns: list[Any] = [*question.messages, message]  # Conversation parses them
        conversation = Conversation(turns)
        if form.renderer is None:
            return
        rendered = form.renderer.render(conversation)
        if answer.completion.ids:
            self.num_sampled += 1
            whole = (*form.prompt(question.messages).ids, *answer.completion.ids)
            self.num_same_tokens += tuple(rendered.ids[: len(whole)]) == whole

    def report(self) -> dict[str, Any]:
        """Counts for ``report.json``; kept and dropped questions are all of them."""

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


# -- answers -----------------------------------------------------------------------------------------------------------


def _answered(
    writer: WriterConfig, form: ChatFormat, sampling: Sampling, questions: Sequence[Question]
) -> list[Record]:
    """The engine's answers to some questions, as JSON."""
    prompts: list[Prompt] = []
    errors: dict[str, str] = {}
    for question in questions:
        try:
            prompts.append(form.prompt(question.messages))
        except ValueError as error:
            errors[question.key] = f"no prompt: {error}"
    generated = iter(
        writer.engine.generate(prompts, with_stops(sampling, form.stop_ids), writer.deadline) if prompts else ()
    )
    records = []
    for question in questions:
        if question.key in errors:
            answers: list[Record] = [
                {"ids": [], "text": None, "finish_reason": "prompt", "error": errors[question.key], "sample": 0}
            ]
        else:
            answers = [
                {
                    "ids": list(completion.ids),
                    "text": completion.text,
                    "finish_reason": completion.finish_reason,
                    "error": completion.error,
                    "sample": completion.sample_index,
                }
                for completion in next(generated)
            ]
        records.append({"key": question.key, "answers": answers})
    return records


def _completion(record: Record) -> Completion:
    """A completion that was written; one whose prompt could not be rendered is an error."""
    reason: FinishReason = "error" if record["finish_reason"] == "prompt" else record["finish_reason"]
    return Completion(tuple(record["ids"]), (), reason, 0, record["sample"], 0, record["error"], record["text"])


def _state(answer: Answer) -> str:
    reason = answer.completion.finish_reason
    if answer.finished:
        return "finished" if (answer.final or "").strip() else "empty"
    return {"stop": "reasoning never ended", "length": "cut off"}.get(reason, reason)


def _candidates(answers: Sequence[Answer]) -> list[Answer]:
    """Those that may be in a pair: finished, not empty, each text once."""
    return list({answer.text.strip(): answer for answer in reversed(answers) if _state(answer) == "finished"}.values())[
        ::-1
    ]


def _scored(answers: Sequence[Answer], results: Sequence[RewardResult]) -> list[tuple[Answer, float]]:
    return [(a, r.score) for a, r in zip(answers, results, strict=True) if r.score is not None]


def _why_unfinished(answers: Sequence[Answer]) -> str:
    states = Counter(map(_state, answers))
    error = next((a.completion.error for a in answers if a.completion.error), None)
    listed = ", ".join(f"{number} {state}" for state, number in sorted(states.items())) or "there is none"
    return listed + (f" ({error})" if error else "")


def _named(question: Question) -> str:
    text = " ".join(str(question.messages[-1]["content"]).split())
    return f"{question.source} {question.key[:12]} {text[:60]!r}"


def _hash(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()
