"""Third-party checkers in a sandbox that serves many answers; see `nbg_lightning.scoring.checkers`."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import pickle
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbg_lightning import syntax
from nbg_lightning.scoring import checkers
from nbg_lightning.scoring.frames import read_frame, write_frame
from nbg_lightning.scoring.sandbox.isolation import (
    ENVIRONMENT,
    PACKAGES,
    Isolation,
    end_isolated,
    find_isolation,
    isolated_command,
    package_places,
)
from nbg_lightning.scoring.sandbox.seccomp import calculation_filter

START_SECONDS = 60.0  # for a checker's imports, and for the one-time setup of a task
GRACE_SECONDS = 5.0  # in addition to the time limits of reference and answer, which run inside
_INSIDE = "/checkers"
_NLTK = "/nltk_data"
_BOOT = f"import sys; sys.path.insert(0, {_INSIDE!r}); from nbg_lightning.scoring.checkers.server import main; main()"
_PLACES = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class Needs:
    """Imports of a kind of checker.

    Attributes:
        modules: top-level module names.
        install: what to install with pip if they are missing.
    """

    modules: tuple[str, ...]
    install: str


NEEDS = {
    "math": Needs(("math_verify", "sympy"), "math-verify"),
    "reasoning_gym": Needs(("reasoning_gym", "sympy"), "reasoning-gym"),
    "ifeval": Needs(("lm_eval", "langdetect", "immutabledict", "nltk"), "'nbg-lightning[eval]'"),
}


class CheckerFailed(Exception):
    """A checker cannot be started: its packages are missing or fail to import."""


class CheckerProcess:
    """A sandbox that runs one kind of checker.

    Args:
        kind: a key of `NEEDS`, or ``function``.
        function: import path of a user function, for that kind.
        packages: names of packages that the function may import.
        memory: memory limit of an answer in megabytes.

    Raises:
        CheckerFailed: the checker cannot be started.
        RuntimeError: isolation is not available; the message says how to get it.
    """

    def __init__(self, kind: str, function: str = "", packages: Sequence[str] = (), memory: int = 1024):
        isolation, path = checker_isolation(kind, function, tuple(packages))
        self._owner = threading.current_thread()
        information, informer = os.pipe()
        self._information = information
        with tempfile.TemporaryFile() as said, isolated_command(isolation.command, _files(kind)) as (whole, kept):
            whole[-1:-1] = ["--info-fd", str(informer)]
            self._process = subprocess.Popen(
                [*whole, "-I", "-S", "-B", "-c", _BOOT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                pass_fds=[*kept, informer],
                env={**ENVIRONMENT, "NLTK_DATA": _NLTK},
                start_new_session=True,
            )
            os.close(informer)
            assert self._process.stdin is not None and self._process.stdout is not None
            self._jobs, self._replies = self._process.stdin.fileno(), self._process.stdout.fileno()
            os.set_blocking(self._jobs, False)
            self._begin(kind, function, path, memory, said)

    def _begin(self, kind: str, function: str, path: list[str], memory: int, said: Any) -> None:
        filtered = calculation_filter(platform.machine()) or b""
        settings = {
            "kind": kind,
            "function": function,
            "path": path,
            "memory": memory << 20,
            "filter": filtered.hex(),
            "trusted": [*path, _INSIDE, "/usr"],
        }
        end = time.monotonic() + START_SECONDS
        try:
            write_frame(self._jobs, json.dumps(settings).encode(), end)
            reply = json.loads(read_frame(self._replies, end))
        except TimeoutError:
            self.close()
            raise CheckerFailed(f"its imports took more than {START_SECONDS:g} s") from None
        except (OSError, EOFError):
            self.close()
            said.seek(0)
            lines = said.read().decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
            raise CheckerFailed(f"it did not start ({lines[-1][:200]})") from None
        if not reply["ready"]:
            self.close()
            raise CheckerFailed(f"it did not start ({reply['detail'][:200]})")

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        """Whether the process is running; the kernel also ends it with the thread that started it."""
        return self._process.poll() is None and self._owner.is_alive()

    def ask(self, arguments: Sequence[Any], deadline: float) -> dict[str, Any]:
        """Check an answer: returns ``status``, ``value`` if that is ``ok``, and ``detail``.

        Raises:
            TimeoutError: the sandbox does not respond.
            OSError, EOFError: it has ended.
        """
        begin = time.monotonic()
        write_frame(self._jobs, pickle.dumps((deadline, tuple(arguments))), begin + START_SECONDS)
        read_frame(self._replies, begin + START_SECONDS)  # the one-time setup of the task is done
        end = time.monotonic() + 2 * deadline + GRACE_SECONDS
        reply: dict[str, Any] = json.loads(read_frame(self._replies, end))
        return reply

    def close(self) -> None:
        """End the sandbox and all its processes."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        end_isolated(self._process, self._information)
        os.close(self._information)


@functools.cache
def checker_isolation(kind: str, function: str = "", packages: tuple[str, ...] = ()) -> tuple[Isolation, list[str]]:
    """The isolation of a kind of checker, and the locations of its modules inside.

    Raises:
        CheckerFailed: its packages are not installed.
        RuntimeError: isolation is not available; the message says how to get it.
    """
    if kind == "function":
        names = [function.replace(":", ".").partition(".")[0], *packages]
        try:
            places = [place for name in dict.fromkeys(names) for place in package_places(name)]
        except ValueError as error:
            raise CheckerFailed(str(error)) from None
        return find_isolation(disk=16, packages=places), [PACKAGES]
    if kind not in NEEDS:
        raise CheckerFailed(f"there is no such kind; there are {', '.join(NEEDS)} and function PATH")
    missing = [name for name in NEEDS[kind].modules if importlib.util.find_spec(name) is None]
    if missing:
        raise CheckerFailed(f"{', '.join(missing)} is not installed; pip install {NEEDS[kind].install}")
    folders, places = _installed(NEEDS[kind].modules)
    path = [*map(str, folders), *([PACKAGES] if places else [])]
    return find_isolation(disk=16, packages=places, folders=folders), path


def _installed(modules: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Folders of installed packages, and locations of packages elsewhere (editable installs)."""
    folders = [Path(place) for place in sys.path if Path(place).name in _PLACES and Path(place).is_dir()]
    places = [place for name in modules for place in package_places(name)]
    elsewhere = [place for place in places if not any(place.is_relative_to(folder) for folder in folders)]
    return list(dict.fromkeys(folders)), elsewhere


def _files(kind: str) -> dict[str, bytes]:
    """Files to place in the sandbox: the server's modules, our modules that they import, and nltk data that ifeval needs."""
    folder = f"{_INSIDE}/nbg_lightning"
    sources = sorted(Path(checkers.__file__).parent.glob("*.py"))
    files = {f"{folder}/scoring/checkers/{source.name}": source.read_bytes() for source in sources}
    files[f"{folder}/syntax.py"] = Path(syntax.__file__).read_bytes()
    return {**files, **_nltk_files()} if kind == "ifeval" else files


@functools.cache
def _nltk_files() -> dict[str, bytes]:
    """The English sentence splitter, if it was downloaded: ``python -m nltk.downloader punkt_tab``."""
    import nltk

    for folder in nltk.data.path:
        english = Path(folder, "tokenizers", "punkt_tab", "english")
        if english.is_dir():
            inside = f"{_NLTK}/tokenizers/punkt_tab/english"
            return {f"{inside}/{file.name}": file.read_bytes() for file in sorted(english.iterdir()) if file.is_file()}
    return {}
