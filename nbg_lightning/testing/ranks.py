"""Running a function on several ranks, in processes that share a gloo group."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from nbg_lightning.distributed import end_rank


class Ranks:
    """A function in several processes with a common gloo process group, one thread each.

    Starting PyTorch takes seconds: combine several checks in one launch, and return their results.

    Args:
        function: a function at the top level of a file; it is imported from there by path, so functions of tests work.
        num_ranks: number of processes.
        arguments: arguments of the function; must be picklable.
        folder: folder for calls, results and output.
    """

    def __init__(self, function: Callable[..., Any], num_ranks: int, arguments: Sequence[Any], folder: str | Path):
        self.folder = Path(folder) / f"ranks-{function.__name__}-{time.monotonic_ns()}"
        self.folder.mkdir(parents=True)
        self.name = function.__name__
        call = (os.path.abspath(inspect.getsourcefile(function) or ""), function.__qualname__, tuple(arguments))
        (self.folder / "call.pickle").write_bytes(pickle.dumps(call))
        self.processes = [self._start(rank, num_ranks) for rank in range(num_ranks)]

    def _start(self, rank: int, num_ranks: int) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(num_ranks),
        }
        with (self.folder / f"output-{rank}.txt").open("w") as output:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    "from nbg_lightning.testing.ranks import run_rank; run_rank()",
                    str(self.folder),
                ],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal goes to the test run, which then ends these processes
            )

    def output(self, rank: int = 0) -> str:
        """The output of a rank so far, including standard error."""
        return (self.folder / f"output-{rank}.txt").read_text()

    def wait_for(self, condition: Callable[[], bool], timeout: float = 120.0) -> None:
        """Wait until a condition holds.

        Raises:
            TimeoutError: it does not within ``timeout`` seconds, or a rank has exited before.
        """
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end or all(process.poll() is not None for process in self.processes):
                self.kill()
                raise TimeoutError(f"{self.name}: what was waited for did not happen\n{self.output()[-4000:]}")
            time.sleep(0.01)

    def send(self, number: signal.Signals, rank: int = 0, group: bool = False) -> None:
        """Send a signal to a rank, or to it and its children, as a terminal does."""
        (os.killpg if group else os.kill)(self.processes[rank].pid, number)

    def kill(self) -> None:
        """Kill all ranks and their children."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def exit_codes(self, timeout: float = 180.0) -> list[int]:
        """Wait for all ranks to exit.

        Raises:
            TimeoutError: they do not within ``timeout`` seconds; they are killed.
        """
        end = time.monotonic() + timeout
        try:
            return [process.wait(max(0.0, end - time.monotonic())) for process in self.processes]
        except subprocess.TimeoutExpired:
            self.kill()
            outputs = "\n".join(f"rank {r}: {self.output(r)[-4000:]}" for r in range(len(self.processes)))
            raise TimeoutError(f"{self.name}: not finished after {timeout:.0f} s\n{outputs}") from None

    def results(self, timeout: float = 180.0) -> list[Any]:
        """The return value of the function on each rank.

        Raises:
            RuntimeError: it failed on a rank; the message has that rank's traceback.
            TimeoutError: not finished in time.
        """
        end = time.monotonic() + timeout
        while any(process.poll() is None for process in self.processes):
            failed = any(process.poll() not in (None, 0) for process in self.processes)
            if failed or time.monotonic() > end:
                break  # the others would wait for the failed one until their timeout
            time.sleep(0.01)
        for rank, process in enumerate(self.processes):
            if process.poll() not in (None, 0):
                self.kill()
                raise RuntimeError(f"{self.name} failed in rank {rank}\n{self.output(rank)[-8000:]}")
        self.exit_codes(max(0.0, end - time.monotonic()))
        files = [self.folder / f"result-{rank}.pickle" for rank in range(len(self.processes))]
        return [pickle.loads(file.read_bytes()) for file in files]


def launchable_environment() -> dict[str, str]:
    """The environment without variables set by a Trainer of this process, with which another one would start no ranks."""
    launcher = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE", "RANK")
    return {name: value for name, value in os.environ.items() if name not in launcher} | {"OMP_NUM_THREADS": "1"}


def run_ranks(
    function: Callable[..., Any], num_ranks: int, *arguments: Any, folder: str | Path, timeout: float = 180.0
) -> list[Any]:
    """Run ``function(*arguments)`` in ``num_ranks`` processes with a gloo group, and return each rank's result (`Ranks`)."""
    return Ranks(function, num_ranks, arguments, folder).results(timeout)


def run_rank() -> None:
    """Main function of a rank's process."""
    folder = Path(sys.argv[1])
    rank, num_ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    try:
        file, name, arguments = pickle.loads((folder / "call.pickle").read_bytes())
        spec = importlib.util.spec_from_file_location(Path(file).stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"file://{folder / 'store'}",
            rank=rank,
            world_size=num_ranks,
            timeout=timedelta(minutes=5),
        )
        result = getattr(module, name)(*arguments)
        (folder / f"result-{rank}.pickle").write_bytes(pickle.dumps(result))
        torch.distributed.barrier()  # no rank exits while another still needs it
        torch.distributed.destroy_process_group()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # without waiting for the other ranks
    end_rank(0)
