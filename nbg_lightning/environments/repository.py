"""Repository tasks: the model reads and edits a small repository, and tests that it cannot change decide the score."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nbg_lightning.data.question import Question
from nbg_lightning.environments.environment import EpisodeLimits, ModelTurn, Opening, Reply
from nbg_lightning.environments.interpreter import sandbox_of
from nbg_lightning.environments.repository_tests import TestFile, named_tests
from nbg_lightning.environments.tools import ToolEnvironment

MAX_FILES, MAX_BYTES = 500, 2_000_000
"""Of a repository, with what the model writes."""
_SHARE = 0.5  # share of a reply's time that test runs may take together
_SKIPPED = {".git", "__pycache__", ".pytest_cache", ".venv", "node_modules"}
_RUNNER = """
import importlib.util, inspect, sys, traceback
sys.path[:0] = ["", "src"]
passed = failed = 0
for number, path in enumerate(sys.argv[1:]):
    spec = importlib.util.spec_from_file_location(f"tests_{number}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        failed += 1
        print(f"ERROR {path}\\n{traceback.format_exc(limit=-3)}")
        continue
    for name, test in list(vars(module).items()):
        if name.startswith("test") and inspect.isfunction(test):
            try:
                test()
                passed += 1
            except BaseException:
                failed += 1
                print(f"FAILED {path}::{name}\\n{traceback.format_exc(limit=-3)}")
print(f"{passed} passed, {failed} failed")
"""


class RepositoryEnvironment(ToolEnvironment):
    """The model fixes or extends a Python repository with tools; a turn without a call ends the episode.

    The question's ``data`` has ``repository`` (a folder, or texts by relative path), ``fail_to_pass`` and ``pass_to_pass``
    (names of tests, ``tests/test_cart.py::test_total``), and optionally ``hidden_tests`` (texts by path, which the model
    never sees). The score is 1 if all named tests pass, else 0.

    Tests are taken from the question, never from files that the model may have edited, and run in another process than the
    repository's code (`Sandbox.check`): neither a ``conftest.py`` nor an exit nor output of the code can affect the result.
    They must be functions without arguments, with assertions, that import what they use from the repository.

    Args:
        root: folder that relative ``repository`` paths refer to.
        timeout: seconds per test run.
        memory: megabytes of address space per process.
        packages: installed packages that code and tests may import in addition to the standard library.
        instruction: text of a system turn, for questions without one.
        show_tools: whether the prompt includes the tools' schemas.
        limits: limits of the episodes.
    """

    def __init__(
        self,
        root: str = ".",
        timeout: float = 10.0,
        memory: int = 1024,
        packages: Sequence[str] = (),
        instruction: str | None = None,
        show_tools: bool = True,
        limits: EpisodeLimits = EpisodeLimits(max_turns=20, step_seconds=120.0),  # noqa: B008 - never mutated
    ):
        if timeout >= limits.step_seconds:
            raise ValueError(
                f"timeout is invalid: {timeout:g}; give less than limits.step_seconds={limits.step_seconds:g}"
            )
        self.root = root
        self.settings: dict[str, Any] = {"timeout": timeout, "memory": memory, "packages": tuple(packages)}
        sandbox_of(**self.settings)  # refuses what cannot be
        tools: list[Callable[..., str]] = [
            self.list_files,
            self.read_file,
            self.write_file,
            self.replace_text,
            self.run_tests,
        ]
        super().__init__(tools, instruction, show_tools, limits)
        self.files: dict[str, bytes] = {}
        self._tests: list[TestFile] = []
        self._end = 0.0

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        sandbox_of(**self.settings).probe()  # once, in the process that episodes are forked from

    # -- an episode ----------------------------------------------------------------------------------------------------

    def reset(self, question: Question) -> Opening:
        data = question.data
        self.files = self._load(data.get("repository"))
        names = [*data.get("fail_to_pass", ()), *data.get("pass_to_pass", ())]
        if not names:
            raise ValueError("the question has neither fail_to_pass nor pass_to_pass; name tests, path::function")
        originals = {**self.files, **{path: text.encode() for path, text in data.get("hidden_tests", {}).items()}}
        self._tests = named_tests(names, originals)
        return super().reset(question)

    def step(self, turn: ModelTurn) -> Reply:
        self._end = time.monotonic() + _SHARE * self.limits.step_seconds
        return super().step(turn) if turn.calls else self._graded()

    def _graded(self) -> Reply:
        """The test results of the current files."""
        sandbox, passed, detail = sandbox_of(**self.settings), 0, ""
        for each in self._tests:
            if (left := self._left()) <= 0:
                detail = f"{each.path}: the tests have taken all the time of a reply"
                break
            result = sandbox.check(each.program, each.tests, setup=each.setup, timeout=left, files=self.files)
            if result.status == "error":
                return Reply(status="error", detail=f"{each.path}: {result.detail}")
            if result.status != "ok":
                detail = f"{each.path}: {result.detail or result.status}"
                break
            passed += 1
        score = float(passed == len(self._tests))
        return Reply(done=True, score=score, detail=detail, counts={"test_files_passed": passed})

    def _left(self) -> float:
        """Seconds available for a test run, so that all runs of the turn end before the reply is late."""
        return min(float(self.settings["timeout"]), self._end - time.monotonic())

    def _load(self, given: Any) -> dict[str, bytes]:
        if isinstance(given, Mapping):
            found = {str(path): str(text).encode("utf-8", "surrogatepass") for path, text in given.items()}
        elif isinstance(given, str):
            found = read_folder(Path(self.root, given).expanduser())
        else:
            raise ValueError("the question's data has no repository; give a folder, or texts by relative path")
        _check_files(found)
        return found

    # -- tools ---------------------------------------------------------------------------------------------------------

    def list_files(self) -> str:
        """List the files of the repository, with their numbers of lines."""
        return "\n".join(f"{path} ({self.files[path].count(10)} lines)" for path in sorted(self.files))

    def read_file(self, path: str, first: int = 1, last: int = 200) -> str:
        """Read lines of a file, each with its number.

        Args:
            path: of the file.
            first: number of the first line.
            last: number of the last line.
        """
        lines = self._text(path).splitlines()[max(0, first - 1) : last]
        return "\n".join(f"{number}\t{line}" for number, line in enumerate(lines, max(1, first))) or "(no such lines)"

    def write_file(self, path: str, content: str) -> str:
        """Write a file, new or in the place of another.

        Args:
            path: of the file.
            content: all of it.
        """
        return self._write(path, content)

    def replace_text(self, path: str, old: str, new: str) -> str:
        """Replace a text that stands once in a file.

        Args:
            path: of the file.
            old: the text, with enough around it that it stands there once.
            new: what stands there then.
        """
        text = self._text(path)
        if (number := text.count(old) if old else 0) != 1:
            raise ValueError(f"the old text stands {number} times in {path}; give one that stands there once")
        return self._write(path, text.replace(old, new))

    def run_tests(self, path: str = "") -> str:
        """Run the repository's tests, all or those of one file.

        Args:
            path: of a file of tests.
        """
        chosen = [path] if path else [each for each in sorted(self.files) if Path(each).name.startswith("test_")]
        if path:
            self._text(path)
        if (left := self._left()) <= 0:
            raise ValueError("the calls of this turn have taken all its time; run the tests in the next one")
        result = sandbox_of(**self.settings).run(_RUNNER, self.files, timeout=left, arguments=chosen)
        if result.status == "error":
            raise RuntimeError(result.detail)
        return "\n".join(filter(None, (result.stdout, result.stderr, "" if result else result.detail)))

    def _text(self, path: str) -> str:
        if path not in self.files:
            raise ValueError(f"there is no file {path!r:.200}; list_files names them")
        return self.files[path].decode("utf-8", "replace")

    def _write(self, path: str, text: str) -> str:
        changed = {**self.files, path: text.encode("utf-8", "replace")}
        _check_files(changed)
        self.files = changed
        return f"{path} has {text.count(chr(10))} lines"


def read_folder(folder: Path) -> dict[str, bytes]:
    """All files of a folder by relative path; links and caches are skipped.

    Raises:
        ValueError: it is not a folder, or exceeds the limits.
    """
    if not folder.is_dir():
        raise ValueError(f"repository is invalid: {folder}; give a folder")
    found: dict[str, bytes] = {}
    size = 0
    for place in sorted(folder.rglob("*")):
        path = place.relative_to(folder)
        if _SKIPPED & set(path.parts) or place.is_symlink() or not place.is_file():
            continue
        size += place.stat().st_size
        if len(found) >= MAX_FILES or size > MAX_BYTES:
            raise ValueError(
                f"repository is invalid: {folder}; leave out files, {MAX_FILES} and {MAX_BYTES:,} bytes are the most"
            )
        found[path.as_posix()] = place.read_bytes()
    return found


def _check_files(files: Mapping[str, bytes]) -> None:
    """Raise for invalid files of a folder.

    Raises:
        ValueError: a path outside, one that is both a file and a folder, or too much data.
    """
    for path in files:
        parts = path.split("/")
        if not all(part not in ("", ".", "..") and len(part.encode("utf-8", "replace")) <= 255 for part in parts):
            raise ValueError(f"the path {path!r:.200} is invalid; give a relative one inside the repository")
        if not path.isprintable() or len(parts) > 20:
            raise ValueError(f"the path {path!r:.200} is invalid; give a plain one")
        above = ["/".join(parts[:end]) for end in range(1, len(parts))]
        if taken := next((each for each in above if each in files), None):
            raise ValueError(f"the path {path!r:.200} is invalid: {taken!r} is a file")
    size = sum(map(len, files.values()))
    if len(files) > MAX_FILES or size > MAX_BYTES:
        raise ValueError(
            f"the repository would have {len(files)} files and {size:,} bytes; at most {MAX_FILES} and {MAX_BYTES:,}"
        )
