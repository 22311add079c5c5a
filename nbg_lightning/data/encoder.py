"""Encoders make documents ids (and loss weights); every worker process has one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from nbg_lightning.chat.fast_encoder import EncodedTexts, EnginesDiffer, FastEncoder, is_audited
from nbg_lightning.data.shards import FORMAT, TokenizedSource
from nbg_lightning.data.sources import Part
from nbg_lightning.data.tokenizer import Tokenizer

TokenizerEngine = Literal["tokenizers", "fastokens"]
BATCH_CHARACTERS = 1 << 18  # larger batches are not faster on one thread


class EncodedDocuments(NamedTuple):
    """Encoded documents, one after the other.

    Attributes:
        contents: what tells documents apart: its hash decides whether the document is held out.
        ids: token ids of all, unsigned ``[T]``.
        lengths: of each in ids, int64 ``[N]``.
        num_bytes: UTF-8 bytes of each one's text (of a conversation: of its row as JSON, about).
        weights: the loss weight of every id, float64 ``[T]``, if the encoder gives them.
    """

    contents: Sequence[bytes]
    ids: np.ndarray
    lengths: np.ndarray
    num_bytes: Sequence[int]
    weights: np.ndarray | None = None

    def where(self, chosen: np.ndarray) -> EncodedDocuments:
        """Some of them, by a mask ``[N]``."""
        if chosen.all():
            return self
        of_ids = np.repeat(chosen, self.lengths)
        numbers = np.flatnonzero(chosen).tolist()
        return EncodedDocuments(
            [self.contents[number] for number in numbers],
            self.ids[of_ids],
            self.lengths[chosen],
            [self.num_bytes[number] for number in numbers],
            None if self.weights is None else self.weights[of_ids],
        )


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

    def probe(self) -> None:
        """See whether fastokens may encode here.

        Raises:
            EnginesDiffer: it may not, and why.
        """
        raise EnginesDiffer("documents of this kind are encoded by tokenizers alone")

    def use(self, engine: TokenizerEngine) -> None:
        """Encode by this engine from here on: by tokenizers until it is called."""
        assert engine == "tokenizers", engine  # `probe` allows no other

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """All that decides the ids, for the cache key."""

    @abstractmethod
    def encode(self, part: Part, counts: dict[str, Any]) -> Iterator[EncodedDocuments]:
        """Batches of the part's documents in order; what was left out is counted in ``counts`` (JSON-able).

        Raises:
            EnginesDiffer: fastokens is used, and gives other ids for an audited document.
        """

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

        self._fast: FastEncoder | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return TextEncoder, (self._tokenizer.name_or_path,)

    def probe(self) -> None:
        self._tokenizer.fast_encoder().probe()

    def use(self, engine: TokenizerEngine) -> None:
        if engine == "tokenizers":
            self._fast = None
        elif self._fast is None:
            self._fast = self._tokenizer.fast_encoder()

    def identity(self) -> dict[str, Any]:
        return {"format": FORMAT, "tokenizer": self.tokenizer_fingerprint, "begin": list(self._tokenizer.begin)}

    def encode(self, part: Part, counts: dict[str, Any]) -> Iterator[EncodedDocuments]:
        tokenizer = self._tokenizer
        begin, end = tokenizer.begin, () if tokenizer.eos_id is None else (tokenizer.eos_id,)
        counts["empty"] = 0
        for texts in _batches(part.documents()):
            encoded = self._encoded(texts)
            contents = [text.encode("utf-8") for text in texts]
            if self._fast is not None:
                for index, content in enumerate(contents):
                    if is_audited(content):
                        self._fast.check(texts[index], encoded[index])
            lengths = np.diff(encoded.begins)
            kept = (lengths > 0) & ~np.fromiter(map(str.isspace, texts), bool, len(texts))
            counts["empty"] += len(texts) - int(kept.sum())
            documents = EncodedDocuments(contents, encoded.ids, lengths, [len(content) for content in contents]).where(
                kept
            )
            if len(documents.contents):
                ids, lengths = _between(begin, documents.ids, documents.lengths, end)
                yield documents._replace(ids=ids, lengths=lengths)

    def _encoded(self, texts: list[str]) -> EncodedTexts:
        if self._fast is not None:
            return self._fast.encode(texts)
        return EncodedTexts.joined(self._tokenizer.encode_batch(texts))

    def summary(self, counts: list[dict[str, Any]]) -> dict[str, Any]:
        return {"empty_documents": sum(part["empty"] for part in counts)}

    def remark(self, summary: dict[str, Any], empty: bool) -> str:
        number = summary["empty_documents"]
        if empty:
            return f"no text: {number} documents, all empty; check the path and the text field"
        return f" ({number:,} empty documents skipped)" if number else ""


def _between(
    begin: tuple[int, ...], ids: np.ndarray, lengths: np.ndarray, end: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Ids of documents, each between the same first and last ids, and the lengths of that."""
    whole = lengths + len(begin) + len(end)
    stops = np.cumsum(whole)
    found = np.empty(int(stops[-1]), ids.dtype)
    own = np.ones(len(found), bool)
    for number, value in enumerate(begin):
        found[places := stops - whole + number] = value
        own[places] = False
    for number, value in enumerate(reversed(end), start=1):
        found[places := stops - number] = value
        own[places] = False
    found[own] = ids
    return found, whole


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
