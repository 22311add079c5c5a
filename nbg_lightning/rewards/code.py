"""Reward for programs that pass tests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nbg_lightning.data.question import Question
from nbg_lightning.rewards.protocol import Group, Reward, RewardResult
from nbg_lightning.scoring.programs import called_names, extract_program
from nbg_lightning.scoring.sandbox.sandbox import Sandbox, SandboxResult


@dataclass(frozen=True)
class ProgramTests:
    """The tests of one question.

    Attributes:
        assertions: tests with ``assert``, public ones first.
        cases: standard input and expected output, public ones first.
        public: number of public tests.
        entry_point: functions under test.
        setup: code that the assertions need.
        own_operators: see `Sandbox.check`.
    """

    assertions: tuple[str, ...] = ()
    cases: tuple[tuple[str, str], ...] = ()
    public: int = 0
    entry_point: tuple[str, ...] = ()
    setup: str = ""
    own_operators: tuple[str, ...] = ()

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> ProgramTests:
        """From `Question.data`; see `CodeReward`.

        Raises:
            ValueError: there are none, or they are malformed.
        """
        public = _listed(data, "public_tests")
        tests = [*public, *_listed(data, "tests"), *_listed(data, "private_tests")]
        if not tests:
            raise ValueError("data has no tests, public_tests or private_tests")
        given: dict[str, Any] = {
            "public": len(public),
            "entry_point": tuple(_texts(data, "entry_point")),
            "setup": "\n".join(_texts(data, "setup")),
            "own_operators": tuple(_texts(data, "own_operators")),
        }
        if all(isinstance(test, str) for test in tests):
            for index, test in enumerate(tests, start=1):
                if "assert" not in test and "raise" not in test:
                    raise ValueError(f"test {index} asserts nothing: {test.strip()[:60]!r}")
                try:
                    compile(test, "test", "exec")
                except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                    raise ValueError(f"test {index} is no Python ({error}): {test.strip()[:60]!r}") from None
            return cls(assertions=tuple(tests), **given)
        if any(isinstance(test, str) for test in tests):
            raise ValueError("the tests are partly assertions, partly inputs and outputs; give one kind")
        return cls(cases=tuple(_case(test, index) for index, test in enumerate(tests, start=1)), **given)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names that an answer must define: the entry points, or else those that the assertions call."""
        return self.entry_point or tuple(called_names([*self.assertions, self.setup]))

    def judge(self, sandbox: Sandbox, program: str) -> SandboxResult:
        """Whether a program passes all of them."""
        if self.cases:
            return sandbox.check_outputs(program, self.cases)
        return sandbox.check(program, self.assertions, self.entry_point, self.setup, self.own_operators)


class CodeReward(Reward):
    """1 for a program that passes all tests of its question, public and private, in the sandbox; else 0.

    The program is the Python code block after the reasoning that defines the entry point, together with what it needs from
    other blocks, see `scoring.programs.extract_program`. Tests are in `Question.data` as ``tests``, ``public_tests`` and
    ``private_tests`` (all are used): each is a list of texts with ``assert``, for functions; or a list of
    ``{"input": ..., "output": ...}``, for programs that use standard input and output. Optional fields are ``entry_point``
    (the function under test, by default what the assertions call; required if it has the name of a builtin), ``setup``
    (code for the assertions) and ``own_operators`` (see `Sandbox.check`).

    A program that exceeds its time or memory, or crashes, is wrong. Tests that cannot run and sandbox failures give no
    score.

    Args:
        timeout: seconds for all assertions, or for each input.
        memory: megabytes per process.
        processes: maximum processes and threads of a program, including the sandbox's own three.
        packages: installed packages that programs may import, such as ``numpy``.
        unfenced: without a fenced code block, take those lines of the text that are Python as the program.
        workers: number of concurrent programs; defaults to the number of processors.
        name: name in metrics.

    Raises:
        RuntimeError: on entering, if sandbox isolation is unavailable, with instructions.
    """

    def __init__(
        self,
        timeout: float = 10.0,
        memory: int = 1024,
        processes: int = 24,
        packages: list[str] | None = None,
        unfenced: bool = False,
        workers: int | None = None,
        name: str = "code",
    ):
        self.name, self.unfenced = name, unfenced
        self.sandbox = Sandbox(timeout, memory, processes, workers=workers, packages=tuple(packages or ()))

    def __enter__(self) -> CodeReward:
        self.sandbox.probe()
        return self

    def __exit__(self, *_: object) -> None:
        self.sandbox.close()

    def check(self, question: Question) -> str | None:
        try:
            ProgramTests.from_data(question.data)
        except ValueError as error:
            return str(error)
        return None

    def score(self, groups: Sequence[Group]) -> list[list[RewardResult]]:
        results: list[list[RewardResult | None]] = [[None] * len(group.answers) for group in groups]
        places: dict[tuple[int, str], list[int]] = {}  # identical programs for a question are run once
        tests: dict[int, ProgramTests] = {}
        for row, group in enumerate(groups):
            try:
                tests[row] = ProgramTests.from_data(group.question.data)
            except ValueError as error:
                results[row] = [RewardResult(None, "error", str(error))] * len(group.answers)
                continue
            for column, answer in enumerate(group.answers):
                program = None if answer.final is None else self._program(answer.final, tests[row])
                if program is None:
                    reason = "the reasoning has no end" if answer.final is None else "there is no block of code"
                    results[row][column] = RewardResult(0.0, detail=reason, parsed=False)
                else:
                    places.setdefault((row, program), []).append(column)
        jobs = list(places)
        judged = self.sandbox.map(lambda job: tests[job[0]].judge(self.sandbox, job[1]), jobs) if jobs else []
        for (row, program), verdict in zip(jobs, judged, strict=True):
            for column in places[row, program]:
                results[row][column] = self._result(verdict, tests[row])
        return [[result for result in row if result is not None] for row in results]

    def _program(self, text: str, tests: ProgramTests) -> str | None:
        return extract_program(text, self.unfenced, tests.names)

    @staticmethod
    def _result(verdict: SandboxResult, tests: ProgramTests) -> RewardResult:
        if verdict.status == "error":
            return RewardResult(None, "error", verdict.detail)
        number = re.match(r"(?:test|case) (\d+)", verdict.detail)
        which = "" if number is None else "public " if int(number.group(1)) <= tests.public else ""
        detail = "" if verdict else f"{verdict.status}: {which}{verdict.detail}"
        return RewardResult(float(bool(verdict)), detail=detail)


def _listed(data: Mapping[str, Any], name: str) -> list[Any]:
    given = data.get(name)
    if given is None:
        return []
    if isinstance(given, str):
        return [given]
    if isinstance(given, Mapping) and {"inputs", "outputs"} <= set(given):  # columnar form, as in some datasets
        if len(given["inputs"]) != len(given["outputs"]):
            raise ValueError(f"{name}: {len(given['inputs'])} inputs with {len(given['outputs'])} outputs")
        return list(zip(given["inputs"], given["outputs"], strict=True))
    if isinstance(given, Sequence):
        return list(given)
    raise ValueError(f"{name} is a {type(given).__name__}; give a list of tests")


def _case(test: Any, index: int) -> tuple[str, str]:
    if isinstance(test, Mapping):
        test = (test.get("input"), test.get("output"))
    if not isinstance(test, Sequence) or len(test) != 2 or not all(isinstance(part, str) for part in test):
        raise ValueError(f"test {index} must be an assertion, or an input and an output as texts: {str(test)[:60]!r}")
    return test[0], test[1]


def _texts(data: Mapping[str, Any], name: str) -> list[str]:
    given = data.get(name) or []
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, Sequence) or not all(isinstance(each, str) for each in given):
        raise ValueError(f"{name} must be a text or a list of texts, not {str(given)[:60]!r}")
    return list(given)
