"""The process that vLLM runs in: what vLLM reads of it, and what vLLM must leave as it was."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist


def set_environment() -> None:
    """What vLLM reads from the environment; where it is a matter of taste, what is there already is kept."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    defaults = {
        "RANK": str(rank),  # Lightning's launcher sets none
        "LOCAL_RANK": str(local_rank(rank)),
        "WORLD_SIZE": str(size),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def local_rank(rank: int) -> int:
    """The GPU of this process, which the trainer has chosen; without GPUs its place on the node, where Slurm says it."""
    if torch.cuda.is_available():
        return torch.cuda.current_device()
    return int(os.environ.get("SLURM_LOCALID", rank))


@contextmanager
def llvmlite_out_of_sight() -> Iterator[None]:
    """vLLM 0.32 looks into the attributes of all loaded modules, and fails at one of llvmlite's (numba loads it)."""
    name = "llvmlite.binding.ffi"
    module = sys.modules.pop(name, None)
    try:
        yield
    finally:
        if module is not None:
            sys.modules[name] = module


@contextmanager
def random_state_kept() -> Iterator[None]:
    """vLLM seeds Python's, numpy's and torch's generators when it starts; training must not notice."""
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002


def tensor_parallel_group() -> dist.ProcessGroup:
    """The ranks that share this rank's vLLM, for messages between CPUs."""
    from vllm.distributed.parallel_state import get_tp_group

    group: dist.ProcessGroup = get_tp_group().cpu_group
    return group
