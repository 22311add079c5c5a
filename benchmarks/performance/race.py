"""Common parts of the races against other libraries: environments and processes of peers, clocks, and alternating runs.

A script that races another library runs twice: as itself, and as a peer with that library's Python, where every line of standard
input is a request (with TRL: one training run) and every line of standard output a JSON answer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import subprocess
import sys
import time
import venv
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

HERE = Path(__file__).parent
CLOCKS = ("wall", "processor")
Rates = dict[str, float]
Ends = list[tuple[float, float]]

SHAPE = dict(
    vocab_size=8192,
    hidden_size=256,
    intermediate_size=768,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    max_position_embeddings=4096,
    tie_word_embeddings=True,
)

TRL_SETTINGS = dict(  # of every TRL trainer here: nothing but training is timed
    gradient_checkpointing=False,
    use_cpu=True,
    bf16=False,
    report_to=[],
    save_strategy="no",
    logging_strategy="no",
    disable_tqdm=True,
    dataloader_pin_memory=False,
    optim="adamw_torch_fused",
)


def rates(tokens: int, ends: Ends, warm_up_steps: int = 1) -> Rates:
    """Tokens per second from the end of the last warm-up step to that of the last step, in wall-clock and processor time."""
    wall, processor = (last - first for first, last in zip(ends[warm_up_steps - 1], ends[-1], strict=True))
    return {"wall": tokens / wall, "processor": tokens / processor}


def now() -> tuple[float, float]:
    """Both clocks."""
    return time.perf_counter(), time.process_time()


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every race."""
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--environments", type=Path, default=Path.home() / ".cache" / "nbg_lightning")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every race with TRL."""
    add_common_arguments(parser)
    parser.add_argument("--without-trl", action="store_true")
    parser.add_argument("--trl-process", help=argparse.SUPPRESS)


def settings_of(arguments: argparse.Namespace) -> dict[str, str]:
    """The options as the result keeps them."""
    hidden = ("trl_process", "peer_process", "environments")
    return {k: str(v) for k, v in vars(arguments).items() if k not in hidden}


def begin(arguments: argparse.Namespace) -> None:
    """Threads and quiet libraries, on our side."""
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    import torch

    torch.set_num_threads(arguments.threads)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "nbg_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


def our_trainer(folder: Path, steps: int, ends: Ends, *callbacks: Any) -> Any:
    """Our trainer, which does nothing but train and note when each step ends."""
    import lightning.pytorch as pl

    from nbg_lightning import Trainer

    class Clock(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            ends.append(now())

    return Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        default_root_dir=str(folder / "run"),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        limit_val_batches=0,
        callbacks=[*callbacks, Clock()],
    )


def alternate(sides: dict[str, Callable[[], Rates]], repeats: int) -> dict[str, dict[str, list[float]]]:
    """The rates of every side by each clock; the first round warms up, and every other one runs backwards."""
    found: dict[str, dict[str, list[float]]] = {clock: {name: [] for name in sides} for clock in CLOCKS}
    for repeat in range(-1, repeats):
        for name in list(sides) if repeat % 2 else list(reversed(sides)):
            rate = sides[name]()
            print(name, {clock: round(value) for clock, value in rate.items()}, file=sys.stderr)
            if repeat >= 0:
                for clock in CLOCKS:
                    found[clock][name].append(rate[clock])
    return found


# -- peers -------------------------------------------------------------------------------------------------------------


def environment(name: str, folder: Path) -> Path:
    """The Python of the environment of ``requirements-<name>.txt``, which is created if it does not exist."""
    requirements = HERE / f"requirements-{name}.txt"
    place = folder / f"{name}-{hashlib.blake2b(requirements.read_bytes(), digest_size=4).hexdigest()}"
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        print(f"making {place}: some minutes", file=sys.stderr)
        venv.create(place, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", str(requirements)], check=True)
        (place / "complete").touch()
    return python


class Peer:
    """A process that answers requests in JSON.

    Args:
        python: its Python interpreter.
        script: the file that it runs.
        option: option of the script that makes it a peer.
        settings: value of the option.
    """

    def __init__(self, python: Path | str, script: str, option: str, settings: dict[str, Any]):
        command = [str(python), script, option, json.dumps(settings)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def answer(self) -> dict[str, Any]:
        """The next one, waited for."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a peer's process ended with exit code {self.process.wait()}: see its messages above")
        return json.loads(line)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer to a question."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


def begin_peer(settings: dict[str, Any]) -> TextIO:
    """What a peer's process does first: a way for answers that no library prints into, threads, quiet."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import torch

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(settings["threads"])
    return answers


def say(answers: TextIO, value: dict[str, Any]) -> None:
    """Answer a question."""
    answers.write(json.dumps(value) + "\n")
    answers.flush()


# -- TRL ---------------------------------------------------------------------------------------------------------------


class Trl:
    """TRL, in a new process for every training run, as its users run it, since earlier runs in a process change its speed.

    Args:
        script: the script to run there, with ``--trl-process``.
        arguments: arguments of the script, which are passed on.
        others: further settings.
    """

    def __init__(self, script: str, arguments: argparse.Namespace, **others: Any):
        self.script, self.python = script, environment("trl", arguments.environments)
        self.settings = {**{k: v for k, v in vars(arguments).items() if k != "environments"}, **others}
        with self._process() as (_, self.about):
            pass

    def run(self, side: str) -> Rates:
        """The rates of one training."""
        with self._process() as (peer, _):
            return peer.ask({"side": side})

    @contextmanager
    def _process(self) -> Iterator[tuple[Peer, dict[str, Any]]]:
        peer = Peer(self.python, self.script, "--trl-process", self.settings)
        try:
            yield peer, peer.answer()
        finally:
            peer.close()


def answer(answers: TextIO, about: dict[str, Any], train: Callable[[str, Ends, Any], Rates]) -> None:
    """Life of the process with TRL: for every line a training.

    Args:
        answers: as `begin_peer` gave them.
        about: TRL's settings, the first answer.
        train: a function of the side, of the list in which ends of steps will stand, and of the callback that notes them.
    """
    import torch
    import trl
    from transformers import TrainerCallback

    say(answers, {"trl": trl.__version__, "torch": torch.__version__, **about})
    for line in sys.stdin:
        ends: Ends = []

        class Clock(TrainerCallback):
            def on_step_end(self, args, state, control, ends=ends, **_):  # type: ignore[no-untyped-def]
                ends.append(now())

        torch.manual_seed(0)
        say(answers, train(json.loads(line)["side"], ends, Clock()))
