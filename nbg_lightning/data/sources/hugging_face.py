"""Datasets on the Hugging Face hub, or saved in a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from nbg_lightning.data.sources.files import file_identity
from nbg_lightning.data.sources.parquet import check_text_type
from nbg_lightning.data.sources.source import Part, Source, check_text, part_bytes, quoted, short


@dataclass
class HuggingFace(Source):
    """A dataset of the Hugging Face hub, or a folder written by ``Dataset.save_to_disk``.

    Args:
        name_or_folder: Name on the hub, or a local folder.
        split: Split to read; the hub's slices such as ``train[:10%]`` work for whatever `datasets.load_dataset`
            loads.
        text_field: Name of the text column.
        config_name: Configuration (subset) of a hub dataset.
    """

    name_or_folder: str
    split: str = "train"
    text_field: str = "text"
    config_name: str | None = None

    def identity(self) -> dict[str, Any]:
        dataset = load_dataset(self.name_or_folder, self.split, self.config_name)
        return {
            "kind": "HuggingFace",
            "name_or_folder": self.name_or_folder,
            "split": self.split,
            "config_name": self.config_name,
            "text_field": self.text_field,
            "fingerprint": dataset._fingerprint,
            "num_rows": dataset.num_rows,
            "files": file_identity(sorted({Path(f["filename"]) for f in dataset.cache_files})),
        }

    def parts(self) -> list[Part]:
        dataset = load_dataset(self.name_or_folder, self.split, self.config_name)
        check_text_type(dataset.features.arrow_schema, self.text_field, f"dataset {self.name_or_folder!r}")
        return list(
            split_rows(dataset, [self.text_field], self.name_or_folder, self.split, self.config_name, self.text_field)
        )


@dataclass
class HuggingFacePart(Part):
    """Rows start..stop-1 of a dataset."""

    name_or_folder: str
    split: str
    config_name: str | None
    text_field: str
    fingerprint: str
    start: int
    stop: int

    def documents(self) -> Iterator[str]:
        for row in self.rows([self.text_field]):
            yield check_text(row[self.text_field], lambda: f"dataset {self.name_or_folder!r}")

    def rows(self, columns: list[str]) -> Iterator[dict[str, Any]]:
        """The values of the columns, row by row."""
        dataset = _known_dataset(self.name_or_folder, self.split, self.config_name, self.fingerprint)
        table = dataset.select_columns(columns).with_format(None)
        for start in range(self.start, self.stop, 1024):
            values = table[start : min(start + 1024, self.stop)]
            for row in zip(*(values[column] for column in columns), strict=True):
                yield dict(zip(columns, row, strict=True))


def split_rows(
    dataset: Any, columns: Sequence[str], name_or_folder: str, split: str, config_name: str | None, text_field: str
) -> Iterator[HuggingFacePart]:
    """All rows of a dataset, in parts with about the same number of bytes in the given columns."""
    if dataset.num_rows == 0:
        return
    stored = sum(dataset.data.column(name).nbytes for name in columns)
    row_bytes = max(1, stored // max(1, dataset.data.num_rows))
    rows = max(1, part_bytes(row_bytes * dataset.num_rows) // row_bytes)
    for start in range(0, dataset.num_rows, rows):
        stop = min(start + rows, dataset.num_rows)
        place = (name_or_folder, split, config_name, text_field, dataset._fingerprint)
        yield HuggingFacePart(row_bytes * (stop - start), *place, start, stop)


@lru_cache(maxsize=8)
def _known_dataset(name_or_folder: str, split: str, config_name: str | None, fingerprint: str) -> Any:
    """The dataset for the parts in one process, loaded once."""
    dataset = load_dataset(name_or_folder, split, config_name)
    if dataset._fingerprint != fingerprint:
        raise ValueError(f"dataset {name_or_folder!r} changed while it was being read; run again")
    return dataset


def load_dataset(name_or_folder: str, split: str, config_name: str | None) -> Any:
    import datasets

    folder = Path(name_or_folder).expanduser()
    if not ((folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()):
        if name_or_folder.startswith((".", "/", "~")) and not folder.exists():
            raise FileNotFoundError(f"dataset folder {name_or_folder!r} does not exist; check the path")
        try:
            return datasets.load_dataset(str(folder) if folder.exists() else name_or_folder, config_name, split=split)
        except Exception as error:  # the hub client raises many types; each means that the dataset is not available
            raise ValueError(
                f"dataset {name_or_folder!r} (config {config_name!r}, split {split!r}) cannot be loaded: "
                f"{short(error)}; check the names, or give a folder written by save_to_disk"
            ) from error
    loaded = datasets.load_from_disk(str(folder))
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            raise ValueError(
                f"dataset folder {name_or_folder!r} has no split {split!r}; there are {quoted(loaded)}: set split"
            )
        return loaded[split]
    if split not in ("train", str(loaded.split)):
        raise ValueError(
            f"dataset folder {name_or_folder!r} holds one dataset without named splits; leave out split={split!r}"
        )
    return loaded
