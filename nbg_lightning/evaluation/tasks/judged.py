"""Benchmarks scored by a judge model: against a baseline's answer (as in Arena-Hard), or by criteria (as in WritingBench)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from nbg_lightning.data.tokenizer import load_tokenizer
from nbg_lightning.engines.capabilities import InterfaceEngine
from nbg_lightning.engines.chat import Answer, ChatModel
from nbg_lightning.engines.local import LocalEngine
from nbg_lightning.engines.protocol import Engine, Sampling
from nbg_lightning.evaluation.benchmark import Benchmark, Item
from nbg_lightning.evaluation.rows import Row
from nbg_lightning.scoring.judgements import agreed, read_pairwise, read_score
from nbg_lightning.scoring.result import Verdict, failure

_PAIRWISE = """Act as an impartial judge of two assistants' answers to the request below.

First write down how you would answer yourself. Then compare the two answers with it and with each other: are they correct,
do they do what is asked, are they helpful, relevant and concise? Neither their order nor their length may influence you.

End with exactly one of these verdicts:
[[A>>B]] A is much better, [[A>B]] A is better, [[A=B]] about equal, [[B>A]] B is better, [[B>>A]] B is much better.

<|request|>
{question}

<|answer A|>
{first}

<|answer B|>
{second}"""

LOWEST, HIGHEST = 1, 10  # marks of a criterion

_RUBRIC = """Judge how well a text meets one criterion, from 1 (not at all) to 10 (could not be better). Be strict.

Criterion: {name}
{description}

<|request|>
{question}

<|text|>
{text}

Answer with a JSON object only: {{"reason": "...", "score": <1 to 10>}}"""


@dataclass(kw_only=True)
class Judged(Benchmark):
    """Base class of benchmarks scored by a judge model.

    Args:
        judge: engine of the judge model, such as `ServerEngine` with ``interface: chat``.
        judge_tokenizer: the judge's tokenizer, if the engine takes ids; prompts then use its chat format. A `LocalEngine`
            uses the one of its weights.
        judge_tokens: maximum length of a judgement.
        judge_deadline: seconds for the judgements of a call; missing ones are errors.
    """

    judge: Engine | None = None
    judge_tokenizer: str | None = None
    judge_tokens: int = 4096
    judge_deadline: float = 1500.0

    licence: ClassVar[str] = "of the items that you give"
    stop_texts: ClassVar[tuple[str, ...]] = ()
    file_names: ClassVar[tuple[str, ...]] = ("question", "questions", "test")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._chat_model: ChatModel | None = None

    def check(self) -> None:
        if self.judge is None:
            raise ValueError(f"{self.name} needs a judge; give an engine, such as nbg_lightning.engines.ServerEngine")
        if isinstance(self.judge, InterfaceEngine) and self.judge.interface == "ids" and self.judge_tokenizer is None:
            raise ValueError(f"{self.name}: the judge takes token ids; give judge_tokenizer, or its interface 'chat'")

    def opened(self) -> AbstractContextManager[Any]:
        assert self.judge is not None
        return self.judge

    @abstractmethod
    def questions(self, item: Item, text: str) -> list[str]:
        """The prompts for the judge about an answer."""

    @abstractmethod
    def verdict(self, item: Item, judgements: list[str]) -> Verdict:
        """The verdict from the judge's responses.

        Raises:
            ValueError: one of them cannot be parsed; this is an error, not a bad answer.
        """

    def score_all(self, items: Sequence[Item], texts: Sequence[Sequence[str]]) -> list[list[Verdict]]:
        asked = [[self.questions(item, text) for text in samples] for item, samples in zip(items, texts, strict=True)]
        conversations = [
            [{"role": "user", "content": question}]
            for samples in asked
            for questions in samples
            for question in questions
        ]
        sampling = Sampling(max_new_tokens=self.judge_tokens, temperature=0.0)
        judged = iter(self._judge_model().write(conversations, sampling, self.judge_deadline))
        return [
            [self._verdict(item, [next(judged)[0] for _ in questions]) for questions in samples]
            for item, samples in zip(items, asked, strict=True)
        ]

    def _verdict(self, item: Item, judgements: list[Answer]) -> Verdict:
        for judgement in judgements:
            if not judgement.finished:
                completion = judgement.completion
                reason = completion.error or completion.finish_reason
                return failure(f"the judge did not finish ({reason}){_end_of(judgement)}")
        try:
            return self.verdict(item, [judgement.final or "" for judgement in judgements])
        except ValueError as error:
            return failure(f"the judge's answer cannot be read ({error}){_end_of(judgements[-1])}")

    def _judge_model(self) -> ChatModel:
        assert self.judge is not None
        if self._chat_model is None:
            name = self.judge_tokenizer or (self.judge.weights if isinstance(self.judge, LocalEngine) else None)
            tokenizer = None if name is None else load_tokenizer(name)
            self._chat_model = ChatModel(self.judge, tokenizer, "auto")
        return self._chat_model


def _end_of(judgement: Answer) -> str:
    """The end of the judge's response in one line, for the record of an error."""
    said = " ".join(judgement.text.split())
    return f": ... {said[-120:]}" if said else ""


@dataclass(kw_only=True)
class PairwiseJudged(Judged):
    """Rows of ``question`` (or ``prompt``) and ``baseline``, another model's answer.

    Each answer is judged twice, as A and as B, which cancels position bias. If both verdicts agree on the better answer,
    the score is the mean of their values: 1 much better, 0.75 better, 0.25 worse, 0 much worse (Arena-Hard's verdicts, Li
    et al. 2024, arXiv 2406.11939). If they do not, or one is a tie, it is 0.5.
    """

    label: ClassVar[str] = "pairwise"
    primary: ClassVar[str] = "accuracy"

    def parse(self, row: Row, place: str) -> Item:
        question = row["question"] if "question" in row else row["prompt"]
        if not isinstance(row["baseline"], str) or not row["baseline"]:
            raise ValueError("'baseline' is no text, or an empty one")
        identity = str(row.get("id", row.get("uid", place)))
        return Item(identity, question, row["baseline"], category=row.get("category"))

    def questions(self, item: Item, text: str) -> list[str]:
        asked = item.question
        return [
            _PAIRWISE.format(question=asked, first=text, second=item.answer),
            _PAIRWISE.format(question=asked, first=item.answer, second=text),
        ]

    def verdict(self, item: Item, judgements: list[str]) -> Verdict:
        return Verdict(agreed(*map(read_pairwise, judgements)))


@dataclass(kw_only=True)
class RubricJudged(Judged):
    """Rows of ``query`` and ``checklist``, criteria with ``name`` and a description (Wu et al. 2025, arXiv 2503.05244).

    The judge gives 1 to 10 for each criterion; the score is their mean, divided by 10.
    """

    label: ClassVar[str] = "rubric"

    def parse(self, row: Row, place: str) -> Item:
        if not row["checklist"]:
            raise ValueError("'checklist' is empty")
        criteria = [
            (each["name"], "\n".join(f"{key}: {value}" for key, value in each.items() if key != "name"))
            for each in row["checklist"]
        ]
        identity = str(row.get("id", row.get("index", place)))
        return Item(identity, row["query"], category=row.get("domain1"), data={"criteria": criteria})

    def questions(self, item: Item, text: str) -> list[str]:
        return [
            _RUBRIC.format(name=name, description=description, question=item.question, text=text)
            for name, description in item.data["criteria"]
        ]

    def verdict(self, item: Item, judgements: list[str]) -> Verdict:
        marks = [read_score(judgement, LOWEST, HIGHEST) for judgement in judgements]
        return Verdict(sum(marks) / len(marks) / HIGHEST)
