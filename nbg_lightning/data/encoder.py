"""Encoders turn documents into ids (and loss weights); every worker process has one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from nbg_lightning.chat.fast_encoder import EncodedTexts, EnginesDiffer, FastEncoder, is_audited
from nbg_lightning.data.shards import FORMAT, TokenizedSource
from nbg_lightning.data.sources import Part
from nbg_lightning.data.tokenizer import Tokenizer

TokenizerEngine = Literal["tokenizers", "fastokens"]
BATCH_CHARACTERS = 1 << 18  # larger batches are not faster on one thread


class EncodedDocuments(NamedTuple):
    """Encoded documents, concatenated.

    Attributes:
        contents: identity of each document's content: its hash decides whether the document is held out.
        ids: token ids of all documents, unsigned ``[T]``.
        lengths: number of ids of each document, int64 ``[N]``.
        num_bytes: UTF-8 bytes of each document's text (for a conversation: approximate size of its row as JSON).
        weights: loss weight of every id, float64 ``[T]``, if the encoder provides them.
    """

    contents: Sequence[bytes]
    ids: np.ndarray
    lengths: np.ndarray
    num_bytes: Sequence[int]
    weights: np.ndarray | None = None

    def where(self, chosen: np.ndarray) -> EncodedDocuments:
        """Select documents by a mask ``[N]``."""
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
    """Encodes the documents of a part. It is pickled for every worker, so its pickle has to be small.

    Attributes:
        reader: class that reads the prepared folder; its ``format`` names the layout.
        vocab_size: upper bound of the ids.
        tokenizer_fingerprint: `Tokenizer.fingerprint` of the tokenizer.
    """

    reader: ClassVar[type[TokenizedSource]] = TokenizedSource
    vocab_size: int
    tokenizer_fingerprint: str

    def probe(self) -> None:
        """Check whether fastokens may encode here.

        Raises:
            EnginesDiffer: it may not; the message says why.
        """
        raise EnginesDiffer("documents of this kind are encoded by tokenizers alone")

    def use(self, engine: TokenizerEngine) -> None:
        """Encode with this engine from here on; the default is tokenizers."""
        assert engine == "tokenizers", engine  # `probe` allows no other

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything that determines the ids, for the cache key."""

    @abstractmethod
    def encode(self, part: Part, counts: dict[str, Any]) -> Iterator[EncodedDocuments]:
        """Batches of the part's documents in order; omitted ones are counted in ``counts`` (JSON-able).

        Raises:
            EnginesDiffer: fastokens is in use and gives other ids for an audited document.
        """

    @abstractmethod
    def summary(self, counts: list[dict[str, Any]]) -> dict[str, Any]:
        """Summarize the counts of all parts, in order, as manifest entries."""

    @abstractmethod
    def remark(self, summary: dict[str, Any], empty: bool) -> str:
        """The summary as text: after the sizes of a source, or the reason why it is ``empty``."""


class TextEncoder(Encoder):
    """Encodes texts as ``ids eos``, with a leading bos if the tokenizer adds one to texts by itself; empty texts are skipped and
    counted. Models are thus trained on texts that begin as transformers, vLLM and benchmarks begin them.

    Args:
        tokenizer: the tokenizer or its folder.
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
    """Ids of documents with the same ids added at the beginning and end of each, and the resulting lengths."""
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
