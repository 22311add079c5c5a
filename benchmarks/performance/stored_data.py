"""Training data behind a URL with 50 ms latency: how long training waits for it, and how much is requested.

A step is a pause instead of computation: as long as `nbg plan` predicts for a rank's windows of the 3 B model on an H100, and a
shorter one with fewer windows. Data: documents of random letters, 10 MB of ids; cache: a tenth of it; 2 workers.

python benchmarks/performance/stored_data.py
"""

from __future__ import annotations

import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from paired import write_result

from nbg_lightning.data import DataStore, InMemory
from nbg_lightning.datamodules import CurriculumDataModule
from nbg_lightning.testing.benchmarks import character_tokenizer
from nbg_lightning.testing.lagging_store import lagging_store

LATENCY, LENGTH, WORKERS = 0.05, 4096, 2  # seconds of an answer, tokens of a window
FIRST = 4  # steps that wait for the workers to start


class Pace(NamedTuple):
    """Training speed of a rank: seconds per step, windows per step, and number of measured steps."""

    seconds: float
    windows: int
    steps: int


PACES = {"steps of 0.5 s": Pace(0.5, 8, 60), "3 B on an H100": Pace(2.75, 16, 24)}
DOCUMENTS, LONGEST = 1000, 10_000
BLOCK_MB = 0.0625


def make(folder: Path, texts: list[str], place: str | DataStore, pace: Pace) -> CurriculumDataModule:
    """A datamodule that is set up."""
    data = CurriculumDataModule(
        {"web": InMemory(texts)},
        str(folder / "tokenizer"),
        data_dir=place,
        num_workers=WORKERS,
        sequence_length=LENGTH,
        tokens_per_step=pace.windows * LENGTH,
        tokens=pace.steps * pace.windows * LENGTH,
    )
    data.prepare_data()
    data.setup("fit")
    return data


def serve(data: CurriculumDataModule, pace: Pace) -> tuple[dict[str, float], str]:
    """How training waited, and the hash chain over all steps."""
    waits, loader = [], iter(data.train_dataloader())
    for _ in range(pace.steps):
        begin = time.perf_counter()
        batch = next(loader)
        waits.append(time.perf_counter() - begin)
        data.advance(int(batch.sample_hash.sum()))
        time.sleep(pace.seconds)
    later = sum(waits[FIRST:])
    found = {
        "wait_share": later / (later + pace.seconds * (pace.steps - FIRST)),
        "median_wait_seconds": statistics.median(waits[FIRST:]),
        "longest_wait_seconds": max(waits[FIRST:]),
        "first_wait_seconds": waits[0],
    }
    return found, data.chain


def main() -> None:
    chance = random.Random(0)
    texts = ["".join(chance.choices("abcdefgh .", k=chance.randint(1, LONGEST))) for _ in range(DOCUMENTS)]
    folder = Path(tempfile.mkdtemp(prefix="stored-data-"))
    character_tokenizer(folder / "tokenizer")
    results: dict[str, Any] = {}
    for name, pace in PACES.items():
        with lagging_store() as store:
            local = make(folder, texts, str(folder / "data"), pace)
            num_bytes = sum(file.stat().st_size for file in (folder / "data").rglob("part-*.tokens"))
            place = DataStore(f"lagging://{folder}/there", str(folder / "data"), num_bytes / 10 / 1e9, BLOCK_MB)
            stored = make(folder, texts, place, pace)
            shutil.rmtree(place.cache_folder, ignore_errors=True)
            store.seconds = LATENCY
            (here, chain), (there, other) = serve(local, pace), serve(stored, pace)
            assert chain == other, "the samples differ"
            cached = sum(file.stat().st_size for file in place.cache_folder.glob("*/*"))
        results[name] = {"folder": here, "url": there, "cached_bytes": cached}
        print(name, results[name], flush=True)
    settings = {"latency_seconds": LATENCY, "length": LENGTH, "workers": WORKERS, "data_bytes": num_bytes}
    settings |= {"paces": {name: pace._asdict() for name, pace in PACES.items()}, "cache_bytes": place.cache_bytes}
    write_result("stored_data", settings, results)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
