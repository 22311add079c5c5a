"""Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from nbg_lightning.data.sources.files import file_identity, find_files, open_file
from nbg_lightning.data.sources.source import Part, Source, check_text, pack, part_bytes, quoted, short
from nbg_lightning.remote import is_url


@dataclass
class Parquet(Source):
    """Parquet files with the text in one column.

    Args:
        path: A .parquet file, a glob pattern, a folder (searched recursively), or a URL of one of these.
        text_field: Name of the text column.
    """

    path: str
    text_field: str = "text"

    def _files(self) -> list[str]:
        return find_files(self.path, (".parquet",))

    def identity(self) -> dict[str, Any]:
        return {"kind": "Parquet", "text_field": self.text_field, "files": file_identity(self._files())}

    def parts(self) -> list[Part]:
        groups: list[tuple[tuple[str, int], int]] = []
        for path in self._files():
            with open_parquet(path) as file:
                check_text_type(file.schema_arrow, self.text_field, path)
                groups += [((path, index), size) for index, size in enumerate(_sizes(file, self.text_field, path))]
        packed = pack(groups, part_bytes(sum(size for _, size in groups)))
        return [ParquetPart(size, group, self.text_field) for group, size in packed]


@dataclass
class ParquetPart(Part):
    """Row groups (path, index) of Parquet files."""

    row_groups: list[tuple[str, int]]
    text_field: str

    def documents(self) -> Iterator[str]:
        for path, _, row in self.rows([self.text_field]):
            yield check_text(row[self.text_field], partial(str, path))

    def rows(self, columns: list[str]) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """(path, row group, values of the columns) of every row."""
        from pyarrow import ArrowInvalid

        for path, index in self.row_groups:
            with open_parquet(path) as file:
                try:
                    for batch in file.iter_batches(batch_size=1024, row_groups=[index], columns=columns):
                        for row in batch.to_pylist():
                            yield path, index, row
                except (OSError, UnicodeDecodeError, ArrowInvalid) as error:  # raised by pyarrow for damaged pages
                    if getattr(error, "errno", None):
                        raise
                    raise ValueError(
                        f"{path}: row group {index} cannot be read ({short(error)}); replace the file"
                    ) from None


def _sizes(file: Any, column: str, path: str) -> list[int]:
    """Size in bytes of a column in each row group."""
    sizes = []
    try:
        for index in range(file.metadata.num_row_groups):
            row_group = file.metadata.row_group(index)
            columns = (row_group.column(c) for c in range(row_group.num_columns))
            sizes.append(sum(c.total_uncompressed_size for c in columns if c.path_in_schema == column))
    except UnicodeDecodeError as error:  # a column name is damaged
        raise ValueError(f"{path}: not a whole Parquet file ({short(error)}); replace the file") from None
    return sizes


def open_parquet(path: str) -> Any:
    """Open a Parquet file and read its schema.

    Raises:
        ValueError: it is truncated or damaged, or two of its columns have the same name.
        OSError: it cannot be opened.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(open_file(path) if is_url(path) else path)
        names, _ = file.schema_arrow.names, file.reader.column_paths
    except (pyarrow.ArrowInvalid, UnicodeDecodeError, OSError) as error:  # pyarrow raises OSError for a damaged footer
        is_content = isinstance(error, (pyarrow.ArrowInvalid, UnicodeDecodeError))
        if not is_content and (getattr(error, "errno", None) or is_url(path)):
            raise
        raise ValueError(f"{path}: not a whole Parquet file ({short(error)}); replace the file") from None
    if twice := sorted({name for name in names if names.count(name) > 1}):
        file.close()
        raise ValueError(f"{path}: two columns are named {twice[0]!r}; rename or remove one")
    return file


def check_text_type(schema: Any, name: str, where: str) -> None:
    """Check that the Arrow schema has a string column `name`."""
    import pyarrow.types as types

    if name not in schema.names:
        raise ValueError(f"{where}: no field {name!r}; there are {quoted(schema.names)}: set text_field to one of them")
    kind = schema.field(name).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind)):
        raise ValueError(
            f"{where}: field {name!r} is of type {kind}, not of strings; set text_field to a field of strings"
        )
