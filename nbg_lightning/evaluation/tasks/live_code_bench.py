"""LiveCodeBench: problems of programming contests with hidden tests, by date (Jain et al. 2024, arXiv 2403.07974)."""

from __future__ import annotations

import base64
import io
import json
import pickle
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from itertools import chain
from typing import Any, ClassVar

from nbg_lightning.evaluation.benchmark import HubName, Item
from nbg_lightning.evaluation.rows import Row, file_rows, hub_file
from nbg_lightning.evaluation.tasks.code import Programs
from nbg_lightning.scoring.programs import extract_program
from nbg_lightning.scoring.sandbox.sandbox import SandboxResult

_RELEASES = 6
MAX_TESTS = 512 << 20  # bytes of an item's hidden tests, unpacked
LONGEST = 60.0  # seconds for all tests of a function
# What contests' sites import before a solution; starter code uses its names.
_PRELUDE = """import bisect, collections, functools, heapq, itertools, math, operator, random, re, string, sys
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
from typing import *
sys.setrecursionlimit(50_000)
"""
_LISTED = """def _listed(value):
    return [_listed(each) for each in value] if isinstance(value, (list, tuple)) else value
"""


@dataclass(kw_only=True)
class LiveCodeBench(Programs):
    """Code generation. Tests are inputs with expected outputs, or calls of a method of ``Solution``; all of them must pass.

    Each difficulty is a category. Outputs are compared line by line, numbers by their decimal value. ``path`` is a
    JSON-lines file, or a folder with ``test.jsonl`` to ``test6.jsonl``, of ``livecodebench/code_generation_lite``. Answers
    run with the standard library only.

    Args:
        release: include problems up to this release (1 to 6).
        since: first contest date, such as ``2025-02-01``.
        until: last contest date.
    """

    release: int = _RELEASES
    since: str | None = None
    until: str | None = None
    timeout: float = 6.0
    memory: int = 4096

    label: ClassVar[str] = "live_code_bench"
    licence: ClassVar[str] = "CC; its problems belong to their contests' sites"
    hub: ClassVar[HubName | None] = HubName("livecodebench/code_generation_lite")
    file_names: ClassVar[tuple[str, ...]] = ("test",)
    stop_texts: ClassVar[tuple[str, ...]] = ("\n```",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.release <= _RELEASES:
            raise ValueError(f"{self.name}: release is invalid: {self.release}; give 1 to {_RELEASES}")
        self._days = tuple(None if day is None else self._day(day) for day in (self.since, self.until))

    def _day(self, text: str) -> date:
        try:
            return date.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{self.name}: the date {text!r:.40} is invalid; write it as 2025-02-01") from None

    def _rows(self) -> tuple[str, Iterator[tuple[str, Row]]]:
        names = ["test.jsonl", *(f"test{number}.jsonl" for number in range(2, self.release + 1))]
        if self.path is not None:
            file, rows = file_rows(self.path, self.file_names)
            others = [
                other for name in names[1:] if file.name == names[0] and (other := file.with_name(name)).is_file()
            ]
            rows = chain(rows, *(file_rows(other)[1] for other in others))
            return str(file), (row for row in rows if self._in_time(row[1]))
        assert self.hub is not None
        files = [hub_file(self.hub.name, name) for name in names]
        return f"hub {self.hub.name}", (row for file in files for row in file_rows(file)[1] if self._in_time(row[1]))

    def _in_time(self, row: Row) -> bool:
        first, last = self._days
        try:
            day = date.fromisoformat(str(row["contest_date"])[:10])
        except (KeyError, ValueError):
            return True  # malformed: `parse` says so
        return (first is None or first <= day) and (last is None or day <= last)

    def parse(self, row: Row, place: str) -> Item:
        date.fromisoformat(str(row["contest_date"])[:10])
        tests = [*json.loads(row["public_test_cases"]), *hidden_tests(row["private_test_cases"])]
        if not tests:
            raise ValueError("it has no tests")
        kinds = {test["testtype"] for test in tests}
        if kinds not in ({"stdin"}, {"functional"}):
            raise ValueError(f"its tests are of the kinds {', '.join(sorted(map(str, kinds)))[:60]}")
        metadata = row.get("metadata") or {}
        function = (json.loads(metadata) if isinstance(metadata, str) else metadata).get("func_name")
        if kinds == {"functional"} and not (isinstance(function, str) and function.isidentifier()):
            raise ValueError(f"its function's name is invalid: {str(function)[:40]!r}")
        data = {
            "cases": [(test["input"], test["output"]) for test in tests],
            "function": function if kinds == {"functional"} else None,
            "starter": row.get("starter_code") or "",
        }
        identity = str(row.get("question_id", place))
        return Item(identity, row["question_content"].strip(), category=row.get("difficulty"), data=data)

    def message(self, item: Item) -> str:
        if item.data["function"] is None:
            how = "Read the input from stdin and write the answer to stdout. Put the whole program in one ```python block."
            return f"{item.question}\n\n{how}"
        starter = f"```python\n{item.data['starter'].rstrip()}\n```"
        return f"{item.question}\n\nComplete this code. Put all of it in one ```python block.\n{starter}"

    def text(self, item: Item) -> str:
        return f"{self.message(item)}\n\n```python"

    def program(self, item: Item, text: str) -> str | None:
        entry = () if item.data["function"] is None else ("Solution",)
        found = extract_program(text, unfenced=True, entry_points=entry)
        return None if found is None else f"{_PRELUDE}\n{found}"

    def arguments(self, item: Item) -> dict[str, Any]:
        return {"cases": item.data["cases"], "function": item.data["function"]}

    def check_program(self, arguments: dict[str, Any]) -> SandboxResult:
        solution, cases, function = arguments["solution"], arguments["cases"], arguments["function"]
        if function is None:
            return self._sandbox.check_outputs(solution, cases, decimals=True)
        tests = [_call(function, given, expected) for given, expected in cases]
        seconds = min(LONGEST, self.timeout * len(tests))
        return self._sandbox.check(solution, tests, "Solution", setup=_LISTED, timeout=seconds)


def _call(function: str, given: str, expected: str) -> str:
    """A test of a method: its arguments are lines of JSON, and so is what it must return."""
    arguments = ", ".join(repr(json.loads(line)) for line in given.split("\n"))
    return f"assert _listed(Solution().{function}({arguments})) == {json.loads(expected)!r}"


class _Text(pickle.Unpickler):
    """Reads a pickled text, which needs no class."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def hidden_tests(packed: str) -> list[dict[str, Any]]:
    """Hidden tests of an item: JSON, or base64 of zlib of a pickled JSON text. No class is unpickled.

    Raises:
        ValueError: it is something else, or larger than `MAX_TESTS`.
    """
    try:
        found = json.loads(packed)
    except ValueError:
        try:
            unpacker = zlib.decompressobj()
            whole = unpacker.decompress(base64.b64decode(packed, validate=True), MAX_TESTS)
            if unpacker.unconsumed_tail or not unpacker.eof:
                raise ValueError(f"it is torn, or larger than {MAX_TESTS >> 20} MiB")
            found = json.loads(_Text(io.BytesIO(whole)).load())
        except Exception as error:  # a damaged pickle raises many kinds
            raise ValueError(f"its hidden tests cannot be read ({type(error).__name__}: {error})"[:300]) from None
    if not isinstance(found, list):
        raise ValueError(f"its hidden tests are a {type(found).__name__}, not a list")
    return found
