"""Rated choices of real benchmark items, by this library and by lm-eval's own Hugging Face back end.

    pip install 'nbg-lightning[eval]' accelerate
    python benchmarks/lm_eval_parity.py [FOLDER]

Both load one folder (by default the real model of real_model.py) in float32 and get the same questions: the items of
configs/benchmark/real.yaml, as documents of a multiple-choice task of lm-eval, which builds its own requests and metrics. The
result has the differences of log-likelihoods, item by item, and both accuracies.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "performance")]
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {file}}}}}
validation_split: validation
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_choice: choices
doc_to_target: gold
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""


Documents = dict[str, list[dict[str, Any]]]  # of each benchmark


class Harness:
    """lm-eval with its own Hugging Face back end.

    Args:
        folder: the model.
        place: an empty folder for its tasks.
        documents: documents to evaluate.
    """

    def __init__(self, folder: Path, place: Path, documents: Documents):
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        from nbg_lightning.testing.benchmarks import write_rows

        os.environ["HF_DATASETS_CACHE"] = str(place / "cache")
        for name, rows in documents.items():
            file = write_rows(place / f"{name}.jsonl", rows)
            (place / f"{name}.yaml").write_text(TASK.format(name=name, file=file))
        self.names = list(documents)
        self.model = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=8)
        self.manager = TaskManager(include_path=str(place), include_defaults=False)

    def run(self) -> dict[str, Any]:
        """Its metrics, and the log-likelihoods of every document."""
        from lm_eval import evaluator

        tasks = self.manager.load(self.names)
        return evaluator.evaluate(lm=self.model, task_dict=tasks, bootstrap_iters=0, log_samples=True)


def documents_of(suite: Any, tokenizer: Any) -> tuple[Documents, dict[str, list[int]]]:
    """The items of a suite as documents of lm-eval, and the number of tokens of each continuation."""
    from nbg_lightning.evaluation.prompts import Prompts

    prompts = Prompts(tokenizer)
    documents: Documents = {}
    lengths: dict[str, list[int]] = {}
    for benchmark in suite.benchmarks:
        loaded = benchmark.load()
        own = documents[benchmark.name] = []
        sizes = lengths[benchmark.name] = []
        for item in loaded.items:
            asked, requests = prompts.choices(benchmark, item, benchmark.shots_for(item, loaded.shots))
            own.append({"text": asked.text, "choices": list(item.choices), "gold": item.answer})
            sizes += [len(request.continuation) for request in requests]
    return documents, lengths


def main() -> None:
    from real_model import FOLDER

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="Hugging Face folder")
    parser.add_argument("--limit", type=int, default=60, help="items per benchmark")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    folder = arguments.folder.expanduser()

    import torch
    from paired import write_result

    from nbg_lightning.data import Tokenizer
    from nbg_lightning.engines import LocalEngine
    from nbg_lightning.evaluation import ARC, MMLU, HellaSwag, Suite

    torch.set_num_threads(arguments.threads)
    some: dict[str, Any] = {"limit": arguments.limit, "pick": "spread"}
    suite = Suite(
        [ARC(subset="easy", **some), ARC(subset="challenge", **some), HellaSwag(**some), MMLU(num_shots=5, **some)]
    )
    tokenizer = Tokenizer(folder)
    documents, lengths = documents_of(suite, tokenizer)
    with LocalEngine(str(folder), device="cpu") as engine:
        ours = suite.run(engine, tokenizer)
    with tempfile.TemporaryDirectory() as place:
        harness = Harness(folder, Path(place), documents).run()
    results: dict[str, Any] = {}
    for name in documents:
        numbers = harness["results"][name]
        samples = sorted(harness["samples"][name], key=lambda sample: sample["doc_id"])
        apart = [
            abs(mine - other[0])
            for record, sample in zip(ours.records[name], samples, strict=True)
            for mine, other in zip(record["log_likelihoods"], sample["filtered_resps"], strict=True)
        ]
        results[name] = {
            "items": len(samples),
            "largest_difference_of_log_likelihoods": max(apart),
            "largest_difference_per_token": max(d / n for d, n in zip(apart, lengths[name], strict=True)),
            "accuracy": {"ours": ours[name].metrics["accuracy"], "lm_eval": numbers["acc,none"]},
            "accuracy_norm": {"ours": ours[name].metrics["accuracy_norm"], "lm_eval": numbers["acc_norm,none"]},
        }
        print(name, results[name], file=sys.stderr)
    settings = {"model": folder.name, "dtype": "float32", "limit": arguments.limit}
    print(write_result("lm_eval_parity", settings, results))


if __name__ == "__main__":
    main()
