"""What runs inside the sandbox: a judge, and beside it the program that it judges. Only the standard library; sent as text.

Two processes. The *judge* is the first; before it has read any test it forks the *program's* process, to which it then
speaks through two pipes. Tests, expected outputs and the descriptor of the verdict exist in the judge alone, whose memory
the program cannot open (`PR_SET_DUMPABLE`, and a filter of system calls). The judge takes back plain data that it decodes
itself: a result has the `==` of its type, whatever the program has made of its classes and builtins, and a program that
leaves early, prints what a success would print or raises what it likes has no way to say that it passed.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path[:] = [place for place in sys.path if place]  # modules of the judge never come from the program's folder

import _ast
import builtins
import os
import select
import signal
import struct

TYPE_CHECKING = False  # `typing` takes longer to import than all the rest
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

LARGEST_FRAME = 1 << 26  # bytes: of one message, and thus of one value
DEEPEST = 100  # containers inside each other; what is nested deeper is no plain data
IMPORTABLE = frozenset(  # what a test may use because the program imported it; here, not there
    (
        "bisect",
        "cmath",
        "collections",
        "copy",
        "datetime",
        "decimal",
        "fractions",
        "functools",
        "heapq",
        "itertools",
        "json",
    )
    + ("math", "numpy", "operator", "random", "re", "statistics", "string", "sympy", "typing")
)
_LENGTH = struct.Struct("<I")
_FLOAT = struct.Struct("<d")


# -- values as bytes ---------------------------------------------------------------------------------------------------


class NotPlain(TypeError):
    """A value that cannot cross."""


def encode(value: Any, other: Callable[[Any], bytes] | None = None, depth: int = 0) -> bytes:
    """Plain data as bytes: numbers, texts, containers, and some types of the standard library.

    Subclasses become their base, so that nothing of their behaviour crosses.

    Args:
        value: what to encode.
        other: called with a value of any other type; gives its bytes.

    Raises:
        NotPlain: a value of another type without ``other``.
    """
    if value is None:
        return b"N"
    if value is True or value is False:
        return b"T" if value else b"F"
    if isinstance(value, int):
        data = int.to_bytes(value, int.bit_length(value) // 8 + 1, "little", signed=True)
        return b"i" + _LENGTH.pack(len(data)) + data
    if isinstance(value, float):
        return b"f" + _FLOAT.pack(value)
    if isinstance(value, str):
        data = str.encode(value, "utf-8", "surrogatepass")
        return b"s" + _LENGTH.pack(len(data)) + data
    if isinstance(value, (bytes, bytearray)):
        data = bytes(value)
        return (b"a" if isinstance(value, bytearray) else b"b") + _LENGTH.pack(len(data)) + data
    if isinstance(value, complex):
        return b"c" + _FLOAT.pack(value.real) + _FLOAT.pack(value.imag)
    if depth < DEEPEST:
        for tag, kind in _CONTAINERS:
            if isinstance(value, kind):
                items = [encode(item, other, depth + 1) for item in _base_items(kind, value)]
                return tag + _LENGTH.pack(len(items)) + b"".join(items)
        if isinstance(value, dict):
            parts = [encode(part, other, depth + 1) for item in dict.items(value) for part in item]
            return b"d" + _LENGTH.pack(len(parts) // 2) + b"".join(parts)
        special = _special(value)
        if special is not None:
            return b"p" + encode(special[0]) + encode(special[1], other, depth + 1)
    if other is None:
        raise NotPlain(f"a {type(value).__name__} is no plain data")
    return other(value)


_CONTAINERS: tuple[tuple[bytes, Any], ...] = ((b"l", list), (b"t", tuple), (b"S", set), (b"Z", frozenset))


def _base_items(kind: Any, value: Any) -> Iterable[Any]:
    return kind.__iter__(value)  # what a subclass says of itself is not asked


def _special(value: Any) -> tuple[str, tuple[Any, ...]] | None:
    """The name of a type of the standard library (or numpy) and the plain arguments it is made of again."""
    kind = type(value)
    name, module = kind.__name__, kind.__module__
    if kind is range:
        return "range", (value.start, value.stop, value.step)
    if module == "collections" and name == "deque":
        return "deque", (list(value),)
    if module == "fractions" and name == "Fraction":
        return "Fraction", (value.numerator, value.denominator)
    if module == "decimal" and name == "Decimal":
        return "Decimal", (str(value),)
    if module == "datetime" and name == "timedelta":
        return "timedelta", (value.days, value.seconds, value.microseconds)
    if module == "datetime" and name == "date":
        return "date", (value.year, value.month, value.day)
    if module == "datetime" and name == "datetime" and value.tzinfo is None:
        when = (value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond)
        return "datetime", when
    if module == "numpy" and hasattr(value, "dtype") and value.dtype.kind in "biufcU":
        return "numpy", (value.dtype.str, tuple(value.shape), value.ravel().tolist())
    return None


def _make_special(name: str, arguments: Sequence[Any]) -> Any:
    if name == "range":
        return range(*arguments)
    if name == "deque":
        from collections import deque

        return deque(*arguments)
    if name == "Fraction":
        from fractions import Fraction

        return Fraction(*arguments)
    if name == "Decimal":
        from decimal import Decimal

        return Decimal(*arguments)
    if name in ("timedelta", "date", "datetime"):
        import datetime

        return getattr(datetime, name)(*arguments)
    if name == "numpy":
        import numpy

        dtype, shape, values = arguments
        if numpy.dtype(dtype).kind not in "biufcU":  # arrays of objects would hold what is not plain
            raise ValueError(f"an array of {dtype}")
        array = numpy.array(values, dtype=numpy.dtype(dtype)).reshape(shape)
        return array if shape else array[()]
    raise ValueError(f"unknown type {name!r}")


def decode(data: bytes, other: Callable[[bytes, Callable[[], Any]], Any] | None = None) -> Any:
    """The value that `encode` made bytes of. Safe on hostile bytes: makes nothing but plain data.

    Args:
        data: the bytes.
        other: called with the tag of another value and a function that reads one value; gives the value.

    Raises:
        ValueError: they are malformed.
    """
    place = 0

    def take(count: int) -> bytes:
        nonlocal place
        if count > len(data) - place:
            raise ValueError("the message ends too early")
        place += count
        return data[place - count : place]

    def length() -> int:
        return _LENGTH.unpack(take(4))[0]

    def items(depth: int) -> list[Any]:
        count = length()
        if count > len(data) - place:
            raise ValueError("the message ends too early")
        return [one(depth + 1) for _ in range(count)]

    def one(depth: int = 0) -> Any:
        if depth > DEEPEST + 8:
            raise ValueError("the message is nested too deeply")
        tag = take(1)
        if tag == b"N":
            return None
        if tag in (b"T", b"F"):
            return tag == b"T"
        if tag == b"i":
            return int.from_bytes(take(length()), "little", signed=True)
        if tag == b"f":
            return _FLOAT.unpack(take(8))[0]
        if tag == b"s":
            return take(length()).decode("utf-8", "surrogatepass")
        if tag in (b"b", b"a"):
            return (bytes if tag == b"b" else bytearray)(take(length()))
        if tag == b"c":
            return complex(_FLOAT.unpack(take(8))[0], _FLOAT.unpack(take(8))[0])
        for known, kind in _CONTAINERS:
            if tag == known:
                return kind(items(depth))
        if tag == b"d":
            count = length()
            if count > len(data) - place:
                raise ValueError("the message ends too early")
            return {one(depth + 1): one(depth + 1) for _ in range(count)}
        if tag == b"p":
            name, arguments = one(depth + 1), one(depth + 1)
            return _make_special(name, arguments)
        if other is None:
            raise ValueError(f"unknown tag {tag!r}")
        return other(tag, lambda: one(depth + 1))

    value = one()
    if place != len(data):
        raise ValueError("something follows the message")
    return value


def write_frame(descriptor: int, data: bytes) -> None:
    """Length and bytes."""
    data = _LENGTH.pack(len(data)) + data
    while data:
        data = data[os.write(descriptor, data) :]


def read_frame(descriptor: int) -> bytes:
    """What `write_frame` wrote.

    Raises:
        EOFError: the other side is gone.
    """

    def exactly(count: int) -> bytes:
        parts = []
        while count:
            part = os.read(descriptor, min(count, 1 << 20))
            if not part:
                raise EOFError("the other side is gone")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    count = _LENGTH.unpack(exactly(4))[0]
    if count > LARGEST_FRAME:
        raise ValueError(f"a message of {count:,} bytes")
    return exactly(count)


# -- the program's process ---------------------------------------------------------------------------------------------


def _globals(name: str) -> dict[str, Any]:
    import types

    module = types.ModuleType(name)
    module.__dict__["__builtins__"] = builtins
    sys.modules[name] = module
    return module.__dict__


class _Served:
    """The program, called by the judge."""

    def __init__(self, source: str, reader: int, writer: int):
        self.source, self.reader, self.writer = source, reader, writer
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}  # by id: the objects live as long as this does
        self.names = _globals("solution")

    def run(self) -> None:
        while True:
            try:
                request = read_frame(self.reader)
            except EOFError:
                return
            self.answer(request)

    def answer(self, request: bytes) -> None:
        try:
            operation, target, arguments, keywords = decode(request, self._receive)
            before = encode([arguments, keywords], self._refer)
            value = self._do(operation, target, arguments, keywords)
            reply = encode(("ok", value), self._refer)
            after = encode([arguments, keywords], self._refer)
            reply = encode(["ok", reply, after if after != before else None])
        except BaseException as error:
            names = [kind.__name__ for kind in type(error).__mro__]
            try:
                text = str(error)
            except BaseException:
                text = ""
            final = operation == "next" and isinstance(error, StopIteration)
            reply = encode(["stop"] if final else ["raise", names, text[:2000]])
        write_frame(self.writer, reply)

    def _do(self, operation: str, target: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        if operation == "load":
            exec(compile(self.source, "solution.py", "exec"), self.names)
            return None
        if operation == "get":
            value = self.names[target]
            if isinstance(value, type) and issubclass(value, BaseException):
                return ("exception", [kind.__name__ for kind in value.__mro__], _Itself(value))
            return ("value", None, _Itself(value) if isinstance(value, type) else value)
        if operation == "call":
            return target(*arguments, **keywords)
        if operation in ("getattr", "setattr", "delattr", "len", "iter", "next", "bool", "str", "repr", "float", "int"):
            return getattr(builtins, operation)(target, *arguments)
        if operation in ("complex", "abs", "round", "isinstance"):
            if operation == "isinstance":
                return isinstance(arguments[0], target)
            return getattr(builtins, operation)(target, *arguments)
        if operation == "reflected":
            import operator

            return getattr(operator, arguments[0])(arguments[1], target)
        import operator

        return getattr(operator, operation)(target, *arguments)

    def _refer(self, value: Any) -> bytes:
        """A value of another type: it stays here, and the judge has its number."""
        if isinstance(value, _Itself):
            value = value.value
        number = self.numbers.setdefault(id(value), len(self.objects))
        if number == len(self.objects):
            self.objects.append(value)
        kinds = type(value).__mro__
        own = next((self.numbers[id(kind)] for kind in kinds if id(kind) in self.numbers), -1)
        return b"H" + encode(number) + encode(own) + encode(kinds[0].__name__)

    def _receive(self, tag: bytes, one: Callable[[], Any]) -> Any:
        if tag == b"H":
            return self.objects[one()]
        if tag == b"I":
            return iter(one())
        if tag == b"C":
            return self._callback(one())
        raise ValueError(f"unknown tag {tag!r}")

    def _callback(self, number: int) -> Callable[..., Any]:
        def called(*arguments: Any, **keywords: Any) -> Any:
            call = encode(("callback", number, arguments, keywords), self._refer)
            write_frame(self.writer, call)
            while True:
                message = decode(read_frame(self.reader), self._receive)
                if message[0] == "returned":
                    return message[1]
                if message[0] == "raised":
                    raise getattr(builtins, message[1], Exception)(message[2])
                raise RuntimeError("the judge speaks out of turn")

        return called


class _Itself:
    """Marks an object that is referred to, not sent."""

    def __init__(self, value: Any):
        self.value = value


def _close_all_but(*kept: int) -> None:
    last = 2
    for descriptor in sorted(kept):
        os.closerange(last + 1, descriptor)
        last = descriptor
    os.closerange(last + 1, 4096)


def _null(*descriptors: int) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)


def _main_program(source: str, arguments: Sequence[str] = ()) -> None:
    """Run a program as Python does, and leave with its exit code."""
    sys.argv[:] = ["program.py", *arguments]
    sys.path.insert(0, "")
    names = _globals("__main__")
    names["__file__"] = "program.py"
    code = 0
    try:
        exec(compile(source, "program.py", "exec"), names)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        code = code or 1
    os._exit(code & 0xFF)


def _serve_runs(source: str, reader: int, writer: int, largest: int) -> None:
    """One process for each standard input that the judge sends; what it prints goes back."""
    while True:
        try:
            text = read_frame(reader)
        except EOFError:
            return
        with open("/tmp/.stdin", "wb+") as file:
            file.write(text)
            file.flush()
            os.unlink("/tmp/.stdin")
            file.seek(0)
            receiver, sender = os.pipe()
            child = os.fork()
            if child == 0:
                os.dup2(file.fileno(), 0)
                os.dup2(sender, 1)
                _close_all_but()
                _main_program(source)
        os.close(sender)
        parts, count = [], 0
        while part := os.read(receiver, 1 << 16):
            parts.append(part)
            count += len(part)
            if count > largest:
                os.kill(child, signal.SIGKILL)
                break
        os.close(receiver)
        status = os.waitpid(child, 0)[1]
        code = "output" if count > largest else os.waitstatus_to_exitcode(status)
        write_frame(writer, encode([code, b"".join(parts)[:largest]]))


# -- the judge ---------------------------------------------------------------------------------------------------------


class ProgramError(Exception):
    """What the program raised, of a kind that only it knows."""


class BadTest(BaseException):
    """The tests ask what cannot be done."""


class ProgramGone(BaseException):
    """The program's process ended, or speaks nonsense."""


class Remote:
    """An object of the program, as the tests have it.

    Its attributes, items and iteration are asked of the program. Its operators are too if the tests say so of its class;
    otherwise they are refused: an object that says of itself that it equals what it is compared with has proved nothing.
    """

    __slots__ = ("_Remote__kind", "_Remote__name", "_Remote__number", "_Remote__program")

    def __init__(self, program: Program, number: int, kind: int, name: str):
        for slot, value in (("program", program), ("number", number), ("kind", kind), ("name", name)):
            object.__setattr__(self, f"_Remote__{slot}", value)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_Remote__"):
            return object.__getattribute__(self, name)
        if name == "__class__":
            return Remote
        return self.__program.ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__program.ask("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        self.__program.ask("delattr", self, name)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.__program.ask("call", self, *arguments, **keywords)

    def __hash__(self) -> int:
        return hash(self.__number)

    def __instancecheck__(self, value: Any) -> bool:
        return isinstance(value, Remote) and self.__program.ask("isinstance", self, value) is True

    def __eq__(self, other: Any) -> Any:
        if isinstance(other, Remote) and other.__number == self.__number:
            return True
        return self.__kind in self.__program.trusted and self.__operated("eq", other)

    def __ne__(self, other: Any) -> Any:
        return self.__operated("ne", other) if self.__kind in self.__program.trusted else not self == other

    def __format__(self, pattern: str) -> str:
        return format(str(self), pattern)

    def __enter__(self) -> Any:
        return self.__program.ask("getattr", self, "__enter__")()

    def __exit__(self, *error: Any) -> Any:
        return self.__program.ask("getattr", self, "__exit__")(None, None, None)

    def __operated(self, operation: str, *arguments: Any) -> Any:
        if self.__kind not in self.__program.trusted:
            raise TypeError(
                f"the program gives a {self.__name} of its own, and its operators are not believed: {operation}"
            )
        return self.__program.ask(operation, self, *arguments)


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
_UNARY = (
    ("neg", "pos", "invert", "abs", "round", "float", "int", "complex", "index", "bool", "str", "repr")
    + ("len", "iter", "next", "getitem", "setitem", "delitem")
)  # fmt: skip


def _operator(operation: str, *before: str) -> Callable[..., Any]:
    def operated(self: Any, other: Any) -> Any:
        return self._Remote__operated(operation, *before, other)

    return operated


def _asked(operation: str) -> Callable[..., Any]:
    def asked(self: Any, *arguments: Any) -> Any:
        return self._Remote__program.ask(operation, self, *arguments)

    return asked


for _name in (*_ARITHMETIC, *_COMPARING):
    setattr(Remote, f"__{_name.rstrip('_')}__", _operator(_name))
for _name in _ARITHMETIC:
    setattr(Remote, f"__r{_name.rstrip('_')}__", _operator("reflected", _name))
for _name in _UNARY:
    setattr(Remote, f"__{_name}__", _asked(_name))


class Program:
    """The judge's side of the pipes."""

    def __init__(self, reader: int, writer: int):
        self.reader, self.writer = reader, writer
        self.trusted: set[int] = set()  # numbers of the classes whose operators are believed
        self.asked = 0  # times
        self.callbacks: list[Callable[..., Any]] = []
        self.exceptions: dict[str, type[Exception]] = {}

    def ask(self, operation: str, target: Any, /, *arguments: Any, **keywords: Any) -> Any:
        """Have the program do something.

        Raises:
            Exception: what the program raised, as the builtin of that name or a class of the test's.
            ProgramGone: it ended.
        """
        self.asked += 1
        request = encode((operation, target, list(arguments), keywords), self._refer)
        try:
            write_frame(self.writer, request)
            while True:
                data = read_frame(self.reader)
                message = decode(data, self._receive)
                if message[0] != "callback":
                    break
                self._call_back(*message[1:])
            if message[0] == "ok":
                _, reply, changed = message
                marker, value = decode(reply, self._receive)
                if changed is not None:
                    new, new_keywords = decode(changed, self._receive)
                    _restore(list(arguments), new)
                    _restore(keywords, new_keywords)
                if marker != "ok":
                    raise ValueError(marker)
                return value
        except (EOFError, OSError):
            raise ProgramGone("the program ended") from None
        except (ValueError, TypeError, IndexError, RecursionError, OverflowError, MemoryError) as error:
            raise ProgramGone(f"the program's answer is malformed ({error})") from None
        if message[0] == "stop" and operation == "next":
            raise StopIteration
        if message[0] == "raise":
            raise self._error(*message[1:])
        raise ProgramGone("the program's answer is malformed")

    def _error(self, names: Sequence[str], text: str) -> Exception:
        kind = self.exception([str(name) for name in names])
        try:
            return kind(str(text))
        except TypeError:  # such as UnicodeDecodeError, which takes five arguments
            return ProgramError(f"{kind.__name__}: {text}")

    def exception(self, names: Sequence[str]) -> type[Exception]:
        """A class for what the program raises, from the names of its class and its bases."""
        known = [getattr(builtins, name, None) for name in names]
        # a StopIteration would end the loops of the test, a SystemExit the judge
        known = [kind for kind in known if isinstance(kind, type) and issubclass(kind, Exception)]
        ending = (StopIteration, StopAsyncIteration)
        base: type[Exception] = next((kind for kind in known if not issubclass(kind, ending)), ProgramError)  # type: ignore
        name = names[0] if names else "error"
        if base.__name__ == name:
            return base
        return self.exceptions.setdefault(name, type(name, (base,), {}))

    def _call_back(self, number: int, arguments: Sequence[Any], keywords: dict[str, Any]) -> None:
        try:
            value = self.callbacks[number](*arguments, **keywords)
            reply = encode(("returned", value), self._refer)
        except Exception as error:
            reply = encode(("raised", type(error).__name__, str(error)[:2000]), self._refer)
        write_frame(self.writer, reply)

    def get(self, name: str) -> Any:
        """A global of the program.

        Raises:
            NameError: it has none of this name.
        """
        try:
            what, names, value = self.ask("get", name)
        except KeyError:
            raise NameError(f"name {name!r} is not defined") from None
        return self.exception([str(name) for name in names]) if what == "exception" else value

    def _refer(self, value: Any) -> bytes:
        if isinstance(value, Remote):
            return b"H" + encode(value._Remote__number)
        if hasattr(value, "__next__"):
            return b"I" + encode(list(value), self._refer)
        if callable(value):
            self.callbacks.append(value)
            return b"C" + encode(len(self.callbacks) - 1)
        if hasattr(value, "__iter__"):  # views of dicts, maps of the test's own
            return encode(list(value), self._refer)
        raise BadTest(f"a test cannot give the program a {type(value).__name__}: define its class in the program")

    def _receive(self, tag: bytes, one: Callable[[], Any]) -> Any:
        if tag != b"H":
            raise ValueError(f"unknown tag {tag!r}")
        return Remote(self, int(one()), int(one()), str(one()))


def _restore(old: Any, new: Any) -> None:
    """Make a container what the program made of it, in place, for tests of functions that change their arguments."""
    if isinstance(old, list) and isinstance(new, list):
        if len(old) == len(new):
            for index, (before, after) in enumerate(zip(old, new)):  # noqa: B905 - the sandbox's Python may be older
                old[index] = _restored(before, after)
        else:
            old[:] = new
    elif isinstance(old, dict) and isinstance(new, dict):
        kept = {key: _restored(old[key], value) if key in old else value for key, value in new.items()}
        old.clear()
        old.update(kept)
    elif isinstance(old, set) and isinstance(new, set):
        old.clear()
        old.update(new)
    elif isinstance(old, bytearray) and isinstance(new, bytearray):
        old[:] = new


def _restored(before: Any, after: Any) -> Any:
    if isinstance(before, (list, dict, set, bytearray)) and type(before) is type(after):
        _restore(before, after)
        return before
    if callable(before) or isinstance(before, Remote) or hasattr(before, "__next__"):
        return before
    if isinstance(before, tuple) and isinstance(after, tuple) and len(before) == len(after):
        return tuple(_restored(one, two) for one, two in zip(before, after))  # noqa: B905
    return after


class Namespace(dict):
    """The globals of the tests: their own, builtins, what the program imported from the standard library, the program's."""

    def __init__(self, program: Program, entry_points: set[str], imports: dict[str, tuple[str, str]]):
        super().__init__(__name__="__main__", __builtins__=builtins)
        self.program, self.entry_points, self.imports = program, entry_points, imports

    def __missing__(self, name: str) -> Any:
        if name not in self.entry_points:
            if hasattr(builtins, name):
                raise KeyError(name)  # never the program's: it may have redefined `abs`
            if name in self.imports:
                module, attribute = self.imports[name]
                found = __import__(module, fromlist=["*"])
                value = self[name] = getattr(found, attribute) if attribute else found
                return value
        value = self.program.get(name)
        if not isinstance(value, (int, float, str, list, dict, set)):
            self[name] = value  # others may change
        return value

    def imported(self, name: str) -> Any:
        """For ``from solution import name``."""
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]


def _imports(tree: Any) -> dict[str, tuple[str, str]]:
    """Module and attribute (empty for the module) of names that a program imports, of modules that are safe to use here."""
    found: dict[str, tuple[str, str]] = {}
    for statement in tree.body:
        if isinstance(statement, _ast.Import):
            for name in statement.names:
                if name.asname is not None and name.name.split(".")[0] in IMPORTABLE:
                    found[name.asname] = (name.name, "")
                elif name.asname is None and name.name in IMPORTABLE:
                    found[name.name] = (name.name, "")
        elif isinstance(statement, _ast.ImportFrom) and not statement.level:
            for name in statement.names:
                if statement.module in IMPORTABLE and name.name != "*":
                    found[name.asname or name.name] = (statement.module, name.name)
    return found


def _tree(source: str, place: str) -> Any:
    return compile(source, place, "exec", _ast.PyCF_ONLY_AST)


def _import_for(test: str) -> None:
    """Import what a test imports at its top, before the program is there: what is missing is not its fault."""
    for statement in _tree(test, "test").body:
        names = [name.name for name in statement.names] if isinstance(statement, _ast.Import) else []
        if isinstance(statement, _ast.ImportFrom) and not statement.level:
            names.append(str(statement.module))
        for name in names:
            if name != "solution":
                __import__(name)


def _short(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    return text[:300]


def _judge_calls(job: dict[str, Any], secret: dict[str, Any], program: Program) -> tuple[str, str]:
    """Run the tests in this process; what they call is the program."""
    import types

    try:
        setup = compile(secret["setup"], "setup", "exec")
        codes = [compile(test, f"test {index}", "exec") for index, test in enumerate(secret["tests"], start=1)]
        for test in (secret["setup"], *secret["tests"]):
            _import_for(test)
    except ImportError as error:
        return "error", f"the tests import what the sandbox has not ({error}): name it in packages"
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return "error", f"a test does not compile ({_short(error)})"
    try:
        imports = _imports(_tree(job["source"], "solution.py"))
        program.ask("load", None)
    except ProgramGone as gone:
        return "gone", f"the program does not load ({gone})"
    except Exception as error:
        return "failed", f"the program does not load ({_short(error)})"
    names = Namespace(program, set(job["entry_points"]), imports)
    module = types.ModuleType("solution")  # for tests that import it
    module.__dict__.update(__getattr__=names.imported, __all__=[])
    sys.modules["solution"] = module
    where = "the setup of the tests"
    try:
        exec(setup, names)
        for name in job["entry_points"]:
            dict.pop(names, name, None)  # a stub of the setup's
        for name in secret["own_operators"]:
            program.trusted.add(object.__getattribute__(program.get(name), "_Remote__number"))
        for index, code in enumerate(codes, start=1):
            where, asked, before = f"test {index}", program.asked, set(names)
            exec(code, names)
            for name in [name for name in names if name not in before]:
                function = names[name]
                if not isinstance(function, types.FunctionType):
                    continue
                if name == "check" and job["entry_points"]:
                    function(program.get(job["entry_points"][0]))
                elif name.startswith("test"):
                    where = f"test {index}, {name}"
                    function()
            if program.asked == asked:
                return "error", f"test {index} does not use the program: any would pass it"
    except BadTest as error:
        return "error", f"{where}: {error}"
    except ProgramGone as gone:
        return "gone", f"{where}: {gone}"
    except BaseException as error:
        return "failed", f"{where}: {_short(error)}"
    return "ok", ""


def plain_output(text: str) -> list[str]:
    """What is compared of a program's output: its lines, without spaces at their ends and without empty ones at the end."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _judge_outputs(secret: dict[str, Any], reader: int, writer: int) -> tuple[str, str]:
    for index, (given, expected) in enumerate(secret["cases"], start=1):
        try:
            write_frame(writer, given.encode("utf-8", "surrogatepass"))
            if not select.select([reader], [], [], secret["seconds"])[0]:
                return "timeout", f"case {index}: no end within {secret['seconds']:g} s"
            code, output = decode(read_frame(reader))
        except (EOFError, OSError):
            return "gone", f"case {index}: the program ended"
        except (ValueError, TypeError):
            return "failed", f"case {index}: the program's answer is malformed"
        if code == "output":
            return "killed", f"case {index}: too much output"
        if code != 0:
            return "failed", f"case {index}: exit code {code}"
        if plain_output(output.decode("utf-8", "replace")) != plain_output(expected):
            return "failed", f"case {index}: another output"
    return "ok", ""


def _limit(limits: dict[str, int]) -> None:
    import resource

    for name, value in limits.items():
        number = getattr(resource, f"RLIMIT_{name}", None)
        if number is not None:
            resource.setrlimit(number, (value, value))
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # if memory runs out, this goes first


def _hide() -> None:
    """Close this process's memory and descriptors to others of the same user."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(4, 0, 0, 0, 0) != 0:  # PR_SET_DUMPABLE
        raise OSError(ctypes.get_errno(), "PR_SET_DUMPABLE")


def _whole(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, "rb") as file:
        return file.read()


def main(job_descriptor: int, secret_descriptor: int, verdict_descriptor: int) -> None:
    """Judge one program. Writes two frames: that it began, and the verdict."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the first process of a namespace gets no signal it does not handle
    job = decode(_whole(job_descriptor))
    _limit(job["limits"])
    _hide()
    sys.path += job["path"]
    for name, content in job["files"].items():
        place = os.path.join("/tmp", name)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "wb") as file:
            file.write(content)
    mode = job["mode"]
    from_judge, to_program = os.pipe()
    from_program, to_judge = os.pipe()
    child = os.fork()
    if child == 0:
        if mode == "run":
            _close_all_but()
            _main_program(job["source"], job["arguments"])
        _close_all_but(from_judge, to_judge)
        _null(0, 1, 2)
        sys.path.insert(0, "")
        if mode == "calls":
            _Served(job["source"], from_judge, to_judge).run()
        else:
            _serve_runs(job["source"], from_judge, to_judge, job["largest_output"])
        os._exit(0)
    os.close(from_judge)
    os.close(to_judge)
    write_frame(verdict_descriptor, b"began")
    if mode == "run":
        ended, status = os.wait()
        while ended != child:  # an orphan, left to the first process
            ended, status = os.wait()
        code = os.waitstatus_to_exitcode(status)
        verdict = ("ok" if code == 0 else "failed" if code > 0 else "killed"), f"exit code {code}"
    else:
        secret = decode(_whole(secret_descriptor))
        if mode == "calls":
            verdict = _judge_calls(job, secret, Program(from_program, to_program))
        else:
            verdict = _judge_outputs(secret, from_program, to_program)
        if verdict[0] == "gone":
            done, status = os.waitpid(child, os.WNOHANG)
            signalled = done and os.WIFSIGNALED(status)
            verdict = (
                "killed" if signalled else "failed",
                verdict[1] + (f" by signal {os.WTERMSIG(status)}" if signalled else ""),
            )
    write_frame(verdict_descriptor, encode(verdict))
    os._exit(0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
