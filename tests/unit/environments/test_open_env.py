"""Episodes on a server of the OpenEnv protocol: its messages as the package's own server writes them (openenv 0.10)."""

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from websockets.sync.server import serve

from nbg_lightning.chat.tool_calls import ToolCall
from nbg_lightning.data.question import Question
from nbg_lightning.data.question_sources import QuestionList
from nbg_lightning.engines.chat import ChatFormat
from nbg_lightning.engines.protocol import Completion, Prompt, Sampling
from nbg_lightning.environments.driver import EpisodeDriver
from nbg_lightning.environments.environment import End, EpisodeLimits
from nbg_lightning.environments.open_env import OpenEnvEnvironment
from nbg_lightning.rewards.math import MathReward
from nbg_lightning.testing import free_port
from nbg_lightning.testing.grpo import small_tokenizer, train_small_grpo

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
LIMITS = EpisodeLimits(max_turns=4, step_seconds=20.0)


def observed(reward=None, done=False, **fields):
    return {"type": "observation", "data": {"observation": {**fields, "metadata": {}}, "reward": reward, "done": done}}


def failed(code, message, **more):
    return {"type": "error", "data": {"message": message, "code": code, **more}}


FAILURES = (  # of a tool, as a server's own tools and those of MCP say it
    lambda reason: {"result": None, "error": {"error_type": "execution_error", "message": reason}},
    lambda reason: {"result": {"content": [{"type": "text", "text": reason}], "is_error": True}, "error": None},
)


class Session:
    """A game of one connection: guess the digit that the reset's seed says, by text or by the tool ``guess``."""

    def __init__(self):
        self.secret = None

    def answer(self, message):
        kind, data = message["type"], message["data"]
        if kind == "reset":
            self.secret = data.get("seed", 0)
            return observed(text="Guess a digit.")
        if data.get("type") == "list_tools":
            tool = {"name": "guess", "description": "Guess.", "input_schema": SCHEMA}
            return observed(tools=[] if self.secret == 99 else [tool])
        if data.get("type") == "call_tool":
            return self.call(data)
        said = data["message"]
        if said == "burn":
            return failed("EXECUTION_ERROR", "the shop burnt down")
        if not said.isdigit():
            return failed("VALIDATION_ERROR", "Invalid message", errors=[{"loc": ["message"], "msg": "not a digit"}])
        right = int(said) == self.secret
        return observed(1.0 if right else 0.25, right, text="yes" if right else "no")

    def call(self, data):
        if data["tool_name"] != "guess":
            error = {"error_type": "tool_not_found", "message": f"no tool {data['tool_name']}"}
            return observed(tool_name=data["tool_name"], result=None, error=error)
        if type(n := data["arguments"].get("n")) is not int:
            reason = f"1 validation error for call[guess]\nn\n  Input should be a valid integer, input_value={n!r}"
            return observed(tool_name="guess", **FAILURES[self.secret % 2](reason))
        right = n == self.secret
        text = {"type": "text", "text": "yes" if right else "no"}
        result = {"content": [text], "is_error": False}
        return observed(1.0 if right else 0.0, right, tool_name="guess", result=result, error=None)


@pytest.fixture(scope="module")
def server():
    closed = []

    def talk(link):
        session = Session()
        for raw in link:
            message = json.loads(raw)
            if message["type"] == "close":
                closed.append(session.secret)
                return
            link.send(json.dumps(session.answer(message)))

    with serve(talk, "127.0.0.1", 0) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.socket.getsockname()[1]}", closed
        listening.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def format(tokenizer):
    return ChatFormat(tokenizer, "nanbeige")


def play(environment, tokenizer, format, seed, turns):
    """The episode of a model that says these turns."""
    said = iter(turns)

    def engine(prompts, sampling, seconds):
        stop = tokenizer.transformers.convert_tokens_to_ids("<|im_end|>")
        drawn = [(*tokenizer.encode(next(said)), stop) for _ in prompts]
        return [[Completion(ids, (-1.0,) * len(ids), "stop", n, 0, 0)] for n, ids in enumerate(drawn)]

    question = Question(({"role": "user", "content": "Play."},), data={"reset": {"seed": seed}})
    with EpisodeDriver(environment, 8000) as driver:
        ((episode,),) = driver.play([question], [Prompt((1,), 1)], format, Sampling(400), engine, 60.0)
    return episode


def calls(name, **arguments):
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


@pytest.mark.parametrize(("score", "expected"), [("last", 1.0), ("sum", 1.5)])
def test_a_model_that_acts_by_text_gets_the_servers_rewards(server, tokenizer, format, score, expected):
    url, closed = server
    environment = OpenEnvEnvironment(url, field="message", score=score, limits=LIMITS)
    episode = play(environment, tokenizer, format, 7, ["3", "5", "7"])
    assert (episode.end, episode.score, episode.turn_scores[:2]) == (End.ANSWERED, expected, (0.25, 0.25))
    assert [m["content"] for m in episode.messages] == ["Play.\n\nGuess a digit.", "3", "no", "5", "no", "7"]
    assert closed[-1] == 7


def test_a_model_that_acts_by_calls_gets_the_servers_tools(server, tokenizer, format):
    turns = [calls("gess", n=1), calls("guess", n=1), calls("guess", n=4)]
    episode = play(OpenEnvEnvironment(server[0], limits=LIMITS), tokenizer, format, 4, turns)
    assert [tool["function"]["parameters"] for tool in episode.tools] == [SCHEMA]
    assert (episode.end, episode.score, episode.turn_scores) == (End.DONE, 1.0, (None, 0.0, 1.0))
    assert (episode.counts["calls"], episode.counts["unknown_tools"]) == (3, 1)
    given_up = play(OpenEnvEnvironment(server[0], limits=LIMITS), tokenizer, format, 4, ["I do not know."])
    assert (given_up.end, given_up.score) == (End.ANSWERED, None)  # no reward: the run's reward scores it


@pytest.mark.parametrize("seed", [4, 5])
def test_an_argument_of_the_wrong_type_is_the_models_fault(server, tokenizer, format, seed):
    """Servers run a tool with whatever they get and report a failure of the tool: the schema tells the two apart."""
    turns = [calls("guess", n="four"), calls("guess"), calls("guess", n=seed)]
    episode = play(OpenEnvEnvironment(server[0], limits=LIMITS), tokenizer, format, seed, turns)
    assert (episode.score, episode.counts["invalid_arguments"], episode.counts.get("raised", 0)) == (1.0, 2, 0)
    assert "Input should be a valid integer" in episode.messages[2]["content"]


def test_a_call_that_fails_with_allowed_arguments_has_raised():
    environment = OpenEnvEnvironment("http://127.0.0.1:1")
    for schema in (
        SCHEMA,
        None,
        {"properties": []},
        {"properties": {"n": 7}},
        {"properties": {"n": {"type": ["odd"]}}},
    ):
        environment._parameters = {"guess": schema}
        assert not environment._breaks_schema(ToolCall("guess", {"n": 4}, "call00000")), schema


@pytest.mark.parametrize(
    ("settings", "seed", "turns", "end", "detail"),
    [
        ({"field": "message"}, 1, ["burn"], End.ERROR, "EXECUTION_ERROR: the shop burnt down"),
        ({}, 99, [], End.ERROR, "the server has no MCP tools"),
        ({"field": "message", "observation": "pixels"}, 1, [], End.ERROR, "there are text"),
    ],
)
def test_a_server_that_fails_ends_the_episode_without_a_score(
    server, tokenizer, format, settings, seed, turns, end, detail
):
    episode = play(OpenEnvEnvironment(server[0], limits=LIMITS, **settings), tokenizer, format, seed, turns)
    assert episode.end is end and detail in episode.detail and episode.verdict.score is None


def test_an_action_that_the_server_refuses_is_told_to_the_model(server, tokenizer, format):
    episode = play(OpenEnvEnvironment(server[0], field="message", limits=LIMITS), tokenizer, format, 7, ["seven", "7"])
    assert episode.messages[2]["content"] == "error: VALIDATION_ERROR: Invalid message (message: not a digit)"
    assert (episode.score, episode.counts["invalid_arguments"]) == (1.0, 1)


def test_no_server_and_no_url(tokenizer, format):
    episode = play(OpenEnvEnvironment("http://127.0.0.1:1", field="message"), tokenizer, format, 7, [])
    assert episode.end is End.ERROR and "reset failed" in episode.detail
    with pytest.raises(ValueError, match="url is invalid: 'localhost:8000'; give http"):
        OpenEnvEnvironment("localhost:8000")


REAL = os.environ.get("NBG_OPENENV_PYTHON", sys.executable if find_spec("openenv") else "")


@pytest.fixture(scope="module", params=["tools", "text"])
def real(request):
    """The kind of a server of the package, and its URL; it has three places."""
    port = free_port()
    shop = Path(__file__).with_name("openenv_shop.py")
    with subprocess.Popen([REAL, str(shop), request.param, str(port), "3"]) as process:
        end = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < end
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.2)
        yield request.param, f"http://127.0.0.1:{port}"
        process.terminate()


@pytest.mark.slow
@pytest.mark.skipif(
    not REAL, reason="openenv is not installed, nor does NBG_OPENENV_PYTHON name an interpreter with it"
)
def test_the_package_itself(real, tokenizer, format):
    kind, url = real
    environment = OpenEnvEnvironment(url, "message" if kind == "text" else None, limits=LIMITS)
    if kind == "text":
        secret = str(random.Random(7).randrange(10))
        episode = play(environment, tokenizer, format, 7, ["x", secret])
        assert (episode.end, episode.score, episode.turn_scores) == (End.ANSWERED, 1.0, (0.25, 1.0))
        burnt = play(environment, tokenizer, format, 7, ["burn"])
        assert burnt.end is End.ERROR and "the shop burnt down" in burnt.detail
        return
    cost = random.Random(7).randrange(2, 10)
    turns = [
        calls("price", item="pen") + calls("gift"),
        calls("times", a="x", b=2),
        calls("price", item="soul"),
        "Well.",
    ]
    episode = play(environment, tokenizer, format, 7, turns)
    results = [message["content"] for message in episode.messages if message["role"] == "tool"]
    assert results[0] == str(cost) and "not for sale" in results[3]
    wrong = {name: episode.counts[name] for name in ("unknown_tools", "invalid_arguments", "raised")}
    assert (episode.end, wrong) == (End.ANSWERED, {"unknown_tools": 1, "invalid_arguments": 1, "raised": 1})
    assert [tool["function"]["name"] for tool in episode.tools] == ["price", "times"]


@pytest.mark.slow
@pytest.mark.skipif(
    not REAL, reason="openenv is not installed, nor does NBG_OPENENV_PYTHON name an interpreter with it"
)
def test_two_steps_of_grpo_on_the_package_itself(real, tmp_path):
    """Of twelve episodes a step no more are open than the server has places for; random weights end a turn now and then."""
    kind, url = real
    limits = EpisodeLimits(max_turns=2, step_seconds=20.0, open_at_once=3)
    environment = OpenEnvEnvironment(url, "message" if kind == "text" else None, show_tools=False, limits=limits)
    rows = [{"question": f"{number} ?", "answer": "7", "data": {"reset": {"seed": number}}} for number in range(8)]
    run = train_small_grpo(
        tmp_path / "run",
        tokenizer=small_tokenizer(tmp_path),
        steps=2,
        reward=MathReward(),
        module_options={"environment": environment, "group_size": 3, "max_new_tokens": 64},
        data_options={"sources": {"numbers": QuestionList(rows)}},
    )
    episodes = [answer for step in run.rollouts for rollout in step for answer in rollout.answers]
    assert len(episodes) == 24 and not any(episode.end in (End.ERROR, End.TIMEOUT) for episode in episodes)
    assert any(episode.end is not End.MAX_TOKENS or episode.num_turns > 1 for episode in episodes)
