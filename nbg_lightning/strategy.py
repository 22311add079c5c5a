"""FSDP2 under Lightning, with atomic checkpoints."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
import torch.distributed as dist
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from typing_extensions import override

from nbg_lightning.core.checkpoint import ADVICE, CheckpointFiles
from nbg_lightning.core.checkpoint_folder import checkpoints_below, is_complete, settle
from nbg_lightning.core.checkpoint_names import META
from nbg_lightning.core.checkpoint_save import BackgroundSaver, cause, save_checkpoint
from nbg_lightning.error_line import first_line
from nbg_lightning.last_words import say
from nbg_lightning.parent import LAUNCHER
from nbg_lightning.url_path import PathOrUrl, place_of
from nbg_lightning.worker_process import worker_context

_MARGIN = timedelta(minutes=10)  # beyond the longest wait that a module announces, before a collective gives up
_EXIT_SECONDS = 300.0  # for other ranks after the first one, as long as torchrun waits for other nodes
_RESTARTS = "TORCHELASTIC_RESTART_COUNT"


@runtime_checkable
class ChecksCheckpoints(Protocol):
    """A module that can identify its own checkpoints: `LanguageModule`."""

    def check_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raise for another model's checkpoint by its metadata, before weights are read."""


@runtime_checkable
class TrainsPart(Protocol):
    """A module whose frozen weights may be omitted from checkpoints, since it can reload them."""

    @property
    def saves_trained_only(self) -> bool:
        """Whether checkpoints hold the trained weights only."""
        ...


@runtime_checkable
class WaitsForRanks(Protocol):
    """A module in whose steps a rank may wait long for another, for example while answers are sampled."""

    @property
    def longest_wait(self) -> float:
        """Seconds that a collective may have to wait within a step."""
        ...


class FSDP2Strategy(ModelParallelStrategy):
    """Lightning's `ModelParallelStrategy` with every rank in the data-parallel mesh, also on a single device.

    A checkpoint is written into ``NAME.partial`` and renamed once when all ranks have finished, so that a run that is
    killed or runs out of disk while saving leaves the previous checkpoints intact. Given a `BackgroundSaver` as
    ``storage_options`` of ``Trainer.save_checkpoint``, it is written in the background.

    Args:
        process_group_backend: ``nccl`` or ``gloo``; by default the one for the device.
        timeout_minutes: how long a collective may wait for another rank. For a module whose steps may take longer
            (`WaitsForRanks`), this is extended to the required time plus ten minutes.
    """

    def __init__(self, process_group_backend: str | None = None, timeout_minutes: float = 30.0):
        super().__init__(
            data_parallel_size="auto",
            tensor_parallel_size=1,
            save_distributed_checkpoint=True,
            process_group_backend=process_group_backend,
            timeout=timedelta(minutes=timeout_minutes),
        )

    @override
    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        if isinstance(module := self.lightning_module, WaitsForRanks):
            self._timeout = max(cast(timedelta, self._timeout), timedelta(seconds=module.longest_wait) + _MARGIN)
        if self._data_parallel_size == 1 and not dist.is_initialized():
            # A single process needs no communication: a store in its memory instead of a port, which might be taken.
            dist.init_process_group(self._own_backend, store=dist.HashStore(), rank=0, world_size=1)
            atexit.register(_destroy_process_group)
        elif _is_restarted(os.environ) and not dist.is_initialized():
            self._begin_again()
        super().setup_environment()

    @property
    def _own_backend(self) -> str:
        return self.process_group_backend or ("nccl" if self.root_device.type == "cuda" else "gloo")

    def _begin_again(self) -> None:
        """Create the process group of ranks that torchrun has restarted, whose store still has the addresses of the dead
        ones.
        """
        store, rank, num_ranks = next(dist.rendezvous("env://"))
        own = dist.PrefixStore(f"attempt {os.environ[_RESTARTS]}", store)
        dist.init_process_group(self._own_backend, store=own, rank=rank, world_size=num_ranks, timeout=self._timeout)
        atexit.register(_destroy_process_group)

    @override
    def _configure_launcher(self) -> None:
        super()._configure_launcher()
        if isinstance(self._launcher, _SubprocessScriptLauncher):
            launcher = self._launcher
            self._launcher = RankLauncher(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)

    @override
    def process_dataloader(self, dataloader: object) -> object:
        """Make dataloader workers ignore signals, and end with this process."""
        if isinstance(dataloader, DataLoader) and dataloader.num_workers > 0:
            method = dataloader.multiprocessing_context
            dataloader.multiprocessing_context = worker_context(
                multiprocessing.get_start_method() if method is None else method.get_start_method()
            )
        return dataloader

    def _state_options(self) -> StateDictOptions:
        module = self.lightning_module
        trained_only = isinstance(module, TrainsPart) and module.saves_trained_only
        return StateDictOptions(ignore_frozen_params=trained_only)

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        path = place_of(self.broadcast(str(filepath)))
        states = {"state_dict": checkpoint.pop("state_dict")}
        states |= {f"optimizer_{i}": state for i, state in enumerate(checkpoint.pop("optimizer_states", []))}
        save = storage_options.start if isinstance(storage_options, BackgroundSaver) else save_checkpoint
        save(path, states, checkpoint)

    @override
    def lightning_module_state_dict(self) -> dict[str, Any]:
        """This rank's shards, not copied: the saver copies them once, to where it needs them."""
        assert self.model is not None
        return get_model_state_dict(self.model, options=self._state_options())

    @override
    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """This rank's shards of the optimizer state, not copied."""
        assert self.model is not None
        return _states_of(self.model, optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer)

    @override
    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        path = place_of(str(checkpoint_path))
        if self.global_rank == 0:
            settle(path)
        self.barrier()
        if not path.exists():
            raise FileNotFoundError(f"no checkpoint at {path}; checkpoints there: {_neighbours(path)}")
        if not is_complete(path):
            raise ValueError(
                f"{path} is not a complete checkpoint of this library (no {META}); "
                f"checkpoints there: {_neighbours(path)}"
            )
        # First whether it is a checkpoint of this model: a mismatch in the shards would be named by tensor, not by cause.
        with _readable(path):
            files = CheckpointFiles(path)
            metadata = files.meta()
            files.metadata()  # here the cause is one line; torch tries twice, and logs both tracebacks
        if isinstance(self.lightning_module, ChecksCheckpoints):
            self.lightning_module.check_checkpoint(metadata)
        with _readable(path):
            self._load_states(files)
        return metadata

    def _load_states(self, files: CheckpointFiles) -> None:
        """Load model and optimizers, as Lightning does, from files that contain only data."""
        assert self.model is not None and self.lightning_module is not None
        options = self._state_options()
        whole = self.lightning_module.strict_loading and not options.ignore_frozen_params
        state = {"state_dict": get_model_state_dict(self.model, options=options)}
        files.load(state)
        self.model.load_state_dict(state["state_dict"], strict=whole)
        for index, optimizer in enumerate(self.optimizers):
            key = f"optimizer_{index}"
            own = {key: _states_of(self.model, optimizer)}
            files.load(own)
            on_cpu = StateDictOptions(cpu_offload=True)
            set_optimizer_state_dict(self.model, optimizer, optim_state_dict=own[key], options=on_cpu)


def _states_of(model: torch.nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """This rank's shards of an optimizer's state, not copied.

    torch initializes missing optimizer state by a step of size 0. That step is not counted here, since saving after a first
    step that trains nothing would otherwise change all later ones.
    """
    is_new = not optimizer.state
    states = get_optimizer_state_dict(model, optimizer)
    if not is_new:
        return states
    for state in optimizer.state.values():
        if "step" in state:
            state["step"] = torch.zeros_like(torch.as_tensor(state["step"]))
    return get_optimizer_state_dict(model, optimizer)


def _is_restarted(environment: Mapping[str, str]) -> bool:
    """Whether torchrun has restarted these ranks, on one node; agents of several nodes count separately."""
    return environment.get(_RESTARTS, "0") != "0" and environment.get("GROUP_WORLD_SIZE") == "1"


class RankLauncher(_SubprocessScriptLauncher):
    """Starts the other ranks of a machine, which end with this process."""

    @override
    def _call_children_scripts(self) -> None:
        os.environ[LAUNCHER] = str(os.getpid())
        try:
            super()._call_children_scripts()
        finally:
            del os.environ[LAUNCHER]

    def wait(self) -> int:
        """Wait for the ranks that this one has started, which may still be writing in callbacks, and print which one failed.

        Returns:
            0, or the exit code of a rank that failed.

        Raises:
            TimeoutError: a rank does not end.
        """
        ranks = dict(enumerate(self.procs, start=1))
        self.procs.clear()  # Lightning's thread, which kills this process too when one of them fails, has no more to watch
        end = time.monotonic() + _EXIT_SECONDS
        while ranks:
            for rank, code in [(rank, process.poll()) for rank, process in ranks.items()]:
                if code:
                    how = f"ended with exit code {code}" if code > 0 else f"was ended by {signal.Signals(-code).name}"
                    say(f"rank {rank} {how} after the first one was done")
                    return code if code > 0 else 128 - code
                if code == 0:
                    del ranks[rank]
            if ranks and time.monotonic() > end:
                for process in ranks.values():  # they would end with this process, unless it does not end either
                    process.kill()
                raise TimeoutError(
                    f"rank {min(ranks)} is still running {_EXIT_SECONDS:.0f} s after the first one was done, and is killed; "
                    "look at what its callbacks do at the end"
                )
            time.sleep(0.01)
        return 0


def _destroy_process_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def _readable(path: PathOrUrl) -> Iterator[None]:
    """Convert errors inside the block to one that says that the checkpoint is damaged."""
    try:
        yield
    except (Exception, CheckpointException) as error:
        others = _neighbours(path, without=path.name)
        reason = first_line(cause(error)).removesuffix(f"; {ADVICE}")
        raise ValueError(f"checkpoint {path} cannot be read ({reason}); resume from another: {others}") from error


def _neighbours(path: PathOrUrl, without: str | None = None) -> str:
    """List the checkpoints in a folder that is not one itself, or else those beside it."""
    below = [f"{path.name}/{name}" for name in checkpoints_below(path)]
    names = below or [name for name in checkpoints_below(path.parent) if name != without]
    return ", ".join(names) if names else "none"
