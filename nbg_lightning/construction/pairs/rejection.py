"""Rejection sampling: a model answers questions, and its best correct answers become conversations for SFT.

The folder of a build::

        manifest.json         what determines the answers: questions, engine, sampling, chat format, seed
    model.jsonl           the model's answers, by question
        scores-HASH.jsonl     their scores by a reward
    conversations.jsonl   the result: {"messages", "source", ...} for `ChatDataModule`
        report.json           how many questions gave conversations, and why others did not

Answers are generated and stored as for pairs (`construction.pairs.builder`): a killed build resumes, and another rule or
reward needs no new answers.
"""

from __future__ import annotations

import hashlib
import json
import random
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from nbg_lightning.construction.builder import Builder, ReportTable
from nbg_lightning.construction.chat_models import ChatModelConfig
from nbg_lightning.construction.checks import check_least, check_samples_differ
from nbg_lightning.construction.engines import engine_place
from nbg_lightning.construction.outcomes import OutcomeCounts
from nbg_lightning.construction.pairs.answers import AnsweringModel, answer_state, finished_answers, states_of
from nbg_lightning.construction.pairs.builder import questions_title, read_questions
from nbg_lightning.construction.pairs.pairing import answer_message, named
from nbg_lightning.construction.pairs.scores import complete_scores
from nbg_lightning.construction.provenance import digest
from nbg_lightning.construction.store import REPORT, JsonRecord, KeyedLines, Store
from nbg_lightning.data.question import Question
from nbg_lightning.data.question_sources import QuestionSource
from nbg_lightning.data.question_sources import digest as questions_digest
from nbg_lightning.engines.chat import Answer
from nbg_lightning.engines.protocol import Sampling
from nbg_lightning.rewards.protocol import Reward

CONVERSATIONS = "conversations"
AnswerPreference = Literal["shortest", "longest", "random"]


@dataclass(kw_only=True)
class RejectionSampler(Builder):
    """Base class of builders that keep a model's best answers to each question.

    Args:
        out: folder of the build; see the module.
        questions: sources by name; the name is recorded in the conversations as ``source``.
        model: the model that answers: engine, tokenizer, chat format, deadline of a call.
        samples: number of answers sampled per question.
        keep: maximum number of answers per question that become conversations; without duplicate texts.
        min_score: minimum score of a correct answer.
        prefer: among answers with equal scores: the ``shortest``, the ``longest``, or any, by the seed.
        max_new_tokens: maximum tokens of an answer; truncated answers are not kept.
        temperature, top_p: sampling of the answers.
        questions_per_call: questions per call; a kill loses at most one call.
        seed: seed of the sampling.
        progress: show progress on stderr.

    Raises:
        ValueError: invalid settings, before any generation.
    """

    record_format: ClassVar[str]  # of the manifest

    questions: dict[str, QuestionSource]
    model: ChatModelConfig
    samples: int = 8
    keep: int = 1
    min_score: float = 1.0
    prefer: AnswerPreference = "shortest"
    max_new_tokens: int = 1024
    temperature: float = 1.0
    top_p: float = 1.0
    questions_per_call: int = 64
    seed: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        if not self.questions:
            raise ValueError("questions is invalid: empty; name at least one source")
        check_least(1, questions_per_call=self.questions_per_call, keep=self.keep)
        if self.prefer not in get_args(AnswerPreference):
            raise ValueError(f"prefer is invalid: {self.prefer!r}; choose {', '.join(get_args(AnswerPreference))}")
        if self.keep > self.samples:
            raise ValueError(f"keep is invalid: {self.keep}; give at most samples={self.samples}")
        sampling = Sampling(self.max_new_tokens, self.temperature, self.top_p, n=self.samples, seed=self.seed)
        check_samples_differ("samples", sampling)
        self._model = self.answering_model(sampling)
        self._dropped = OutcomeCounts()
        self._states: Counter[str] = Counter()

    # -- declared by a builder -----------------------------------------------------------------------------------------

    @abstractmethod
    def scorer(self) -> Reward:
        """The reward that scores the answers."""

    @abstractmethod
    def scorer_identity(self) -> JsonRecord:
        """Identity of the scorer, as JSON."""

    def answering_model(self, sampling: Sampling) -> AnsweringModel:
        """The model that generates and stores the answers."""
        return AnsweringModel("model", self.model, self.model.open_chat().format, sampling)

    def state(self, answer: Answer) -> str:
        """State of an answer in the report."""
        return answer_state(answer)

    def candidates(self, answers: Sequence[Answer]) -> list[Answer]:
        """The answers that may become conversations, without duplicate texts."""
        return finished_answers(answers)

    def conversation(self, question: Question, answer: Answer) -> JsonRecord:
        """An answer as an SFT row: its messages, and further entries."""
        return {"messages": [*question.messages, answer_message(answer)]}

    def faults(self, answer: Answer) -> int:
        """Number of faults, to break ties between answers with equal scores."""
        return 0

    # -- running -------------------------------------------------------------------------------------------------------

    def run(self) -> JsonRecord:
        self._dropped, self._states = OutcomeCounts(), Counter()
        questions, counts = read_questions(self.questions)
        manifest = json.loads(json.dumps(self._manifest(questions)))  # as it will be read back
        scorer, identity = self.scorer(), self.scorer_identity()
        with Store(self.out, manifest) as store:
            answers = store.lines("model")
            self._model.answer(questions, answers, self.questions_per_call, self.progress)

            def candidates(question: Question) -> list[Answer]:
                return self.candidates(self._model.read(answers[question.key]))

            scores = store.lines(f"scores-{digest(identity)}")
            complete_scores(questions, candidates, scorer, scores, self.questions_per_call, self.progress)
            provenance = {"build": digest(manifest), "reward": scorer.name, "model": manifest["model"]}
            rows = [
                {**row, "provenance": provenance}
                for question in questions
                for row in self._rows(question, self._model.read(answers[question.key]), scorer, scores)
            ]
            file = store.write_lines(CONVERSATIONS, iter(rows))
            report = {
                "conversations": len(rows),
                "conversations_hash": hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest(),
                **counts,
                "questions_with_conversations": len({row["id"].rpartition("-")[0] for row in rows}),
                "dropped_questions": self._dropped.to_dict(),
                "answers": dict(sorted(self._states.items())),
                "rule": {"keep": self.keep, "min_score": self.min_score, "prefer": self.prefer},
                "reward": identity,
                "manifest": manifest,
                "places": {"model": engine_place(self.model.engine)},
            }
            store.write_report(report)
        if not rows:
            raise RuntimeError(
                f"no right answer to {len(questions):,} questions ({self._dropped.summary()}): see {store.folder / REPORT}; "
                "lower min_score, draw more answers, or take other questions"
            )
        return report

    def _manifest(self, questions: Sequence[Question]) -> JsonRecord:
        return {
            "format": self.record_format,
            "questions": questions_digest(questions),
            "questions_per_call": self.questions_per_call,
            "model": self._model.identity(),
        }

    def _rows(
        self, question: Question, answers: list[Answer], scorer: Reward, scores: KeyedLines
    ) -> Iterator[JsonRecord]:
        """The conversations of a question, best first; if there are none, the reason is counted."""
        self._states.update(map(self.state, answers))
        candidates = self.candidates(answers)
        if (problem := scorer.check(question)) is not None:
            self._dropped.add("the reward cannot score it", f"{named(question)}: {problem}")
            return
        if not candidates:
            self._dropped.add("no finished answer", f"{named(question)}: {states_of(answers, self.state)}")
            return
        given = scores[question.key]["scores"]
        scored = [(answer, score) for answer, (score, *_) in zip(candidates, given, strict=True) if score is not None]
        if not scored:
            status, detail = given[0][1:]
            self._dropped.add("no answer has a score", f"{named(question)}: {status}: {detail}")
            return
        right = [(answer, score) for answer, score in scored if score >= self.min_score]
        if not right:
            best = max(score for _, score in scored)
            self._dropped.add(
                "no right answer", f"{named(question)}: the best has {best:g}, min_score is {self.min_score:g}"
            )
            return
        for number, (answer, score) in enumerate(self._best(right, question)[: self.keep]):
            yield {
                **self.conversation(question, answer),
                "source": question.source,
                "id": f"{question.key}-{number}",
                "score": score,
                "sample": answer.completion.sample_index,
            }

    def _best(self, right: list[tuple[Answer, float]], question: Question) -> list[tuple[Answer, float]]:
        """Sort by score, then by fewest faults, then by preference."""
        draw = random.Random(f"{self.seed} {question.key}")
        shuffled = draw.sample(right, len(right))
        sign = {"shortest": 1, "longest": -1, "random": 0}[self.prefer]
        return sorted(shuffled, key=lambda each: (-each[1], self.faults(each[0]), sign * len(each[0].text)))

    def shown(self, report: JsonRecord) -> list[str | ReportTable]:
        rows = [(f"{report['conversations']:,} conversations", f"{report['questions_with_conversations']:,}", "")]
        rows += [
            (reason, f"{found['count']:,}", found.get("first", ""))
            for reason, found in report["dropped_questions"].items()
        ]
        listed = ", ".join(f"{number:,} {state}" for state, number in report["answers"].items())
        return [
            ReportTable(questions_title(report), ("outcome", "questions", "the first"), rows),
            f"answers: {listed}",
            f"{self.out}/{CONVERSATIONS}.jsonl: {report['conversations']:,} conversations; counts and provenance: "
            f"{self.out}/{REPORT}",
            f"to look at them: nbg view {self.out}/{CONVERSATIONS}.jsonl",
        ]
