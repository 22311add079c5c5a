"""BFCL-V4, the categories of several turns (Patil et al., Berkeley Function-Calling Leaderboard)."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from nbg_lightning.data.question import Question
from nbg_lightning.environments.bfcl import TASK, BFCLEnvironment
from nbg_lightning.environments.environment import Environment
from nbg_lightning.evaluation.benchmark import Item
from nbg_lightning.evaluation.rows import Row, file_rows, installed_version, package_folder
from nbg_lightning.evaluation.tasks.bfcl import tool_of
from nbg_lightning.evaluation.tasks.environment import EnvironmentBenchmark

MultiTurnCategory = Literal["base", "miss_func", "miss_param", "long_context"]
_DOCUMENTS = {  # of the functions of each class, as the package's executable_backend_config has it
    "GorillaFileSystem": "gorilla_file_system",
    "MathAPI": "math_api",
    "MessageAPI": "message_api",
    "TwitterAPI": "posting_api",
    "TicketAPI": "ticket_api",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "VehicleControlAPI": "vehicle_control",
}


@dataclass(kw_only=True)
class BFCLMultiTurn(EnvironmentBenchmark):
    """Multi-turn requests, solved by calls in `BFCLEnvironment` and checked by the package's own checker.

    In ``miss_func`` a function is missing until the user provides it, in ``miss_param`` a request lacks a value until the
    next one, and in ``long_context`` results are long. Each category has 200 items; a score is 1 if all of an item is
    correct.

    Args:
        categories: categories to use; all by default.
    """

    categories: list[MultiTurnCategory] = field(default_factory=lambda: list(get_args(MultiTurnCategory)))
    environment: Environment | None = field(default_factory=BFCLEnvironment)

    label: ClassVar[str] = "bfcl_v4_multi_turn"
    licence: ClassVar[str] = "Apache-2.0"
    package: ClassVar[str | None] = "pip install --no-deps bfcl-eval==2026.3.23"

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := sorted(set(self.categories) - set(get_args(MultiTurnCategory))):
            known = ", ".join(get_args(MultiTurnCategory))
            raise ValueError(f"{self.name}: categories is invalid: {', '.join(unknown)}; choose from {known}")

    def check_source(self) -> None:
        """Items are the package's own."""

    def check(self) -> None:
        if importlib.util.find_spec("bfcl_eval") is None:
            raise ValueError(f"{self.name} is run by the code of bfcl-eval, which is not installed; {self.package}")

    def _rows(self) -> tuple[str, Iterator[tuple[str, Row]]]:
        root = package_folder("bfcl_eval")
        assert root is not None  # as `check` has seen
        return f"bfcl-eval {installed_version('bfcl-eval')}", self._read(root / "data")

    def _read(self, folder: Path) -> Iterator[tuple[str, Row]]:
        documents = {name: _functions(folder, file) for name, file in _DOCUMENTS.items()}
        for category in self.categories:
            file = f"BFCL_v4_multi_turn_{category}"
            golds = file_rows(folder / "possible_answer", [file])[1]
            answers = {row["id"]: row["ground_truth"] for _, row in golds if "id" in row}
            for place, row in file_rows(folder, [file])[1]:
                functions = [each for name in row["involved_classes"] for each in documents[name]]
                whole = {**row, "category": category, "ground_truth": answers[row["id"]], "functions": functions}
                yield place, whole

    def parse(self, row: Row, place: str) -> Item:
        missing = {turn: set(names) for turn, names in row.get("missed_function", {}).items()}
        left_out = set().union(*missing.values())  # the package's harness shows those of ``excluded_function`` too
        tools = {each["name"]: {"type": "function", "function": tool_of(each)} for each in row["functions"]}
        task: dict[str, Any] = {
            "id": row["id"],
            "turns": row["question"],
            "initial_config": row["initial_config"],
            "involved_classes": row["involved_classes"],
            "ground_truth": row["ground_truth"],
            "tools": [tool for name, tool in tools.items() if name not in left_out],
            "later_tools": {turn: [tools[name] for name in sorted(names)] for turn, names in missing.items()},
        }
        messages = tuple(dict(message) for message in row["question"][0])
        asked = "\n".join(turn[-1]["content"] for turn in row["question"] if turn)
        question = Question(messages, None, self.name, {TASK: task})
        gold = json.dumps(row["ground_truth"], ensure_ascii=False)
        return Item(row["id"], asked, gold, category=row["category"], data={"question": question})


def _functions(folder: Path, name: str) -> list[dict[str, Any]]:
    """The functions of a class, as they are described to a model: without what they return."""
    rows = file_rows(folder / "multi_turn_func_doc" / f"{name}.json")[1]
    return [{key: value for key, value in row.items() if key != "response"} for _, row in rows]
