"""Everything that reads what a model wrote without a process of its own: name, and a function of the text.

A function gives a score where the reader has one. What a reader refuses by its contract counts as read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nbg_lightning.chat.conversation import Conversation
from nbg_lightning.chat.thinking import read_thinking
from nbg_lightning.chat.tool_calls import ToolCall, parse_calls, parse_tools
from nbg_lightning.chat.values import ConversationError
from nbg_lightning.construction.problems.builder import _code, _read_program
from nbg_lightning.construction.problems.calls import calls_in, read_call
from nbg_lightning.construction.problems.given_code import NotUsableError, function_under_test
from nbg_lightning.construction.solutions.chains import spread_sentences
from nbg_lightning.construction.solutions.checklist import read_checklist, read_evaluation
from nbg_lightning.construction.solutions.reconstruction import announced_answer
from nbg_lightning.construction.writers import Reply, UnusableError, is_refusal, readable
from nbg_lightning.engines.chat import ChatFormat
from nbg_lightning.engines.protocol import Completion
from nbg_lightning.rewards import FormatReward
from nbg_lightning.rewards.math import find_in, gold_expression
from nbg_lightning.scoring.boxes import boxed, last_formula, tagged
from nbg_lightning.scoring.fences import code_blocks
from nbg_lightning.scoring.letters import find_letter
from nbg_lightning.scoring.places import announced, find_expression, find_value
from nbg_lightning.scoring.programs import find_program
from nbg_lightning.scoring.reader import read
from nbg_lightning.scoring.verdicts import (
    find_answer,
    find_number,
    number,
    score_exact,
    score_letter,
    score_number,
)

_REFUSES = (ConversationError, UnusableError, NotUsableError)


def completion(text: str) -> Completion:
    """A finished one."""
    return Completion((1,), (0.0,), "stop", 0, 0, 0, text=text)


def reply(text: str) -> Reply:
    """A finished one."""
    return Reply(text, "stop")


def _turn(text: str) -> Conversation:
    return Conversation([{"role": "user", "content": "What?"}, {"role": "assistant", "content": text}])


def asked_of(reader: Callable[[str], Any], text: str) -> float | None:
    """The score that a reader gives a text; None where it gives none."""
    try:
        found = reader(text)
    except _REFUSES:
        return None
    return getattr(found, "score", None)


READERS: dict[str, Callable[[str], Any]] = {
    "boxed": boxed,
    "tagged": tagged,
    "last formula": last_formula,
    "expression": find_expression,
    "value": find_value,
    "first value": lambda text: find_value(text, first=True),
    "announced": lambda text: list(announced(text)),
    "letter": lambda text: find_letter(text, "ABCD", ["1", "2", "x", "Paris"]),
    "grammar": read,
    "number": number,
    "last number": find_number,
    "answer": find_answer,
    "answer of the reward": lambda text: find_in(text, "number"),
    "gold": gold_expression,
    "blocks": code_blocks,
    "program": find_program,
    "program without fences": lambda text: find_program(text, unfenced=True, entry_points=("f",)),
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
    "usable reply": lambda text: readable(reply(text)),
    "announced answer": lambda text: announced_answer(text, numeric=True),
    "program of a builder": lambda text: _read_program(reply(text), "x"),
    "tests of a builder": _code,
    "calls": lambda text: calls_in(text, "f"),
    "call": lambda text: read_call(text, "f"),
    "function under test": lambda text: function_under_test(text, []),
    "checklist": lambda text: read_checklist(text, 1, 5),
    "evaluation": lambda text: read_evaluation(text, 2),
    "sentences": lambda text: spread_sentences(text, 5),
}
