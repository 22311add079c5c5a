"""Verifiers that may hang or fail, in a process that can be killed.

A model's answer goes into parsers of mathematics and into checkers that were not written for hostile text: `9^9^9^9` keeps
one of them busy for ever, and a timer inside the process does not fire off the main thread (Math-Verify#65). So they run
in a child process, with a wall clock here; after a kill the next call starts a new child. `VerifierPool` has several.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import logging
import os
import pickle
import resource
import select
import struct
import subprocess
import sys
import time
from typing import Any

_HEADER = struct.Struct("<Q")
START_SECONDS = 60.0  # for the child's imports, beside the deadline of its first answer
_ORPHAN_SECONDS = 60  # of processor time that a child whose parent was killed may still spend, beside the deadline


class VerifierError(RuntimeError):
    """A verifier failed on this input, or ran out of time; says nothing of the answer's worth."""


class VerifierTimeout(VerifierError):
    """It ran out of time."""


class VerifierDied(VerifierError):
    """Its process ended: because of this input, or because somebody killed it. Worth another try."""


class Verifier:
    """A child process that answers one question after the other.

    Args:
        deadline: seconds for an answer, after which the child is killed.

    Example:
        >>> with Verifier() as verifier:
        ...     verifier.call("math", "1/2", "0.5")
        True
    """

    def __init__(self, deadline: float = 5.0):
        if deadline <= 0:
            raise ValueError(f"Verifier: deadline={deadline} must be positive")
        self.deadline = deadline
        self._child: subprocess.Popen[bytes] | None = None
        self._ready: set[str] = set()  # kinds whose imports are done

    def __enter__(self) -> Verifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child; the next call starts another."""
        child, self._child = self._child, None
        self._ready.clear()
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()

    def call(self, kind: str, *arguments: Any) -> Any:
        """What the verifier of a kind says.

        Args:
            kind: ``math``, ``reasoning_gym``, ``ifeval``, or ``function PATH`` for a function by its import path.
            arguments: of that verifier; they are pickled.

        Raises:
            VerifierError: it raised an exception, died, or took longer than the deadline.
        """
        message = pickle.dumps((kind, self.deadline, arguments))
        if self._child is None:
            self._child = self._start()
        child = self._child
        end = time.monotonic() + self.deadline + (0.0 if kind in self._ready else START_SECONDS)
        try:
            self._write(child, _HEADER.pack(len(message)) + message, end)
            if kind not in self._ready:
                self._read(child, end)  # its imports are done: the clock begins
                self._ready.add(kind)
                end = time.monotonic() + self.deadline
            succeeded, value = pickle.loads(self._read(child, end))
        except TimeoutError:
            self.close()
            raise VerifierTimeout(f"no verdict of {kind!r} within {self.deadline:g} s") from None
        except (OSError, EOFError, pickle.UnpicklingError):
            self.close()
            raise VerifierDied(f"the verifier {kind!r} died on this answer") from None
        if not succeeded:
            raise VerifierError(f"the verifier {kind!r} failed ({value})")
        return value

    def _start(self) -> subprocess.Popen[bytes]:
        modules = os.pathsep.join(place or os.getcwd() for place in sys.path)
        child = subprocess.Popen(
            [sys.executable, "-c", "from nbg_lightning.rewards.verifier import _serve; _serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": modules},
            start_new_session=True,  # a Ctrl-C is for the run, which then ends this
        )
        assert child.stdin is not None
        os.set_blocking(child.stdin.fileno(), False)
        return child

    @staticmethod
    def _write(child: subprocess.Popen[bytes], data: bytes, end: float) -> None:
        assert child.stdin is not None
        descriptor, rest = child.stdin.fileno(), memoryview(data)
        while rest:
            if not select.select([], [descriptor], [], max(0.0, end - time.monotonic()))[1]:
                raise TimeoutError
            rest = rest[os.write(descriptor, rest) :]

    @staticmethod
    def _read(child: subprocess.Popen[bytes], end: float) -> bytes:
        assert child.stdout is not None
        descriptor = child.stdout.fileno()

        def exactly(count: int) -> bytes:
            data = b""
            while len(data) < count:
                if not select.select([descriptor], [], [], max(0.0, end - time.monotonic()))[0]:
                    raise TimeoutError
                part = os.read(descriptor, count - len(data))
                if not part:
                    raise EOFError
                data += part
            return data

        return exactly(*_HEADER.unpack(exactly(_HEADER.size)))


@functools.cache
def shared_verifier() -> Verifier:
    """One for the whole process: its child takes a second to start, and ends with this process."""
    verifier = Verifier()
    atexit.register(verifier.close)
    return verifier


# -- in the child ------------------------------------------------------------------------------------------------------


def _serve() -> None:
    """Answer questions from standard input until it ends."""
    source = os.fdopen(os.dup(0), "rb")
    target = os.fdopen(os.dup(1), "wb")
    logging.disable(logging.WARNING)  # math-verify says for each answer that it has no clock: it is here
    os.dup2(2, 1)  # whatever a verifier prints must not get between the answers

    def send(value: Any) -> None:
        message = pickle.dumps(value)
        target.write(_HEADER.pack(len(message)) + message)
        target.flush()

    ready = set()
    kind, arguments = "", ()
    while header := source.read(_HEADER.size):
        message = source.read(*_HEADER.unpack(header))
        try:
            kind, deadline, arguments = pickle.loads(message)
            _bind_time(deadline)
            failure, verify = None, _function(kind) if kind.startswith("function ") else _VERIFIERS[kind]()
        except Exception as error:
            failure = error
        if kind not in ready:
            ready.add(kind)
            send(None)
        try:
            if failure is not None:
                raise failure
            answer = (True, verify(*arguments))
        except Exception as error:
            answer = (False, (str(error).strip() or type(error).__name__).splitlines()[0])
        send(answer)


def _bind_time(deadline: float) -> None:
    """Nobody watches the clock when the parent was killed: the kernel ends a child that computes on and on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + START_SECONDS + deadline) + _ORPHAN_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


@functools.cache
def _function(kind: str) -> Any:
    """The function that ``function PATH`` names."""
    from nbg_lightning.rewards.import_path import import_object

    return import_object(kind.partition(" ")[2])


@functools.cache
def _math() -> Any:
    from math_verify import parse, verify

    def check(gold: str, answer: str | None) -> bool:
        """Whether two LaTeX expressions (without ``$`` and ``\\boxed``) are equal; None: whether the gold one is one."""
        without_clock = {"parsing_timeout": None}
        gold_parsed = parse(f"\\boxed{{{gold}}}", **without_clock)
        if answer is None:
            return any(not isinstance(form, str) for form in gold_parsed)
        parsed = parse(f"\\boxed{{{answer}}}", **without_clock)
        if not gold_parsed:
            raise ValueError(f"the gold answer {gold!r} is not understood")
        return bool(parsed) and verify(gold_parsed, parsed, timeout_seconds=None)

    return check


@functools.cache
def _reasoning_gym() -> Any:
    import reasoning_gym

    @functools.lru_cache(maxsize=64)
    def dataset(task: str, settings: str) -> Any:
        return reasoning_gym.create_dataset(task, **json.loads(settings))

    def check(task: str, settings: dict[str, Any], entry: dict[str, Any], answer: str) -> float:
        return float(dataset(task, json.dumps(settings, sort_keys=True)).score_answer(answer=answer, entry=entry))

    return check


@functools.cache
def _ifeval() -> Any:
    from lm_eval.tasks.ifeval import utils

    def check(
        instructions: list[str], arguments: list[dict[str, Any]], prompt: str, response: str
    ) -> tuple[list[bool], list[bool]]:
        """Whether each instruction is followed: strictly, and loosely."""
        example = utils.InputExample(
            key=0,
            instruction_id_list=instructions,
            prompt=prompt,
            kwargs=arguments,  # type: ignore[arg-type]
        )
        strict = utils.test_instruction_following_strict(example, response)
        loose = utils.test_instruction_following_loose(example, response)
        return list(strict.follow_instruction_list), list(loose.follow_instruction_list)

    return check


_VERIFIERS = {"math": _math, "reasoning_gym": _reasoning_gym, "ifeval": _ifeval}
