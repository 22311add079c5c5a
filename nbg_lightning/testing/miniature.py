"""Generated data for the miniature recipe: functions to write, answer styles, and judgements of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nbg_lightning.data.chat_sources import ChatListPart, ChatSource
from nbg_lightning.data.pair_sources import PairList, PairSource
from nbg_lightning.data.question import Question
from nbg_lightning.data.question_sources import Place, QuestionSource, ReasoningGymQuestions
from nbg_lightning.data.sources import Part

_NAME = "f"
# Parameters, the result in words and in Python, and arguments to test it with; K is a number of the task.
_KINDS: tuple[tuple[str, str, str, tuple[tuple[Any, ...], ...]], ...] = (
    ("x", "x plus K", "x + K", ((0,), (5,), (-3,))),
    ("x", "x minus K", "x - K", ((0,), (30,), (-2,))),
    ("x", "x times K", "x * K", ((1,), (3,), (-4,))),
    ("x", "the remainder of x divided by K", "x % K", ((100,), (7,), (33,))),
    ("x", "whether x is greater than K", "x > K", ((0,), (50,), (10,))),
    ("a, b", "the sum of a and b", "a + b", ((1, 2), (-3, 9), (0, 0))),
    ("a, b", "the difference of a and b", "a - b", ((1, 2), (9, -3), (5, 5))),
    ("a, b", "the larger of a and b", "max(a, b)", ((1, 2), (9, -3), (4, 4))),
    ("a, b", "the smaller of a and b", "min(a, b)", ((1, 2), (9, -3), (4, 4))),
    ("items", "the number of items", "len(items)", (([],), ([4, 5],), ([1, 1, 1],))),
    ("items", "the sum of the items", "sum(items)", (([],), ([4, 5],), ([1, 1, 1],))),
    ("items", "the last of the items", "items[-1]", (([3],), ([4, 5],), ([1, 2, 7],))),
    ("text", "the text in upper case", "text.upper()", (("a",), ("Ab c",), ("",))),
    ("text", "the text backwards", "text[::-1]", (("ab",), ("Ab c",), ("",))),
)


@dataclass(frozen=True)
class FunctionTask:
    """A task to write one function.

    Attributes:
        text: the task, for the model.
        name: name of the function.
        code: a solution.
        tests: assertions that hold for it.
    """

    text: str
    name: str
    code: str
    tests: tuple[str, ...]

    @property
    def answer(self) -> str:
        """The solution as a chat model would write it."""
        return f"```python\n{self.code}\n```"


def function_tasks(count: int, seed: int = 0) -> Iterator[FunctionTask]:
    """Tasks, determined by the seed. There are about a hundred different ones, so some are repeated.

    Example:
        >>> task = next(function_tasks(1, seed=1))
        >>> space = {}
        >>> exec(task.code + chr(10) + chr(10).join(task.tests), space)  # raises if a test fails
    """
    chance = random.Random(f"function tasks {seed}")
    for _ in range(count):
        parameters, words, expression, arguments = chance.choice(_KINDS)
        number = str(chance.randint(2, 20))
        words, expression = words.replace("K", number), expression.replace("K", number)
        function = eval(f"lambda {parameters}: {expression}")  # from the table above
        tests = tuple(f"assert {_NAME}({', '.join(map(repr, given))}) == {function(*given)!r}" for given in arguments)
        text = f"Write a Python function {_NAME}({parameters}) that returns {words}."
        yield FunctionTask(text, _NAME, f"def {_NAME}({parameters}):\n    return {expression}", tests)


@dataclass
class MadeExamples:
    """Base class of sources of generated examples.

    Args:
        count: number of examples.
        seed: another seed gives other examples.
    """

    count: int
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]  # of the source beside it
        if self.count < 1:
            raise ValueError(f"count is invalid: {self.count}; give at least 1")


@dataclass
class FunctionQuestions(MadeExamples, QuestionSource):
    """Small functions to write; ``data`` has ``entry_point`` and ``tests`` for `CodeReward`."""

    def rows(self) -> Iterator[tuple[Place, Mapping[str, Any]]]:
        for number, task in enumerate(function_tasks(self.count, self.seed)):
            data = {"entry_point": task.name, "tests": list(task.tests)}
            yield partial("function task {}".format, number), {"prompt": task.text, "data": data}


@dataclass
class FunctionChat(MadeExamples, ChatSource):
    """The same tasks with their solutions, as conversations."""

    def identity(self) -> dict[str, Any]:
        return {"kind": "FunctionChat", "tasks": repr((_NAME, _KINDS)), "count": self.count, "seed": self.seed}

    def parts(self) -> list[Part]:
        rows = [
            {"messages": [{"role": "user", "content": task.text}, {"role": "assistant", "content": task.answer}]}
            for task in function_tasks(self.count, self.seed)
        ]
        return [ChatListPart(200 * len(rows), rows, 0)]


@dataclass
class StyledAnswers:
    """Base class of sources of answers to reasoning-gym tasks in two styles: the answer alone, or a sentence.

    Args:
        tasks: task names with short answers, such as ``chain_sum``.
        count: items per task.
        seed: another seed gives other items and styles.
        config: settings per task.
    """

    tasks: list[str]
    count: int
    seed: int = 0
    config: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]  # of the source beside it
        self._questions()

    def _questions(self) -> Iterator[Question]:
        return ReasoningGymQuestions(self.tasks, self.count, self.seed, self.config).questions()

    def identity(self) -> dict[str, Any]:
        settings = {"tasks": self.tasks, "count": self.count, "seed": self.seed, "config": self.config}
        return {"kind": type(self).__name__, **settings}


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"{name} is invalid: {share}; give a share from 0 to 1")


@dataclass
class StyledChat(StyledAnswers, ChatSource):
    """reasoning-gym tasks answered in two styles: by the answer alone, which a judge may prefer, or by a sentence.

    Args:
        tasks: see `StyledAnswers`; likewise ``count``, ``seed`` and ``config``.
        sentences: share of answers given as sentences.
    """

    sentences: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_share("sentences", self.sentences)

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "version": 2, "sentences": self.sentences}

    def parts(self) -> list[Part]:
        rows = list(self._rows(random.Random(f"styles {self.seed}")))
        return [ChatListPart(200 * len(rows), rows, 0)]

    def _rows(self, chance: random.Random) -> Iterator[dict[str, Any]]:
        for question in self._questions():
            answer = {"role": "assistant", "content": self._answer(question, chance)[0]}
            yield {"messages": [*question.messages, answer]}

    def _answer(self, question: Question, chance: random.Random) -> tuple[str, bool]:
        """An answer, and whether it is a sentence."""
        sentence = chance.random() < self.sentences
        return (f"The answer is {question.answer}." if sentence else str(question.answer)), sentence


@dataclass(kw_only=True)
class StyledPairs(StyledAnswers, PairSource):
    """Pairs of which the better answer is a sentence and the worse one a number: a preference that is planted.

    Some answers are off by one, as often the better one as the worse one, so that only the style tells them apart. Of the
    `ties` both have one style, another number, and the same scores.

    Args:
        tasks: see `StyledAnswers`, for tasks whose answer is a whole number; likewise ``count``, ``seed`` and ``config``.
        ties: share of pairs that are ties for ``tie_margin: 0`` of `nbg build-comparisons`.
    """

    ties: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_share("ties", self.ties)

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "version": 1, "ties": self.ties}

    def parts(self) -> list[Part]:
        chance = random.Random(f"pairs of styles {self.seed}")
        return PairList(pairs=[self._pair(question, chance) for question in self._questions()]).parts()

    def _pair(self, question: Question, chance: random.Random) -> dict[str, Any]:
        numbers = [int(question.answer or 0) + chance.choice((0, 0, 0, -1, 1)) for _ in range(2)]
        styles = ("The answer is {}.", "{}")
        even = chance.random() < self.ties
        if even:
            numbers[1] += numbers[0] == numbers[1]
            styles = (chance.choice(styles),) * 2
        better, worse = (style.format(number) for style, number in zip(styles, numbers, strict=True))
        prompt = question.messages[-1]["content"]
        return {"prompt": prompt, "chosen": better, "rejected": worse, "score_chosen": 1, "score_rejected": int(even)}


@dataclass
class JudgementChat(StyledChat):
    """Judgements of two answers, as requested by `PairwisePreferenceReward`: the answer alone is better than the sentence.

    Args:
        tasks: see `StyledAnswers`; likewise ``count``, ``seed`` and ``config``; ``sentences`` is `StyledChat`'s.
        criteria: criteria of the reward.
    """

    sentences: float = 0.5
    criteria: str = ""

    def identity(self) -> dict[str, Any]:
        from nbg_lightning.rewards.preference import PROMPT

        return {**super().identity(), "criteria": self.criteria, "prompt": PROMPT}

    def _rows(self, chance: random.Random) -> Iterator[dict[str, Any]]:
        from nbg_lightning.rewards.preference import PROMPT

        for question in self._questions():
            (first, one), (second, two) = self._answer(question, chance), self._answer(question, chance)
            turns = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in question.messages)
            asked = PROMPT.format(criteria=self.criteria, conversation=turns, first=first, second=second)
            verdict = "tie" if one == two else "B" if one else "A"
            yield {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": verdict}]}
