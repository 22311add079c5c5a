"""Prevents the judge from evaluating, importing or loading anything chosen by the program.

There are two layers. Tests get replacements of `eval`, `exec` and `compile`: texts that occur in the tests are evaluated here,
literals are parsed as literals, and every other text goes to the program's process. Below that, an audit hook, which cannot be
removed, refuses to turn anything else into code, whoever asks for it.
"""

from __future__ import annotations

import builtins
import sys

from nbg_lightning.scoring.sandbox.handles import TESTS, Derived, Handle, OwnError, handle_of
from nbg_lightning.scoring.sandbox.link import Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

# Library functions that inspect objects: those of the program are inspected in its process.
REDIRECTED = {
    "inspect": ("signature", "getfullargspec", "getdoc", "getsource", "getmembers", "isfunction", "isclass", "ismethod")
    + ("isgenerator", "isgeneratorfunction", "iscoroutine", "iscoroutinefunction", "isasyncgen", "isasyncgenfunction")
    + ("isawaitable", "isabstract", "isroutine", "ismodule", "isbuiltin", "getmro"),
    "dataclasses": ("fields", "asdict", "astuple", "is_dataclass", "replace"),
    "typing": ("get_type_hints", "get_origin", "get_args"),
    "asyncio": ("run", "iscoroutine", "iscoroutinefunction"),
    "types": ("get_original_bases",),
}
_LOADERS = ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>", "<frozen zipimport>")
_TEMPLATES = (
    "collections/__init__.py",
    "dataclasses.py",
    "ast.py",
)  # they compile texts with validated names, or only parse
_PICKLES = frozenset(  # classes that a pickle may name
    (("datetime", "date"), ("datetime", "datetime"), ("datetime", "time"), ("datetime", "timedelta"))
    + (("datetime", "timezone"), ("decimal", "Decimal"), ("fractions", "Fraction"), ("collections", "OrderedDict"))
    + (("collections", "deque"), ("collections", "Counter"), ("builtins", "set"), ("builtins", "frozenset"))
    + (
        ("builtins", "complex"),
        ("builtins", "bytearray"),
        ("builtins", "range"),
        ("builtins", "slice"),
        ("uuid", "UUID"),
    )
)
_REFUSED = frozenset(
    ("code.__new__", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn")
    + ("subprocess.Popen", "sys.addaudithook", "mmap.__new__", "pickle.find_class", "marshal.load", "marshal.loads")
)  # fmt: skip


class Refused(BaseException):
    """Something from the program would have been evaluated in the judge."""


def constants(code: Any) -> Iterable[str]:
    """The string constants in the tests' code."""
    for each in code.co_consts:
        if type(each) is str:
            yield each
        elif isinstance(each, type(code)):
            yield from constants(each)


def names(code: Any) -> Iterable[str]:
    """The names used by the tests' code."""
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, type(code)):
            yield from names(each)


class Guard:
    """The rules for one set of tests.

    Args:
        link: sends requests to the program.
        authored: string constants in the tests.
    """

    def __init__(self, link: Link, authored: frozenset[str]):
        self.link, self.authored = link, frozenset(text.strip() for text in authored)
        self.roots = tuple(place for place in sys.path if place)
        self.path = list(sys.path)
        self.library = tuple(f"{root}/" for root in self.roots)
        self.templates = tuple(root + name for root in self.library for name in _TEMPLATES)
        self.checks: dict[str, Callable[..., None]] = {
            "compile": self._compiles,
            "import": self._imports,
            "open": self._opens,
            "pickle.find_class": self._unpickles,
            "marshal.loads": self._unmarshals,
        }

    def arm(self) -> None:
        """Enforce the rules from here on, irrevocably."""
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        check = self.checks.get(event)
        if check is not None:
            check(sys._getframe(1), *arguments)
        elif event in _REFUSED or event.startswith(("ctypes.", "cpython.")):
            raise Refused(f"the tests would have the judge do {event}")

    def _compiles(self, frame: Any, source: Any, place: Any) -> None:
        """All code in the judge is created here, by imports of installed modules, or earlier."""
        if self._is_authored(source) or frame.f_code.co_filename in self.templates or _loads(frame):
            return
        raise Refused("the judge would evaluate a text that does not stand in the tests")

    def _is_authored(self, source: Any) -> bool:
        if type(source) is bytes:  # as passed to the parser
            source = source.decode("utf-8", "surrogatepass")
        return type(source) is str and source.strip() in self.authored

    def _imports(self, frame: Any, module: str, place: Any = None, *rest: Any) -> None:
        if sys.path != self.path:
            sys.path[:] = self.path
        if place and not str(place).startswith(self.library):
            raise Refused("the judge would load a library that is not installed")

    def _opens(self, frame: Any, place: Any, *rest: Any) -> None:
        if frame.f_code.co_filename in _LOADERS and not str(place).startswith(self.library):
            raise Refused("the judge would import a file of the program")

    def _unpickles(self, frame: Any, module: Any, name: Any) -> None:
        if (module, name) not in _PICKLES:
            raise Refused(f"the judge would unpickle {module}.{name}")

    def _unmarshals(self, frame: Any, *rest: Any) -> None:
        if frame.f_code.co_filename not in _LOADERS:
            raise Refused("the judge would make code of bytes")

    # -- replacements of builtins in tests ---------------------------------------------------------------------------------

    def builtins(self) -> dict[str, Any]:
        """The builtins of the tests."""
        own = {"eval": self._eval, "exec": self._exec, "compile": self._compile}
        asks = {
            "isinstance": self._is_instance,
            "issubclass": self._is_subclass,
            "callable": _of_program(self.link, "callable", builtins.callable),
            "vars": _of_program(self.link, "vars", builtins.vars),
        }
        return {**vars(builtins), **own, **asks}

    def _eval(self, source: Any, names: Any = None, local: Any = None, /) -> Any:
        if self._is_ours(source):
            caller = sys._getframe(1)
            names, local = _scope(caller, names, local)
            return builtins.eval(self._ours(source, "eval"), names, local)
        if type(source) is str:
            import ast

            try:
                return ast.literal_eval(source.strip())
            except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                pass
        return self.link.ask("evaluate", _text(source), _given(names, local))

    def _exec(self, source: Any, names: Any = None, local: Any = None, /) -> None:
        if self._is_ours(source):
            caller = sys._getframe(1)
            names, local = _scope(caller, names, local)
            builtins.exec(self._ours(source, "exec"), names, local)
            return
        self.link.ask("execute", _text(source), _given(names, local))

    def _compile(self, source: Any, filename: Any, mode: Any, *rest: Any, **others: Any) -> Any:
        if self._is_ours(source):
            others.setdefault("dont_inherit", True)
            return builtins.compile(source, TESTS + "compiled", mode, *rest[:1], **others)
        return self.link.ask("library", "builtins", "compile", _text(source), "<string>", mode)

    def _is_ours(self, source: Any) -> bool:
        return self._is_authored(source) or getattr(type(source), "__name__", "") == "code"

    def _ours(self, source: Any, mode: str) -> Any:
        return builtins.compile(source, TESTS + "compiled", mode, dont_inherit=True) if type(source) is str else source

    def _is_instance(self, value: Any, kinds: Any, /) -> bool:
        if builtins.isinstance(value, kinds):
            return True
        if not builtins.isinstance(value, (Handle, Derived, OwnError)) or builtins.isinstance(kinds, Handle):
            return False
        return self._asks("is_instance", kinds, value)

    def _is_subclass(self, value: Any, kinds: Any, /) -> bool:
        if type(value) is not Handle:
            return builtins.issubclass(value, kinds)
        return self._asks("is_subclass", kinds, value)

    def _asks(self, operation: str, kinds: Any, value: Any) -> bool:
        each = kinds if type(kinds) is tuple else (kinds,)
        there = [kind for kind in each if getattr(kind, "__module__", None) != "__main__"]  # not the tests' classes
        return any(self.link.ask(operation, kind, value) is True for kind in there)


def _loads(frame: Any) -> bool:
    """Whether a module is being imported, whose own texts are evaluated."""
    while frame is not None and not frame.f_code.co_filename.startswith(TESTS):
        if frame.f_code.co_filename in _LOADERS:
            return True
        frame = frame.f_back
    return False


def _of_program(link: Link, operation: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def function(*arguments: Any) -> Any:
        if len(arguments) == 1 and type(arguments[0]) is Handle:
            return link.ask(operation, arguments[0])
        return original(*arguments)

    return function


def _text(source: Any) -> Any:
    return str.__str__(source) if isinstance(source, str) else source


def _scope(caller: Any, names: Any, local: Any) -> tuple[Any, Any]:
    if names is None:
        return caller.f_globals, caller.f_locals if local is None else local
    return names, names if local is None else local


def _given(names: Any, local: Any) -> Any:
    """The names that a test passes to a text, to be changed in place; without the builtins, and None if there are none."""
    if names is not None and type(names) is not dict:
        names = None
    return local if type(local) is dict else names


def redirect(link: Link) -> None:
    """Make the functions of `REDIRECTED` query the program about its objects, in imported modules."""
    for module, functions in REDIRECTED.items():
        imported = sys.modules.get(module)
        for name in functions if imported is not None else ():
            original = getattr(imported, name, None)
            if original is not None:
                setattr(imported, name, _redirected(link, module, name, original))


def _redirected(link: Link, module: str, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def function(*arguments: Any, **keywords: Any) -> Any:
        if not any(handle_of(each) is not None for each in arguments):
            return original(*arguments, **keywords)
        return link.ask("library", module, name, *arguments, **keywords)

    function.__name__ = function.__qualname__ = name
    return function
