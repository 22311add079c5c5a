"""Folders of Parquet files written part by part by workers: each file is written atomically, and contains its counts.

Part k of a folder of columns has the rows of part k of its corpus, in the same order, so that joining needs no search.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbg_lightning.construction.step import DocumentRow
from nbg_lightning.construction.store import REPORT, manifest_file, read_report
from nbg_lightning.data.durable import AtomicFile
from nbg_lightning.data.sources import open_parquet

if TYPE_CHECKING:
    import pyarrow

GROUP_BYTES = 4 << 20  # text in memory at a time, and the unit of parallel reading
GROUP_ROWS = 4096
_RECORD = b"nbg_lightning"


def part_file(folder: Path, index: int) -> Path:
    """The file of a part."""
    return folder / f"part-{index:06d}.parquet"


class PartWriter:
    """Writes one part under a temporary name; `commit` renames it into place.

    Args:
        folder: an existing folder.
        index: index of the part.
        schema: schema of its rows.
    """

    def __init__(self, folder: Path, index: int, schema: pyarrow.Schema):
        import pyarrow.parquet

        self.file, self.schema = part_file(folder, index), schema
        self._whole = AtomicFile(self.file)
        self._rows: list[DocumentRow] = []
        self._bytes = self.num_rows = 0
        self._digest = hashlib.blake2b(digest_size=16)
        self._writer: Any = pyarrow.parquet.ParquetWriter(self._whole.stream, schema, compression="zstd")

    def write(self, row: DocumentRow) -> None:
        """Add a row."""
        self._rows.append(row)
        self._bytes += len(row.get("text", ""))
        self._digest.update(row["id"].encode())
        self.num_rows += 1
        if self._bytes >= GROUP_BYTES or len(self._rows) == GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        if self._rows:
            self._writer.write_table(pyarrow.Table.from_pylist(self._rows, self.schema))
        self._rows, self._bytes = [], 0

    def commit(self, record: dict[str, Any]) -> dict[str, Any]:
        """Finish the file; returns the record with the number of rows and a digest of their ids."""
        self._flush()
        record = {**record, "rows": self.num_rows, "digest": self._digest.hexdigest()}
        self._writer.add_key_value_metadata({_RECORD: json.dumps(record).encode()})
        self._writer.close()
        self._whole.commit()
        return record

    def discard(self) -> None:
        """Remove an uncommitted file."""
        self._writer.close()
        self._whole.discard()


def read_record(file: Path) -> dict[str, Any]:
    """The record of a finished part.

    Raises:
        ValueError: the file was not written by a build.
    """
    with open_parquet(str(file)) as parquet:
        metadata = parquet.metadata.metadata or {}
    if _RECORD not in metadata:
        raise ValueError(f"{file} is invalid: not written by a build of this library; remove it")
    return json.loads(metadata[_RECORD])


def read_groups(file: Path, columns: Sequence[str] | None = None) -> Iterator[list[DocumentRow]]:
    """The rows of a part, a row group at a time."""
    with open_parquet(str(file)) as parquet:
        for index in range(parquet.num_row_groups):
            yield parquet.read_row_group(index, columns=None if columns is None else list(columns)).to_pylist()


def read_rows(file: Path, columns: Sequence[str] | None = None) -> Iterator[DocumentRow]:
    """The rows of a part, one after another."""
    for rows in read_groups(file, columns):
        yield from rows


class Table:
    """A finished folder: a corpus, or columns of one.

    Args:
        folder: folder of a finished build.

    Attributes:
        report: its ``report.json``.
        files: its parts, in order.

    Raises:
        FileNotFoundError: there is no finished build.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).expanduser()
        if not (self.folder / REPORT).is_file():
            begun = manifest_file(self.folder).is_file()
            fix = "run its build again, which was interrupted" if begun else "give the folder of a finished build"
            raise FileNotFoundError(f"{folder} is invalid: no {REPORT} in it; {fix}")
        self.report: dict[str, Any] = read_report(self.folder)
        if "parts" not in self.report:
            raise ValueError(
                f"{folder} is invalid: another kind of build; give a folder of `nbg build-corpus` or of its columns"
            )
        self.files = [part_file(self.folder, index) for index in range(self.report["parts"])]
        missing = next((file for file in self.files if not file.is_file()), None)
        if missing is not None:
            raise FileNotFoundError(f"{folder} is invalid: {missing.name} is missing; build it again in another folder")

    def __len__(self) -> int:
        return self.report["rows"]

    @property
    def fingerprint(self) -> str:
        """Digest of the ids of all rows in order: equal for a corpus and its columns."""
        return self.report["fingerprint"]

    @property
    def schema(self) -> pyarrow.Schema:
        """Schema of its parts."""
        with open_parquet(str(self.files[0])) as parquet:
            return parquet.schema_arrow

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[DocumentRow]:
        """All rows in order."""
        for file in self.files:
            yield from read_rows(file, columns)

    def check_aligned(self, corpus: Table) -> None:
        """Check that these columns belong to that corpus.

        Raises:
            ValueError: they belong to another one.
        """
        if self.fingerprint != corpus.fingerprint or len(self.files) != len(corpus.files):
            raise ValueError(
                f"{self.folder} is invalid: columns of another corpus than {corpus.folder}; build it from this one"
            )


def table_report(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Entries common to all reports of tables: number of parts and rows, fingerprint."""
    digest = hashlib.blake2b(digest_size=16)
    for record in records:
        digest.update(bytes.fromhex(record["digest"]))
    return {
        "parts": len(records),
        "rows": sum(record["rows"] for record in records),
        "fingerprint": digest.hexdigest(),
    }
