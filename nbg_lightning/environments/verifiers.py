"""Environments of the package ``verifiers``, which run under their own interpreter."""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from nbg_lightning.data.question import Question
from nbg_lightning.data.question_sources import Place, RowQuestions
from nbg_lightning.environments import verifiers_child
from nbg_lightning.environments.environment import Environment, EpisodeLimits, ModelTurn, Opening, Reply, Turn
from nbg_lightning.scoring.frames import is_ready

ROW = "verifiers"
"""In the data of a question: the row of the environment's data that it is."""
LOAD_SECONDS = 300.0  # an environment may fetch its data first


class VerifiersEnvironment(Environment):
    """An environment of ``verifiers`` (https://github.com/PrimeIntellect-ai/verifiers): single- or multi-turn, with or
    without tools.

    The package runs under its own interpreter, since its requirements conflict with this library's::

        python -m venv verifiers-venv && verifiers-venv/bin/pip install "verifiers==0.1.14" MY-ENVIRONMENT

    The environment drives its own rollout; the policy provides the model's turns, and the score is its rubric's reward. An
    environment that fails, dies or does not reply in time ends the episode without a score. Messages with parts other than
    text, and environments that rewrite earlier turns, are errors of the episode.

    Args:
        environment: its name for ``verifiers.load_environment``, or a Python file that defines ``load_environment``.
        python: path of the interpreter with ``verifiers`` and the environment, such as ``verifiers-venv/bin/python``.
        arguments: keyword arguments of ``load_environment``.
        limits: limits of the episodes.

    Raises:
        ValueError: there is no such interpreter, or episodes are not isolated.
    """

    def __init__(
        self,
        environment: str,
        python: str,
        arguments: dict[str, Any] | None = None,
        limits: EpisodeLimits = EpisodeLimits(step_seconds=60.0),  # noqa: B008 - never mutated
    ):
        if not limits.isolated:
            raise ValueError("limits.isolated is invalid: False; leave it out: this one runs in processes of its own")
        self.environment, self.python = environment, interpreter(python)
        self.arguments, self.limits = sent(arguments or {}), limits
        self._address = ""
        self._program: subprocess.Popen[bytes] | None = None
        self._link: Any = None

    prepare_seconds = LOAD_SECONDS

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_program": None, "_link": None, "_address": ""}

    def prepare(self) -> None:
        self._address = f"\0nbg-verifiers-{secrets.token_hex(8)}"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(self._address)
            listening.listen(1024)
            self._program, _ = _loaded(self.python, self.environment, self.arguments, listening.fileno())

    def reset(self, question: Question) -> Opening:
        row = question.data.get(ROW)
        if not isinstance(row, Mapping):
            raise ValueError(f"the question has no {ROW!r} in its data; take the questions of VerifiersQuestions")
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(self.limits.step_seconds)
        try:
            link.connect(self._address)
        except OSError:
            raise RuntimeError(
                f"the process of the environment {self.environment} has ended; look at what it printed"
            ) from None
        self._link = link.makefile("rwb")
        said = self._asked({"row": dict(row)})
        if "turns" not in said:
            raise RuntimeError(
                "the environment ended before the model's first turn; look at its rules for this question"
            )
        return Opening(tuple(map(_turn, said["turns"])), tuple(said.get("tools") or ()))

    def step(self, turn: ModelTurn) -> Reply:
        calls = [
            {"id": call.id or f"call-{number}", "name": call.name, "arguments": call.arguments}
            for number, call in enumerate(turn.calls)
        ]
        said = self._asked({"content": turn.content, "calls": calls})
        counts = {"calls": len(calls)} if calls else {}
        if "turns" in said:
            return Reply(tuple(map(_turn, said["turns"])), counts=counts)
        return Reply(done=True, score=float(said["score"]), counts=counts)

    def _asked(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Send a message and return the environment's answer.

        Raises:
            RuntimeError: it failed, died, or sent an invalid message.
        """
        self._link.write(json.dumps(message).encode() + b"\n")
        self._link.flush()
        line = self._link.readline(verifiers_child.LONGEST_LINE + 1)
        if not line.endswith(b"\n"):
            raise RuntimeError(f"the process of the environment {self.environment} died; look at what it printed")
        said = json.loads(line)
        if not isinstance(said, dict) or not {"turns", "score", "error"} & set(said):
            raise RuntimeError(
                f"the environment {self.environment} answered what is no message ({str(said)[:100]}); use one that answers "
                "as those of verifiers do"
            )
        if "error" in said:
            raise RuntimeError(f"{self.environment}: {said['error']}")
        return said

    def close(self) -> None:
        if self._link is not None:
            self._link.close()


@dataclass
class VerifiersQuestions(RowQuestions):
    """The questions of an environment of ``verifiers``, for `VerifiersEnvironment`.

    Args:
        environment: its name.
        python: path of the interpreter with ``verifiers`` and the environment, such as ``verifiers-venv/bin/python``.
        arguments: keyword arguments of ``load_environment``.
        split: which of its datasets to use.
        count: number of leading questions to use; all by default.
    """

    environment: str
    python: str
    arguments: dict[str, Any] = field(default_factory=dict)
    split: Literal["train", "test"] = "train"
    count: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.python, self.arguments = interpreter(self.python), sent(self.arguments)
        if self.count is not None and self.count < 1:
            raise ValueError(f"count is invalid: {self.count}; give at least 1")

    def rows(self) -> Iterator[tuple[Place, Mapping[str, Any]]]:
        program, said = _loaded(self.python, self.environment, self.arguments, None, self.split)
        program.wait()
        for number, row in enumerate(said["rows"][: self.count]):
            answer = row.get("answer")
            yield (
                partial("row {} of {}".format, number, self.environment),
                {"prompt": row.get("prompt"), "answer": answer or None, "data": {ROW: row}},
            )


def interpreter(python: str) -> str:
    """The path of an interpreter.

    Raises:
        ValueError: there is none.
    """
    found = shutil.which(os.path.expanduser(python))
    if found is None:
        raise ValueError(
            f"python is invalid: {python!r:.200}; there is no such program; give the interpreter of a virtual environment "
            "that has verifiers, such as verifiers-venv/bin/python"
        )
    return str(Path(found).absolute())  # without following links: a virtual environment's is one


def sent(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of an environment, which reach its program as JSON.

    Raises:
        ValueError: JSON has no such value, as none for a date of YAML.
    """
    try:
        json.dumps(arguments, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"arguments is invalid: {str(arguments)[:100]}; {error}: write a text, number, list or mapping"
        ) from None
    return dict(arguments)


def _loaded(
    python: str, environment: str, arguments: Mapping[str, Any], listening: int | None, rows: str | None = None
) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    """The child process with its environment loaded, and its first message.

    Raises:
        ValueError: it cannot be loaded.
    """
    command = [python, "-I", str(Path(verifiers_child.__file__)), *([] if listening is None else [str(listening)])]
    program = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=() if listening is None else (listening,),
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
    )
    assert program.stdin is not None and program.stdout is not None
    try:
        asked = {"environment": environment, "arguments": dict(arguments), "rows": rows}
        with program.stdin as stdin, program.stdout as stdout:
            stdin.write(json.dumps(asked).encode() + b"\n")
            stdin.flush()
            line = _line(stdout.fileno(), time.monotonic() + LOAD_SECONDS)
        said = json.loads(line) if line else {"error": "its process died"}
    except (TimeoutError, OSError, ValueError) as error:
        said = {"error": str(error)}
    if "error" in said:
        program.kill()
        program.wait()
        raise ValueError(f"environment is invalid: {environment!r} by {python}: {said['error']}")
    return program, said


def _line(descriptor: int, end: float) -> bytes:
    """A line of any length from a pipe.

    Raises:
        TimeoutError: it did not come in time.
    """
    parts: list[bytes] = []
    while not parts or not parts[-1].endswith(b"\n"):
        if not is_ready(descriptor, select.POLLIN, end):
            raise TimeoutError(f"it did not load within {LOAD_SECONDS:g} s")
        part = os.read(descriptor, 1 << 20)
        if not part:
            return b""
        parts.append(part)
    return b"".join(parts)


def _turn(message: Mapping[str, Any]) -> Turn:
    """A message of the environment."""
    found = {"role": message["role"], "content": message["content"]}
    if message.get("tool_calls"):  # of an example in the opening
        found["tool_calls"] = [{"type": "function", "function": dict(call)} for call in message["tool_calls"]]
    return {**found, **{name: message[name] for name in ("tool_call_id", "name") if name in message}}
