"""Benchmark suites, run in the same way everywhere: in a callback, by `trainer.test`, or on a Hugging Face folder."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbg_lightning.chat.template import AUTO, TOKENIZER
from nbg_lightning.class_names import with_whole_names
from nbg_lightning.config_files import read_yaml
from nbg_lightning.data.folder_lock import FolderInUse, folder_lock
from nbg_lightning.data.tokenizer import Tokenizer
from nbg_lightning.distributed import broadcast_object, get_rank
from nbg_lightning.engines.capabilities import TokenScoringEngine, interface_of
from nbg_lightning.engines.protocol import Engine, Sampling
from nbg_lightning.environments.play import check_episodes
from nbg_lightning.evaluation.benchmark import Benchmark
from nbg_lightning.evaluation.benchmark_run import BenchmarkRun
from nbg_lightning.evaluation.file_names import check_file_name
from nbg_lightning.evaluation.log_likelihood import (
    EngineScorer,
    LogLikelihoodScorer,
    Scorer,
)
from nbg_lightning.evaluation.prompts import Format, Prompts, digest
from nbg_lightning.evaluation.results import (
    SuiteResult,
    record_file,
)
from nbg_lightning.evaluation.run_context import RunContext


@dataclass
class Suite:
    """A set of benchmarks with common settings.

    Every item has its own seed, derived from its benchmark's name and its id: samples do not depend on the number of ranks
    or on other benchmarks. An item whose prompt, engine or scorer fails is an error in the results, and the others
    continue.

    Args:
        benchmarks: the benchmarks.
        name: name in tables and folders.
        format: ``auto`` uses the chat format that the model was trained with if its checkpoint records one, else ``text``
            (text completion). Explicit values: ``text``, ``nanbeige``, ``tokenizer``, or the path of a template.
        sampling: sampling settings for generated answers; a benchmark's own settings take precedence. Greedy by default.
        confidence: confidence level of intervals.
        items_per_call: items that a rank passes to the engine at once; results are saved after each call.
        deadline: seconds per call; answers not finished by then are errors. Must be below the process group's timeout.

    Raises:
        ValueError: no benchmark, or a duplicate name.

    Example:
        >>> from nbg_lightning.core import create_model, preset
        >>> from nbg_lightning.evaluation import Arithmetic
        >>> from nbg_lightning.engines import NativeEngine
        >>> suite = Suite([Arithmetic(count=4)])
        >>> suite.run(NativeEngine(create_model(preset("nano"))), tokenizer).metrics  # doctest: +SKIP
    """

    benchmarks: list[Benchmark]
    name: str = "suite"
    format: Format = AUTO
    sampling: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=512, temperature=0.0))
    confidence: float = 0.95
    items_per_call: int = 256
    deadline: float | None = 1500.0

    def __post_init__(self) -> None:
        if not self.benchmarks:
            raise ValueError("benchmarks is invalid: empty; give a suite at least one")
        check_file_name(self.name, "the name of a suite")
        names = [benchmark.name for benchmark in self.benchmarks]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"benchmarks is invalid: several are called {', '.join(doubled)}; give each a name of its own"
            )
        if self.items_per_call < 1:
            raise ValueError(f"items_per_call is invalid: {self.items_per_call}; give at least 1")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence is invalid: {self.confidence}; give a number between 0 and 1")
        if self.deadline is not None and not self.deadline > 0:
            raise ValueError(f"deadline is invalid: {self.deadline}; give a number above 0, or null for none")

    @classmethod
    def from_yaml(cls, path: str | Path) -> Suite:
        """Load a suite from a YAML file: its arguments, or those in a run's configuration (``data.init_args.suite``).

        Raises:
            FileNotFoundError: no such file.
            ValueError: there is no suite in it, or an invalid one.
        """
        import jsonargparse

        whole = with_whole_names(read_yaml(path))
        settings = whole if isinstance(whole, dict) else {}
        if "benchmarks" not in settings:  # the config of a run
            data: Any = settings.get("data")
            data = data if isinstance(data, dict) else {}
            inside = data.get("init_args", data)
            found = inside.get("suite") if isinstance(inside, dict) else None
            settings = found if isinstance(found, dict) else {}
        if "benchmarks" not in settings:
            raise ValueError(f"{path} has no suite; give benchmarks, at the top or under data.init_args.suite")
        parser = jsonargparse.ArgumentParser(exit_on_error=False)
        parser.add_argument("--suite", type=cls)
        try:
            return parser.instantiate(parser.parse_object({"suite": settings})).suite
        except jsonargparse.ArgumentError as error:
            from nbg_lightning.error_line import one_line

            raise ValueError(f"{path}: {one_line(str(error))}") from error

    # -- running -------------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Load all items, to find out what is missing before anything is run.

        Raises:
            FileNotFoundError, ValueError: missing items or packages, with what to do.
        """
        for benchmark in self.benchmarks:
            benchmark.load()

    def run(
        self,
        engine: Engine,
        tokenizer: Tokenizer | None,
        scorer: Scorer | None = None,
        folder: str | Path | None = None,
        label: str = "run",
        identity: str = "",
    ) -> SuiteResult:
        """Run all benchmarks. Collective; the ranks share the items.

        Args:
            engine: generates answers.
            tokenizer: the model's tokenizer; None for an engine that takes and returns text.
            scorer: rates continuations; by default the native engine's model, or the engine itself if it supports it.
            folder: parent folder of results; each run has a subfolder named by the suite, the label, and a hash of weights,
                items and settings. Existing results are reused, so an interrupted run continues.
            label: label in that subfolder's name.
            identity: identity of the weights (`weights_fingerprint`).

        Raises:
            FileNotFoundError, ValueError: missing items, packages or engines, before anything is run.
            FolderInUse: another process runs the same suite on the same weights, and writes there.
        """
        self.load()
        scorer = scorer or _own_scorer(engine)
        lacking = [b.name for b in self.benchmarks if b.kind in ("choices", "perplexity") and scorer is None]
        if lacking:
            raise ValueError(
                f"{', '.join(lacking)} rates given answers, and {type(engine).__name__} only writes; use NativeEngine, or "
                "give a scorer"
            )
        spoken = self.format
        if spoken == AUTO and interface_of(engine) == "chat":
            spoken = TOKENIZER  # the server's own
        prompts = Prompts(tokenizer, spoken)
        for benchmark in self.benchmarks:
            if benchmark.kind == "episodes":
                check_episodes(engine, prompts.chat, benchmark.name)
        place = None if folder is None else Path(folder) / f"{self.name}-{label}-{self._key(prompts, identity)}"
        with ExitStack() as stack:
            if place is not None:
                _lock(place, stack)
            return self._run(engine, scorer, prompts, place)

    def _run(self, engine: Engine, scorer: Scorer | None, prompts: Prompts, place: Path | None) -> SuiteResult:
        results, records = [], {}
        for benchmark in self.benchmarks:
            sampling = self.sampling_of(benchmark, prompts)
            context = RunContext(benchmark, benchmark.load(), engine, scorer, prompts, sampling, self.deadline)
            file = None if place is None else record_file(place, benchmark.name)
            result, own = BenchmarkRun(context, self.items_per_call, self.confidence, file).run()
            results.append(broadcast_object(result))
            records[benchmark.name] = own
        first = get_rank() == 0
        whole = SuiteResult(self.name, results, records if first else {}, None if place is None else str(place))
        if place is not None and first:
            whole.save(place)
        return whole

    def sampling_of(self, benchmark: Benchmark, prompts: Prompts) -> Sampling:
        """Sampling settings of a benchmark: the suite's, its own, and its stop conditions."""
        given = benchmark.own_sampling()
        given["stop_ids"] = tuple(dict.fromkeys((*prompts.stop_ids, *self.sampling.stop_ids)))
        given["stop_strings"] = (*self.sampling.stop_strings, *prompts.stop_strings(benchmark))
        return dataclasses.replace(self.sampling, **given)

    def _key(self, prompts: Prompts, identity: str) -> str:
        parts: list[Any] = [identity, prompts.format, prompts.template_hash]
        for benchmark in self.benchmarks:
            loaded = benchmark.load()
            items = [(item.id, item.question, item.answer, item.choices) for item in (*loaded.items, *loaded.shots)]
            parts += [benchmark.settings(), digest(items), repr(self.sampling_of(benchmark, prompts))]
        return digest(parts)[:8]


def _lock(folder: Path, stack: ExitStack) -> None:
    """Lock the folder by the first rank, or raise on all ranks."""
    refusal = None
    if get_rank() == 0:
        try:
            stack.enter_context(folder_lock(folder, "runs benchmarks"))
        except FolderInUse as error:
            refusal = str(error)
    if (said := broadcast_object(refusal)) is not None:
        raise FolderInUse(said)


def _own_scorer(engine: Engine) -> Scorer | None:
    """A scorer on the model in this process, or on an engine that rates tokens."""
    from nbg_lightning.engines.local import LocalEngine
    from nbg_lightning.engines.native import NativeEngine

    native = engine.native if isinstance(engine, LocalEngine) else engine
    if isinstance(native, NativeEngine):
        return LogLikelihoodScorer(native.model, window=native.window)
    if isinstance(engine, TokenScoringEngine) and interface_of(engine) == "ids":
        return EngineScorer(engine)
    return None
