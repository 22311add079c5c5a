"""Text files, one document each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nbg_lightning.data.sources.files import file_identity, file_size, find_files, open_file
from nbg_lightning.data.sources.source import Part, Source, pack, part_bytes


@dataclass
class TextFolder(Source):
    """Text files, one document each.

    Args:
        path: A folder (searched recursively, without hidden files), a glob pattern, a file, or a URL of one of these.
        suffixes: File extensions that count as text in a folder.
        exclude: Shell patterns of paths below the folder to exclude, such as ``*/translations/*``.
    """

    path: str
    suffixes: list[str] = field(default_factory=lambda: [".txt", ".md", ".rst"])
    exclude: list[str] = field(default_factory=list)

    def _files(self) -> list[str]:
        return find_files(self.path, tuple(self.suffixes), self.exclude)

    def identity(self) -> dict[str, Any]:
        return {"kind": "TextFolder", "files": file_identity(self._files())}

    def parts(self) -> list[Part]:
        sizes = [(file, file_size(file)) for file in self._files()]
        return [TextPart(size, group) for group, size in pack(sizes, part_bytes(sum(s for _, s in sizes)))]


@dataclass
class TextPart(Part):
    """Whole files, one document each."""

    paths: list[str]

    def documents(self) -> Iterator[str]:
        for path in self.paths:
            try:
                with open_file(path) as file:
                    text = file.read().decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}: not UTF-8 at byte {error.start}; convert it to UTF-8, or leave it out with exclude"
                ) from None
            yield text
