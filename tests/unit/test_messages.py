"""An error says what is wrong, with the value, and after ``; `` what to do. CONTRIBUTING.md has the forms.

Texts that are written where they are raised are read from the source. What a function has put together is not seen here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

# What Python itself asks for, with Python's words, and what only a programmer can meet.
PYTHON = {"AssertionError", "AttributeError", "EOFError", "IndexError", "NameError", "StopIteration"}
# Reasons: they stand inside another message, which has the place and says what to do.
REASONS = {
    "BadTest": "the verdict of a program, in `SandboxResult.detail`",
    "CheckerFailed": "the verdict `verifier KIND failed (REASON)`",
    "ChatTemplateError": "`check_renderer` says which template; its text has the fix where there is one",
    "ConversationError": "a row that is refused: `PLACE: REASON; fix them, or set on_invalid to drop`, or counted",
    "ConnectionResetError": "a store that a test stands in for",
    "EngineDied": "`fail_before_step` says what to do: `REASON; the state before this step is saved: ...`",
    "EnginesDiffer": "why another encoder or template engine is not taken",
    "EnvironmentFailed": "an episode's outcome, counted by `rollout/errors`",
    "LimitError": "why an answer is not read: a verdict",
    "NotAllowed": "why code of the tests is not run: a verdict",
    "NotAnAnswer": "why an answer is not read: a verdict",
    "NotCopied": "the verdict of a program",
    "NotPlain": "the verdict of a program",
    "NotUsableError": "a function that is left out, counted in `outcomes`",
    "OpenError": "why an answer is not read: a verdict",
    "PlusMinusError": "why an answer is not read: a verdict",
    "ProgramGone": "the verdict of a program",
    "Refused": "why code of the tests is not run: a verdict",
    "TemplateLimitError": "`the chat template refuses it: REASON`",
    "UnreadableError": "why an answer is not read: a verdict",
    "Unwell": "a server that the pool leaves out: `URL: REASON`",
    "UnusableError": "an answer that is dropped, counted in `outcomes` by its first argument",
    "VerifierDied": "no score: `rollout/errors`, and the first reason in the run's message",
    "VerifierError": "no score: `rollout/errors`, and the first reason in the run's message",
    "VerifierTimeout": "no score: `rollout/errors`, and the first reason in the run's message",
    "_OutOfTime": "`Completion.error`",
    "_Permanent": "`Completion.error`",
    "_Refused": "what a model is told of its own call",
    "_RelationError": "why an answer is not read: a verdict",
    "_Transient": "`Completion.error` after the last try",
    "httpx.ReadTimeout": "`Completion.error` after the last try",
}
REASON_FILES = {
    "callbacks/run_status.py": "`FOLDER/RECORD is invalid: REASON; move it away`",
    "nbg_lightning/chat/fast_encoder.py": "why another encoder is not taken",
    "nbg_lightning/commands/parser.py": "the parser's own words; what is meant, or where options are listed, is in brackets",
    "nbg_lightning/commands/precheck.py": "the parser's own words, before it is imported; what is meant is in brackets",
    "nbg_lightning/core/checkpoint_metadata.py": "`FILE is damaged: REASON; resume from another`",
    "nbg_lightning/core/plain_archive.py": "`FILE is damaged: REASON; resume from another`",
    "nbg_lightning/core/plain_pickle.py": "`FILE is damaged: REASON; resume from another`",
    "nbg_lightning/data/golds.py": "`PLACE: REASON; fix or remove this row`; most have a fix of their own",
    "nbg_lightning/digests.py": "`FILE is damaged: REASON; ADVICE`",
    "nbg_lightning/engines/event_stream.py": "`Completion.error`",
    "nbg_lightning/engines/reply_values.py": "`Completion.error`",
    "nbg_lightning/engines/server_stream.py": "`Completion.error`",
    "nbg_lightning/environments/repository.py": "what a model is told of its own call",
    "nbg_lightning/evaluation/benchmark.py": "an item that its class cannot read or score: counted, the first in the results",
    "nbg_lightning/evaluation/tasks": "an item that cannot be used: counted, or the first of them where there is no other",
    "nbg_lightning/rewards": "a question that is refused, `PLACE: REASON; fix them, ...`, or an answer without a score",
    "nbg_lightning/scoring/bounded.py": "why an answer is not read: a verdict",
    "nbg_lightning/scoring/checkers": "the verdict `verifier KIND failed (REASON)`",
    "nbg_lightning/scoring/judgements.py": "why a judge's answer gives no score",
    "nbg_lightning/scoring/rubric.py": "why a judge's answer gives no score",
    "nbg_lightning/scoring/sandbox": "the verdict of a program, such as `the program's answer is malformed (REASON)`",
    "nbg_lightning/scoring/symbolic_child.py": "why an answer is not read: a verdict",
    "nbg_lightning/testing/ranks.py": "a failure of a test, with what the ranks have printed",
    "nbg_lightning/testing/staged.py": "a failure that a test stages",
}
# What an instruction begins with: a verb, or the list of what is possible.
ACTIONS = re.compile(
    "[`']?(add|allow|annotate|ask|begin|build|call|change|check|choose|close|compute|convert|copy|correct|count|define|do|"
    "download|draw|drop|end|export|fix|flatten|free|give|import|install|keep|leave|let|load|log|look|lower|make|mark|merge|"
    "move|name|nbg|open|pack|pip|prepare|print|put|quote|raise|read|remove|rename|repair|repeat|replace|replay|report|resume|restore|"
    "round|run|save|search|see|serve|set|shorten|show|split|start|stop|take|train|try|turn|type|unpack|use|wait|watch|write)\\b"
)
LISTS = re.compile(
    "(there (is|are)|supported|expected|known are|those with configs|checkpoints there|it must (be|divide))\\b"
)
SEPARATOR = re.compile(r"; |: |, or |, so |, and |\. If ")
# A message of this form, with its place before it.
PLACED = re.compile(r"(: | \()\{[^{}]*\b(error|problem|reason|cause|failed|text)\b[^{}]*\}(\{[^{}]*\}|\))*$")
# Names of code, digits, quotes, and states that are their own value.
NAMED = re.compile(
    r"\{|[a-z]_[a-z]|[a-z][A-Z]|\d|['`]|--|\w\.\w|\b(no|not|nor|neither|empty|missing|twice|nothing|none|both|"
    r"each|itself|signal|needs?|asks|open|already|cannot)\b"
)


class Message(NamedTuple):
    """A text that is raised."""

    line: int
    error: str
    text: str


def literal(node: ast.expr) -> str | None:
    """The text of an expression, with the source of inserted values in braces; None if it has no literal text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) else "{" + ast.unparse(part.value) + "}"
            for part in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = [literal(side) for side in (node.left, node.right)]
        if any(side is not None for side in sides):
            return "".join("{}" if side is None else side for side in sides)
    return None


def messages(text: str) -> Iterator[Message]:
    """The texts that a file raises."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            for argument in node.exc.args:
                if (said := literal(argument)) is not None:
                    yield Message(node.lineno, ast.unparse(node.exc.func), said)


def says_what_to_do(text: str) -> bool:
    """Whether something behind the first ``; `` is an instruction, a list of what is possible, or is filled in."""
    _, semicolon, rest = text.partition("; ")
    parts = SEPARATOR.split(rest)
    return bool(semicolon) and any(part.startswith("{") or LISTS.match(part) or ACTIONS.match(part) for part in parts)


def is_well_formed(text: str) -> bool:
    """``THING is invalid: VALUE; WHAT TO DO``, ``STATE; WHAT TO DO``, or ``PLACE: {error}``."""
    if PLACED.search(text):
        return True
    return bool(NAMED.search(text)) and says_what_to_do(text)


def is_reason(file: str, said: Message) -> bool:
    """Whether a text stands inside another message: by its class, its file, or since it begins with what the other is about."""
    if said.error in PYTHON | set(REASONS) or said.text.startswith(("it ", "its ")):
        return True
    return any(file.startswith(place) for place in REASON_FILES)


@pytest.fixture(scope="module")
def raised(library: dict[str, str]) -> dict[str, list[Message]]:
    """The texts of the library's files."""
    return {file: list(messages(text)) for file, text in library.items()}


def test_an_error_says_what_to_do(raised: dict[str, list[Message]]) -> None:
    told = {file: [each for each in said if not is_reason(file, each)] for file, said in raised.items()}
    assert sum(map(len, told.values())) > 900  # they are seen
    wrong = [
        f"{file}:{each.line} {each.text}"
        for file, said in told.items()
        for each in said
        if not is_well_formed(each.text)
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_is_let_out_in_vain(raised: dict[str, list[Message]]) -> None:
    """Every exception class and every file of the tables raises a text that needs it."""
    errors = {each.error for said in raised.values() for each in said if not is_well_formed(each.text)}
    assert set(REASONS) - errors == set()
    in_need = {file for file, said in raised.items() if any(not is_well_formed(each.text) for each in said)}
    assert [place for place in REASON_FILES if not any(file.startswith(place) for file in in_need)] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("group_size is invalid: {group_size}; give at least 2", True),
        ("group_size is invalid: {group_size}; an answer is compared with its group: give at least 2", True),
        ("format is invalid: {format}; there are {', '.join(known)}", True),
        ("there is no checkpoint in {folder}; {advice}", True),
        ("source {name!r}: {error}", True),
        ("group_size must be at least 2", False),
        ("group_size is invalid: {group_size}", False),
        ("group_size is invalid: {group_size}: give at least 2", False),
        ("group_size is invalid: {group_size}; it is too small", False),
        ("this is wrong; give another", False),
    ],
)
def test_forms(text: str, expected: bool) -> None:
    assert is_well_formed(text) is expected


def test_texts_are_found() -> None:
    text = "raise ValueError(f'{a!r:.3} is ' 'bad' + b)\nraise OSError(3, 'x')\nraise error\nraise KeyError(name)\n"
    assert [(each.line, each.error, each.text) for each in messages(text)] == [
        (1, "ValueError", "{a} is bad{}"),
        (2, "OSError", "x"),
    ]
