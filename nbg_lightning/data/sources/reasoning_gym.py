"""Worked solutions of reasoning-gym tasks."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nbg_lightning.data.sources.source import Part, Source, check_text, quoted, short

# reasoning-gym 0.1.25: items of these depend on Python's hash seed, those of codeio on earlier calls.
_HASH_DEPENDENT_TASKS = {
    "isomorphic_strings",
    "knight_swap",
    "polynomial_multiplication",
    "ransom_note",
    "word_ladder",
}
_UNREPEATABLE_TASKS = {"codeio", "composite"}
_REASONING_PART_ITEMS = 250  # the slowest tasks take 0.1 s per item
_REASONING_ITEM_BYTES = 600


@dataclass
class ReasoningGym(Source):
    """Worked solutions of reasoning-gym tasks: question, reasoning if the task provides it, and answer.

    Items without an answer are empty documents, which are skipped and counted.

    Args:
        tasks: Task names, such as ``gsm_symbolic`` (with worked reasoning) or ``chain_sum``.
        count: Items per task.
        seed: Seed of the generator; another seed gives other items.
        config: Settings per task, ``{chain_sum: {max_terms: 4}}``.
    """

    tasks: list[str]
    count: int
    seed: int = 0
    config: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tasks or self.count < 1:
            raise ValueError(
                f"ReasoningGym is invalid: tasks={self.tasks!r}, count={self.count!r}; give tasks and a positive count"
            )
        if unknown := set(self.config) - set(self.tasks):
            raise ValueError(
                f"ReasoningGym has a config for {quoted(sorted(unknown))}, which is not in tasks; add or remove it"
            )
        for task in self.tasks:
            if task in _UNREPEATABLE_TASKS:
                raise ValueError(f"reasoning-gym task {task!r} does not give reproducible items; remove it from tasks")
            if task in _HASH_DEPENDENT_TASKS and not os.environ.get("PYTHONHASHSEED", "random").isdigit():
                raise ValueError(
                    f"reasoning-gym task {task!r} gives different items in each process; remove it from tasks, "
                    "or start Python with PYTHONHASHSEED=0"
                )

    def identity(self) -> dict[str, Any]:
        hashed = os.environ["PYTHONHASHSEED"] if _HASH_DEPENDENT_TASKS & set(self.tasks) else None
        return {
            "kind": "ReasoningGym",
            "version": importlib.metadata.version("reasoning-gym"),
            "tasks": list(self.tasks),
            "count": self.count,
            "seed": self.seed,
            "config": self.config,
            "hash_seed": hashed,
        }

    def parts(self) -> list[Part]:
        for task in self.tasks:
            # A wrong name or setting should fail here rather than in a worker.
            _create_task(task, 1, self.seed, self.config.get(task, {}))
        return [
            ReasoningGymPart(
                (min(start + _REASONING_PART_ITEMS, self.count) - start) * _REASONING_ITEM_BYTES,
                task,
                self.count,
                self.seed,
                self.config.get(task, {}),
                start,
                min(start + _REASONING_PART_ITEMS, self.count),
            )
            for task in self.tasks
            for start in range(0, self.count, _REASONING_PART_ITEMS)
        ]


@dataclass
class ReasoningGymPart(Part):
    """Items start..stop-1 of one task."""

    task: str
    count: int
    seed: int
    config: dict[str, Any]
    start: int
    stop: int

    def documents(self) -> Iterator[str]:
        for item in self.items():
            yield check_text(_worked_solution(item), lambda: f"reasoning-gym task {self.task!r}")

    def items(self) -> Iterator[dict[str, Any]]:
        """The task's own records."""
        dataset = _create_task(self.task, self.count, self.seed, self.config)
        for index in range(self.start, self.stop):
            yield dataset[index]


def _create_task(task: str, count: int, seed: int, config: dict[str, Any]) -> Any:
    import reasoning_gym

    try:
        return reasoning_gym.create_dataset(task, size=count, seed=seed, **config)
    except (ValueError, TypeError, AssertionError) as error:
        raise ValueError(
            f"reasoning-gym task {task!r} with config {config!r}: {short(error)}; fix tasks or config"
        ) from error


def _worked_solution(item: dict[str, Any]) -> str:
    if item["answer"] is None:
        return ""
    answer = str(item["answer"]).strip()
    steps = worked_steps(item)
    return "\n\n".join([item["question"].strip(), *([steps] if steps else []), f"Answer: {answer}"])


def worked_steps(item: dict[str, Any]) -> str:
    """The reasoning that a reasoning-gym task provides with its answer; empty if it provides none."""
    lines = (item["metadata"].get("answer_cot") or "").strip().splitlines()
    if lines and lines[-1].startswith("####"):  # "#### 7" repeats the answer
        lines.pop()
    return "\n".join(lines).strip()
