"""The interface of a source of training text and of its parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from nbg_lightning.data.kind import DataKind
from nbg_lightning.schedule.tokens import parse_tokens

MIN_PART_BYTES = 1 << 20  # half a second: a small corpus is split evenly over a few cores
MAX_PART_BYTES = 256 << 20  # two minutes of tokenizing: what a killed preparation loses per worker
PARTS_WANTED = 256
MAX_PART_FILES = 4096


@dataclass
class Part(ABC):
    """One piece of a source's work; picklable, and read by one process from start to end.

    Args:
        size: Estimated bytes of text, for progress and for splitting work.
    """

    size: int

    @abstractmethod
    def documents(self) -> Iterator[str]:
        """The part's texts, always in the same order."""


@dataclass(kw_only=True)
class Source(ABC):
    """Base class of sources of text; subclasses are flat dataclasses (``class_path``, ``init_args``).

    Args:
        tokens: Declared size ("3B", 12_000, ...), used only for planning before preparation.
        label: Free text for tables and plots.
    """

    kind: ClassVar[DataKind] = "documents"
    tokens: int | str | None = None
    label: str = ""

    def __post_init__(self) -> None:
        if self.tokens is not None:
            self.tokens = parse_tokens(self.tokens)

    @abstractmethod
    def parts(self) -> list[Part]:
        """All parts in their fixed order.

        Raises:
            FileNotFoundError: The path, folder or pattern matches no file.
            ValueError: The text is not available (unknown field, package not installed, ...).
        """

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """The cache key: options, file paths, sizes and modification times, as JSON-able values."""

    def documents(self) -> Iterator[str]:
        """All texts in order, to inspect a source: ``next(JsonLines("corpus/").documents())``."""
        for part in self.parts():
            yield from part.documents()


def part_bytes(total: int) -> int:
    """Text bytes per part for a source of `total` bytes; depends on the content only, so that boundaries are stable."""
    return min(max(total // PARTS_WANTED, MIN_PART_BYTES), MAX_PART_BYTES)


def pack(items: Iterable[tuple[Any, int]], limit: int) -> list[tuple[list[Any], int]]:
    """Group consecutive items until a group holds `limit` bytes or `MAX_PART_FILES` items."""
    groups: list[tuple[list[Any], int]] = []
    group: list[Any] = []
    size = 0
    for item, item_size in items:
        if group and (size + item_size > limit or len(group) == MAX_PART_FILES):
            groups.append((group, size))
            group, size = [], 0
        group.append(item)
        size += item_size
    return [*groups, (group, size)] if group else groups


def check_text(value: Any, where: Callable[[], str]) -> str:
    """Return `value` if it is a text that can be encoded as UTF-8, and the empty text for None.

    Args:
        value: The value in the text's place.
        where: Returns the location, for errors; called only then, since finding a line number takes reading.

    Raises:
        ValueError: Not a string, or a string with a lone surrogate (JSON's ``"\\ud800"``).
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{where()}: the text is of type {type(value).__name__}, not a string; use a field of strings")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{where()}: the text has half of a surrogate pair at character {error.start}, "
                "which UTF-8 cannot hold; fix or remove it"
            ) from None
    return value


def quoted(names: Iterable[Any]) -> str:
    names = [repr(n) for n in names]
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


@contextmanager
def naming(source: str) -> Iterator[None]:
    """Add the source's name to errors about it, since a run has many sources."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"source {source!r}: {error}") from error
    except ValueError as error:
        raise ValueError(f"source {source!r}: {error}") from error
