"""Rendering of untrusted chat templates as in transformers, in its sandbox, with bounds on time and size."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, wraps
from threading import local
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_STEPS = 1_000_000  # loop iterations and calls per rendering; long conversations take some thousands
MAX_SECONDS = 10.0  # per rendering, in processor time of this thread
MAX_CHARACTERS = 100_000_000  # total number produced by one rendering, beyond its input
MAX_NUMBER = 1_000_000  # as an argument of a filter or method: widths, repetitions
_WIDE_FORMAT = re.compile(r"\d{6}|\*")
MAX_NODES = 1_000_000  # values in one list or dict built by a template, counting repeated ones each time
_COUNTED, _JOINED, _MADE = "bounded_loop", "bounded_concat", "bounded_container"


class TemplateLimitError(TemplateError):
    """A template that takes too long or writes too much."""


class _Budget(local):
    """The remaining budget of the current rendering; per thread."""

    steps = 0
    characters = 0
    end = 0.0
    given: frozenset[int] = (
        frozenset()
    )  # ids of the lists and dicts among the variables, which live as long as the rendering

    def start(self, variables: dict[str, Any]) -> None:
        self.given = frozenset(id(each) for each in _containers(variables))
        self.steps, self.characters, self.end = MAX_STEPS, MAX_CHARACTERS, time.thread_time() + MAX_SECONDS

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0 or (self.steps % 16 == 0 and time.thread_time() > self.end):
            raise TemplateLimitError(f"it takes more than {MAX_STEPS:,} steps or {MAX_SECONDS:.0f} s")

    def write(self, count: int) -> None:
        self.characters -= count
        if self.characters < 0:
            raise TemplateLimitError(f"it makes more than {MAX_CHARACTERS:,} characters")


_budget = _Budget()


def _containers(value: Any) -> Iterator[Any]:
    """All lists and dicts in a tree-like value."""
    waiting = [value]
    while waiting:
        if isinstance(each := waiting.pop(), (dict, list, tuple)):
            yield each
            waiting.extend(each.values() if isinstance(each, dict) else each)


def _check_made(value: Any) -> Any:
    """Check that a list or dict built by a template has few parts, counting repeated ones each time.

    Applying ``[x, x]`` forty times takes forty lists, but its text has 10^12 characters, and a comparison takes as many steps.
    """
    if not isinstance(value, (dict, list, tuple)):
        return value
    left, waiting = MAX_NODES, [value]
    while waiting:
        each = waiting.pop()
        left -= len(each)
        if left < 0:
            raise TemplateLimitError(f"it makes a list or dict of more than {MAX_NODES:,} values")
        parts = [*each.keys(), *each.values()] if isinstance(each, dict) else each
        waiting += [p for p in parts if isinstance(p, (dict, list, tuple)) and id(p) not in _budget.given]
    return value


def _loop(items: Iterable[Any]) -> Iterator[Any]:
    """The items of a loop, counting each as a step."""
    for item in items:
        _budget.step()
        yield item


def _concat(pieces: Sequence[Any]) -> str:
    texts = [str(piece) for piece in pieces]
    _budget.write(sum(map(len, texts)))
    return "".join(texts)


def _range(*bounds: int) -> range:
    found = range(*bounds)
    if len(found) > 100_000:  # as in Jinja's sandbox
        raise TemplateLimitError(f"range of {len(found):,} is too long")
    return found


_EACH = {"expandtabs": "\t", "indent": "\n", "do_indent": "\n"}  # what the number is multiplied with


def _check_sizes(function: Any, arguments: Sequence[Any], named: dict[str, Any]) -> None:
    """Refuse a call whose result could be far larger than its arguments."""
    values = [*arguments, *named.values()]
    if any(isinstance(value, int) and abs(value) > MAX_NUMBER for value in values) and _makes_text(function):
        raise TemplateLimitError(f"a filter or method has a number above {MAX_NUMBER:,}")
    name = getattr(function, "__name__", "")
    texts = [value for value in (getattr(function, "__self__", None), *values) if isinstance(value, str)]
    if name in ("format", "do_format", "format_map", "__mod__") and any(
        _WIDE_FORMAT.search(text) for text in texts[:1]
    ):
        raise TemplateLimitError("a format has a width of six digits or more")
    if name in ("replace", "do_replace") and len(texts) >= 3:
        _budget.write(texts[0].count(texts[1]) * len(texts[2]))
    if name in _EACH and (numbers := [abs(value) for value in values if isinstance(value, int)]):
        _budget.write(max(numbers) * sum(text.count(_EACH[name]) for text in texts[:1]))
    if name == "translate" and texts and values and isinstance(values[0], dict):
        _budget.write(len(texts[0]) * max((len(v) for v in values[0].values() if isinstance(v, str)), default=0))
    if name in ("join", "do_join"):
        lengths = [len(value) for value in values if hasattr(value, "__len__") and not isinstance(value, str)]
        _budget.write(sum(map(len, texts)) * max(lengths, default=1))


def _makes_text(function: Any) -> bool:
    name = getattr(function, "__name__", "")
    return name.removeprefix("do_") in ("center", "ljust", "rjust", "zfill", "expandtabs", "indent", "tojson")


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter with a check of the sizes."""

    @wraps(function)
    def checked(*arguments: Any, **named: Any) -> Any:
        _budget.step()
        _check_sizes(function, arguments, named)
        found = function(*arguments, **named)
        if isinstance(found, str):
            _budget.write(len(found))
        return _check_made(found)

    return checked


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with a budget for loops, calls and text."""

    intercepted_binops = frozenset(("*", "**", "+", "%"))

    def _generate(self, source: nodes.Template, *arguments: Any, **named: Any) -> str:
        for loop in list(source.find_all(nodes.For)):
            loop.iter = nodes.Filter(loop.iter, _COUNTED, [], [], None, None, lineno=loop.lineno)
        return super()._generate(_counted(source), *arguments, **named)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            _check_product(left, right)
        elif operator == "**" and not (_small(left, 10**6) and _small(right, 64)):
            raise TemplateLimitError("a power is too large")
        elif operator == "%" and isinstance(left, str) and _WIDE_FORMAT.search(left):
            raise TemplateLimitError("a format has a width of six digits or more")
        found = super().call_binop(context, operator, left, right)
        if isinstance(found, (str, list, tuple)):
            _budget.write(len(found))
        return _check_made(found)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is not None and _WIDE_FORMAT.search(str(value.__self__)):
            raise TemplateLimitError("a format has a width of six digits or more")
        return wrapped

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        _budget.step()
        _check_sizes(__obj, args, kwargs)
        found = super().call(__context, __obj, *args, **kwargs)
        if isinstance(found, str):
            _budget.write(len(found))
        return _check_made(found)


def _small(value: Any, most: int) -> bool:
    return isinstance(value, (int, float)) and abs(value) <= most


def _check_product(left: Any, right: Any) -> None:
    for sequence, number in ((left, right), (right, left)):
        if isinstance(sequence, (str, list, tuple)) and isinstance(number, int):
            _budget.write(len(sequence) * max(0, number))
    if all(isinstance(value, int) and value.bit_length() > 10_000 for value in (left, right)):
        raise TemplateLimitError("a product is too large")


def _counted(node: nodes.Template) -> nodes.Template:
    """The template with filters that count the output of every `~`, and the parts of every new list and dict."""

    def changed(value: Any) -> Any:
        if isinstance(value, list):
            return [changed(item) for item in value]
        if not isinstance(value, nodes.Node):
            return value
        for name, field in value.iter_fields():
            setattr(value, name, changed(field))
        if isinstance(value, nodes.Concat):
            return nodes.Filter(
                nodes.List(value.nodes, lineno=value.lineno), _JOINED, [], [], None, None, lineno=value.lineno
            )
        is_made = isinstance(value, (nodes.List, nodes.Dict)) or (
            isinstance(value, nodes.Tuple) and value.ctx == "load"  # otherwise the targets of a loop
        )
        return nodes.Filter(value, _MADE, [], [], None, None, lineno=value.lineno) if is_made else value

    return changed(node)


@lru_cache(maxsize=32)
def compiled(text: str) -> Any:
    """A template with the filters, globals and tags of transformers.

    Raises:
        jinja2.TemplateError: it has a syntax error.
    """
    from transformers.utils.chat_template_utils import _compile_jinja_template

    theirs = _compile_jinja_template("").environment
    ours = BoundedEnvironment(
        trim_blocks=theirs.trim_blocks,
        lstrip_blocks=theirs.lstrip_blocks,
        extensions=[type(extension) for extension in theirs.extensions.values()],
    )
    ours.filters.update({name: _bounded(function) for name, function in theirs.filters.items()})
    ours.filters.update({_COUNTED: _loop, _JOINED: _concat, _MADE: _check_made})
    ours.globals.update({**theirs.globals, "range": _range})
    ours.globals.pop("lipsum", None)
    try:
        return ours.from_string(text)
    except RecursionError:
        raise TemplateLimitError("it is nested too deeply") from None


def render(text: str, track_generation: bool, **variables: Any) -> tuple[str, list[tuple[int, int]]]:
    """Render a template; returns the text and the spans of its `{% generation %}` blocks.

    Raises:
        jinja2.TemplateError: the template raises, takes too long, or writes too much.
    """
    template = compiled(text)
    pieces: list[str] = []
    spans: list[tuple[int, int]] = []

    def write() -> None:
        for piece in template.generate(**variables):
            _budget.write(len(piece))
            pieces.append(piece)

    _budget.start(variables)
    try:
        if track_generation:
            with template.environment.activate_tracker(pieces, spans):
                write()
        else:
            write()
    except (RecursionError, MemoryError, OverflowError) as error:
        raise TemplateLimitError(f"it is too deep or too large ({type(error).__name__})") from None
    return "".join(pieces), spans
