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
from typing import Any

from nbg_lightning.environments.environment import Environment
from nbg_lightning.error_line import first_line
from nbg_lightning.parent import die_with
from nbg_lightning.scoring.frames import read_frame, write_frame


def serve(parent: int, control: int) -> None:
    """Fork for each episode until the parent ends; an episode's process ends with this one."""
    die_with(parent)
    link = socket.socket(fileno=control)
    try:
        environment, problem = pickle.loads(read_frame(control, None)), None
        environment.prepare()
    except Exception as error:
        environment, problem = None, first_line(error)
    write_frame(control, pickle.dumps(problem), None)
    if problem is not None:
        return
    signal.signal(signal.SIGCHLD, _reap)
    gc.collect()
    gc.freeze()  # a collection in an episode would write to, and so copy, the pages of all that is imported
    me = os.getpid()
    while True:
        word, descriptors, _, _ = socket.recv_fds(link, 1, 1)
        if not word:
            return
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            die_with(me)
            link.close()
            _act(environment, descriptors[0])
            os._exit(0)
        os.close(descriptors[0])


def _reap(*_: object) -> None:
    """Reap child processes that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _act(environment: Environment, descriptor: int) -> None:
    """Play one episode."""
    with contextlib.suppress(EOFError, OSError):  # also when it was forked ahead, and is not needed
        write_frame(descriptor, pickle.dumps(os.getpid()), None)
        while True:
            method, argument = pickle.loads(read_frame(descriptor, None))
            try:
                value = _call(environment, method, argument)
                reply = pickle.dumps((True, value))
            except Exception as error:
                reply = pickle.dumps((False, first_line(error)))
            write_frame(descriptor, reply, None)
            if method == "close":
                return


def _call(environment: Environment, method: str, argument: Any) -> Any:
    if method == "close":
        environment.close()
        return None
    return environment.reset(argument) if method == "reset" else environment.step(argument)
