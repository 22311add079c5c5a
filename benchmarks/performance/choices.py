"""Multiple-choice questions with five worked examples each: this library's suite, and lm-eval's Hugging Face back end.

    pip install 'nbg-lightning[eval]' accelerate
    python benchmarks/performance/choices.py

One model (that of race.py: a 5.2 M-parameter Llama, with a tokenizer trained on Python's docstrings), the same real items with
the same texts, float32, the same threads; sides alternate in one process and must make the same choices. Models are loaded
once on both sides; the timing covers a run of the suite, from texts to metrics. ``arc_easy`` has endings of several tokens,
``mmlu`` letters, for which lm-eval computes a context once.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from lm_eval_parity import Harness, documents_of
from paired import ratio, write_result
from race import SHAPE, begin

SHOTS = 5
AGREE = 0.97  # of the items: log-likelihoods 1e-5 apart may be in another order


def make_folder(place: Path) -> Path:
    """The model and its tokenizer, as a Hugging Face folder."""
    from nbg_lightning import LanguageModelConfig
    from nbg_lightning.core.create import create_model
    from nbg_lightning.core.hf_folder import save_hugging_face
    from nbg_lightning.data import PackageSource, Tokenizer, train_bpe

    texts = list(PackageSource("stdlib", "docstrings").documents())
    tokenizer = train_bpe(texts, SHAPE["vocab_size"], place / "tokenizer")
    model = create_model(LanguageModelConfig(**SHAPE))  # type: ignore[arg-type]
    save_hugging_face(model, place / "model", Tokenizer(tokenizer), dtype="float32", verify=False)
    return place / "model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=32, help="items per benchmark")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    begin(arguments)

    from nbg_lightning.data import Tokenizer
    from nbg_lightning.engines import LocalEngine
    from nbg_lightning.evaluation import ARC, MMLU, Suite

    some: dict[str, Any] = {"limit": arguments.limit, "pick": "spread", "num_shots": SHOTS}
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        folder = make_folder(place)
        tokenizer = Tokenizer(folder)
        with LocalEngine(str(folder), device="cpu") as engine:
            for benchmark in (ARC(subset="easy", **some), MMLU(**some)):
                suite = Suite([benchmark])
                documents, _ = documents_of(suite, tokenizer)
                (place / benchmark.name).mkdir()
                harness = Harness(folder, place / benchmark.name, documents)
                results[benchmark.name] = raced(
                    benchmark.name, lambda suite=suite: suite.run(engine, tokenizer), harness.run, arguments.repeats
                )
    write_result("choices", {**vars(arguments), "shots": SHOTS, "model": SHAPE, "dtype": "float32"}, results)


def raced(name: str, ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Items per second of both sides, after a warm-up of each, which also compares their choices."""
    mine, other = ours().records[name], theirs()["samples"][name]
    other = sorted(other, key=lambda sample: sample["doc_id"])
    chosen = [
        _best(record["log_likelihoods"]) == _best([answer[0] for answer in sample["filtered_resps"]])
        for record, sample in zip(mine, other, strict=True)
    ]
    if sum(chosen) < AGREE * len(chosen):
        raise RuntimeError(f"{name} is invalid: the sides choose alike in {sum(chosen)} of {len(chosen)} items")
    sides = {"ours": ours, "lm_eval": theirs}
    rates: dict[str, dict[str, list[float]]] = {clock: {side: [] for side in sides} for clock in ("wall", "processor")}
    for repeat in range(repeats):
        for side in list(sides) if repeat % 2 == 0 else list(sides)[::-1]:
            wall, processor = time.perf_counter(), time.process_time()
            sides[side]()
            rates["wall"][side].append(len(mine) / (time.perf_counter() - wall))
            rates["processor"][side].append(len(mine) / (time.process_time() - processor))
            print(name, side, round(rates["wall"][side][-1], 2), file=sys.stderr)
    over = {f"over_lm_eval_{clock}": ratio(of["ours"], of["lm_eval"]) for clock, of in rates.items()}
    return {"items": len(mine), "chosen_alike": sum(chosen), **over, "items_per_second": rates}


def _best(values: list[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


if __name__ == "__main__":
    main()
