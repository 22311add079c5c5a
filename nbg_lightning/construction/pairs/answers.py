"""Answers of the models in a pair build: sampled once, stored as JSON, and read back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

from nbg_lightning import log
from nbg_lightning.construction.chat_models import ChatModelConfig
from nbg_lightning.construction.engines import engine_identity
from nbg_lightning.construction.store import JsonRecord, KeyedLines
from nbg_lightning.data.progress import Progress
from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import Answer, ChatFormat, with_stops
from nbg_lightning.engines.protocol import Completion, FinishReason, Prompt, Sampling

_FAILED = ("error", "deadline")  # finish reasons of answers that a retry may fix


@dataclass(frozen=True)
class AnsweringModel:
    """One side of a pair build: a model that answers all questions.

    Attributes:
        name: ``student`` or ``teacher``.
        config: settings of the model.
        format: format of its prompts and answers.
        sampling: sampling settings of its answers.
    """

    name: str
    config: ChatModelConfig
    format: ChatFormat
    sampling: Sampling

    def identity(self) -> JsonRecord:
        """Everything that determines the answers, as JSON."""
        tokenizer = None if self.format.tokenizer is None else self.format.tokenizer.fingerprint
        settings = {"template": self.format.template, "tokenizer": tokenizer, "sampling": asdict(self.sampling)}
        return {**engine_identity(self.config.engine), **settings}

    def opened(self) -> AbstractContextManager[Any]:
        """Context in which answers are generated."""
        return self.config.engine

    def answer(self, questions: Sequence[Question], lines: KeyedLines, per_call: int, progress: bool) -> None:
        """Complete the file of answers; the engine is opened only if something is missing.

        Args:
            questions: all questions, in order.
            lines: answers by question key.
            per_call: questions per call, the same for every run of a build.
            progress: show progress.
        """
        failed = {key for key in lines if _has_failed(lines[key])}
        missing = {question.key for question in questions if question.key not in lines} | failed
        if not missing:
            return
        with self.opened(), Progress(f"{self.name}'s answers", len(questions), progress, "questions") as meter:
            for begin in range(0, len(questions), per_call):
                part = questions[begin : begin + per_call]
                todo = part if any(q.key in missing and q.key not in failed for q in part) else []
                todo = todo or [question for question in part if question.key in failed]
                if todo:
                    records = self.drawn(todo)
                    lines.add([record for record in records if record["key"] in missing], replace=True)
                meter.advance(len(part), fresh=bool(todo))
        still = sum(_has_failed(lines[question.key]) for question in questions)
        if still:
            log.warn(f"{self.name}: answers to {still:,} questions failed (see report.json); the next run asks again")

    def drawn(self, questions: Sequence[Question]) -> list[JsonRecord]:
        """Generate the answers to some questions, as JSON."""
        prompts: list[Prompt] = []
        errors: dict[str, str] = {}
        for question in questions:
            try:
                prompts.append(self.format.prompt(question.messages))
            except ValueError as error:
                errors[question.key] = f"no prompt: {error}"
        sampling = with_stops(self.sampling, self.format.stop_ids)
        generated = iter(self.config.engine.generate(prompts, sampling, self.config.deadline) if prompts else ())
        return [
            {
                "key": question.key,
                "answers": [_without_prompt(errors[question.key])]
                if question.key in errors
                else [_answer_record(completion) for completion in next(generated)],
            }
            for question in questions
        ]

    def read(self, record: JsonRecord) -> list[Answer]:
        """All answers of a record, including failed and unfinished ones."""
        return [self.format.read(_completion(answer)) for answer in record["answers"]]


def _has_failed(record: JsonRecord) -> bool:
    return any(answer["finish_reason"] in _FAILED for answer in record["answers"])


def _without_prompt(error: str) -> JsonRecord:
    return {"ids": [], "text": None, "finish_reason": "prompt", "error": error, "sample": 0}


def _answer_record(completion: Completion) -> JsonRecord:
    return {
        "ids": list(completion.ids),
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "error": completion.error,
        "sample": completion.sample_index,
    }


def _completion(record: JsonRecord) -> Completion:
    """A stored completion; if its prompt could not be rendered, an error."""
    reason: FinishReason = "error" if record["finish_reason"] == "prompt" else record["finish_reason"]
    return Completion(tuple(record["ids"]), (), reason, 0, record["sample"], 0, record["error"], record["text"])


def given_answers(question: Question, field: str, form: ChatFormat) -> list[Answer]:
    """The solutions that come with a question.

    Args:
        question: the question with its data.
        field: field of the data: a text, a message, or a list of these; ``answer`` is the gold answer if the data has none.
        form: the chat format.
    """
    value = question.data.get(field, question.answer if field == "answer" else None)
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [_as_answer(each, place, form) for place, each in enumerate(values)]


def _as_answer(value: Any, place: int, form: ChatFormat) -> Answer:
    if isinstance(value, dict):
        reasoning, content = value.get("reasoning_content"), str(value.get("content") or "")
        text = content if not reasoning else f"<think>\n{reasoning}\n</think>\n\n{content}"
    else:
        text = str(value)
    return form.read(Completion((), (), "stop", 0, place, 0, None, text))


def answer_state(answer: Answer) -> str:
    """State of an answer in the report: ``finished``, ``empty``, ``cut off``, ..."""
    reason = answer.completion.finish_reason
    if answer.finished:
        return "finished" if (answer.final or "").strip() else "empty"
    return {"stop": "reasoning never ended", "length": "cut off"}.get(reason, reason)


def finished_answers(answers: Sequence[Answer]) -> list[Answer]:
    """Answers eligible for a pair: finished, not empty, without duplicates."""
    finished = [answer for answer in reversed(answers) if answer_state(answer) == "finished"]
    return list({answer.text.strip(): answer for answer in finished}.values())[::-1]


def states_of(answers: Sequence[Answer], state: Callable[[Answer], str] = answer_state) -> str:
    """Counts of the states of answers, in words, with the first error."""
    states = Counter(map(state, answers))
    error = next((answer.completion.error for answer in answers if answer.completion.error), None)
    listed = ", ".join(f"{number} {state}" for state, number in sorted(states.items())) or "there is none"
    return listed + (f" ({error})" if error else "")
