"""Ranking of all documents by a weighted sum of columns, and the pools cut from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from nbg_lightning.construction.filtering.pools import POOLS, SelectionSettings
from nbg_lightning.construction.filtering.table import Table, read_groups
from nbg_lightning.construction.step import DocumentRow
from nbg_lightning.data.order import mix
from nbg_lightning.data.sources import open_parquet

BYTES_PER_TOKEN = 4.0  # estimate without a tokenizer, for English and large vocabularies
REST, EXCLUDED = 0, 255  # in `Ranking.pools`, besides 1 (HQ) and 2 (MQ)
_SAMPLES = 3  # documents shown per decile


def joined_rows(files: Sequence[Path], columns: Sequence[str]) -> Iterator[DocumentRow]:
    """Join the rows of a corpus part with the corresponding columns.

    Args:
        files: file of the corpus, followed by files of columns.
        columns: columns besides id and source, each from the first file that has it.

    Raises:
        ValueError: the parts do not belong together.
    """
    left = list(dict.fromkeys(columns))
    streams = []
    for number, file in enumerate(files):
        with open_parquet(str(file)) as parquet:
            names = set(parquet.schema_arrow.names)
        own = [name for name in left if name in names]
        left = [name for name in left if name not in own]
        wanted = ["id", *(["source"] if number == 0 else []), *own]
        streams.append(row for rows in read_groups(file, wanted) for row in rows)
    if left:
        raise ValueError(
            f"column is invalid: {left[0]!r} is not in the corpus or its columns; give the folder that has it"
        )
    for parts in zip(*streams, strict=True):
        if len({part["id"] for part in parts}) > 1:
            raise ValueError(f"{files[-1]} is invalid: other documents than {files[0]}; build the columns again")
        yield {name: value for part in reversed(parts) for name, value in part.items()}


class Ranking:
    """Scores, tokens and pools of all documents, in some 30 bytes of memory each.

    Args:
        corpus: a corpus of `nbg build-corpus`.
        tables: additional columns.
        weights: weights by column.
        settings: settings of the pools.
        exact: whether tokens are counted rather than estimated.

    Raises:
        ValueError: a missing or non-numeric column, or an empty pool.
    """

    def __init__(
        self,
        corpus: Table,
        tables: Sequence[Table],
        weights: Mapping[str, float],
        settings: SelectionSettings,
        exact: bool,
    ):
        self.corpus, self.weights, self.settings, self.exact = corpus, dict(weights), settings, exact
        self.sources = sorted(corpus.report["sources"])
        number = len(corpus)
        self.scores = np.zeros(number)
        self.tokens = np.zeros(number, np.int64)
        self.source = np.zeros(number, np.uint16)
        self.pools = np.zeros(number, np.uint8)
        self.excluded: dict[str, int] = {}
        self.borders: list[tuple[int, int]] = []
        self.ranges: dict[str, tuple[float, float]] = {}
        hashes = np.zeros(number, np.uint64)
        self._read(corpus, tables, hashes)
        self._rank(mix(hashes + np.uint64(settings.seed)))

    def _read(self, corpus: Table, tables: Sequence[Table], hashes: np.ndarray) -> None:
        import pyarrow.types as types

        schemas = {field.name: field.type for table in (*reversed(tables), corpus) for field in table.schema}
        shown = [field.name for table in tables for field in table.schema if types.is_floating(field.type)]
        self.shown = list(dict.fromkeys([*shown, *(name for name in self.weights if name in schemas)]))
        has_rules = "failed_rules" in schemas
        needed = [*self.weights, *self.settings.limits, *self.shown, "tokens" if self.exact else "bytes"]
        for name in (*self.weights, *self.settings.limits):
            if name not in schemas:
                raise ValueError(
                    f"column is invalid: {name!r} is not there; choose one of {', '.join(sorted(schemas))}"
                )
            if not (types.is_floating(schemas[name]) or types.is_integer(schemas[name])):
                raise ValueError(f"column is invalid: {name!r} holds {schemas[name]}; choose one of numbers")
        position = 0
        code = {name: index for index, name in enumerate(self.sources)}
        for index in range(len(corpus.files)):
            first = position
            files = tuple(table.files[index] for table in (corpus, *tables))
            for row in joined_rows(files, [*needed, *(["failed_rules"] if has_rules else [])]):
                self.source[position] = code[row["source"]]
                hashes[position] = int(row["id"][:16], 16)
                self.tokens[position] = row["tokens"] if self.exact else max(1, round(row["bytes"] / BYTES_PER_TOKEN))
                for name in self.shown:
                    value = row[name]
                    if value is not None and np.isfinite(value):
                        low, high = self.ranges.get(name, (value, value))
                        self.ranges[name] = min(low, value), max(high, value)
                reason = self._exclusion(row)
                if reason is not None:
                    self.excluded[reason] = self.excluded.get(reason, 0) + 1
                    self.pools[position] = EXCLUDED
                else:
                    self.scores[position] = sum(weight * row[name] for name, weight in self.weights.items())
                position += 1
            self.borders.append((first, position))
        self.ranges = {name: (low, high if high > low else low + 1.0) for name, (low, high) in self.ranges.items()}

    def _exclusion(self, row: Mapping[str, Any]) -> str | None:
        """The rule that excludes a document from all pools; None if there is none."""
        for rule in row.get("failed_rules") or ():
            if any(fnmatch(rule, pattern) for pattern in self.settings.exclude):
                return rule
        for name, (low, high) in self.settings.limits.items():
            value = row[name]
            if value is None or (low is not None and value < low) or (high is not None and value > high):
                return f"limits/{name}"
        for name in self.weights:
            if row[name] is None or not np.isfinite(row[name]):
                return f"no_number/{name}"
        return None

    def _rank(self, keys: np.ndarray) -> None:
        allowed = np.flatnonzero(self.pools != EXCLUDED)
        order = allowed[np.lexsort((keys[allowed], -self.scores[allowed]))]
        scores, tokens = self.scores[order], self.tokens[order]
        total = int(tokens.sum())
        begin = 0
        self.cuts: dict[str, float] = {}
        for code, (pool, size) in enumerate(
            zip(POOLS, (self.settings.high_quality, self.settings.medium_quality), strict=True), 1
        ):
            end = size.cut(scores, tokens, begin, total)
            if end == begin:
                best = f"the best left has score {scores[begin]:.3g}" if begin < len(scores) else "nothing is left"
                raise ValueError(
                    f"{pool} is invalid: {size.to_dict()} makes an empty pool ({best}); lower its threshold or raise its size"
                )
            self.pools[order[begin:end]] = code
            self.cuts[pool] = float(scores[end - 1])
            begin = end
        self.deciles: list[tuple[float, float, list[int]]] = []
        for part in np.array_split(order, min(10, len(order))):
            picked = part[np.argsort(keys[part], kind="stable")[:_SAMPLES]]
            self.deciles.append((float(self.scores[part[0]]), float(self.scores[part[-1]]), picked.tolist()))
        self.samples = sorted({number for _, _, picked in self.deciles for number in picked})

    def report(self) -> dict[str, Any]:
        """The counts as JSON."""
        pools = {}
        for code, pool in enumerate(POOLS, 1):
            inside = self.pools == code
            by_source = np.bincount(self.source[inside], self.tokens[inside], len(self.sources)).astype(int)
            pools[pool] = {
                "documents": int(inside.sum()),
                "tokens": int(self.tokens[inside].sum()),
                "least_score": self.cuts[pool],
                "tokens_by_source": dict(zip(self.sources, by_source.tolist(), strict=True)),
            }
        rest = self.pools == REST
        return {
            "documents": len(self.pools),
            "tokens": int(self.tokens.sum()),
            "tokens_are": "counted" if self.exact else f"estimated as bytes / {BYTES_PER_TOKEN:g}",
            "score": self.weights,
            "pools": pools,
            "rest": {"documents": int(rest.sum()), "tokens": int(self.tokens[rest].sum())},
            "excluded": dict(sorted(self.excluded.items())),
            "excluded_tokens": int(self.tokens[self.pools == EXCLUDED].sum()),
        }
