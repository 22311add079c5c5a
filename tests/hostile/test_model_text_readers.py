"""No text that a model may write makes a reader raise, hang, run it, or find it right."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hostile_texts import DEEP, DEEPER, LARGE, answers
from model_text_readers import READERS, asked_of

SECONDS, SECONDS_PER_MEGABYTE = 2.0, 15.0  # of the processor, for one text: what hangs takes minutes


class OutOfTime(BaseException):
    """A reader takes longer than any text is worth."""


@contextmanager
def clock(text: str) -> Iterator[None]:
    """Processor time for one text."""

    def stop(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS + SECONDS_PER_MEGABYTE * len(text) / 1e6)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


class Watch:
    """Notes what this process runs or opens, while it is on: an audit hook cannot be taken out again."""

    def __init__(self, canary: str):
        self.canary, self.seen, self.on = canary, [], False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.on:
            return
        runs = event in (
            "os.system",
            "os.exec",
            "os.posix_spawn",
            "os.fork",
            "subprocess.Popen",
            "pickle.find_class",
            "exec",
        )
        if runs or (event == "open" and self.canary in str(arguments[0])):
            self.seen.append((event, str(arguments)[:200]))


@pytest.fixture(scope="module")
def watch(tmp_path_factory):
    return Watch(str(tmp_path_factory.mktemp("canary") / "touched"))


def problems(reader: str, texts: dict[str, str], watch: Watch) -> list[str]:
    found = []
    for name, text in texts.items():
        watch.seen.clear()
        begin = time.process_time()
        try:
            with clock(text):
                watch.on = True
                score = asked_of(READERS[reader], text)
                watch.on = False
        except (Exception, OutOfTime) as error:
            watch.on = False
            found.append(
                f"{name}: {type(error).__name__} after {time.process_time() - begin:.1f} s: {str(error)[:100]}"
            )
            continue
        if score:
            found.append(f"{name}: the score is {score}")
        if watch.seen:
            found.append(f"{name}: it ran {watch.seen[0]}")
    return found


@pytest.mark.parametrize("reader", READERS)
def test_no_text_breaks_a_reader(reader, watch):
    texts = answers(watch.canary)
    asked_of(READERS[reader], "7")  # its imports are its own
    assert problems(reader, texts, watch) == []
    assert not os.path.exists(watch.canary)


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_no_long_text_breaks_a_reader(reader, watch):
    assert problems(reader, answers(watch.canary, (DEEP, DEEPER), LARGE), watch) == []
