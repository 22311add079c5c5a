"""The head of DPO and DPD: peak memory besides inputs and gradients, and time relative to cross-entropy on the same tokens.

    python benchmarks/performance/distillation_head.py

Pairs of sequences of 64 to 512 trained tokens: with a large vocabulary most are longer than a chunk. Sides: cross-entropy,
DPO, DPD with a cached teacher (64 ids and the tail), DPD with a live teacher of another width. Memory is the growth of the peak
resident set of a fresh process over one forward and backward, minus the returned gradients.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paired import paired_seconds, ratio, resident_bytes, write_result

SIDES = ("cross_entropy", "dpo", "dpd_cached", "dpd_live")
LISTED = 64


def make_run(side: str, tokens: int, vocab: int, dim: int, dtype: str) -> tuple[Callable[[], None], list[Any]]:
    """One forward and backward of a side, and the tensors that get gradients."""
    import torch

    from nbg_lightning.core.head import linear_cross_entropy
    from nbg_lightning.core.head_distillation import LiveTargets, TopK, linear_preference
    from nbg_lightning.losses.preference import Preference, preference_loss

    generator = torch.Generator().manual_seed(0)

    def random(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator).to(getattr(torch, dtype))

    hidden, weight = random(tokens, dim).requires_grad_(), (random(vocab, dim) * 0.02).requires_grad_()
    labels = torch.randint(0, vocab, (tokens,), generator=generator)
    lengths: list[int] = []
    while sum(lengths) < tokens or len(lengths) % 2:
        lengths.append(int(torch.randint(64, 513, (), generator=generator)))
    sequence = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[:tokens]
    teacher: TopK | LiveTargets | None = None
    if side == "dpd_cached":
        first = torch.randint(0, vocab, (tokens, 1), generator=generator)
        ids = (first + torch.arange(LISTED) * (vocab // LISTED)) % vocab  # all different
        log_q = random(tokens, LISTED + 1).float().log_softmax(-1)
        teacher = TopK(ids, log_q[:, 1:], log_q[:, 0])
    elif side == "dpd_live":
        teacher = LiveTargets(random(tokens, 2 * dim), random(vocab, 2 * dim) * 0.02)

    def pairs(sums: torch.Tensor) -> torch.Tensor:
        return preference_loss(sums[0::2], sums[1::2], Preference()).sum() / len(lengths)

    def run() -> None:
        hidden.grad = weight.grad = None
        if side == "cross_entropy":
            (linear_cross_entropy(hidden, weight, labels).loss / tokens).backward()
            return
        weights = torch.full((tokens,), 1 / tokens)
        linear_preference(hidden, weight, labels, sequence, len(lengths), pairs, teacher, weights).loss.backward()

    return run, [hidden, weight]


def measured_memory(arguments: argparse.Namespace, side: str, dtype: str) -> float:
    """Megabytes, measured in a separate process (resident sets do not shrink)."""
    command = [sys.executable, __file__, "--memory-of", side, "--tokens", str(arguments.tokens)]
    command += ["--vocab", str(arguments.vocab), "--dim", str(arguments.dim), "--dtype", dtype]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def memory_of(side: str, tokens: int, vocab: int, dim: int, dtype: str) -> float:
    """Megabytes beyond inputs and gradients."""

    make_run(side, 1024, 512, dim, dtype)[0]()  # libraries allocate what they keep
    run, tensors = make_run(side, tokens, vocab, dim, dtype)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident_bytes("VmRSS")
    run()
    gradients = sum(tensor.grad.numel() * tensor.grad.element_size() for tensor in tensors)
    return (resident_bytes() - before - gradients) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocab", type=int, default=166_144)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--time-tokens", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", default="float32", help="dtype for --memory-of")
    parser.add_argument("--memory-of", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        size = (arguments.tokens, arguments.vocab, arguments.dim)
        print(memory_of(arguments.memory_of, *size, arguments.dtype))
        return
    results: dict[str, object] = {}
    for dtype in ("float32", "bfloat16"):
        size = (arguments.time_tokens, arguments.vocab, arguments.dim)
        runs = {side: make_run(side, *size, dtype)[0] for side in SIDES}
        seconds = paired_seconds(runs, arguments.repeats)
        results[dtype] = {
            "extra_memory_mb": {side: round(measured_memory(arguments, side, dtype)) for side in SIDES},
            "seconds": seconds,
            **{f"time_{side}_over_cross_entropy": ratio(seconds[side], seconds["cross_entropy"]) for side in SIDES[1:]},
        }
    write_result("distillation_head", vars(arguments), results)


if __name__ == "__main__":
    main()
