"""The program's process: executes the judge's requests, and responds with plain data and numbers of objects that stay here.

Nothing here is trusted: the program can change all of it.
"""

from __future__ import annotations

import builtins
import os
import sys
from _signal import SIGKILL  # `signal` imports a lot: 5 of 25 ms

from nbg_lightning.scoring.sandbox.codec import (
    CHANGEABLE,
    ValueEncoder,
    base_of,
    decode,
    encode,
    plain_base,
    read_frame,
    write_frame,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

SAID = 1 << 20  # characters printed by a call that a test can see
DATA_TYPES = (
    int,
    float,
    complex,
    bool,
    str,
    bytes,
    bytearray,
    list,
    tuple,
    dict,
    set,
    frozenset,
    range,
    object,
    type(None),
)


def own_module(name: str) -> dict[str, Any]:
    """The globals of a new module with this name."""
    module = type(sys)(name)
    module.__dict__["__builtins__"] = builtins
    sys.modules[name] = module
    return module.__dict__


class Itself:
    """Marks an object to be referred to rather than sent."""

    def __init__(self, value: Any):
        self.value = value


class Served:
    """The program, called by the judge."""

    def __init__(self, source: str, reader: int, writer: int):
        self.source, self.reader, self.writer = source, reader, writer
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}  # by id: the objects live as long as this one
        self.callbacks: dict[int, Callable[..., Any]] = {}
        self.givens: dict[int, Given] = {}
        self.names = own_module("solution")
        self.loop: Any = None

    def run(self) -> None:
        while True:
            try:
                request = read_frame(self.reader)
            except EOFError:
                return
            self.answer(request)

    def answer(self, request: bytes) -> None:
        """Execute a request, and write the result."""
        operation = ""
        try:
            given: list[Any] = []
            operation, target, arguments, keywords, listens = decode(request, self._receive, given, collect=True)
            keywords = dict(keywords)
            encoder = ValueEncoder(self._refer, {id(each): place for place, each in enumerate(given)})
            before = [encoder.content(each) for each in given]
            value, said = self._heard(listens, operation, target, arguments, keywords)
            after = [encoder.content(each) for each in given]
            changes = [[place, new] for place, new in enumerate(after) if new != before[place]]
            reply = b"t\x04\x00\x00\x00" + encode("ok") + encoder.encode(value) + encode(changes) + encode(said)
        except BaseException as error:
            try:
                reply = self._raised(operation, error)
            except BaseException:  # an error whose arguments cannot be read
                reply = ValueEncoder(self._refer).encode(
                    ("raise", RuntimeError, (), "an error that cannot be read", None)
                )
        write_frame(self.writer, reply)

    def _heard(self, listens: bool, *request: Any) -> tuple[Any, str]:
        """The result of a request, and what it printed if the test captures output."""
        if not listens:
            return self._do(*request), ""
        import io

        kept, sys.stdout = sys.stdout, io.StringIO()
        try:
            value = self._do(*request)
            return value, sys.stdout.getvalue()[:SAID]
        finally:
            sys.stdout = kept

    def _raised(self, operation: str, error: BaseException) -> bytes:
        if isinstance(error, _ENDS.get(operation, ())):
            return encode(("stop",))
        place = error.__dict__.get("_nbg_place")
        if type(place) is int:
            return encode(("again", place))
        try:
            text = str(error)[:2000]
        except BaseException:
            text = ""
        arguments = OSError.__reduce__(error)[1] if isinstance(error, OSError) else error.args  # with the file name
        return ValueEncoder(self._refer).encode(("raise", type(error), tuple(arguments), text, Itself(error)))

    def _do(self, operation: str, target: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        own = getattr(self, f"_do_{operation}", None)
        if own is not None:
            return own(target, *arguments, **keywords)
        found = getattr(builtins, operation, None) if operation in _OF_BUILTINS else None
        if found is None:
            import operator

            found = getattr(operator, operation)
        return found(target, *arguments)

    def _do_load(self, target: Any) -> None:
        source = self.source.removeprefix("\ufeff")  # as Python reads a file that begins with a byte order mark
        exec(compile(source, "solution.py", "exec", dont_inherit=True), self.names)

    def _do_get(self, target: str) -> Any:
        return self.names[target]

    def _do_call(self, target: Any, *arguments: Any, **keywords: Any) -> Any:
        return target(*arguments, **keywords)

    def _do_reflected(self, target: Any, name: str, other: Any) -> Any:
        import operator

        return getattr(operator, name)(other, target)

    def _do_is_instance(self, target: Any, value: Any) -> bool:
        return isinstance(value, target)

    def _do_is_subclass(self, target: Any, value: Any) -> bool:
        return issubclass(value, target)

    def _do_snapshot(self, target: Any) -> Any:
        return plain_base(target, base_of(target))

    def _do_await_(self, target: Any) -> Any:
        import asyncio

        async def awaited() -> Any:
            return await target

        if self.loop is None:
            self.loop = asyncio.new_event_loop()  # one for all, since an asynchronous generator ends with its loop
        return self.loop.run_until_complete(awaited())

    def _do_anext(self, target: Any) -> Any:
        return self._do_await_(target.__anext__())

    def _do_library(self, target: str, name: str, *arguments: Any, **keywords: Any) -> Any:
        return getattr(__import__(target, fromlist=["*"]), name)(*arguments, **keywords)

    def _do_evaluate(self, target: Any, names: dict[str, Any] | None) -> Any:
        target = compile(target, "<string>", "eval", dont_inherit=True) if isinstance(target, str) else target
        return eval(target, self.names if names is None else {**self.names, **names})

    def _do_execute(self, target: Any, names: dict[str, Any] | None) -> None:
        target = compile(target, "<string>", "exec", dont_inherit=True) if isinstance(target, str) else target
        if names is None:
            exec(target, self.names)
            return
        whole = {**self.names, **names}
        exec(target, whole)
        whole.pop("__builtins__", None)
        names.update({name: value for name, value in whole.items() if self.names.get(name, names) is not value})

    # -- objects that stay here --------------------------------------------------------------------------------------------

    def _number(self, value: Any) -> int:
        number = self.numbers.setdefault(id(value), len(self.objects))
        if number == len(self.objects):
            self.objects.append(value)
        return number

    def _refer(self, value: Any) -> bytes:
        """Encode a value of another type: it stays here, and the judge gets its number."""
        if isinstance(value, Itself):
            return self._handle(value.value)
        if isinstance(value, Given):
            return b"J" + encode(value._Given__number)
        number = getattr(value, "_nbg_callback", None) if type(value) is type(to_null) else None
        if type(number) is int:
            return b"C" + encode(number)
        if isinstance(value, type):
            if issubclass(value, BaseException):
                return b"E" + encode(self._ancestry(value))
            if value in DATA_TYPES:
                return b"M" + encode(value.__name__)
        return self._handle(value)

    def _handle(self, value: Any) -> bytes:
        kinds = type(value).__mro__
        own = next((self.numbers[id(kind)] for kind in kinds if id(kind) in self.numbers), -1)
        base = base_of(value)
        if base is None or base is type(value) or value is None or value is True or value is False:
            return b"H" + encode((self._number(value), own, kinds[0].__name__, ""))
        if base in (*CHANGEABLE,):
            return b"H" + encode((self._number(value), own, kinds[0].__name__, base.__name__))
        data = ValueEncoder(self._refer).encode(plain_base(value, base), 1)
        return b"D" + encode((self._number(value), own, kinds[0].__name__)) + data

    def _ancestry(self, kind: type) -> list[Any]:
        """The base classes of an exception's class, bases first: a builtin's name, or number, name and bases."""
        found: list[Any] = []
        for each in reversed(kind.__mro__):
            if issubclass(each, BaseException):
                own = getattr(builtins, each.__name__, None) is not each
                found.append(
                    (self._number(each), each.__name__, [self._key(base) for base in each.__bases__])
                    if own
                    else each.__name__
                )
        return found

    def _key(self, kind: type) -> Any:
        return kind.__name__ if getattr(builtins, kind.__name__, None) is kind else self._number(kind)

    # -- objects of the judge ----------------------------------------------------------------------------------------------

    def _receive(self, tag: bytes, one: Callable[[], Any]) -> Any:
        if tag == b"H":
            return self.objects[one()]
        if tag == b"C":
            return self._callback(one())
        if tag == b"J":
            number = one()
            return self.givens.setdefault(number, Given(self, number))
        if tag == b"M":
            return _by_name(*one())
        if tag == b"X":
            kind, arguments, place = one()
            error = kind(*arguments)
            error._nbg_place = place
            return error
        if tag == b"P":
            import pickle

            return pickle.loads(one())
        raise ValueError(f"unknown tag {tag!r}")

    def _callback(self, number: int) -> Callable[..., Any]:
        def called(*arguments: Any, **keywords: Any) -> Any:
            return self.call_back(("callback", number, list(arguments), keywords))

        called._nbg_callback = number  # type: ignore[attr-defined]  # functions take attributes
        return self.callbacks.setdefault(number, called)

    def call_back(self, request: tuple[Any, ...]) -> Any:
        """Let the judge perform something while one of its requests is pending."""
        write_frame(self.writer, ValueEncoder(self._refer).encode(request))  # containers in it are copies
        while True:
            data = read_frame(self.reader)
            if data[:1] == b"t":  # the test's function uses the program: a request
                self.answer(data)
                continue
            outcome, value = decode(data, self._receive)
            if outcome == "returned":
                return value
            raise value


class Given:
    """A proxy of a test's object: its public attributes and operators are requested from the judge."""

    def __init__(self, served: Served, number: int):
        self.__dict__.update(_Given__served=served, _Given__number=number)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.__ask("getattr", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__ask("setattr", name, value)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.__ask("call", *arguments, **keywords)

    def __iter__(self) -> Any:
        return self.__ask("iter")

    def __hash__(self) -> int:
        return int(self.__ask("hash"))

    def __ask(self, operation: str, *arguments: Any, **keywords: Any) -> Any:
        return self.__served.call_back(("given", self.__number, operation, list(arguments), keywords))


def _asked(operation: str) -> Callable[..., Any]:
    return lambda self, *arguments: self._Given__ask(operation, *arguments)


GIVEN_OPERATIONS = (
    ("next", "len", "str", "repr", "bool", "int", "float", "abs", "getitem", "setitem", "delitem", "contains")
    + ("eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "neg")
)  # fmt: skip
for _name in GIVEN_OPERATIONS:
    setattr(Given, f"__{_name}__", _asked(_name))


_ENDS = {"next": StopIteration, "anext": StopAsyncIteration}
_OF_BUILTINS = (
    ("getattr", "setattr", "delattr", "len", "iter", "next", "bool", "str", "repr", "float", "int", "complex", "abs")
    + ("round", "hash", "bytes", "format", "dir", "vars", "callable", "reversed")
)  # fmt: skip


def _by_name(module: str, name: str) -> Any:
    found = __import__(module, fromlist=["*"])
    for part in name.split("."):
        found = getattr(found, part)
    return found


# -- processes ---------------------------------------------------------------------------------------------------------


def close_all_but(*kept: int) -> None:
    """Close all descriptors above standard error except these."""
    last = 2
    for descriptor in sorted(kept):
        os.closerange(last + 1, descriptor)
        last = descriptor
    os.closerange(last + 1, 4096)


def to_null(*descriptors: int) -> None:
    """Redirect descriptors to /dev/null."""
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)


def serve_calls(source: str, reader: int, writer: int) -> None:
    """Serve the judge's requests until it ends."""
    close_all_but(reader, writer)
    to_null(0, 1, 2)
    Served(source, reader, writer).run()


def run_main(source: str, arguments: Sequence[str] = ()) -> None:
    """Run a program as Python does, and exit with its exit code."""
    sys.argv[:] = ["program.py", *arguments]
    sys.path.insert(0, "")
    names = own_module("__main__")
    names["__file__"] = "program.py"
    code = 0
    try:
        exec(compile(source, "program.py", "exec", dont_inherit=True), names)
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


def serve_runs(source: str, reader: int, writer: int, largest: int) -> None:
    """Start a process for each standard input sent by the judge, and return its output."""
    close_all_but(reader, writer)
    to_null(0, 1, 2)
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
                close_all_but()
                run_main(source)
        os.close(sender)
        parts, count = [], 0
        while part := os.read(receiver, 1 << 16):
            parts.append(part)
            count += len(part)
            if count > largest:
                os.kill(child, SIGKILL)
                break
        os.close(receiver)
        status = os.waitpid(child, 0)[1]
        code = "output" if count > largest else os.waitstatus_to_exitcode(status)
        write_frame(writer, encode([code, b"".join(parts)[:largest]]))
