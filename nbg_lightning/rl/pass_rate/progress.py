"""Progress of a measurement, with the pass rate so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nbg_lightning.data.progress import Progress


@contextmanager
def meter(enabled: bool, total: int, done: int) -> Iterator[Callable[[int, int, int], None]]:
    """A function that takes numbers of further questions, passes and graded answers, and displays progress.

    Args:
        enabled: whether to display it.
        total: number of questions.
        done: questions finished by an earlier run.
    """
    passes = graded = 0
    with Progress("pass rates", total, enabled, unit="questions") as progress:
        progress.advance(done, fresh=False)

        def advance(questions: int, more_passes: int, more_graded: int) -> None:
            nonlocal passes, graded
            passes, graded = passes + more_passes, graded + more_graded
            progress.advance(questions, f"pass rate {passes / max(1, graded):.1%}")

        yield advance
