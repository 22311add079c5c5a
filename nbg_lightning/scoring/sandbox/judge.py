"""The judge: runs tests whose calls are executed by the program in another process, and reports the verdict."""

from __future__ import annotations

import _ast
import builtins
import select
import sys

from nbg_lightning.scoring.sandbox.codec import decode, read_frame, write_frame
from nbg_lightning.scoring.sandbox.guard import Guard, constants, names, redirect
from nbg_lightning.scoring.sandbox.handles import TESTS, Handle, is_module, number_of
from nbg_lightning.scoring.sandbox.link import BadTest, Link, ProgramGone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    JudgeVerdict = tuple[str, str]

# Modules that a test may use because the program imported them: resolved here, where the program cannot change them.
OWN_MODULES = frozenset(
    ("bisect", "cmath", "collections", "copy", "datetime", "decimal", "fractions", "functools", "heapq", "itertools", "json")
    + ("math", "numpy", "operator", "random", "re", "statistics", "string", "typing")
)  # fmt: skip


class Namespace(dict):  # type: ignore[type-arg]  # names of anything
    """The globals of the tests: their own, the builtins, and the program's."""

    def __init__(self, link: Link, own_builtins: dict[str, Any], entry_points: Sequence[str]):
        super().__init__(__name__="__main__", __builtins__=own_builtins)
        self.link, self.entry_points = link, frozenset(entry_points)

    def __missing__(self, name: str) -> Any:
        if name not in self.entry_points and hasattr(builtins, name):
            raise KeyError(name)  # never the program's, which may have redefined `abs`
        value = self.program(name)
        if is_module(value) and name in OWN_MODULES:
            value = __import__(name)
        if type(value) is Handle or isinstance(value, type) or type(value) is type(sys):
            self[name] = value  # others may change
        return value

    def program(self, name: str) -> Any:
        """A global of the program.

        Raises:
            NameError: it does not exist.
        """
        try:
            return self.link.ask("get", name)
        except KeyError:
            raise NameError(f"name {name!r} is not defined") from None

    def imported(self, name: str) -> Any:
        """Look up a name for ``from solution import name``."""
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]


class Tests:
    """The tests, compiled before the program starts.

    Raises:
        ImportError: a top-level import is not available in the sandbox.
        SyntaxError, ValueError, RecursionError, MemoryError: a test does not compile.
    """

    def __init__(self, setup: str, tests: Sequence[str]):
        self.setup = compile(setup, f"{TESTS}setup", "exec", dont_inherit=True)
        self.codes = [
            compile(test, f"{TESTS}{index}", "exec", dont_inherit=True) for index, test in enumerate(tests, start=1)
        ]
        for text in (setup, *tests):
            _import_for(text)
        whole = (self.setup, *self.codes)
        self.authored = frozenset(text for code in whole for text in constants(code))
        self.names = frozenset(name for code in whole for name in names(code))


def judge_calls(job: dict[str, Any], secret: dict[str, Any], reader: int, writer: int) -> JudgeVerdict:
    """Run the tests in this process; their calls go to the program."""
    try:
        tests = Tests(secret["setup"], secret["tests"])
    except ImportError as error:
        return "error", f"the tests import what the sandbox has not ({error}): name it in packages"
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return "error", f"a test does not compile ({_short(error)})"
    link = Link(reader, writer, tests.names)
    guard = Guard(link, tests.authored)
    redirect(link)
    guard.arm()
    try:
        link.ask("load", None)
    except ProgramGone as gone:
        return "gone", f"the program does not load ({gone})"
    except BaseException as error:
        return "failed", f"the program does not load ({_short(error)})"
    namespace = Namespace(link, guard.builtins(), job["entry_points"])
    module = type(sys)("solution")  # for tests that import it
    module.__dict__.update(__getattr__=namespace.imported, __all__=[])
    sys.modules["solution"] = module
    return _Run(tests, namespace, job["entry_points"], secret["own_operators"]).verdict()


class _Run:
    def __init__(self, tests: Tests, namespace: Namespace, entry_points: Sequence[str], own_operators: Sequence[str]):
        self.tests, self.namespace = tests, namespace
        self.entry_points, self.own_operators = entry_points, own_operators
        self.where = "the setup of the tests"

    def verdict(self) -> JudgeVerdict:
        link = self.namespace.link
        before = link.asked
        try:
            self._run()
        except BadTest as error:
            return "error", f"{self.where}: {error}"
        except ProgramGone as gone:
            return "gone", f"{self.where}: {gone}"
        except BaseException as error:
            return "failed", f"{self.where}: {_short(error)}"
        if link.asked == before:
            return "error", "the tests do not use the program: any would pass them"
        return "ok", ""

    def _run(self) -> None:
        exec(self.tests.setup, self.namespace)
        for name in self.entry_points:
            dict.pop(self.namespace, name, None)  # a stub defined by the setup
        for name in self.own_operators:
            self.namespace.link.trusted.add(number_of(self.namespace.program(name)))
        self.namespace.link.asked -= len(self.own_operators)
        for index, code in enumerate(self.tests.codes, start=1):
            self.where, known = f"test {index}", set(self.namespace)
            exec(code, self.namespace)
            for name in [name for name in self.namespace if name not in known]:
                self._call(index, name, self.namespace[name])

    def _call(self, index: int, name: str, found: Any) -> None:
        """Run a function defined by a test."""
        function: Any = type(_short)
        if isinstance(found, function):
            if name == "check" and self.entry_points:
                found(self.namespace.program(self.entry_points[0]))
            elif name.startswith("test"):
                self.where = f"test {index}, {name}"
                _finish(found())
        elif isinstance(found, type) and found.__module__ == "__main__":
            self.where = f"test {index}, {name}"
            if "unittest" in sys.modules and issubclass(found, sys.modules["unittest"].TestCase):
                _run_test_case(found)
            elif name.startswith("Test"):
                for method in [each for each in vars(found) if each.startswith("test")]:
                    _finish(getattr(found(), method)())


def _finish(result: Any) -> None:
    if hasattr(result, "__await__"):
        import asyncio

        async def finished() -> None:
            await result

        asyncio.run(finished())


def _run_test_case(kind: Any) -> None:
    unittest: Any = sys.modules["unittest"]
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(kind).run(result)
    if not result.wasSuccessful():
        wrong = [*result.failures, *result.errors]
        lines = wrong[0][1].strip().splitlines() if wrong else []
        raise AssertionError(lines[-1] if lines else "a test that should fail passes")


def _import_for(test: str) -> None:
    """Perform a test's imports before the program starts: missing modules are not the program's fault."""
    tree: Any = compile(test, "test", "exec", _ast.PyCF_ONLY_AST)
    for statement in tree.body:
        for name in _imported(statement):
            __import__(name)
    for name in {name for statement in _inner(tree.body) for name in _imported(statement)}:
        try:
            __import__(name)
        except ImportError:
            continue


def _imported(statement: Any) -> Iterable[str]:
    found = [name.name for name in statement.names] if isinstance(statement, _ast.Import) else []
    if isinstance(statement, _ast.ImportFrom) and not statement.level:
        found.append(str(statement.module))
    return [name for name in found if name.split(".")[0] not in ("solution", "__main__")]


def _inner(statements: Iterable[Any]) -> Iterable[Any]:
    """The statements nested inside of others."""
    for statement in statements:
        for field in ("body", "orelse", "finalbody", "handlers"):
            inner = getattr(statement, field, None)
            if isinstance(inner, list):
                yield from inner
                yield from _inner(inner)


def _short(error: BaseException) -> str:
    """An error in one line of printable characters."""
    try:
        lines = f"{type(error).__name__}: {error}".strip().splitlines()
    except BaseException:  # its text belongs to the program, which has ended
        lines = [type(error).__name__]
    return "".join(character if character.isprintable() else "?" for character in lines[0][:300])


# -- tests by output ---------------------------------------------------------------------------------------------------


def plain_output(text: str) -> list[str]:
    """The compared form of a program's output: its lines, without trailing spaces and trailing empty lines."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


def same_output(text: str, expected: str, decimals: bool) -> bool:
    """Whether two outputs are equal, see `Sandbox.check_outputs`."""
    if not decimals:
        return plain_output(text) == plain_output(expected)
    lines = [[line.strip() for line in each.strip().split("\n")] for each in (text, expected)]
    return len(lines[0]) == len(lines[1]) and all(a == b or _same_decimals(a, b) for a, b in zip(*lines, strict=True))


def _same_decimals(line: str, expected: str) -> bool:
    from decimal import Decimal, InvalidOperation  # most programs are judged without it

    try:
        found, wanted = ([Decimal(word) for word in each.split()] for each in (line, expected))
        return found == wanted
    except InvalidOperation:  # also for a signalling NaN
        return False


def judge_outputs(secret: dict[str, Any], reader: int, writer: int) -> JudgeVerdict:
    """Compare the program's output for each input with the expected one."""
    for index, (given, expected) in enumerate(secret["cases"], start=1):
        try:
            write_frame(writer, given.encode("utf-8", "surrogatepass"))
            if not select.select([reader], [], [], secret["seconds"])[0]:
                return "timeout", f"case {index}: no end within {secret['seconds']:g} s"
            code, output = decode(read_frame(reader))
            if type(code) not in (int, str) or type(output) is not bytes:
                raise ValueError("no output")
        except (EOFError, OSError):
            return "gone", f"case {index}: the program ended"
        except (ValueError, TypeError):
            return "failed", f"case {index}: the program's answer is malformed"
        if code == "output":
            return "killed", f"case {index}: too much output"
        if code != 0:
            return "failed", f"case {index}: exit code {code}"
        if not same_output(output.decode("utf-8", "replace"), expected, secret["decimals"]):
            return "failed", f"case {index}: another output"
    return "ok", ""
