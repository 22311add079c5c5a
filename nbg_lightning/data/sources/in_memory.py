"""Texts in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from nbg_lightning.data.sources.source import Part, Source, check_text, pack, part_bytes


@dataclass
class InMemory(Source):
    """Texts in memory, for notebooks and tests.

    Args:
        texts: The documents.
    """

    texts: list[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.texts, str):
            raise ValueError("InMemory needs a list of documents, not one string; write InMemory([text])")
        self.texts = [check_text(text, partial("InMemory text {}".format, i)) for i, text in enumerate(self.texts)]

    def identity(self) -> dict[str, Any]:
        digest = hashlib.blake2b(digest_size=16)
        for text in self.texts:
            data = text.encode("utf-8")
            digest.update(len(data).to_bytes(8, "little") + data)
        return {"kind": "InMemory", "digest": digest.hexdigest()}

    def parts(self) -> list[Part]:
        sizes = [(text, len(text.encode("utf-8"))) for text in self.texts]
        return [InMemoryPart(size, group) for group, size in pack(sizes, part_bytes(sum(s for _, s in sizes)))]


@dataclass
class InMemoryPart(Part):
    """A range of texts."""

    texts: list[str]

    def documents(self) -> Iterator[str]:
        yield from self.texts
