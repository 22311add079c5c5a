"""Is it better to choose documents by what they say, or by how they look? One domain, two dials that are turned apart.

    python benchmarks/science/content_format.py run       # see harness/ for the commands

A document is a worked problem (`worked_problems`). Each of its four steps is wrong with one probability (content), and each of
its four layout units (three marks, and the order of results) is changed with another (format); both are 0, 1/4 or 1/2, drawn
independently. The shares that result are tagged from 0 to 9 with equal noise, as by a good annotator. An arm trains on the best
third of the documents:

* ``random``: any third; ``content``: by the content score; ``format``: by the format score; ``both``: by their sum;
* at the second budget also by each single dimension; `rubric_dimensions.py` keeps the predictive ones.

The metrics are on data clean in both: held-out solutions, and their results without the marks.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core_loop import pretrain
from harness import Budget, Contrast, Experiment, Job, Metric, main
from quality_order import LAST_RATE, LENGTH, STEP, WARMUP, data_of, shape
from worked_problems import DOCUMENT, STEPS, Problem, draw_problem, tokenizer, worked

LEVELS = (0.0, 0.25, 0.5)  # of each dial
OTHER_MARKS, MARK = ";:.", ","
HIGHEST, NOISE = 9, 1.0  # of a score; its annotator's standard deviation
POOL, TESTS = 3, 400  # documents to choose one from; test problems
DECAY = 0.2
DIMENSIONS = ("steps", "result", "marks", "order", "moves", "coin")


@dataclass(frozen=True)
class Document:
    """A worked problem and what was done to it.

    Attributes:
        text: as trained on.
        wrong: which steps are.
        other: which marks are.
        reversed: whether the last result comes first.
        moves: mean length of a move, which is unrelated to quality.
        result_right: whether the last result is the problem's.
    """

    text: str
    wrong: tuple[bool, ...]
    other: tuple[bool, ...]
    reversed: bool
    moves: float
    result_right: bool

    @property
    def shares(self) -> dict[str, float]:
        """By dimension, what an annotator without noise would say, from 0 to 1."""
        return {
            "steps": 1 - statistics.mean(self.wrong),
            "result": float(self.result_right),
            "marks": 1 - statistics.mean(self.other),
            "order": 1.0 - self.reversed,
            "moves": (self.moves - 1) / 3,
            "content": 1 - statistics.mean(self.wrong),
            "format": 1 - statistics.mean((*self.other, self.reversed)),
        }


def draw_document(problem: Problem, draw: random.Random) -> Document:
    """Draw both shares, then damage each unit with its share's probability."""
    content, layout = draw.choice(LEVELS), draw.choice(LEVELS)
    wrong = tuple(draw.random() < content for _ in range(STEPS))
    other = tuple(draw.random() < layout for _ in range(STEPS - 1))
    is_reversed = draw.random() < layout
    results = worked(problem, list(wrong), draw=draw).split(MARK)
    right = results[-1] == problem.solution.split(MARK)[-1]
    marks = [draw.choice(OTHER_MARKS) if each else MARK for each in other]
    shown = results[::-1] if is_reversed else results
    text = shown[0] + "".join(mark + each for mark, each in zip(marks, shown[1:], strict=True))
    moves = statistics.mean(move for _, move in problem.then)
    return Document(f"{problem.question}{text}", wrong, other, is_reversed, moves, right)


def scores(documents: Sequence[Document], seed: int) -> dict[str, list[int]]:
    """An annotator's scores by dimension, from 0 to 9."""
    draw = random.Random(f"annotator {seed}")
    found: dict[str, list[int]] = {}
    for name in (*DIMENSIONS, "content", "format"):
        shares = [draw.random() if name == "coin" else each.shares[name] for each in documents]
        found[name] = [min(HIGHEST, max(0, round(HIGHEST * share + draw.gauss(0, NOISE)))) for share in shares]
    return found


def best(given: Mapping[str, Sequence[int]], by: Sequence[str], number: int, seed: int) -> list[int]:
    """Indices of the documents with the highest sum of scores, with random ties, in the order of the pool."""
    draw = random.Random(f"ties {seed}")
    size = len(next(iter(given.values())))
    ranks = sorted(range(size), key=lambda place: (-sum(given[name][place] for name in by), draw.random()))
    return sorted(ranks[:number])


def draw_pool(number: int, seed: int) -> tuple[list[Document], list[Problem]]:
    """Documents, and test problems that occur in none of them."""
    draw = random.Random(f"content and format {seed}")
    drawn: dict[Problem, None] = {}
    while len(drawn) < number + TESTS:
        drawn[draw_problem(draw)] = None
    problems = list(drawn)
    return [draw_document(each, draw) for each in problems[TESTS:]], problems[:TESTS]


def measure(model: Any, name: Path, problems: Sequence[Problem]) -> dict[str, list[float]]:
    """Bits of each clean solution, those of its four results alone, and 1 where greedy decoding writes it whole."""
    from nbg_lightning.data.tokenizer import Tokenizer
    from nbg_lightning.evaluation.log_likelihood import LogLikelihoodScorer, Request

    own, requests = Tokenizer(name), []
    ends = () if own.eos_id is None else (own.eos_id,)
    for each in problems:
        question, solution = (*own.begin, *own.encode(each.question)), (*own.encode(each.solution), *ends)
        requests.append(Request(question, solution))
        for place in range(0, 2 * STEPS, 2):  # results and marks take turns
            requests.append(Request((*question, *solution[:place]), (solution[place],)))
    found = LogLikelihoodScorer(model)(requests)
    bits = [-each.total / math.log(2) for each in found]
    one = 1 + STEPS
    return {
        "bits": bits[::one],
        "result_bits": [sum(bits[place + 1 : place + one]) for place in range(0, len(bits), one)],
        "accuracy": [float(each.is_greedy) for each in found[::one]],
    }


def run(job: Job) -> dict[str, Any]:
    """Choose, train and measure one arm with one seed."""
    from nbg_lightning import AdamWConfig, Stage
    from nbg_lightning.schedule.curriculum import Curriculum

    settings, core, place = job.settings, shape(job.settings["size"]), job.folder.parent / "data"
    number = (settings["tokens"] + 4 * LENGTH) // DOCUMENT
    documents, problems = draw_pool(POOL * number, job.seed)
    given = scores(documents, job.seed)
    chosen = best(given, settings["by"], number, job.seed)
    name = tokenizer(place / "tokenizer")
    data = data_of({"chosen": [documents[each].text for each in chosen]}, name, place, job.seed)
    steps, peak, mixture = settings["tokens"] // STEP, settings["rate"], {"chosen": 1.0}
    warm, decay = round(WARMUP * steps), round(DECAY * steps)
    stages = [
        Stage("warmup", warm * STEP, [0.0, peak], mixture),
        Stage("stable", (steps - warm - decay) * STEP, peak, mixture),
        Stage("decay", decay * STEP, [peak, peak * LAST_RATE], mixture, "sqrt"),
    ]
    optimizer = AdamWConfig(weight_decay=0.1, betas=(0.9, 0.95))
    model = pretrain(core, optimizer, Curriculum(stages, STEP, LENGTH), data, job.seed)
    job.charges.train("model", core, steps * STEP, LENGTH)
    items = measure(model, name, problems)
    told = {each: statistics.mean(given[each][one] for one in chosen) for each in (*DIMENSIONS, "content", "format")}
    metrics = {key: statistics.mean(values) for key, values in items.items()}
    return {"metrics": metrics, "items": items, "mean_scores": told}


PRIMARY = "best third"
SETTINGS = {"tokens": 220 * STEP, "size": {"width": 96, "layers": 2}, "rate": 4e-3}
MAIN = ("random", "content", "format", "both")
experiment = Experiment(
    name="content_format",
    question="Do documents chosen by a score of their content teach more than as many chosen by a score of their format?",
    metrics={
        "bits": Metric("held-out clean solution, bits", higher_is_better=False),
        "result_bits": Metric("its results alone, bits", higher_is_better=False),
        "accuracy": Metric("held-out solution right, %", scale=100, digits=1),
    },
    arms={
        "random": {"by": []},
        "content": {"by": ["content"]},
        "format": {"by": ["format"]},
        "both": {"by": ["content", "format"]},
        **{f"by {name}": {"by": [name]} for name in DIMENSIONS},
    },
    budgets={
        PRIMARY: Budget(SETTINGS, tuple(range(1, 13)), MAIN),
        "a dimension alone": Budget(SETTINGS, (1, 2, 3, 4), tuple(f"by {name}" for name in DIMENSIONS)),
    },
    primary=Contrast("format", "content", "bits", PRIMARY),
    secondary=tuple(
        Contrast(first, second, metric, PRIMARY)
        for metric in ("bits", "result_bits")
        for first, second in (
            ("random", "content"),
            ("random", "format"),
            ("content", "both"),
            ("format", "both"),
            *([("format", "content")] if metric == "result_bits" else []),
        )
    ),
    tuning_seeds=(101, 102),
    run=run,
)

if __name__ == "__main__":
    main(experiment)
