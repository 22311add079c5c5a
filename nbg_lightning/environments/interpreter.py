"""A Python interpreter as a tool: cells run in the sandbox, and share state."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nbg_lightning.data.question import Question
from nbg_lightning.environments.environment import EpisodeLimits, ModelTurn, Opening, Reply
from nbg_lightning.environments.tools import ToolEnvironment
from nbg_lightning.scoring.sandbox.sandbox import Sandbox
from nbg_lightning.scoring.sandbox.session import SandboxSession

FILES = "files"
"""In the data of a question: files of the working folder, texts by relative path."""
_SHARE = 0.5  # share of a reply's time that its cells may take together
_LOST = "the interpreter was ended, and what earlier cells defined is gone"


class PythonEnvironment(ToolEnvironment):
    """The model may run Python cells, whose state persists over its turns; a turn without a call is its answer, scored by
    the reward.

    Each episode has its own sandbox (`SandboxSession`): no network, no access to the host's files, limits on time, memory,
    processes, disk and output. Between turns all its processes are stopped; at the end of the episode they are killed. The
    result of a cell is what it prints, its traceback, and the value of its last expression. A cell that times out or ends
    the interpreter loses all definitions. Counted are ``cells``, ``cell_errors``, ``cell_timeouts``, ``lost_sessions``.

    A question's ``data`` may have ``files``: texts by relative path, in the working directory.

    Args:
        timeout: seconds per cell.
        memory: megabytes of address space per process.
        processes: maximum number of processes in a sandbox.
        output: kilobytes of output per cell; more is truncated.
        packages: installed packages that cells may import in addition to the standard library, such as ``numpy``.
        instruction: text of a system turn, for questions without one.
        show_tools: whether the prompt includes the tool's schema.
        limits: limits of the episodes.

    Raises:
        ValueError: invalid limits, a package that is not installed, or no time for a cell in ``limits.step_seconds``.
    """

    def __init__(
        self,
        timeout: float = 5.0,
        memory: int = 512,
        processes: int = 16,
        output: int = 8,
        packages: Sequence[str] = (),
        instruction: str | None = None,
        show_tools: bool = True,
        limits: EpisodeLimits = EpisodeLimits(step_seconds=60.0),  # noqa: B008 - never mutated
    ):
        if timeout >= limits.step_seconds:
            raise ValueError(
                f"timeout is invalid: {timeout:g}; give less than limits.step_seconds={limits.step_seconds:g}, in which all "
                "calls of a turn are run"
            )
        self.settings: dict[str, Any] = {
            **{"timeout": timeout, "memory": memory, "processes": processes, "output": output},
            "packages": tuple(packages),
        }
        sandbox_of(**self.settings)  # refuses what cannot be
        super().__init__([self.python], instruction, show_tools, limits)
        self._session: SandboxSession | None = None
        self._counts: dict[str, int] = {}
        self._failure, self._end = "", 0.0

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        sandbox_of(**self.settings).probe()  # once, in the process that episodes are forked from

    def reset(self, question: Question) -> Opening:
        self._session = SandboxSession(sandbox_of(**self.settings), question.data.get(FILES))
        return super().reset(question)

    def step(self, turn: ModelTurn) -> Reply:
        self._counts, self._failure = {}, ""
        self._end = time.monotonic() + _SHARE * self.limits.step_seconds
        reply = super().step(turn)
        if self._failure:
            return Reply(status="error", detail=self._failure)
        return replace(reply, counts={**reply.counts, **self._counts})

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    def python(self, code: str) -> str:
        """Run Python code, and see what it prints and the value of its last expression. Names stay defined from call to call.

        Args:
            code: the code.
        """
        assert self._session is not None
        left = self._end - time.monotonic()
        if left <= 0:
            return "error: the calls of this turn have taken all its time; this one was not run"
        result = self._session.run(code, min(left, float(self.settings["timeout"])))
        self._count("cells")
        if result.status == "error":
            self._failure = result.detail
        if result.status == "failed":
            self._count("cell_errors")
        if result.status not in ("timeout", "killed"):
            return result.stdout or "(no output)"
        self._count("lost_sessions")
        if result.status == "timeout":
            self._count("cell_timeouts")
        return f"{result.stdout}error: {result.detail}; {_LOST}"

    def _count(self, name: str) -> None:
        self._counts[name] = self._counts.get(name, 0) + 1


@functools.cache
def sandbox_of(**settings: Any) -> Sandbox:
    """The sandbox with these settings; its isolation is determined once per process."""
    return Sandbox(**settings)
