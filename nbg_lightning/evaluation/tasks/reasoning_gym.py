"""reasoning-gym: over a hundred families of procedurally generated tasks with their own verifiers."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from nbg_lightning.evaluation.benchmark import Benchmark, Item
from nbg_lightning.evaluation.rows import Row
from nbg_lightning.scoring.result import NOT_FOUND, Verdict, failure
from nbg_lightning.scoring.verdicts import extract_answer
from nbg_lightning.scoring.verifier import VerifierError, shared_verifier


@dataclass(kw_only=True)
class ReasoningGymTasks(Benchmark):
    """Items of some tasks; each task is a category. Partial credit is given as the task defines it.

    The answer is the text in ``<answer>``, else in the last box, else after the last "Answer:", else the whole text.

    Args:
        tasks: names, such as ``chain_sum``.
        count: items per task.
        item_seed: seed of the items; training data made with another seed has other items.
        config: settings of a task, ``{chain_sum: {max_terms: 3}}``.
    """

    tasks: list[str]
    count: int = 50
    item_seed: int = 1_000_003
    config: dict[str, dict[str, Any]] = field(default_factory=dict)

    label: ClassVar[str] = "reasoning_gym"
    licence: ClassVar[str] = "Apache-2.0"
    instruction: ClassVar[str] = "Give your final answer between <answer> and </answer>."
    stop_texts: ClassVar[tuple[str, ...]] = ("\n\n",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tasks or self.count < 1:
            raise ValueError(
                f"{self.name} is invalid: tasks={self.tasks!r:.60}, count={self.count!r:.20}; give tasks and a count of "
                "at least 1"
            )

    def _settings(self, task: str) -> dict[str, Any]:
        return {"size": self.count, "seed": self.item_seed, **self.config.get(task, {})}

    def _rows(self) -> tuple[str, Iterator[tuple[str, Row]]]:
        return f"reasoning-gym {importlib.metadata.version('reasoning-gym')}", self._made()

    def _made(self) -> Iterator[tuple[str, Row]]:
        import reasoning_gym

        for task in self.tasks:
            try:
                entries = reasoning_gym.create_dataset(task, **self._settings(task))
            except (ValueError, TypeError, AssertionError) as error:
                raise ValueError(
                    f"{self.name}: task {task!r} is invalid: {str(error).splitlines()[0]}; name one of reasoning-gym's"
                ) from error
            for index in range(self.count):
                yield f"{task} {index}", {"task": task, "entry": entries[index]}

    def load_shots(self) -> list[Item]:
        other = type(self)(tasks=self.tasks, count=self.num_shots, item_seed=self.item_seed + 1, config=self.config)
        return list(other._parsed(other._made(), None))

    def shots_for(self, item: Item, shots: list[Item]) -> list[Item]:
        return [shot for shot in shots if shot.category == item.category]

    def parse(self, row: Row, place: str) -> Item:
        entry, task = row["entry"], row["task"]
        return Item(f"{task}-{place}", entry["question"].strip(), entry["answer"], category=task, data={"entry": entry})

    def text(self, item: Item) -> str:
        return f"{item.question}\n\nAnswer:"

    def score(self, item: Item, text: str) -> Verdict:
        found = extract_answer(text)
        if not found:
            return NOT_FOUND
        if item.answer is not None and found == str(item.answer).strip():
            return Verdict(1.0, answer=found)
        task = item.category
        assert task is not None
        try:
            score = shared_verifier().call("reasoning_gym", task, self._settings(task), item.data["entry"], found)
        except VerifierError as error:
            return failure(str(error))
        return Verdict(score, answer=found)
