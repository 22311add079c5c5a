"""Pages that list names and messages of the code match the code."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from nbg_lightning import callbacks
from nbg_lightning.modules.dpd import PAIR_TERMS, TOKEN_TERMS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GROUPS = [
    "episode",
    "train",
    "val",
    "data",
    "throughput",
    "rollout",
    "reward",
    "pass_rate",
    "policy",
    "time",
    "benchmark",
]
ANY = "\0"  # in place of what an f-string fills in
LOGGING = ("environments", "modules", "rl", "callbacks", "datamodules", "evaluation")


def texts_of(tree: ast.AST) -> Iterator[str]:
    """The string literals of a module without its docstrings."""
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    inside = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else ANY for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation | inside:
            yield node.value


@cache
def literals(*rooms: str) -> frozenset[str]:
    """The string literals of some rooms, or of all."""
    folders = [ROOT / "nbg_lightning" / room for room in rooms or ("",)]
    files = [file for folder in (*folders, ROOT / "callbacks", ROOT / "datamodules") for file in folder.rglob("*.py")]
    return frozenset(text for file in files for text in texts_of(ast.parse(file.read_text("utf-8"))))


def logged() -> set[str]:
    """Names that the code logs, with a mark where something is filled in."""
    name = re.compile(rf"({'|'.join(GROUPS)})(/[\w@{ANY}]+)+")
    return {text for text in literals(*LOGGING) if name.fullmatch(text)}


def listed() -> set[str]:
    """Metrics of the page, in capitals what stands for something."""
    page = (DOCS / "metrics.md").read_text("utf-8")
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def matches(pattern: str, name: str) -> bool:
    """Whether a logged name, filled in, may be a listed one."""
    name = re.sub(r"\b(SOURCE|NAME)\b", "name", name).replace("@N", "@4")
    return re.fullmatch(re.escape(pattern).replace(re.escape(ANY), r"[\w@/]+"), name) is not None


def test_every_logged_metric_is_in_the_page() -> None:
    assert len(logged()) > 20
    assert [pattern for pattern in sorted(logged()) if not any(matches(pattern, name) for name in listed())] == []


def test_every_metric_of_the_page_is_logged() -> None:
    """By a name that matches; where the code fills in the end of it, by a word that the code has."""
    words = {word for text in literals(*LOGGING) for word in re.findall(r"\w+", text)} | {"SOURCE", "NAME"}

    def is_logged(name: str) -> bool:
        last = name.rsplit("/", 1)[-1].removesuffix("@N")
        return any(matches(pattern, name) and (last in words or not pattern.endswith(ANY)) for pattern in logged())

    assert [name for name in sorted(listed()) if not is_logged(name)] == []


def test_the_terms_of_preference_losses_are_in_the_page() -> None:
    names = listed()
    for term in (*PAIR_TERMS, *TOKEN_TERMS):
        assert {f"train/{term}", f"val/{term}", f"val/SOURCE/{term}"} <= names


def test_messages_of_the_troubleshooting_page_are_said_by_the_code() -> None:
    others = {"does not accept option", "Option", "is not accepted", "CUDA out of memory"}  # jsonargparse's and torch's
    page = (DOCS / "troubleshooting.md").read_text("utf-8")
    headings = [line for line in page.splitlines() if line.startswith("### ")]
    parts = [
        part.strip()
        for heading in headings
        for message in re.findall(r"`([^`]+)`", heading)
        for part in re.split(r"\.\.\.", message)
    ]
    said = [part for part in parts if len(part) > 3 and part not in others]
    assert len(said) > 35
    assert [part for part in said if not any(part in text for text in literals())] == []


def test_every_callback_is_in_its_page_with_its_arguments() -> None:
    sections = re.split(r"^## ", (DOCS / "callbacks.md").read_text("utf-8"), flags=re.M)
    by_title = {section.split("\n", 1)[0].strip(): section for section in sections[1:]}
    for name in callbacks.__all__:
        arguments = list(inspect.signature(getattr(callbacks, name)).parameters)
        section = by_title[name]
        missing = [argument for argument in arguments if not re.search(rf"\b{argument}(`|:)", section)]
        assert missing == [], name
