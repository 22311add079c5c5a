"""Sources of pairs: like sources of conversations, but a row has ``chosen`` and ``rejected``, and optionally ``prompt``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from nbg_lightning.chat.formats import AUTO
from nbg_lightning.data.arrow_rows import without_nulls
from nbg_lightning.data.chat_sources import (
    TOOLS,
    ChatHuggingFacePart,
    ChatJsonLinesPart,
    ChatList,
    ChatListPart,
    ChatParquetPart,
    ChatPart,
    ChatSource,
    SourceRow,
)
from nbg_lightning.data.pair_formats import PAIR_COLUMNS, PAIR_FORMATS
from nbg_lightning.data.sources import (
    HuggingFace,
    JsonLines,
    JsonLinesPart,
    ParquetPart,
    Part,
    file_identity,
    find_files,
    load_dataset,
    open_parquet,
    pack,
    part_bytes,
    split_rows,
)


@dataclass(kw_only=True)
class PairSource(ChatSource):
    """Base class of sources of pairs; a source's name in the datamodule is its domain in metrics.

    Prompt and answers are texts or lists of messages, in one of the formats of `pair_formats`, optionally with ``tools`` and
    ``system``. Any other field, such as provenance, is ignored.

    Args:
        prompt_field: name of the prompt's field; if rows lack it, both answers are whole conversations.
        chosen_field: name of the better answer's field.
        rejected_field: name of the worse answer's field.
    """

    kind = "pairs"
    formats: ClassVar[tuple[str, ...]] = (AUTO, *PAIR_FORMATS)
    prompt_field: str = "prompt"
    chosen_field: str = "chosen"
    rejected_field: str = "rejected"

    @property
    def names(self) -> dict[str, str]:
        """Map our field names to those in the data."""
        answers = {"prompt": self.prompt_field, "chosen": self.chosen_field, "rejected": self.rejected_field}
        return {**answers, TOOLS: TOOLS}

    @property
    def wanted(self) -> list[str]:
        """Names in the data of all columns to read; the answers and the prompt come first."""
        own = list(self.names.values())
        return [*own, *sorted(PAIR_COLUMNS - set(own) - set(self.names))]


@dataclass
class PairPart(ChatPart):
    """A part whose rows have their fields renamed to our names."""

    inner: ChatPart
    names: dict[str, str]

    def rows(self) -> Iterator[SourceRow]:
        renamed = {theirs: ours for ours, theirs in self.names.items() if theirs != ours}
        taken = set(self.names) - set(self.names.values())  # our names of fields that have other names in the data
        for row in self.inner.rows():
            if renamed and isinstance(row, dict):
                row = {renamed.get(key, key): value for key, value in row.items() if key not in taken}
            yield row
        self.nulls_removed = self.inner.nulls_removed

    def place(self, index: int) -> str:
        return self.inner.place(index)


@dataclass
class PairJsonLines(PairSource):
    """JSON-lines files with one pair per line.

    Args:
        path: a .jsonl or .jsonl.gz file, a glob pattern, or a folder, as for `JsonLines`.
    """

    path: str

    def identity(self) -> dict[str, Any]:
        lines = JsonLines(self.path, self.chosen_field)
        return {**lines.identity(), "kind": "PairJsonLines", "names": self.names}

    def parts(self) -> list[Part]:
        parts = JsonLines(self.path, self.chosen_field).parts()
        return [
            PairPart(part.size, ChatJsonLinesPart(part.size, part.slices, "messages"), self.names)
            for part in parts
            if isinstance(part, JsonLinesPart)
        ]


@dataclass
class PairParquet(PairSource):
    """Parquet files with a column for each answer.

    Args:
        path: a .parquet file, a glob pattern, or a folder.
    """

    path: str

    def identity(self) -> dict[str, Any]:
        return {
            "kind": "PairParquet",
            "names": self.names,
            "files": file_identity(find_files(self.path, (".parquet",))),
        }

    def parts(self) -> list[Part]:
        groups: list[tuple[tuple[str, int], int]] = []
        for path in find_files(self.path, (".parquet",)):
            with open_parquet(str(path)) as file:
                columns = set(_columns(file.schema_arrow.names, self, str(path)))
                for index in range(file.metadata.num_row_groups):
                    row_group = file.metadata.row_group(index)
                    found = (row_group.column(c) for c in range(row_group.num_columns))
                    size = sum(c.total_uncompressed_size for c in found if c.path_in_schema.split(".")[0] in columns)
                    groups.append(((str(path), index), size))
        packed = pack(groups, part_bytes(sum(size for _, size in groups)))
        return [
            PairPart(size, _ParquetRows(size, group, self.chosen_field, self.wanted), self.names)
            for group, size in packed
        ]


@dataclass
class _ParquetRows(ChatParquetPart):
    """Row groups, reading some columns only."""

    wanted: list[str]

    def rows(self) -> Iterator[dict[str, Any]]:
        for path, index in self.row_groups:
            with open_parquet(path) as file:
                columns = [name for name in self.wanted if name in file.schema_arrow.names]
            for _, _, row in ParquetPart(self.size, [(path, index)], self.messages_field).rows(columns):
                clean, removed = without_nulls(row)
                self.nulls_removed += removed
                yield clean


@dataclass
class PairHuggingFace(PairSource):
    """A dataset of the Hugging Face hub, or a folder written by ``Dataset.save_to_disk``.

    Args:
        name_or_folder: name on the hub, or a local folder.
        split: split to read.
        config_name: configuration (subset) of a hub dataset.
    """

    name_or_folder: str
    split: str = "train"
    config_name: str | None = None

    def identity(self) -> dict[str, Any]:
        source = HuggingFace(self.name_or_folder, self.split, self.chosen_field, self.config_name)
        return {**source.identity(), "kind": "PairHuggingFace", "names": self.names}

    def parts(self) -> list[Part]:
        dataset = load_dataset(self.name_or_folder, self.split, self.config_name)
        columns = _columns(dataset.column_names, self, f"dataset {self.name_or_folder!r}")
        read = [name for name in self.wanted if name in dataset.column_names]
        place = (self.name_or_folder, self.split, self.config_name, self.chosen_field)
        return [
            PairPart(part.size, _HuggingFaceRows(part.size, part, read, self.chosen_field), self.names)
            for part in split_rows(dataset, columns, *place)
        ]


@dataclass
class _HuggingFaceRows(ChatHuggingFacePart):
    """A range of rows of a dataset, unchanged."""

    def rows(self) -> Iterator[dict[str, Any]]:
        for row in self.inner.rows(self.columns):
            clean, removed = without_nulls(row)
            self.nulls_removed += removed
            yield clean


def _columns(names: list[str], source: PairSource, where: str) -> list[str]:
    """The columns that determine a pair's size; those of the answers must exist."""
    for name, setting in ((source.chosen_field, "chosen_field"), (source.rejected_field, "rejected_field")):
        if name not in names:
            raise ValueError(f"{where}: no column {name!r}; there are {', '.join(names)}: set {setting} to one of them")
    return [name for name in source.names.values() if name in names]


@dataclass
class PairList(PairSource):
    """Pairs in memory, for notebooks and tests.

    Args:
        pairs: the rows.
    """

    pairs: list[dict[str, Any]]

    def identity(self) -> dict[str, Any]:
        return {**ChatList(self.pairs).identity(), "kind": "PairList", "names": self.names}

    def parts(self) -> list[Part]:
        parts = ChatList(self.pairs).parts()
        return [
            PairPart(part.size, _ListRows(part.size, part.conversations, part.first), self.names)
            for part in parts
            if isinstance(part, ChatListPart)
        ]


@dataclass
class _ListRows(ChatListPart):
    """A range of pairs."""

    def place(self, index: int) -> str:
        return f"pair {self.first + index}"
