"""Coding problems made backwards: the solution and its tests first, then the text.

Nanbeige4-3B report, coding stage of reinforcement learning: synthetic problems with public and private test functions. What the
tests are worth is measured before there is a problem: the solution passes, and the share of its mutants that fail is the
mutation score.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar

from nbg_lightning.construction.builder import Builder, Item, check_template, dropped, filled, reason_of
from nbg_lightning.construction.problems.calls import (
    Outcome,
    as_test,
    calls_in,
    differs,
    is_fair,
    run_calls,
    varied_calls,
)
from nbg_lightning.construction.problems.given_code import CodeSource, NotUsableError, Program, function_under_test
from nbg_lightning.construction.problems.mutants import Mutant, make_mutants
from nbg_lightning.construction.store import Record
from nbg_lightning.construction.writers import Ask, Reply, Script, UnusableError, asked, readable, user_turn
from nbg_lightning.data.question import Question
from nbg_lightning.data.question_sources import QuestionCounts
from nbg_lightning.engines.protocol import Sampling
from nbg_lightning.scoring.fences import code_blocks

if TYPE_CHECKING:
    from nbg_lightning.scoring.sandbox.sandbox import Sandbox

PROGRAM = """\
Write one Python function on this topic: {topic}

It must compute its result from its arguments alone, without input, output, randomness or the time, and use nothing but the \
standard library. Arguments and results are numbers, texts, lists, tuples or dictionaries. Answer with two code blocks: the \
first with the function, the second with at least {number} calls of it, one in a line, with different literal arguments that \
cover its special cases, such as:
```python
double(3)
double(-1)
```"""

CALLS = """\
Here is a Python function:
```python
{solution}
```
Write at least {number} calls of {name}, one in a line, in one code block, with different literal arguments that cover its \
special cases. Write no results."""

TEXT = """\
Here is a Python function, with some calls of it and what they give:
```python
{solution}
```
{examples}

Write a programming problem to which this function is the solution, for someone who sees neither the function nor how it works. \
Say what {name} is given, what it returns, and what happens in special cases, exactly enough that every right solution gives the \
same results. Write no code. Begin with the problem at once."""

TASK = """\
{text}

Write the Python function `{signature}`. It should pass these tests:
```python
{tests}
```
Answer with the whole program in one Python code block."""

_SEEN_LINE = 24  # characters from which a line of the solution in the text gives it away


@dataclass(kw_only=True)
class Problems(Builder):
    """`nbg build-problems`: programs in, coding problems with public and private tests out.

    ``problems.jsonl``: a `Question` a line for the coding stage, as `CodeReward` scores it: with ``entry_point``,
    ``public_tests`` (those in the text), ``private_tests`` and ``mutation_score`` in its ``data``. ``solutions.jsonl``: by the
    same key the solution, the mutants that no test told from it, and where it is from.

    For each program: calls are found in its own tests, its doctest and, with a ``tester``, in what that writes; they are
    varied, run in the sandbox, and those stay whose value is plain, the same in two runs, and not decided by rounding. A call
    at which the program raises an error by a ``raise`` of its own stays too. Of these, tests are chosen one by one, each for
    the most mutants that no earlier one tells from the solution. Then the judge of the coding reward itself says whether the
    solution passes and which mutants fail.

    Args:
        code: given programs, by name.
        topics: what ``coder`` writes programs about.
        coder: writer of programs.
        programs_per_topic: programs of each topic.
        tester: writer of further calls.
        describer: writer of the problem's text; without one, it is the program's own description, and programs without one are
            dropped as ``no_text``.
        coding, testing, describing: how each is sampled.
        tries: answers drawn for a step until one is usable.
        calls: calls that are tried of each program, in each generation.
        generations: times that calls which tell mutants from the program are varied, to tell those that are left.
        minimum_tests: programs with fewer are dropped as ``few_tests``.
        maximum_tests: tests of a problem, at most.
        public_tests: of these, how many the text shows; tests that came with the program come first.
        mutants: of each program, at most.
        minimum_mutation_score: problems below are dropped as ``weak_tests``.
        timeout: seconds for all tests of a problem, and for all calls.
        mutant_timeout: the same for mutants, which may loop for ever: that is a failure. The report counts them: on a busy
            machine, raise it until there are no more of them.
        memory: megabytes of a program.
        workers: programs that run at once; by default as many as there are processors.
        program_prompt, calls_prompt, text_prompt, task_prompt: what is asked; the last is the problem's frame.
    """

    name: ClassVar[str] = "build-problems"
    roles: ClassVar[tuple[str, ...]] = ("coder", "tester", "describer")

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
            raise ValueError("Problems needs programs: name code, or topics and a coder")
        if bool(self.topics) != (self.coder is not None):
            raise ValueError("topics are what the coder writes about: give both, or neither")
        if not 1 <= self.minimum_tests <= self.maximum_tests or not 0 <= self.public_tests <= self.maximum_tests:
            raise ValueError(
                f"minimum_tests={self.minimum_tests} must be from 1, and public_tests={self.public_tests} from 0, to "
                f"maximum_tests={self.maximum_tests}"
            )
        if (
            self.mutants < 1
            or self.generations < 1
            or self.calls < self.minimum_tests
            or self.tries < 1
            or self.programs_per_topic < 1
        ):
            raise ValueError(
                f"mutants={self.mutants}, generations={self.generations}, tries={self.tries} and programs_per_topic="
                f"{self.programs_per_topic} must be at least 1, calls={self.calls} at least minimum_tests={self.minimum_tests}"
            )
        if not 0 <= self.minimum_mutation_score <= 1:
            raise ValueError(f"minimum_mutation_score={self.minimum_mutation_score} must be from 0 to 1")
        check_template(self.program_prompt, "program_prompt", ("topic", "number"))
        check_template(self.calls_prompt, "calls_prompt", ("solution", "number", "name"))
        check_template(self.text_prompt, "text_prompt", ("solution", "examples", "name"))
        check_template(self.task_prompt, "task_prompt", ("text", "signature", "tests"))
        self.code_counts = {name: QuestionCounts() for name in self.code}
        self._sandbox: Sandbox | None = None

    def about(self) -> Record:
        from nbg_lightning.construction.problems.given_code import identity_of

        about = super().about()
        about["settings"].pop("workers")
        for source in about["settings"]["code"].values():
            source.pop("files", None)  # what they hold counts
        about["programs"] = {name: identity_of(source) for name, source in self.code.items()}
        return about

    def run(self) -> Record:
        from nbg_lightning.scoring.sandbox.sandbox import Sandbox

        with Sandbox(timeout=self.timeout, memory=self.memory, workers=self.workers) as sandbox:
            self._sandbox = sandbox
            try:
                return super().run()
            finally:
                self._sandbox = None

    @property
    def sandbox(self) -> Sandbox:
        """Where programs run, while a build runs."""
        if self._sandbox is None:
            raise RuntimeError("there is a sandbox only while the build runs: call run()")
        return self._sandbox

    def input_counts(self) -> dict[str, QuestionCounts]:
        return self.code_counts

    def items(self) -> Iterator[Item]:
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

    def write(self, topic: str) -> Script:
        """A program on a topic, and the problem it makes."""
        assert self.coder is not None
        trace: list[Record] = []
        prompt = filled(self.program_prompt, topic=topic, number=self.minimum_tests)
        ask = Ask(self.coder, "program", user_turn(prompt), self.coding)
        [program] = yield from asked([(ask, partial(_read_program, topic=topic))], self.tries, trace)
        if program is None:
            return dropped(*reason_of(trace, "program"), topic=topic, trace=trace)
        return (yield from self.make(program, "written", trace))

    def make(self, program: Program, source: str, trace: list[Record] | None = None) -> Script:
        """The problem that a program makes."""
        trace = [] if trace is None else trace
        record: Record = {"origin": program.origin, "source": source, "name": program.name, "trace": trace}
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
        usable = self._values(program, list(dict.fromkeys(known)))
        if sum(outcome[0] == "value" for outcome in usable.values()) < self.minimum_tests:
            detail = f"{len(usable)} calls of {program.name} can be tests, at least {self.minimum_tests} wanted"
            return dropped("few_tests", detail, **record)
        tests, public = self._chosen(program, usable, mutants)
        record |= {"tests": tests, "public_tests": public}
        [passed] = self.sandbox.check_many([_check(program, program.source, tests, self.timeout)])
        if passed.status == "error":
            return dropped("unusable_tests", passed.detail, **record)
        if not passed:
            return dropped("solution_fails", f"{passed.status}: {passed.detail}", **record)
        if not mutants:
            return dropped("no_mutants", f"nothing of {program.name} can be changed", **record)
        record |= self._measured(program, tests, public, mutants)
        if record["mutation_score"] < self.minimum_mutation_score:
            return dropped("weak_tests", f"mutation score {record['mutation_score']:.2f}", **record)
        text: str | None = program.description
        if self.describer is not None:
            text = yield from self._text(program, public, trace)
        if text is None:
            return dropped(*reason_of(trace, "text"), **record)
        return {"status": "kept", **record, "text": text}

    def _further_calls(self, program: Program, trace: list[Record]) -> Generator[list[Ask], list[Reply], list[str]]:
        assert self.tester is not None

        def read(reply: Reply) -> list[str]:
            calls = calls_in(_code(readable(reply, whole=False)), program.name)
            if not calls:
                raise UnusableError("unparsable", f"no call of {program.name} with literal arguments")
            return calls

        prompt = filled(self.calls_prompt, solution=program.source, number=self.minimum_tests, name=program.name)
        [calls] = yield from asked(
            [(Ask(self.tester, "calls", user_turn(prompt), self.testing), read)], self.tries, trace
        )
        return calls or []

    def _values(self, program: Program, known: list[str]) -> dict[str, Outcome]:
        """Calls of which a test can be made: those known, and variations of calls that work."""
        vary = partial(varied_calls, program.source, program.name)
        calls = known or vary([], self.calls, self.seed)
        [outcomes] = run_calls(self.sandbox, [program.source], program.name, calls)
        working = [call for call, outcome in zip(calls, outcomes, strict=True) if outcome[0] == "value"]
        if working:
            calls = [*working, *vary(working, max(0, self.calls - len(working)), self.seed)]
        return self._usable(program, calls)

    def _usable(self, program: Program, calls: Sequence[str]) -> dict[str, Outcome]:
        """Calls that do the same in two runs, and of which a test can be made."""
        first, second = run_calls(self.sandbox, [program.source] * 2, program.name, calls)
        return {call: one for call, one, two in zip(calls, first, second, strict=True) if one == two and is_fair(one)}

    def _chosen(
        self, program: Program, usable: dict[str, Outcome], mutants: Sequence[Mutant]
    ) -> tuple[list[str], list[str]]:
        """All tests, and those of them that are public."""
        given = [test for test in program.tests if test.startswith("assert ")][: self.maximum_tests]
        covered = {call for test in given for call in calls_in(test, program.name)}
        kills = self._kills(program, usable, mutants)
        alive = set(range(len(mutants))).difference(*(kills[call] for call in kills if call in covered))
        left = [call for call in kills if call not in covered]
        chosen: list[str] = []
        seen: set[Outcome] = set()
        while left and len(given) + len(chosen) < self.maximum_tests:
            best = min(left, key=lambda call: (-len(kills[call] & alive), usable[call] in seen, len(call), call))
            if not kills[best] & alive and len(given) + len(chosen) >= self.minimum_tests:
                break
            chosen.append(best)
            left.remove(best)
            alive -= kills[best]
            seen.add(usable[best])
        made = [as_test(call, usable[call]) for call in chosen]
        tests = [*given, *made]
        public = given[: self.public_tests]
        public += sorted(made, key=len)[: self.public_tests - len(public)]
        return tests, public

    def _kills(self, program: Program, usable: dict[str, Outcome], mutants: Sequence[Mutant]) -> dict[str, set[int]]:
        """The mutants that each call tells from the program; ``usable`` grows by variations of calls that tell some.

        Each generation runs only on the mutants that no call has told yet.
        """
        kills: dict[str, set[int]] = {}
        alive = list(range(len(mutants)))
        fresh = list(usable)
        for generation in range(self.generations):
            sources = [mutants[index].source for index in alive]
            found = run_calls(self.sandbox, sources, program.name, fresh, self.mutant_timeout)
            for place, call in enumerate(fresh):
                kills[call] = {
                    index
                    for index, outcomes in zip(alive, found, strict=True)
                    if outcomes[0][0] != "stillborn" and differs(outcomes[place], usable[call])
                }
            alive = [index for index in alive if not any(index in kills[call] for call in fresh)]
            telling = [call for call in kills if kills[call] and usable[call][0] == "value"]
            if not alive or not telling or generation + 1 == self.generations:
                break
            new = varied_calls(program.source, program.name, telling, self.calls, self.seed + generation + 1)
            fresh = [call for call in new if call not in usable]
            more = self._usable(program, fresh)
            usable |= more
            fresh = list(more)
            if not fresh:
                break
        return kills

    def _measured(self, program: Program, tests: list[str], public: list[str], mutants: Sequence[Mutant]) -> Record:
        """What the judge says of every mutant."""

        def judged(which: list[str]) -> list[str]:
            if not which:
                return ["ok"] * len(mutants)
            checks = [_check(program, mutant.source, which, self.mutant_timeout) for mutant in mutants]
            results = self.sandbox.check_many(checks)
            if wrong := next((result for result in results if result.status == "error"), None):
                raise RuntimeError(f"the sandbox failed ({wrong.detail}): see `nbg_lightning.scoring.Sandbox.probe`")
            return [result.status for result in results]

        ends, public_ends = judged(tests), judged(public)
        survivors = [mutant for mutant, end in zip(mutants, ends, strict=True) if end == "ok"]
        return {
            "mutation_score": 1 - len(survivors) / len(mutants),
            "public_mutation_score": 1 - public_ends.count("ok") / len(mutants),
            "mutants": len(mutants),
            "timeouts": ends.count("timeout"),
            "survivors": [f"line {each.line}, {each.kind}: {each.change}" for each in survivors],
        }

    def _text(
        self, program: Program, public: list[str], trace: list[Record]
    ) -> Generator[list[Ask], list[Reply], str | None]:
        assert self.describer is not None
        lines = {line.strip() for line in program.source.splitlines() if len(line.strip()) >= _SEEN_LINE}

        def read(reply: Reply) -> str:
            text = readable(reply)
            if seen := next((line for line in lines if line in text), None):
                raise UnusableError("gives_solution_away", seen)
            if "```" in text:
                raise UnusableError("has_code", text[:120])
            return text

        prompt = filled(self.text_prompt, solution=program.source, examples="\n".join(public), name=program.name)
        [text] = yield from asked(
            [(Ask(self.describer, "text", user_turn(prompt), self.describing), read)], self.tries, trace
        )
        return text

    # -- all of them -----------------------------------------------------------------------------------------------------

    def outputs(self, records: Callable[[], Iterator[Record]]) -> dict[str, Iterable[Record]]:
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

    def _question(self, record: Record) -> Question:
        prompt = filled(
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

    def summary(self, records: Iterable[Record]) -> Record:
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


def signature(source: str, name: str) -> str:
    """The function's head, without annotations.

    Example:
        >>> signature("def f(x: int, *, y=1): return x", "f")
        'f(x, *, y=1)'
    """
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            arguments = node.args
            for each in ast.walk(arguments):
                if isinstance(each, ast.arg):
                    each.annotation = None
            return f"{name}({ast.unparse(arguments)})"
    raise ValueError(f"the program defines no function {name!r}")


def _blocks(text: str) -> list[str]:
    """The text's blocks of code that are Python, or say nothing of their language."""
    return [block.code for block in code_blocks(text) if block.is_python or not block.language]


def _code(text: str) -> str:
    """What is in the text's blocks of code; the text, if it has none."""
    return "\n".join(_blocks(text)) or text


def _read_program(reply: Reply, topic: str) -> Program:
    text = readable(reply)
    blocks = _blocks(text)
    if not blocks:
        raise UnusableError("unparsable", f"no code block: {text[:80]!r}")
    source, *calls = blocks
    try:
        name = function_under_test(source, calls)
    except NotUsableError as error:
        raise UnusableError("unparsable", str(error)) from error
    return Program(name, source.strip() + "\n", "", tuple(calls_in("\n".join(calls), name)), f"written on: {topic}")


def _check(program: Program, source: str, tests: list[str], timeout: float) -> Record:
    return {"solution": source, "tests": tests, "entry_point": program.name, "timeout": timeout}
