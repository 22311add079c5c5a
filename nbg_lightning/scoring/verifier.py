"""Verifiers that may hang or fail, in processes that can be killed.

Third-party checkers process model output: they run in a sandbox, with fresh state for each answer (see
`nbg_lightning.scoring.checkers`). User functions are trusted, and run in a plain process unless they request the
sandbox. `VerifierPool` runs several in parallel.
"""

from __future__ import annotations

import atexit
import functools
import pickle
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nbg_lightning.scoring.checker_process import CheckerFailed, CheckerProcess, checker_isolation
from nbg_lightning.scoring.checkers.tasks import find_task
from nbg_lightning.scoring.result import Status
from nbg_lightning.scoring.worker import FunctionWorker

_FUNCTION, _SANDBOXED = "function ", "sandboxed function "


class VerifierError(RuntimeError):
    """A verifier failed, or ran out of time, before it looked at the answer; this says nothing about the answer."""


class VerifierTimeout(VerifierError):
    """The verifier ran out of time."""


class VerifierDied(VerifierError):
    """Its process ended: because of this input, or because it was killed. Can be retried."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a verifier.

    Attributes:
        value: its verdict; None unless the status is ``ok``.
        status: ``timeout`` and ``error`` say nothing about the answer.
        detail: why there is no verdict, or why the answer could not be checked and is wrong.
    """

    value: Any
    status: Status = "ok"
    detail: str = ""


class Verifier:
    """Processes that answer one question after another, one per `sandbox_of` a question, started on demand.

    An answer that cannot be checked (it takes too long, needs too much memory, is a program, or makes the checker fail) is
    wrong, since the question's own answer has been validated before. Failures before that are errors.

    Args:
        deadline: seconds per answer.
        packages: names of packages that a sandboxed function may import.

    Example:
        >>> with Verifier() as verifier:
        ...     verifier.call("math", "1/2", "0.5")
        True
    """

    def __init__(self, deadline: float = 5.0, packages: Sequence[str] = ()):
        if deadline <= 0:
            raise ValueError(f"deadline is invalid: {deadline}; give seconds above 0")
        self.deadline, self.packages = deadline, tuple(packages)
        self._worker: FunctionWorker | None = None
        self._checkers: dict[str, CheckerProcess] = {}
        self._failed: dict[str, str] = {}  # kinds that fail to start, which takes long to find out
        self._lock = threading.Lock()

    def __enter__(self) -> Verifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; the next call starts new ones."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()
        while self._checkers:
            self._checkers.popitem()[1].close()
        self._failed.clear()

    def call(self, kind: str, *arguments: Any) -> Any:
        """The verdict of the verifier of a kind.

        Args:
            kind: ``math``, ``reasoning_gym``, ``ifeval``; or ``function PATH``, a function by its import path, or
                ``sandboxed function PATH``.
            arguments: arguments of that verifier; they are pickled.

        Raises:
            VerifierError: there is no verdict, for reasons other than the answer.
            RuntimeError: there is no sandbox; the message says how to get it.
        """
        return self.ask(kind, *arguments).value

    def ask(self, kind: str, *arguments: Any) -> Outcome:
        """Like `call`, with the reason for the verdict."""
        with self._lock:
            try:
                return self._called(kind, arguments) if kind.startswith(_FUNCTION) else self._checked(kind, arguments)
            except TimeoutError:
                self._drop(sandbox_of(kind, arguments))
                raise VerifierTimeout(f"no verdict of {kind!r} within {self.deadline:g} s") from None
            except (OSError, EOFError, pickle.UnpicklingError):
                self._drop(sandbox_of(kind, arguments))
                raise VerifierDied(f"the verifier {kind!r} died on this answer") from None

    def _called(self, kind: str, arguments: Sequence[Any]) -> Outcome:
        if self._worker is None or not self._worker.alive():
            self._drop(kind)
            self._worker = FunctionWorker()
        returned, value = self._worker.ask(kind.removeprefix(_FUNCTION), arguments, self.deadline)
        if not returned:
            raise VerifierError(f"the verifier {kind!r} failed ({value})")
        return Outcome(value)

    def _checked(self, kind: str, arguments: Sequence[Any]) -> Outcome:
        if kind in self._failed:
            raise VerifierError(self._failed[kind])
        place = sandbox_of(kind, arguments)
        if place not in self._checkers or not self._checkers[place].alive():
            self._drop(place)
            try:
                self._checkers[place] = CheckerProcess(*_checker(kind), self.packages)
            except CheckerFailed as error:
                self._failed[kind] = f"the verifier {kind!r} failed ({error})"
                raise VerifierError(self._failed[kind]) from None
        reply = self._checkers[place].ask(arguments, self.deadline)
        if reply["status"] == "timeout":
            raise VerifierTimeout(f"no verdict of {kind!r} on the question's own answer within {self.deadline:g} s")
        if reply["status"] != "ok":
            raise VerifierError(f"the verifier {kind!r} failed ({reply['detail']})")
        return Outcome(reply["value"], detail=reply["detail"])

    def _drop(self, place: str) -> None:
        if place.startswith(_FUNCTION):
            worker, self._worker = self._worker, None
            if worker is not None:
                worker.close()
        elif (checker := self._checkers.pop(place, None)) is not None:
            checker.close()


def check_isolation(kind: str, packages: Sequence[str] = ()) -> None:
    """Raise a RuntimeError with instructions if a kind of verifier cannot be isolated or is not installed."""
    try:
        checker_isolation(*_checker(kind), tuple(packages))
    except CheckerFailed as error:
        raise RuntimeError(f"the verifier {kind!r} cannot run; {error}") from None


def sandbox_of(kind: str, arguments: Sequence[Any]) -> str:
    """The sandbox that a question is sent to.

    There is one per kind, but two for reasoning-gym: a process that imported numpy and sympy takes several times as long
    to fork, which tasks without them should not wait for.

    Example:
        >>> sandbox_of("reasoning_gym", ("chain_sum", {}, {}, "12"))
        'reasoning_gym, light'
    """
    if kind == "reasoning_gym" and arguments and isinstance(arguments[0], str):
        task = find_task(arguments[0])
        return kind if task is None or not task.light else f"{kind}, light"
    return kind


def _checker(kind: str) -> tuple[str, str]:
    """The kind of a checker, and the path of the user function."""
    return ("function", kind.removeprefix(_SANDBOXED)) if kind.startswith(_SANDBOXED) else (kind, "")


@functools.cache
def shared_verifier() -> Verifier:
    """The verifier shared by the whole process: its checkers take a second to start, and end with the process."""
    verifier = Verifier()
    atexit.register(verifier.close)
    return verifier
