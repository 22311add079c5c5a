"""Coding problems constructed backwards: first the solution and its tests, then the text.

Nanbeige4-3B report, coding stage of reinforcement learning: synthetic problems with public and private test functions. The
quality of the tests is measured before the problem is accepted: the solution must pass, and the share of its mutants that fail
is the mutation score.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any, ClassVar

from nbg_lightning.construction.checks import check_least
from nbg_lightning.construction.outcomes import dropped, unusable_reason
from nbg_lightning.construction.problems.calls import calls_in
from nbg_lightning.construction.problems.given_code import (
    CodeSource,
    NotUsableError,
    Program,
    function_under_test,
    identity_of,
)
from nbg_lightning.construction.problems.mutants import make_mutants
from nbg_lightning.construction.problems.mutation_testing import MutationTester
from nbg_lightning.construction.problems.prompts import CALLS, PROGRAM, TASK, TEXT
from nbg_lightning.construction.problems.written_code import code_in, read_program, signature
from nbg_lightning.construction.prompt_templates import check_template, fill_template
from nbg_lightning.construction.store import JsonRecord
from nbg_lightning.construction.workflow import (
    ModelRequest,
    ModelResponse,
    UnusableError,
    Workflow,
    readable,
    request_usable,
    user_turn,
)
from nbg_lightning.construction.workflow_builder import WorkflowBuilder, WorkflowItem, named
from nbg_lightning.data.question import Question
from nbg_lightning.data.question_sources import QuestionCounts
from nbg_lightning.engines.protocol import Sampling

_SEEN_LINE = 24  # minimum characters of a solution line that, quoted in the text, gives the solution away


@dataclass(kw_only=True)
class ProblemBuilder(WorkflowBuilder):
    """Build coding problems with public and private tests from programs.

    ``problems.jsonl``: one `Question` per line for the coding stage and `CodeReward`, with ``entry_point``, ``public_tests``
    (those in the text), ``private_tests`` and ``mutation_score`` in its ``data``. ``solutions.jsonl``: by the same key the
    solution, the mutants that survive its tests, and its origin.

    For each program, calls are collected from its own tests, its doctest and, with a ``tester``, from what that model
    writes; they are varied and run in the sandbox, and kept if their value is plain, the same in two runs, and not affected by
    rounding. A call for which a ``raise`` of the program raises an error is kept too. From these, tests are chosen one by one,
    each killing the most mutants that no earlier one kills. Finally the coding reward's own judge checks that the solution
    passes and which mutants fail.

    Args:
        code: existing programs, by name of the source.
        topics: topics for ``coder`` to write programs on.
        coder: model that writes programs.
        programs_per_topic: programs of each topic.
        tester: model that writes further calls.
        describer: model that writes the problem's text; without one, the program's own description is used, and programs
            without one are dropped as ``no_text``.
        coding, testing, describing: sampling settings of each.
        tries: maximum number of answers sampled for a step until one is usable.
        calls: number of calls tried per program and generation.
        generations: number of times that calls which kill mutants are varied, to kill surviving ones.
        minimum_tests: programs with fewer tests are dropped as ``few_tests``.
        maximum_tests: maximum number of tests per problem.
        public_tests: number of tests shown in the text; tests that came with the program are shown first.
        mutants: maximum number of mutants per program.
        minimum_mutation_score: problems below are dropped as ``weak_tests``.
        timeout: seconds for all tests of a problem, and for all calls.
        mutant_timeout: the same for mutants, which may loop forever: a timeout counts as a failure. Timeouts are reported: on a
            busy machine, raise it until there are none.
        memory: memory limit of a program in megabytes.
        workers: number of concurrent programs; by default the number of processors.
        program_prompt, calls_prompt, text_prompt, task_prompt: prompt templates; the last is the frame of the problem.
    """

    name: ClassVar[str] = "build-problems"

    code: dict[str, CodeSource] = field(default_factory=dict)
    topics: list[str] = field(default_factory=list)
    coder: str | None = None
    programs_per_topic: int = 1
    tester: str | None = None
    describer: str | None = None
    coding: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=2048, temperature=0.8, top_p=0.95))
    testing: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=1024, temperature=0.8, top_p=0.95))
    describing: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=1024, temperature=0.6, top_p=0.95))
    tries: int = 3
    calls: int = 200
    generations: int = 3
    minimum_tests: int = 8
    maximum_tests: int = 16
    public_tests: int = 2
    mutants: int = 30
    minimum_mutation_score: float = 0.7
    timeout: float = 10.0
    mutant_timeout: float = 5.0
    memory: int = 1024
    workers: int | None = None
    program_prompt: str = PROGRAM
    calls_prompt: str = CALLS
    text_prompt: str = TEXT
    task_prompt: str = TASK

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.code and not self.topics:
            raise ValueError("code is invalid: empty without topics; name sources of code, or topics and a coder")
        if bool(self.topics) != (self.coder is not None):
            raise ValueError(
                f"coder is invalid: {self.coder} with {len(self.topics)} topics; give topics and a model that writes on them, "
                "or neither"
            )
        check_least(1, minimum_tests=self.minimum_tests, mutants=self.mutants, generations=self.generations)
        check_least(1, tries=self.tries, programs_per_topic=self.programs_per_topic)
        check_least(0, public_tests=self.public_tests)
        for name, tests in (("minimum_tests", self.minimum_tests), ("public_tests", self.public_tests)):
            if tests > self.maximum_tests:
                raise ValueError(f"{name} is invalid: {tests}; give at most maximum_tests={self.maximum_tests}")
        if self.calls < self.minimum_tests:
            raise ValueError(f"calls is invalid: {self.calls}; give at least minimum_tests={self.minimum_tests}")
        if not 0 <= self.minimum_mutation_score <= 1:
            raise ValueError(f"minimum_mutation_score is invalid: {self.minimum_mutation_score}; give 0 to 1")
        check_template(self.program_prompt, "program_prompt", ("topic", "number"))
        check_template(self.calls_prompt, "calls_prompt", ("solution", "number", "name"))
        check_template(self.text_prompt, "text_prompt", ("solution", "examples", "name"))
        check_template(self.task_prompt, "task_prompt", ("text", "signature", "tests"))
        self.code_counts = {name: QuestionCounts() for name in self.code}
        self._tester: MutationTester | None = None  # set while a build runs

    def roles(self) -> dict[str, Sequence[str]]:
        return {"coder": named(self.coder), "tester": named(self.tester), "describer": named(self.describer)}

    def manifest(self) -> JsonRecord:
        manifest = super().manifest()
        manifest["settings"].pop("workers")
        for source in manifest["settings"]["code"].values():
            source.pop("files", None)  # their content counts
        manifest["programs"] = {name: identity_of(source) for name, source in self.code.items()}
        return manifest

    def run(self) -> JsonRecord:
        from nbg_lightning.scoring.sandbox.sandbox import Sandbox

        with Sandbox(timeout=self.timeout, memory=self.memory, workers=self.workers) as sandbox:
            self._tester = MutationTester(
                sandbox,
                self.calls,
                self.generations,
                self.minimum_tests,
                self.maximum_tests,
                self.public_tests,
                self.timeout,
                self.mutant_timeout,
                self.seed,
            )
            try:
                return super().run()
            finally:
                self._tester = None

    def input_counts(self) -> dict[str, QuestionCounts]:
        return self.code_counts

    def items(self) -> Iterator[WorkflowItem]:
        for name, source in self.code.items():
            counts = self.code_counts[name] = QuestionCounts()
            for program in source.programs():
                counts.seen += 1
                if isinstance(program, tuple):
                    counts.invalid += 1
                    counts.first = counts.first or ": ".join(program)
                elif len(program.source) > self.max_characters:
                    yield program.key, dropped("too_long", f"{len(program.source):,} characters", origin=program.origin)
                else:
                    yield program.key, partial(self.make, program, name)
        for topic in self.topics:
            for number in range(self.programs_per_topic):
                key = hashlib.blake2b(f"{topic}\n{number}".encode("utf-8", "surrogatepass"), digest_size=16)
                yield key.hexdigest(), partial(self.write, topic)

    # -- one problem -----------------------------------------------------------------------------------------------------

    def write(self, topic: str) -> Workflow:
        """Have a program written on a topic, and build a problem from it."""
        assert self.coder is not None
        trace: list[JsonRecord] = []
        prompt = fill_template(self.program_prompt, topic=topic, number=self.minimum_tests)
        request = ModelRequest(
            self.coder, "program", user_turn(prompt), self.coding, partial(read_program, topic=topic)
        )
        [program] = yield from request_usable([request], self.tries, trace)
        if program is None:
            return dropped(*unusable_reason(trace, "program"), topic=topic, trace=trace)
        return (yield from self.make(program, "written", trace))

    def make(self, program: Program, source: str, trace: list[JsonRecord] | None = None) -> Workflow:
        """Build a problem from a program."""
        tester = self._tester
        assert tester is not None  # workflows run inside `run`
        trace = [] if trace is None else trace
        record: JsonRecord = {"origin": program.origin, "source": source, "name": program.name, "trace": trace}
        record["solution"] = program.source
        try:
            mutants = make_mutants(program.source, self.mutants, self.seed)
            given = function_under_test(program.source, [f"{program.name}("])
        except (NotUsableError, SyntaxError, ValueError, RecursionError) as error:
            return dropped("no_python", str(error).splitlines()[0], **record)
        if given != program.name:
            return dropped("no_function", f"the program defines no function {program.name!r}", **record)
        if self.describer is None and not program.description:
            return dropped("no_text", program.origin, **record)
        known = [call for test in program.tests for call in calls_in(test, program.name)]
        if self.tester is not None:
            known += yield from self._further_calls(program, trace)
        usable = tester.usable_calls(program, list(dict.fromkeys(known)))
        if sum(outcome[0] == "value" for outcome in usable.values()) < self.minimum_tests:
            detail = f"{len(usable)} calls of {program.name} can be tests, at least {self.minimum_tests} wanted"
            return dropped("few_tests", detail, **record)
        tests, public = tester.choose(program, usable, mutants)
        record |= {"tests": tests, "public_tests": public}
        passed = tester.passes(program, tests)
        if passed.status == "error":
            return dropped("unusable_tests", passed.detail, **record)
        if not passed:
            return dropped("solution_fails", f"{passed.status}: {passed.detail}", **record)
        if not mutants:
            return dropped("no_mutants", f"nothing of {program.name} can be changed", **record)
        record |= tester.measure(program, tests, public, mutants)
        if record["mutation_score"] < self.minimum_mutation_score:
            return dropped("weak_tests", f"mutation score {record['mutation_score']:.2f}", **record)
        text: str | None = program.description
        if self.describer is not None:
            text = yield from self._text(program, public, trace)
        if text is None:
            return dropped(*unusable_reason(trace, "text"), **record)
        return {"status": "kept", **record, "text": text}

    def _further_calls(
        self, program: Program, trace: list[JsonRecord]
    ) -> Generator[list[ModelRequest[Any]], list[ModelResponse], list[str]]:
        assert self.tester is not None

        def read(response: ModelResponse) -> list[str]:
            calls = calls_in(code_in(readable(response, whole=False)), program.name)
            if not calls:
                raise UnusableError("unparsable", f"no call of {program.name} with literal arguments")
            return calls

        prompt = fill_template(self.calls_prompt, solution=program.source, number=self.minimum_tests, name=program.name)
        request = ModelRequest(self.tester, "calls", user_turn(prompt), self.testing, read)
        [calls] = yield from request_usable([request], self.tries, trace)
        return calls or []

    def _text(
        self, program: Program, public: list[str], trace: list[JsonRecord]
    ) -> Generator[list[ModelRequest[Any]], list[ModelResponse], str | None]:
        assert self.describer is not None
        lines = {line.strip() for line in program.source.splitlines() if len(line.strip()) >= _SEEN_LINE}

        def read(response: ModelResponse) -> str:
            text = readable(response)
            if seen := next((line for line in lines if line in text), None):
                raise UnusableError("gives_solution_away", seen)
            if "```" in text:
                raise UnusableError("has_code", text[:120])
            return text

        prompt = fill_template(self.text_prompt, solution=program.source, examples="\n".join(public), name=program.name)
        request = ModelRequest(self.describer, "text", user_turn(prompt), self.describing, read)
        [text] = yield from request_usable([request], self.tries, trace)
        return text

    # -- all of them -----------------------------------------------------------------------------------------------------

    def outputs(self, records: Callable[[], Iterator[JsonRecord]]) -> dict[str, Iterable[JsonRecord]]:
        kept = (record for record in records() if record["status"] == "kept")
        about = ("origin", "name", "solution", "mutation_score", "public_mutation_score", "mutants", "survivors")
        return {
            "problems": (self._question(record).to_dict() for record in kept),
            "solutions": (
                {"key": record["key"], "question": self._question(record).key, **{name: record[name] for name in about}}
                for record in records()
                if record["status"] == "kept"
            ),
        }

    def _question(self, record: JsonRecord) -> Question:
        prompt = fill_template(
            self.task_prompt,
            text=record["text"],
            signature=signature(record["solution"], record["name"]),
            tests="\n".join(record["public_tests"]),
        )
        data = {
            "entry_point": record["name"],
            "public_tests": record["public_tests"],
            "private_tests": [test for test in record["tests"] if test not in record["public_tests"]],
            "mutation_score": record["mutation_score"],
            "origin": record["origin"],
        }
        return Question(user_turn(prompt), None, record["source"], data)

    def summary(self, records: Iterable[JsonRecord]) -> JsonRecord:
        scores, public, survivors, tests, mutants, timeouts = [], [], 0, 0, 0, 0
        for record in records:
            if record.get("mutants"):
                scores.append(record["mutation_score"])
                public.append(record["public_mutation_score"])
                survivors += len(record["survivors"])
                mutants += record["mutants"]
                timeouts += record["timeouts"]
                tests += len(record["tests"])
        if not scores:
            return {}
        return {
            "mutation_scores": {
                "programs": len(scores),
                "mean": fmean(scores),
                "mean_of_public_tests": fmean(public),
                "mutants": mutants,
                "survivors": survivors,
                "timeouts": timeouts,
                "tests": tests,
            }
        }
