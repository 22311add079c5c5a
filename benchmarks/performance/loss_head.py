"""The chunked loss head against full logits, and against `torch.nn.functional.linear_cross_entropy`: peak memory and time.

    python benchmarks/performance/loss_head.py

Memory is the growth of the peak resident set of a fresh process over one forward and backward, minus the returned gradients:
what the loss itself needs, at the model's vocabulary. Time is paired, with a smaller vocabulary and fewer
tokens, so that a run takes minutes; use ``--time-vocab 166144`` for the full size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

from paired import paired_seconds, ratio, resident_bytes, write_result


def _inputs(tokens: int, vocab: int, dim: int, dtype: str):  # type: ignore[no-untyped-def]
    import torch

    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, dim, generator=generator).to(getattr(torch, dtype)).requires_grad_()
    weight = (torch.randn(vocab, dim, generator=generator) * 0.02).to(getattr(torch, dtype)).requires_grad_()
    labels = torch.randint(0, vocab, (tokens,), generator=generator)
    return hidden, weight, labels


def _chunked(hidden, weight, labels) -> None:  # type: ignore[no-untyped-def]
    from nbg_lightning.core.head import linear_cross_entropy

    (linear_cross_entropy(hidden, weight, labels).loss / len(labels)).backward()


def _full(hidden, weight, labels) -> None:  # type: ignore[no-untyped-def]
    import torch.nn.functional as F

    F.cross_entropy(F.linear(hidden, weight).float(), labels).backward()


def _torch(hidden, weight, labels) -> None:  # type: ignore[no-untyped-def]
    import torch

    # Its own choice of chunks, as of torch 2.13; without options it computes full logits.
    options = torch.nn.LinearCrossEntropyOptions()
    torch.nn.functional.linear_cross_entropy(hidden, weight, labels, options=options).backward()


SIDES = {"chunked": _chunked, "full": _full, "torch": _torch}


def _measure_memory(side: str, tokens: int, vocab: int, dim: int, dtype: str) -> float:
    """Megabytes beyond inputs and gradients, in a separate process (resident sets do not shrink)."""
    command = [sys.executable, __file__, "--memory-of", side, "--tokens", str(tokens), "--vocab", str(vocab)]
    command += ["--dim", str(dim), "--dtype", dtype]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def _memory_of(side: str, tokens: int, vocab: int, dim: int, dtype: str) -> float:
    from pathlib import Path

    SIDES[side](*_inputs(64, 512, dim, dtype))  # libraries allocate what they keep
    inputs = _inputs(tokens, vocab, dim, dtype)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident_bytes("VmRSS")
    SIDES[side](*inputs)
    gradients = sum(t.grad.numel() * t.grad.element_size() for t in inputs[:2])
    return (resident_bytes() - before - gradients) / 2**20


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocab", type=int, default=166_144)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument(
        "--time-tokens", type=int, default=1024, help="tokens for the timing, for which full logits must fit"
    )
    parser.add_argument("--time-vocab", type=int, default=16_384, help="vocabulary size for the timing")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--processor-time", action="store_true", help="measure processor time, on a busy machine; use OMP_NUM_THREADS=1"
    )
    parser.add_argument("--name", default="loss_head", help="name of the result")
    parser.add_argument("--memory-of", choices=list(SIDES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    size = (arguments.tokens, arguments.vocab, arguments.dim)
    if arguments.memory_of:
        print(_memory_of(arguments.memory_of, *size, arguments.dtype))
        return
    results: dict[str, object] = {}
    for dtype in arguments.dtypes:
        inputs = _inputs(arguments.time_tokens, arguments.time_vocab, arguments.dim, dtype)

        def run(side: str, inputs=inputs) -> None:  # type: ignore[no-untyped-def]
            for tensor in inputs[:2]:
                tensor.grad = None
            SIDES[side](*inputs)

        _say(f"{dtype}: time of {', '.join(SIDES)}, {arguments.repeats} times each")
        clock = time.process_time if arguments.processor_time else time.perf_counter
        seconds = paired_seconds({s: lambda s=s: run(s) for s in SIDES}, arguments.repeats, clock)
        memory = {}
        for side in SIDES:
            _say(f"{dtype}: memory of {side}")
            memory[side] = round(_measure_memory(side, *size, dtype))
        results[dtype] = {
            "extra_memory_mb": memory,
            "seconds": seconds,
            "time_chunked_over_full": ratio(seconds["chunked"], seconds["full"]),
            "time_chunked_over_torch": ratio(seconds["chunked"], seconds["torch"]),
        }
    write_result(arguments.name, vars(arguments), results)


if __name__ == "__main__":
    main()
