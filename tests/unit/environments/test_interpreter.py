"""A stateful Python tool: results of cells, their cost, and the same episode in a separate process."""

import copy
import pickle

import pytest

from nbg_lightning.chat.tool_calls import ToolCall
from nbg_lightning.data.question import Question
from nbg_lightning.environments import EpisodeLimits, ModelTurn, PythonEnvironment
from nbg_lightning.environments.driver import EpisodeDriver

ASKED = Question(({"role": "user", "content": "Compute."},), "42", data={"files": {"a.txt": "6 7"}})


def cells(*codes):
    calls = tuple(ToolCall("python", {"code": code}, f"call{n:05d}") for n, code in enumerate(codes))
    return ModelTurn("", None, "", calls)


@pytest.fixture(scope="module")
def environment():
    return pickle.loads(pickle.dumps(PythonEnvironment(timeout=1.0, memory=256)))  # as its process gets it


@pytest.fixture
def episode(environment):
    own = copy.deepcopy(environment)
    own.reset(ASKED)
    yield own
    own.close()


def said(reply):
    return [turn["content"] for turn in reply.turns]


def test_names_stay_from_turn_to_turn_and_files_are_there(episode):
    assert said(episode.step(cells("a, b = map(int, open('a.txt').read().split())"))) == ["(no output)"]
    reply = episode.step(cells("a * b", "a / 0"))
    assert said(reply)[0] == "42\n" and said(reply)[1].endswith("ZeroDivisionError: division by zero\n")
    assert reply.counts == {"calls": 2, "cells": 2, "cell_errors": 1}
    assert episode.step(ModelTurn("42", None, "42")).done


def test_a_cell_that_hangs_is_the_models_affair_and_a_broken_sandbox_is_not(episode, monkeypatch):
    reply = episode.step(cells("x = 1", "while True: pass", "x"))
    assert reply.status == "ok" and "what earlier cells defined is gone" in said(reply)[1]
    assert "NameError" in said(reply)[2]
    assert reply.counts == {"calls": 3, "cells": 3, "cell_timeouts": 1, "lost_sessions": 1, "cell_errors": 1}
    episode.close()
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("subprocess.Popen", _broken)
    reply = episode.step(cells("1"))
    assert reply.status == "error" and "did not start" in reply.detail


def _broken(*_, **__):
    raise OSError("no processes left")


def test_many_hanging_cells_do_not_make_the_reply_late():
    limits = EpisodeLimits(step_seconds=3.0)
    environment = PythonEnvironment(timeout=1.0, limits=limits)
    environment.reset(ASKED)
    reply = environment.step(cells(*["while True: pass"] * 8))
    environment.close()
    assert "have taken all its time" in said(reply)[-1] and reply.counts["cells"] <= 3
    with pytest.raises(ValueError, match=r"give less than limits.step_seconds=3"):
        PythonEnvironment(timeout=3.0, limits=limits)
    with pytest.raises(ValueError, match="not installed"):
        PythonEnvironment(packages=["no_such_package"])


def test_an_episode_in_its_own_process_leaves_nothing(environment):
    with EpisodeDriver(environment) as driver:
        actor = driver.actor()
        assert actor.reset(ASKED, 30.0).tools[0]["function"]["name"] == "python"
        assert said(actor.step(cells("a = 5"), 30.0)) == ["(no output)"]
        assert said(actor.step(cells("a + 1"), 30.0)) == ["6\n"]
        actor.interrupt()  # as where it is late: what the sandbox holds ends with it
        actor.close()
