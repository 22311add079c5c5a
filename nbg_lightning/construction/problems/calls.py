"""Calls of a function: collected, varied, run in the sandbox, and turned into tests."""

from __future__ import annotations

import ast
import builtins
import json
import math
import random
import secrets
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nbg_lightning import syntax
from nbg_lightning.scoring.bounded import json_value, literal, python_expression, python_tree

if TYPE_CHECKING:
    from nbg_lightning.scoring.sandbox.sandbox import Sandbox

MAX_CALL = 300  # characters of a call in a test
_EXCEPTIONS = {
    name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)
}
MAX_LINE = 500_000  # characters of a call's result, as written by the program's process
MAX_VALUE = 500  # characters of an expected value
_WORDS = (
    "",
    "a",
    "abc",
    "Hello, World!",
    "  two  words ",
    "12",
    "-3.5",
    "a,b;c",
    "x" * 12,
    "été",
    "A\tb\nc",
    "  a\n    b\n  c",
)
_NUMBERS = (0, 1, 2, 3, 5, 7, 10, 12, 16, 100, -1, -2, -7, 0.5, 1.0, 2.5, -0.25)
_SWITCHES = (None, True, False)
_LISTS: tuple[list[Any], ...] = (
    [],
    [1],
    [3, 1, 2],
    [1, 2, 2, 3, 5],
    [0, -1, 4, 4],
    ["b", "a", "c"],
    ["a", "", "ab"],
    [1.5, 0.5],
    [[1, 2], [3]],
)

_HARNESS = """
import ast, copy, io, json, os, sys
out = os.fdopen(os.dup(1), "w", buffering=1)
sys.stdout = sys.stderr = io.StringIO()
task = json.load(open("task.json"))
names = {"__name__": "program"}
def plain(value):
    try:
        text = repr(value)
        same = ast.literal_eval(text)
        return text if type(same) is type(value) and same == value and repr(same) == text else None
    except Exception:
        return None
try:
    exec(compile(task["source"], "program.py", "exec"), names)
    function = names[task["name"]]
    lines = task["source"].splitlines()
except BaseException as error:
    out.write(task["token"] + json.dumps(["stillborn", type(error).__name__]) + "\\n")
    os._exit(0)
for index, call in enumerate(task["calls"]):
    node = ast.parse(call, mode="eval").body
    arguments = [ast.literal_eval(each) for each in node.args]
    keywords = {each.arg: ast.literal_eval(each.value) for each in node.keywords}
    before = plain(tuple(arguments))
    try:
        value = plain(function(*arguments, **keywords))
        after = plain(tuple(arguments))
        result = ["opaque", "", ""] if None in (value, after) else ["value", value, "" if after == before else after]
    except BaseException as error:
        place = error.__traceback__
        while place.tb_next is not None:
            place = place.tb_next
        own = place.tb_frame.f_code.co_filename == "program.py"
        own = own and lines[place.tb_lineno - 1].strip().startswith("raise")
        known = next(each.__name__ for each in type(error).__mro__ if each.__module__ == "builtins")
        result = ["raises" if own else "raised", known, ""]
    out.write(task["token"] + json.dumps([index, *result]) + "\\n")
os._exit(0)
"""


def read_call(text: str, name: str) -> str | None:
    """A call of the function with literal arguments in normalized form; None if the text is not one.

    Example:
        >>> read_call("f( [1,2], key = 'a' )", "f"), read_call("f(x)", "f")
        ("f([1, 2], key='a')", None)
    """
    node = python_expression(text)
    return None if node is None else _written(node, name)


def _written(node: ast.AST, name: str) -> str | None:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name):
        return None
    names = [keyword.arg for keyword in node.keywords]
    if None in names or len(set(names)) < len(names):
        return None
    try:
        for each in (*node.args, *(keyword.value for keyword in node.keywords)):
            literal(each)
        call = ast.unparse(node)
    except (ValueError, RecursionError):
        return None
    return call if len(call) <= MAX_CALL else None


def calls_in(text: str, name: str) -> list[str]:
    """All calls of a function with literal arguments in code, such as assertions, in order and without duplicates."""
    found: dict[str, None] = {}
    for line in text.splitlines():
        tree = python_tree(line.strip())
        for node in ast.walk(tree) if tree is not None else ():
            if (call := _written(node, name)) is not None:
                found[call] = None
    return list(found)


def varied_calls(source: str, name: str, known: Sequence[str], count: int, seed: int) -> list[str]:
    """Variations of known calls, or calls with various values if none are known.

    Args:
        source: the program, for the number of arguments.
        name: name of the function.
        known: calls in normalized form.
        count: maximum number of calls.
        seed: the result is a function of all arguments.

    Returns:
        Calls without duplicates, and without the known ones.
    """
    chance = random.Random(f"{seed}\n{source}\n{len(known)}")
    found: dict[str, None] = {}
    words = _constants(source)
    generator = (
        _variations(known, _optional(source, name), words, chance) if known else _guesses(source, name, words, chance)
    )
    for _, call in zip(range(count * 5), generator, strict=False):
        text = read_call(f"{name}({', '.join(call)})", name)
        if text is not None and text not in known:
            found[text] = None
        if len(found) == count:
            break
    return list(found)


def _constants(source: str) -> list[str]:
    """Short string constants of a program: what it looks for, its input should contain."""
    found = {
        each.value: None
        for each in ast.walk(syntax.parse(source))
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and 0 < len(each.value) <= 12
    }
    return [*found]


def _variations(
    known: Sequence[str], optional: Sequence[str], words: Sequence[str], chance: random.Random
) -> Iterator[list[str]]:
    parsed = []
    for call in known:
        node = syntax.parse(call, mode="eval").body
        assert isinstance(node, ast.Call)
        values = [(None, ast.literal_eval(each)) for each in node.args]
        parsed.append([*values, *((each.arg, ast.literal_eval(each.value)) for each in node.keywords)])
    while True:
        arguments = list(chance.choice(parsed))
        if not arguments:
            return
        other = chance.choice(parsed)
        for index in range(len(arguments)):
            label, value = arguments[index]
            if chance.random() < 0.25 and index < len(other) and other[index][0] == label:
                value = other[index][1]  # taken from another known call
            if chance.random() < 0.7:
                value = _varied(value, words, chance)
            arguments[index] = label, value
        given = sum(label is None for label, _ in arguments)
        left = [each for each in optional[given:] if each and each not in dict(arguments)]
        if left and chance.random() < 0.3:
            alike = [value for _, value in arguments]
            arguments.append((chance.choice(left), chance.choice([chance.choice(alike), *_SWITCHES, *_NUMBERS[:5]])))
        yield [repr(value) if label is None else f"{label}={value!r}" for label, value in arguments]


def _function(source: str, name: str) -> ast.FunctionDef:
    return next(node for node in syntax.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == name)


def _optional(source: str, name: str) -> list[str]:
    """Names of the positional arguments, with empty texts for those without a default; then of the keyword arguments."""
    arguments = _function(source, name).args
    positional = [*arguments.posonlyargs, *arguments.args]
    required = len(positional) - len(arguments.defaults)
    only = len(arguments.posonlyargs)
    names = ["" if index < max(required, only) else each.arg for index, each in enumerate(positional)]
    return [*names, *(each.arg for each in arguments.kwonlyargs)]


def _varied(value: Any, words: Sequence[str], chance: random.Random) -> Any:
    """A value of the same type that differs slightly or strongly."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return chance.choice([value + 1, value - 1, 0, 1, -value, 2 * value, value + chance.randint(-20, 20)])
    if isinstance(value, float):
        return chance.choice([value + 1.0, value / 2, 0.0, -value, round(chance.uniform(-10, 10), 2)])
    if isinstance(value, str):
        return _varied_text(value, words, chance)
    if isinstance(value, bytes):
        return chance.choice([value[1:], value + value, value[::-1], b""])
    if isinstance(value, (list, tuple)):
        return type(value)(_varied_items(list(value), words, chance))
    if isinstance(value, dict):
        return {key: _varied(each, words, chance) for key, each in value.items() if chance.random() < 0.9}
    if isinstance(value, (set, frozenset)):
        return type(value)(_varied_items(sorted(value, key=repr), words, chance))
    return value


def _varied_text(value: str, words: Sequence[str], chance: random.Random) -> str:
    place = chance.randint(0, len(value))
    choices = [value[:place], value[place:], value[::-1], value.swapcase(), value * 2, "", f" {value} "]
    choices += [value[:place] + chance.choice("aZ0 .,-\n") + value[place:], value[:place] + value[place + 1 :]]
    if words and chance.random() < 0.4:
        return value[:place] + chance.choice(words) + value[place:]
    return chance.choice([*choices, chance.choice(_WORDS)])


def _varied_items(value: list[Any], words: Sequence[str], chance: random.Random) -> list[Any]:
    if not value:
        return value
    place = chance.randrange(len(value))
    choices = [value[:place], value[::-1], value + value[: place + 1], sorted(value, key=repr), []]
    choices.append([_varied(each, words, chance) if index == place else each for index, each in enumerate(value)])
    choices.append([_varied(each, words, chance) for each in value])
    choices.append([*value, _varied(value[place], words, chance)])
    return chance.choice(choices)


def _guesses(source: str, name: str, words: Sequence[str], chance: random.Random) -> Iterator[list[str]]:
    """Calls with various values, for as many arguments as the function requires (or a few more)."""
    function = _function(source, name)
    positional = [*function.args.posonlyargs, *function.args.args]
    required = len(positional) - len(function.args.defaults)
    needed = [a.arg for a, d in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True) if d is None]
    if not positional and not function.args.vararg and not needed:
        yield []
        return
    pools: tuple[Sequence[Any], ...] = ((*_WORDS, *words), _NUMBERS, _LISTS)
    while True:
        count = chance.choice([required, required, required, min(len(positional), required + 1)])
        count += chance.randint(1, 2) if function.args.vararg else 0
        one = chance.choice(pools)
        alike = chance.random() < 0.4
        values = [chance.choice(one if alike else chance.choice(pools)) for _ in range(count)]
        yield [repr(value) for value in values] + [f"{each}={chance.choice(chance.choice(pools))!r}" for each in needed]


# -- running -------------------------------------------------------------------------------------------------------------

CallOutcome = tuple[str, str, str]
"""Outcome of a call: its kind, its value, and the repr of the positional arguments if the call changed them.

``value`` and its repr; ``raises`` and the builtin exception raised by a ``raise`` of the program, ``raised`` and any other;
``opaque`` (not a plain value), ``none`` (it was not reached), ``stillborn`` (the program could not be loaded)."""


def run_calls(
    sandbox: Sandbox, versions: Sequence[str], name: str, calls: Sequence[str], timeout: float | None = None
) -> list[list[CallOutcome]]:
    """Run calls of each version of a program; each version has a sandbox of its own.

    Args:
        sandbox: the sandbox.
        versions: complete programs.
        name: name of the function.
        calls: calls in normalized form.
        timeout: seconds for all calls of a version, instead of the sandbox's.

    Raises:
        RuntimeError: the sandbox does not work.
    """
    token = secrets.token_hex(8) + " "
    jobs = []
    for source in versions:
        task = {"source": source, "name": name, "calls": list(calls), "token": token}
        jobs.append({"program": _HARNESS, "files": {"task.json": json.dumps(task)}})
    found = []
    for result in sandbox.run_many(jobs, timeout):
        if result.status == "error":
            raise RuntimeError(f"the sandbox failed ({result.detail}); see `nbg_lightning.scoring.Sandbox.probe`")
        outcomes: list[CallOutcome] = [("none", result.status, "")] * len(calls)
        for line in result.stdout.splitlines():
            if not line.startswith(token):
                continue
            place, outcome = _read_outcome(line[len(token) :])
            if outcome[0] == "stillborn":
                outcomes = [outcome] * len(calls)
            elif 0 <= place < len(calls):
                outcomes[place] = outcome
        found.append(outcomes)
    return found


def _read_outcome(line: str) -> tuple[int, CallOutcome]:
    """Index and outcome of a call from a line of output, which the program may have forged: index -1 if malformed."""
    try:
        found = json_value(line) if len(line) <= MAX_LINE else None
    except ValueError:
        found = None
    match found:
        case ["stillborn", str(reason)]:
            return -1, ("stillborn", reason[:MAX_CALL], "")
        case [int(place), "value", str(value), str(after)] if _is_literal(value) and (not after or _is_literal(after)):
            return place, ("value", value, after)
        case [int(place), "raises" | "raised" as kind, str(name), _] if name in _EXCEPTIONS:
            return place, (kind, name, "")
        case [int(place), "opaque", _, _]:
            return place, ("opaque", "", "")
    return -1, ("none", "", "")


def _is_literal(text: str) -> bool:
    try:
        value_of(text)
    except ValueError:
        return False
    return True


def value_of(text: str) -> Any:
    """The value of a literal written by a program.

    Raises:
        ValueError: it is not a literal, or beyond the limits of `nbg_lightning.scoring.bounded`.
    """
    node = python_expression(text)
    if node is None:
        raise ValueError("it is not a literal")
    return literal(node)


def as_test(call: str, outcome: CallOutcome) -> str:
    """A test that a call has this outcome; numbers with a fraction may differ by rounding.

    Example:
        >>> as_test("f(2)", ("value", "4", "")), as_test("f(2)", ("value", "0.1", ""))
        ('assert f(2) == 4', 'assert abs(f(2) - 0.1) <= 1e-09')
        >>> print(as_test("f([2, 1], key=3)", ("value", "None", "([1, 2],)")))
        arguments = ([2, 1],)
        assert f(*arguments, key=3) is None
        assert arguments == ([1, 2],)
        >>> print(as_test("f('')", ("raises", "ValueError", "")))
        try:
            f('')
        except ValueError:
            pass
        else:
            raise AssertionError("f('') must raise ValueError")
    """
    kind, value, after = outcome
    if after:
        node = python_expression(call)
        assert isinstance(node, ast.Call), "calls are in their normal form"
        arguments = ast.unparse(ast.Tuple(node.args, ast.Load()))
        node.args = [ast.Starred(ast.Name("arguments", ast.Load()), ast.Load())]
        first = as_test(ast.unparse(node), (kind, value, ""))
        return f"arguments = {arguments}\n{first}\nassert arguments == {after}"
    if kind == "raises":
        message = f"{call} must raise {value}"
        return f"try:\n    {call}\nexcept {value}:\n    pass\nelse:\n    raise AssertionError({message!r})"
    expected = value_of(value)
    if isinstance(expected, float):
        return f"assert abs({call} - {value}) <= {max(1e-9, abs(expected) * 1e-9):.3g}"
    if expected is None or isinstance(expected, bool):
        return f"assert {call} is {value}"
    return f"assert {call} == {value}"


def is_fair(outcome: CallOutcome) -> bool:
    """Whether any other correct program must do the same: an intended error, or a short value not affected by rounding.

    Example:
        >>> is_fair(("value", "[0.5, 2]", "")), is_fair(("value", "[0.1234567890123]", "")), is_fair(("raised", "KeyError", ""))
        (True, False, False)
    """
    kind, value, after = outcome
    if kind != "value" or len(value) + len(after) > MAX_VALUE:
        return kind == "raises"

    def plain(each: Any) -> bool:
        if isinstance(each, float):
            return math.isfinite(each) and round(each, 6) == each
        if isinstance(each, dict):
            return all(plain(key) and plain(item) for key, item in each.items())
        return not isinstance(each, (list, tuple, set, frozenset)) or all(map(plain, each))

    try:
        expected, arguments = value_of(value), value_of(after or "()")
    except ValueError:
        return False
    if not plain(arguments):
        return False
    return math.isfinite(expected) if isinstance(expected, float) else plain(expected)


def differs(outcome: CallOutcome, reference: CallOutcome) -> bool:
    """Whether a version behaves differently from the program whose outcome a test is made of."""
    if reference[0] == "raises":
        return outcome[0] not in ("raises", "raised") or outcome[1] != reference[1]
    if outcome[0] != "value" or bool(outcome[2]) != bool(reference[2]):
        return True
    pairs = zip(outcome[1:], reference[1:], strict=True)
    try:
        return any(one != two and value_of(one) != value_of(two) for one, two in pairs)
    except ValueError:  # one of them is not a plain value
        return True
