"""Environments of verifiers: the protocol with a stand-in, and the package itself if it is installed."""

import datetime
import os
import sys
import textwrap
import time
from pathlib import Path

import pytest

from nbg_lightning.chat.tool_calls import ToolCall
from nbg_lightning.environments import (
    EpisodeLimits,
    ModelTurn,
    VerifiersEnvironment,
    VerifiersQuestions,
    verifiers_child,
)
from nbg_lightning.environments.worker import EnvironmentFailed, EnvironmentServer

REAL = os.environ.get("NBG_VERIFIERS_PYTHON", "")
STAND_IN = """
    import asyncio, json, os, subprocess, time, urllib.request

    def load_environment(name, kind="single"):
        if name != "sums":
            raise ValueError(f"no environment {name}")
        return Sums(kind)

    class Sums:
        def __init__(self, kind):
            self.kind = kind

        def get_dataset(self):
            if self.kind == "loops":
                loop = {"prompt": "1 * 7?"}
                loop["self"] = loop
                return [loop]
            return [{"prompt": [{"role": "user", "content": f"{n} * 7?"}], "answer": str(7 * n)} for n in range(3)]

        async def run_rollout(self, row, client, model, sampling):
            print("what an environment prints is no message")
            messages = list(row["prompt"])
            for number in range(1 if self.kind == "single" else 3):
                if number and self.kind == "dies":
                    os._exit(3)
                if number and self.kind == "hangs":
                    open(os.environ["MARK"], "w").write(str(os.getpid()))
                    time.sleep(1000)
                if number and self.kind == "starts":
                    child = subprocess.Popen(["sleep", "1000"])
                    open(os.environ["MARK"], "w").write(str(child.pid))
                if number and self.kind == "raises":
                    raise RuntimeError("no such thing")
                if number and self.kind == "rewrites":
                    messages[0] = {"role": "user", "content": "another"}
                said = await client.turn(messages, [{"type": "function", "function": {"name": "times"}}])
                messages.append(said)
                if not said.get("tool_calls"):
                    break
                for call in said["tool_calls"]:
                    product = json.loads(call["function"]["arguments"])
                    result = str(product["first"] * product["second"])
                    messages.append({"role": "tool", "content": result, "tool_call_id": call["id"]})
            return {"reward": float(row["answer"] in said["content"]), "metrics": {"turns": 1.0}}
"""
CLIENT = """
    import asyncio, json, urllib.request

    class AsyncOpenAI:
        def __init__(self, base_url, api_key, **_):
            self.base_url, self.api_key = base_url, api_key

        async def turn(self, messages, tools):
            return await asyncio.to_thread(self._turn, {"model": "m", "messages": messages, "tools": tools})

        def _turn(self, body):
            headers = {"Authorization": f"Bearer {self.api_key}", "Content-Type": "application/json"}
            url = f"{self.base_url}/chat/completions"
            request = urllib.request.Request(url, json.dumps(body).encode(), headers)
            with urllib.request.urlopen(request) as reply:
                return json.load(reply)["choices"][0]["message"]
"""


@pytest.fixture
def python(tmp_path, monkeypatch):
    """An interpreter with a stand-in of verifiers and of its client."""
    (tmp_path / "verifiers").mkdir()
    (tmp_path / "verifiers" / "__init__.py").write_text(textwrap.dedent(STAND_IN))
    (tmp_path / "verifiers" / "clients.py").write_text("def OpenAIChatCompletionsClient(client):\n    return client\n")
    (tmp_path / "openai.py").write_text(textwrap.dedent(CLIENT))
    code = "import runpy, sys; program = sys.argv[1]; del sys.argv[0]; runpy.run_path(program, run_name='__main__')"
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nshift\nexport PYTHONPATH="{tmp_path}"\nexec "{sys.executable}" -c "{code}" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    return str(script)


def played(environment, question, turns, seconds=30.0):
    """An episode's opening and replies."""
    server = EnvironmentServer(environment)
    try:
        episode = server.episode()
        try:
            return [episode.reset(question, seconds), *(episode.step(turn, seconds) for turn in turns)]
        finally:
            episode.close()
    finally:
        server.close()


def question_of(python, name="sums", **options):
    return list(VerifiersQuestions(environment=name, python=python, **options).questions())[1]


CALL = ModelTurn("", None, "", (ToolCall("times", {"first": 1, "second": 7}),))


def test_one_turn_and_turns_with_tools_have_the_environments_score(python):
    question = question_of(python, count=2)
    assert question.messages == ({"role": "user", "content": "1 * 7?"},) and question.answer == "7"
    for text, score in (("it is 7", 1.0), ("it is 8", 0.0)):
        opening, reply = played(VerifiersEnvironment("sums", python), question, [ModelTurn(text, None, text)])
        assert opening.turns == question.messages and [tool["function"]["name"] for tool in opening.tools] == ["times"]
        assert reply.done and reply.score == score
    tools = VerifiersEnvironment("sums", python, {"kind": "tools"})
    _, called, reply = played(tools, question, [CALL, ModelTurn("7", None, "7")])
    [result] = called.turns
    assert result["role"] == "tool" and result["content"] == "7" and not called.done and called.counts == {"calls": 1}
    assert reply.done and reply.score == 1.0


@pytest.mark.parametrize(
    ("kind", "message"),
    [("dies", "process of the environment sums died"), ("raises", "no such thing"), ("rewrites", "rewrites")],
)
def test_failures_of_the_environment_have_no_score(python, kind, message):
    with pytest.raises(EnvironmentFailed, match=message):
        played(VerifiersEnvironment("sums", python, {"kind": kind}), question_of(python), [CALL])


def gone(pid):
    end = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.02)
    return not Path(f"/proc/{pid}").exists()


def test_what_an_episode_starts_ends_with_it(python, tmp_path):
    environment = VerifiersEnvironment("sums", python, {"kind": "starts"})
    question, mark = question_of(python), tmp_path / "mark"
    server = EnvironmentServer(environment)
    for closed in (True, False):  # the episode, or the whole server
        mark.unlink(missing_ok=True)
        episode = server.episode()
        episode.reset(question, 30.0)
        episode.step(CALL, 30.0)
        (episode if closed else server).close()
        assert gone(int(mark.read_text()))


def test_a_program_that_ended_is_named(python, tmp_path):
    environment = VerifiersEnvironment("sums", python)
    environment.prepare()
    environment._program.kill()
    environment._program.wait()
    with pytest.raises(RuntimeError, match="the process of the environment sums has ended"):
        environment.reset(question_of(python))


def test_an_environment_that_hangs_is_killed(python, tmp_path):
    environment = VerifiersEnvironment("sums", python, {"kind": "hangs"})
    question = question_of(python)
    server = EnvironmentServer(environment)
    try:
        episode = server.episode()
        episode.reset(question, 30.0)
        with pytest.raises(EnvironmentFailed, match="took more than 1 s"):
            episode.step(CALL, 1.0)
        pid = int((tmp_path / "mark").read_text())
        assert gone(pid)
        other = server.episode()  # the next one is served
        assert other.reset(question, 30.0).turns == question.messages
        other.close()
    finally:
        server.close()


def test_what_cannot_be_loaded_is_one_line(python):
    with pytest.raises(ValueError, match="no such program; give the interpreter of a virtual environment"):
        VerifiersEnvironment("sums", "/nothing/here/python")
    with pytest.raises(ValueError, match=r"limits\.isolated is invalid: False"):
        VerifiersEnvironment("sums", python, limits=EpisodeLimits(isolated=False))
    with pytest.raises(ValueError, match="count is invalid: 0; give at least 1"):
        VerifiersQuestions(environment="sums", python=python, count=0)
    for wrong in ({"since": datetime.date(2024, 1, 1)}, {"rate": float("nan")}):
        for kind in (VerifiersEnvironment, VerifiersQuestions):
            with pytest.raises(ValueError, match=r"arguments is invalid: .*(2024|nan)"):
                kind("sums", python, wrong)
    with pytest.raises(ValueError, match=r"environment is invalid: 'sums' by .*Circular reference"):
        question_of(python, arguments={"kind": "loops"})
    with pytest.raises(ValueError, match=r"environment is invalid: 'other' by .*no environment other"):
        question_of(python, "other")
    with pytest.raises(ValueError, match=r"environment is invalid: .*No module named 'verifiers'"):
        EnvironmentServer(VerifiersEnvironment("sums", sys.executable))


REAL_ENVIRONMENT = '''
import verifiers as vf
from datasets import Dataset


def times(first: int, second: int) -> int:
    """Multiply two numbers."""
    return first * second


def load_environment(kind="single"):
    data = Dataset.from_list([{"question": f"{n} * 7?", "answer": str(7 * n)} for n in range(3)])
    rubric = vf.Rubric(funcs=[lambda completion, answer, **_: float(answer in completion[-1]["content"])])
    if kind == "single":
        return vf.SingleTurnEnv(dataset=data, rubric=rubric)
    return vf.ToolEnv(dataset=data, rubric=rubric, tools=[times], max_turns=4)
'''


@pytest.mark.slow
@pytest.mark.skipif(
    not REAL, reason="NBG_VERIFIERS_PYTHON names no interpreter that has verifiers (docs/environments.md)"
)
def test_the_package_itself(tmp_path):
    file = tmp_path / "products.py"
    file.write_text(REAL_ENVIRONMENT)
    question = question_of(REAL, str(file))
    _, reply = played(VerifiersEnvironment(str(file), REAL), question, [ModelTurn("7", None, "7")])
    assert reply.done and reply.score == 1.0
    tools = VerifiersEnvironment(str(file), REAL, {"kind": "tools"})
    opening, called, reply = played(tools, question, [CALL, ModelTurn("8", None, "8")])
    assert [tool["function"]["name"] for tool in opening.tools] == ["times"]
    assert [turn["content"] for turn in called.turns] == ["7"]
    assert reply.done and reply.score == 0.0


def test_the_program_needs_nothing_of_this_library():
    assert "nbg_lightning" not in Path(verifiers_child.__file__).read_text()
