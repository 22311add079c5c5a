"""Environment processes, one per episode, forked from one that has imported the environment: each can be killed."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from typing import Any

from nbg_lightning.data.question import Question
from nbg_lightning.environments.environment import Environment, ModelTurn, Opening, Reply
from nbg_lightning.error_line import first_line
from nbg_lightning.scoring.frames import is_ready, read_frame, write_frame
from nbg_lightning.scoring.worker import START_SECONDS

_FORK = b"f"
_MOST_AHEAD = 64  # processes forked before their episodes begin
_END_SECONDS = 5.0  # for killing the process groups of all episodes


class EnvironmentFailed(RuntimeError):
    """An environment raised, died, or did not reply in time; this says nothing about the model.

    Attributes:
        timeout: whether it ran out of time.
    """

    def __init__(self, reason: str, timeout: bool = False):
        super().__init__(reason)
        self.timeout = timeout


class LocalEpisode:
    """An environment in this process, copied for the episode."""

    def __init__(self, environment: Environment):
        import copy

        self._environment = copy.deepcopy(environment)

    def reset(self, question: Question, seconds: float) -> Opening:
        """See `EpisodeProcess.reset`; without a time limit."""
        return _checked(self._call("reset", question), Opening)

    def step(self, turn: ModelTurn, seconds: float) -> Reply:
        """See `EpisodeProcess.step`; without a time limit."""
        return _checked(self._call("step", turn), Reply)

    def interrupt(self) -> None:
        """Do nothing: it cannot be interrupted."""

    def close(self) -> None:
        """End the episode."""
        with contextlib.suppress(Exception, SystemExit):
            self._environment.close()

    def _call(self, method: str, argument: Any) -> Any:
        try:
            return self._environment.reset(argument) if method == "reset" else self._environment.step(argument)
        except (Exception, SystemExit) as error:
            raise EnvironmentFailed(
                f"{type(self._environment).__name__}.{method} failed: {first_line(error)}"
            ) from None


class EpisodeProcess:
    """An environment in its own process, which leads a process group, so that its children end with it.

    Args:
        link: connection to the process.
        name: name of the environment, for messages.
    """

    def __init__(self, link: socket.socket, name: str):
        self._link, self._name = link, name
        link.setblocking(False)  # a write then ends in time, also when nobody reads
        self._pid: int | None = None

    def reset(self, question: Question, seconds: float) -> Opening:
        """Begin the episode.

        Raises:
            EnvironmentFailed: the environment raised, died, or took longer.
        """
        return _checked(self._ask("reset", question, seconds), Opening)

    def step(self, turn: ModelTurn, seconds: float) -> Reply:
        """The environment's reply.

        Raises:
            EnvironmentFailed: as `reset`.
        """
        return _checked(self._ask("step", turn, seconds), Reply)

    def close(self) -> None:
        """Give the environment a moment to close, then kill its process group."""
        if self._link.fileno() < 0:
            return
        with contextlib.suppress(EnvironmentFailed):
            self._ask("close", None, 1.0)
        self._kill()

    def lives(self) -> bool:
        """Whether the process of an episode that has not begun is there, or still being forked."""
        return not is_ready(self._link.fileno(), 0, 0.0)  # without an event only a closed end is reported

    def drop(self) -> None:
        """Close the connection of an episode that has not begun; its process then ends."""
        self._link.close()

    def _ask(self, method: str, argument: Any, seconds: float) -> Any:
        descriptor, end = self._link.fileno(), time.monotonic() + seconds
        if descriptor < 0:
            raise EnvironmentFailed(f"{self._name} has ended")
        try:
            if self._pid is None:
                self._pid = self._begun(pickle.loads(read_frame(descriptor, end + START_SECONDS)))
                end = time.monotonic() + seconds
            write_frame(descriptor, pickle.dumps((method, argument)), end)
            returned, value = pickle.loads(read_frame(descriptor, end))
        except TimeoutError:
            self._kill()
            raise EnvironmentFailed(f"{self._name}.{method} took more than {seconds:g} s", timeout=True) from None
        except (OSError, EOFError):
            self._kill()
            raise EnvironmentFailed(f"{self._name}.{method}: its process died") from None
        except EnvironmentFailed:
            self._kill()
            raise
        except Exception as error:  # what it gave cannot be unpickled here
            self._kill()
            raise EnvironmentFailed(f"{self._name}.{method} gave what cannot be read: {first_line(error)}") from None
        if not returned:
            raise EnvironmentFailed(f"{self._name}.{method} failed: {value}")
        return value

    def _begun(self, process: int | str) -> int:
        """The process; raises the reason why there is none."""
        if isinstance(process, str):
            raise EnvironmentFailed(
                f"an episode of {self._name} cannot be forked: {process}; raise ulimit -u, or set limits.open_at_once"
            )
        return process

    def interrupt(self) -> None:
        """Kill the process group, or end the wait for it; a thread that waits for a reply then fails."""
        if self._pid is None:
            with contextlib.suppress(OSError):
                self._link.shutdown(socket.SHUT_RDWR)
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)

    def _kill(self) -> None:
        self._link.close()
        self.interrupt()


class EnvironmentServer:
    """A process that has imported an environment, and forks for each episode.

    Args:
        environment: it is pickled; its class must be importable.

    Raises:
        ValueError: it cannot be pickled or imported, with what to do.
    """

    def __init__(self, environment: Environment):
        self._name = type(environment).__name__
        if type(environment).__module__ == "__main__":
            raise ValueError(
                f"environment is invalid: {self._name} is defined in the script or notebook that runs, where its process cannot "
                "find it; put it into a module, or set limits.isolated to false"
            )
        try:
            content = pickle.dumps(environment)
        except Exception as error:
            raise ValueError(
                f"environment is invalid: {self._name} cannot be sent to its process ({first_line(error)}); open files and "
                "connections in reset, or set limits.isolated to false"
            ) from None
        modules = os.pathsep.join(place or os.getcwd() for place in sys.path)
        self._spare: deque[EpisodeProcess] = deque()
        self._control, theirs = socket.socketpair()
        self._control.settimeout(START_SECONDS)
        with theirs:
            code = (
                f"from nbg_lightning.environments.episode_child import serve; serve({os.getpid()}, {theirs.fileno()})"
            )
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if _has_descriptor(sys.stderr) else subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": modules},
                start_new_session=True,  # a Ctrl-C is for the run, which then ends this
            )
        try:
            end = time.monotonic() + START_SECONDS + environment.prepare_seconds
            write_frame(self._control.fileno(), content, end)
            problem = pickle.loads(read_frame(self._control.fileno(), end))
        except TimeoutError:
            seconds = START_SECONDS + environment.prepare_seconds
            problem = f"it was not prepared in {seconds:g} s; do less in prepare, or raise prepare_seconds"
        except (OSError, EOFError):
            problem = "its process died before it was prepared; see what it printed"
        if problem is not None:
            self.close()
            raise ValueError(f"environment is invalid: {self._name} in a process of its own: {problem}")

    @property
    def ended_by(self) -> str | None:
        """What ended the process, such as ``SIGKILL``; None while it lives."""
        code = self._process.poll()
        if code is None:
            return None
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def episode(self) -> EpisodeProcess:
        """A new episode, in a process forked ahead if there is one.

        Raises:
            EnvironmentFailed: the server is gone.
        """
        with contextlib.suppress(IndexError):
            while not (spare := self._spare.pop()).lives():
                spare.drop()
            return spare
        return self._fork()

    def fork_ahead(self, number: int) -> None:
        """Have processes ready for the next ``number`` episodes, at most 64; they are forked while this process goes on.

        The last quarter of the open files that this process may have is left to others.
        """
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        below = None if most == resource.RLIM_INFINITY else most - most // 4
        with contextlib.suppress(EnvironmentFailed):  # `episode` tells it to those who need one
            while len(self._spare) < min(number, _MOST_AHEAD):
                self._spare.append(self._fork(below))

    def _fork(self, below: int | None = None) -> EpisodeProcess:
        try:
            ours, theirs = socket.socketpair()
            if below is not None and ours.fileno() >= below:
                with ours, theirs:
                    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        except OSError as error:
            raise EnvironmentFailed(
                f"an episode of {self._name} cannot be opened: {error.strerror}; raise ulimit -n, or set limits.open_at_once"
            ) from None
        with theirs:
            try:
                socket.send_fds(self._control, [_FORK], [theirs.fileno()])
            except OSError:
                ours.close()
                raise EnvironmentFailed(f"the process of {self._name} is gone") from None
        return EpisodeProcess(ours, self._name)

    def close(self) -> None:
        """End the process, and all remaining episodes with it, and their children."""
        if self._control.fileno() < 0:
            return
        self._control.close()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self._process.kill()  # if it did not end
        self._process.wait()
        while self._spare:
            self._spare.pop().drop()


def _has_descriptor(stream: Any) -> bool:
    try:
        return stream.fileno() >= 0
    except (OSError, ValueError, AttributeError):
        return False


def _checked(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind):
        raise EnvironmentFailed(f"an environment gave a {type(value).__name__} where it gives a {kind.__name__}")
    return value
