"""Running a function on many jobs: in this process, in worker processes, or on Ray Data."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from nbg_lightning.extra import require
from nbg_lightning.worker_process import hidden_main_module, usable_cores, worker_context

EngineName = Literal["local", "ray"]


def run_jobs(
    function: Callable[[Any], Any],
    jobs: Sequence[Any],
    engine: EngineName = "local",
    num_workers: int | None = None,
) -> Iterator[tuple[int, Any]]:
    """Yield (index, result) of every job in order of completion.

    Args:
        function: module-level function of one job.
        jobs: picklable arguments.
        engine: ``local``: processes on this machine. ``ray``: Ray Data, on an existing cluster (``RAY_ADDRESS``) or one on
            this machine; all its machines must see the folders under the same paths.
        num_workers: number of processes; one per core by default, 0 for this process. Ray: concurrent tasks.

    Raises:
        ValueError: raised by the function, or an unknown engine.
        RuntimeError: a worker died.
        ImportError: Ray is not installed.
    """
    if num_workers is not None and num_workers < 0:
        raise ValueError(f"num_workers is invalid: {num_workers}; give 0 or more")
    if engine == "ray":
        yield from _on_ray(function, jobs, num_workers)
    elif engine != "local":
        raise ValueError(f"engine is invalid: {engine}; give local or ray")
    else:
        workers = min(usable_cores() if num_workers is None else num_workers, len(jobs))
        if workers < 2:
            for index, job in enumerate(jobs):
                yield index, function(job)
        else:
            yield from _in_processes(function, jobs, workers)


def _in_processes(function: Callable[[Any], Any], jobs: Sequence[Any], workers: int) -> Iterator[tuple[int, Any]]:
    from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
    from concurrent.futures.process import BrokenProcessPool

    context = worker_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin) as pool:
        todo = list(reversed(range(len(jobs))))
        running: dict[Any, int] = {}
        try:
            while todo or running:
                while todo and len(running) < 2 * workers:  # the next job waits in the pool
                    index = todo.pop()
                    with hidden_main_module():  # submitting may start a process
                        running[pool.submit(function, jobs[index])] = index
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a worker died (often out of memory); lower num_workers and run again; finished parts are kept"
            ) from error
        except BaseException:
            for worker in context.started:  # the pool would wait until they have finished their jobs
                worker.terminate()
            raise
        finally:
            for future in running:
                future.cancel()


def _begin() -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _on_ray(function: Callable[[Any], Any], jobs: Sequence[Any], num_tasks: int | None) -> Iterator[tuple[int, Any]]:
    ray = start_ray(num_tasks)
    rows = [{"index": index, "job": pickle.dumps(job)} for index, job in enumerate(jobs)]
    if not rows:
        return

    def run(row: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"index": row["index"], "result": pickle.dumps(function(pickle.loads(row["job"])))}
        except (ValueError, OSError) as error:  # the caller reports it in one line
            return {"index": row["index"], "result": pickle.dumps(ValueError(str(error)))}

    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(run, concurrency=num_tasks or None)
    for row in dataset.iter_rows():
        result = pickle.loads(row["result"])
        if isinstance(result, Exception):
            raise result
        yield row["index"], result


def start_ray(num_cpus: int | None = None) -> Any:
    """Ray Data, connected to the cluster of ``RAY_ADDRESS`` or to one started on this machine.

    Raises:
        ImportError: it is not installed.
    """
    require("ray.data", "engine 'ray'", extra="ray")
    import ray

    if not ray.is_initialized():
        local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": num_cpus or None, "include_dashboard": False}
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, **local}
        ray.init(**options)
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray
