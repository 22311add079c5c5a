"""Sends signals to whole runs, as terminals and schedulers do, and checks exit code, checkpoint, messages and leftover processes.

usage: python benchmarks/stopping.py CONFIG FOLDER [CASE ...]

CONFIG pretrains for minutes, with num_workers >= 1 and a checkpoint every 2 steps. Configs of other commands are made in FOLDER.

Each case starts `nbg` in its own process group and prints a row of the table in docs/stopping.md.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from stopping_inputs import make_inputs

from nbg_lightning.testing import launchable_environment

START_SECONDS = 180
STOP_SECONDS = 180
AT_ONCE = r"nbg \w+: stopped at once by {signal}; go on with: --ckpt_path last \(the last checkpoint is .*\)"
LEFT_SECONDS = 2.0  # after which no process of a run may remain


@dataclass(frozen=True)
class Case:
    """A run and the signal sent to it.

    Attributes:
        name: name of its folder.
        number: the signal.
        target: ``process`` (the first one), ``rank 1``, or ``group``.
        moment: when to send it: a pattern of files below the run's folder; ``start``: one second after the start.
        ranks: number of processes.
        times: how often the signal is sent, 1.5 s apart.
        command: the `nbg` command.
        config: name of its config (`make_inputs`).
        launcher: ``nbg``, which starts ranks itself, or ``torchrun``.
        options: further command-line options; ``{place}`` is the run's folder.
        words: pattern of the last message; under torchrun, which prints messages itself, of an earlier one.
        code: expected exit code; by default that of the signal.
    """

    name: str
    number: signal.Signals
    target: str = "group"
    moment: str = "checkpoints/step-00000004"
    ranks: int = 1
    times: int = 1
    command: str = "fit"
    config: str = "fit"
    launcher: str = "nbg"
    options: tuple[str, ...] = ()
    words: str = r"stopped by {signal} after step \d+; go on with: --ckpt_path last \(.*/step-\d+\)"
    code: int | None = None

    @property
    def right_code(self) -> int:
        """The expected exit code."""
        if self.code is not None:
            return self.code
        return -self.number if self.number == signal.SIGKILL else 128 + self.number

    @property
    def trains(self) -> bool:
        """Whether it accepts trainer options."""
        return self.command in ("fit", "validate", "test", "predict")

    def line(self, configs: dict[str, str], place: Path) -> list[str]:
        """The command line."""
        if self.launcher == "torchrun":
            words = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.ranks}"]
            words += ["-m", "nbg_lightning.cli"]
        else:
            words = [str(Path(sys.executable).with_name("nbg"))]
        words += [self.command, *(("--config",) if self.command not in POSITIONAL else ()), configs[self.config]]
        if self.trains:
            words += ["--trainer.default_root_dir", str(place), "--trainer.devices", str(self.ranks)]
        return words + [option.format(place=place) for option in self.options]

    def said(self, output: str) -> bool:
        """Whether the expected message is the last one."""
        lines = output.splitlines()
        words = f"{self.words}|{AT_ONCE}" if self.times > 1 else self.words
        wanted = re.compile(words.replace("{signal}", self.number.name))
        if self.launcher == "torchrun":
            return any(wanted.fullmatch(line) for line in lines)
        return self.number == signal.SIGKILL or (bool(lines) and wanted.fullmatch(lines[-1]) is not None)

    def clean(self, output: str) -> bool:
        """Whether there is no traceback, apart from torchrun's own."""
        return self.launcher == "torchrun" or "Traceback" not in output


POSITIONAL = ("pass-rate", "recipe")
NOTHING_YET = (
    r"nbg fit: stopped(?: at once)? by {signal}; "
    r"(?:nothing was saved: the first checkpoint comes at step 2|run the same command to start over)"
)


def _left(command: str, kept: str = "run the same command to start over") -> str:
    return f"nbg {command}: stopped by {{signal}}; {kept}"


RECIPE = _left("recipe", "step pretrain was stopped; run the same command to resume it")


QUESTIONS, BUILT = (
    f"{what} are kept; run the same command to resume" for what in ("finished questions", "finished parts")
)
KINDS = {"grpo": "GRPO", "ahead": "GRPO, answers sampled ahead"}
GRPO = {"config": "grpo", "moment": "checkpoints/step-00000002"}
AHEAD = {**GRPO, "config": "ahead"}  # with the engine in its own process
TORCHRUN = {"launcher": "torchrun", "ranks": 2, "code": 1}
CASES = [
    *(
        Case(f"{number.name}-group", number)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    ),
    Case("process", signal.SIGTERM, "process"),
    *(Case(f"workers-{n}", signal.SIGTERM, options=("--data.init_args.num_workers", str(n))) for n in (0, 2)),
    Case("twice", signal.SIGTERM, times=2),
    Case("two-ranks-group", signal.SIGTERM, ranks=2),
    Case("two-ranks-first", signal.SIGINT, "process", ranks=2),
    Case("two-ranks-second", signal.SIGHUP, "rank 1", ranks=2),
    Case("two-ranks-twice", signal.SIGTERM, ranks=2, times=2),
    Case("two-ranks-killed", signal.SIGKILL, "process", ranks=2),
    Case("torchrun-group", signal.SIGTERM, **TORCHRUN),
    Case("torchrun-process", signal.SIGTERM, "process", **TORCHRUN),
    Case("killed", signal.SIGKILL, "process"),
    Case("importing", signal.SIGINT, moment="start", words=NOTHING_YET),
    Case("setting-up", signal.SIGTERM, moment=".lock", words=NOTHING_YET),
    Case("validate", signal.SIGTERM, moment="tensorboard", command="validate", words=_left("validate")),
    Case("test", signal.SIGINT, moment="tensorboard", command="test", words=_left("test")),
    Case("predict", signal.SIGHUP, moment="tensorboard", command="predict", words=_left("predict")),
    Case("grpo", signal.SIGTERM, **GRPO),
    Case("grpo-two-ranks", signal.SIGTERM, "rank 1", ranks=2, **GRPO),
    *(
        Case(f"ahead-{number.name}-{target}", number, target, **AHEAD)
        for number in (signal.SIGTERM, signal.SIGINT)
        for target in ("process", "group")
    ),
    Case("ahead-twice", signal.SIGTERM, times=2, **AHEAD),
    Case("ahead-killed", signal.SIGKILL, "process", **AHEAD),
    Case("ahead-two-ranks", signal.SIGTERM, "rank 1", ranks=2, **AHEAD),
    Case(
        "suite",
        signal.SIGTERM,
        moment="benchmarks/*/arithmetic.jsonl",
        command="test",
        config="suite",
        words=_left("test"),
    ),
    Case(
        "pass-rate",
        signal.SIGTERM,
        moment="ledger.part-0000.jsonl",
        command="pass-rate",
        config="grpo",
        options=("--output", "{place}/ledger.parquet", "--n", "4"),
        words=_left("pass-rate", QUESTIONS),
    ),
    Case(
        "build-cache",
        signal.SIGINT,
        moment="teacher-*/index.bin",
        command="build-cache",
        config="preferences",
        options=("--out", "{place}", "-k", "4", "--batch-tokens", "64"),
        words=_left("build-cache", BUILT),
    ),
    Case(
        "build-pairs",
        signal.SIGTERM,
        moment="*.jsonl",
        command="build-pairs",
        config="pairs",
        options=("--out", "{place}"),
        words=_left("build-pairs", BUILT),
    ),
    Case(
        "build-corpus",
        signal.SIGTERM,
        moment=".lock",
        command="build-corpus",
        config="corpus",
        options=("--out", "{place}"),
        words=_left("build-corpus", BUILT),
    ),
    Case(
        "recipe",
        signal.SIGTERM,
        moment="pretrain/checkpoints/step-00000004",
        command="recipe",
        config="recipe",
        options=("--folder", "{place}"),
        words=RECIPE,
    ),
]


@dataclass(frozen=True)
class Outcome:
    """The result of a case."""

    code: int
    output: str
    checkpoints: list[str]
    left: int

    def row(self, case: Case) -> str:
        """Its row in the table of docs/stopping.md."""
        more = [case.launcher] * (case.launcher != "nbg") + [f"{case.ranks} ranks"] * (case.ranks > 1)
        if case.command == "fit" and case.config in KINDS:
            more.append(KINDS[case.config])
        more += [f"`{' '.join(case.options)}`"] * (case.command == "fit" and bool(case.options))
        kind = ", ".join([f"`{case.command}`", *more])
        sent = f"{case.number.name}{' twice' if case.times > 1 else ''} to {case.target}"
        newest = self.checkpoints[-1] if self.checkpoints else "none"
        return f"| {kind} | {case.moment} | {sent} | {self.code} | {newest} | {self.left} |"

    def faults(self, case: Case) -> list[str]:
        """Deviations from the expected result."""
        found = [f"exit code {self.code}, not {case.right_code}"] * (self.code != case.right_code)
        found += [f"{self.left} processes are left"] * (self.left > 0)
        found += ["a traceback is shown"] * (not case.clean(self.output))
        found += [f"the last words are {self.output.splitlines()[-1:]}"] * (not case.said(self.output))
        half = [name for name in self.checkpoints if not name.removeprefix("step-").isdigit()]
        return found + [f"half a checkpoint: {name}" for name in half if case.number != signal.SIGKILL]


def run(case: Case, configs: dict[str, str], folder: Path) -> Outcome:
    """Start a case, send its signals, and wait for its end."""
    place = folder / case.name
    log = folder / f"{case.name}.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            case.line(configs, place),
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            env=launchable_environment(),
        )
    try:
        _wait_for(case, place, process)
        for _ in range(case.times):
            _send(case, process)
            if case.times > 1:
                time.sleep(1.5)
        code = process.wait(STOP_SECONDS)
    except (RuntimeError, subprocess.TimeoutExpired):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    time.sleep(LEFT_SECONDS)
    found = sorted(path.name for path in place.glob("**/checkpoints/step-*"))
    return Outcome(code, log.read_text(), found, len(_members(process.pid)))


def _wait_for(case: Case, place: Path, process: subprocess.Popen[bytes]) -> None:
    if case.moment == "start":
        time.sleep(1.0)
        return
    end = time.monotonic() + START_SECONDS
    while not any(place.glob(case.moment)):
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
        started = (member for member, parent in _members(process.pid).items() if parent == process.pid)
        other = next(member for member in started if b"LOCAL_RANK=1" in _environment(member))  # its workers have it too
        os.kill(other, case.number)


def _members(group: int) -> dict[int, int]:
    """The living processes of a group, each with its parent."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent, of_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(of_group) == group and state != "Z":
                found[int(entry.name)] = int(parent)
    return found


def _environment(process: int) -> list[bytes]:
    try:
        return Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def main() -> int:
    """Run all cases, or those that are named."""
    folder, names = Path(sys.argv[2]), set(sys.argv[3:])
    configs = make_inputs(folder / "inputs", sys.argv[1])
    wrong = 0
    for case in CASES:
        if not names or case.name in names:
            outcome = run(case, configs, folder)
            print(outcome.row(case), flush=True)
            for fault in outcome.faults(case):
                wrong += 1
                print(f"{case.name}: {fault} ({folder / case.name}.log)", file=sys.stderr)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
