"""A pool of verifiers running in parallel."""

from __future__ import annotations

import pickle
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from nbg_lightning.scoring.processors import available_processors
from nbg_lightning.scoring.verifier import (
    Outcome,
    Verifier,
    VerifierDied,
    VerifierError,
    VerifierTimeout,
    check_isolation,
)

__all__ = ["Outcome", "VerifierPool"]

MOST_WORKERS = 8  # default maximum: each has its own imports, some 100 MB


class VerifierPool:
    """Worker processes for verifiers that may hang, crash or raise.

    Every verdict has a hard deadline. A user function that exceeds it is killed with its worker, which is replaced; a checker's
    sandbox is kept. A worker that dies is replaced too, and its question retried `attempts` times, since it may be the question
    that kills it. Workers are started on demand.

    Args:
        workers: number of processes; by default the number of processors, but at most 8.
        deadline: seconds per verdict.
        attempts: attempts for a question whose worker dies.
        packages: names of packages that a sandboxed function may import.

    Raises:
        ValueError: a setting that is not positive.

    Example:
        >>> with VerifierPool(workers=1) as pool:
        ...     [outcome.value for outcome in pool.map("math", [("1/2", "0.5"), ("2", "3")])]
        [True, False]
    """

    def __init__(
        self, workers: int | None = None, deadline: float = 5.0, attempts: int = 3, packages: Sequence[str] = ()
    ):
        self.workers = workers if workers is not None else min(MOST_WORKERS, available_processors())
        if self.workers < 1 or deadline <= 0 or attempts < 1:
            raise ValueError(
                f"VerifierPool is invalid: workers={workers}, deadline={deadline}, attempts={attempts}; give positive numbers"
            )
        self.deadline, self.attempts, self.packages = deadline, attempts, tuple(packages)
        self._idle: queue.LifoQueue[Verifier] = queue.LifoQueue()  # the most recently used one has finished its imports
        self._threads: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; the next call starts new ones."""
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(cancel_futures=True)
            while not self._idle.empty():
                self._idle.get().close()

    def check_isolation(self, kind: str) -> None:
        """Raise a RuntimeError with instructions if a kind of verifier cannot be isolated."""
        check_isolation(kind, self.packages)

    def map(self, kind: str, calls: Sequence[Sequence[Any]]) -> list[Outcome]:
        """The outcomes of the verifier of a kind.

        Equal calls are made once, since answers to one question are often identical; except for user functions, which may return
        something else each time.

        Args:
            kind: as for `Verifier.call`.
            calls: arguments of each call.

        Returns:
            One outcome per call, in order.
        """
        if not calls:
            return []
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="verifier")
                for _ in range(self.workers):
                    self._idle.put(Verifier(self.deadline, self.packages))
            threads = self._threads
        alike = not kind.startswith("function ")
        named = [pickle.dumps(call) if alike else place for place, call in enumerate(calls)]
        distinct = dict(zip(named, calls, strict=True))
        said = dict(zip(distinct, threads.map(lambda call: self._ask(kind, call), distinct.values()), strict=True))
        return [said[name] for name in named]

    def _ask(self, kind: str, arguments: Sequence[Any]) -> Outcome:
        verifier = self._idle.get()  # there is one for each thread
        try:
            for _ in range(self.attempts - 1):
                try:
                    return verifier.ask(kind, *arguments)
                except VerifierDied:
                    continue
            return verifier.ask(kind, *arguments)
        except VerifierTimeout as error:
            return Outcome(None, "timeout", str(error))
        except VerifierError as error:
            return Outcome(None, "error", str(error))
        finally:
            self._idle.put(verifier)
