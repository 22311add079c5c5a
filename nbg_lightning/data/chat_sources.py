"""Sources of conversations: like sources of text, but a document is a row in one of the formats of `chat.formats`."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar

from nbg_lightning.chat.formats import AUTO, FORMATS, ROW_COLUMNS, TURN_LISTS
from nbg_lightning.chat.values import ConversationError, did_you_mean, read_json
from nbg_lightning.data.arrow_rows import without_nulls
from nbg_lightning.data.kind import DataKind
from nbg_lightning.data.sources import (
    HuggingFace,
    HuggingFacePart,
    JsonLines,
    JsonLinesPart,
    ParquetPart,
    Part,
    ReasoningGym,
    ReasoningGymPart,
    Source,
    file_identity,
    find_files,
    line_number,
    load_dataset,
    open_parquet,
    pack,
    part_bytes,
    split_rows,
    worked_steps,
)

TOOLS = "tools"
MESSAGES = TURN_LISTS[0]
Conversations = list[dict[str, Any]]
SourceRow = dict[str, Any] | ConversationError
"""One sample as stored in its source; an unreadable one (such as a malformed line) is represented by its error."""


@dataclass
class ChatPart(Part, ABC):
    """One part of a chat source.

    Attributes:
        nulls_removed: number of keys that `rows` has removed so far because Arrow had filled them in (see `without_nulls`).
    """

    nulls_removed: int = field(default=0, init=False, compare=False)

    @abstractmethod
    def rows(self) -> Iterator[Any]:
        """The samples (`SourceRow`) for `Conversation.from_dict`, always in the same order."""

    @abstractmethod
    def place(self, index: int) -> str:
        """Location of row ``index`` of this part, for messages."""

    def documents(self) -> Iterator[Any]:
        return self.rows()


@dataclass(kw_only=True)
class ChatSource(Source):
    """Base class of sources of conversations; a source's name in the datamodule is its domain in metrics.

    A row has ``messages``, a list of ``{"role", "content", ...}``, and optionally ``tools`` (see `chat.Conversation`), or is in
    another of the formats of `chat.formats`.

    Args:
        weight: share of the training windows, relative to the other sources; None for all sources to use every window once per
            epoch.
        format: name of the rows' format; ``auto`` detects it for each row from its keys, and the log says what was found.
        ignored_keys: message keys to ignore; other unknown keys are errors.
    """

    kind: ClassVar[DataKind] = "conversations"
    formats: ClassVar[tuple[str, ...]] = (AUTO, *FORMATS)
    weight: float | None = None
    format: str = AUTO
    ignored_keys: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.format not in self.formats:
            hint = did_you_mean(self.format, self.formats)
            raise ValueError(f"format is invalid: {self.format!r}; choose one of {', '.join(self.formats)}{hint}")
        if self.weight is not None and not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"weight is invalid: {self.weight!r}; give a finite number >= 0, or leave it out")


def _renamed(row: dict[str, Any], messages_field: str) -> dict[str, Any]:
    if messages_field == MESSAGES or messages_field not in row:
        return row
    return {MESSAGES: row[messages_field], **{k: v for k, v in row.items() if k not in (MESSAGES, messages_field)}}


@dataclass
class ChatJsonLines(ChatSource):
    """JSON-lines files with one conversation per line.

    Args:
        path: a .jsonl or .jsonl.gz file, a glob pattern, or a folder, as for `JsonLines`.
        messages_field: name of the field with the messages.
    """

    path: str
    messages_field: str = "messages"

    def identity(self) -> dict[str, Any]:
        return {**JsonLines(self.path, self.messages_field).identity(), "kind": "ChatJsonLines"}

    def parts(self) -> list[Part]:
        parts = JsonLines(self.path, self.messages_field).parts()
        return [
            ChatJsonLinesPart(part.size, part.slices, self.messages_field)
            for part in parts
            if isinstance(part, JsonLinesPart)
        ]


@dataclass
class ChatJsonLinesPart(ChatPart):
    """Byte ranges (path, start, stop) of JSONL files."""

    slices: list[tuple[str, int, int]]
    messages_field: str

    def _lines(self) -> Iterator[tuple[str, int, bytes]]:
        return JsonLinesPart(self.size, self.slices, self.messages_field).lines()

    def rows(self) -> Iterator[SourceRow]:
        for _, position, line in self._lines():
            row = _json_row(line, first=position == 0)
            yield row if isinstance(row, ConversationError) else _renamed(row, self.messages_field)

    def place(self, index: int) -> str:
        path, position, _ = next(islice(self._lines(), index, None))
        return f"{path}:{line_number(path, position)}"


def _json_row(line: bytes, first: bool) -> SourceRow:
    """A line as a row, or its error."""
    try:
        row = read_json(line.decode("utf-8-sig" if first else "utf-8"), "the line is")
    except UnicodeDecodeError as error:
        return ConversationError(f"not UTF-8 at byte {error.start} of the line; convert the file to UTF-8")
    except ConversationError as error:
        return error
    if not isinstance(row, dict):
        return ConversationError(f"a line must be a JSON object, not a {type(row).__name__}")
    return row


@dataclass
class ChatParquet(ChatSource):
    """Parquet files with a column of messages.

    Args:
        path: a .parquet file, a glob pattern, or a folder.
        messages_field: name of the column with the messages.
    """

    path: str
    messages_field: str = "messages"

    def identity(self) -> dict[str, Any]:
        files = file_identity(find_files(self.path, (".parquet",)))
        return {"kind": "ChatParquet", "messages_field": self.messages_field, "files": files}

    def parts(self) -> list[Part]:
        groups: list[tuple[tuple[str, int], int]] = []
        for path in find_files(self.path, (".parquet",)):
            with open_parquet(str(path)) as file:
                content = content_columns(file.schema_arrow.names, self.messages_field, str(path))
                for index in range(file.metadata.num_row_groups):
                    row_group = file.metadata.row_group(index)
                    columns = (row_group.column(c) for c in range(row_group.num_columns))
                    size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] in content)
                    groups.append(((str(path), index), size))
        packed = pack(groups, part_bytes(sum(size for _, size in groups)))
        return [ChatParquetPart(size, group, self.messages_field) for group, size in packed]


@dataclass
class ChatParquetPart(ChatPart):
    """Row groups (path, index) of Parquet files."""

    row_groups: list[tuple[str, int]]
    messages_field: str

    def rows(self) -> Iterator[dict[str, Any]]:
        for path, index in self.row_groups:
            with open_parquet(path) as file:
                columns = read_columns(file.schema_arrow.names, self.messages_field)
            for _, _, row in ParquetPart(self.size, [(path, index)], self.messages_field).rows(columns):
                clean, removed = without_nulls(row)
                self.nulls_removed += removed
                yield _renamed(clean, self.messages_field)

    def place(self, index: int) -> str:
        for path, group in self.row_groups:
            with open_parquet(path) as file:
                rows = file.metadata.row_group(group).num_rows
            if index < rows:
                return f"{path}, row {index} of row group {group}"
            index -= rows
        raise IndexError(f"row {index} is not in this part")


@dataclass
class ChatHuggingFace(ChatSource):
    """A dataset of the Hugging Face hub, or a folder written by ``Dataset.save_to_disk``.

    Args:
        name_or_folder: name on the hub, or a local folder.
        split: split to read.
        messages_field: name of the column with the messages.
        config_name: configuration (subset) of a hub dataset.
    """

    name_or_folder: str
    split: str = "train"
    messages_field: str = "messages"
    config_name: str | None = None

    def identity(self) -> dict[str, Any]:
        source = HuggingFace(self.name_or_folder, self.split, self.messages_field, self.config_name)
        return {**source.identity(), "kind": "ChatHuggingFace"}

    def parts(self) -> list[Part]:
        dataset = load_dataset(self.name_or_folder, self.split, self.config_name)
        content = content_columns(dataset.column_names, self.messages_field, f"dataset {self.name_or_folder!r}")
        columns = read_columns(dataset.column_names, self.messages_field)
        place = (self.name_or_folder, self.split, self.config_name, self.messages_field)
        inner = split_rows(dataset, content, *place)
        return [ChatHuggingFacePart(part.size, part, columns, self.messages_field) for part in inner]


@dataclass
class ChatHuggingFacePart(ChatPart):
    """A range of rows of a dataset."""

    inner: HuggingFacePart
    columns: list[str]
    messages_field: str

    def rows(self) -> Iterator[dict[str, Any]]:
        for row in self.inner.rows(self.columns):
            clean, removed = without_nulls(row)
            self.nulls_removed += removed
            yield _renamed(clean, self.messages_field)

    def place(self, index: int) -> str:
        return f"dataset {self.inner.name_or_folder!r}, row {self.inner.start + index}"


def content_columns(names: list[str], messages_field: str, where: str) -> list[str]:
    """The columns that hold the conversations.

    Raises:
        ValueError: there are none.
    """
    if messages_field in names:
        return [messages_field]
    if messages_field == MESSAGES:
        for found in FORMATS.values():
            columns = [name for name in names if name in found.columns]
            if columns and found.fits(dict.fromkeys(columns, "")):
                return columns
    if "chosen" in names and "rejected" in names:
        raise ValueError(f"{where}: the rows have chosen and rejected answers; give them to a pair source")
    raise ValueError(
        f"{where}: no column {messages_field!r}, nor those of another chat format; there are {', '.join(names)}: set "
        "messages_field to one of them"
    )


def read_columns(names: list[str], messages_field: str) -> list[str]:
    """The columns to read: those that a format may use."""
    own = messages_field if messages_field != MESSAGES and messages_field in names else None
    turns = [own] if own else [name for name in TURN_LISTS if name in names]
    if turns:  # the conversation cannot be made of the others
        unread = frozenset().union(*(found.columns for found in FORMATS.values()))
        return [*turns, *(name for name in names if name in ROW_COLUMNS - unread and name not in turns)]
    return [name for name in names if name in ROW_COLUMNS]


@dataclass
class ChatList(ChatSource):
    """Conversations in memory, for notebooks and tests.

    Args:
        conversations: the rows.
    """

    conversations: Conversations

    def __post_init__(self) -> None:
        super().__post_init__()
        self.conversations = list(self.conversations)

    def identity(self) -> dict[str, Any]:
        digest = hashlib.blake2b(digest_size=16)
        for row in self.conversations:
            digest.update(as_json(row) + b"\n")
        return {"kind": "ChatList", "digest": digest.hexdigest()}

    def parts(self) -> list[Part]:
        rows = ((row, len(as_json(row))) for row in self.conversations)
        sizes = [((index, row), size) for index, (row, size) in enumerate(rows)]
        groups = pack(sizes, part_bytes(sum(size for _, size in sizes)))
        return [ChatListPart(size, [row for _, row in group], group[0][0]) for group, size in groups]


def as_json(row: Any) -> bytes:
    """A row as bytes, for identities and sizes; a row that JSON cannot represent is refused when it is read."""
    try:
        return json.dumps(row, default=str).encode()
    except RecursionError:
        return b"nested too deeply"
    except (TypeError, ValueError):  # keys of another type, circular lists, integers that are too large
        return type(row).__name__.encode()


@dataclass
class ChatListPart(ChatPart):
    """A range of conversations."""

    conversations: Conversations
    first: int

    def rows(self) -> Iterator[dict[str, Any]]:
        yield from self.conversations

    def place(self, index: int) -> str:
        return f"conversation {self.first + index}"


@dataclass
class ReasoningGymChat(ChatSource):
    """reasoning-gym tasks as conversations: the question, and an answer with thinking if the task has worked steps.

    Args:
        tasks: task names, such as ``gsm_symbolic`` (with worked steps) or ``chain_sum``.
        count: items per task.
        seed: seed of the generator; another seed gives other items.
        config: settings per task, ``{chain_sum: {max_terms: 4}}``.
    """

    tasks: list[str]
    count: int
    seed: int = 0
    config: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tasks()

    def _tasks(self) -> ReasoningGym:
        return ReasoningGym(self.tasks, self.count, self.seed, self.config)

    def identity(self) -> dict[str, Any]:
        return {**self._tasks().identity(), "kind": "ReasoningGymChat"}

    def parts(self) -> list[Part]:
        parts = self._tasks().parts()
        return [ReasoningGymChatPart(part.size, part) for part in parts if isinstance(part, ReasoningGymPart)]


@dataclass
class ReasoningGymChatPart(ChatPart):
    """A range of items of one task."""

    inner: ReasoningGymPart

    def rows(self) -> Iterator[dict[str, Any]]:
        for item in self.inner.items():
            answer = {"role": "assistant", "content": "" if item["answer"] is None else str(item["answer"]).strip()}
            if steps := worked_steps(item):
                answer["reasoning_content"] = steps
            yield {"messages": [{"role": "user", "content": item["question"].strip()}, answer]}

    def place(self, index: int) -> str:
        return f"reasoning-gym task {self.inner.task!r}, item {self.inner.start + index}"
