"""Runs the steps of a recipe: finished steps are skipped, interrupted ones resumed, and changed ones rerun."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from nbg_lightning import stopping
from nbg_lightning.data.durable import write_json
from nbg_lightning.recipe.plan import CHANGES, Recipe

STATE = "step.json"
State = Literal["done", "resume", "run", "redo"]
"""``done``: finished with the same key. ``resume``: started with it. ``redo``: has another key. ``run``: not started."""


@dataclass
class StepRecord:
    """The record in a step's folder of how its contents were produced.

    Attributes:
        key: `Recipe.key` when it was started.
        done: whether it finished successfully.
        command: the words of the command.
        seconds: working time, over all its parts.
        parts: number of times it was started.
    """

    key: str
    done: bool = False
    command: list[str] = field(default_factory=list)
    seconds: float = 0.0
    parts: int = 0

    @classmethod
    def read(cls, folder: Path) -> StepRecord | None:
        """The record in a step's folder; None if there is none."""
        try:
            return cls(**json.loads((folder / STATE).read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            raise ValueError(f"{folder / STATE} cannot be read; move {folder} away to run the step again") from None

    def write(self, folder: Path) -> None:
        """Write it atomically."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / STATE, asdict(self))


def state_of(recipe: Recipe, name: str) -> State:
    """What running a step now would do."""
    record = StepRecord.read(recipe.step_folder(name))
    if record is None:
        return "run"
    if record.key != recipe.key(name):
        return "redo"
    return "done" if record.done and _has_outputs(recipe, name) else "resume"


def _has_outputs(recipe: Recipe, name: str) -> bool:
    return all(recipe.find(name, output).exists() for output in recipe.outputs(name))


def command_of(recipe: Recipe, name: str, resume: bool = False) -> list[str]:
    """The words that run a step."""
    step = recipe.steps[name]
    arguments = recipe.arguments(name)
    if resume and step.command == "fit" and recipe.find(name, "checkpoint").exists():
        arguments += ["--ckpt_path", "last"]
    launcher = recipe.launcher(name, os.environ) or [sys.executable, "-m", "nbg_lightning.cli"]
    return [*launcher, *arguments]


class StepFailed(RuntimeError):
    """A step's command ended with an error, which it has already printed."""


def run_recipe(recipe: Recipe, names: Sequence[str]) -> dict[str, State]:
    """Run steps in order.

    Args:
        recipe: the recipe.
        names: names of the steps to run.

    Returns:
        The state of each step when its turn came.

    Raises:
        StepFailed: a command failed; finished steps are kept, and the same call resumes there.
        Stopped: a signal ended it; its step has saved its work and ended too, and the same call resumes there.
        ValueError: a step needs an output that does not exist.
    """
    states: dict[str, State] = {}
    for name in recipe.steps:
        recipe.check_launcher(name, os.environ)  # refused before the first step
    for number, name in enumerate(names, 1):
        states[name] = state = state_of(recipe, name)
        if state == "done":
            print(f"[{number}/{len(names)}] {name}: done before", flush=True)
            continue
        _check_inputs(recipe, name)
        if state == "redo":
            _set_aside(recipe, name)
        _run_step(recipe, name, state == "resume", f"[{number}/{len(names)}] {name}")
    return states


def _check_inputs(recipe: Recipe, name: str) -> None:
    for other, output in recipe.steps[name].references:
        if not recipe.find(other, output).exists():
            raise ValueError(f"step {name!r} needs {other}.{output}, which is not there; run step {other!r} first")


def _set_aside(recipe: Recipe, name: str) -> None:
    """Rename the folder of a changed step, keeping its contents under a name with the old key."""
    folder = recipe.step_folder(name)
    record = StepRecord.read(folder)
    assert record is not None
    target = folder.with_name(f"{name}.{record.key[:8]}")
    number = 1
    while target.exists():
        number += 1
        target = folder.with_name(f"{name}.{record.key[:8]}-{number}")
    folder.rename(target)
    print(f"{name} was made from other settings or data: kept as {target}", flush=True)


def _run_step(recipe: Recipe, name: str, resume: bool, title: str) -> None:
    folder = recipe.step_folder(name)
    key = recipe.key(name)
    record = (StepRecord.read(folder) if resume else None) or StepRecord(key)
    words = command_of(recipe, name, resume)
    record.command, record.parts = recipe.arguments(name), record.parts + 1
    record.write(folder)
    if changes := recipe.changes(name):
        (folder / CHANGES).write_text(changes, "utf-8")
    print(f"{title}: {'resuming' if resume else 'running'}: {shown(words)}", flush=True)
    begin = time.monotonic()
    code = _call(words, name)
    record.seconds += time.monotonic() - begin
    record.write(folder)
    if code:
        raise StepFailed(
            f"step {name!r} failed with exit code {code} (its message is above); fix the cause, and type the same "
            "command: it goes on there"
        )
    if not _has_outputs(recipe, name):
        missing = next(o for o in recipe.outputs(name) if not recipe.find(name, o).exists())
        raise StepFailed(
            f"step {name!r} ended without its output {missing!r} at {recipe.find(name, missing)}; see its messages above"
        )
    record.done = True
    record.write(folder)


def _call(words: list[str], name: str) -> int:
    """Run a command to its end. Signals are forwarded to it: it saves its work, and ends.

    Raises:
        Stopped: a signal ended it.
    """
    with (
        stopping.handling("nbg recipe") as handler,
        stopping.remembering(f"waiting until step {name} has saved its work"),
    ):
        process = subprocess.Popen(words)
        handler.children.add(process.pid)
        if handler.received is not None:  # it came before the process could get it
            process.send_signal(handler.received)
        try:
            code = process.wait()
        finally:
            handler.children.discard(process.pid)
        received = handler.received or _signal_of(code)
        if received is None:
            return code
        handler.received = received
        handler.kept = lambda: f"step {name} was stopped; run the same command to resume it"
        raise stopping.Stopped(received)


def _signal_of(code: int) -> signal.Signals | None:
    """The signal that stopped a command, by its exit code."""
    return next((number for number in stopping.STOP_SIGNALS if code in (128 + number, -number)), None)


def shown(words: Sequence[str]) -> str:
    """A command as one would type it."""
    if list(words[:3]) == [sys.executable, "-m", "nbg_lightning.cli"]:
        words = ["nbg", *words[3:]]
    return shlex.join(words)
