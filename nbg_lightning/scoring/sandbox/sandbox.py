"""Programs that a model wrote, run where they can do no harm and judged where they cannot reach.

Each program has a bubblewrap sandbox of its own: new user, process, network, IPC, host and cgroup namespaces; no further
user namespaces; an unprivileged user without capabilities; a read-only root that holds the system's programs and a Python,
and nothing of the user's; a small private ``/tmp``; a clean environment; limits on memory, processes, files, processor time
and output; a filter of system calls; a wall clock, after which the whole process namespace is killed. Without all of that
nothing is run.

What decides whether tests pass is in `nbg_lightning.scoring.sandbox`.
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
"""``ok``: it ended by itself with exit code 0, or passed all tests. ``failed``: it did not. ``timeout``: the wall clock.
``killed``: by a signal or a limit. ``error``: the sandbox or the tests failed, which says nothing of the program."""

_BETWEEN_CASES = 0.5  # seconds for each case beside its own time: a process is started for it

T = TypeVar("T")


@dataclass(frozen=True)
class SandboxResult:
    """How a program ended.

    Attributes:
        status: see `ProgramStatus`.
        stdout: what it printed, up to the limit; empty for programs that were tested.
        stderr: likewise.
        seconds: of wall clock, with the start.
        detail: why it is not ``ok``, in one line.
    """

    status: ProgramStatus
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0
    detail: str = ""

    def __bool__(self) -> bool:
        """It ran to its end, or passed."""
        return self.status == "ok"


class Sandbox:
    """Runs programs in isolation. Its methods may be called from several threads.

    Args:
        timeout: seconds of wall clock for a program.
        memory: megabytes of address space of each of its processes.
        processes: processes and threads at once, with the three that the sandbox itself has.
        disk: megabytes of ``/tmp``, and of the largest file.
        output: kilobytes of standard output, and as many of standard error.
        workers: programs that run at once in `run_many` and `check_many`; by default as many as there are processors.
        packages: names of installed packages that programs may import beside the standard library, such as ``numpy``.
        python: the interpreter; by default the one that runs this, or the system's where that cannot be read by others.

    Raises:
        ValueError: a limit that is not positive, or a package that is not installed.

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
        """End the threads of `run_many`; the next call starts others."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(cancel_futures=True)

    # -- isolation -----------------------------------------------------------------------------------------------------

    def probe(self) -> Isolation:
        """What programs are isolated by; found out once, by running a program that tries to get out.

        Raises:
            RuntimeError: there is no isolation, with the way to get it.
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

        What it prints and its exit code are its own doing: they are no verdict. See `check`.

        Args:
            program: the source.
            files: files of its working folder, by relative path.
            stdin: its standard input.
            timeout: seconds, instead of the sandbox's.
            arguments: of its command line.

        Raises:
            ValueError: a file outside the folder.
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
        """Whether a program passes tests with assertions; true (``ok``) if all do.

        The tests run in another process than the program. They use its functions, classes and variables by name; a name
        of a builtin means the builtin, except for entry points. Arguments and results cross as plain data: numbers, texts,
        containers (arguments that the program changes are changed in the test), dates, fractions, numpy arrays; functions and
        objects that a test gives are called back. Other results stay with the program: what tests ask of them is done there.
        Their operators are believed between two of them, not with values of the tests: the program would decide what it equals.

        Args:
            solution: the program.
            tests: code with ``assert``; each text is one test. Functions ``test...()`` that it defines are called, and
                ``check(candidate)`` is called with the entry point.
            entry_point: functions that the tests are about.
            setup: code that is run before the tests, beside them. What it defines is not the program's to change.
            own_operators: classes of the program whose operators (``==``, ``<``, ``+``) are believed with values of the tests.
            timeout: seconds for all tests, instead of the sandbox's.
            files: of its working folder, by relative path: modules that it imports. The tests import none of them.

        Raises:
            ValueError: tests that assert nothing, or a file outside the folder.
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
        """Whether a program prints what is expected for each standard input; true (``ok``) if it does for all.

        Outputs are compared line by line, without spaces at ends of lines and empty lines at the end. Each case has a
        process of its own; they stop at the first that fails.

        Args:
            program: the source.
            cases: standard input and expected output of each.
            timeout: seconds for each case, instead of the sandbox's.
            decimals: compare lines of numbers by their values (``1.0`` is ``1``) and without spaces at their beginnings.

        Raises:
            ValueError: no case.
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
        """`run` of several at once.

        Args:
            programs: sources, or arguments of `run` by name.
            timeout: seconds for each.

        Returns:
            A result for each, in order.
        """
        jobs = [{"program": each} if isinstance(each, str) else dict(each) for each in programs]
        return self.map(lambda job: self.run(**{"timeout": timeout, **job}), jobs)

    def check_many(self, checks: Sequence[Mapping[str, Any]]) -> list[SandboxResult]:
        """`check` of several at once; each is its arguments by name."""
        return self.map(lambda arguments: self.check(**arguments), list(checks))

    def map(self, function: Callable[[T], SandboxResult], jobs: Sequence[T]) -> list[SandboxResult]:
        """A function that uses this sandbox, of several things at once; results in their order."""
        self.probe()
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="sandbox")
            threads = self._threads
        return list(threads.map(function, jobs))

    # -- what a program has --------------------------------------------------------------------------------------------

    @staticmethod
    def contents(files: Mapping[str, str | bytes] | None) -> dict[str, bytes]:
        """Files of a working folder as bytes.

        Raises:
            ValueError: a file outside the folder.
        """
        found = {}
        for name, content in (files or {}).items():
            if Path(name).is_absolute() or ".." in Path(name).parts or not Path(name).name:
                raise ValueError(f"the file {name!r} is invalid; give a relative path inside the program's folder")
            found[name] = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else bytes(content)
        return found

    @property
    def path(self) -> list[str]:
        """Where a program's packages are."""
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
        word = secrets.token_bytes(16)  # a verdict without it is not the judge's
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
            "CPU": int(timeout) + 2,  # of each process; the wall clock is for all
            "NPROC": self.processes,
            "FSIZE": self.disk * megabyte,
            "NOFILE": 256,
            "CORE": 0,
            "MSGQUEUE": 0,
            "MEMLOCK": megabyte,
            "RTPRIO": 0,
        }


class _Following:
    """Reads what comes out of a sandbox until it has its verdict, or its time is over."""

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
        for descriptor in (self.out, self.err):  # what is left in the pipes; nobody writes any more
            while self._take(descriptor) and len(self.read[descriptor]) <= self.largest:
                pass
        return self._verdict()

    def _take(self, descriptor: int) -> bytes | None:
        """What is there now; empty at the end, None if there is nothing yet."""
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
            return "killed", "the judge was killed"  # by the program: nobody else in there can
        word, status, detail = decode(frames[1])
        if not secrets.compare_digest(word, self.word):
            return "killed", "the verdict is not the judge's"
        return status, detail if status != "ok" else ""
