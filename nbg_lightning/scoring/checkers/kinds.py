"""The checkers, each with its reference, its verdict, and the value of a wrong answer.

``prepare``, ``known`` and ``keep_reference`` run in the server. ``reference`` and ``verdict`` run in the child of one answer:
failures in ``reference`` are attributed to the question or the checker, failures in ``verdict`` to the answer.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import hashlib
import importlib
import json
import logging
import math
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from nbg_lightning.scoring.checkers.grammar import refusal
from nbg_lightning.scoring.checkers.integrals import differs
from nbg_lightning.scoring.checkers.tasks import find_task, load_task

_MOST_REFERENCES = 100_000  # number of references remembered as valid
_REHEARSED = 3  # items per task
_REHEARSAL_SECONDS = 2.0


# Typical pairs, compared once in the server: antlr adapts its grammar while parsing (0.1 s for the first fraction, 1 ms for the
# next), and sympy imports and caches lazily.
_USUAL = (
    ("1/2", "0.5"), (r"\frac{1}{2}", r"\frac{2}{3}"), (r"\frac{\sqrt{8}}{2}", r"\sqrt{2}"), ("x^2+2x+1", "(x+1)^2"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} \frac{1}{2} \\ 3 \end{pmatrix}"), ("[2,5)", "(2,5]"),
    (r"(-\infty, 3] \cup [5, \infty)", r"(-\infty,3]"), ("1,2,3", "3,2,1"), (r"\{1,2\}", r"\{2,1\}"), ("(1,2)", "(2,1)"),
    ("x=5", "5"), ("y=2x+3", "y=3+2x"), ("x>3", "x\\geq 3"), (r"\pi", "3.14"), (r"\frac{3\pi}{4}", r"135^\circ"),
    ("10\\%", "0.1"), (r"2^{10}", "1024"), (r"\sin(x)\cos(x)", r"\frac{\sin(2x)}{2}"), (r"\log_2 8", r"\ln e^3"),
    (r"\binom{5}{2}", "5!"), ("3+4i", "5e^{i}"), (r"\sqrt[3]{2}", "2^{1/3}"), (r"\text{east}", r"\text{west}"),
    ("1.5e3", "1{,}500"), ("a_1+b_2", "ab"), (r"|x|", "-x"), (r"3 \pm \sqrt{2}", r"3-\sqrt{2}"), (r"\overline{AB}", "AB"),
)  # fmt: skip


# Python's `float` and `complex` accept these; a distance to one is NaN, and some tasks' `min(1, NaN)` gives full marks.
_NOT_FINITE = re.compile(r"(?<![a-z])(?:nan|inf(?:inity)?)[ij]?(?![a-z])", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]{2}")


class NotAnAnswer(Exception):
    """The answer is a program, or something else that its checker must not evaluate."""


class Checker(ABC):
    """One kind of checker. The constructor imports what it needs.

    Attributes:
        guarded: whether it never needs to run code to check an answer.
    """

    guarded: ClassVar[bool] = True

    def prepare(self, *arguments: Any) -> bool:
        """Create state shared by answers, in the server; returns whether there is any."""
        return False

    def known(self, *arguments: Any) -> Any:
        """The verdict in the server, if it follows from a stored reference; None to use a child."""
        return None

    @abstractmethod
    def reference(self, *arguments: Any) -> Any:
        """Validate the question's own answer before looking at the model's; raise if it is invalid.

        Returns:
            Data for `keep_reference`, as JSON.
        """

    def keep_reference(self, kept: Any, *arguments: Any) -> None:  # noqa: B027 - most do not
        """Record, in the server, that a child found the reference valid; raise if this is impossible."""

    @abstractmethod
    def verdict(self, *arguments: Any) -> Any:
        """The value of the answer, as JSON."""

    @abstractmethod
    def read(self, value: Any, *arguments: Any) -> Any:
        """Validate a verdict from a child; raise if it is impossible."""

    @abstractmethod
    def wrong(self, *arguments: Any) -> Any:
        """The verdict of an answer that could not be checked."""


class MathChecker(Checker):
    """Equality of two LaTeX expressions by math-verify. Arguments: gold and answer, without ``$`` and ``\\boxed``.

    With None as the answer: whether the gold is a valid expression.
    """

    def __init__(self) -> None:
        import math_verify

        logging.disable(logging.WARNING)  # it warns for each answer that it has no timeout, which is handled here
        self._parse = functools.partial(math_verify.parse, parsing_timeout=None)
        self._verify = functools.partial(math_verify.verify, timeout_seconds=None)
        self._gold: list[Any] = []
        for one, other in _USUAL:
            self._verify(self._parse(f"\\boxed{{{one}}}"), self._parse(f"\\boxed{{{other}}}"))

    def reference(self, gold: str, answer: str | None) -> None:
        self._gold = self._parse(f"\\boxed{{{gold}}}")
        if answer is not None and not self._gold:
            raise ValueError(f"the gold answer {gold[:80]!r} is not understood")

    def verdict(self, gold: str, answer: str | None) -> bool:
        if answer is None:
            return any(not isinstance(form, str) for form in self._gold)
        parsed = self._parse(f"\\boxed{{{answer}}}")
        return bool(parsed) and bool(self._verify(self._gold, parsed))

    def read(self, value: Any, *arguments: Any) -> bool:
        return value is True

    def wrong(self, *arguments: Any) -> bool:
        return False


# Tasks of reasoning-gym 0.1.25 whose checkers evaluate the answer, and whether it is Python data (``eval``) rather than a
# formula (sympy's ``parse_expr``). The others compare texts, numbers, or JSON.
EVALUATING = {
    "binary_matrix": True,
    "n_queens": True,
    "spiral_matrix": True,
    "string_insertion": True,
    "countdown": False,
    "intermediate_integration": False,
    "polynomial_multiplication": False,
    "puzzle24": False,
    "simple_integration": False,
}

INTEGRALS = (
    "intermediate_integration",
    "simple_integration",
)  # 1 if derivative and integrand simplify to the same, otherwise 0


class ReasoningGymChecker(Checker):
    """A score from 0 to 1 by the task's own checker. Arguments: task, its settings, the entry, the answer.

    The entry's own answer is scored first, once per entry; an answer with the same text gets the same score.
    """

    def __init__(self) -> None:
        @functools.lru_cache(maxsize=64)
        def dataset(task: str, settings: str) -> Any:
            load_task(task)
            factory = importlib.import_module("reasoning_gym.factory")
            made = factory.create_dataset(task, **json.loads(settings))
            if (place := find_task(task)) is not None and not place.light:
                _rehearse(made)
            return made

        self._made = dataset
        self._gold_scores: collections.OrderedDict[bytes, float] = collections.OrderedDict()

    def _dataset(self, task: str, settings: dict[str, Any]) -> Any:
        return self._made(task, json.dumps(settings, sort_keys=True))

    @staticmethod
    def _key(task: str, settings: dict[str, Any], entry: dict[str, Any]) -> bytes:
        text = json.dumps([task, settings, entry], sort_keys=True, default=repr)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def _score(self, task: str, settings: dict[str, Any], entry: dict[str, Any], answer: str) -> float:
        if task in EVALUATING and (reason := refusal(answer, EVALUATING[task])) is not None:
            raise NotAnAnswer(reason)  # some of the checkers give partial credit to any text
        gold = entry["answer"]
        if gold is not None and not _WORD.search(str(gold)) and _NOT_FINITE.search(answer):
            raise NotAnAnswer("it is not a finite number")
        if task in INTEGRALS and differs(answer, entry["metadata"]):
            return 0.0
        return float(self._dataset(task, settings).score_answer(answer=answer, entry=entry))

    def prepare(self, task: str, settings: dict[str, Any], entry: dict[str, Any], answer: str) -> bool:
        made = self._made.cache_info().misses
        self._dataset(task, settings)
        return bool(self._made.cache_info().misses > made)

    def known(self, task: str, settings: dict[str, Any], entry: dict[str, Any], answer: str) -> float | None:
        return self._gold_scores.get(self._key(task, settings, entry)) if answer == entry["answer"] else None

    def reference(self, task: str, settings: dict[str, Any], entry: dict[str, Any], answer: str) -> float | None:
        gold = entry["answer"]
        if gold is None:
            return None
        score = self._gold_scores.get(self._key(task, settings, entry))
        if score is None:
            score = self._score(task, settings, entry, gold)
        if not score > 0:
            raise ValueError(f"the checker of {task!r} scores the entry's own answer {str(gold)[:60]!r} with {score:g}")
        return self.read(score)

    def keep_reference(
        self, kept: Any, task: str, settings: dict[str, Any], entry: dict[str, Any], answer: str
    ) -> None:
        if kept is None:
            return
        self._gold_scores[self._key(task, settings, entry)] = self.read(kept)
        if len(self._gold_scores) > _MOST_REFERENCES:
            self._gold_scores.popitem(last=False)

    def verdict(self, task: str, settings: dict[str, Any], entry: dict[str, Any], answer: str) -> float:
        return self._score(task, settings, entry, answer)

    def read(self, value: Any, *arguments: Any) -> float:
        score = float(value)
        if not math.isfinite(score):
            raise ValueError(f"the checker's score is {score}")
        return min(1.0, max(0.0, score))

    def wrong(self, *arguments: Any) -> float:
        return 0.0


def _rehearse(dataset: Any) -> None:
    """Let a task check answers of its own, once in the server, since sympy imports and caches lazily.

    No text from a model or a question is involved.
    """
    end = time.monotonic() + _REHEARSAL_SECONDS
    items: list[dict[str, Any]] = []
    with contextlib.suppress(Exception):  # a missing dependency is reported again when a verdict is requested
        for place in range(min(_REHEARSED, len(dataset))):
            items.append(dataset[place])
            for one, other in ((items[-1], items[-1]), (items[-1], items[0]), (items[0], items[-1])):
                if time.monotonic() > end:
                    return
                dataset.score_answer(answer=other["answer"], entry=one)


class IFEvalChecker(Checker):
    """Whether each instruction is followed, strictly and loosely. Arguments: instructions, theirs, the prompt, the answer."""

    def __init__(self) -> None:
        from lm_eval.tasks.ifeval import utils

        self._utils = utils

    def _follows(
        self, instructions: list[str], arguments: list[dict[str, Any]], prompt: str, response: str
    ) -> tuple[list[bool], list[bool]]:
        example = self._utils.InputExample(
            key=0,
            instruction_id_list=instructions,
            prompt=prompt,
            kwargs=arguments,
        )
        strict = self._utils.test_instruction_following_strict(example, response)
        loose = self._utils.test_instruction_following_loose(example, response)
        return list(strict.follow_instruction_list), list(loose.follow_instruction_list)

    def reference(self, instructions: list[str], arguments: list[dict[str, Any]], prompt: str, response: str) -> None:
        """Try every instruction on a plain text: missing nltk data or invalid arguments are not the answer's fault."""
        self._follows(instructions, arguments, prompt, "This is a plain text. It has two sentences.\n\nAnd two parts.")

    def verdict(
        self, instructions: list[str], arguments: list[dict[str, Any]], prompt: str, response: str
    ) -> tuple[list[bool], list[bool]]:
        return self._follows(instructions, arguments, prompt, response)

    def read(self, value: Any, instructions: list[str], *others: Any) -> tuple[list[bool], list[bool]]:
        strict, loose = ([one is True for one in part] for part in value)
        if len(strict) != len(instructions) or len(loose) != len(instructions):
            raise ValueError("another number of verdicts than of instructions")
        return strict, loose

    def wrong(self, instructions: Sequence[str], *others: Any) -> tuple[list[bool], list[bool]]:
        return [False] * len(instructions), [False] * len(instructions)


class FunctionChecker(Checker):
    """A user function. Its behaviour is its own responsibility, so all of its failures are errors.

    Args:
        path: its import path.
    """

    guarded = False

    def __init__(self, path: str):
        module, _, name = path.replace(":", ".").rpartition(".")
        self._function = getattr(importlib.import_module(module), name)
        self._value: Any = None

    def reference(self, *arguments: Any) -> None:
        self._value = self._function(*arguments)

    def verdict(self, *arguments: Any) -> Any:
        return self._value

    def read(self, value: Any, *arguments: Any) -> Any:
        return value

    def wrong(self, *arguments: Any) -> Any:
        return None


_KINDS: dict[str, Callable[[], Checker]] = {
    "math": MathChecker,
    "reasoning_gym": ReasoningGymChecker,
    "ifeval": IFEvalChecker,
}


def make_checker(kind: str, function: str = "") -> Checker:
    """Create a checker; ``function`` is the path of the user function, for that kind."""
    return FunctionChecker(function) if kind == "function" else _KINDS[kind]()
