"""Conversations on disk: rendered once to ids and loss weights, and packed into windows.

In addition to the files of a text source (`shards`), every part has ``part-000000.weights`` with one byte per token: the index of
its loss weight in ``weight_values`` of the part's manifest entry. A document is a conversation up to its last trained token,
since later tokens predict nothing that has a loss.

The assignment of conversations to windows is written once to ``windows-METHOD-LENGTH/``: the conversations' indices, window by
window, and the offset at which each window begins.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
from numpy.lib.format import open_memmap
from typing_extensions import override

from nbg_lightning.chat.fast_encoder import EncodedTexts
from nbg_lightning.chat.formats import AUTO
from nbg_lightning.chat.renderer import RenderCounts, Renderer, render_samples
from nbg_lightning.data.chat_sources import ChatPart
from nbg_lightning.data.durable import atomic_folder, locked
from nbg_lightning.data.encoder import EncodedDocuments, Encoder, TokenizerEngine
from nbg_lightning.data.packing import best_fit_decreasing, length_buckets, padded_batches
from nbg_lightning.data.prepared_files import Numbers
from nbg_lightning.data.reading import NULLS, VERSION, Notes, read_conversations
from nbg_lightning.data.shards import TokenizedSource
from nbg_lightning.data.sources import Part
from nbg_lightning.data.stored_files import StoredFiles
from nbg_lightning.digests import digest, read_sealed, seal

FORMAT = "nbg_lightning conversations 1"
BATCH_DOCUMENTS = 256
JSON_BYTES = 17, 33  # of a row and of a message in addition to its text, for progress
# Number packed together: they take 100 bytes of memory each, and longer lists would not be packed better.
PACKED_TOGETHER = 1 << 20

Packing = Literal["best_fit", "bucketed", "padded"]
_PACKERS: dict[str, Callable[[np.ndarray, int], list[list[int]]]] = {
    "best_fit": best_fit_decreasing,
    "bucketed": length_buckets,
    "padded": padded_batches,
}


class RenderedSource(TokenizedSource):
    """One prepared (chat source, split): conversations as ids with loss weights, read through memory maps.

    Attributes:
        counts: outcome counts of the source's rows, for both splits together.
        notes: findings while reading them (see `reading`).

    Raises:
        As `TokenizedSource`.
    """

    format = FORMAT

    def __init__(self, folder: str | Path | StoredFiles, check_sizes: bool = True) -> None:
        super().__init__(folder, check_sizes)
        self._first_document = np.cumsum([0, *(part["documents"] for part in self._parts)])

    @override
    def _check_sizes(self, part: dict[str, Any]) -> None:
        super()._check_sizes(part)
        self._check_size(f"{part['file']}.weights", part["tokens"])

    @property
    def counts(self) -> RenderCounts:
        return RenderCounts(**self.manifest["counts"])

    @property
    def notes(self) -> Notes:
        return Notes(self.manifest["notes"])

    def _open_weights(self, part: int) -> tuple[Numbers, np.ndarray]:
        found: tuple[Numbers, np.ndarray] = self._kept.get(self, "weights", part, self._map_weights)
        return found

    def _map_weights(self, part: int) -> tuple[Numbers, np.ndarray]:
        values = np.array(self._parts[part]["weight_values"], np.float32)
        return self._map(part, "weights", np.dtype(np.uint8), self._digests_of(part).get("weights")), values

    def document(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids (int64) and loss weights (float32) of a conversation.

        Raises:
            IndexError: there is no conversation with that index.
        """
        if not 0 <= index < self.num_documents:
            raise IndexError(f"conversation {index} of source {self.name!r}: it has {self.num_documents}")
        part = int(np.searchsorted(self._first_document, index, side="right")) - 1
        tokens, begins = self._open(part)
        row = index - int(self._first_document[part])
        begin, *following = begins.read(row, min(row + 2, len(begins))).tolist()
        end = following[0] if following else len(tokens)
        codes, values = self._open_weights(part)
        return self._ids(part, begin, end).astype(np.int64), values[codes.read(begin, end)]

    def lengths(self) -> np.ndarray:
        """Number of ids of every conversation, int64."""
        parts = [
            np.diff(self._begins(index).astype(np.int64), append=part["tokens"])
            for index, part in enumerate(self._parts)
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)


class Document(NamedTuple):
    """One rendered row.

    Attributes:
        content: see `EncodedDocuments`; None for the content of the ids.
        ids: token ids.
        num_bytes: approximate size of its row as JSON.
        weights: loss weight of every id.
    """

    content: bytes | None
    ids: list[int]
    num_bytes: int
    weights: list[float]


@dataclass(eq=False)
class RenderingEncoder(Encoder):
    """Base class of encoders of rendered rows: identity, batching, progress and counts. Subclasses render a row.

    Args:
        name: name of the source, for messages.
        renderer: the renderer with its options; sent to the workers.
        vocab_size: vocabulary size of the tokenizer.
        tokenizer_fingerprint: fingerprint of the tokenizer.
        settings: all settings of the renderer that affect ids and weights, JSON-able.
        row_format: format of the rows (see `Conversation.from_dict` and `PreferencePair.from_dict`).
        ignored_keys: message keys to ignore.
    """

    reader: ClassVar[type[RenderedSource]] = RenderedSource
    batch_documents: ClassVar[int] = BATCH_DOCUMENTS
    noun: ClassVar[str] = "conversation"  # a row, in messages

    name: str
    renderer: Renderer
    vocab_size: int
    tokenizer_fingerprint: str
    settings: dict[str, Any]
    row_format: str = AUTO
    ignored_keys: Collection[str] = ()
    _fast: Renderer | None = field(default=None, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_fast"}

    def probe(self) -> None:
        self.renderer.fast(probe=True)

    def use(self, engine: TokenizerEngine) -> None:
        if engine == "tokenizers":
            self._fast = None
        elif self._fast is None:
            self._fast = self.renderer.fast(probe=False)

    def identity(self) -> dict[str, Any]:
        return {
            "format": self.reader.format,
            "tokenizer": self.tokenizer_fingerprint,
            "renderer": self.settings,
            "rows": {"version": VERSION, "format": self.row_format, "ignored_keys": list(self.ignored_keys)},
        }

    @property
    def used_renderer(self) -> Renderer:
        """The renderer with the tokenizer engine in use."""
        return self._fast or self.renderer

    @abstractmethod
    def documents(self, part: ChatPart, counts: RenderCounts, notes: Notes, size: list[int]) -> Iterator[Document]:
        """The part's documents; each takes the row bytes accumulated in ``size[0]``, and resets it to 0."""

    def encode(self, part: Part, counts: dict[str, Any]) -> Iterator[EncodedDocuments]:
        assert isinstance(part, ChatPart)
        found, notes = RenderCounts(), Notes()
        documents = self.documents(part, found, notes, [0])
        while batch := list(islice(documents, self.batch_documents)):
            ids = EncodedTexts.joined([document.ids for document in batch])
            as_bytes, begins = ids.ids.astype("<u4", copy=False).tobytes(), (4 * ids.begins).tolist()
            weights = np.fromiter(chain.from_iterable(document.weights for document in batch), float, len(ids.ids))
            yield EncodedDocuments(
                [
                    as_bytes[begin:end] if document.content is None else document.content
                    for document, (begin, end) in zip(batch, pairwise(begins), strict=True)
                ],
                ids.ids,
                np.diff(ids.begins),
                [document.num_bytes for document in batch],
                weights,
            )
        if part.nulls_removed:
            notes[NULLS] += part.nulls_removed
        counts.update(counts=asdict(found), notes=dict(notes))

    def summary(self, counts: list[dict[str, Any]]) -> dict[str, Any]:
        total, notes = RenderCounts(), Notes()
        for part in counts:
            total.merge(RenderCounts(**part["counts"]))
            notes.update(part["notes"])
        return {"counts": asdict(total), "notes": dict(notes)}

    def remark(self, summary: dict[str, Any], empty: bool) -> str:
        if not empty:
            return ""  # the datamodule reports it at every start of a run
        counts = RenderCounts(**summary["counts"])
        first = "".join(f"; the first: {error}" for error in (*counts.errors, *counts.dropped_long)[:1])
        lost = f"{counts.seen} read, {counts.too_long} too long, {counts.invalid} invalid{first}"
        return f"no {self.noun} to train on: {lost}"


def counted(rows: Iterable[Any], size: list[int], size_of: Callable[[Any], int]) -> Iterator[Any]:
    """The rows, adding up their sizes as JSON (the unit of progress)."""
    for row in rows:
        size[0] += size_of(row)
        yield row


class ConversationEncoder(RenderingEncoder):
    """Renders the rows of chat sources; see `RenderingEncoder` for the arguments."""

    def documents(self, part: ChatPart, counts: RenderCounts, notes: Notes, size: list[int]) -> Iterator[Document]:
        rows = counted(part.rows(), size, _json_size)
        conversations = read_conversations(rows, notes, self.row_format, self.ignored_keys)
        for _, rendered in render_samples(self.used_renderer, conversations, counts, self.name, place=part.place):
            ids, weights = rendered.ids, rendered.loss_weights
            while not weights[-1]:
                ids.pop()
                weights.pop()
            yield Document(None, ids, size[0], weights)
            size[0] = 0


def _json_size(row: Any) -> int:
    """Approximate number of characters of a row as JSON."""
    if type(row) is not dict and not isinstance(row, Mapping):  # checking the base class takes longer
        return 0
    messages = row.get("messages")
    if not isinstance(messages, list):
        return JSON_BYTES[0] + sum(_text_size(value) for value in row.values())
    size = JSON_BYTES[0] + JSON_BYTES[1] * len(messages)
    for message in messages:
        is_turn = type(message) is dict or isinstance(message, Mapping)
        content = message.get("content") if is_turn else None
        size += len(content) if isinstance(content, str) else 0
    return size


def _text_size(value: Any) -> int:
    """Approximate number of characters of a column that may be a text or a list of turns."""
    if isinstance(value, str):
        return len(value)
    turns = value if isinstance(value, list) else ()
    return sum(JSON_BYTES[1] + len(str(turn.get("value", ""))) for turn in turns if isinstance(turn, Mapping))


class Windows:
    """The assignment of a source's conversations to windows, read through memory maps.

    Args:
        folder: the folder returned by `plan_windows`.

    Attributes:
        length: number of positions in a window.
        padded: whether every conversation is padded to the longest of its window.
        efficiency: share of the positions that hold tokens of conversations.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        advice = f"delete {self.folder} and run again"
        about, _ = read_sealed(self.folder / "about.json", advice, required=lambda value: "files" in value)
        for name, written in about.get("files", {}).items():
            if digest((self.folder / name).read_bytes()) != written:
                raise ValueError(f"{self.folder / name} is damaged: its digest does not match; {advice}")
        self.length: int = about["length"]
        self.padded: bool = about["packing"] != "best_fit"
        self.efficiency: float = about["efficiency"]
        self._documents = np.load(self.folder / "documents.npy", mmap_mode="r").view(np.ndarray)
        self._begins = np.load(self.folder / "begins.npy", mmap_mode="r").view(np.ndarray)

    def __reduce__(self) -> tuple[Any, ...]:
        return Windows, (self.folder,)

    def __len__(self) -> int:
        return len(self._begins) - 1

    def __getitem__(self, index: int) -> list[int]:
        """The conversations of a window, in order."""
        return self._documents[self._begins[index] : self._begins[index + 1]].tolist()


def plan_windows(source: RenderedSource, length: int, packing: Packing) -> Windows:
    """Assign conversations to windows; later calls reuse the written result.

    A conversation of n ids takes n - 1 positions: its last id is a label only.

    Args:
        source: the conversations.
        length: number of positions in a window.
        packing: best_fit: best-fit-decreasing packing, back to back. bucketed: conversations of similar length together,
            padded to the longest of the window. padded: consecutive conversations in the source's order, padded in the same way.

    Raises:
        ValueError: an unknown packing, or a conversation longer than a window.
    """
    if packing not in get_args(Packing):
        raise ValueError(f"packing is invalid: {packing!r}; choose one of {', '.join(get_args(Packing))}")
    folder = source.folder / f"windows-{packing}-{length}"
    with locked(folder):
        if not (folder / "about.json").is_file():
            _write_windows(source, length, packing, folder)
    return Windows(folder)


def _write_windows(source: RenderedSource, length: int, packing: Packing, folder: Path) -> None:
    lengths = source.lengths() - 1
    if len(lengths) and int(lengths.max()) > length:
        raise ValueError(
            f"source {source.name!r} has a conversation of {int(lengths.max()) + 1} tokens, more than "
            f"sequence_length {length}; lower max_length or raise sequence_length"
        )
    sizes: list[np.ndarray] = []
    with atomic_folder(folder) as written:
        documents = open_memmap(written / "documents.npy", "w+", np.int64, (len(lengths),))
        for first in range(0, len(lengths), PACKED_TOGETHER):
            bins = _PACKERS[packing](lengths[first : first + PACKED_TOGETHER], length)
            sizes.append(np.fromiter((len(item) for item in bins), np.int64, len(bins)))
            count = int(sizes[-1].sum())
            documents[first : first + count] = np.fromiter((i for item in bins for i in item), np.int64, count) + first
        documents.flush()
        begins = np.cumsum(np.concatenate([np.zeros(1, np.int64), *sizes]))
        np.save(written / "begins.npy", begins)
        filled = int(lengths.sum())
        about = {
            "packing": packing,
            "length": length,
            "windows": len(begins) - 1,
            "conversations": len(lengths),
            "efficiency": filled / max(1, (len(begins) - 1) * length),
            "files": {name: digest((written / name).read_bytes()) for name in ("documents.npy", "begins.npy")},
        }
        (written / "about.json").write_text(seal(about), "utf-8")
