"""Model-written programs, run where they can do no harm and judged where they cannot interfere.

Each program has its own bubblewrap sandbox: new user, process, network, IPC, host and cgroup namespaces; no further user
namespaces; an unprivileged user without capabilities; a read-only root with the system's programs and a Python, but nothing
of the user's; a small private ``/tmp``; a clean environment; limits on memory, processes, files, processor time
and output; a system call filter; a wall-clock limit, after which the whole process namespace is killed. Without all of
this, nothing is run.

The code that decides whether tests pass is in `nbg_lightning.scoring.sandbox`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from nbg_lightning.scoring.processors import available_processors
from nbg_lightning.scoring.sandbox.codec import decode, encode
from nbg_lightning.scoring.sandbox.isolation import (
    ENVIRONMENT,
    PACKAGES,
    START_SECONDS,
    Isolation,
    end_isolated,
    find_isolation,
    in_memory,
    isolated_command,
    package_places,
)
from nbg_lightning.scoring.sandbox.shipping import inner_code, start_command

ProgramStatus = Literal["ok", "failed", "timeout", "killed", "error"]
"""``ok``: it exited by itself with exit code 0, or passed all tests. ``failed``: it did not. ``timeout``: the wall-clock limit.
``killed``: by a signal or a limit. ``error``: the sandbox or the tests failed, which says nothing about the program."""

_BETWEEN_CASES = 0.5  # additional seconds per case, to start its process

T = TypeVar("T")


@dataclass(frozen=True)
class SandboxResult:
    """The result of running a program.

    Attributes:
        status: see `ProgramStatus`.
        stdout: its output, up to the limit; empty for tested programs.
        stderr: its error output, truncated in the same way.
        seconds: wall-clock time, including the start.
        detail: the reason if it is not ``ok``, in one line.
    """

    status: ProgramStatus
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0
    detail: str = ""

    def __bool__(self) -> bool:
        """Whether it ran to its end, or passed."""
        return self.status == "ok"


class Sandbox:
    """Runs programs in isolation. All methods are thread-safe.

    Args:
        timeout: wall-clock limit of a program in seconds.
        memory: address space of each of its processes in megabytes.
        processes: maximum number of processes and threads, including the sandbox's own three.
        disk: size of ``/tmp``, and of the largest file, in megabytes.
        output: maximum standard output, and standard error, in kilobytes.
        workers: concurrent programs in `run_many` and `check_many`; by default the number of processors.
        packages: installed packages that programs may import besides the standard library, such as ``numpy``.
        python: the interpreter; by default the running one, or the system's if others cannot read that.

    Raises:
        ValueError: a limit is not positive, or a package is not installed.

    Example:
        >>> sandbox = Sandbox(timeout=5)
        >>> sandbox.run("print(6 * 7)").stdout  # doctest: +SKIP
        '42\\n'
        >>> bool(sandbox.check("def double(x): return x * 2", ["assert double(4) == 8"]))  # doctest: +SKIP
        True
    """

    def __init__(
        self,
        timeout: float = 10.0,
        memory: int = 1024,
        processes: int = 24,
        disk: int = 64,
        output: int = 1024,
        workers: int | None = None,
        packages: Sequence[str] = (),
        python: str | None = None,
    ):
        given = dict(
            timeout=timeout, memory=memory, disk=disk, output=output, workers=1 if workers is None else workers
        )
        for name, value in given.items():
            if value <= 0:
                raise ValueError(f"{name} of the sandbox is invalid: {value}; give a number above 0")
        if processes < 4:
            raise ValueError(
                f"processes is invalid: {processes}; give at least 4, of which three are the sandbox's own"
            )
        self.timeout, self.memory, self.processes, self.disk, self.output = timeout, memory, processes, disk, output
        self.workers = workers or available_processors()
        self.python = python
        self.packages = [place for name in packages for place in package_places(name)]
        self._threads: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._isolation: Isolation | None = None

    def __enter__(self) -> Sandbox:
        self.probe()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads of `run_many`; the next call starts new ones."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(cancel_futures=True)

    # -- isolation -----------------------------------------------------------------------------------------------------

    def probe(self) -> Isolation:
        """The isolation of programs, determined once by running a program that tries to escape.

        Raises:
            RuntimeError: isolation is not available; the message says how to get it.
        """
        with self._lock:
            if self._isolation is None:
                self._isolation = find_isolation(self.python, self.disk, self.packages)
            return self._isolation

    # -- programs ------------------------------------------------------------------------------------------------------

    def run(
        self,
        program: str,
        files: Mapping[str, str | bytes] | None = None,
        stdin: str = "",
        timeout: float | None = None,
        arguments: Sequence[str] = (),
    ) -> SandboxResult:
        """Run a Python program as ``__main__``.

        Its output and exit code are under its own control and not a verdict. See `check`.

        Args:
            program: the source.
            files: files in its working folder, by relative path.
            stdin: its standard input.
            timeout: limit in seconds, instead of the sandbox's.
            arguments: command-line arguments.

        Raises:
            ValueError: a file is outside the folder.
            RuntimeError: no isolation; see `probe`.
        """
        return self._start(
            {"mode": "run", "source": program, "arguments": list(arguments)}, None, timeout, files, stdin
        )

    def check(
        self,
        solution: str,
        tests: str | Sequence[str],
        entry_point: str | Sequence[str] | None = None,
        setup: str = "",
        own_operators: Sequence[str] = (),
        timeout: float | None = None,
        files: Mapping[str, str | bytes] | None = None,
    ) -> SandboxResult:
        """Check whether a program passes tests with assertions; true (``ok``) if it passes all.

        The tests run in a separate process from the program. They use its functions, classes and variables by name; names of
        builtins mean the builtins, except for entry points. Arguments and results are transferred as plain data: numbers, texts,
        containers (arguments modified by the program are modified in the test), dates, fractions, numpy arrays; functions and
        objects passed by a test are called back. Other results stay with the program, which executes tests' operations on them.
        Their operators are trusted between two of them, but not with values of the tests, which they could claim to equal.

        Args:
            solution: the program.
            tests: code with ``assert``; each text is one test. Functions ``test...()`` defined in it are called, and
                ``check(candidate)`` is called with the entry point.
            entry_point: functions under test.
            setup: code that runs before the tests, in their process. The program cannot change what it defines.
            own_operators: classes of the program whose operators (``==``, ``<``, ``+``) are trusted with values of the tests.
            timeout: limit in seconds for all tests, instead of the sandbox's.
            files: files in its working folder, by relative path: modules that it imports. The tests cannot import them.

        Raises:
            ValueError: tests without an assertion, or a file outside the folder.
            RuntimeError: no isolation; see `probe`.
        """
        texts = [tests] if isinstance(tests, str) else list(tests)
        for index, test in enumerate(texts, start=1):
            if not any(word in test for word in ("assert", "raise")):
                raise ValueError(f"test {index} asserts nothing: {test.strip()[:60]!r}; write an assert")
        if not texts:
            raise ValueError("there are no tests, which any program would pass; give at least one")
        entries = [entry_point] if isinstance(entry_point, str) else list(entry_point or ())
        job = {"mode": "calls", "source": solution, "entry_points": entries}
        return self._start(job, {"tests": texts, "setup": setup, "own_operators": list(own_operators)}, timeout, files)

    def check_outputs(
        self, program: str, cases: Sequence[tuple[str, str]], timeout: float | None = None, decimals: bool = False
    ) -> SandboxResult:
        """Check whether a program prints the expected output for each standard input; true (``ok``) if it does for all.

        Outputs are compared line by line, ignoring trailing spaces and trailing empty lines. Each case runs in a process of its
        own; the first failure ends the check.

        Args:
            program: the source.
            cases: standard input and expected output of each case.
            timeout: limit in seconds per case, instead of the sandbox's.
            decimals: compare lines of numbers by value (``1.0`` equals ``1``), ignoring leading spaces.

        Raises:
            ValueError: there are no cases.
            RuntimeError: no isolation; see `probe`.
        """
        if not cases:
            raise ValueError("there are no cases, which any program would pass; give at least one")
        seconds = timeout or self.timeout
        secret = {"cases": [tuple(case) for case in cases], "seconds": float(seconds), "decimals": decimals}
        whole = (seconds + _BETWEEN_CASES) * len(cases) + _BETWEEN_CASES
        return self._start({"mode": "outputs", "source": program}, secret, whole)

    def run_many(
        self, programs: Sequence[str | Mapping[str, Any]], timeout: float | None = None
    ) -> list[SandboxResult]:
        """`run` for several programs concurrently.

        Args:
            programs: sources, or keyword arguments of `run`.
            timeout: limit in seconds for each.

        Returns:
            The results, in order.
        """
        jobs = [{"program": each} if isinstance(each, str) else dict(each) for each in programs]
        return self.map(lambda job: self.run(**{"timeout": timeout, **job}), jobs)

    def check_many(self, checks: Sequence[Mapping[str, Any]]) -> list[SandboxResult]:
        """`check` for several programs concurrently; each is given by its keyword arguments."""
        return self.map(lambda arguments: self.check(**arguments), list(checks))

    def map(self, function: Callable[[T], SandboxResult], jobs: Sequence[T]) -> list[SandboxResult]:
        """Call a function that uses this sandbox for several jobs concurrently; results are in order."""
        self.probe()
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="sandbox")
            threads = self._threads
        return list(threads.map(function, jobs))

    # -- resources of a program --------------------------------------------------------------------------------------------

    @staticmethod
    def contents(files: Mapping[str, str | bytes] | None) -> dict[str, bytes]:
        """Files of a working folder as bytes.

        Raises:
            ValueError: a file is outside the folder.
        """
        found = {}
        for name, content in (files or {}).items():
            if Path(name).is_absolute() or ".." in Path(name).parts or not Path(name).name:
                raise ValueError(f"the file {name!r} is invalid; give a relative path inside the program's folder")
            found[name] = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else bytes(content)
        return found

    @property
    def path(self) -> list[str]:
        """Locations of a program's packages."""
        return [PACKAGES] if self.packages else []

    # -- processes -----------------------------------------------------------------------------------------------------

    def _start(
        self,
        job: dict[str, Any],
        secret: dict[str, Any] | None,
        timeout: float | None,
        files: Mapping[str, str | bytes] | None = None,
        stdin: str = "",
    ) -> SandboxResult:
        job = {**job, "files": self.contents(files)}
        return self._in_sandbox(job.pop("source"), job, secret, timeout or self.timeout, stdin)

    def _in_sandbox(
        self,
        source: str,
        job: dict[str, Any],
        secret: dict[str, Any] | None,
        timeout: float,
        stdin: str = "",
    ) -> SandboxResult:
        public = {
            "files": {},
            "arguments": [],
            "entry_points": [],
            **job,
            "source": source,
            "largest_output": self.output * 1024,
            "path": self.path,
            "limits": self.limits(timeout),
        }
        isolation = self.probe()
        code = inner_code(isolation.python)
        word = secrets.token_bytes(16)  # a verdict without it does not come from the judge
        begin = time.monotonic()
        with contextlib.ExitStack() as stack:
            texts = (encode(public), encode({**(secret or {}), "word": word}), code)
            public_text, secret_text, child = (stack.enter_context(in_memory(text)) for text in texts)
            standard_input = stack.enter_context(in_memory(stdin.encode("utf-8", "surrogatepass")))
            command, kept = stack.enter_context(isolated_command(isolation.command))
            reader, writer = os.pipe()
            stack.callback(os.close, reader)
            information, informer = os.pipe()
            stack.callback(os.close, information)
            command[-1:-1] = ["--info-fd", str(informer)]
            command += ["-s", "-S", "-B", "-c", start_command(child)]
            command += [str(public_text), str(secret_text), str(writer)]
            try:
                process = subprocess.Popen(
                    command,
                    stdin=standard_input,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=[*kept, public_text, secret_text, child, writer, informer],
                    env=ENVIRONMENT,
                    start_new_session=True,
                )
            except OSError as error:
                return SandboxResult("error", detail=f"the sandbox did not start ({error})")
            finally:
                os.close(writer)
                os.close(informer)
            try:
                return _Following(process, reader, word, self.output * 1024, timeout).result(begin)
            finally:
                end_isolated(process, information)
                for pipe in (process.stdout, process.stderr):
                    assert pipe is not None
                    pipe.close()

    def limits(self, timeout: float) -> dict[str, int]:
        """Limits of each process, by their names in `resource`; see setrlimit(2)."""
        megabyte = 1 << 20
        return {
            "AS": self.memory * megabyte,
            "CPU": int(timeout) + 2,  # per process; the wall-clock limit applies to all
            "NPROC": self.processes,
            "FSIZE": self.disk * megabyte,
            "NOFILE": 256,
            "CORE": 0,
            "MSGQUEUE": 0,
            "MEMLOCK": megabyte,
            "RTPRIO": 0,
        }


class _Following:
    """Reads the output of a sandbox until there is a verdict, or time is up."""

    def __init__(self, process: subprocess.Popen[bytes], reader: int, word: bytes, largest: int, timeout: float):
        self.process, self.reader, self.word, self.largest, self.timeout = process, reader, word, largest, timeout
        assert process.stdout is not None and process.stderr is not None
        self.out, self.err = process.stdout.fileno(), process.stderr.fileno()
        self.read: dict[int, bytearray] = {descriptor: bytearray() for descriptor in (reader, self.out, self.err)}

    def result(self, begin: float) -> SandboxResult:
        status, detail = self._follow(begin)
        texts = [bytes(self.read[which][: self.largest]).decode("utf-8", "replace") for which in (self.out, self.err)]
        return SandboxResult(status, texts[0], texts[1], time.monotonic() - begin, detail)

    def _follow(self, begin: float) -> tuple[ProgramStatus, str]:
        end, began = begin + START_SECONDS, False
        with selectors.DefaultSelector() as selector:
            for descriptor in self.read:
                os.set_blocking(descriptor, False)
                selector.register(descriptor, selectors.EVENT_READ)
            while self.reader in selector.get_map():
                ready = selector.select(max(0.0, end - time.monotonic()))
                if not ready and time.monotonic() >= end:
                    return ("timeout", f"no end within {self.timeout:g} s") if began else ("error", "it did not begin")
                for key, _ in ready:
                    if self._take(key.fd) == b"":
                        selector.unregister(key.fd)
                if not began and self.read[self.reader]:
                    began, end = True, time.monotonic() + self.timeout
                if max(len(self.read[self.out]), len(self.read[self.err])) > self.largest:
                    return "killed", f"more than {self.largest // 1024} kB of output"
        for descriptor in (self.out, self.err):  # drain the pipes, which have no writers any more
            while self._take(descriptor) and len(self.read[descriptor]) <= self.largest:
                pass
        return self._verdict()

    def _take(self, descriptor: int) -> bytes | None:
        """The available bytes; empty at the end, None if there are none yet."""
        try:
            part = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return None
        self.read[descriptor] += part
        return part

    def _verdict(self) -> tuple[ProgramStatus, str]:
        data = bytes(self.read[self.reader])
        frames = []
        while len(data) >= 4:
            length = int.from_bytes(data[:4], "little")
            frames.append(data[4 : 4 + length])
            data = data[4 + length :]
        if not frames:
            said = bytes(self.read[self.err]).decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
            return "error", f"the sandbox did not start ({said[-1][:200]})"
        if len(frames) < 2:
            return "killed", "the judge was killed"  # by the program: nothing else in there can
        word, status, detail = decode(frames[1])
        if not secrets.compare_digest(word, self.word):
            return "killed", "the verdict is not the judge's"
        return status, detail if status != "ok" else ""
