"""The judge's end of the pipes to the program: requests, responses, and callbacks to the tests' objects."""

from __future__ import annotations

import _thread
import builtins
import operator
import sys

from nbg_lightning.scoring.sandbox.codec import ValueEncoder, base_of, decode, plain_base, read_frame, write_frame
from nbg_lightning.scoring.sandbox.errors import BUILTIN, Errors
from nbg_lightning.scoring.sandbox.handles import Handle, NotCopied, OwnError, derived, handle_of, number_of
from nbg_lightning.scoring.sandbox.program import DATA_TYPES, GIVEN_OPERATIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_TYPES = {kind.__name__: kind for kind in DATA_TYPES}
_OPERATIONS = frozenset((*GIVEN_OPERATIONS, "getattr", "setattr", "call", "iter", "hash"))
_OPEN_MODULES = ("__main__", "unittest.mock", "_io")  # whose objects expose public attributes to the program
_VIEWS = ("dict_keys", "dict_values", "dict_items")


class BadTest(BaseException):
    """The tests request something impossible."""


class ProgramGone(BaseException):
    """The program's process has ended, or sends malformed data."""


class Link:
    """Sends requests to the program.

    Args:
        reader: descriptor of the program's responses.
        writer: descriptor for requests.
        named: names used by the tests.
    """

    def __init__(self, reader: int, writer: int, named: frozenset[str] = frozenset()):
        self.reader, self.writer = reader, writer
        self.errors = Errors(named)
        self.trusted: set[int] = set()  # numbers of the classes whose operators are trusted
        self.asked = 0  # number of requests
        self.output = sys.stdout
        self._given: list[Any] = []  # the tests' functions and objects that the program has
        self._places: dict[int, int] = {}  # their indices, by id
        self._known: dict[int, Handle] = {}  # one per object of the program
        self._derived: dict[int, Any] = {}  # one per object of the program
        self._lock = _thread.RLock()  # threads of a test take turns

    def ask(self, operation: str, target: Any, /, *arguments: Any, **keywords: Any) -> Any:
        """Let the program perform an operation.

        Raises:
            Exception: what the program raised, as the builtin of that name or a class that stands for one of its own.
            ProgramGone: the program has ended.
        """
        with self._lock:
            self.asked += 1
            containers: list[Any] = []
            listens = sys.stdout is not self.output
            request = (operation, target, arguments, tuple(keywords.items()), listens)
            message = self._exchange(ValueEncoder(self._refer, None, containers).encode(request), containers)
        if message[0] == "ok":
            return self._returned(message, containers)
        if message == ("stop",) and operation in _ENDS:
            raise _ENDS[operation]
        if message[0] == "again":  # an exception of the test's own, passed back through its function
            raise self._again(message)
        raise self._raised(message)

    def _exchange(self, request: bytes, containers: list[Any]) -> tuple[Any, ...]:
        try:
            write_frame(self.writer, request)
            while True:
                message = decode(read_frame(self.reader), self._receive, containers)
                if type(message) is not tuple or not message or type(message[0]) is not str:
                    raise ValueError("no message")
                if message[0] not in ("callback", "given"):
                    return message
                self._call_back(*message)
        except (EOFError, OSError):
            raise ProgramGone("the program ended") from None
        except _MALFORMED as error:
            raise ProgramGone(f"the program's answer is malformed ({error})") from None

    def _returned(self, message: tuple[Any, ...], containers: list[Any]) -> Any:
        try:
            _, value, changes, said = message
            for place, content in changes:
                _change(containers[place], decode(content, self._receive, containers))
        except _MALFORMED as error:
            raise ProgramGone(f"the program's answer is malformed ({error})") from None
        if said and type(said) is str and sys.stdout is not self.output:
            sys.stdout.write(said)
        return value

    def _raised(self, message: tuple[Any, ...]) -> BaseException:
        try:
            word, kind, arguments, text, handle = message
            if word != "raise" or type(arguments) is not tuple or type(text) is not str:
                raise ValueError(word)
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise ValueError("no error")
            return self.errors.error(kind, arguments, text, handle if type(handle) is Handle else None)
        except _MALFORMED as error:
            raise ProgramGone(f"the program's answer is malformed ({error})") from None

    def _again(self, message: tuple[Any, ...]) -> BaseException:
        place = message[1] if len(message) == 2 else None
        error = self._given[place] if type(place) is int and 0 <= place < len(self._given) else None
        if not isinstance(error, Exception):
            raise ProgramGone("the program's answer is malformed")
        return error

    def made(self, error: Any) -> Handle:
        """The object in the program for an exception that a test created from one of its classes."""
        return self.ask("call", type(error)._class, *error.args)

    # -- requests by the program -------------------------------------------------------------------------------------------

    def _call_back(self, what: str, number: int, *request: Any) -> None:
        target = self._given[number]
        try:
            if what == "callback":
                arguments, keywords = request
                value = target(*arguments, **keywords)
            else:
                value = _operate(target, *request)
            reply = ValueEncoder(self._refer).encode(["returned", value])
        except Exception as error:
            try:
                reply = ValueEncoder(self._refer).encode(["raised", error])
            except Exception:
                reply = ValueEncoder(self._refer).encode(["raised", RuntimeError(type(error).__name__)])
        write_frame(self.writer, reply)

    def _place(self, value: Any) -> int:
        place = self._places.setdefault(id(value), len(self._given))
        if place == len(self._given):
            self._given.append(value)
        return place

    # -- values --------------------------------------------------------------------------------------------------------

    def _refer(self, value: Any) -> bytes:
        """Encode a value that is not plain data: an object of the program, one of the tests', or a copy."""
        handle = handle_of(value)
        if handle is not None:
            return b"H" + _plain(number_of(handle))
        number = self.errors.class_number(value)
        if number is not None:
            return b"H" + _plain(number)
        if isinstance(value, BaseException) and not isinstance(value, OwnError):
            kind = next(kind for kind in type(value).__mro__ if BUILTIN.get(kind.__name__) is kind)
            arguments = (
                value.args if all(type(each) in (str, int, float, bytes) for each in value.args) else (str(value),)
            )
            return b"X" + ValueEncoder(self._refer).encode((kind, arguments, self._place(value)))
        if isinstance(value, OwnError):
            return b"H" + _plain(number_of(value._itself()))
        place = _import_name(value)
        if place is not None:
            return b"M" + _plain(place)
        kind, module = type(value), type(value).__module__
        if kind.__name__ in _VIEWS and module == "builtins":
            return ValueEncoder(self._refer).encode(list(value))
        if isinstance(value, type) or (callable(value) and module not in _OPEN_MODULES):
            return b"C" + _plain(self._place(value))
        base = base_of(value)
        if base is not None:
            return ValueEncoder(self._refer).encode(plain_base(value, base), 1)
        if module in _OPEN_MODULES or hasattr(kind, "__next__"):
            return b"J" + _plain(self._place(value))
        return b"P" + _plain(_pickled(value))

    def _receive(self, tag: bytes, one: Callable[[], Any]) -> Any:
        content = one()
        if tag == b"H":
            number, kind, name, base = content
            return self._handle(number, str(name), kind, str(base))
        if tag == b"D":
            number, kind, name = content
            value, handle = one(), self._handle(number, str(name), kind, "")
            found = self._derived.get(number)
            if found is None or found != value:
                found = self._derived[number] = derived(value, handle)
            return found
        if tag in (b"C", b"J"):
            return self._given[content]
        if tag == b"M":
            return _TYPES[content]
        if tag == b"E":
            return self.errors.kind(content, self._handle)
        raise ValueError(f"unknown tag {tag!r}")

    def _handle(self, number: Any, name: str, kind: Any = -1, base: str = "") -> Handle:
        if type(number) is not int or type(kind) is not int or number < 0:
            raise ValueError("an object without a number")
        found = self._known.get(number)
        if found is None:
            found = self._known[number] = Handle(self, number, kind, name[:100], base)
        return found


_ENDS = {"next": StopIteration, "anext": StopAsyncIteration}
_MALFORMED = (
    (ValueError, TypeError, LookupError, AttributeError, RecursionError, ArithmeticError, MemoryError, ImportError)
)  # fmt: skip


def _plain(value: Any) -> bytes:
    return ValueEncoder().encode(value)


def _import_name(value: Any) -> tuple[str, str] | None:
    """Module and name under which the program's process finds the same class or builtin function; None if there is none."""
    if type(value).__name__ not in ("type", "ABCMeta", "EnumType", "builtin_function_or_method", "function", "ufunc"):
        return None
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    if module is None or module.__name__ in ("__main__", "solution"):
        return None
    found: Any = module
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    if found is value:
        return module.__name__, value.__qualname__
    kinds = vars(sys.modules["types"]) if module is builtins and "types" in sys.modules else {}
    return next((("types", name) for name, kind in kinds.items() if kind is value), None)  # such as FunctionType


def _pickled(value: Any) -> bytes:
    import pickle

    try:
        return pickle.dumps(value)
    except NotCopied:
        raise
    except Exception:
        raise BadTest(
            f"a test cannot give the program a {type(value).__name__}: define its class in the program"
        ) from None


def _operate(target: Any, operation: str, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    """Perform an operation of the program on a test's object: public attributes and operators only."""
    if operation not in _OPERATIONS:
        raise AttributeError(operation)
    if operation in ("getattr", "setattr"):
        name = arguments[0]
        if type(target).__module__ not in _OPEN_MODULES or type(name) is not str or name.startswith("_"):
            raise AttributeError(f"{type(target).__name__!r} object of the tests has no public attribute {name!r}")
        value = getattr(builtins, operation)(target, *arguments)
        if type(value).__name__ in ("module", "frame", "code", "traceback"):
            raise AttributeError(f"{name!r} of the tests is not the program's")
        return value
    if operation == "call":
        return target(*arguments, **keywords)
    function = getattr(builtins, operation, None) or getattr(operator, operation)
    return function(target, *arguments)


def _change(old: Any, new: Any) -> None:
    """Update a container in place with the program's changes, for tests of functions that modify their arguments."""
    if type(old) is not type(new):
        raise TypeError("another type of container")
    if isinstance(old, (list, bytearray)):
        old[:] = new
    else:
        old.clear()
        old.update(new)
