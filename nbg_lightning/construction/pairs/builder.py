"""Preference pairs: a teacher's good answer and a bad one of the freshly fine-tuned student.

Nanbeige4-3B (arXiv 2512.06266), dual preference distillation: positives are sampled from the teacher, negatives from the
student **after** SFT, and a filter keeps pairs in which one answer is clearly better. The folder of a build::

        manifest.json        what determines the answers: questions, engines, sampling, chat format, seed
    student.jsonl        the student's answers, by question
        teacher.jsonl        the teacher's answers, if it generates them
        scores-HASH.jsonl    the scores of both by a reward
    pairs.jsonl          the result: {"prompt", "chosen", "rejected", ...} for `PreferenceDataModule`
        report.json          how many questions gave pairs, and why others did not

Calls always contain the same questions, and a call is flushed to disk before the next one: a killed build resumes, with the
same pairs as an uninterrupted run. Failures (a server, a deadline, a verifier) are retried by the next run. Another margin
needs no new answers; another reward needs only new scores.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

from nbg_lightning.construction.builder import Builder, ReportTable
from nbg_lightning.construction.chat_models import ChatModelConfig
from nbg_lightning.construction.checks import check_least, check_samples_differ
from nbg_lightning.construction.engines import engine_place
from nbg_lightning.construction.pairs.answers import AnsweringModel, finished_answers, given_answers
from nbg_lightning.construction.pairs.choice import PairRule
from nbg_lightning.construction.pairs.pairing import PairMaker
from nbg_lightning.construction.pairs.scores import complete_scores
from nbg_lightning.construction.provenance import describe, digest
from nbg_lightning.construction.store import REPORT, JsonRecord, KeyedLines, Store
from nbg_lightning.data.question import Question
from nbg_lightning.data.question_sources import QuestionSource
from nbg_lightning.data.question_sources import digest as questions_digest
from nbg_lightning.engines.chat import Answer
from nbg_lightning.engines.protocol import Sampling
from nbg_lightning.rewards.protocol import Reward

PAIRS = "pairs"
FORMAT = "nbg_lightning pairs 1"


def read_questions(sources: Mapping[str, QuestionSource]) -> tuple[list[Question], JsonRecord]:
    """All questions without duplicates, and their counts.

    Raises:
        ValueError: there are none.
    """
    found: dict[str, Question] = {}
    doubled = 0
    for name, source in sources.items():
        for question in source.questions(name):
            doubled += question.key in found
            found.setdefault(question.key, question)
    if not found:
        raise ValueError(f"questions is invalid: no question in {', '.join(sources)}; check the sources")
    return list(found.values()), {"questions": len(found), "doubled_questions": doubled}


def questions_title(report: JsonRecord) -> str:
    """The number of questions, for display."""
    doubled = report["doubled_questions"]
    return f"{report['questions']:,} questions" + (f", {doubled:,} doubled ones left out" if doubled else "")


@dataclass(kw_only=True)
class PairBuilder(Builder):
    """Build preference pairs: sample answers of student and teacher, score them together, and select clear pairs.

    Args:
        out: folder of the build; see the module.
        questions: sources by name; the name is recorded in the pairs as ``source``.
        reward: scores answers: a verifier, a judge, a reward model. Positives and negatives of a question form one group.
        student: the model that DPD will train, after its SFT: engine, tokenizer, chat format, deadline of a call.
        teacher: the model that generates the positives; None if solutions are given.
        solutions: field of `Question.data` with given solutions (a text, a message, or a list of these) instead of a
            teacher; ``answer`` uses the gold answer itself.
        negatives, positives: number of answers sampled per question.
        max_new_tokens: maximum tokens of an answer; truncated answers are in no pair.
        temperature, top_p: sampling of the student's answers.
        teacher_temperature, teacher_top_p: sampling of the teacher's answers.
        margin, min_chosen_score, pairs_per_question: see `PairRule`.
        questions_per_call: questions per call; a kill loses at most one call.
        seed: seed of the sampling.
        progress: show progress on stderr.

    Raises:
        ValueError: invalid settings, before any generation.
    """

    name: ClassVar[str] = "build-pairs"

    questions: dict[str, QuestionSource]
    reward: Reward
    student: ChatModelConfig
    teacher: ChatModelConfig | None = None
    solutions: str | None = None
    negatives: int = 4
    positives: int = 4
    max_new_tokens: int = 1024
    temperature: float = 1.0
    top_p: float = 1.0
    teacher_temperature: float = 1.0
    teacher_top_p: float = 1.0
    margin: float = 0.5
    min_chosen_score: float = 1.0
    pairs_per_question: int = 1
    questions_per_call: int = 64
    seed: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        if not self.questions:
            raise ValueError("questions is invalid: empty; name at least one source")
        if (self.teacher is None) == (self.solutions is None):
            given = "None, and solutions too" if self.teacher is None else "given beside solutions"
            raise ValueError(
                f"teacher is invalid: {given}; give one of teacher (it writes the positives) and solutions (a field has them)"
            )
        check_least(1, questions_per_call=self.questions_per_call)
        self.rule = PairRule(self.margin, self.min_chosen_score, self.pairs_per_question)
        negatives = self._sampling(self.negatives, self.temperature, self.top_p)
        positives = self._sampling(self.positives, self.teacher_temperature, self.teacher_top_p)
        check_samples_differ("negatives", negatives)
        check_samples_differ("positives", positives)
        self._student = AnsweringModel("student", self.student, self.student.open_chat().format, negatives)
        self._teacher: AnsweringModel | None = None
        if self.teacher is not None:
            self._teacher = AnsweringModel("teacher", self.teacher, self.teacher.open_chat().format, positives)

    def _sampling(self, n: int, temperature: float, top_p: float) -> Sampling:
        return Sampling(self.max_new_tokens, temperature, top_p, n=n, seed=self.seed)

    def run(self) -> JsonRecord:
        questions, counts = read_questions(self.questions)
        manifest = self._manifest(questions)
        reward = describe(self.reward)
        with Store(self.out, manifest) as store:
            student = store.lines("student")
            self._student.answer(questions, student, self.questions_per_call, self.progress)
            teacher = None
            if self._teacher is not None:
                teacher = store.lines("teacher")
                self._teacher.answer(questions, teacher, self.questions_per_call, self.progress)

            def sides(question: Question) -> tuple[list[Answer], list[Answer]]:
                return self._answers(question, student, teacher)

            def candidates(question: Question) -> list[Answer]:
                chosen, rejected = sides(question)
                return [*finished_answers(chosen), *finished_answers(rejected)]

            scores = store.lines(f"scores-{digest(reward)}")
            complete_scores(questions, candidates, self.reward, scores, self.questions_per_call, self.progress)
            provenance = {
                "build": digest(manifest),
                "reward": self.reward.name,
                "student": manifest["student"],
                "teacher": manifest["teacher"] or {"solutions": self.solutions},
            }
            formats = (self._teacher or self._student).format, self._student.format
            maker = PairMaker(sides, formats, self.reward, self.rule, self.seed, provenance)
            file = store.write_lines(PAIRS, (row for question in questions for row in maker.rows(question, scores)))
            report = {
                "pairs": maker.num_pairs,
                "pairs_hash": hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest(),
                **counts,
                **maker.report(),
                "rule": asdict(self.rule),
                "reward": reward,
                "manifest": manifest,
                "places": {
                    "student": engine_place(self.student.engine),
                    "teacher": None if self.teacher is None else engine_place(self.teacher.engine),
                },
            }
            store.write_report(report)
        if not maker.num_pairs:
            raise RuntimeError(
                f"no pair in {len(questions):,} questions ({maker.dropped.summary()}): see {store.folder / REPORT}; "
                "lower margin or min_chosen_score, draw more answers, or take other questions"
            )
        return report

    def _manifest(self, questions: Sequence[Question]) -> JsonRecord:
        manifest = {
            "format": FORMAT,
            "questions": questions_digest(questions),
            "questions_per_call": self.questions_per_call,
            "student": self._student.identity(),
            "teacher": None if self._teacher is None else self._teacher.identity(),
            "solutions": self.solutions,
        }
        return json.loads(json.dumps(manifest))  # as it will be read back

    def _answers(
        self, question: Question, student: KeyedLines, teacher: KeyedLines | None
    ) -> tuple[list[Answer], list[Answer]]:
        """The answers that may be chosen and those that may be rejected, including failed and unfinished ones."""
        rejected = self._student.read(student[question.key])
        if self._teacher is not None and teacher is not None:
            return self._teacher.read(teacher[question.key]), rejected
        assert self.solutions is not None
        return given_answers(question, self.solutions, self._student.format), rejected

    def shown(self, report: JsonRecord) -> list[str | ReportTable]:
        rows = [(f"{report['pairs']:,} pairs", f"{report['questions_with_pairs']:,}", "")]
        rows += [
            (reason, f"{found['count']:,}", found.get("first", ""))
            for reason, found in report["dropped_questions"].items()
        ]
        table = ReportTable(questions_title(report), ("outcome", "questions", "the first"), rows)
        shown: list[str | ReportTable] = [table]
        for side, states in report["answers"].items():
            listed = ", ".join(f"{number:,} {state}" for state, number in states.items())
            mean = report["mean_score"][side]
            shown.append(
                f"answers that could be {side}: {listed}" + ("" if mean is None else f"; mean score {mean:.3f}")
            )
        same = report["same_tokens_when_rendered"]
        if same["of"]:
            shown.append(f"tokens of {same['same']:,} of {same['of']:,} sampled answers in pairs are those of training")
        return [
            *shown,
            f"{self.out}/pairs.jsonl: {report['pairs']:,} pairs; counts and provenance: {self.out}/{REPORT}",
            f"to look at them: nbg view {self.out}/pairs.jsonl",
        ]
