"""Prepared data of 1,000 sources and 100,000 parts: opening them, and look-ups beside those of few.

Parts are links to some that were really prepared. A process of its own opens all sources as the first of a node does (it compares
the sizes of all files), then as a worker does, makes the order of their samples, and reads windows at random.

python benchmarks/performance/many_shards.py [--sources 1000] [--parts 100]
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from paired import resident_bytes, write_result

from nbg_lightning.data import InMemory, prepare_source
from nbg_lightning.data.order import SampleOrder
from nbg_lightning.data.shards import MANIFEST, TokenizedSource, content_fingerprint
from nbg_lightning.digests import seal, unseal
from nbg_lightning.schedule.curriculum import Curriculum, Stage
from nbg_lightning.testing.benchmarks import character_tokenizer

LENGTH, WINDOWS, SAMPLES = 512, 2000, 1024
LINKS = 10_000  # to one file: file systems have bounds


def make(folder: Path, sources: int, parts: int) -> None:
    """Sources of some parts each."""
    chance = random.Random(0)
    texts = ["".join(chance.choices("abcdefgh .", k=2000)) for _ in range(40)]
    tokenizer = folder / "tokenizer"
    character_tokenizer(tokenizer)
    made = prepare_source("one", InMemory(texts), tokenizer, folder / "one", num_workers=0, progress=False).train
    manifest = unseal((made / MANIFEST).read_bytes())
    (part,) = manifest["parts"]
    files = {file.suffix: file for file in made.glob(f"{part['file']}.*")}
    links = 0
    for number in range(sources):
        source = folder / "sources" / f"{number:06d}"
        source.mkdir(parents=True)
        names = [f"part-{place:06d}" for place in range(parts)]
        for name in names:
            for suffix, file in files.items():
                if links % LINKS:
                    os.link(file, source / f"{name}{suffix}")
                else:
                    files[suffix] = Path(shutil.copy(file, source / f"{name}{suffix}"))
            links += 1
        own = [{**part, "file": name} for name in names]
        sizes = {key: manifest[key] * parts for key in ("tokens", "documents", "bytes")}
        fingerprint = content_fingerprint(manifest["dtype"], own)
        whole = {**manifest, **sizes, "name": source.name, "parts": own, "fingerprint": fingerprint}
        (source / MANIFEST).write_text(seal(whole))


def look_up(sources: dict[str, TokenizedSource]) -> dict[str, float]:
    """Rates of the order of samples, and of windows read at random: most open a part, the second time none does."""
    stages = [Stage("all", 1e9 * LENGTH, 1e-3, dict.fromkeys(sources, 1.0))]
    plan = Curriculum(stages, SAMPLES * LENGTH, LENGTH)
    begin = time.perf_counter()
    order = SampleOrder(0, plan, lambda name, length: sources[name].num_windows(length))
    order.lookup(10**8, 10**8 + 1)
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    for step in range(20):
        order.lookup(step * SAMPLES, (step + 1) * SAMPLES)
    rate = 20 * SAMPLES / (time.perf_counter() - begin)
    chance = random.Random(1)
    chosen = [chance.choice(list(sources.values())) for _ in range(WINDOWS)]
    places = [(source, chance.randrange(source.num_windows(LENGTH))) for source in chosen]
    of_part = next(iter(sources.values())).manifest["parts"][0]["tokens"]
    parts = len({(source.name, window * LENGTH // of_part) for source, window in places})
    seconds = []
    for _ in range(2):
        begin = time.process_time()
        for source, window in places:
            source.window(window, LENGTH)
        seconds.append((time.process_time() - begin) / WINDOWS * 1e3)
    return {
        "first_lookup_seconds": first,
        "samples_per_second": rate,
        "milliseconds_per_window": seconds[0],
        "parts_opened": parts,
        "milliseconds_per_window_of_open_parts": seconds[1],
    }


def measure(folder: Path) -> dict[str, Any]:
    """In a fresh process."""
    folders = sorted((folder / "sources").iterdir())
    few = {each.name: TokenizedSource(each, check_sizes=False) for each in folders[:20]}
    of_few = look_up(few)
    before, begin = resident_bytes(), time.perf_counter()
    opened = {each.name: TokenizedSource(each) for each in folders}
    seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    again = pickle.loads(pickle.dumps(list(opened.values())))
    worker = time.perf_counter() - begin
    del again
    of_all = look_up(opened)
    return {
        "open_seconds": seconds,
        "open_in_a_worker_seconds": worker,
        "added_peak_mb": (resident_bytes() - before) / 1e6,
        "all": of_all,
        "twenty": of_few,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=1000)
    parser.add_argument("--parts", type=int, default=100)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    folder = Path(tempfile.mkdtemp(prefix="many-shards-"))
    make(folder, arguments.sources, arguments.parts)
    words = [sys.executable, __file__, "--measure", str(folder)]
    results = json.loads(subprocess.check_output(words, text=True).splitlines()[-1])
    settings = {"sources": arguments.sources, "parts_of_each": arguments.parts, "length": LENGTH}
    write_result("many_shards", settings, results)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
