"""A persistent interpreter in a sandbox, for several cells that share their state; see `nbg_lightning.scoring.sandbox.cells`."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time
from collections.abc import Mapping

from nbg_lightning.scoring.sandbox.cells import BEGAN, DONE, RAISED
from nbg_lightning.scoring.sandbox.codec import encode
from nbg_lightning.scoring.sandbox.isolation import (
    ENVIRONMENT,
    START_SECONDS,
    end_isolated,
    in_memory,
    isolated_command,
)
from nbg_lightning.scoring.sandbox.sandbox import ProgramStatus, Sandbox, SandboxResult
from nbg_lightning.scoring.sandbox.shipping import CELLS, inner_code, start_command

LARGEST_CELL = 200_000
"""Maximum characters of a cell."""
LIFETIME = 600
"""Processor seconds of each process in a session; between cells all of them are stopped."""


class SandboxSession:
    """Runs Python cells in sequence in one sandbox: a cell sees what earlier ones defined, imported and wrote.

    The output consists of what it prints, tracebacks and the value of its last expression. A cell that takes too long, or exits
    the interpreter, ends the session. Output is under the program's control and not a verdict.

    Args:
        sandbox: provides limits, packages and isolation. Memory and processes are those of the whole session.
        files: files in the working folder, by relative path.

    Example:
        >>> with SandboxSession(Sandbox(timeout=5)) as session:  # doctest: +SKIP
        ...     session.run("x = 6")
        ...     session.run("x * 7").stdout
        '42\\n'
    """

    def __init__(self, sandbox: Sandbox, files: Mapping[str, str | bytes] | None = None):
        self.sandbox, self.files = sandbox, sandbox.contents(files)
        self._open = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._commands = self._replies = self._output = -1

    def __enter__(self) -> SandboxSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether there is an interpreter with the state of earlier cells."""
        return self._process is not None

    def close(self) -> None:
        """End the sandbox with all its processes."""
        self._process = None
        self._open.close()

    def run(self, cell: str, timeout: float | None = None) -> SandboxResult:
        """Run a cell, in a fresh interpreter if there is none.

        Args:
            cell: the source.
            timeout: limit in seconds, instead of the sandbox's.

        Returns:
            ``ok``; ``failed``: it raised; ``timeout`` and ``killed``: the session has ended; ``error``: there is no sandbox.

        Raises:
            RuntimeError: isolation is not available; see `Sandbox.probe`.
        """
        begin = time.monotonic()
        seconds = timeout or self.sandbox.timeout
        if len(cell) > LARGEST_CELL:
            return SandboxResult("failed", f"the cell has {len(cell):,} characters; at most {LARGEST_CELL:,} are run")
        if self._process is None and (problem := self._start()) is not None:
            self.close()
            return SandboxResult("error", detail=problem)
        status, output, detail = self._run(cell, seconds)
        if status in ("timeout", "killed", "error"):
            self.close()
        return SandboxResult(status, output, "", time.monotonic() - begin, detail)

    def _run(self, cell: str, seconds: float) -> tuple[ProgramStatus, str, str]:
        content = encode(cell.encode("utf-8", "replace").decode())
        frame = memoryview(encode_frame(content))
        end = time.monotonic() + seconds
        while frame:
            try:
                frame = frame[os.write(self._commands, frame) :]
            except BlockingIOError:
                time.sleep(0.001)
                if time.monotonic() > end:
                    return "timeout", "", "the interpreter did not take the cell"
            except BrokenPipeError:
                return "killed", "", "the interpreter was gone"
        answer, output = self._follow(end)
        if answer is None:
            return "timeout", output, f"no end within {seconds:g} s"
        if answer == DONE:
            return "ok", output, ""
        return ("failed", output, "it raised") if answer == RAISED else ("killed", output, "it ended the interpreter")

    def _follow(self, end: float) -> tuple[bytes | None, str]:
        """The reply, or None if it is late, and the output until then."""
        kept, dropped, answer = bytearray(), 0, None
        largest = self.sandbox.output * 1024
        with selectors.DefaultSelector() as selector:
            for descriptor in (self._replies, self._output):
                selector.register(descriptor, selectors.EVENT_READ)
            while answer is None:
                left = end - time.monotonic()
                if left <= 0:
                    break
                for key, _ in selector.select(left):
                    if key.fd == self._replies:
                        answer = os.read(self._replies, 1)
                        continue
                    part = self._printed()
                    if not part:
                        selector.unregister(self._output)
                    kept += part[: largest - len(kept)]
                    dropped += len(part) - min(len(part), max(0, largest - len(kept)))
        while (part := self._printed()) and len(kept) < largest:  # all processes are stopped: nothing more is written
            kept += part[: largest - len(kept)]
        text = bytes(kept).decode("utf-8", "replace")
        return answer, text if len(kept) < largest else f"{text}\n(cut: more than {self.sandbox.output} kB of output)"

    def _printed(self) -> bytes:
        try:
            return os.read(self._output, 1 << 16)
        except BlockingIOError:
            return b""

    def _start(self) -> str | None:
        """Start the sandbox; returns the reason if it did not start."""
        isolation = self.sandbox.probe()
        code = inner_code(isolation.python, CELLS)
        job = {"files": self.files, "path": self.sandbox.path, "limits": self.sandbox.limits(LIFETIME)}
        with contextlib.ExitStack() as passed:
            job_text, child = (passed.enter_context(in_memory(text)) for text in (encode(job), code))
            command, kept = passed.enter_context(isolated_command(isolation.command))
            given, self._commands = os.pipe()
            self._replies, answers = os.pipe()
            self._output, printed = os.pipe()
            information, informer = os.pipe()
            for theirs in (given, answers, printed, informer):
                passed.callback(os.close, theirs)
            for ours in (self._commands, self._replies, self._output, information):
                self._open.callback(os.close, ours)
            command[-1:-1] = ["--info-fd", str(informer)]
            command += ["-s", "-S", "-B", "-c", start_command(child), str(job_text), str(given), str(answers)]
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=printed,
                    stderr=printed,
                    pass_fds=[*kept, job_text, child, given, answers, informer],
                    env=ENVIRONMENT,
                    start_new_session=True,
                )
            except OSError as error:
                return f"the sandbox did not start ({error})"
            self._open.callback(end_isolated, self._process, information)
        for ours in (self._commands, self._output):
            os.set_blocking(ours, False)
        answer, said = self._follow(time.monotonic() + START_SECONDS)
        return None if answer == BEGAN else f"the sandbox did not start ({said.strip()[-200:] or 'no reason given'})"


def encode_frame(content: bytes) -> bytes:
    """A frame as read by `codec.read_frame`."""
    return len(content).to_bytes(4, "little") + content
