"""Signals that end a command: the first asks it to stop where nothing is lost, another one ends it at once.

Terminals, `timeout`, systemd, Slurm and torchrun signal a process, all processes of its group, or both, so that one notice may
arrive twice. What happens depends on what the command is doing:

========== ============================================ ====================================================
doing      first signal                                 another, `REPEAT_SECONDS` later or more
========== ============================================ ====================================================
starting   ends at once: there is nothing to save       --
working    raises `Stopped`: files are whole at any     ends at once
           time, and the same command resumes
training   is remembered; the step ends, and is saved   ends at once; the last checkpoint stands
dropping   is remembered; waits are cut short, and the  ends at once; the last checkpoint stands
           step's beginning is dropped
========== ============================================ ====================================================

*Dropping* is the part of a step of training that may last for minutes and has changed nothing yet, such as the answers of GRPO.
After a remembered stop, callbacks may run without a time limit until another signal; `Stopped` has `GRACE_SECONDS` to end the
command. In processes that are forked from the command (`multiprocessing`), SIGTERM has its usual effect, as of ``terminate``, and
the other signals have none.

A command that `nbg` runs ends with exit code 128 + the number of the signal. In a script or notebook that uses this library,
signals are handled during training only, and the second one raises.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import math
import os
import select
import signal
import socket
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, MethodType
from typing import Any, Literal, NoReturn, TypeVar

from nbg_lightning.last_words import call_within, say
from nbg_lightning.parent import is_launched

STOP_SIGNALS = frozenset(
    signal.Signals[name]
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if name in signal.Signals.__members__
)
"""What schedulers send before a limit (``--signal`` of Slurm names any of them), and what terminals and lost connections send."""
REPEAT_SECONDS = 1.0  # `timeout` and torchrun forward signals that the whole group has received already
GRACE_SECONDS = 10.0  # for unwinding after `Stopped`: a library may swallow it, or wait for a rank that has exited
_AGAIN_SECONDS = 0.05  # until a signal that came at a moment when Python ignores exceptions is given again
_HEARD_SECONDS = 0.5  # by which a block may be told of a signal before the watching thread is
_LAST_WORDS_SECONDS = 5.0  # for finding out what is saved, on a disk that may not answer
_FLUSH_SECONDS = 0.5  # for what was printed and not yet written, when a process ends at once

T = TypeVar("T")
Phase = Literal["starting", "working", "training"]


class Stopped(SystemExit):
    """A signal ended a command before its end.

    Attributes:
        signal: which.
    """

    def __init__(self, number: int):
        self.signal = signal.Signals(number)
        super().__init__(128 + number)

    def __str__(self) -> str:
        return f"stopped by {self.signal.name}"


class _Dropped(Stopped):
    """A signal ended the work of `unless_stopped`."""


class StopHandler:
    """Receives the signals of this process.

    Args:
        command: name of the command in messages.
        owns_process: the process does nothing else, so it may be ended.

    Attributes:
        received: the first signal, or None.
        phase: what the command is doing, which decides the effect of a signal.
        kept: returns a short text on what is saved, and how to resume.
        plan: a short text on what a remembered signal will do.
        remembered: whether the first signal came in training, so that the command ends by itself.
        dropping: whether the work of the current block is dropped on a stop.
        given_away: signals that the current block handles itself (`interrupts`).
        heard: when such a block last handled each of them, by the monotonic clock.
        children: processes that each signal is forwarded to, such as the step of a recipe.
    """

    def __init__(self, command: str, owns_process: bool):
        self.command, self.owns_process = command, owns_process
        self.received: signal.Signals | None = None
        self.kept: Callable[[], str] = lambda: "run the same command to start over"
        self.plan = ""
        self.remembered = self.dropping = False
        self._at_once = False
        self.given_away: set[int] = set()
        self.heard: dict[int, float] = {}
        self.children: set[int] = set()
        self.phase: Phase = "starting" if owns_process else "working"
        self._first: float | None = None
        self._finished = False
        self._process = os.getpid()
        self._previous: dict[signal.Signals, Any] = {}

    # -- while it is installed -------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Install the signal handlers, except for a SIGHUP that `nohup` ignores, and for a signal whose handler Python does not
        know, such as a preloaded library's, and could not restore.
        """
        for number in STOP_SIGNALS:
            before = signal.getsignal(number)
            if before is None or (number == signal.SIGHUP and before is signal.SIG_IGN):
                continue
            self._previous[number] = signal.signal(number, self._handle)
        if self.owns_process:
            sys.unraisablehook, self._unraisable = self._raise_again, sys.unraisablehook
            reader, writer = socket.socketpair()
            writer.setblocking(False)
            signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            self._ends = reader, writer
            threading.Thread(target=self._watch, args=(reader,), name="stop-signals", daemon=True).start()
            atexit.register(self._ignore)
        _prepare_forks()

    def restore(self) -> None:
        """Restore the previous handlers, unless a signal is ending the process: the default ones would change its exit code."""
        self._finished = True
        if self.owns_process and self.received:
            return
        while self._previous:
            number, before = self._previous.popitem()
            signal.signal(number, signal.SIG_DFL if self.owns_process else before)

    def _ignore(self) -> None:
        """Ignore signals from here on: after the functions of `atexit`, Python has no thread that could hear them."""
        while self._previous:
            signal.signal(self._previous.popitem()[0], signal.SIG_IGN)

    def agreed(self, number: int) -> None:
        """All ranks stop for a signal that another one has received in training: this rank's own notice may come late."""
        if self.received is None:
            self.received, self.remembered = signal.Signals(number), True

    def line(self, how: str = "stopped", kept: str | None = None) -> str:
        """The last message of a stopped command.

        Args:
            how: it ended.
            kept: what is saved; by default it is looked up.
        """
        name = "a signal" if self.received is None else self.received.name
        return f"{self.command}: {how} by {name}; {self.kept() if kept is None else kept}"

    # -- in the main thread ----------------------------------------------------------------------------------------------

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked child, whose handler called this one
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            return
        if self._finished:
            return
        now = time.monotonic()
        if not self.owns_process:
            self._forward(number)
        if self.received is None:
            self.received, self._first = signal.Signals(number), now
            self._begin_stop()
        elif self._first is None:  # another rank had it before
            self._first = now
        elif now - self._first >= REPEAT_SECONDS and not self.owns_process:
            raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)

    def _forward(self, number: int) -> None:
        for child in tuple(self.children):
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                os.kill(child, number)

    def _begin_stop(self) -> None:
        assert self.received is not None
        if self.phase != "training" and is_launched():  # the other ranks would wait for this one
            os.kill(os.getppid(), self.received)
        if self.phase == "starting":
            self._leave(self.received)
        if self.phase == "working":
            raise Stopped(self.received)
        self.remembered = True
        say(f"{self.received.name}: {self.plan} (again: at once)")
        if self._at_once:
            raise _Dropped(self.received)

    def _raise_again(self, unraisable: Any) -> None:
        """Raise `Stopped` again if it was raised where Python ignores exceptions, as in a destructor."""
        if unraisable.exc_type is None or not issubclass(unraisable.exc_type, Stopped):
            self._unraisable(unraisable)
            return
        number, self.received = self.received or signal.SIGTERM, None
        _give_again(number)

    # -- in a thread, which also hears what comes while the main thread waits for another rank -------------------------------

    def _watch(self, reader: socket.socket) -> None:
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        first: float | None = None
        asked = signal.SIGTERM  # the first one, which the main thread may be too busy to handle
        unheard: float | None = None  # when a signal came that its block has not handled
        while True:
            wait = None
            if first is not None and not self._ends_by_itself():
                wait = 1000 * max(0.0, first + GRACE_SECONDS - time.monotonic())
            if not poll.poll(wait):
                if not self._ends_by_itself():  # training may have begun since
                    self._leave(asked)
                continue
            for number in set(reader.recv(64)) & STOP_SIGNALS:
                now = time.monotonic()
                heard = self.heard.get(number, -math.inf)
                if number in self.given_away or heard > now - _HEARD_SECONDS:
                    if unheard is None or heard > unheard - _HEARD_SECONDS:
                        unheard = now
                    elif now - unheard >= REPEAT_SECONDS:  # the block is stuck where no exception reaches it
                        self._leave(number)
                    continue
                if first is None:
                    first, asked = now, signal.Signals(number)
                self._forward(number)
                if now - first >= REPEAT_SECONDS:
                    self._leave(number)

    def _ends_by_itself(self) -> bool:
        return self.remembered or self.phase == "training"

    def _leave(self, number: int) -> NoReturn:
        """End the process at once; its workers and launched ranks end with it.

        Args:
            number: the signal, if the main thread has not handled any.
        """
        self.received = self.received or signal.Signals(number)
        try:
            if not self._finished:
                kept: list[str] = []
                call_within(_LAST_WORDS_SECONDS, [lambda: kept.append(self.kept())])
                words = self.line("stopped at once", kept[0] if kept else "what is saved could not be found out")
                call_within(_FLUSH_SECONDS, [lambda: say(words)])
            call_within(_FLUSH_SECONDS, [sys.stdout.flush])
        finally:
            os._exit(128 + self.received)


_current: StopHandler | None = None


@contextmanager
def handling(command: str, owns_process: bool = False) -> Iterator[StopHandler]:
    """The installed signal handler of the process, or one that is installed for the block."""
    global _current
    if _current is not None:
        yield _current
        return
    handler = StopHandler(command, owns_process)
    if threading.current_thread() is not threading.main_thread():
        yield handler  # Python delivers signals to the main thread only
        return
    handler.install()
    _current = handler
    try:
        yield handler
    finally:
        try:
            handler.restore()
        finally:
            _current = None


def current() -> StopHandler | None:
    """The handler that is installed."""
    return _current


@contextmanager
def remembering(plan: str) -> Iterator[StopHandler]:
    """A block that the first signal does not interrupt: it is stored in `StopHandler.received`, and the block stops as
    planned.
    """
    handler = _current or StopHandler("", owns_process=False)
    before, planned = handler.phase, handler.plan
    handler.phase, handler.plan = "training", plan
    try:
        yield handler
    finally:
        handler.phase, handler.plan = before, planned


@contextmanager
def dropping(plan: str) -> Iterator[None]:
    """A part of a `remembering` block whose work is dropped on a stop: code that waits in it checks `stop_asked`, and gives
    up.

    It has no effect in a command that a signal ends at once.
    """
    handler = _current
    if handler is None or handler.phase != "training":
        yield
        return
    planned = handler.plan
    handler.plan, handler.dropping = plan, True
    try:
        yield
    finally:
        handler.plan, handler.dropping = planned, False


def stop_asked() -> bool:
    """Whether the current work should be given up, since a stop was requested and its result would be dropped."""
    return _current is not None and _current.dropping and _current.received is not None


@contextmanager
def interrupts() -> Iterator[None]:
    """Let Ctrl-C (SIGINT) raise KeyboardInterrupt in the block every time, for interactive commands.

    If the block is stuck in a call that no exception can interrupt, so that the first one has no effect, another one
    `REPEAT_SECONDS` later ends the process at once. Other signals are handled as elsewhere.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread only
        return
    handler = _current or StopHandler("", owns_process=False)

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        handler.heard[signal.SIGINT] = time.monotonic()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    handler.given_away.add(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        handler.given_away.discard(signal.SIGINT)


def unless_stopped(work: Callable[[], T]) -> T | None:
    """The result of a function; None if a signal, which interrupts it anywhere, requests to drop it.

    Args:
        work: a function, called in the main thread, in which no rank waits for another.
    """
    handler = _current
    if handler is None or not handler.dropping:
        return work()
    try:
        try:
            handler._at_once = True
            return None if stop_asked() else work()
        finally:
            handler._at_once = False
    except _Dropped:
        return None


# -- forked processes --------------------------------------------------------------------------------------------------

_masks: defaultdict[int, list[set[int]]] = defaultdict(list)
"""By thread, the signals that each fork in progress had found blocked: a signal's handler may fork while its thread forks."""


@functools.cache
def _prepare_forks() -> None:
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def _installed(number: int) -> StopHandler | None:
    """The handler of a signal, if it is one of ours."""
    handler = signal.getsignal(number)
    owner = handler.__self__ if isinstance(handler, MethodType) else None
    return owner if isinstance(owner, StopHandler) else None


def _before_fork() -> None:
    """Block signals, so that none reaches the child while it has its parent's handlers."""
    blocked = STOP_SIGNALS if any(map(_installed, STOP_SIGNALS)) else frozenset()
    with _heard_later():
        _masks[threading.get_ident()].append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)  # by itself, since it may raise what a handler does


def _after_fork_in_parent() -> None:
    with _heard_later():
        if masks := _masks[threading.get_ident()]:
            signal.pthread_sigmask(signal.SIG_SETMASK, masks.pop())


def _after_fork_in_child() -> None:
    """Give SIGTERM its usual effect. The other signals, which reach whole groups, have none here: the parent, which may still
    need this process, answers them.
    """
    global _current
    _current = None
    for number in STOP_SIGNALS:
        handler = _installed(number)
        if handler is None:
            continue
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
        if handler.owns_process:
            signal.set_wakeup_fd(-1)  # its reader is the parent's
    if masks := _masks.pop(threading.get_ident(), []):
        signal.pthread_sigmask(signal.SIG_SETMASK, masks[0])


@contextmanager
def _heard_later() -> Iterator[None]:
    """Python ignores exceptions here: signals whose handlers raise them are given again. `StopHandler` does so for its own."""
    try:
        yield
    except KeyboardInterrupt:
        _give_again(signal.SIGINT)
    except Stopped as stop:
        if _current is not None and _current.owns_process:
            raise
        _give_again(stop.signal)


def _give_again(number: int) -> None:
    """Signal this process once Python heeds exceptions again."""
    threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), number)).start()
