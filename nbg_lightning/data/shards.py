"""Prepared text: flat files of token ids, read through memory maps on a disk, and in blocks behind a URL.

A folder holds the training or validation documents of one source: ``manifest.json`` (written last) and for every part
with documents

- ``part-000000.tokens``: little-endian ids of two bytes (vocabularies up to 65,536), three or four; a document is
  ``[bos] ids [eos]``;
- ``part-000000.documents``: little-endian uint64, the offset in the part at which each document begins;
- ``part-000000.digests``: digests of the blocks of these files. The manifest contains the digest of this file, and ends
  with its own, so that any damage is detected, with an error that names the file.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from nbg_lightning.data.prepared_files import Numbers
from nbg_lightning.data.stored_files import StoredFiles, opened
from nbg_lightning.data.token_width import TokenWidth
from nbg_lightning.digests import FileDigest, digest, parse_sealed, unseal

FORMAT = "nbg_lightning tokens 1"
MANIFEST = "manifest.json"
DIGESTS = "digests"  # suffix of a part's file, and its entry in the manifest
SEALED = "sealed"  # in a manifest that ends with its digest
OFFSET_DTYPE = np.dtype("<u8")


def content_fingerprint(dtype: str, parts: list[dict[str, Any]]) -> str:
    """Hex digest of the parts' digests in order: it depends on tokens and document offsets, not on names."""
    content = [dtype, *(part["digest"] for part in parts)]
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


class TokenizedSource:
    """One prepared (source, split).

    Its tokens form one long row, cut into windows of ``sequence_length`` inputs that overlap by one token (the last label of a
    window is the first input of the next). Only what is accessed is read; the object pickles as its
    path.

    Args:
        folder: The split's folder or its files behind a URL, as `prepare_source` returns them.
        check_sizes: Check the sizes of all files against the manifest. If another process on the machine has done so, False
            saves two file system calls per part: a part's files are checked when it is first read in any case.

    Attributes:
        name: Name of the source.
        split: ``train`` or ``validation``.
        num_tokens, num_documents: Sizes.
        num_bytes: UTF-8 bytes of the documents' text.
        longest_document: Tokens of the longest document.
        vocab_size: Vocabulary size of the tokenizer.
        tokenizer_fingerprint: `Tokenizer.fingerprint` of the tokenizer.
        fingerprint: Hex digest of all tokens and document boundaries.
        manifest: The manifest of the preparation.
        format: Name of the layout on disk.

    Raises:
        FileNotFoundError: There is no finished prepared source, or a file of it is missing.
        ValueError: A file's size differs from the manifest, or the format is another one.
    """

    format = FORMAT

    def __init__(self, folder: str | Path | StoredFiles, check_sizes: bool = True) -> None:
        self.files = opened(folder)
        self._place = folder
        file = self.files.named(MANIFEST)
        try:
            data = self.files.bytes_of(MANIFEST)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise FileNotFoundError(
                f"{folder if isinstance(folder, (str, Path)) else file.removesuffix('/' + MANIFEST)} holds no finished prepared "
                f"source ({MANIFEST} is missing); prepare it"
            ) from None
        manifest, _ = parse_sealed(data, file, self._advice, required=lambda value: SEALED in value)
        if manifest.get("format") != self.format:
            raise ValueError(f"{file} has format {manifest.get('format')!r}, not {self.format!r}; {self._advice}")
        self.manifest: dict[str, Any] = manifest
        self.name: str = manifest["name"]
        self.split: str = manifest["split"]
        self.num_tokens: int = manifest["tokens"]
        self.num_documents: int = manifest["documents"]
        self.num_bytes: int = manifest["bytes"]
        self.longest_document: int = manifest["longest_document"]
        self.vocab_size: int = manifest["vocab_size"]
        self.tokenizer_fingerprint: str = manifest["tokenizer"]
        self.fingerprint: str = manifest["fingerprint"]
        try:
            self._width = TokenWidth.named(manifest["dtype"])
        except ValueError as error:
            raise ValueError(f"{file}: {error}; {self._advice}") from None
        self._parts: list[dict[str, Any]] = manifest["parts"]
        self._first_token = np.cumsum([0, *(part["tokens"] for part in self._parts)])
        if check_sizes:
            for part in self._parts:
                self._check_sizes(part)
        self._kept = self.files.kept_parts()
        self._kept.add(self)

    def __repr__(self) -> str:
        sizes = f"{self.num_documents:,} documents, {self.num_tokens:,} tokens"
        return f"{type(self).__name__}({self.name!r}, {self.split}, {sizes})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._place, False)  # in a worker: this process has checked the sizes

    @property
    def folder(self) -> Path:
        """The split's folder; behind a URL, the local folder for derived files."""
        return self.files.work_folder

    @property
    def is_checked(self) -> bool:
        """Whether all parts have digests, so that what is read is verified."""
        return SEALED in self.manifest and all(DIGESTS in part for part in self._parts)

    @property
    def _advice(self) -> str:
        return self.files.advice

    def _check_sizes(self, part: dict[str, Any]) -> None:
        self._check_size(f"{part['file']}.tokens", part["tokens"] * self._width.size)
        self._check_size(f"{part['file']}.documents", part["documents"] * OFFSET_DTYPE.itemsize)

    def _check_size(self, name: str, expected: int) -> None:
        self.files.check_size(name, expected)

    def num_windows(self, sequence_length: int) -> int:
        """Number of whole windows of this many inputs and labels: ``max(0, (num_tokens - 1) // sequence_length)``."""
        return max(0, (self.num_tokens - 1) // sequence_length)

    def window(self, index: int, sequence_length: int) -> tuple[np.ndarray, np.ndarray]:
        """Window `index`: tokens ``index * L .. index * L + L`` of the whole row.

        Returns:
            tokens int64 ``[L + 1]``, and the ascending offsets (int64, in 0..L) at which a document begins.

        Raises:
            IndexError: `index` is not in ``0 .. num_windows - 1``.
        """
        if not 0 <= index < self.num_windows(sequence_length):
            raise IndexError(
                f"window {index} of source {self.name!r}: it has {self.num_windows(sequence_length)} "
                f"of {sequence_length} tokens"
            )
        begin = index * sequence_length
        return self.span(begin, begin + sequence_length + 1)

    def span(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens ``begin .. end - 1`` of the whole row.

        Returns:
            tokens int64 ``[end - begin]``, and the ascending offsets (int64) in them at which a document begins.

        Raises:
            IndexError: The span is empty or not within ``0 .. num_tokens``.
        """
        if not 0 <= begin < end <= self.num_tokens:
            raise IndexError(f"tokens {begin} to {end} of source {self.name!r}: it has {self.num_tokens}")
        tokens = np.empty(end - begin, np.int64)
        starts = []
        part = int(np.searchsorted(self._first_token, begin, side="right")) - 1
        position = begin
        while position < end:
            part_tokens, part_documents = self._open(part)
            first = int(self._first_token[part])
            stop = min(end, first + len(part_tokens))
            tokens[position - begin : stop - begin] = self._ids(part, position - first, stop - first)
            low, high = part_documents.search(position - first, stop - first)
            starts.append(part_documents.read(low, high).astype(np.int64) + (first - begin))
            position, part = stop, part + 1
        return tokens, starts[0] if len(starts) == 1 else np.concatenate(starts)

    def num_longer_than(self, num_tokens: int) -> int:
        """Number of documents with more tokens than this (reads all offsets: 8 bytes per document)."""
        if self.longest_document <= num_tokens:
            return 0
        longer = 0
        for index, part in enumerate(self._parts):
            lengths = np.diff(self._begins(index), append=part["tokens"])
            longer += int((lengths > num_tokens).sum())
        return longer

    def _open(self, part: int) -> tuple[Numbers, Numbers]:
        found: tuple[Numbers, Numbers] = self._kept.get(self, "tokens", part, self._map_part)
        return found

    def _map_part(self, part: int) -> tuple[Numbers, Numbers]:
        self._check_sizes(self._parts[part])
        digests = self._digests_of(part)
        kinds = {"tokens": self._width.dtype, "documents": OFFSET_DTYPE}
        tokens, documents = (self._map(part, kind, dtype, digests.get(kind)) for kind, dtype in kinds.items())
        return tokens, documents

    def _map(self, part: int, kind: str, dtype: np.dtype, expected: FileDigest | None) -> Numbers:
        return self.files.numbers(f"{self._parts[part]['file']}.{kind}", dtype, expected)

    def _digests_of(self, part: int) -> dict[str, FileDigest]:
        """Digests of a part's files; empty if it was written without them."""
        entry = self._parts[part]
        if DIGESTS not in entry:
            return {}
        name = f"{entry['file']}.{DIGESTS}"
        file = self.files.named(name)
        try:
            data = self.files.bytes_of(name, entry[DIGESTS])
        except FileNotFoundError:
            raise FileNotFoundError(f"{file} is missing; {self._advice}") from None
        if digest(data) != entry[DIGESTS]:
            raise ValueError(f"{file} is damaged: its digest does not match; {self._advice}")
        return {kind: FileDigest.from_json(value) for kind, value in unseal(data).items()}

    def _ids(self, part: int, begin: int, end: int) -> np.ndarray:
        """Tokens of a part, checked to be within the vocabulary."""
        ids = self._width.decode(self._open(part)[0].read(begin, end))
        if len(ids) and int(ids.max()) >= self.vocab_size:
            place = begin + int(ids.argmax())
            document = int(np.searchsorted(self._begins(part), place, side="right")) - 1
            raise ValueError(
                f"{self.files.named(self._parts[part]['file'])}.tokens is invalid: token {place:,} (in document {document:,}) "
                f"is {int(ids.max())}, beyond the vocabulary of {self.vocab_size:,}; {self._advice}"
            )
        return ids

    def _begins(self, part: int) -> np.ndarray:
        """Offsets of all documents in a part."""
        documents = self._open(part)[1]
        return documents.read(0, len(documents))

    def verify(self) -> None:
        """Read everything and verify it against the manifest's digests.

        Raises:
            ValueError: A file's content has changed; it is named.
        """
        for index, part in enumerate(self._parts):
            for array in self._open(index):
                array.check()
            if not self.files.is_remote:  # remote files are always verified on reading
                self._compare_content(self.folder / part["file"], part)

    def _compare_content(self, stem: Path, part: dict[str, Any]) -> None:
        if part_digest(stem, part.get("weight_values")) != part["digest"]:
            kinds = " or ".join(f".{kind}" for kind in part_kinds(part))
            raise ValueError(f"{stem}{kinds} has changed since it was written; {self._advice}")


def part_kinds(part: dict[str, Any]) -> tuple[str, ...]:
    """The files of a part: those of conversations include loss weights."""
    return ("tokens", "documents", "weights") if "weight_values" in part else ("tokens", "documents")


def part_digest(stem: Path, weight_values: list[float] | None = None) -> str:
    """Hex digest of a part, from the digests of its files and the values of its weight codes."""
    digests = []
    for kind in ("tokens", "documents") if weight_values is None else ("tokens", "documents", "weights"):
        with open(f"{stem}.{kind}", "rb") as file:
            digests.append(hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest())
    return joined_digest(digests, weight_values)


def joined_digest(digests: list[bytes], weight_values: list[float] | None = None) -> str:
    """Hex digest of a part, from those of its files."""
    content = b"".join(digests) + (b"" if weight_values is None else repr(weight_values).encode())
    return hashlib.blake2b(content, digest_size=16).hexdigest()
