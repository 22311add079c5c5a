"""Checks correctness, speed and planned memory of the CUDA path: one command on one device, at most nine minutes, no network.

    python -m benchmarks.gpu_check [--minutes 8.5] [--layers 8] [--only NAME ...] [--output FILE.json]    # or: make gpu-check
        python -m benchmarks.gpu_check --device cpu       # runs the code of every check at tiny sizes; numbers are meaningless

Runs on the pinned torch, and on 2.11 and later through `older_torch`. Every check is timed, and a failing one does not stop the
others. Exits with 1 if one failed. It prints a Markdown table for the docs; the JSON has all numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Check = Callable[[Any], dict[str, Any]]


def checks() -> dict[str, Check]:
    """All checks, most important first: those that do not fit in the time are skipped."""
    from benchmarks.gpu_check import parity, speed

    return {
        "environment": speed.environment,
        "attention": parity.attention,
        "shared prefixes": parity.shared_prefixes,
        "heads": parity.heads,
        "decode": parity.decode,
        "compile": parity.compiled,
        "float8": parity.float8,
        "context parallelism": parity.context_parallel,
        "recompilations": parity.recompilations,
        "host synchronizations": parity.host_synchronizations,
        "precision": parity.precision,
        "planned against measured": speed.planned,
        "head speed": speed.head_speed,
        "attention speed": speed.attention_speed,
        "generation": speed.generation,
        "GRPO update": speed.grpo,
        "steps": speed.steps,
        "GRPO against TRL": speed.against_trl,
    }


def run(check: Check, here: Any, seconds_left: float) -> dict[str, Any]:
    """Run a check; returns its state, seconds and numbers."""
    from benchmarks.gpu_check.setting import LeftOut
    from benchmarks.gpu_check.speed import release

    if seconds_left <= 0:
        return {"state": "left out", "why": "no time is left: give more --minutes"}
    begin = time.monotonic()
    try:
        found: dict[str, Any] = {"state": "ok", "found": check(here)}
    except LeftOut as reason:
        found = {"state": "left out", "why": str(reason)}
    except Exception as error:  # whatever a kernel raises
        found = {
            "state": "FAILED",
            "why": f"{type(error).__name__}: {error}"[:600],
            "where": traceback.format_exc()[-1500:],
        }
    release(here)
    return {**found, "seconds": round(time.monotonic() - begin, 1)}


def rows(name: str, found: dict[str, Any]) -> list[str]:
    """A check as rows of a Markdown table, one per setting."""
    if found["state"] != "ok":
        return [f"| {name} | {found['state']} | {found['why'].splitlines()[0][:200]} |"]
    values = found["found"]
    nested = {key: value for key, value in values.items() if isinstance(value, dict)}
    flat = {key: value for key, value in values.items() if key not in nested}
    lines = [f"| {name} | ok | {_said(flat)} |"] if flat or not nested else []
    return lines + [f"| {name}: {key} | ok | {_said(value)} |" for key, value in nested.items()]


def _said(values: dict[str, Any]) -> str:
    shown = (f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items())
    return ", ".join(shown)


def main(argv: list[str] | None = None) -> int:
    """Run the checks, print the table, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=8.5, help="start no further check after this time")
    parser.add_argument("--layers", type=int, default=8, help="layers of the 1 B and 3 B shapes")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run these checks only")
    parser.add_argument(
        "--output", type=Path, help="JSON file; on CUDA by default benchmarks/performance/results/gpu_check.json"
    )
    arguments = parser.parse_args(argv)
    import torch

    from benchmarks.gpu_check.older_torch import fill_in

    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA device: --device cpu runs the same checks, small", file=sys.stderr)
        return 2
    added = fill_in()
    from benchmarks.gpu_check.setting import Setting

    known = checks()
    if unknown := [name for name in arguments.only or [] if name not in known]:
        print(f"no check {unknown[0]!r}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    begin, here, found = time.monotonic(), Setting(arguments.device, arguments.layers), {}
    print("| check | state | found |\n|---|---|---|")
    for name, check in known.items():
        if not arguments.only or name in arguments.only:
            found[name] = run(check, here, arguments.minutes * 60 - (time.monotonic() - begin))
            print("\n".join(rows(name, found[name])), flush=True)
    failed = [name for name, each in found.items() if each["state"] == "FAILED"]
    total = round(time.monotonic() - begin, 1)
    report = {"device": arguments.device, "seconds": total, "filled in for this torch": added, "checks": found}
    output = arguments.output
    if output is None and here.cuda:
        output = Path(__file__).parents[1] / "performance" / "results" / "gpu_check.json"
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(report, indent=1, default=str) + "\n")
    print(f"\n{total:.0f} s; " + (f"FAILED: {', '.join(failed)}" if failed else "no check failed"))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported
    sys.exit(main())
