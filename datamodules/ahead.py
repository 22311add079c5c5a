"""Read-ahead for data behind a network: the order of samples is known, so rows are fetched before they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from torch.utils.data import get_worker_info

from nbg_lightning.data.order import SampleOrder, Samples

THREADS = 16  # concurrent requests, which wait rather than compute
SamplePlace = tuple[int, int, int]
"""Stage, source and window of a sample."""


def places(samples: Samples) -> Iterator[SamplePlace]:
    """The places of samples."""
    return zip(samples.stage.tolist(), samples.source.tolist(), samples.window.tolist(), strict=True)


class ReadAhead:
    """Reads the rows of a step concurrently, and prefetches those of a worker's next steps.

    In the main process a step is read concurrently, without prefetching.

    Args:
        read: returns the row at a place; called from threads.
        order: the order of samples.
        windows: approximate number of rows to prefetch.
    """

    def __init__(self, read: Callable[[int, int, int], Any], order: SampleOrder, windows: int):
        self._read, self._order, self._windows = read, order, windows
        self._pool: ThreadPoolExecutor | None = None
        self._begun: dict[int, list[Future[Any]]] = {}

    def rows(self, samples: Samples) -> list[Any]:
        """The rows of one rank's share of a step.

        Raises:
            OSError, ValueError: raised by ``read``.
        """
        worker = get_worker_info()
        if worker is None:
            with ThreadPoolExecutor(THREADS) as pool:
                return [row.result() for row in self._begin(pool, samples)]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, "read-ahead")
        step, later = self._steps(samples, worker.num_workers)
        found = self._begun.pop(step, None)
        if found is None:  # the first, or an unexpected one
            for each in [row for rows in self._begun.values() for row in rows]:
                each.cancel()
            self._begun.clear()
            found = self._begin(self._pool, samples)
        for number, following in later:
            if number not in self._begun:
                self._begun[number] = self._begin(self._pool, following)
        return [row.result() for row in found]

    def _begin(self, pool: ThreadPoolExecutor, samples: Samples) -> list[Future[Any]]:
        return [pool.submit(self._read, *place) for place in places(samples)]

    def _steps(self, samples: Samples, stride: int) -> tuple[int, list[tuple[int, Samples]]]:
        """The step of a rank's samples, and the next steps that this worker will be asked for, with the rank's samples of
        each.
        """
        plan = self._order.plan
        stage, first = int(samples.stage[0]), int(samples.index[0])
        per_step = plan.samples_per_step(stage)
        number, place = divmod(first - plan.first_sample(stage), per_step)
        step, num_ranks = plan.first_step(stage) + number, per_step // len(samples)
        rank = place // len(samples)
        later = []
        for following in range(step + stride, plan.num_steps, stride):
            begin, end = plan.sample_range(following)
            share = (end - begin) // num_ranks
            later.append((following, self._order.lookup(begin + rank * share, begin + (rank + 1) * share)))
            if sum(len(each) for _, each in later) >= self._windows:
                break
        return step, later
