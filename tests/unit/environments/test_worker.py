"""Processes of episodes, forked ahead or not: each is used once, in its first state, and none is left over."""

import contextlib
import errno
import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nbg_lightning.data.question import Question
from nbg_lightning.environments.environment import Environment, EpisodeLimits, ModelTurn, Opening, Reply
from nbg_lightning.environments.worker import EnvironmentFailed, EnvironmentServer

QUESTION = Question(({"role": "user", "content": "Which process?"},))


class Process(Environment):
    """Replies with its process and the number of its turns."""

    limits = EpisodeLimits()
    turns = 0

    def reset(self, question):
        return Opening(question.messages)

    def step(self, turn):
        self.turns += 1
        return Reply(({"role": "tool", "content": f"{os.getpid()} {self.turns}"},))


@pytest.fixture
def server():
    server = EnvironmentServer(Process())
    yield server
    server.close()


def play(episode):
    """Reset, take two turns, close; the process and the number of turns that it counts."""
    episode.reset(QUESTION, 20.0)
    replies = [episode.step(ModelTurn("Well?"), 20.0) for _ in range(2)]
    episode.close()
    process, turns = replies[-1].turns[0]["content"].split()
    return int(process), int(turns)


def children(server):
    """Processes that the server forked."""
    return [int(pid) for pid in open(f"/proc/{server._process.pid}/task/{server._process.pid}/children").read().split()]


def wait_for(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not happen in 30 s"
        time.sleep(0.01)


def test_each_is_used_once_and_fresh(server):
    server.fork_ahead(3)
    wait_for(lambda: len(children(server)) == 3)
    ahead = set(children(server))
    played = [play(server.episode()) for _ in range(5)]
    assert {turns for _, turns in played} == {2}
    assert len({process for process, _ in played}) == 5 and ahead <= {process for process, _ in played}
    server.fork_ahead(3)
    server.fork_ahead(3)
    wait_for(lambda: len(children(server)) == 3)


def test_one_that_was_killed_before_its_episode_is_not_given_out(server):
    server.fork_ahead(3)
    wait_for(lambda: len(children(server)) == 3)
    killed = children(server)
    for process in killed:
        os.kill(process, signal.SIGKILL)
    wait_for(lambda: not children(server))
    assert play(server.episode())[0] not in killed


def test_number_ahead_is_bounded_and_all_end_with_the_server(server):
    server.fork_ahead(1000)
    wait_for(lambda: len(children(server)) == 64)
    ahead = children(server)
    server.close()
    wait_for(lambda: not any(os.path.exists(f"/proc/{process}") for process in ahead))
    server.fork_ahead(2)
    with pytest.raises(EnvironmentFailed, match="is gone"):
        server.episode()


def test_too_many_open_files_are_an_error_of_the_episode(server):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, limits[1]))
    try:
        with pytest.raises(
            EnvironmentFailed, match=r"Too many open files; raise ulimit -n, or set limits\.open_at_once"
        ):
            server.episode()
        server.fork_ahead(3)  # does without
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert play(server.episode())[1] == 2


class Odd(Environment):
    """Does what it is told, to prepare and in each turn."""

    limits = EpisodeLimits()

    def __init__(self, prepare=None, turn=None):
        self.in_prepare, self.in_turn = prepare, turn

    def prepare(self):
        if self.in_prepare is not None:
            self.in_prepare()

    def reset(self, question):
        return Opening(question.messages)

    def step(self, turn):
        said = "" if self.in_turn is None else str(self.in_turn())
        return Reply(({"role": "tool", "content": said},))


def start_child():
    return subprocess.Popen(["sleep", "600"]).pid


def leave():
    sys.exit("no licence")


def stop_soon():
    subprocess.Popen(["sh", "-c", f"sleep 0.1; kill -STOP {os.getpid()}"], start_new_session=True)


def fail_second_fork():
    forks, fork = itertools.count(), os.fork

    def limited():
        if next(forks) == 1:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    os.fork = limited


def state(process):
    """Its letter in /proc; Z if it has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def lives(process):
    return state(process) != "Z"


@pytest.fixture
def opened():
    with contextlib.ExitStack() as stack:

        def server(*does):
            server = EnvironmentServer(Odd(*does))
            stack.callback(server.close)
            return server

        yield server


def begin(server):
    episode = server.episode()
    episode.reset(QUESTION, 20.0)
    return episode


def test_a_turn_that_nobody_reads_takes_no_longer_than_it_may(opened):
    server = opened(None, stop_soon)
    episode = begin(server)
    episode.step(ModelTurn("Well?"), 20.0)
    (process,) = children(server)
    wait_for(lambda: state(process) == "T")
    guard = threading.Timer(20.0, os.kill, (process, signal.SIGKILL))
    guard.start()
    with pytest.raises(EnvironmentFailed, match=r"took more than 0\.5 s"):
        episode.step(ModelTurn("x" * 3_000_000), 0.5)
    guard.cancel()


def test_an_episode_that_is_interrupted_before_its_process_is_there_ends(opened):
    server = opened()
    os.kill(server._process.pid, signal.SIGSTOP)
    episode = server.episode()
    timer = threading.Timer(0.2, episode.interrupt)
    timer.start()
    start = time.monotonic()
    with pytest.raises(EnvironmentFailed, match="its process died"):
        episode.reset(QUESTION, 1.0)
    os.kill(server._process.pid, signal.SIGCONT)
    assert time.monotonic() - start < 20


def test_a_fork_that_fails_is_an_error_of_its_episode_alone(opened, capfd):
    server = opened(fail_second_fork)
    first = begin(server)
    with pytest.raises(EnvironmentFailed, match=r"cannot be forked: Resource temporarily unavailable; raise ulimit -u"):
        begin(server)
    begin(server).close()
    first.step(ModelTurn("Well?"), 20.0)
    assert "Traceback" not in capfd.readouterr().err


def test_what_an_environment_says_as_it_exits_is_told(opened):
    with pytest.raises(ValueError, match="Odd in a process of its own: no licence"):
        opened(leave)
    with pytest.raises(EnvironmentFailed, match=r"Odd\.step failed: no licence"):
        begin(opened(None, leave)).step(ModelTurn("Well?"), 20.0)


def test_children_end_with_the_server(opened):
    server = opened(None, start_child)
    started = int(begin(server).step(ModelTurn("Well?"), 20.0).turns[0]["content"])
    assert all(map(lives, [started, *children(server)]))
    server.close()
    wait_for(lambda: not lives(started))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_children_end_with_a_caller_that_is_killed(number):
    code = (
        "import test_worker as t, time; s = t.EnvironmentServer(t.Odd(None, t.start_child)); s.fork_ahead(3); "
        "e = t.begin(s); said = e.step(t.ModelTurn('Well?'), 20.0).turns[0]['content']; "
        "print(s._process.pid, *t.children(s), said, flush=True); time.sleep(600)"
    )
    paths = os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])
    with subprocess.Popen([sys.executable, "-c", code], stdout=-1, env={**os.environ, "PYTHONPATH": paths}) as caller:
        processes = [int(word) for word in caller.stdout.readline().split()]
        caller.send_signal(number)
    assert len(processes) >= 4
    wait_for(lambda: not any(map(lives, processes)))


def test_forking_ahead_leaves_open_files_to_others(server):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 40, limits[1]))
    try:
        server.fork_ahead(64)
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(open(os.devnull))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
