"""`nbg init JOB [FOLDER]`: a config with comments, a small data file, and the commands to type."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from nbg_lightning.commands.parser import CommandParser
from nbg_lightning.suggestion import did_you_mean

STAND_IN = "runs/pretrain"  # the run of the commands of `pretrain`: a model to begin with
_OTHER_SCHEMAS = ("recipe.yaml",)  # configs that belong to neither training nor test
_BASE = "BASE"  # in a config: the model that it begins with
_CPU = "--config configs/trainer/cpu.yaml"
_PRETRAIN = f"nbg fit --config pretrain.yaml {_CPU}"


@dataclass(frozen=True)
class Job:
    """What a user wants to do.

    Attributes:
        about: in a few words.
        files: that it needs, without those of the stand-in for a model.
        commands: to type in the folder, with what each of them is for.
        needs_model: it begins with a model; without one of the user's, a small one is pretrained first.
    """

    about: str
    files: tuple[str, ...]
    commands: Mapping[str, str]
    needs_model: bool = True


JOBS: Mapping[str, Job] = {
    "pretrain": Job(
        "pretraining on your own text, from random weights",
        ("pretrain.yaml", "texts.jsonl"),
        {
            "nbg schedule pretrain.yaml --prepared": "see what it will read",
            _PRETRAIN: "train",
            f'nbg generate {STAND_IN} "A cell is"': "see what it writes",
        },
        needs_model=False,
    ),
    "continue": Job(
        "continued pretraining of a model",
        ("continue.yaml", "texts.jsonl"),
        {
            f"nbg fit --config continue.yaml {_CPU}": "train",
            'nbg generate runs/continue "A cell is"': "see what it writes",
        },
    ),
    "sft": Job(
        "SFT on your own conversations",
        ("sft.yaml", "chats.jsonl"),
        {
            "nbg data preview sft.yaml": "see which tokens are trained",
            f"nbg fit --config sft.yaml {_CPU}": "train",
            "nbg chat runs/sft": "talk to it",
        },
    ),
    "dpd": Job(
        "preference optimization on your own pairs (DPO; DPD with a teacher)",
        ("dpd.yaml", "pairs.jsonl"),
        {
            "nbg data preview dpd.yaml": "see which tokens are trained",
            f"nbg fit --config dpd.yaml {_CPU}": "train",
            "nbg chat runs/dpd": "talk to it",
        },
    ),
    "grpo": Job(
        "reinforcement learning on your own questions",
        ("grpo.yaml", "questions.jsonl"),
        {
            "nbg data preview grpo.yaml": "see the prompts",
            f"nbg fit --config grpo.yaml {_CPU}": "train",
            "nbg chat runs/grpo": "talk to it",
        },
    ),
    "environment": Job(
        "reinforcement learning over several turns, in an environment of your own",
        ("environment.yaml", "guess.py", "secrets.jsonl"),
        {
            f"nbg fit --config environment.yaml {_CPU}": "train",
            "nbg view runs/environment": "look at its episodes",
        },
    ),
    "benchmark": Job(
        "a benchmark of your own questions",
        ("benchmark.yaml", "quiz.jsonl"),
        {f"nbg test --config benchmark.yaml {_CPU}": "measure"},
    ),
    "recipe": Job(
        "pretraining, SFT, DPD, GRPO and a benchmark in one go, with a report",
        (
            *("recipe.yaml", "pretrain.yaml", "sft.yaml", "dpd.yaml", "grpo.yaml", "benchmark.yaml"),
            *("texts.jsonl", "chats.jsonl", "pairs.jsonl", "questions.jsonl", "quiz.jsonl"),
        ),
        {"nbg recipe recipe.yaml --dry-run": "see the steps", "nbg recipe recipe.yaml": "run them"},
        needs_model=False,
    ),
}


def main(argv: list[str]) -> int:
    """Run the command.

    Raises:
        ValueError: there is no such job.
        FileExistsError: a file is there already; nothing is written then.
    """
    arguments = parser().parse_args(argv)
    if arguments.job is None:
        width = max(map(len, JOBS))
        print(
            "\n".join(["nbg init JOB [FOLDER]", "", *(f"  {name:<{width}}  {job.about}" for name, job in JOBS.items())])
        )
        return 0
    if arguments.job not in JOBS:
        meant = did_you_mean(arguments.job, JOBS)
        raise ValueError(f"job is invalid: {arguments.job}{meant}; there are {', '.join(JOBS)}")
    job, folder = JOBS[arguments.job], Path(arguments.folder or arguments.job).expanduser()
    if arguments.model is not None and not job.needs_model:
        raise ValueError(f"--model has no effect: {arguments.job} begins with random weights; leave it out")
    written = write(job, folder, arguments.model)
    print(f"wrote to {folder}: {', '.join(written)}\n\nNow run:\n\n{commands(job, folder, arguments.model)}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = CommandParser(
        prog="nbg init",
        description="Start a project: writes a commented config and a small data file, and prints the commands to run.",
    )
    made.add_argument("job", nargs="?", metavar="JOB", help=", ".join(JOBS))
    made.add_argument("folder", nargs="?", metavar="FOLDER", help="folder to create (default: the name of the job)")
    made.add_argument("--model", metavar="NAME", help="start from this checkpoint, Hugging Face folder or hub name")
    return made


def write(job: Job, folder: Path, model: str | None = None) -> list[str]:
    """Write a job's files.

    Args:
        job: what is to be done.
        folder: is made; files in it are never overwritten.
        model: that it begins with; None for a small stand-in.

    Returns:
        The names of the files.

    Raises:
        FileExistsError: one of them is there; nothing is written.
    """
    stand_in = JOBS["pretrain"].files if job.needs_model and model is None else ()
    names = list(dict.fromkeys((*job.files, *stand_in)))
    if there := [name for name in names if (folder / name).exists()]:
        raise FileExistsError(
            f"folder is invalid: {folder} has {there[0]} already; give another folder, or move it away"
        )
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"folder is invalid: {folder}; it is a file: give another name")
    folder.mkdir(parents=True, exist_ok=True)
    base = STAND_IN if model is None else _as_yaml(model)
    for name in names:
        text = (files("nbg_lightning.commands") / "starts" / name).read_text("utf-8")
        with (folder / name).open("x", encoding="utf-8") as file:
            if name.endswith(".yaml") and name not in _OTHER_SCHEMAS:
                schema = files("nbg_lightning.configs") / "schema.json"
                file.write(f"# yaml-language-server: $schema={schema}\n")
            file.write("".join(_with_model(line, base) for line in text.splitlines(keepends=True)))
    return names


def _with_model(line: str, model: str) -> str:
    """A config line with the model's name filled in; a comment after it follows two spaces behind."""
    return re.sub(r" {2,}#", "  #", line.replace(_BASE, model)) if _BASE in line else line


def _as_yaml(model: str) -> str:
    """A model's name as YAML; a folder is found from everywhere."""
    import json

    path = Path(model).expanduser()
    return json.dumps(str(path.resolve()) if path.exists() else model, ensure_ascii=False)


def commands(job: Job, folder: Path, model: str | None = None) -> str:
    """The commands to type, one per line, each with its purpose."""
    first = {}
    if job.needs_model and model is None:
        first = {_PRETRAIN: "a small placeholder for your model (or nbg init with --model NAME)"}
    lines = {f"cd {shlex.quote(str(folder))}": "", **first, **job.commands}
    width = max(map(len, lines))
    return "\n".join(f"  {line:<{width}}  # {about}" if about else f"  {line}" for line, about in lines.items())
