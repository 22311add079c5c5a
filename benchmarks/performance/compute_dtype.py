"""bfloat16 against float32 in a whole training step: forward, backward, clipping and AdamW, under FSDP2 as in `nbg fit`.

    python benchmarks/performance/compute_dtype.py

Parameters, gradients and moments are float32 on both sides; only activations and matrix products differ. Steps of both
sides alternate on the same batches. On CPUs with AVX512-BF16 or AMX, bfloat16 should be faster; the result records the
processor's features.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from paired import paired_seconds, ratio, write_result
from torch.distributed.device_mesh import init_device_mesh

import nbg_lightning as nbg
from nbg_lightning.core.batch import PackedBatch
from nbg_lightning.core.create import create_model
from nbg_lightning.modules.optimizer import AdamWConfig, build_adamw
from nbg_lightning.modules.pretrain import cross_entropy

DTYPES = ("bfloat16", "float32")


def random_batch(vocab_size: int, num_tokens: int, length: int, document: int) -> PackedBatch:
    """Rows of documents with equal length; the token values do not affect the time."""
    rows = num_tokens // length
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, vocab_size, (rows, length + 1), generator=generator)
    positions = (torch.arange(length) % document).expand(rows, length).contiguous()
    zeros = torch.zeros(rows, dtype=torch.int64)
    return PackedBatch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), positions, zeros, zeros)


def training_step(
    shape: nbg.LanguageModelConfig, dtype: str, batch: PackedBatch, losses: list[float]
) -> Callable[[], None]:
    """A model with its optimizer, as a function that trains one step and records the loss."""
    mesh = init_device_mesh("cpu", (1,))
    model = create_model(shape, nbg.ParallelConfig(compute_dtype=dtype), mesh)
    optimizer = build_adamw(model.parameters(), AdamWConfig(lr=1e-4))
    micro = batch.split(batch.num_tokens)[0]

    def step() -> None:
        loss = cross_entropy(model, micro).loss / micro.num_tokens
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())

    return step


def processor_features() -> list[str]:
    """The processor's features for bfloat16; empty if the system does not report them."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    return sorted(flags & {"avx512f", "avx512_bf16", "amx_bf16"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", default="small")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--sequence-length", type=int, default=1024)
    parser.add_argument("--document", type=int, default=256, help="length of the documents in a row")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shape = nbg.core.preset(arguments.core)
    batch = random_batch(shape.vocab_size, arguments.tokens, arguments.sequence_length, arguments.document)
    losses: dict[str, list[float]] = {dtype: [] for dtype in DTYPES}
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        sides = {dtype: training_step(shape, dtype, batch, losses[dtype]) for dtype in DTYPES}
        seconds = paired_seconds(sides, arguments.repeats)
        dist.destroy_process_group()
    assert all(map(math.isfinite, losses["bfloat16"] + losses["float32"]))
    difference = max(abs(a - b) / b for a, b in zip(losses["bfloat16"], losses["float32"], strict=True))
    assert difference < 0.01, f"the two sides do not train the same: losses differ by {difference:.1%}"
    results = {
        "float32_over_bfloat16": ratio(seconds["float32"], seconds["bfloat16"]),
        "seconds_per_step": seconds,
        "losses": {dtype: [values[0], values[-1]] for dtype, values in losses.items()},
        "largest_relative_loss_difference": difference,
        "processor_features": processor_features(),
    }
    write_result("compute_dtype", vars(arguments), results)


if __name__ == "__main__":
    main()
