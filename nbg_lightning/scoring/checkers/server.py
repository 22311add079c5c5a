"""The first process of a checker sandbox: imports a checker once, and forks a child for each answer.

It never looks at an answer itself. A child reports over a pipe that the reference is valid, then its verdict. Nothing that an
answer did outlives its child: all other processes of the namespace are ended before the next one, and nothing in the
sandbox is writable.

Questions arrive as pickles on descriptor 0, replies are sent as JSON to descriptor 1, both in frames: eight bytes of length,
then the content.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pickle
import select
import signal
import struct
import sys
import time
from typing import Any, NoReturn

from nbg_lightning.scoring.checkers import confinement
from nbg_lightning.scoring.checkers.kinds import NotAnAnswer, make_checker

HEADER = struct.Struct("<Q")
LARGEST_VERDICT = 1 << 20
_SOUND = b"\n"  # ends a child's report that its reference is valid; one-line JSON contains none


class Server:
    """Answers questions until there are no more.

    Args:
        settings: settings from the host: ``kind``, ``function`` (its import path), ``memory`` (bytes per answer),
            ``filter`` (of system calls, in hex; may be empty), ``trusted`` (folders of modules).
        jobs: descriptor for questions.
        replies: descriptor for replies.
    """

    def __init__(self, settings: dict[str, Any], jobs: int, replies: int):
        self.settings, self.jobs, self.replies = settings, jobs, replies
        self.filter = bytes.fromhex(settings["filter"])
        self.checker = make_checker(settings["kind"], settings["function"])

    def run(self) -> None:
        self._settle()
        self._send({"ready": True})
        while (question := read_frame(self.jobs)) is not None:
            deadline, arguments = pickle.loads(question)
            reply = self._at_once(arguments)
            self._send({"prepared": True})  # starts the time limits of reference and answer
            self._send(self._judged(deadline, arguments) if reply is None else reply)

    def _at_once(self, arguments: tuple[Any, ...]) -> dict[str, Any] | None:
        """The reply, if no child is needed: the question is invalid, or the verdict is known."""
        try:
            if self.checker.prepare(*arguments):
                self._settle()
            value = self.checker.known(*arguments)
        except Exception as error:
            return {"status": "error", "detail": short(error)}
        return None if value is None else {"status": "ok", "value": value, "detail": ""}

    @staticmethod
    def _settle() -> None:
        """Exclude existing objects from garbage collection, so that children share their memory."""
        gc.collect()
        gc.freeze()
        confinement.gather_memory()

    def _send(self, reply: dict[str, Any]) -> None:
        write_frame(self.replies, json.dumps(reply).encode())

    def _judged(self, deadline: float, arguments: tuple[Any, ...]) -> dict[str, Any]:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            self._answer(writer, deadline, arguments)
        os.close(writer)
        try:
            kept, said, timed_out = follow(reader, deadline)
        finally:
            os.close(reader)
            code = end_all(child)
        sound = self._kept(kept, arguments)
        return self._reply(
            sound, said, f"no verdict within {deadline:g} s" if timed_out else ended(code), timed_out, arguments
        )

    def _kept(self, kept: bytes | None, arguments: tuple[Any, ...]) -> bool:
        """Whether the reference is valid, by the child's report before it looked at the answer."""
        if kept is None:
            return False
        try:
            self.checker.keep_reference(json.loads(kept), *arguments)
        except (ValueError, TypeError, RecursionError):
            return False
        return True

    def _reply(self, sound: bool, said: bytes, end: str, timed_out: bool, arguments: tuple[Any, ...]) -> dict[str, Any]:
        """The reply: a failure before the reference was found valid is the question's, one after it the answer's."""
        try:
            message = json.loads(said)
            if sound and "value" in message:
                return {"status": "ok", "value": self.checker.read(message["value"], *arguments), "detail": ""}
            detail = str(message["detail"])[:300]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            detail = end if not said else f"the checker's verdict cannot be read ({short(error)})"
        if sound:
            return {"status": "ok", "value": self.checker.wrong(*arguments), "detail": detail}
        return {"status": "timeout" if timed_out else "error", "detail": detail}

    def _answer(self, writer: int, deadline: float, arguments: tuple[Any, ...]) -> NoReturn:
        """Check one answer, in a child process."""

        def send(data: bytes) -> None:
            while data:
                data = data[os.write(writer, data) :]

        def say(message: dict[str, Any]) -> None:
            send(json.dumps(message).encode())

        def refuse(reason: str) -> NoReturn:
            say({"detail": f"the answer is not evaluated: {reason}"})
            os._exit(0)

        try:
            confinement.close_all_but(writer)
            confinement.limit(self.settings["memory"], 2 * deadline)
            if self.filter:
                confinement.filter_system_calls(self.filter)
            if self.checker.guarded:
                confinement.forbid_code(self.settings["trusted"], refuse)
            send(json.dumps(self.checker.reference(*arguments)).encode() + _SOUND)
            say({"value": self.checker.verdict(*arguments)})
        except NotAnAnswer as error:
            refuse(str(error))
        except BaseException as error:
            with contextlib.suppress(BaseException):
                say({"detail": short(error)})
        os._exit(0)


def follow(reader: int, deadline: float) -> tuple[bytes | None, bytes, bool]:
    """Read a child's output until it ends: its report on the reference (None if invalid), its message, whether it timed out.

    The time limit starts again when the reference is valid.
    """
    reference, said, end = None, b"", time.monotonic() + deadline
    while len(said) <= LARGEST_VERDICT:
        if not select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]:
            return reference, b"", True
        part = os.read(reader, 1 << 16)
        if not part:
            break
        said += part
        if reference is None and _SOUND in part:
            reference, _, said = said.partition(_SOUND)
            end = time.monotonic() + deadline
    return reference, said, False


def end_all(child: int) -> int:
    """End every other process of this namespace, of which this is the first; returns the wait status of a child."""
    code = 0
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == child:
                code = status
    return code


def ended(status: int) -> str:
    """Describe how a process without a verdict ended."""
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGXCPU:
        return "the checker used up its processor time on this answer"
    return f"the checker was ended by signal {-code} on this answer" if code < 0 else f"the checker ended with {code}"


def short(error: BaseException) -> str:
    """An exception in one line."""
    text = f"{error}".strip() or type(error).__name__
    return f"the checker failed on it ({text.splitlines()[0][:200]})"


def read_frame(descriptor: int) -> bytes | None:
    """The next frame; None at the end."""

    def exactly(count: int) -> bytes:
        parts = []
        while count and (part := os.read(descriptor, min(count, 1 << 20))):
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    header = exactly(HEADER.size)
    return exactly(*HEADER.unpack(header)) if len(header) == HEADER.size else None


def write_frame(descriptor: int, content: bytes) -> None:
    """Write a complete frame."""
    data = memoryview(HEADER.pack(len(content)) + content)
    while data:
        data = data[os.write(descriptor, data) :]


def main() -> None:
    """Serve the host at the other end of descriptors 0 and 1."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C goes to the run, which then ends this process
    jobs, replies, null = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(null, standard)  # a checker's output must not mix with the replies
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")  # first to be killed when memory runs out
    confinement.hide()
    settings = json.loads(read_frame(jobs) or b"{}")
    sys.path += settings["path"]
    try:
        server = Server(settings, jobs, replies)
    except Exception as error:  # while importing the checker
        write_frame(replies, json.dumps({"ready": False, "detail": f"{type(error).__name__}: {error}"}).encode())
        return
    os.dup2(null, 2)
    os.close(null)
    server.run()
