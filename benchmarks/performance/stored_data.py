"""Training data behind a URL whose answers take 50 ms: how long training waits for them, and what is asked for.

A step is a pause in place of a model's work. Data: documents of random letters, 10 MB of ids; cache: a tenth of it; 2 workers.

python benchmarks/performance/stored_data.py
"""

from __future__ import annotations

import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from paired import write_result

from nbg_lightning.data import DataStore, InMemory
from nbg_lightning.datamodules import CurriculumDataModule
from nbg_lightning.testing.benchmarks import character_tokenizer
from nbg_lightning.testing.lagging_store import lagging_store

LATENCY, STEP_SECONDS, STEPS, FIRST = 0.05, 0.5, 60, 4  # seconds; the first steps wait for the workers to start
LENGTH, WINDOWS, WORKERS = 4096, 8, 2
DOCUMENTS, LONGEST = 1000, 10_000
BLOCK_MB = 0.0625


def make(folder: Path, texts: list[str], place: str | DataStore, workers: int) -> CurriculumDataModule:
    """A datamodule that is set up."""
    data = CurriculumDataModule(
        {"web": InMemory(texts)},
        str(folder / "tokenizer"),
        data_dir=place,
        num_workers=workers,
        sequence_length=LENGTH,
        tokens_per_step=WINDOWS * LENGTH,
        tokens=STEPS * WINDOWS * LENGTH,
    )
    data.prepare_data()
    data.setup("fit")
    return data


def serve(data: CurriculumDataModule) -> tuple[list[float], str]:
    """Seconds of waiting for each step, and the hash chain over all."""
    waits, loader = [], iter(data.train_dataloader())
    for _ in range(STEPS):
        begin = time.perf_counter()
        batch = next(loader)
        waits.append(time.perf_counter() - begin)
        data.advance(int(batch.sample_hash.sum()))
        time.sleep(STEP_SECONDS)
    return waits, data.chain


def main() -> None:
    chance = random.Random(0)
    texts = ["".join(chance.choices("abcdefgh .", k=chance.randint(1, LONGEST))) for _ in range(DOCUMENTS)]
    folder = Path(tempfile.mkdtemp(prefix="stored-data-"))
    character_tokenizer(folder / "tokenizer")
    with lagging_store() as store:
        local = make(folder, texts, str(folder / "data"), WORKERS)
        num_bytes = sum(file.stat().st_size for file in (folder / "data").rglob("part-*.tokens"))
        place = DataStore(f"lagging://{folder}/there", str(folder / "data"), num_bytes / 10 / 1e9, BLOCK_MB)
        stored = make(folder, texts, place, WORKERS)
        shutil.rmtree(place.cache_folder, ignore_errors=True)
        store.seconds = LATENCY
        results = {}
        chains = set()
        for name, data in {"folder": local, "url": stored}.items():
            waits, chain = serve(data)
            chains.add(chain)
            later = sum(waits[FIRST:])
            results[name] = {
                "wait_share": later / (later + STEP_SECONDS * (STEPS - FIRST)),
                "median_wait_seconds": statistics.median(waits[FIRST:]),
                "longest_wait_seconds": max(waits[FIRST:]),
                "first_wait_seconds": waits[0],
            }
        assert len(chains) == 1, "the samples differ"
        cached = sum(file.stat().st_size for file in place.cache_folder.glob("*/*"))
    settings = {"latency_seconds": LATENCY, "step_seconds": STEP_SECONDS, "windows_a_step": WINDOWS, "length": LENGTH}
    settings |= {"workers": WORKERS, "data_bytes": num_bytes, "cache_bytes": place.cache_bytes, "cached_bytes": cached}
    write_result("stored_data", settings, results)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
