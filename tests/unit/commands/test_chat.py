"""Chatting with a model: the stream equals the generated text, and all kinds of user input."""

import dataclasses
import io
import json
import os
import pty
import select
import subprocess
import sys
import threading
import time
from itertools import pairwise

import pytest
import torch
from rich.console import Console

from nbg_lightning.commands import chat as chat_command
from nbg_lightning.commands import generate as generate_command
from nbg_lightning.commands.chat import Chat
from nbg_lightning.commands.chat_session import Session
from nbg_lightning.commands.chat_view import AnswerText
from nbg_lightning.commands.speaker import SpeakerOptions, open_speaker
from nbg_lightning.core import create_model, preset
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.data.tokenizer import Tokenizer, train_bpe
from nbg_lightning.engines import Sampling
from nbg_lightning.evaluation.benchmark import Item
from nbg_lightning.evaluation.prompts import Prompts
from nbg_lightning.evaluation.tasks.questions import Questions
from nbg_lightning.stopping import REPEAT_SECONDS
from nbg_lightning.testing import launchable_environment

SAMPLING = Sampling(max_new_tokens=12, temperature=0.9, n=2, seed=3)
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "the quick fox?"}]
CLOCK = {"name": "clock", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Hugging Face folder of a small model with a chat template, which says many different things."""
    root = tmp_path_factory.mktemp("talk")
    train_bpe(["the quick brown fox jumps over the lazy dog, née Zoë 🙂 " * 3] * 20, 312, root / "tokenizer")
    model = create_model(preset("nano", vocab_size=312, max_position_embeddings=256), seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
    save_hugging_face(model, root / "model", Tokenizer(root / "tokenizer"), dtype="float32", verify=False)
    return str(root / "model")


@pytest.fixture(scope="module")
def speaker(folder):
    with open_speaker(folder, SpeakerOptions(device="cpu")) as opened:
        yield opened


@pytest.fixture(scope="module")
def continuer(folder):
    with open_speaker(folder, SpeakerOptions(device="cpu", template="text")) as opened:
        yield opened


def talk(sessions, lines, **options):
    """What a chat prints for these lines."""
    out = io.StringIO()
    waiting = iter(lines)

    def read(_prompt):
        try:
            return next(waiting)
        except StopIteration:
            raise EOFError from None

    console = Console(file=out, width=200, highlight=False)
    assert Chat(console, sessions, read=read, **options).run() == 0
    return out.getvalue()


def test_what_is_streamed_is_what_is_generated(speaker):
    prompt = speaker.prompt(MESSAGES)
    heard = {0: "", 1: ""}
    log_probs = {0: [], 1: []}

    def hear(sample, text, log_prob):
        heard[sample] += text
        log_probs[sample].append(log_prob)

    [streamed] = speaker.speak([prompt], SAMPLING, hear)
    [whole] = speaker.engine.generate([prompt], speaker.with_stops(SAMPLING))
    assert streamed == whole
    assert len({completion.ids for completion in whole}) == 2
    for completion in whole:
        assert speaker.read(completion).text.startswith(heard[completion.sample_index])
        assert log_probs[completion.sample_index] == list(completion.log_probs)


def test_prompts_are_those_of_a_suite(folder, speaker, continuer):
    class Asks(Questions):
        def conversation(self, item, shots):
            return [dict(message) for message in MESSAGES], None

    benchmark = Asks(name="asks", path="unread.jsonl")
    item = Item("1", MESSAGES[-1]["content"], "")
    tokenizer = Tokenizer(folder)
    assert speaker.prompt(MESSAGES).ids == Prompts(tokenizer, "tokenizer").generation(benchmark, item, ()).ids
    text = Prompts(tokenizer, "text")
    said = benchmark.text(item)
    assert continuer.prompt([{"role": "user", "content": said}]).ids == text.generation(benchmark, item, ()).ids
    assert continuer.with_stops(SAMPLING).stop_ids == text.stop_ids


def test_a_conversation_keeps_its_turns(speaker, tmp_path):
    session = Session(speaker, SAMPLING)
    out = talk(
        [session], ["/system Be kind.", "the fox \\", "jumps", "/pick 2", "and then?", f"/save {tmp_path}/c.jsonl"]
    )
    [saved] = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    assert [message["role"] for message in saved["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    assert saved["messages"][1]["content"] == "the fox \njumps"
    first = speaker.prompt(saved["messages"][:2])
    second = speaker.engine.generate([first], speaker.with_stops(SAMPLING))[0][1]
    assert saved["messages"][2]["content"] == speaker.read(second).final
    assert "the conversation goes on with sample 2" in out
    talk([session], ["/reset"])
    assert session.messages == []


def test_mistakes_are_told_and_the_chat_goes_on(speaker):
    session = Session(speaker, Sampling(max_new_tokens=2))
    out = talk(
        [session], ["/sytem", "/pick x", "/save", "fox " * 300, "/save /nowhere/x", "", "   ", "/quit", "not read"]
    )
    for part in ("no command /sytem", "/pick is invalid", "/save is invalid", "the prompt is too long", "No such file"):
        assert out.count(part) == 1
    assert session.messages == []


def test_models_and_samples_stand_side_by_side(speaker, continuer):
    out = talk([Session(speaker, SAMPLING), Session(continuer, SAMPLING)], ["the quick"])
    title = next(line for line in out.splitlines() if "model 1" in line)
    assert title.count(" 1 ") == title.count(" 2 ") == 2


def test_a_long_name_keeps_its_end_in_a_title(speaker):
    far = dataclasses.replace(speaker, name="runs/" + "long/" * 40 + "model")
    out = talk([Session(far, SAMPLING)], ["the quick"])
    assert "long/model 1 " in out
    assert "long/model 2 " in out


def test_ctrl_c_stops_an_answer_and_keeps_what_there_is(speaker):
    session = Session(speaker, Sampling(max_new_tokens=200, temperature=1.0))
    session.say("the quick")
    heard = []

    def hear(_sample, text, _log_prob):
        heard.append(text)
        if len(heard) == 3:
            raise KeyboardInterrupt

    [answer] = session.answer(hear)
    assert answer.completion.finish_reason == "deadline"
    assert answer.text == "".join(heard)
    assert len(heard) == 3
    assert session.messages[-1] == {"role": "assistant", "content": answer.final}


FIRST_TOKEN = """
import json, sys, time
from nbg_lightning.commands import chat

known, times = set(), []

def reader():
    lines = iter(["the quick", "the fox"])

    def read(_prompt):
        line = next(lines, None)
        if line is None:
            raise EOFError
        known.update(() if known else sys.modules)
        times.append(("prompt", time.process_time()))
        return line

    return read

def heard(*what):
    times.append(("token", time.process_time()))
    hear(*what)

hear, chat._line_reader, chat._hear = chat._hear, reader, heard
code = chat.main([sys.argv[1], "--device", "cpu", "--max-new-tokens", "3"])
print("\\n" + json.dumps([code, times, sorted(set(sys.modules) - known)]))
"""


def test_the_first_token_follows_the_prompt_at_once(folder):
    """All is loaded before a prompt is read: what the first answer still imports or builds is bounded in processor time."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_TOKEN, folder], capture_output=True, text=True, env=launchable_environment()
    )
    assert done.returncode == 0, done.stderr
    code, times, imported = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    assert [name for name in imported if not name.startswith(("nbg_lightning.", "rich."))] == []  # what shows an answer
    waited = [end - begin for (what, begin), (then, end) in pairwise(times) if (what, then) == ("prompt", "token")]
    assert len(waited) == 2 and max(waited) < 3.0


class Terminal:
    """`nbg chat` on its own terminal, on which Ctrl-C is a key.

    Args:
        folder: of the model.
        record: what the model does after each token, as Python.
    """

    def __init__(self, folder, record):
        code = (
            "import fcntl, hashlib, sys, termios, time; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
            "from nbg_lightning.engines.native import _Generation as g; r = g._record\n"
            f"g._record = lambda *a: (r(*a), {record})[0]\n"
            "from nbg_lightning.cli import main; sys.exit(main())"
        )
        options = ("--device", "cpu", "--template", "text", "--max-new-tokens", "250", "--stop", "no such text")
        self.ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "chat", folder, *options],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.shown = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.ours)

    def until(self, text, seconds=120):
        end = time.monotonic() + seconds
        while text not in self.shown and time.monotonic() < end:
            if not select.select([self.ours], [], [], 1.0)[0]:
                continue
            try:
                self.shown += os.read(self.ours, 4096).decode("utf-8", "replace")
            except OSError:
                break
        assert text in self.shown, self.shown
        self.shown = self.shown.partition(text)[2]

    def type(self, keys):
        os.write(self.ours, keys)


CTRL_C = b"\x03"


def test_ctrl_c_on_a_terminal(folder):
    """The first one ends the answer, the next one the chat."""
    with Terminal(folder, "time.sleep(0.2)") as terminal:  # an answer that takes longer than the test
        terminal.until("> ")
        terminal.type(b"the quick\n")
        time.sleep(2.0)
        terminal.type(CTRL_C)
        terminal.until("(stopped)")
        terminal.until("> ")
        time.sleep(REPEAT_SECONDS + 0.5)  # a second notice after a second would end other commands at once
        terminal.type(b"/system go on\n")
        terminal.until("a system message has no effect")  # without a chat format
        terminal.until("> ")
        time.sleep(0.5)  # the line is being read
        terminal.type(CTRL_C)
        terminal.until("interrupted")
        assert terminal.process.wait(30) == 130


def test_a_second_ctrl_c_ends_a_chat_whose_model_does_not_answer(folder):
    """A computation that no exception reaches, such as a long product of matrices, does not keep the process."""
    stuck = "__import__('os').write(2, b'STUCK'), hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"
    with Terminal(folder, stuck) as terminal:
        terminal.until("> ")
        terminal.type(b"the quick\n")
        terminal.until("STUCK")
        time.sleep(1.0)  # between the word and the computation an exception still reaches it
        terminal.type(CTRL_C)
        time.sleep(REPEAT_SECONDS + 0.5)
        assert terminal.process.poll() is None
        terminal.type(CTRL_C)
        terminal.until("nbg chat: stopped at once by SIGINT; the conversation is not saved (/save FILE saves one)", 20)
        assert terminal.process.wait(20) == 130


def test_thinking_is_folded():
    folded = AnswerText(opened=True, show_thinking=False)
    shown = folded.add("one") + folded.add(" two</thi") + folded.add("nk>\n\nfour") + folded.end()
    assert [text for text, _ in shown][1:] == ["four"]
    assert shown[0][0].startswith("(thinking: 7 characters")
    whole = AnswerText(opened=False, show_thinking=True)
    shown = whole.add("<think>\nwhy</think>so\x1b[31m\u202e") + whole.end()
    assert "".join(text for text, _ in shown) == "why\n\nso\\x1b[31m\\u202e"


class Scripted:
    """A server that answers with given events, and keeps what it was asked."""

    def __init__(self, answers):
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        script = self
        self.asked, self.answers = [], answers

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_): ...

            def _send(self, kind, content):
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self):
                self._send("application/json", b'{"data": [{"id": "served"}]}')

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                script.asked.append(body)
                answer = script.answers[len(script.asked) - 1]
                if isinstance(answer, bytes):
                    self._send("application/json", answer)
                    return
                lines = [f"data: {json.dumps(each)}\n\n" if isinstance(each, dict) else each for each in answer]
                self._send("text/event-stream", "".join([": hello\n\n", *lines, "data: [DONE]\n\n"]).encode())

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def delta(reason=None, **fields):
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": reason}]}


def test_a_server_thinks_calls_a_tool_and_answers():
    call = {"index": 0, "id": "x", "function": {"name": "clock", "arguments": '{"zone": '}}
    more = {"index": 0, "function": {"arguments": '"UTC"}'}}
    answers = [
        [delta(reasoning_content="hm"), delta(reasoning_content="m"), delta(tool_calls=[call]), delta(tool_calls=[more]),
         delta("tool_calls")],
        [delta(role="assistant", content=""), delta(content="It is "), delta(content="noon.", reason="stop")],
    ]  # fmt: skip
    with Scripted(answers) as served, open_speaker(served.url, SpeakerOptions()) as speaker:
        session = Session(speaker, Sampling(), [{"type": "function", "function": CLOCK}], "Be exact.")
        out = talk([session], ["What time is it?", "12:00"])
        assert 'call: clock("zone": "UTC")' in out
        assert out.rstrip().endswith("It is noon.")
        first, second = served.asked
    assert first["stream"] is True
    assert [each["role"] for each in first["messages"]] == ["system", "user"]
    assert [each["role"] for each in second["messages"]] == ["system", "user", "assistant", "tool"]
    [made] = second["messages"][2]["tool_calls"]
    assert made["function"] == {"name": "clock", "arguments": '{"zone": "UTC"}'}
    assert second["messages"][3] == {"role": "tool", "content": "12:00", "tool_call_id": made["id"]}
    assert session.messages[1]["reasoning_content"] == "hmm"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([delta(content="half")], "broke off"),
        (["data: {nonsense\n\n"], "not JSON"),
        ([{"error": {"message": "no memory"}}], "no memory"),
        ([delta(content=["a list"])], "another form"),
        ([{"choices": 7}], "another form"),
        (["data: []\n\n"], "another form"),
        ([delta(tool_calls=[{"index": [1]}])], "another form"),
        (b"<html>", "neither events nor JSON"),
    ],
)
def test_a_server_that_answers_nonsense(answer, reason):
    with Scripted([answer]) as served, open_speaker(served.url, SpeakerOptions()) as speaker:
        session = Session(speaker, Sampling())
        assert reason in talk([session], ["hi"])
        assert session.messages == []


def test_a_server_that_does_not_stream():
    whole = {"choices": [{"message": {"content": "whole"}, "finish_reason": "stop"}]}
    with Scripted([json.dumps(whole).encode()]) as served, open_speaker(served.url, SpeakerOptions()) as speaker:
        assert talk([Session(speaker, Sampling())], ["hi"]).strip() == "whole"


def test_generate_writes_json_lines(folder, tmp_path, speaker):
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"prompt": "the quick", "id": 1}, {"messages": MESSAGES}, {"prompt": "fox " * 400}]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "out" / "answers.jsonl"
    options = ["--device", "cpu", "--max-new-tokens", "5", "-n", "2", "--seed", "3", "--logprobs"]
    assert generate_command.main([folder, "--prompts", str(prompts), "--output", str(output), *options]) == 1
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["sample"] for line in lines] == [0, 1, 0, 1, 0, 1]
    sampling = speaker.with_stops(Sampling(max_new_tokens=5, temperature=0.7, n=2, seed=3))
    expected = speaker.engine.generate([speaker.prompt(MESSAGES)], sampling)[0]
    assert [tuple(line["ids"]) for line in lines[2:4]] == [completion.ids for completion in expected]
    assert lines[0]["id"] == 1
    assert "the prompt is too long" in lines[4]["error"]
    with pytest.raises(FileExistsError, match="exists; remove it"):
        generate_command.main([folder, "--prompts", str(prompts), "--output", str(output)])


def test_generate_streams_one_text(folder, capfdbinary):
    assert (
        generate_command.main([folder, "the quick", "--device", "cpu", "--template", "text", "--max-new-tokens", "9"])
        == 0
    )
    out = capfdbinary.readouterr().out
    with open_speaker(folder, SpeakerOptions(device="cpu", template="text")) as opened:
        [[completion]] = opened.speak(
            [opened.prompt([{"role": "user", "content": "the quick"}])], Sampling(max_new_tokens=9, temperature=0.7)
        )
        assert out.decode().rstrip("\n") == opened.read(completion).text.rstrip("\n")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "give one: a checkpoint"),
        (["FOLDER", " "], "prompt 1 is empty"),
        (["FOLDER", "fox " * 400], "the prompt is too long"),
        (["FOLDER", "--prompts", "nowhere.jsonl"], "--prompts is invalid: nowhere.jsonl"),
        (["FOLDER", "x", "--tools", "nowhere.json"], "--tools is invalid: nowhere.json"),
        (["FOLDER", "x", "--temperature", "-1"], "temperature is invalid: -1"),
        (["FOLDER", "x", "-n", "0"], "n is invalid: 0"),
        (["/nowhere/at/all", "x"], "/nowhere/at/all does not exist"),
        (["--server", "http://127.0.0.1:9/v1", "x"], "start the server"),
    ],
)
def test_mistakes_of_generate_are_one_line(folder, argv, message):
    with pytest.raises((ValueError, OSError), match=message) as caught:
        generate_command.main([folder if each == "FOLDER" else each for each in argv])
    assert "\n" not in str(caught.value)


def test_a_chat_without_a_model():
    with pytest.raises(ValueError, match="there is no model"):
        chat_command.main([])


def test_a_run_without_a_checkpoint(tmp_path):
    (tmp_path / "checkpoints" / "step-00000001.partial").mkdir(parents=True)
    with pytest.raises(ValueError, match="nor a run that has saved one"), open_speaker(str(tmp_path), SpeakerOptions()):
        pass
