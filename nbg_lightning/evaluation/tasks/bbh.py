"""BIG-Bench Hard: 27 tasks with 6,511 questions, answered with chain of thought (Suzgun et al. 2022, arXiv 2210.09261)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from nbg_lightning.config_files import read_yaml
from nbg_lightning.evaluation.benchmark import Benchmark, HubName, Item
from nbg_lightning.evaluation.rows import ItemsMissing, Row, file_rows, hub_tasks, package_folder
from nbg_lightning.scoring.result import Verdict, unreadable
from nbg_lightning.scoring.verdicts import score_exact, score_letter

_TASKS = (
    "boolean_expressions", "causal_judgement", "date_understanding", "disambiguation_qa", "dyck_languages",
    "formal_fallacies", "geometric_shapes", "hyperbaton", "logical_deduction_five_objects",
    "logical_deduction_seven_objects", "logical_deduction_three_objects", "movie_recommendation",
    "multistep_arithmetic_two", "navigate", "object_counting", "penguins_in_a_table", "reasoning_about_colored_objects",
    "ruin_names", "salient_translation_error_detection", "snarks", "sports_understanding", "temporal_sequences",
    "tracking_shuffled_objects_five_objects", "tracking_shuffled_objects_seven_objects",
    "tracking_shuffled_objects_three_objects", "web_of_lies", "word_sorting",
)  # fmt: skip
_OPTION = re.compile(r"^\(([A-Z])\) ?(.*)$", re.MULTILINE)
_BRACKETS_TASK, _BRACKETS = "dyck_languages", frozenset("()[]{}<>")
MAX_ANSWER = 10_000  # characters, of the end, in which brackets are looked for
_STEPS = "Let's think step by step."


@dataclass(kw_only=True)
class BBH(Benchmark):
    """Each task is a category. The few-shot examples (three per task) are the authors', with chain of thought.

    ``path`` is a JSON-lines file with ``task``, ``input`` and ``target``, or the folder of the authors' repository (``bbh``
    and ``cot-prompts``). Without a path, examples come from the lm-eval package. The line that describes a task is omitted.

    Args:
        tasks: tasks to use, such as ``snarks``; all by default.
    """

    tasks: list[str] = field(default_factory=list)
    num_shots: int = 3

    label: ClassVar[str] = "bbh"
    licence: ClassVar[str] = "MIT"
    hub: ClassVar[HubName | None] = HubName("lukaemon/bbh")
    file_names: ClassVar[tuple[str, ...]] = ("test",)
    shot_names: ClassVar[tuple[str, ...]] = ("train", "dev")
    shots_by_category: ClassVar[bool] = True
    instruction: ClassVar[str] = "Think step by step, and end with: So the answer is X."
    stop_texts: ClassVar[tuple[str, ...]] = ("\n\nQ:", "\nQ:")

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := sorted(set(self.tasks) - set(_TASKS)):
            raise ValueError(f"{self.name}: tasks is invalid: {', '.join(unknown)}; choose from {', '.join(_TASKS)}")

    @property
    def _wanted(self) -> list[str]:
        return self.tasks or list(_TASKS)

    def _rows(self) -> tuple[str, Iterator[tuple[str, Row]]]:
        if self.path is None:
            assert self.hub is not None
            return f"hub {self.hub.name}", hub_tasks(self.hub.name, self.hub.split, self._wanted, "task")
        folder = Path(self.path).expanduser() / "bbh"
        if folder.is_dir():
            return str(folder), _examples(folder, self._wanted)
        origin, rows = super()._rows()
        return origin, (row for row in rows if "" in row[1] or row[1].get("task") in self._wanted)

    def shot_source(self) -> Iterator[tuple[str, Row]]:
        if self.path is not None:
            folder = Path(self.path).expanduser() / "cot-prompts"
            return _worked(folder, self._wanted) if folder.is_dir() else super().shot_source()
        root = package_folder("lm_eval")
        if root is None:
            raise ItemsMissing(f"{self.name}: num_shots={self.num_shots}, but the worked examples come with lm-eval; "
                               "type: pip install 'nbg-lightning[eval]', or set num_shots to 0")  # fmt: skip
        return _of_lm_eval(root / "tasks" / "bbh" / "cot_fewshot", self._wanted)

    def parse(self, row: Row, place: str) -> Item:
        question, target, task = row["input"].strip(), str(row["target"]).strip(), row["task"]
        if not target:
            raise ValueError("'target' is empty")
        options = dict(_OPTION.findall(question))
        steps = str(row["steps"]) if "steps" in row else ""
        return Item(f"{task}-{place}", question, target, category=task, data={"options": options, "steps": steps})

    def text(self, item: Item) -> str:
        return f"Q: {item.question}\nA: {_STEPS}"

    def solution(self, item: Item) -> str:
        return item.data["steps"] or f"So the answer is {item.answer}."

    def score(self, item: Item, text: str) -> Verdict:
        letter, options = item.answer.strip("()"), item.data["options"]
        if letter in options and item.answer == f"({letter})":
            return score_letter(text, letter, list(options), list(options.values()))
        if item.category == _BRACKETS_TASK:
            return score_brackets(text, item.answer)
        return score_exact(text, item.answer)


def score_brackets(text: str, gold: str) -> Verdict:
    r"""Whether a text's answer is these brackets: those behind the last "answer is", or else of the last line.

    Example:
        >>> score_brackets("Of [ ( the answer is **) ]**.", ") ]").score, score_brackets(r"\boxed{] }}", "] }").score
        (1.0, 1.0)
    """
    region = text[-MAX_ANSWER:].strip().rsplit("answer is", 1)[-1].strip().splitlines()
    line = (region[0] if "answer is" in text[-MAX_ANSWER:] else region[-1]) if region else ""
    if (boxed := line.rpartition("\\boxed{")[2]) != line:
        line = boxed[: boxed.rfind("}")]
    found = [character for character in line if character in _BRACKETS]
    if not found:
        return unreadable("there are no brackets")
    return Verdict(float(found == gold.split()), answer=" ".join(found))


def _examples(folder: Path, tasks: list[str]) -> Iterator[tuple[str, Row]]:
    """Items of the authors' files, ``{"examples": [...]}`` a task."""
    for task in tasks:
        for _, whole in file_rows(folder / f"{task}.json")[1]:
            examples: Any = whole.get("examples")
            if not isinstance(examples, list):
                raise ValueError(f"{folder / f'{task}.json'} is invalid: it has no list of examples; download it again")
            for number, row in enumerate(examples):
                there = row if isinstance(row, dict) else {"": f"a {type(row).__name__}, not an object"}
                yield f"{folder / f'{task}.json'}, example {number}", {**there, "task": task}


def _worked(folder: Path, tasks: list[str]) -> Iterator[tuple[str, Row]]:
    """Worked examples of the authors' prompts: ``Q: ...`` and ``A: Let's think step by step.`` with the steps."""
    for task in tasks:
        file = folder / f"{task}.txt"
        parts = re.split(r"^Q: ", file.read_text("utf-8").replace("\r\n", "\n"), flags=re.MULTILINE)[1:]
        for number, part in enumerate(parts):
            question, _, steps = part.partition(f"\nA: {_STEPS}")
            yield f"{file}, example {number}", _shot(task, question, steps)


def _of_lm_eval(folder: Path, tasks: list[str]) -> Iterator[tuple[str, Row]]:
    """The same examples as lm-eval's task files have them."""
    for task in tasks:
        file = folder / f"{task}.yaml"
        if not file.is_file():
            raise ItemsMissing(f"{file} is missing: this lm-eval has other files; set num_shots to 0, or give path")
        for number, row in enumerate(read_yaml(str(file))["fewshot_config"]["samples"]):
            yield f"{file}, example {number}", _shot(task, row["input"], row["target"])


def _shot(task: str, question: str, steps: str) -> Row:
    steps = steps.strip()
    target = steps.rsplit("answer is", 1)[-1].strip().rstrip(".")
    return {"task": task, "input": question, "target": target, "steps": steps}
