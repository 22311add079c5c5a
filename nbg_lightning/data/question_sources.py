"""Sources of questions: like sources of conversations, but a row is a prompt with what is needed to judge answers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from nbg_lightning.chat.formats import SYSTEM_COLUMNS, check_columns
from nbg_lightning.chat.values import read_json
from nbg_lightning.data.arrow_rows import without_nulls
from nbg_lightning.data.golds import Choices, plain, right_choice
from nbg_lightning.data.kind import DataKind
from nbg_lightning.data.question import Question, prompt_field
from nbg_lightning.data.sources import (
    HuggingFacePart,
    JsonLines,
    JsonLinesPart,
    ParquetPart,
    ReasoningGym,
    ReasoningGymPart,
    find_files,
    json_object,
    line_number,
    load_dataset,
    open_parquet,
)

Place = Callable[[], str]
"""Location of a row, for messages: called for bad rows only, since finding a line number takes reading."""


@dataclass
class QuestionCounts:
    """Outcome counts of a source's rows.

    Attributes:
        seen: number of rows read.
        invalid: number of rows that are not valid questions.
        first: the first of these, with its error.

    The attribute ``place`` is the location of the last row read, for messages; it is not part of any report.
    """

    seen: int = 0
    invalid: int = 0
    first: str = ""

    def __post_init__(self) -> None:
        self.place: Place | None = None


@dataclass(kw_only=True)
class QuestionSource(ABC):
    """Base class of sources of questions; a source's name in the datamodule is its name in metrics and mixtures.

    Args:
        weight: share of the questions of a step, relative to the other sources; None for all sources to use every question once
            per epoch.
        instruction: text appended to the question, such as the format of the final answer.
        system: text of a system turn, for questions without one.
    """

    kind: ClassVar[DataKind] = "questions"
    weight: float | None = None
    instruction: str | None = None
    system: str | None = None

    def __post_init__(self) -> None:
        if self.weight is not None and not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"weight is invalid: {self.weight!r}; give a finite number >= 0, or leave it out")

    @abstractmethod
    def rows(self) -> Iterator[tuple[Place, Mapping[str, Any]]]:
        """Location and content of every row, always in the same order.

        Raises:
            FileNotFoundError, ValueError: there is nothing, or it cannot be read.
        """

    def question(self, row: Mapping[str, Any]) -> Question:
        """Turn a row into a question.

        Raises:
            ValueError: the row is not a valid question.
        """
        return Question.from_dict(row)

    def questions(self, name: str = "", counts: QuestionCounts | None = None) -> Iterator[Question]:
        """All questions, in order.

        Args:
            name: name of the source, set in its questions; by default the one in the row.
            counts: bad rows are counted here and skipped; without it the first one raises.

        Raises:
            FileNotFoundError, ValueError: as `rows`; and for a bad row, without ``counts``.
        """
        for place, row in self.rows():
            if counts is not None:
                counts.seen, counts.place = counts.seen + 1, place
            try:
                found = self._complete(self.question(row))
            except (ValueError, TypeError, RecursionError) as error:
                said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
                problem = f"{place()}: {' '.join(said.split())}"
                if counts is None:
                    raise ValueError(f"{problem}; fix or remove this row") from error
                counts.invalid += 1
                counts.first = counts.first or problem
                continue
            yield dataclasses.replace(found, source=name) if name else found

    def _complete(self, question: Question) -> Question:
        """The question with instruction and system turn added, if its contents are plain texts."""
        messages = [dict(message) for message in question.messages]
        for message in messages:
            if not isinstance(message["content"], str) or not message["content"].strip():
                raise ValueError(f"the {message['role']} message has no text; write one, or remove the row")
        if self.system is not None and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": self.system})
        if self.instruction is not None:
            messages[-1]["content"] = f"{messages[-1]['content'].rstrip()}\n\n{self.instruction}"
        return dataclasses.replace(question, messages=tuple(messages))


@dataclass(kw_only=True)
class RowQuestions(QuestionSource):
    """Base class of sources whose rows have fields: one of `PROMPT_FIELDS` (optionally ``system``); ``answer``; ``data``.

    All other columns, except columns of bytes, are kept in `Question.data`, for rewards and tables. With ``choices``, the
    answer may be a choice's text, label or index (see `Choices`): the gold is then the text of the right choice, or its label
    if the answer is a label and the prompt shows the choices.

    Args:
        prompt_field: name of the prompt's field (a text, or messages), if it is not one of these.
        answer_field: field of the gold answer.
        data_fields: fields required in every row because a reward needs them, such as ``tests`` or ``entry_point``.
    """

    prompt_field: str | None = None
    answer_field: str = "answer"
    data_fields: list[str] = field(default_factory=list)

    def question(self, row: Mapping[str, Any]) -> Question:
        check_columns(row)
        asked = self._prompt_field(row)
        for name in self.data_fields:
            if row.get(name) is None:
                raise ValueError(f"there is no {name!r}, which data_fields names; there are {_listed(row)}")
        used = {asked, self.answer_field, "source", "data", *SYSTEM_COLUMNS} - set(self.data_fields)
        others = {name: as_json(value) for name, value in row.items() if name not in used and not _is_left_out(value)}
        data = {**others, **_object(row.get("data")), **{name: as_json(row[name]) for name in self.data_fields}}
        answer = row.get(self.answer_field)
        if answer is None and row.get("choices") is not None and row.get("answer_index") is None:
            answer = row.get("answerKey")
        found = Question.from_dict(
            {
                "prompt": row[asked],
                **{name: row.get(name) for name in SYSTEM_COLUMNS},
                "answer": None if row.get("choices") is not None else answer,
                "source": row.get("source"),
                "data": data,
            }
        )
        if (chosen := right_choice(row, self.answer_field)) is None:
            return found
        return dataclasses.replace(found, answer=_chosen_gold(found, answer, *chosen))

    def _prompt_field(self, row: Mapping[str, Any]) -> str:
        if self.prompt_field is None:
            name = prompt_field(row)
            if name is None:
                raise ValueError(f"no messages, prompt or question; there are {_listed(row)}: set prompt_field")
            return name
        if not row.get(self.prompt_field):
            raise ValueError(f"no {self.prompt_field!r}; there are {_listed(row)}: set prompt_field to one of them")
        return self.prompt_field


def _listed(row: Mapping[str, Any]) -> str:
    return ", ".join(map(str, row)) or "no fields"


def _object(data: Any) -> Mapping[str, Any]:
    """The field ``data``, which may be JSON text: Arrow columns have one type, so datasets store such fields as JSON."""
    data = data or {}
    if isinstance(data, str):
        data = read_json(data, "data is")
    if not isinstance(data, Mapping):
        raise ValueError(f"data is of type {type(data).__name__}; give an object with names")
    return data


def _chosen_gold(question: Question, answer: Any, choices: Choices, right: int) -> str:
    """The right choice's text; or its label, if it was given as a label and the prompt shows the choices."""
    asked = question.messages[-1]["content"]
    is_shown = isinstance(asked, str) and all(text in asked for text in choices.texts)
    by_label = isinstance(answer, str) and choices.readings(answer).get("label") == right
    is_text = isinstance(answer, str) and answer.strip() == choices.texts[right]
    return choices.labels[right] if is_shown and by_label and not is_text else choices.texts[right]


def _is_left_out(value: Any) -> bool:
    return value is None or isinstance(value, (bytes, bytearray, memoryview))


def as_json(value: Any) -> Any:
    """A column's value as JSON: numpy values as Python's; dates, decimals and the like as text."""
    value = plain(value)
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)


@dataclass
class QuestionJsonLines(RowQuestions):
    """JSON-lines files with one question per line.

    Args:
        path: a .jsonl or .jsonl.gz file, a glob pattern, or a folder, as for `JsonLines`.
    """

    path: str

    def rows(self) -> Iterator[tuple[Place, Mapping[str, Any]]]:
        for part in JsonLines(self.path, self.prompt_field or "prompt").parts():
            assert isinstance(part, JsonLinesPart)
            for path, position, line in part.lines():  # a duplicate key could hide another gold
                record = json_object(line, path, position, part.text_field, _read_line)
                yield partial(_line, path, position), record


_read_line = partial(read_json, what="the line is")


def _line(path: str, position: int) -> str:
    return f"{path}:{line_number(path, position)}"


@dataclass
class QuestionParquet(RowQuestions):
    """Parquet files with one question per row.

    Args:
        path: a .parquet file, a glob pattern, or a folder.
    """

    path: str

    def rows(self) -> Iterator[tuple[Place, Mapping[str, Any]]]:
        for path in find_files(self.path, (".parquet",)):
            with open_parquet(str(path)) as file:
                columns, groups = file.schema_arrow.names, file.metadata.num_row_groups
            part = ParquetPart(0, [(str(path), group) for group in range(groups)], "")
            for number, (_, _, row) in enumerate(part.rows(columns)):
                yield partial("{}, row {}".format, path, number), without_nulls(row)[0]


@dataclass
class QuestionHuggingFace(RowQuestions):
    """A dataset of the Hugging Face hub, or a folder written by ``Dataset.save_to_disk``.

    Args:
        name_or_folder: name on the hub, or a local folder.
        split: split to read.
        config_name: configuration (subset) of a hub dataset.
    """

    name_or_folder: str
    split: str = "train"
    config_name: str | None = None

    def rows(self) -> Iterator[tuple[Place, Mapping[str, Any]]]:
        dataset = load_dataset(self.name_or_folder, self.split, self.config_name)
        part = HuggingFacePart(
            0, self.name_or_folder, self.split, self.config_name, "", dataset._fingerprint, 0, dataset.num_rows
        )
        for number, row in enumerate(part.rows(dataset.column_names)):
            yield partial("dataset {!r}, row {}".format, self.name_or_folder, number), without_nulls(row)[0]


@dataclass
class QuestionList(RowQuestions):
    """Questions in memory, for notebooks and tests.

    Args:
        items: rows with the fields above, or `Question` objects.
    """

    items: list[Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.items, (str, Mapping)):
            raise ValueError("QuestionList needs a list of questions, not one; write QuestionList([question])")
        self.items = list(self.items)

    def rows(self) -> Iterator[tuple[Place, Mapping[str, Any]]]:
        for number, item in enumerate(self.items):
            row = item.to_dict() if isinstance(item, Question) else item
            if not isinstance(row, Mapping):
                raise ValueError(f"question {number} of the list is a {type(row).__name__}; give a Question or a dict")
            yield partial("question {} of the list".format, number), row


@dataclass
class ReasoningGymQuestions(QuestionSource):
    """reasoning-gym tasks, generated with the difficulty of their config and checked by their own code.

    `Question.data` has what the reward needs: ``task``, ``entry`` (the task's own record) and ``config`` (its settings).

    Args:
        tasks: task names, such as ``chain_sum``.
        count: items per task.
        seed: seed of the generator; another seed gives other items.
        config: difficulty settings per task, ``{chain_sum: {min_terms: 2, max_terms: 4}}``.
    """

    tasks: list[str]
    count: int
    seed: int = 0
    config: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._source()

    def _source(self) -> ReasoningGym:
        return ReasoningGym(self.tasks, self.count, self.seed, self.config)

    def rows(self) -> Iterator[tuple[Place, Mapping[str, Any]]]:
        for part in self._source().parts():
            assert isinstance(part, ReasoningGymPart)
            for number, item in enumerate(part.items()):
                place = partial("reasoning-gym task {!r}, item {}".format, part.task, part.start + number)
                answer = None if item["answer"] is None else str(item["answer"]).strip()
                data = {"task": part.task, "entry": item, "config": dict(part.config)}
                yield place, {"question": item["question"].strip(), "answer": answer, "data": data}


def digest(questions: Iterable[Question]) -> str:
    """Hex digest of questions in order, with answers and data."""
    hashed = hashlib.blake2b(digest_size=16)
    for question in questions:
        text = json.dumps(question.to_dict(), sort_keys=True, ensure_ascii=False, default=str)
        hashed.update(text.encode("utf-8", "surrogatepass") + b"\n")
    return hashed.hexdigest()
