"""Benchmarks of this machine: matrix products, memory, parts of a real step, decoding, and exchange between ranks; half a
minute.

Parts of a step are timed, not only products: on a CPU, and on a GPU without compilation, the share of elementwise work
varies.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig
from nbg_lightning.core.create import create_model
from nbg_lightning.core.decode import Decoder, KeyValueCache
from nbg_lightning.core.products import choose_library, multiply
from nbg_lightning.planning.devices import DECODED_ROWS, DEVICES, Device, Rates, this_cpu
from nbg_lightning.planning.simulate import HEADS

Clock = Callable[[], float]
_TIMES = 3  # of each measurement; the fastest counts, which others on the machine disturbed least
_SHAPES = {  # of the step that is measured: as wide as what is trained on such a device, with few layers
    "cpu": LanguageModelConfig(4096, 384, 1152, 2, 6, 3, 64, 1024),
    "cuda": LanguageModelConfig(32768, 2560, 10496, 2, 20, 4, 128, 4096),
}
_TOKENS = {"cpu": (2, 256), "cuda": (4, 4096)}
_EXCHANGE = """
import json, sys, time, torch, torch.distributed as dist
rank, store, backend = int(sys.argv[1]), sys.argv[2], sys.argv[3]
clock = getattr(time, sys.argv[4])
torch.set_num_threads(1)
dist.init_process_group(backend, init_method="file://" + store, rank=rank, world_size=2)
whole, part = torch.ones(2**23), torch.ones(2**22)
best = 1e9
for _ in range(4):
    begin = clock()
    dist.all_gather_into_tensor(whole, part)
    dist.reduce_scatter_tensor(part, whole)
    best = min(best, clock() - begin)
found = [None, None]
dist.all_gather_object(found, best)
if rank == 0:
    print(json.dumps(max(found)))
dist.destroy_process_group()
"""


def calibrate(
    device_type: str, shape: LanguageModelConfig | None = None, clock_name: str = "perf_counter", baseline: float = 0.0
) -> Device:
    """Benchmark this machine.

    Args:
        device_type: ``cuda`` (the first GPU) or ``cpu`` (this process's threads; a rank of a run should have as many).
        shape: config of the model whose parts are timed; by default a small one with typical proportions. Only a few of its
            layers run.
        clock_name: clock of `time`: ``perf_counter``, or ``process_time`` on a shared machine.
        baseline: GiB of a training process without its tensors (``cpu``); 0 keeps the default.

    Raises:
        ValueError: there is no GPU.
    """
    if device_type == "cuda" and not torch.cuda.is_available():
        raise ValueError("there is no GPU to measure; give --device cpu")
    own = _SHAPES[device_type] if shape is None else dataclasses.replace(shape, num_hidden_layers=2)
    stopwatch = Stopwatch(torch.device(device_type), getattr(time, clock_name))
    rates = {}
    products = {}
    for dtype in ("bfloat16", "float32"):
        products[dtype] = stopwatch.products(getattr(torch, dtype))
        rates[dtype] = stopwatch.rates(own, dtype)
    base = _described(device_type)
    link = _exchange("gloo", clock_name) if device_type == "cpu" else base.link
    return dataclasses.replace(
        base,
        products=products["bfloat16"],
        float32_products=products["float32"],
        bandwidth=stopwatch.bandwidth(),
        link=link,
        network=link if device_type == "cpu" else base.network,
        efficiency=min(1.0, rates["bfloat16"].blocks / products["bfloat16"]),
        reserved=baseline or base.reserved,
        rates=rates,
        decode_bandwidth=stopwatch.decode_bandwidth(own),
        measured=True,
    )


def _described(device_type: str) -> Device:
    """The device's name, memory and links, as far as they are known without measuring."""
    if device_type == "cpu":
        threads = torch.get_num_threads()
        return dataclasses.replace(this_cpu(), name=f"CPU ({threads} thread{'s' * (threads > 1)} a rank)")
    properties = torch.cuda.get_device_properties(0)
    known = next((device for key, device in DEVICES.items() if key.upper() in properties.name.upper()), DEVICES["h100"])
    return dataclasses.replace(known, name=properties.name, memory=properties.total_memory / 2**30)


class Stopwatch:
    """Times parts of a step on one device.

    Args:
        device: the device.
        clock: clock in seconds.
    """

    def __init__(self, device: torch.device, clock: Clock):
        self.device, self.clock = device, clock

    def seconds(self, run: Callable[[], Any], times: int = _TIMES) -> float:
        """The fastest of several runs, after a warmup run."""
        run()
        best = float("inf")
        for _ in range(times):
            self.wait()
            begin = self.clock()
            run()
            self.wait()
            best = min(best, self.clock() - begin)
        return best

    def wait(self) -> None:
        """Wait until the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def products(self, dtype: torch.dtype) -> float:
        """10^12 FLOP/s of a large square product."""
        size = 8192 if self.device.type == "cuda" else 1024
        left, right = (torch.randn(size, size, device=self.device).to(dtype) for _ in range(2))
        choose_library()
        return 2 * size**3 / self.seconds(lambda: multiply(left, right)) / 1e12

    def bandwidth(self) -> float:
        """10^9 bytes/s, read and written, of adding up two large tensors."""
        size = 2**28 if self.device.type == "cuda" else 2**24
        one, other = torch.ones(size, device=self.device), torch.ones(size, device=self.device)
        return 3 * 4 * size / self.seconds(lambda: one.add_(other)) / 1e9

    def rates(self, shape: LanguageModelConfig, dtype: str) -> Rates:
        """Measured throughput of the blocks and of each task's head, forward and backward."""
        rows, length = _TOKENS[self.device.type]
        model = create_model(shape, ParallelConfig(), device=self.device).to(getattr(torch, dtype))
        tokens = torch.zeros(rows, length, dtype=torch.int64, device=self.device)

        def blocks() -> None:
            model(tokens, head=_sum).backward()
            model.zero_grad()

        count = rows * length
        per_token = shape.flops_per_token(length) - 6.0 * shape.vocab_size * shape.hidden_size
        found = per_token * count / self.seconds(blocks) / 1e12
        heads = {task: self._head(task, model, rows, length) for task in HEADS}
        return Rates(found, heads)

    def _head(self, task: str, model: Any, rows: int, length: int) -> float:
        weight = model.lm_head.weight.detach().requires_grad_()
        hidden = torch.randn(rows, length, weight.shape[1], device=self.device).to(weight.dtype).requires_grad_()
        labels = torch.zeros(rows, length, dtype=torch.int64, device=self.device)
        places = torch.arange(rows * length, device=self.device)
        call = partial(HEADS[task], labels_BL=labels, predicting_T=places, targets=None)
        operations = 6.0 * weight.numel() * rows * length
        if task == "DPD":
            from nbg_lightning.core.head_teachers import LiveTargets

            targets = LiveTargets(hidden.detach().flatten(0, 1).clone(), weight.detach().clone())
            call = partial(call.func, labels_BL=labels, predicting_T=places, targets=targets)
            operations *= 4 / 3
        if task == "GRPO":
            operations *= 4 / 3

        def both() -> None:
            call(hidden, weight).backward()
            hidden.grad = weight.grad = None

        return operations / self.seconds(both) / 1e12

    def decode_bandwidth(self, shape: LanguageModelConfig, rows: int = DECODED_ROWS) -> float:
        """10^9 bytes/s of weights that a decode step of some answers reads."""
        model = create_model(shape, ParallelConfig(), device=self.device)
        with torch.inference_mode():
            decoder = Decoder(model)
            cache = KeyValueCache(shape, rows, 64, decoder.cache_dtype, self.device)
            ids = torch.zeros(rows, dtype=torch.int64, device=self.device)

            def steps() -> None:
                under_way = decoder.rows(cache, [16] * rows)
                for _ in range(16):
                    under_way.step(ids)

            return 16 * 4 * shape.num_parameters / self.seconds(steps) / 1e9


def _sum(hidden_BLD: torch.Tensor, weight_VD: torch.Tensor) -> torch.Tensor:
    return hidden_BLD.float().sum()


def _exchange(backend: str, clock_name: str) -> float:
    """10^9 bytes/s that each of two ranks receives in a gather and a reduction."""
    with tempfile.TemporaryDirectory(prefix="nbg-plan-") as folder:
        words = [sys.executable, "-c", _EXCHANGE]
        given = [str(Path(folder) / "store"), backend, clock_name]
        ranks = [
            subprocess.Popen([*words, str(rank), *given], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for rank in range(2)
        ]
        try:
            said = [rank.communicate(timeout=180) for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
    if any(rank.returncode for rank in ranks):
        raise RuntimeError(f"ranks could not exchange tensors; see their output: {said[0][1][-500:]}")
    return 2 * 2**22 * 4 / float(said[0][0].splitlines()[-1]) / 1e9
