"""Signals to whole runs, as terminals and schedulers send them: exit code, checkpoint, words, and processes that are left.

usage: python benchmarks/stopping.py CONFIG FOLDER [CASE ...]    (a config that trains for minutes, with num_workers >= 1)

Each case starts `nbg` in a process group of its own and prints a row of the table in docs/stopping.md.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from nbg_lightning.testing import launchable_environment

START_SECONDS = 180
STOP_SECONDS = 180
LEFT_SECONDS = 2.0  # after which nothing of a run may be there


@dataclass(frozen=True)
class Case:
    """A run and what is sent to it.

    Attributes:
        name: of its folder.
        number: the signal.
        target: ``process`` (the first rank), ``rank 1``, or ``group``.
        moment: a file below the run's folder that says when; ``start``: a second after it has begun.
        ranks: processes, started by the first.
        times: how often the signal is sent, 1.5 s apart.
        command: of `nbg`.
    """

    name: str
    number: signal.Signals
    target: str = "group"
    moment: str = "checkpoints/step-00000004"
    ranks: int = 1
    times: int = 1
    command: str = "fit"

    @property
    def code(self) -> int:
        """The right exit code."""
        return -self.number if self.number == signal.SIGKILL else 128 + self.number


CASES = [
    *(
        Case(f"{number.name}-group", number)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
    ),
    Case("process", signal.SIGTERM, "process"),
    Case("twice", signal.SIGTERM, times=2),
    Case("two-ranks-group", signal.SIGTERM, ranks=2),
    Case("two-ranks-first", signal.SIGINT, "process", ranks=2),
    Case("two-ranks-second", signal.SIGHUP, "rank 1", ranks=2),
    Case("two-ranks-twice", signal.SIGTERM, ranks=2, times=2),
    Case("two-ranks-killed", signal.SIGKILL, "process", ranks=2),
    Case("killed", signal.SIGKILL, "process"),
    Case("importing", signal.SIGINT, moment="start"),
    Case("setting-up", signal.SIGTERM, moment=".lock"),
    Case("validate", signal.SIGTERM, moment="tensorboard", command="validate"),
    Case("test", signal.SIGINT, moment="tensorboard", command="test"),
    Case("predict", signal.SIGHUP, moment="tensorboard", command="predict"),
]


@dataclass(frozen=True)
class Outcome:
    """What came of a case."""

    code: int
    output: str
    checkpoints: list[str]
    left: int

    def row(self, case: Case) -> str:
        kind = f"`{case.command}`" + (f", {case.ranks} ranks" if case.ranks > 1 else "")
        sent = f"{case.number.name}{' twice' if case.times > 1 else ''} to {case.target}"
        newest = self.checkpoints[-1] if self.checkpoints else "none"
        return f"| {kind} | {case.moment} | {sent} | {self.code} | {newest} | {self.left} |"


def run(case: Case, config: str, folder: Path) -> Outcome:
    """Start a case, send its signals, and wait for its end."""
    place = folder / case.name
    words = [str(Path(sys.executable).with_name("nbg")), case.command, "--config", config]
    words += ["--trainer.default_root_dir", str(place), "--trainer.devices", str(case.ranks)]
    log = folder / f"{case.name}.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            words, stdout=stream, stderr=stream, start_new_session=True, env=launchable_environment()
        )
    try:
        _wait_for(case, place, process)
    except RuntimeError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    for _ in range(case.times):
        _send(case, process)
        if case.times > 1:
            time.sleep(1.5)
    code = process.wait(STOP_SECONDS)
    time.sleep(LEFT_SECONDS)
    found = sorted(path.name for path in (place / "checkpoints").glob("step-*"))
    return Outcome(code, log.read_text(), found, len(_members(process.pid)))


def _wait_for(case: Case, place: Path, process: subprocess.Popen[bytes]) -> None:
    if case.moment == "start":
        time.sleep(1.0)
        return
    end = time.monotonic() + START_SECONDS
    while not (place / case.moment).exists():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{case.name}: {case.moment} did not appear")
        time.sleep(0.02)


def _send(case: Case, process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    if case.target == "group":
        os.killpg(process.pid, case.number)
    elif case.target == "process":
        os.kill(process.pid, case.number)
    else:
        other = next(each for each in _members(process.pid) if b"LOCAL_RANK=1" in _environment(each))
        os.kill(other, case.number)


def _members(group: int) -> list[int]:
    """The living processes of a group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, of_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(of_group) == group and state != "Z":
                found.append(int(entry.name))
    return sorted(found)


def _environment(process: int) -> list[bytes]:
    try:
        return Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def main() -> int:
    """Run all cases, or those that are named."""
    config, folder, names = sys.argv[1], Path(sys.argv[2]), set(sys.argv[3:])
    folder.mkdir(parents=True)
    wrong = 0
    for case in CASES:
        if not names or case.name in names:
            outcome = run(case, config, folder)
            print(outcome.row(case), flush=True)
            wrong += outcome.code != case.code or outcome.left > 0 or "Traceback" in outcome.output
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
