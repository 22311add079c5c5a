"""All in-process readers of model-written text: name, and a function of the text.

A function gives a score where the reader has one. What a reader refuses by its contract counts as read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nbg_lightning.chat.conversation import Conversation
from nbg_lightning.chat.thinking import read_thinking
from nbg_lightning.chat.tool_calls import ToolCall, parse_calls, parse_tools
from nbg_lightning.chat.values import ConversationError
from nbg_lightning.construction.filtering.signals import signals
from nbg_lightning.construction.problems.calls import _read_outcome, as_test, calls_in, differs, is_fair, read_call
from nbg_lightning.construction.problems.given_code import NotUsableError, function_under_test
from nbg_lightning.construction.problems.written_code import code_in, read_program
from nbg_lightning.construction.solutions.chains import spread_sentences
from nbg_lightning.construction.solutions.checklist import read_checklist, read_evaluation
from nbg_lightning.construction.solutions.reconstruction import announced_answer
from nbg_lightning.construction.workflow import ModelResponse, UnusableError, readable
from nbg_lightning.engines.chat import Answer, ChatFormat
from nbg_lightning.engines.protocol import Completion
from nbg_lightning.environments.calls import read_turn
from nbg_lightning.evaluation.benchmark import Benchmark
from nbg_lightning.evaluation.tasks import AIME, BFCL, GSM8K, MMLU, Arithmetic, GPQADiamond, MMLUPro, Questions
from nbg_lightning.evaluation.tasks.bfcl import calls_match, extract_calls
from nbg_lightning.evaluation.tasks.lettered import Lettered
from nbg_lightning.rewards import FormatReward
from nbg_lightning.rewards.bad_cases import bad_case
from nbg_lightning.rewards.math import extract_from, gold_expression
from nbg_lightning.rewards.preference import read_judgement
from nbg_lightning.scoring.boxes import boxed, last_formula, tagged
from nbg_lightning.scoring.fences import code_blocks
from nbg_lightning.scoring.judgements import read_pairwise, read_score, read_yes_or_no
from nbg_lightning.scoring.letters import extract_letter
from nbg_lightning.scoring.mathematics.reader import read
from nbg_lightning.scoring.mathematics.units import read_unit, read_upright
from nbg_lightning.scoring.places import announced, extract_expression, extract_value
from nbg_lightning.scoring.programs import extract_program
from nbg_lightning.scoring.refusal import is_refusal
from nbg_lightning.scoring.rubric import read_criteria, read_marks
from nbg_lightning.scoring.verdicts import (
    extract_answer,
    extract_number,
    number,
    score_exact,
    score_letter,
    score_number,
)

_REFUSES = (ConversationError, UnusableError, NotUsableError)
_PARAMETERS = {"type": "dict", "properties": {"x": {"type": "string"}}, "required": ["x"]}
_FUNCTIONS = [{"name": "f", "description": "It does.", "parameters": _PARAMETERS}]
_WANTED_CALLS = [{"f": {"x": ["Evelyn"]}}]


def judged(reader: Callable[[str], Any], text: str) -> Any:
    """What a judgement says; a text without one is refused, and so read."""
    try:
        return reader(text)
    except ValueError:
        return None


def _written_by_the_program(text: str) -> None:
    """A program writes what it likes where outcomes of calls are expected."""
    _, outcome = _read_outcome(text)
    assert outcome[0] not in ("value", "raises") or as_test("f(1)", outcome)
    fair = ("value", text, text)
    assert not is_fair(fair) or as_test("f(1)", fair)
    differs(fair, ("value", "7919", ""))


def _calls_match(text: str) -> Any:
    calls = extract_calls(text)
    assert calls is None or not calls_match(calls, _WANTED_CALLS, _FUNCTIONS)
    return calls


def completion(text: str) -> Completion:
    """A finished one."""
    return Completion((1,), (0.0,), "stop", 0, 0, 0, text=text)


def response(text: str) -> ModelResponse:
    """A finished one."""
    return ModelResponse(text, "stop")


def _turn(text: str) -> Conversation:
    return Conversation([{"role": "user", "content": "What?"}, {"role": "assistant", "content": text}])


def asked_of(reader: Callable[[str], Any], text: str) -> float | None:
    """The score that a reader gives a text; None where it gives none."""
    try:
        found = reader(text)
    except _REFUSES:
        return None
    return getattr(found, "score", None)


def _lettered(benchmark: Lettered) -> Callable[[str], Any]:
    item = benchmark.lettered("1", "What is it?", [*"123456789", "7919"], 9)
    return lambda text: benchmark.score(item, text)


def _scored(benchmark: Benchmark, row: dict[str, Any]) -> Callable[[str], Any]:
    item = benchmark.parse(row, "1")
    return lambda text: benchmark.score(item, text)


_CALLED = {"id": "1", "question": [[{"role": "user", "content": "What?"}]], "function": _FUNCTIONS}
BENCHMARKS: dict[str, Callable[[str], Any]] = {
    "GSM8K": _scored(GSM8K(), {"question": "What?", "answer": "It is so. #### 7919"}),
    "AIME": _scored(AIME(), {"problem": "What?", "answer": 7919}),
    "Arithmetic": _scored(Arithmetic(), {"question": "7900 + 19 =", "answer": 7919, "operation": "addition"}),
    "MMLU": _lettered(MMLU(answers="written")),
    "MMLUPro": _lettered(MMLUPro()),
    "GPQADiamond": _lettered(GPQADiamond()),
    "BFCL": _scored(BFCL(), {**_CALLED, "category": "simple_python", "gold": _WANTED_CALLS}),
    "questions by number": _scored(
        Questions(path="-", answers="written", scorer="number"), {"question": "What?", "answer": "7919"}
    ),
    "questions by text": _scored(
        Questions(path="-", answers="written", scorer="exact"), {"question": "Who?", "answer": "Evelyn"}
    ),
}
"""Benchmarks that score in this process."""

READERS: dict[str, Callable[[str], Any]] = {
    **{f"score of {name}": score for name, score in BENCHMARKS.items()},
    "boxed": boxed,
    "tagged": tagged,
    "last formula": last_formula,
    "expression": extract_expression,
    "value": extract_value,
    "first value": lambda text: extract_value(text, first=True),
    "announced": lambda text: list(announced(text)),
    "letter": lambda text: extract_letter(text, "ABCD", ["1", "2", "x", "Paris"]),
    "grammar": read,
    "number": number,
    "last number": extract_number,
    "answer": extract_answer,
    "answer of the reward": lambda text: extract_from(text, "number"),
    "gold": gold_expression,
    "blocks": code_blocks,
    "program": extract_program,
    "program without fences": lambda text: extract_program(text, unfenced=True, entry_points=("f",)),
    "score by number": lambda text: score_number(text, "7919"),
    "score by letter": lambda text: score_letter(text, "J", "ABCDEFGHIJ"),
    "score by text": lambda text: score_exact(text, "Evelyn"),
    "thinking": read_thinking,
    "thinking that was cut": lambda text: read_thinking(text, complete=False),
    "completion": lambda text: ChatFormat(None).read(completion(text)),
    "layout of tags": lambda text: FormatReward(think=False, answer="tags").problem(text, None, text),
    "layout of boxes": lambda text: FormatReward(think=False, answer="boxed").problem(text, None, text),
    "layout of code": lambda text: FormatReward(think=False, answer="code").problem(text, None, text),
    "turn": _turn,
    "arguments": lambda text: ToolCall.parse({"name": "f", "arguments": text}),
    "calls of a turn": lambda text: parse_calls(text, None),
    "tools": parse_tools,
    "refusal": is_refusal,
    "usable response": lambda text: readable(response(text)),
    "announced answer": lambda text: announced_answer(text, numeric=True),
    "program of a builder": lambda text: read_program(response(text), "x"),
    "tests of a builder": code_in,
    "calls": lambda text: calls_in(text, "f"),
    "call": lambda text: read_call(text, "f"),
    "function under test": lambda text: function_under_test(text, []),
    "checklist": lambda text: read_checklist(text, 1, 5),
    "evaluation": lambda text: read_evaluation(text, 2),
    "sentences": lambda text: spread_sentences(text, 5),
    "option": lambda text: score_letter(text, "J", "ABCDEFGHIJ", [*"123456789", "7919"]),
    "judgement of two": lambda text: judged(read_pairwise, text),
    "mark": lambda text: judged(lambda said: read_score(said, 1, 10), text),
    "yes or no": lambda text: judged(read_yes_or_no, text),
    "judgement of a reward": lambda text: read_judgement(Answer(completion(text), text, None, text)),
    "calls of BFCL": _calls_match,
    "outcome of a call": _written_by_the_program,
    "signals": signals,
    "unit": read_unit,
    "upright unit": read_upright,
    "criteria of a judge": lambda text: judged(lambda said: read_criteria(said, 8), text),
    "marks of a judge": lambda text: judged(lambda said: read_marks(said, 2), text),
    "turn in an environment": lambda text: read_turn(Answer(completion(text), text, None, text)),
    "bad case": lambda text: bad_case(Answer(completion(text), text, None, text)),
}
