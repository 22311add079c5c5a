"""How often a model gets each question right, before it is trained on those that it sometimes gets right.

Nanbeige4-3B (arXiv 2512.06266): before each stage of reinforcement learning the preceding stage's model draws 16 answers a
question, and the stage keeps those with 10 % < avg@16 < 90 %, strictly. Questions that are always or never solved give
groups without variance, which train nothing.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import sys
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbg_lightning import log
from nbg_lightning.data.durable import locked, write_whole
from nbg_lightning.data.folder_lock import folder_lock
from nbg_lightning.data.question import Question
from nbg_lightning.data.question_sources import digest
from nbg_lightning.digests import digest as digest_of
from nbg_lightning.digests import is_sealed, seal, unseal
from nbg_lightning.engines.chat import Writer
from nbg_lightning.engines.protocol import Sampling
from nbg_lightning.error_line import first_line
from nbg_lightning.rewards.protocol import Reward
from nbg_lightning.rl.rollouts import Rollout, score_rollouts

if TYPE_CHECKING:
    from rich.table import Table

FORMAT = "nbg_lightning pass rates 2"
_UNDIGESTED = "nbg_lightning pass rates 1"
_DIGEST_KEY = "nbg_lightning_digest"  # in the file's own metadata, which lies in its last bytes uncompressed
_DIGEST = re.compile(re.escape(_DIGEST_KEY.encode()) + rb".{1,4}?([0-9a-f]{16})", re.DOTALL)
_NO_DIGEST = "0" * 16
EDGES = tuple(edge / 10 for edge in range(1, 11))  # of the histogram's bins, beside 0 and 1
BANDS = ((0.05, 0.95), (0.1, 0.9), (0.2, 0.8))  # shown beside the histogram: those of the ablation
_SAY_SECONDS = 15.0  # between two lines of progress without a terminal


@dataclass(frozen=True)
class PassRateBand:
    """Pass rates to train on, strictly between two bounds.

    With 16 answers, the paper's 0.1 to 0.9 keep 2 to 14 right ones.

    Args:
        low: a pass rate must be above it.
        high: and below this.

    Example:
        >>> [passes for passes in range(17) if passes / 16 in PassRateBand()]
        [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
    """

    low: float = 0.1
    high: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(f"pass_rate from {self.low} to {self.high}: give low < high, both from 0 to 1")

    def __contains__(self, rate: float) -> bool:
        return self.low < rate < self.high

    def __str__(self) -> str:
        return f"{self.low:g} < pass rate < {self.high:g}"


@dataclass(frozen=True)
class PassRate:
    """What came of one question.

    Attributes:
        key: `Question.key`.
        source: its source.
        n: answers drawn.
        passes: of them scored as right.
        errors: answers without a score: the verifier or the engine failed. They are neither right nor wrong.
        mean_score: of the scored answers; None without any.
        mean_length: tokens of an answer.
        truncations: answers that the length limit ended.
        content: digest of the whole question: another gold answer is another question.
        first_error: what the first error says.
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

    @property
    def rate(self) -> float:
        """Passes among the scored answers; NaN without any."""
        return self.passes / (self.n - self.errors) if self.n > self.errors else math.nan


@dataclass(frozen=True)
class Histogram:
    """Questions by pass rate.

    Attributes:
        never: questions of pass rate 0.
        between: those above 0 and below 1, by tenths: of (0, 0.1], (0.1, 0.2], ..., (0.9, 1).
        always: those of pass rate 1.
        ungraded: those without a single scored answer.
    """

    never: int
    between: tuple[int, ...]
    always: int
    ungraded: int

    @classmethod
    def of(cls, rates: Iterable[float]) -> Histogram:
        """From pass rates; NaN is ungraded.

        Example:
            >>> Histogram.of([0, 1, 0.1, 0.11, 1.0, float("nan")])
            Histogram(never=1, between=(1, 1, 0, 0, 0, 0, 0, 0, 0, 0), always=2, ungraded=1)
        """
        never = always = ungraded = 0
        between = [0] * len(EDGES)
        for rate in rates:
            if math.isnan(rate):
                ungraded += 1
            elif rate <= 0:
                never += 1
            elif rate >= 1:
                always += 1
            else:
                between[bisect_left(EDGES, rate)] += 1
        return cls(never, tuple(between), always, ungraded)

    @property
    def total(self) -> int:
        return self.never + sum(self.between) + self.always + self.ungraded

    def bins(self) -> list[tuple[str, int]]:
        """Label and count of each bin."""
        lows = (0.0, *EDGES)
        inner = [(f"{lows[i]:.1f}-{high:.1f}", count) for i, (high, count) in enumerate(zip(EDGES, self.between))]  # noqa: B905
        ungraded = [("no score", self.ungraded)] if self.ungraded else []
        return [("0", self.never), *inner, ("1", self.always), *ungraded]

    def line(self) -> str:
        """In one line, without empty bins."""
        return "pass rates " + (
            ", ".join(f"{label}: {count:,}" for label, count in self.bins() if count) or "of nothing"
        )

    def mend(self, band: PassRateBand) -> str:
        """What to do when too few are inside a band."""
        if self.ungraded > self.total / 2:
            return "most answers could not be scored: mend the reward, and run `nbg pass-rate` again"
        if self.never > self.always:
            return (
                "most questions are never solved: give easier ones, train the model further first, allow longer answers, "
                f"or lower pass_rate.low from {band.low:g}"
            )
        return f"most questions are always solved: give harder ones, or raise pass_rate.high from {band.high:g}"


class PassRateLedger:
    """The pass rates of a set of questions, and what they were measured with; a Parquet file.

    Attributes:
        rows: by `Question.key`.
        about: weights (where they were, their fingerprint), sampling, reward, template, tokenizer.
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
        """Of all questions, or of these."""
        found = self.rows.values() if keys is None else [self.rows[key] for key in keys if key in self.rows]
        return Histogram.of(row.rate for row in found)

    def save(self, path: str | Path) -> None:
        """Write the file whole or not at all."""
        import pyarrow
        import pyarrow.parquet

        path = Path(path)
        columns = {f.name: [getattr(row, f.name) for row in self] for f in fields(PassRate)}
        columns["rate"] = [None if math.isnan(row.rate) else row.rate for row in self]
        types = {"mean_score": pyarrow.float64(), "rate": pyarrow.float64()}  # all may be missing
        table = pyarrow.table({name: pyarrow.array(c, types.get(name)) for name, c in columns.items()})
        about = {"nbg_lightning": json.dumps({"format": FORMAT, **self.about}), _DIGEST_KEY: _NO_DIGEST}
        sink = io.BytesIO()
        pyarrow.parquet.write_table(table.replace_schema_metadata(about), sink)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, _with_digest(sink.getvalue()))

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
            raise FileNotFoundError(f"there is no pass-rate ledger {path}: make it by `nbg pass-rate CONFIG`")
        data = Path(path).read_bytes()
        digested = _check_digest(data, Path(path))
        try:
            table = pyarrow.parquet.read_table(io.BytesIO(data))
            about = json.loads((table.schema.metadata or {}).get(b"nbg_lightning", b"{}"))
            written = about.pop("format", None)
            if written == FORMAT and not digested:
                raise ValueError("damaged: its digest is gone")
            names = [f.name for f in fields(PassRate)]
            rows = [PassRate(**row) for row in table.select(names).to_pylist()] if written in _FORMATS else []
        except (pyarrow.ArrowException, ValueError, OSError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} cannot be read as a pass-rate ledger ({first_line(error)})") from error
        if written not in _FORMATS:
            raise ValueError(f"{path} is not a pass-rate ledger of this library: make it by `nbg pass-rate CONFIG`")
        if not digested:
            log.info(f"{path} was written without a digest: damage in it cannot be seen")
        return cls(rows, about)

    def table(self) -> Table:
        """Histogram, by source, for a terminal."""
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
        """What bands would keep, and what else is to be known, in lines."""
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


_FORMATS = (FORMAT, _UNDIGESTED)


def _with_digest(data: bytes) -> bytes:
    """A ledger's bytes with their digest in the place that was left for it."""
    begin, end = _digest_place(data)
    return data[:begin] + digest_of(data).encode() + data[end:]


def _digest_place(data: bytes) -> tuple[int, int]:
    found = _DIGEST.search(data, max(0, data.rfind(_DIGEST_KEY.encode())))
    return found.span(1) if found is not None else (0, 0)


def _check_digest(data: bytes, path: Path) -> bool:
    """Whether a ledger has a digest, which is that of its bytes."""
    begin, end = _digest_place(data)
    if begin == end:
        return False
    if digest_of(data[:begin] + _NO_DIGEST.encode() + data[end:]) != data[begin:end].decode():
        raise ValueError(f"{path} is damaged: its digest is another; make it again by `nbg pass-rate CONFIG`")
    return True


@dataclass
class PassRateFilter:
    """Draws answers to questions, scores them, and keeps a ledger of it.

    Killed at any time, it goes on where it was: finished questions are lines of files beside the ledger. What a ledger has
    of the same weights, sampling and reward for the same question is not drawn again.

    Several processes may share the work: process ``i`` of ``k`` takes every ``k``-th question, and whoever finds all of them
    done writes the ledger.

    Args:
        writer: an open engine and its chat format.
        reward: what judges; entered already.
        sampling: of the answers; ``n`` of them each (16 in the paper).
        file: the ledger, a ``.parquet`` file.
        about: what identifies weights and reward (``weights``, ``fingerprint``, ``reward``, ...): JSON.
        pass_score: a score of at least this much is a pass.
        prompts_per_call: questions that are generated for at once: what a kill loses.
        max_errors: stop if a larger share of the answers has no score.
        part: which part of the work is this process's, and of how many: (0, 1) is all.
        progress: say how far it is.
    """

    writer: Writer
    reward: Reward
    sampling: Sampling
    file: Path
    about: dict[str, Any]
    pass_score: float = 1.0
    prompts_per_call: int = 64
    max_errors: float = 0.2
    part: tuple[int, int] = (0, 1)
    progress: bool = True
    identity: dict[str, Any] = field(init=False, repr=False)
    _unfit: dict[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.file = Path(self.file)
        check_file(self.file)
        index, of = self.part
        if not 0 <= index < of:
            raise ValueError(f"part {index} of {of}: count parts from 0 to {of - 1}")
        if self.prompts_per_call < 1 or not 0 <= self.max_errors <= 1:
            raise ValueError(
                f"prompts_per_call={self.prompts_per_call} must be at least 1, max_errors={self.max_errors} from 0 to 1"
            )
        if self.sampling.truncated:
            log.warn("top_p and top_k change the pass rate: training draws by temperature alone")
        self.identity = identity(self.about, self.sampling, self.pass_score)

    def run(self, questions: Sequence[Question], unfit: Mapping[str, str] | None = None) -> PassRateLedger | None:
        """Pass rates of all questions; None if other parts of the work are not done.

        Args:
            questions: what is asked; of those with one key, the first.
            unfit: keys of questions that are not asked, and why; the ledger has them without answers.

        Raises:
            RuntimeError: too many answers without a score; what was done before is kept.
            FolderInUse: another process does this part of the work.
        """
        self._unfit = dict(unfit or {})
        lock = f".{part_file(self.file, self.part[0]).stem}.lock"
        with folder_lock(self.file.parent, "measures these pass rates", lock):
            return self._run(unique(questions))

    def _run(self, questions: list[Question]) -> PassRateLedger | None:
        index, of = self.part
        mine = [question for question in questions if question.key not in self._unfit][index::of]
        known = finished(self.file, self.identity)
        waiting = [question for question in mine if not is_known(question, known)]
        if len(waiting) < len(mine):
            log.info(f"{len(mine) - len(waiting):,} of {len(mine):,} questions were measured before")
        if waiting:
            self._measure(waiting, len(mine) - len(waiting))
        return self._collect(questions)

    # -- drawing -------------------------------------------------------------------------------------------------------

    def _measure(self, questions: list[Question], done: int) -> None:
        path = part_file(self.file, self.part[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        errors = answers = 0
        with _appended(path, self.identity) as stream, _meter(self.progress, len(questions) + done, done) as advance:
            for begin in range(0, len(questions), self.prompts_per_call):
                rows = self.measure(questions[begin : begin + self.prompts_per_call])
                errors += sum(row.errors for row in rows)
                answers += sum(row.n for row in rows)
                if errors > self.max_errors * answers:
                    first = next(row.first_error for row in rows if row.first_error)
                    raise RuntimeError(
                        f"{errors:,} of {answers:,} answers have no score, more than max_errors={self.max_errors:g} allows; "
                        f"first: {first}; mend the reward or the engine and start again: what was measured is kept"
                    )
                stream.write("".join(seal(asdict(row), indent=None) for row in rows))
                stream.flush()
                os.fsync(stream.fileno())
                advance(len(rows), sum(row.passes for row in rows), sum(row.n - row.errors for row in rows))

    def measure(self, questions: Sequence[Question]) -> list[PassRate]:
        """Draw and score answers to some questions."""
        form = self.writer.format
        prompts = [form.prompt(question.messages, question.data.get("tools")) for question in questions]
        answers = self.writer.write_prompts(prompts, self.sampling)
        drawn = [Rollout(*each, ()) for each in zip(questions, prompts, map(tuple, answers), strict=True)]
        return [self._row(rollout) for rollout in score_rollouts(self.reward, drawn)]

    def _row(self, rollout: Rollout) -> PassRate:
        scores = rollout.scores
        problems = [result.detail or result.status for result in rollout.results if result.score is None]
        completions = [answer.completion for answer in rollout.answers]
        lengths = [
            len(c.ids) or len((c.text or "").split()) for c in completions if c.finish_reason in ("stop", "length")
        ]
        return PassRate(
            key=rollout.question.key,
            source=rollout.question.source,
            n=len(completions),
            passes=sum(score >= self.pass_score for score in scores),
            errors=len(problems),
            mean_score=math.fsum(scores) / len(scores) if scores else None,
            mean_length=sum(lengths) / len(lengths) if lengths else 0.0,
            truncations=sum(c.finish_reason == "length" for c in completions),
            content=content(rollout.question),
            first_error=" ".join(problems[0].split())[:300] if problems else "",
        )

    # -- the ledger ----------------------------------------------------------------------------------------------------

    def _collect(self, questions: list[Question]) -> PassRateLedger | None:
        with locked(self.file):
            known = finished(self.file, self.identity)
            known |= {q.key: _unasked(q, self._unfit[q.key]) for q in questions if q.key in self._unfit}
            missing = sum(not is_known(question, known) for question in questions)
            if missing:
                log.info(
                    f"part {self.part[0]} of {self.part[1]} is done; {missing:,} questions are left to other parts, the "
                    f"last of which writes {self.file}"
                )
                return None
            about = {**self.about, **self.identity, "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
            ledger = PassRateLedger((known[question.key] for question in questions), about)
            ledger.save(self.file)
            for path in part_files(self.file):
                path.unlink()
            return ledger


def identity(about: Mapping[str, Any], sampling: Sampling, pass_score: float) -> dict[str, Any]:
    """What makes two measurements of a question the same: not where the weights were, or which engine drew."""
    whole = {name: value for name, value in about.items() if name not in ("weights", "engine", "versions", "written")}
    return json.loads(json.dumps({**whole, "sampling": asdict(sampling), "pass_score": pass_score}, default=str))


def unique(questions: Iterable[Question]) -> list[Question]:
    """Each question once: the first of those that ask the same.

    Raises:
        ValueError: there is none.
    """
    found: dict[str, Question] = {}
    others = 0
    for question in questions:
        first = found.setdefault(question.key, question)
        others += first.answer != question.answer
    if not found:
        raise ValueError("there is no question to draw answers to: check the sources")
    if others:
        log.warn(f"{others:,} questions come again with another answer: the pass rate is that of the first answer")
    return list(found.values())


def content(question: Question) -> str:
    """Digest of all that a pass rate depends on, so not of the source's name."""
    return digest([replace(question, source="")])


def check_file(path: str | Path) -> None:
    """Raise a ValueError unless a ledger may be written there."""
    if Path(path).suffix != ".parquet":
        raise ValueError(f"the ledger {path} must be a .parquet file: add the suffix")


def part_file(ledger: Path, part: int) -> Path:
    """Where one part of the work keeps its finished questions."""
    return ledger.with_name(f"{ledger.stem}.part-{part:04d}.jsonl")


def part_files(ledger: Path) -> list[Path]:
    """The files of all parts that there are."""
    return sorted(ledger.parent.glob(f"{ledger.stem}.part-[0-9][0-9][0-9][0-9].jsonl"))


def finished(ledger: Path, wanted: Mapping[str, Any]) -> dict[str, PassRate]:
    """Everything measured before with this identity: of the ledger, and of parts that were cut short."""
    known: dict[str, PassRate] = {}
    if ledger.is_file():
        before = PassRateLedger.load(ledger)
        if {name: before.about.get(name) for name in wanted} == wanted:
            known.update(before.rows)
    for path in part_files(ledger):
        known.update({row.key: row for row in _read_part(path, wanted) or ()})
    return known


def measured(ledger: Path, questions: Iterable[Question], wanted: Mapping[str, Any]) -> PassRateLedger | None:
    """The ledger, if it is whole: of just these questions, with this identity."""
    if not ledger.is_file():
        return None
    found = PassRateLedger.load(ledger)
    asked = unique(questions)
    whole = len(asked) == len(found) and all(is_known(question, found.rows) for question in asked)
    return found if whole and {name: found.about.get(name) for name in wanted} == wanted else None


def _unasked(question: Question, reason: str) -> PassRate:
    return PassRate(question.key, question.source, 0, 0, 0, None, 0.0, 0, content(question), reason)


def is_known(question: Question, known: Mapping[str, PassRate]) -> bool:
    """Whether this very question was measured."""
    row = known.get(question.key)
    return row is not None and row.content == content(question)


def _read_part(path: Path, wanted: Mapping[str, Any]) -> list[PassRate] | None:
    """Questions of a part; None if it is of another measurement. Torn and damaged lines are left out: they are drawn again.

    Raises:
        ValueError: its first line, which says what it is of, is damaged.
    """
    first, *lines = path.read_bytes().split(b"\n")
    try:
        about, digested = _line(first, digested=any(is_sealed(line + b"\n") for line in lines))
    except ValueError:
        if not any(lines):
            return None  # killed while the first line was written
        raise ValueError(f"{path}, line 1 is damaged: remove the file, and its questions are drawn again") from None
    rows = []
    for number, line in enumerate(lines, start=2):
        try:
            rows += [PassRate(**_line(line, digested)[0])] if line else []
        except (ValueError, TypeError):
            log.warn(f"{path}, line {number} is torn or damaged: its question is drawn again")
    return rows if about == wanted else None


def _line(line: bytes, digested: bool) -> tuple[dict[str, Any], bool]:
    """A line of a part, and whether it has a digest, as all lines have where the first has one."""
    if is_sealed(line + b"\n"):
        return unseal(line + b"\n"), True
    value = json.loads(line)
    if digested or not isinstance(value, dict) or "seal" in value:
        raise ValueError("it does not end with its seal")
    return value, False


@contextmanager
def _appended(path: Path, wanted: Mapping[str, Any]) -> Iterator[Any]:
    """The part's file, to be appended to; begun anew if it is of another measurement."""
    kept = path.is_file() and _read_part(path, wanted) is not None
    if path.is_file() and not kept:
        log.info(f"{path} is of other weights, sampling or reward, and begun anew")
    with open(path, "a" if kept else "w", encoding="utf-8") as stream:
        # A line that a kill has torn must not swallow the next one.
        stream.write("\n" if kept else seal(dict(wanted), indent=None))
        stream.flush()
        yield stream


@contextmanager
def _meter(enabled: bool, total: int, done: int) -> Iterator[Any]:
    """How far it is: a bar on a terminal, else a line every few seconds."""
    passes = graded = 0
    last = time.monotonic()
    if enabled and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        bar = Progress(
            TextColumn("questions"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(), console=Console(stderr=True), transient=True,
        )  # fmt: skip
        task = bar.add_task("", total=total, completed=done, rate="")
        with bar:

            def advance(questions: int, more_passes: int, more_graded: int) -> None:
                nonlocal passes, graded
                passes, graded = passes + more_passes, graded + more_graded
                bar.update(task, advance=questions, rate=f"pass rate {passes / max(1, graded):.1%}")

            yield advance
        return

    def say(questions: int, more_passes: int, more_graded: int) -> None:
        nonlocal passes, graded, done, last
        passes, graded, done = passes + more_passes, graded + more_graded, done + questions
        if enabled and (time.monotonic() - last > _SAY_SECONDS or done == total):
            last = time.monotonic()
            log.info(f"{done:,} of {total:,} questions, pass rate so far {passes / max(1, graded):.1%}")

    yield say
