"""Proxies of the program's objects in the tests: every operation is executed in the program's process.

There are two kinds. A `Handle` has no data here. A `Derived` value, whose class derives from an immutable plain type (a named
tuple, a member of an ``IntEnum``), is that data, with the operators of its type; anything else is requested from the program.

Library functions see a handle as an opaque object: special attributes, with which Python and numpy ask objects for
annotations, code, memory or pickles, are served only to test code that names them.
"""

from __future__ import annotations

import operator
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any, Protocol

    class AskedOf(Protocol):
        """What a handle uses of `nbg_lightning.scoring.sandbox.link.Link`."""

        trusted: set[int]

        def ask(self, operation: str, target: Any, /, *arguments: Any, **keywords: Any) -> Any: ...

        def made(self, error: Any) -> Handle: ...


TESTS = "<tests> "  # prefix of file names for the tests' code
NEVER = frozenset(  # attributes that would let the program make the judge read memory or create objects
    ("__array__", "__array_interface__", "__array_struct__", "__array_ufunc__", "__array_function__", "__buffer__")
    + ("__dlpack__", "__dlpack_device__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__copy__")
    + ("__deepcopy__", "__getnewargs__", "__getnewargs_ex__", "__fspath__", "__cuda_array_interface__")
)  # fmt: skip


def is_served(name: str, depth: int = 2) -> bool:
    """Whether an attribute may be requested from the program: a special one only by test code that names it."""
    if not (name.startswith("__") and name.endswith("__")):
        return True
    code = sys._getframe(depth).f_code
    named = name in code.co_names or name in code.co_consts
    return named and code.co_filename.startswith(TESTS) and name not in NEVER


class NotCopied(TypeError):
    """Something containing an object of the program should have been sent as a copy."""


class Handle:
    """A proxy of an object of the program.

    Operators between two objects of the program are left to the program. Between an object of the program and a value of the
    tests they are not trusted, unless the tests declare so for its class: an object could claim to equal whatever it is compared
    with. Objects of classes derived from list, dict or set are compared by their items.
    """

    __slots__ = ("_Handle__base", "_Handle__kind", "_Handle__link", "_Handle__name", "_Handle__number")

    def __init__(self, link: AskedOf, number: int, kind: int, name: str, base: str):
        for slot, value in (("link", link), ("number", number), ("kind", kind), ("name", name), ("base", base)):
            object.__setattr__(self, f"_Handle__{slot}", value)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_Handle__") and not sys._getframe(1).f_code.co_filename.startswith(TESTS):
            return object.__getattribute__(self, name)
        if name == "__class__" and not is_served(name):
            return _KINDS.get(self.__base) or Handle
        if not is_served(name):
            if name in _OPERATORS:
                return object.__getattribute__(self, name)
            raise AttributeError(f"{self.__name!r} object of the program: {name} is not asked of it")
        return self.__link.ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__link.ask("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        self.__link.ask("delattr", self, name)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.__link.ask("call", self, *arguments, **keywords)

    def __instancecheck__(self, value: Any) -> bool:
        return self.__link.ask("is_instance", self, value) is True

    def __subclasscheck__(self, value: Any) -> bool:
        return self.__link.ask("is_subclass", self, value) is True

    def __eq__(self, other: Any) -> Any:
        if isinstance(other, Handle) and other.__number == self.__number:
            return True
        if self.__believed(other):
            return self.__link.ask("eq", self, other)
        return bool(self.__base) and self.__link.ask("snapshot", self) == other

    def __ne__(self, other: Any) -> Any:
        return self.__link.ask("ne", self, other) if self.__believed(other) else not self == other

    def __enter__(self) -> Any:
        return self.__method("__enter__")

    def __exit__(self, kind: Any, error: Any, trace: Any) -> Any:
        """Leave the context; assertions of the tests propagate whatever the program returns."""
        hides = self.__method("__exit__", kind, error, None)
        return hides if kind is not None and not issubclass(kind, AssertionError) else False

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.__link.ask("await_", self)
        yield  # a generator that ends at once: the program's process waits

    async def __aenter__(self) -> Any:
        return await self.__method("__aenter__")

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> Any:
        hides = await self.__method("__aexit__", kind, error, None)
        return hides if kind is not None and not issubclass(kind, AssertionError) else False

    def __aiter__(self) -> Any:
        return self.__method("__aiter__")

    async def __anext__(self) -> Any:
        return self.__link.ask("anext", self)

    def __copy__(self) -> Any:
        return self.__link.ask("library", "copy", "copy", self)

    def __deepcopy__(self, memo: Any) -> Any:
        return self.__link.ask("library", "copy", "deepcopy", self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise NotCopied("an object of the program cannot be pickled")

    def __method(self, name: str, *arguments: Any) -> Any:
        return self.__link.ask("call", self.__link.ask("getattr", self, name), *arguments)

    def __believed(self, other: Any) -> bool:
        return isinstance(other, Handle) or self.__kind in self.__link.trusted

    def __operated(self, operation: str, other: Any) -> Any:
        if self.__believed(other):
            return self.__link.ask(operation, self, other)
        if self.__base:
            return getattr(operator, operation)(self.__link.ask("snapshot", self), other)
        raise TypeError(
            f"the program gives a {self.__name} of its own, and its operators are not believed with other values: {operation}"
        )

    def __reflected(self, operation: str, other: Any) -> Any:
        if self.__believed(other):
            return self.__link.ask("reflected", self, operation, other)
        if self.__base:
            return getattr(operator, operation)(other, self.__link.ask("snapshot", self))
        return self.__operated(operation, other)


def number_of(handle: Handle) -> int:
    """The number of the object in the program's process."""
    return object.__getattribute__(handle, "_Handle__number")


def is_module(handle: Any) -> bool:
    return type(handle) is Handle and object.__getattribute__(handle, "_Handle__name") == "module"


_KINDS: dict[str, type] = {"list": list, "dict": dict, "set": set, "bytearray": bytearray}
_ARITHMETIC = (
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and_",
    "or_",
    "xor",
    "lshift",
    "rshift",
)
_COMPARING = ("lt", "le", "gt", "ge", "contains")
_ASKED = (
    ("neg", "pos", "invert", "abs", "round", "float", "int", "complex", "index", "bool", "str", "repr", "hash", "bytes")
    + ("len", "iter", "next", "getitem", "setitem", "delitem", "format", "reversed", "dir")
)  # fmt: skip


def _between(method: str, operation: str) -> Callable[..., Any]:
    def operated(self: Any, other: Any) -> Any:
        return object.__getattribute__(self, f"_Handle__{method}")(operation, other)

    return operated


def _asked(operation: str) -> Callable[..., Any]:
    def asked(self: Any, *arguments: Any) -> Any:
        return self._Handle__link.ask(operation, self, *arguments)

    return asked


for _name in (*_ARITHMETIC, *_COMPARING):
    setattr(Handle, f"__{_name.rstrip('_')}__", _between("operated", _name))
for _name in _ARITHMETIC:
    setattr(Handle, f"__r{_name.rstrip('_')}__", _between("reflected", _name))
for _name in _ASKED:
    setattr(Handle, f"__{_name}__", _asked(_name))
_OPERATORS = frozenset(vars(Handle)) - {"__doc__", "__module__", "__init__", "__slots__"}  # library code may use these


class Derived:
    """Data of an immutable type, whose class in the program has more than the type."""

    _handle: Handle  # of the object itself

    def __getattr__(self, name: str) -> Any:
        if not is_served(name):
            raise AttributeError(name)
        handle = self.__dict__["_handle"]
        return handle._Handle__link.ask("getattr", handle, name)


_DERIVED: dict[type, type] = {
    base: type(f"Derived{base.__name__.title()}", (Derived, base), {"__module__": __name__})
    for base in (int, float, complex, str, bytes, tuple, frozenset)
}


def derived(value: Any, handle: Handle) -> Any:
    """The value combined with its object in the program.

    Raises:
        ValueError: a value of a mutable type.
    """
    kind = _DERIVED.get(type(value))
    if kind is None:
        raise ValueError(f"a {type(value).__name__} with a class of its own")
    made = kind(value)
    made.__dict__["_handle"] = handle
    return made


def handle_of(value: Any) -> Handle | None:
    """The handle of an object of the program; None for anything else."""
    if type(value) is Handle:
        return value
    return value.__dict__.get("_handle") if isinstance(value, (Derived, OwnError)) else None


class ProgramError(Exception):
    """An exception of the program, of a kind known only to the program."""


class OwnError:
    """Base of the classes that stand for the program's exceptions."""

    _handle: Handle | None = None
    _class: Handle
    _text: str | None = None

    def __getattr__(self, name: str) -> Any:
        if not is_served(name):
            raise AttributeError(name)
        handle: Any = self._itself()
        return handle._Handle__link.ask("getattr", handle, name)

    def __str__(self) -> str:
        if self._text is None:
            return str(self._itself())
        return self._text

    def _itself(self) -> Handle:
        """The object in the program; created there for an exception that a test creates."""
        if self.__dict__.get("_handle") is None:
            self.__dict__["_handle"] = type(self)._class._Handle__link.made(self)
        return self.__dict__["_handle"]
