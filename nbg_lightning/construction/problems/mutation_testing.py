"""Selection and evaluation of a program's tests by the mutants they kill.

A test kills a mutant that fails it while the program passes; otherwise the mutant survives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from nbg_lightning.construction.problems.calls import (
    CallOutcome,
    as_test,
    calls_in,
    differs,
    is_fair,
    run_calls,
    varied_calls,
)
from nbg_lightning.construction.problems.given_code import Program
from nbg_lightning.construction.problems.mutants import Mutant
from nbg_lightning.construction.store import JsonRecord

if TYPE_CHECKING:
    from nbg_lightning.scoring.sandbox.sandbox import Sandbox, SandboxResult


@dataclass(frozen=True)
class MutationTester:
    """Selects and evaluates tests in an open sandbox.

    Attributes:
        sandbox: runs the programs.
        num_calls: number of calls tried per program and generation.
        generations: number of times that calls which kill mutants are varied, to kill surviving ones.
        minimum_tests: number of tests chosen even if they kill no further mutants.
        maximum_tests: maximum number of tests per program.
        public_tests: number of public tests.
        timeout: seconds for all tests of the program.
        mutant_timeout: the same for mutants, which may loop forever.
        seed: seed of the variations.
    """

    sandbox: Sandbox
    num_calls: int
    generations: int
    minimum_tests: int
    maximum_tests: int
    public_tests: int
    timeout: float
    mutant_timeout: float
    seed: int

    def usable_calls(self, program: Program, known: list[str]) -> dict[str, CallOutcome]:
        """Calls that can be made into tests, with their outcomes: the known ones, and variations of working calls."""
        vary = partial(varied_calls, program.source, program.name)
        calls = known or vary([], self.num_calls, self.seed)
        [outcomes] = run_calls(self.sandbox, [program.source], program.name, calls)
        working = [call for call, outcome in zip(calls, outcomes, strict=True) if outcome[0] == "value"]
        if working:
            calls = [*working, *vary(working, max(0, self.num_calls - len(working)), self.seed)]
        return self._usable(program, calls)

    def _usable(self, program: Program, calls: Sequence[str]) -> dict[str, CallOutcome]:
        """Calls with the same outcome in two runs that can be made into tests."""
        first, second = run_calls(self.sandbox, [program.source] * 2, program.name, calls)
        return {call: one for call, one, two in zip(calls, first, second, strict=True) if one == two and is_fair(one)}

    def choose(
        self, program: Program, usable: dict[str, CallOutcome], mutants: Sequence[Mutant]
    ) -> tuple[list[str], list[str]]:
        """Choose tests one by one, each killing the most mutants that no earlier one kills.

        Args:
            program: the program; tests that came with it are chosen first.
            usable: calls with their outcomes; extended by variations that kill mutants.
            mutants: mutants of the program.

        Returns:
            All tests, and the public ones among them.
        """
        given = [test for test in program.tests if test.startswith("assert ")][: self.maximum_tests]
        covered = {call for test in given for call in calls_in(test, program.name)}
        kills = self._kills(program, usable, mutants)
        alive = set(range(len(mutants))).difference(*(kills[call] for call in kills if call in covered))
        left = [call for call in kills if call not in covered]
        chosen: list[str] = []
        seen: set[CallOutcome] = set()
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

    def _kills(
        self, program: Program, usable: dict[str, CallOutcome], mutants: Sequence[Mutant]
    ) -> dict[str, set[int]]:
        """Indices of the mutants that each call kills; ``usable`` is extended by variations of calls that kill some.

        Each generation runs only on the mutants that survived all calls so far.
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
            killing = [call for call in kills if kills[call] and usable[call][0] == "value"]
            if not alive or not killing or generation + 1 == self.generations:
                break
            new = varied_calls(program.source, program.name, killing, self.num_calls, self.seed + generation + 1)
            fresh = [call for call in new if call not in usable]
            more = self._usable(program, fresh)
            usable |= more
            fresh = list(more)
            if not fresh:
                break
        return kills

    def passes(self, program: Program, tests: list[str]) -> SandboxResult:
        """Run the tests on the program itself with the coding reward's judge."""
        [result] = self.sandbox.check_many([_check(program, program.source, tests, self.timeout)])
        return result

    def measure(self, program: Program, tests: list[str], public: list[str], mutants: Sequence[Mutant]) -> JsonRecord:
        """Run the tests on every mutant with the coding reward's judge."""

        def judged(which: list[str]) -> list[str]:
            if not which:
                return ["ok"] * len(mutants)
            checks = [_check(program, mutant.source, which, self.mutant_timeout) for mutant in mutants]
            results = self.sandbox.check_many(checks)
            if wrong := next((result for result in results if result.status == "error"), None):
                raise RuntimeError(f"sandbox is invalid: {wrong.detail}; see `nbg_lightning.rewards.Sandbox.probe`")
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


def _check(program: Program, source: str, tests: list[str], timeout: float) -> JsonRecord:
    return {"solution": source, "tests": tests, "entry_point": program.name, "timeout": timeout}
