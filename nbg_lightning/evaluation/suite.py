"""A suite of benchmarks, run in one way everywhere: in a callback, through `trainer.test`, on a Hugging Face folder."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbg_lightning import log
from nbg_lightning.chat.template import AUTO, TOKENIZER
from nbg_lightning.config_files import read_yaml
from nbg_lightning.data.folder_lock import FolderInUse, folder_lock
from nbg_lightning.data.tokenizer import Tokenizer
from nbg_lightning.digests import sealed_line
from nbg_lightning.distributed import World
from nbg_lightning.engines.capabilities import TokenScoringEngine, interface_of, window_of
from nbg_lightning.engines.protocol import Completion, Engine, Prompt, Sampling
from nbg_lightning.error_line import first_line
from nbg_lightning.evaluation.benchmark import Benchmark, Item
from nbg_lightning.evaluation.file_names import check_file_name
from nbg_lightning.evaluation.log_likelihood import (
    EngineScorer,
    LogLikelihood,
    LogLikelihoodScorer,
    Request,
    Scorer,
    rolling_prefix,
    rolling_requests,
)
from nbg_lightning.evaluation.prompts import Asked, Format, Prompts, digest
from nbg_lightning.evaluation.results import (
    BenchmarkResult,
    Record,
    SuiteResult,
    combined_hash,
    read_records,
    record_file,
    summarize,
)
from nbg_lightning.evaluation.verdicts import checked_verdicts

_SECONDS_BETWEEN_LINES = 15.0


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
            raise ValueError("a suite needs a benchmark")
        check_file_name(self.name, "the name of a suite")
        names = [benchmark.name for benchmark in self.benchmarks]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two benchmarks are called {', '.join(doubled)}: give them a name of their own")
        if self.items_per_call < 1 or not 0 < self.confidence < 1:
            raise ValueError(
                f"Suite: items_per_call={self.items_per_call} must be at least 1, confidence={self.confidence} in (0, 1)"
            )

    @classmethod
    def from_yaml(cls, path: str | Path) -> Suite:
        """The suite of a YAML file: its arguments, or those in a run's configuration (``data.init_args.suite``).

        Raises:
            FileNotFoundError: no such file.
            ValueError: there is no suite in it, or one that cannot be built.
        """
        import jsonargparse

        whole = read_yaml(path)
        settings = whole if isinstance(whole, dict) else {}
        for key in () if "benchmarks" in settings else ("data", "init_args", "suite"):
            settings = settings.get(key) or {} if isinstance(settings, dict) else {}
        if "benchmarks" not in settings:
            raise ValueError(f"{path} has no suite: it needs benchmarks, at the top or under data.init_args.suite")
        parser = jsonargparse.ArgumentParser(exit_on_error=False)
        parser.add_argument("--suite", type=cls)
        try:
            return parser.instantiate_classes(parser.parse_object({"suite": settings})).suite
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
            engine: what writes.
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
                f"{', '.join(lacking)} rates given answers, and {type(engine).__name__} only writes: use NativeEngine, or "
                "give a scorer"
            )
        spoken = self.format
        if spoken == AUTO and interface_of(engine) == "chat":
            spoken = TOKENIZER  # the server's own
        prompts = Prompts(tokenizer, spoken)
        world = World()
        place = None if folder is None else Path(folder) / f"{self.name}-{label}-{self._key(prompts, identity)}"
        with ExitStack() as stack:
            if place is not None:
                _keep(place, world, stack)
            return self._run(engine, scorer, prompts, world, place)

    def _run(
        self, engine: Engine, scorer: Scorer | None, prompts: Prompts, world: World, place: Path | None
    ) -> SuiteResult:
        results, records = [], {}
        for benchmark in self.benchmarks:
            asked = _Asking(self, benchmark, engine, scorer, prompts, world, place)
            result, own = asked.run()
            results.append(world.from_first(result))
            records[benchmark.name] = own
        whole = SuiteResult(
            self.name, results, records if world.rank == 0 else {}, None if place is None else str(place)
        )
        if place is not None and world.rank == 0:
            whole.save(place)
        return whole

    def sampling_of(self, benchmark: Benchmark, prompts: Prompts) -> Sampling:
        """How a benchmark is sampled: the suite's settings, those of its own, and what ends an answer."""
        own = {name: getattr(benchmark, name) for name in ("n", "max_new_tokens", "temperature", "top_p")}
        given: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
        given["stop_ids"] = tuple(dict.fromkeys((*prompts.stop_ids, *self.sampling.stop_ids)))
        given["stop_strings"] = (*self.sampling.stop_strings, *prompts.stop_strings(benchmark))
        return dataclasses.replace(self.sampling, **given)

    def _key(self, prompts: Prompts, identity: str) -> str:
        parts: list[Any] = [identity, prompts.format, prompts.template_hash]
        for benchmark in self.benchmarks:
            loaded = benchmark.load()
            settings = {
                f.name: repr(getattr(benchmark, f.name)) for f in dataclasses.fields(benchmark) if f.name != "judge"
            }
            items = [(item.id, item.question, item.answer, item.choices) for item in (*loaded.items, *loaded.shots)]
            parts += [settings, digest(items), repr(self.sampling_of(benchmark, prompts))]
        return digest(parts)[:8]


def _keep(folder: Path, world: World, stack: ExitStack) -> None:
    """The first rank has the folder for itself, or all ranks are refused."""
    refusal = None
    if world.rank == 0:
        try:
            stack.enter_context(folder_lock(folder, "runs benchmarks"))
        except FolderInUse as error:
            refusal = str(error)
    if (said := world.from_first(refusal)) is not None:
        raise FolderInUse(said)


class _Asking:
    """One benchmark of a run."""

    def __init__(
        self,
        suite: Suite,
        benchmark: Benchmark,
        engine: Engine,
        scorer: Scorer | None,
        prompts: Prompts,
        world: World,
        folder: Path | None,
    ):
        self.suite, self.benchmark, self.engine, self.scorer = suite, benchmark, engine, scorer
        self.prompts, self.world = prompts, world
        self.file = None if folder is None else record_file(folder, benchmark.name)
        self.sampling = suite.sampling_of(benchmark, prompts)
        self.loaded = benchmark.load()
        self.engine_seconds = 0.0

    def run(self) -> tuple[BenchmarkResult, list[Record]]:
        """The result (on the first rank; an empty one elsewhere) and its records."""
        begin = time.monotonic()
        if self.benchmark.kind == "harness":
            return self._harness(begin), []
        there = read_records(self.file) if self.file is not None and self.world.rank == 0 else []
        there = [record for record in there if record["status"] != "error"]  # these are tried again
        known = self.world.from_first({record["id"] for record in there})
        if known and len(known) == len(self.loaded.items):
            log.info(f"{self.benchmark.name}: all {len(known)} items are in {self.file}")
        elif known:
            log.info(f"{self.benchmark.name}: going on after {len(known)} items of {len(self.loaded.items)}")
        todo = [(index, item) for index, item in enumerate(self.loaded.items) if item.id not in known]
        records = {record["id"]: record for record in there}
        with ExitStack() as stack:
            stack.enter_context(self.benchmark.opened())
            for record in self._ask_all(todo):
                records[record["id"]] = record
        if self.world.rank != 0:
            return BenchmarkResult(self.benchmark.name, self.benchmark.primary), []
        ordered = sorted(records.values(), key=lambda record: record["index"])
        return self._result(ordered, time.monotonic() - begin), ordered

    def _ask_all(self, todo: list[tuple[int, Item]]) -> list[Record]:
        mine = todo[self.world.rank :: self.world.size]
        step = self.suite.items_per_call
        calls = -(-len(todo) // (step * self.world.size))  # every rank makes as many: engines may work together
        records: list[Record] = []
        told = time.monotonic()
        for call in range(calls):
            part = mine[call * step : (call + 1) * step]
            new = {"generate": self._generate, "choices": self._rate, "perplexity": self._rate_texts}[
                self.benchmark.kind
            ](part)
            every = [record for records_of_rank in self.world.gather(new) for record in records_of_rank]
            if self.world.rank == 0:
                records += every
                self._write(every)
                if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
                    told = time.monotonic()
                    log.info(f"{self.benchmark.name}: {len(records)} of {len(todo)} items")
        return records

    def _write(self, records: list[Record]) -> None:
        if self.file is not None and records:
            whole = not self.file.is_file() or self.file.read_bytes()[-1:] in (b"", b"\n")
            with self.file.open("ab") as lines:
                lines.write(b"" if whole else b"\n")
                lines.writelines(map(sealed_line, records))

    # -- the model writes ------------------------------------------------------------------------------------------------

    def _generate(self, part: list[tuple[int, Item]]) -> list[Record]:
        asked = [self._asked(item) for _, item in part]
        ready = [place for place, each in enumerate(asked) if isinstance(each, Asked)]
        completions = self._completed([self._prompt(part[place][1], asked[place]) for place in ready])
        by_place = dict(zip(ready, completions, strict=True))
        samples = [[self._read(c) for c in by_place.get(place, [])] for place in range(len(part))]
        self._score(part, samples)
        return [self._record(index, item, asked[place], samples[place]) for place, (index, item) in enumerate(part)]

    def _asked(self, item: Item) -> Asked | str:
        """The prompt, or why there is none."""
        if item.error is not None:
            return item.error
        try:
            shots = self.benchmark.shots_for(item, self.loaded.shots)
            return self.prompts.generation(self.benchmark, item, shots)
        except Exception as error:
            return f"no prompt: {first_line(error)}"

    def _prompt(self, item: Item, asked: Asked | str) -> Prompt:
        assert isinstance(asked, Asked)
        seed = int.from_bytes(
            hashlib.blake2b(f"{self.benchmark.name}\n{item.id}".encode(), digest_size=8).digest(), "little"
        )
        return Prompt(asked.ids, seed >> 1, asked.text)

    def _completed(self, prompts: list[Prompt]) -> list[list[Completion]]:
        begin = time.monotonic()
        try:
            return self.engine.generate(prompts, self.sampling, self.suite.deadline)
        except ValueError:
            raise  # a setting that cannot work, on all ranks alike
        except Exception as error:
            log.warn(f"{self.benchmark.name}: the engine failed ({first_line(error)}); these items are errors")
            wrong = f"the engine failed: {first_line(error)}"
            return [
                [Completion((), (), "error", i, s, 0, wrong) for s in range(self.sampling.n)]
                for i in range(len(prompts))
            ]
        finally:
            self.engine_seconds += time.monotonic() - begin

    def _read(self, completion: Completion) -> dict[str, Any]:
        sample: dict[str, Any] = {
            "text": "",
            "answer": None,
            "score": None,
            "status": "error",
            "finish_reason": completion.finish_reason,
            "tokens": len(completion.ids),
            "error": None,
        }
        if completion.finish_reason in ("error", "deadline"):
            sample["error"] = completion.error or "not finished at the deadline"
        else:
            try:
                sample["text"], sample["given"] = self.prompts.read(self.benchmark, completion)
                sample["status"] = "ok"
            except Exception as error:
                sample["error"] = f"its text cannot be read: {first_line(error)}"
        return sample

    def _score(self, part: list[tuple[int, Item]], samples: list[list[dict[str, Any]]]) -> None:
        """Complete the samples by what they are worth."""
        readable = [[s for s in own if s["status"] == "ok" and s["given"] is not None] for own in samples]
        scored = self._scored([item for _, item in part], [[s["given"] for s in own] for own in readable])
        for own, verdicts in zip(readable, scored, strict=True):
            for sample, verdict in zip(own, verdicts, strict=True):
                sample.update(score=verdict.score, status=verdict.status, answer=verdict.answer, error=verdict.error)
                if verdict.extra:
                    sample["extra"] = verdict.extra
        for sample in (s for own in samples for s in own):
            if sample.pop("given", "") is None:  # reasoning that never ended holds no answer
                sample.update(score=0.0, status="parse_failure")
            if sample["finish_reason"] == "length" and sample["status"] == "parse_failure":
                sample["status"] = "truncated"

    def _scored(self, items: list[Item], texts: list[list[str]]) -> list[list[Any]]:
        from nbg_lightning.scoring.verdicts import failure

        try:
            return checked_verdicts(self.benchmark.score_all(items, texts), texts)
        except ValueError:
            raise
        except Exception as error:
            return [[failure(f"scoring failed: {first_line(error)}") for _ in own] for own in texts]

    def _record(self, index: int, item: Item, asked: Asked | str, samples: list[dict[str, Any]]) -> Record:
        scores = [sample["score"] for sample in samples if sample["score"] is not None]
        record = self._base(index, item, asked)
        if record["status"] == "ok" and not scores:
            first = next((sample["error"] for sample in samples if sample["error"]), "nothing was written")
            record.update(status="error", error=first)
        record["score"] = math.fsum(scores) / len(scores) if scores else None
        record["samples"] = samples
        return record

    def _base(self, index: int, item: Item, asked: Asked | str) -> Record:
        record: Record = {"id": item.id, "index": index, "category": item.category, "status": "ok", "error": None}
        if item.cluster is not None:
            record["cluster"] = item.cluster
        if isinstance(asked, str):
            return {**record, "status": "error", "error": asked, "prompt": item.question, "answer": item.answer}
        return {
            **record,
            "prompt": asked.text,
            "answer": item.answer,
            "prompt_tokens": len(asked.ids),
            "prompt_hash": digest(asked.identity),
            "token_hash": digest(asked.ids),
        }

    # -- the model rates -----------------------------------------------------------------------------------------------

    def _rate(self, part: list[tuple[int, Item]]) -> list[Record]:
        asked: list[Asked | str] = []
        requests: list[list[Request]] = []
        for _, item in part:
            own: list[Request] = []
            try:
                if item.error is not None:
                    raise ValueError(item.error)
                prompt, own = self.prompts.choices(
                    self.benchmark, item, self.benchmark.shots_for(item, self.loaded.shots)
                )
                asked.append(prompt)
            except Exception as error:
                asked.append(first_line(error))
            requests.append(own)
        found = iter(self._rated([request for own in requests for request in own]))
        return [
            self._choice_record(index, item, asked[place], [next(found) for _ in requests[place]])
            for place, (index, item) in enumerate(part)
        ]

    def _rated(self, requests: list[Request]) -> list[LogLikelihood]:
        assert self.scorer is not None
        begin = time.monotonic()
        try:
            return self.scorer(requests)
        except ValueError:
            raise
        except Exception as error:
            wrong = f"the scorer failed: {first_line(error)}"
            return [LogLikelihood(math.nan, False, len(request.continuation), wrong) for request in requests]
        finally:
            self.engine_seconds += time.monotonic() - begin

    def _choice_record(self, index: int, item: Item, asked: Asked | str, found: list[LogLikelihood]) -> Record:
        record = self._base(index, item, asked)
        wrong = next((each.error for each in found if each.error), None)
        if record["status"] == "ok" and wrong is not None:
            record.update(status="error", error=wrong)
        record.update(
            choices=list(item.choices), log_likelihoods=[each.total for each in found], score=None, score_norm=None
        )
        if record["status"] == "error":
            record["log_likelihoods"] = []
            return record
        totals = [each.total for each in found]
        per_character = [total / max(1, len(text)) for total, text in zip(totals, item.choices, strict=True)]
        record["chosen"] = totals.index(max(totals))
        record["score"] = float(record["chosen"] == item.answer)
        record["score_norm"] = float(per_character.index(max(per_character)) == item.answer)
        return record

    def _rate_texts(self, part: list[tuple[int, Item]]) -> list[Record]:
        requests = [self._windows(item) for _, item in part]
        found = iter(self._rated([request for own in requests if not isinstance(own, str) for request in own]))
        records = []
        for own, (index, item) in zip(requests, part, strict=True):
            if isinstance(own, str):
                records.append({**self._base(index, item, own), "nll": None, "bytes": 0, "tokens": 0})
                continue
            ids = tuple(token for request in own for token in request.continuation)
            record = self._base(index, item, Asked(ids, item.answer[:200], item.answer))
            rated = [next(found) for _ in own]
            wrong = next((each.error for each in rated if each.error), None)
            record.update(status="ok" if wrong is None else "error", error=wrong, answer=None, tokens=len(ids))
            record["nll"] = None if wrong else -math.fsum(each.total for each in rated)
            record["score"] = record["nll"]
            record["bytes"] = len(item.answer.encode())
            records.append(record)
        return records

    def _windows(self, item: Item) -> list[Request] | str:
        tokenizer = self.prompts.tokenizer
        if item.error is not None:
            return item.error
        if tokenizer is None:
            return "a perplexity needs the tokenizer"
        try:
            prefix = rolling_prefix(tokenizer)
        except ValueError as error:
            return first_line(error)
        window = window_of(self.scorer) or 2048
        return rolling_requests(tokenizer.encode(item.answer), prefix, window)

    # -- the result ----------------------------------------------------------------------------------------------------

    def _result(self, records: list[Record], seconds: float) -> BenchmarkResult:
        benchmark, sampling = self.benchmark, self.sampling
        result = summarize(
            benchmark.name, benchmark.kind, benchmark.primary, records, sampling.n, self.suite.confidence
        )
        if result.errors:
            log.warn(
                f"{benchmark.name}: {result.errors} of {result.items} items are errors, not counted as wrong; the first: "
                f"{result.first_error}"
            )
        result.about = {
            **self._about(),
            "prompt_hash": combined_hash(records, "prompt_hash"),
            "token_hash": combined_hash(records, "token_hash"),
            "prompt_tokens": sum(record.get("prompt_tokens", 0) for record in records),
            "new_tokens": sum(sample["tokens"] for record in records for sample in record.get("samples", ())),
            "seconds": seconds,
            "engine_seconds": self.engine_seconds,
        }
        return result

    def _about(self) -> dict[str, Any]:
        about = {
            "origin": self.loaded.origin,
            "licence": self.benchmark.licence,
            "kind": self.benchmark.kind,
            "format": self.prompts.format,
            "num_shots": self.benchmark.num_shots,
            "template_hash": self.prompts.template_hash,
            "ranks": self.world.size,
            "engine": type(self.engine).__name__,
        }
        if self.benchmark.kind == "generate":
            about["sampling"] = dataclasses.asdict(self.sampling)
        return about

    def _harness(self, begin: float) -> BenchmarkResult:
        run: Callable[..., dict[str, float]] = self.benchmark.run  # type: ignore[attr-defined]
        metrics = run(self.engine, self.prompts, self.scorer, self.world)
        about = {**self._about(), "seconds": time.monotonic() - begin}
        primary = next(iter(metrics), self.benchmark.primary)
        return BenchmarkResult(self.benchmark.name, primary, metrics, about=about)


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
