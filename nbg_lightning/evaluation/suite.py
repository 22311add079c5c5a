"""A suite of benchmarks, run in one way everywhere: in a callback, through `trainer.test`, on a Hugging Face folder."""

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
    """Some benchmarks and how all of them are asked.

    Every item has a seed of its own, made of its benchmark's name and its id: what is sampled does not depend on the number of
    ranks or on what else is asked. An item whose prompt, engine or scorer fails is an error in the results, and the rest goes
    on.

    Args:
        benchmarks: what is asked.
        name: in tables and folders.
        format: ``auto`` is the chat format that the model was trained in, where its checkpoint records one, and else
            ``text`` (for models that continue text). Given: ``text``, ``nanbeige``, ``tokenizer``, or a template's file.
        sampling: for all that write; a benchmark's own settings come first. The default is greedy.
        confidence: of intervals.
        items_per_call: items that a rank gives to the engine at once; results are saved after each call.
        deadline: seconds for a call; what is not written by then is an error. Below the process group's timeout.

    Raises:
        ValueError: no benchmark, or two of one name.

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
        """The suite of a YAML file: its arguments, or those in a run's configuration (``data.init_args.suite``).

        Raises:
            FileNotFoundError: no such file.
            ValueError: there is no suite in it, or one that cannot be built.
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
        """Read all items now, so that what is missing is known before anything is run.

        Raises:
            FileNotFoundError, ValueError: items or packages that are missing, with what to do.
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
        """Ask everything. All ranks of a process group call it together, and share the items.

        Args:
            engine: what generates.
            tokenizer: the model's; None for an engine that takes and gives text.
            scorer: what rates continuations; by default the native engine's model, or the engine itself if it can.
            folder: results go into a folder of their own below it, named after the suite, the label, and a hash of weights,
                items and settings. What is there already is not asked again: a run that was killed goes on.
            label: for that folder's name.
            identity: which weights these are (`weights_fingerprint`).

        Raises:
            FileNotFoundError, ValueError: items, packages or engines that are missing, before anything is asked.
            FolderInUse: another process asks the same of the same weights, and writes there.
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
        """How a benchmark is sampled: the suite's settings, those of its own, and what ends an answer."""
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
    """Let the first rank have the folder for itself, or refuse all ranks."""
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
