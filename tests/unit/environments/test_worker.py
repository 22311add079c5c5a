"""Processes forked ahead of their episodes: each is used once, in its first state, and none is left over."""

import os
import resource
import signal
import time

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
