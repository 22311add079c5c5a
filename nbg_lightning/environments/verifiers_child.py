"""The program that runs environments of the package ``verifiers``, by an interpreter that has it; it imports nothing of ours.

It reads one line of JSON from its standard input (``environment``, ``arguments``, ``rows``), loads the environment, and answers
one line: ``{"loaded": version}``, with the rows of its data if these were asked for, or ``{"error": why}``. With a listening
socket's descriptor as its argument it then forks for each connection, and plays one episode on it, a line of JSON a message::

    from us   {"row": {...}, "milliseconds": n}, then {"content": text, "calls": [{"id", "name", "arguments"}]} for each turn
    from it   {"turns": [...], "tools": [...]}, then {"turns": [...]} for each reply, and {"score": x, "metrics": {}} at the end;
              {"error": why} where the environment fails

An environment asks for its model's turns by the interface of OpenAI. This program is that server, on a port of this machine that
only its own episode knows, so that any environment of the package works as it is: single turn, several turns, tools.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib.util
import json
import os
import secrets
import select
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn

MODEL = "policy"
LONGEST_LINE = 16_000_000  # bytes
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl

Episodes = dict[int, tuple[int, socket.socket, int]]
"""Of each descriptor that is waited for: the process, its connection, and the descriptor of the process."""


class JsonLink:
    """JSON lines over a socket."""

    def __init__(self, connection: socket.socket):
        self._file = connection.makefile("rwb")
        self._lock = threading.Lock()

    def ask(self, message: dict[str, Any]) -> Any:
        """Send a message and wait for the answer; None if the peer is gone."""
        with self._lock:
            self.tell(message)
            return self.heard()

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message."""
        data = json.dumps(message, default=str).encode()
        if len(data) > LONGEST_LINE:
            data = json.dumps(
                {"error": f"a message of {len(data):,} bytes, which is more than {LONGEST_LINE:,}"}
            ).encode()
        self._file.write(data + b"\n")
        self._file.flush()

    def heard(self) -> Any:
        """The next message."""
        line = self._file.readline(LONGEST_LINE)
        return json.loads(line) if line.endswith(b"\n") else None


class Dialogue:
    """The conversation that the environment has shown its model so far."""

    def __init__(self, link: JsonLink):
        self.link = link
        self._known: list[dict[str, Any]] | None = None

    def turn(self, request: dict[str, Any]) -> dict[str, Any]:
        """The model's turn for a request of the environment, in OpenAI's response format."""
        messages = [_plain(message) for message in request["messages"]]
        if self._known is None:
            told = {"turns": messages, "tools": request.get("tools") or []}
        else:
            if messages[: len(self._known)] != self._known or len(messages) <= len(self._known):
                self.link.tell({"error": "the environment rewrites the turns before, which episodes cannot"})
                os._exit(1)
            told = {"turns": messages[len(self._known) :]}
        answer = self.link.ask(told)
        if answer is None:
            os._exit(0)
        calls = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": json.dumps(call["arguments"])},
            }
            for call in answer["calls"]
        ]
        message = {"role": "assistant", "content": answer["content"], **({"tool_calls": calls} if calls else {})}
        self._known = [*messages, _plain(message)]
        return message


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """A message with what tells it from others: role, text, calls, and which call it answers."""
    content = message.get("content")
    if isinstance(content, list):
        if any(part.get("type") != "text" for part in content):
            raise ValueError("a message has parts that are no text; use an environment of texts")
        content = "".join(part["text"] for part in content)
    found = {"role": message["role"], "content": content or ""}
    if message.get("tool_calls"):
        found["tool_calls"] = [
            {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"] or "{}")}
            for call in message["tool_calls"]
        ]
    for name in ("tool_call_id", "name"):
        if message.get(name):
            found[name] = message[name]
    return found


def handler(conversation: Dialogue, key: str) -> type[BaseHTTPRequestHandler]:
    """A request handler with OpenAI's API for one conversation, protected by a key."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            if self.headers.get("Authorization") != f"Bearer {key}" or not 0 < length <= LONGEST_LINE:
                self.send_error(403)
                return
            request = json.loads(self.rfile.read(length))
            if not self.path.endswith("/chat/completions") or request.get("stream"):
                self.send_error(404)
                return
            try:
                message = conversation.turn(request)
            except Exception as error:
                conversation.link.tell({"error": first_line(error)})
                os._exit(1)
            reason = "tool_calls" if "tool_calls" in message else "stop"
            choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
            usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
            body = {"id": "turn", "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice]}
            data = json.dumps({**body, "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    return Handler


def play(environment: Any, link: JsonLink) -> None:
    """Play one episode: the environment runs its rollout against the server of its conversation."""
    asked = link.heard()
    if asked is None:
        return
    key = secrets.token_hex(16)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(Dialogue(link), key))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        found = asyncio.run(rolled_out(environment, asked["row"], f"http://127.0.0.1:{server.server_port}/v1", key))
    except BaseException as error:
        found = {"error": first_line(error)}
    link.tell(found)


async def rolled_out(environment: Any, row: dict[str, Any], url: str, key: str) -> dict[str, Any]:
    """The score of a rollout, or the reason why there is none."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=url, api_key=key, timeout=None, max_retries=0)
    row = {"example_id": 0, "answer": "", **row}
    try:
        from verifiers.clients import OpenAIChatCompletionsClient
    except ImportError:  # older versions take the client itself, and answer by columns
        whole = await environment.generate([{"task": "default", **row}], client=client, model=MODEL, sampling_args={})
        output = {name: whole[name][0] for name in ("state", "reward")}
        output["error"] = output["state"].get("error")
        output["metrics"] = {name: values[0] for name, values in (whole.get("metrics") or {}).items()}
    else:
        output = await environment.run_rollout(row, OpenAIChatCompletionsClient(client), MODEL, {})
    if output.get("error") or output.get("reward") is None:
        return {"error": f"the rollout failed: {first_line(output.get('error'))}"}
    metrics = {name: float(value) for name, value in (output.get("metrics") or {}).items()}
    return {"score": float(output["reward"]), "metrics": metrics}


def rows_of(environment: Any, split: str) -> list[dict[str, Any]]:
    """The rows of an environment's data."""
    found = environment.get_dataset() if split == "train" else environment.get_eval_dataset()
    return [dict(row) for row in found]


def first_line(error: Any) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if isinstance(error, BaseException) else text


def serve(environment: Any, descriptor: int) -> NoReturn:
    """Fork for each connection, until the parent is gone; closing a connection kills its episode."""
    listening, waiting = socket.socket(fileno=descriptor), select.poll()
    episodes: Episodes = {}
    signal.signal(signal.SIGTERM, lambda *_: end_all(episodes))  # the parent is gone
    waiting.register(listening, select.POLLIN)
    while True:
        for ready, _ in waiting.poll():
            if ready in episodes:
                end(episodes, ready, waiting)
            elif ready == listening.fileno():
                begin(environment, listening, episodes, waiting)


def begin(environment: Any, listening: socket.socket, episodes: Episodes, waiting: select.poll) -> None:
    """Fork for a connection, and keep its descriptor to detect that it is closed."""
    connection, _ = listening.accept()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()  # what it starts ends with it
        die_with_parent(signal.SIGKILL)
        for _, other, watched in set(episodes.values()):
            other.close()
            os.close(watched)
        listening.close()
        play(environment, JsonLink(connection))
        os._exit(0)
    watched = os.pidfd_open(pid)
    waiting.register(connection, select.POLLRDHUP)
    waiting.register(watched, select.POLLIN)
    episodes[connection.fileno()] = episodes[watched] = pid, connection, watched


def end(episodes: Episodes, ready: int, waiting: select.poll) -> None:
    """Kill an episode's process, if it is still running, and forget it."""
    pid, connection, watched = episodes[ready]
    kill(pid)
    os.waitpid(pid, 0)
    for descriptor in (connection.fileno(), watched):
        waiting.unregister(descriptor)
        del episodes[descriptor]
    connection.close()
    os.close(watched)


def kill(pid: int) -> None:
    """Kill an episode's process with all that it started."""
    os.kill(pid, signal.SIGKILL)
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # it had not got so far as to lead a group
        pass


def end_all(episodes: Episodes) -> NoReturn:
    """Kill all episodes, and end."""
    for pid in {pid for pid, _, _ in episodes.values()}:
        kill(pid)
    os._exit(0)


def loaded_file(path: str, arguments: dict[str, Any]) -> Any:
    """The environment returned by ``load_environment`` of a Python file."""
    spec = importlib.util.spec_from_file_location("environment_of_a_file", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file; give one that defines load_environment")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.load_environment(**arguments)


def die_with_parent(by: int) -> None:
    """Have the kernel give this process a signal when its parent ends."""
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, by)


def main() -> None:
    """See the module."""
    die_with_parent(signal.SIGTERM)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the environment prints is no message
    asked = json.loads(sys.stdin.readline())
    try:
        import verifiers

        if not hasattr(verifiers, "load_environment"):
            raise ImportError(f"verifiers {verifiers.__version__} has no load_environment; install verifiers<0.2")
        if asked["environment"].endswith(".py"):
            environment = loaded_file(asked["environment"], asked["arguments"])
        else:
            environment = verifiers.load_environment(asked["environment"], **asked["arguments"])
        told = {"loaded": getattr(verifiers, "__version__", "unknown")}
        if asked.get("rows"):
            told["rows"] = rows_of(environment, asked["rows"])
        line = json.dumps(told, default=str)
    except BaseException as error:
        told = {"error": first_line(error)}
        line = json.dumps(told)
    out.write(line + "\n")
    out.flush()
    out.close()
    if "error" not in told and len(sys.argv) > 1:
        serve(environment, int(sys.argv[1]))


if __name__ == "__main__":
    main()
