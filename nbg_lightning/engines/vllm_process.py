"""The environment of vLLM's process: settings that vLLM reads, and state that it must not change."""

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
    """Set the environment variables that vLLM reads; the user's values are kept where they are optional."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    defaults = {
        "RANK": str(rank),  # Lightning's launcher does not set it
        "LOCAL_RANK": str(local_rank(rank)),
        "WORLD_SIZE": str(size),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def local_rank(rank: int) -> int:
    """The GPU of this process, as chosen by the trainer; without GPUs, its index on the node as given by Slurm."""
    if torch.cuda.is_available():
        return torch.cuda.current_device()
    return int(os.environ.get("SLURM_LOCALID", rank))


@contextmanager
def llvmlite_out_of_sight() -> Iterator[None]:
    """Hide llvmlite: vLLM 0.32 inspects attributes of all loaded modules, and fails on one of llvmlite's (loaded by numba)."""
    name = "llvmlite.binding.ffi"
    module = sys.modules.pop(name, None)
    try:
        yield
    finally:
        if module is not None:
            sys.modules[name] = module


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Restore random states: vLLM seeds Python's, numpy's and torch's generators on start, which must not affect training."""
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002


def tensor_parallel_group() -> dist.ProcessGroup:
    """The CPU process group of the ranks that share this rank's vLLM."""
    from vllm.distributed.parallel_state import get_tp_group

    group: dist.ProcessGroup = get_tp_group().cpu_group
    return group
