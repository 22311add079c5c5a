"""Paired timing, and the JSON results of benchmarks."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS_VARIABLE = "NBG_BENCHMARK_RESULTS"  # folder for results, instead of the committed ones


def processor() -> str:
    """The name of this machine's processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def folder_of(name: str) -> str:
    """The folder of a processor's results, so that results of several processors can coexist.

    >>> folder_of("Intel(R) Xeon(R) Processor"), folder_of("AMD EPYC 9B45")
    ('intel-xeon-processor', 'amd-epyc-9b45')
    """
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", name.lower())).strip("-") or "unknown"


RESULTS = Path(os.environ.get(RESULTS_VARIABLE, Path(__file__).parent / "results" / folder_of(processor())))


def resident_bytes(key: str = "VmHWM") -> int:
    """The largest resident set of this process since its start or its last ``clear_refs``; the present one for ``VmRSS``.

    Not getrusage's ``ru_maxrss``, which a child process has from its parent.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def paired_seconds(
    sides: dict[str, Callable[[], Any]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
    after: Callable[[], Any] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of each side, in alternation, after one warm-up of each.

    Args:
        sides: functions by name.
        repeats: number of repeats per side.
        clock: ``time.process_time`` counts this process's computation, which is robust on a busy machine.
        after: called after each side, without being timed.
    """
    for run in sides.values():
        run()
        after()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats):
        order = list(sides) if repeat % 2 == 0 else list(reversed(sides))
        for name in order:
            begin = clock()
            sides[name]()
            seconds[name].append(clock() - begin)
            after()
    return seconds


def ratio(numerator: list[float], denominator: list[float]) -> dict[str, float]:
    """Median and quartiles of the pairwise ratios."""
    ratios = sorted(a / b for a, b in zip(numerator, denominator, strict=True))
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    return {"median": statistics.median(ratios), "lower_quartile": low, "upper_quartile": high}


def write_result(name: str, settings: dict[str, Any], results: dict[str, Any]) -> Path:
    """Write ``results/<processor>/<name>.json``, print it, and return its path."""
    print(json.dumps(results, indent=2))
    return write_document(RESULTS, name, settings, results)


def write_document(
    folder: Path, name: str, settings: dict[str, Any], results: dict[str, Any], earlier: Sequence[dict[str, Any]] = ()
) -> Path:
    """Write ``<name>.json`` to a folder, with machine and versions, and return its path.

    Args:
        folder: is made if it is not there.
        name: of the benchmark.
        settings: of the measurement.
        results: its numbers.
        earlier: date, machine and versions of older measurements among the results.
    """
    import torch

    from nbg_lightning.data.durable import write_atomic

    packages = ("torch", "lightning", "torchtitan", "transformers", "nbg-lightning")
    document = {
        "benchmark": name,
        "date": date.today().isoformat(),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "system": platform.system(),
        },
        "versions": {package: version(package) for package in packages},
        **({"earlier": list(earlier)} if earlier else {}),
        "settings": settings,
        "results": results,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    write_atomic(path, json.dumps(document, indent=2) + "\n")
    print(f"written: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    return path
