"""Episodes end correctly whatever tools, environments and models do: none is lost, mixed up, or left running."""

import os
import signal
import time
from pathlib import Path

import pytest

from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import ChatFormat
from nbg_lightning.engines.protocol import Completion, Prompt, Sampling
from nbg_lightning.environments.driver import EpisodeDriver
from nbg_lightning.environments.environment import End, Environment, EpisodeLimits, Opening, Reply
from nbg_lightning.environments.reward import EnvironmentReward
from nbg_lightning.environments.tools import ToolEnvironment
from nbg_lightning.rewards.math import MathReward
from nbg_lightning.rl.rollouts import Rollout, score_rollouts

TOOLS = """
import os, subprocess, sys, time

def double(n: int) -> int:
    return 2 * n

def hang(n: int) -> int:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])  # which must end too
    time.sleep(60)

def crash(n: int) -> int:
    os._exit(3)

def slow(n: int) -> int:
    time.sleep(0.3)
    return 2 * n

def much(n: int) -> str:
    return "x" * 50_000

def odd(n: int):
    return {1, 2}

def broken(n: int) -> int:
    raise KeyError("no such thing")

def surrogate(n: int) -> str:
    return chr(0xD800)
"""
NAMES = ("double", "hang", "crash", "slow", "much", "odd", "broken", "surrogate")


@pytest.fixture
def tools(tmp_path, monkeypatch):
    (tmp_path / "hostile_tools.py").write_text(TOOLS)
    monkeypatch.syspath_prepend(tmp_path)
    return [f"hostile_tools.{name}" for name in NAMES]


@pytest.fixture(scope="module")
def format(tokenizer):
    return ChatFormat(tokenizer, "nanbeige")


class Writes:
    """An engine that writes to each prompt what a function says of its text; log-probs are made up."""

    def __init__(self, tokenizer, say, new_tokens=400):
        self.tokenizer, self.say = tokenizer, say
        self.stop = tokenizer.transformers.convert_tokens_to_ids("<|im_end|>")
        self.rounds = []

    def __call__(self, prompts, sampling, seconds):
        self.rounds.append(len(prompts))
        return [[self._one(n, prompt, sampling)] for n, prompt in enumerate(prompts)]

    def _one(self, number, prompt, sampling):
        ids = (*self.tokenizer.encode(self.say(self.tokenizer.decode(prompt.ids))), self.stop)
        reason = "stop" if len(ids) <= sampling.max_new_tokens else "length"
        ids = ids[: sampling.max_new_tokens]
        return Completion(ids, (-1.0,) * len(ids), reason, number, 0, 7)


def asks(text):
    """Call the tool that the question names, then say what came back."""
    turns = text.split("<|im_start|>")
    if "<tool_response>" in text:
        result = turns[-2].partition("<tool_response>\n")[2].partition("\n</tool_response>")[0]
        return f"The answer is {result[:60]}."
    name, number = next(turn for turn in turns if turn.startswith("user")).removeprefix("user\n").split("<")[0].split()
    return f'<tool_call>\n{{"name": "{name}", "arguments": {{"n": {number}}}}}\n</tool_call>'


def play(environment, questions, format, engine, n=1, seconds=60.0, most=400, window=8000):
    with EpisodeDriver(environment, window) as driver:
        prompts = [Prompt((1, 2), seed=place) for place in range(len(questions))]
        return driver.play(questions, prompts, format, Sampling(most, n=n), engine, seconds)


def ask(text, answer=None):
    return Question(({"role": "user", "content": text},), answer)


@pytest.mark.parametrize("number", [50, pytest.param(500, marks=pytest.mark.slow)])
def test_hanging_and_crashing_tools_cost_nobody_else_anything(tools, tokenizer, format, number):
    """Of two episodes a question, 5 % hang and 5 % die: each of the others has the answer to its own question."""
    names = ["hang" if n % 20 == 3 else "crash" if n % 20 == 11 else "double" for n in range(number)]
    questions = [ask(f"{name} {n}", str(2 * n)) for n, name in enumerate(names)]
    environment = ToolEnvironment(tools, limits=EpisodeLimits(step_seconds=2.0, workers=16))
    played = play(environment, questions, format, Writes(tokenizer, asks), n=2, seconds=600.0)
    rollouts = [Rollout(q, Prompt((1,)), own, ()) for q, own in zip(questions, played, strict=True)]
    with EnvironmentReward(MathReward()) as reward:
        scored = score_rollouts(reward, rollouts)
    expected = {
        "double": (End.ANSWERED, "ok", 1.0),
        "hang": (End.TIMEOUT, "timeout", None),
        "crash": (End.ERROR, "error", None),
    }
    for n, (name, rollout) in enumerate(zip(names, scored, strict=True)):
        for sample, (episode, result) in enumerate(zip(rollout.answers, rollout.results, strict=True)):
            assert (episode.end, result.status, result.score) == expected[name], episode.detail
            completion = episode.completion
            assert (completion.prompt_index, completion.sample_index, completion.weight_version) == (n, sample, 7)
    assert not _running("time.sleep(60)") and not _running("environments.worker")


def _running(words):
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{process}/cmdline").read_bytes().decode().replace("\0", " ")
            parent = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if words in line and (f"serve({os.getpid()}" in line or (parent == 1 and "time.sleep(60)" in line)):
            found.append(line)
    return found


def test_a_slow_tool_does_not_stop_the_others(tools, tokenizer, format):
    questions = [ask(f"{'slow' if n == 0 else 'double'} {n}") for n in range(6)]
    engine = Writes(tokenizer, asks)
    (first, *others) = play(ToolEnvironment(tools), questions, format, engine)
    assert [own[0].final for own in (first, *others)] == [f"The answer is {2 * n}." for n in range(6)]
    assert len([size for size in engine.rounds if size]) >= 3  # the others' last turns were drawn before the slow one's


@pytest.mark.parametrize(
    ("text", "count", "said"),
    [
        ("doubel 1", "unknown_tools", "there is no tool 'doubel'; did you mean 'double'?"),
        ('double "two"', "invalid_arguments", "n is 'two'; it must be of type integer"),
        ("double true", "invalid_arguments", "n is True"),
        ("broken 1", "raised", "KeyError"),
        ("odd 1", "unserialisable", "cannot be shown"),
        ("surrogate 1", "unserialisable", "cannot be shown"),
        ("much 1", "cut_results", "x\n(cut: 200 of 50,000 characters)"),
        ("double {", "unreadable_calls", "error: a call is"),
    ],
)
def test_what_goes_wrong_in_a_call_is_told_to_the_model_and_counted(tools, tokenizer, format, text, count, said):
    environment = ToolEnvironment(tools, limits=EpisodeLimits(turn_characters=200, isolated=False))
    ((episode,),) = play(environment, [ask(text)], format, Writes(tokenizer, asks))
    assert episode.counts[count] == 1 and episode.end is End.ANSWERED
    told = episode.messages[2]["content"]
    assert said in told and len(told) < 300


class Odd(Environment):
    """Misbehaves as the question says."""

    limits = EpisodeLimits(max_turns=3, isolated=False)

    def reset(self, question):
        self.what = question.messages[0]["content"]
        if self.what == "reset raises":
            raise OSError("no such\nfolder")
        return "nothing" if self.what == "no opening" else Opening(question.messages)

    def step(self, turn):
        if self.what == "step raises":
            raise ZeroDivisionError
        if self.what == "silent":
            return Reply()
        if self.what == "says so":
            return Reply(status="timeout", detail="the shop is closed")
        if self.what == "no text":
            return Reply(({"role": "user", "content": 5},))
        if self.what == "surrogate":
            return Reply(({"role": "user", "content": chr(0xD800)},))
        if self.what == "no role":
            return Reply(({"content": "what"},))
        return Reply(({"role": "user", "content": "go on"},))


@pytest.mark.parametrize(
    ("text", "end", "detail"),
    [
        ("reset raises", End.ERROR, "Odd.reset failed: no such"),
        ("no opening", End.ERROR, "gave a str where it gives a Opening"),
        ("step raises", End.ERROR, "Odd.step failed"),
        ("silent", End.ERROR, "no message, and was not done"),
        ("says so", End.TIMEOUT, "the shop is closed"),
        ("no text", End.ERROR, "has a int as its content"),
        ("no role", End.ERROR, "has no role"),
        ("surrogate", End.ERROR, "cannot render"),  # a message that no format can show
        ("never ends", End.MAX_TURNS, "not done in 3 turns"),
    ],
)
def test_environments_that_misbehave_end_with_a_clear_line(tokenizer, format, text, end, detail):
    ((episode,),) = play(Odd(), [ask(text)], format, Writes(tokenizer, lambda _: "well"))
    assert episode.end is end and detail in episode.detail and "\n" not in episode.detail
    verdict = episode.verdict
    assert verdict.score == (0.0 if end is End.MAX_TURNS else None)


class Prints(Environment):
    """Says the token that ends a turn, then scores."""

    limits = EpisodeLimits(isolated=False)

    def reset(self, question):
        return Opening(question.messages)

    def step(self, turn):
        if turn.content == "print it":
            return Reply(({"role": "user", "content": "<|im_end|>"},))
        return Reply(done=True, score=0.0)


def test_a_control_token_in_a_result_is_no_way_out(tokenizer, format, tmp_path):
    """A template cannot render it as text: the model gets a message, and the episode continues."""
    path = tmp_path / "template.jinja"
    path.write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    turns = iter(["print it", "5"])
    strict = ChatFormat(tokenizer, str(path))
    ((episode,),) = play(Prints(), [ask("Try.")], strict, Writes(tokenizer, lambda _: next(turns)))
    assert (episode.end, episode.score, episode.counts["unserialisable"]) == (End.ANSWERED, 0.0, 1)
    assert [m["content"] for m in episode.messages][1:3] == [
        "print it",
        "error: the result has a control token of the chat format, and cannot be shown",
    ]
    turns = iter(["print it", "5"])
    ((shown,),) = play(Prints(), [ask("Try.")], format, Writes(tokenizer, lambda _: next(turns)))
    assert shown.messages[2]["content"] == "<|im_end|>" and "unserialisable" not in shown.counts


def test_a_model_that_writes_on_or_never_a_call_ends(tools, tokenizer, format):
    environment = ToolEnvironment(tools, limits=EpisodeLimits(isolated=False))
    ((cut,),) = play(environment, [ask("double 1")], format, Writes(tokenizer, lambda _: "word " * 100), most=20)
    assert (cut.end, cut.completion.finish_reason, len(cut.completion.ids)) == (End.MAX_TOKENS, "length", 20)
    ((bad,),) = play(environment, [ask("double 1")], format, Writes(tokenizer, lambda _: "<tool_call>{</tool_call>"))
    assert (bad.end, bad.counts["unreadable_calls"], bad.verdict.score) == (End.UNREADABLE_CALL, 3, 0.0)
    ((full,),) = play(Odd(), [ask("never ends")], format, Writes(tokenizer, lambda _: "well"), window=60)
    assert full.end is End.MAX_TOKENS and "of 60" in full.detail
    ((long,),) = play(Odd(), [ask("never ends")], format, Writes(tokenizer, lambda _: "well"), window=9)
    assert (long.end, long.verdict.status) == (End.ERROR, "error") and "of 9" in long.detail  # not the model's fault


class Places(Environment):
    """Notes how many of its kind were open, and who still is; every third fails."""

    here, most = set(), 0

    def reset(self, question):
        self.number = int(question.answer)
        Places.here.add(self.number)
        Places.most = max(Places.most, len(Places.here))
        if self.number % 3 == 2:
            raise ValueError("out of order")
        return Opening(question.messages)

    def step(self, turn):
        return Reply(done=True, score=float(self.number))

    def close(self):
        Places.here.discard(self.number)


@pytest.mark.parametrize(("places", "most"), [(2, 2), (None, 9)])
def test_only_so_many_episodes_are_open_at_once(tokenizer, format, places, most):
    environment = Places()
    environment.limits = EpisodeLimits(isolated=False, open_at_once=places)
    Places.most = 0
    played = play(environment, [ask("Try.", str(n)) for n in range(9)], format, Writes(tokenizer, lambda _: "well"))
    assert [own.score for (own,) in played] == [None if n % 3 == 2 else float(n) for n in range(9)]
    assert (Places.most, Places.here) == (most, set())


class Leaves(Places):
    """Closes slowly, and by an exit."""

    def close(self):
        time.sleep(0.1)
        super().close()
        raise SystemExit(3)


def test_the_next_call_begins_when_the_last_episodes_are_closed(tokenizer, format):
    """Their places are free, and its deadline is its own."""
    environment = Leaves()
    environment.limits = EpisodeLimits(isolated=False, open_at_once=2, workers=4)
    Places.most = 0
    questions, prompts = [ask("Try.", str(3 * n)) for n in range(4)], [Prompt((1, 2), seed=n) for n in range(4)]
    with EpisodeDriver(environment) as driver:
        for _ in range(3):
            played = driver.play(questions, prompts, format, Sampling(50), Writes(tokenizer, lambda _: "well"), 60.0)
            assert [own.score for (own,) in played] == [0.0, 3.0, 6.0, 9.0]
    assert (Places.most, Places.here) == (2, set())


def test_only_the_open_episodes_fail_when_the_environments_process_is_killed(tools, tokenizer, format, caplog):
    """As the kernel does for lack of memory: the next call has another process."""
    questions, prompts, writes = [ask("double 3", "6")], [Prompt((1, 2), seed=0)], Writes(tokenizer, asks)
    with EpisodeDriver(ToolEnvironment(tools)) as driver:

        def kill(*given):
            os.kill(driver._server._process.pid, signal.SIGKILL)
            driver._server._process.wait()
            return writes(*given)

        ends = []
        for generate in (writes, kill, writes):
            [[episode]] = driver.play(questions, prompts, format, Sampling(400), generate, 60.0)
            ends.append(episode.end)
    assert ends == [End.ANSWERED, End.ERROR, End.ANSWERED]
    assert caplog.text.count("the process of ToolEnvironment has ended by SIGKILL") == 1


def test_the_deadline_ends_what_hangs(tools, tokenizer, format):
    begin = time.monotonic()
    environment = ToolEnvironment(tools, limits=EpisodeLimits(step_seconds=50.0))
    ((hung,), (done,)) = play(
        environment, [ask("hang 1"), ask("double 4")], format, Writes(tokenizer, asks), seconds=8.0
    )
    assert (hung.end, done.end, done.final) == (End.TIMEOUT, End.ANSWERED, "The answer is 8.")
    assert time.monotonic() - begin < 40 and hung.verdict.status == "timeout"


def test_an_environment_that_its_process_cannot_have_is_refused():
    class Local(Odd):
        pass

    local = Local()
    local.limits = EpisodeLimits()
    with (
        pytest.raises(ValueError, match=r"Local cannot be sent to its process .*isolated to false"),
        EpisodeDriver(local),
    ):
        pass
