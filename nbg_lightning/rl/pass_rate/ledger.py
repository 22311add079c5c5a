"""The pass-rate ledger: a Parquet table with a digest of its bytes."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbg_lightning import log
from nbg_lightning.data.durable import write_atomic
from nbg_lightning.digests import digest
from nbg_lightning.error_line import first_line
from nbg_lightning.rl.pass_rate.histogram import Histogram, PassRateBand

if TYPE_CHECKING:
    from rich.table import Table

FORMAT = "nbg_lightning pass rates 2"
_UNDIGESTED = "nbg_lightning pass rates 1"
_FORMATS = (FORMAT, _UNDIGESTED)
_DIGEST_KEY = "nbg_lightning_digest"  # in the file's own metadata, which lies in its last bytes uncompressed
_DIGEST = re.compile(re.escape(_DIGEST_KEY.encode()) + rb".{1,4}?([0-9a-f]{16})", re.DOTALL)
_NO_DIGEST = "0" * 16
LENGTHS = "right_lengths"  # a column missing in ledgers of earlier versions
BANDS = ((0.05, 0.95), (0.1, 0.9), (0.2, 0.8))  # shown with the histogram: those of the ablation


@dataclass(frozen=True)
class PassRate:
    """Outcome counts of one question.

    Attributes:
        key: `Question.key`.
        source: its source.
        n: answers sampled.
        passes: number of them scored as correct.
        errors: answers without a score, since the verifier or the engine failed. They are neither correct nor wrong.
        mean_score: mean over the scored answers; None without any.
        mean_length: mean length of an answer in tokens.
        truncations: answers truncated by the length limit.
        content: digest of the whole question: with another gold answer it is another question.
        first_error: message of the first error.
        right_lengths: tokens of each correct answer, ascending; empty in ledgers of earlier versions.
    """

    key: str
    source: str
    n: int
    passes: int
    errors: int
    mean_score: float | None
    mean_length: float
    truncations: int
    content: str
    first_error: str = ""
    right_lengths: Sequence[int] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, LENGTHS, tuple(self.right_lengths or ()))  # files have lists

    @property
    def rate(self) -> float:
        """Share of passes among the scored answers; NaN without any."""
        return self.passes / (self.n - self.errors) if self.n > self.errors else math.nan


class PassRateLedger:
    """The pass rates of a set of questions, with the settings of the measurement, stored as a Parquet file.

    Attributes:
        rows: rows by `Question.key`.
        about: weights (location and fingerprint), sampling, reward, template, tokenizer.
    """

    def __init__(self, rows: Iterable[PassRate], about: Mapping[str, Any]):
        self.rows = {row.key: row for row in rows}
        self.about = dict(about)

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[PassRate]:
        return iter(self.rows.values())

    def keeps(self, key: str, band: PassRateBand) -> bool:
        """Whether a question's pass rate is known and strictly inside a band."""
        return self.rows[key].rate in band

    def histogram(self, keys: Iterable[str] | None = None) -> Histogram:
        """Histogram of all questions, or of the given ones."""
        found = self.rows.values() if keys is None else [self.rows[key] for key in keys if key in self.rows]
        return Histogram.of(row.rate for row in found)

    def save(self, path: str | Path) -> None:
        """Write the file atomically."""
        import pyarrow
        import pyarrow.parquet

        path = Path(path)
        columns = {f.name: [getattr(row, f.name) for row in self] for f in fields(PassRate)}
        columns["rate"] = [None if math.isnan(row.rate) else row.rate for row in self]
        types = {"mean_score": pyarrow.float64(), "rate": pyarrow.float64()}  # all may be missing
        types["right_lengths"] = pyarrow.list_(pyarrow.int64())
        table = pyarrow.table({name: pyarrow.array(c, types.get(name)) for name, c in columns.items()})
        about = {"nbg_lightning": json.dumps({"format": FORMAT, **self.about}), _DIGEST_KEY: _NO_DIGEST}
        sink = io.BytesIO()
        pyarrow.parquet.write_table(table.replace_schema_metadata(about), sink)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, _with_digest(sink.getvalue()))

    @classmethod
    def load(cls, path: str | Path) -> PassRateLedger:
        """Read a file.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is something else.
        """
        import pyarrow
        import pyarrow.parquet

        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no pass-rate ledger {path}; make it by `nbg pass-rate CONFIG`")
        data = Path(path).read_bytes()
        digested = _check_digest(data, Path(path))
        try:
            table = pyarrow.parquet.read_table(io.BytesIO(data))
            about = json.loads((table.schema.metadata or {}).get(b"nbg_lightning", b"{}"))
            written = about.pop("format", None)
            if written == FORMAT and not digested:
                raise ValueError("its digest is gone")
            names = [f.name for f in fields(PassRate) if f.name in table.column_names or f.name != LENGTHS]
            rows = [PassRate(**row) for row in table.select(names).to_pylist()] if written in _FORMATS else []
        except (pyarrow.ArrowException, ValueError, OSError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{path} cannot be read as a pass-rate ledger ({first_line(error)}); make it again by `nbg pass-rate CONFIG`"
            ) from error
        if written not in _FORMATS:
            raise ValueError(f"{path} is not a pass-rate ledger of this library; make it by `nbg pass-rate CONFIG`")
        if not digested:
            log.info(f"{path} was written without a digest: damage in it cannot be seen")
        return cls(rows, about)

    def table(self) -> Table:
        """Histogram per source, for a terminal."""
        from rich import box
        from rich.table import Table

        sources = sorted({row.source for row in self})
        columns = {name: [row.rate for row in self if row.source == name] for name in sources}
        whole = self.histogram()
        table = Table(
            title=f"pass rates of {len(self):,} questions, {self.about['sampling']['n']} answers each",
            box=box.SIMPLE_HEAD,
        )
        table.add_column("pass rate")
        for name in [*sources, *(["all"] if len(sources) > 1 else [])]:
            table.add_column(name, justify="right")
        table.add_column("")
        counts = [Histogram.of(rates).bins() for rates in columns.values()]
        most = max(count for _, count in whole.bins())
        for place, (label, total) in enumerate(whole.bins()):
            cells = [f"{bins[place][1]:,}" if place < len(bins) and bins[place][1] else "" for bins in counts]
            totals = [f"{total:,}" if total else ""] if len(sources) > 1 else []
            table.add_row(label, *cells, *totals, "█" * math.ceil(30 * total / max(1, most)))
        return table

    def summary(self, band: PassRateBand) -> list[str]:
        """Summary lines: what bands would keep, and other remarks."""
        bounds = list(dict.fromkeys([*BANDS, (band.low, band.high)]))
        kept = [sum(row.rate in PassRateBand(*bound) for row in self) for bound in bounds]
        lines = [
            f"{PassRateBand(*bound)} keeps {count:,} of {len(self):,} ({count / max(1, len(self)):.1%})"
            + (" <- pass_rate of the config" if bound == (band.low, band.high) else "")
            for bound, count in zip(bounds, kept, strict=True)
        ]
        answers = max(1, sum(row.n for row in self))
        cut = sum(row.truncations for row in self) / answers
        length = sum(row.mean_length * row.n for row in self) / answers
        passes = sum(row.passes for row in self) / max(1, sum(row.n - row.errors for row in self))
        lines.append(f"{passes:.1%} of answers pass; {length:,.0f} tokens an answer; {cut:.1%} cut off")
        if errors := sum(row.errors for row in self):
            first = next(row.first_error for row in self if row.first_error)
            lines.append(
                f"warning: {errors:,} of {answers:,} answers could not be scored, and count neither as right nor as wrong; "
                f"first: {first}"
            )
        return lines


def _with_digest(data: bytes) -> bytes:
    """A ledger's bytes with their digest in the reserved place."""
    begin, end = _digest_place(data)
    return data[:begin] + digest(data).encode() + data[end:]


def _digest_place(data: bytes) -> tuple[int, int]:
    found = _DIGEST.search(data, max(0, data.rfind(_DIGEST_KEY.encode())))
    return found.span(1) if found is not None else (0, 0)


def _check_digest(data: bytes, path: Path) -> bool:
    """Verify a ledger's digest, and return whether it has one."""
    begin, end = _digest_place(data)
    if begin == end:
        return False
    if digest(data[:begin] + _NO_DIGEST.encode() + data[end:]) != data[begin:end].decode():
        raise ValueError(f"{path} is damaged: its digest does not match; make it again by `nbg pass-rate CONFIG`")
    return True


def check_file(path: str | Path) -> None:
    """Raise a ValueError if a ledger cannot be written there."""
    if Path(path).suffix != ".parquet":
        raise ValueError(f"ledger is invalid: {path}; name a .parquet file")
