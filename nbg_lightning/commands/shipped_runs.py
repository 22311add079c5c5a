"""Which of the shipped configs writes a run's folder."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

_FOLDER = re.compile(r"^  default_root_dir: (runs/\S+)", re.MULTILINE)


def made_by(path: str) -> str:
    """The command that creates a missing run, to be part of an error: "make it with nbg fit --config ..., or ".

    Empty if no shipped config writes the run, or more than one does.

    Args:
        path: a run's folder, or something in it, relative to where commands are given.
    """
    if not path.startswith("runs/"):
        return ""
    root = Path(str(files("nbg_lightning.configs")))
    makers = [
        file.relative_to(root)
        for file in sorted(root.rglob("*.yaml"))
        if (found := _FOLDER.search(file.read_text("utf-8"))) and Path(path).is_relative_to(found[1])
    ]
    return f"make it with nbg fit --config configs/{makers[0]}, or " if len(makers) == 1 else ""
