"""The data order: look-ups per second in one process, and the time of the first access far into a run.

python benchmarks/performance/data_order.py
"""

from __future__ import annotations

import statistics
import time
import tracemalloc

from paired import write_result

from nbg_lightning.data.order import SampleOrder
from nbg_lightning.schedule.curriculum import Curriculum, Stage

SOURCES = 20
SIZES = {f"source{i}": 10 ** (3 + i % 6) + i for i in range(SOURCES)}


def make_order() -> SampleOrder:
    """Two stages with 20 sources each, 4e9 windows in total."""
    rising = {name: float(i + 1) for i, name in enumerate(SIZES)}
    falling = {name: float(SOURCES - i) for i, name in enumerate(SIZES)}
    stages = [Stage("first", 2e9 * 4096, 1e-3, rising), Stage("second", 2e9 * 4096, 1e-3, falling)]
    return SampleOrder(0, Curriculum(stages, 4096 * 1024, 4096), lambda name, length: SIZES[name])


def main() -> None:
    tracemalloc.start()
    begin = time.perf_counter()
    make_order().lookup(10**9, 10**9 + 1)
    first_access = time.perf_counter() - begin
    memory = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    order = make_order()
    rates = []
    for repeat in range(5):
        begin, count = time.perf_counter(), 1000
        for step in range(count):
            start = (repeat * count + step) * 1024
            order.lookup(start, start + 1024)
        rates.append(count * 1024 / (time.perf_counter() - begin))
    results = {
        "samples_per_second": {"median": statistics.median(rates), "all": rates},
        "first_access_at_1e9_seconds": first_access,
        "first_access_peak_mb": memory,
    }
    write_result("data_order", {"sources": SOURCES, "samples_per_lookup": 1024}, results)


if __name__ == "__main__":
    main()
