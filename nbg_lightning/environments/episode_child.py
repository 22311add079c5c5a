"""The process that episodes are forked from. It imports little besides the environment, since a fork costs by the pages
touched.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
import socket
from typing import Any, NoReturn

from nbg_lightning.environments.environment import Environment
from nbg_lightning.error_line import first_line
from nbg_lightning.parent import die_with
from nbg_lightning.scoring.frames import read_frame, write_frame

_LIVING: set[int] = set()  # processes of episodes


def serve(parent: int, control: int) -> None:
    """Fork for each episode until the parent ends; an episode's process, and its children, end with this one."""
    die_with(parent)
    link = socket.socket(fileno=control)
    try:
        environment, problem = pickle.loads(read_frame(control, None)), None
        environment.prepare()
    except (Exception, SystemExit) as error:
        environment, problem = None, first_line(error)
    write_frame(control, pickle.dumps(problem), None)
    if problem is not None:
        return
    signal.signal(signal.SIGCHLD, _reap)
    signal.signal(signal.SIGTERM, _end)
    die_with(parent, signal.SIGTERM)
    gc.collect()
    gc.freeze()  # a collection in an episode would write to, and so copy, the pages of all that is imported
    me = os.getpid()
    while True:
        word, descriptors, _, _ = socket.recv_fds(link, 1, 1)
        if not word:
            _end()
        for descriptor in descriptors:  # none if this process has too many open files
            _fork(environment, descriptor, link, me)
            os.close(descriptor)


def _fork(environment: Environment, descriptor: int, link: socket.socket, me: int) -> None:
    """Fork for an episode; a fork that fails is told to the episode."""
    try:
        process = os.fork()
    except OSError as error:
        with contextlib.suppress(OSError):
            write_frame(descriptor, pickle.dumps(error.strerror), None)
        return
    if process:
        _LIVING.add(process)
        return
    os.setsid()
    try:
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        die_with(me)
        link.close()
        _act(environment, descriptor)
    finally:
        os.killpg(0, signal.SIGKILL)  # its children too, also when nobody is left to do it


def _reap(*_: object) -> None:
    """Reap child processes that have ended."""
    with contextlib.suppress(ChildProcessError):
        while process := os.waitpid(-1, os.WNOHANG)[0]:
            _LIVING.discard(process)


def _end(*_: object) -> NoReturn:
    """Kill the process groups of the episodes, and exit; what `prepare` has started ends itself and what it started."""
    for process in tuple(_LIVING):
        with contextlib.suppress(OSError):
            if not os.waitpid(process, os.WNOHANG)[0]:
                os.killpg(process, signal.SIGKILL)
    os._exit(0)


def _act(environment: Environment, descriptor: int) -> None:
    """Play one episode."""
    with contextlib.suppress(EOFError, OSError):  # also when it was forked ahead, and is not needed
        write_frame(descriptor, pickle.dumps(os.getpid()), None)
        while True:
            content, method = read_frame(descriptor, None), None
            try:
                method, argument = pickle.loads(content)
                value = _call(environment, method, argument)
                reply = pickle.dumps((True, value))
            except (Exception, SystemExit) as error:
                reply = pickle.dumps((False, first_line(error)))
            write_frame(descriptor, reply, None)
            if method == "close":
                return


def _call(environment: Environment, method: str, argument: Any) -> Any:
    if method == "close":
        environment.close()
        return None
    return environment.reset(argument) if method == "reset" else environment.step(argument)
