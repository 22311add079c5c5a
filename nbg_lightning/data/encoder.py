"""Encoders make documents ids (and loss weights); every worker process has one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nbg_lightning.data.shards import FORMAT, TokenizedSource
from nbg_lightning.data.sources import Part
from nbg_lightning.data.tokenizer import Tokenizer

BATCH_CHARACTERS = 1 << 18  # larger batches are not faster on one thread


class Document(NamedTuple):
    """One encoded document.

    Attributes:
        content: what tells documents apart: its hash decides whether the document is held out.
        ids: token ids.
        num_bytes: UTF-8 bytes of its text (of a conversation: of its row as JSON, about).
        weights: the loss weight of every id, if the encoder gives them.
    """

    content: bytes
    ids: list[int]
    num_bytes: int
    weights: list[float] | None = None


class Encoder(ABC):
    """Makes the documents of a part ids. It is pickled once for every worker, so it pickles small.

    Attributes:
        reader: what reads the prepared folder; its ``format`` names the layout.
        vocab_size: ids are below it.
        tokenizer_fingerprint: `Tokenizer.fingerprint` of the tokenizer.
    """

    reader: type[TokenizedSource] = TokenizedSource
    vocab_size: int
    tokenizer_fingerprint: str

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """All that decides the ids, for the cache key."""

    @abstractmethod
    def encode(self, part: Part, counts: dict[str, Any]) -> Iterator[list[Document]]:
        """Batches of the part's documents in order; what was left out is counted in ``counts`` (JSON-able)."""

    @abstractmethod
    def summary(self, counts: list[dict[str, Any]]) -> dict[str, Any]:
        """The counts of all parts in order as entries of the manifest."""

    @abstractmethod
    def remark(self, summary: dict[str, Any], empty: bool) -> str:
        """The summary for people: after the sizes of a source, or why there is nothing (``empty``)."""


class TextEncoder(Encoder):
    """Documents are texts: ``ids eos``, after bos if the tokenizer puts it before a text by itself; empty ones are left out
    and counted. So a model is trained on texts that begin as those that transformers, vLLM and benchmarks give it.

    Args:
        tokenizer: its folder, or the tokenizer itself.
    """

    def __init__(self, tokenizer: Tokenizer | str | Path) -> None:
        self._tokenizer = tokenizer if isinstance(tokenizer, Tokenizer) else Tokenizer(tokenizer)
        self.vocab_size = self._tokenizer.vocab_size
        self.tokenizer_fingerprint = self._tokenizer.fingerprint

    def __reduce__(self) -> tuple[Any, ...]:
        return TextEncoder, (self._tokenizer.name_or_path,)

    def identity(self) -> dict[str, Any]:
        return {"format": FORMAT, "tokenizer": self.tokenizer_fingerprint, "begin": list(self._tokenizer.begin)}

    def encode(self, part: Part, counts: dict[str, Any]) -> Iterator[list[Document]]:
        tokenizer = self._tokenizer
        begin = list(tokenizer.begin)
        end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
        counts["empty"] = 0
        for texts in _batches(part.documents()):
            documents = []
            for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
                if not ids or text.isspace():
                    counts["empty"] += 1
                    continue
                data = text.encode("utf-8")
                documents.append(Document(data, begin + ids + end, len(data)))
            yield documents

    def summary(self, counts: list[dict[str, Any]]) -> dict[str, Any]:
        return {"empty_documents": sum(part["empty"] for part in counts)}

    def remark(self, summary: dict[str, Any], empty: bool) -> str:
        number = summary["empty_documents"]
        if empty:
            return f"no text: {number} documents, all empty: check the path and the text field"
        return f" ({number:,} empty documents skipped)" if number else ""


def _batches(documents: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in documents:
        batch.append(text)
        characters += len(text) + 64  # an empty document costs something too
        if characters > BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
