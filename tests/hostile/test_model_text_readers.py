"""No hostile text makes a reader raise, hang, execute it, or accept it as right."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hostile_texts import DEEP, DEEPER, LARGE, LONG, NESTED, REPEATED, answers
from model_text_readers import BENCHMARKS, READERS, asked_of

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


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_right_answer_is_right(benchmark):
    right = ("7919", "J", "Evelyn", '[f(x="Evelyn")]')
    assert [asked_of(BENCHMARKS[benchmark], text) for text in right].count(1.0) in (1, 2)  # else nothing is shown below


# -- time -----------------------------------------------------------------------------------------------------------------

PIECES = [*REPEATED, *(begin for begin, _ in NESTED)]
TIMES, GROWTH, SPARE = 3, 2.0, 0.05  # a text `TIMES` as long may take `TIMES * GROWTH` as long, and `SPARE` seconds


def seconds(reader: str, text: str, runs: int = 3) -> float:
    """Processor time of this process, the least of some runs."""
    taken = []
    for _ in range(runs):
        begin = time.process_time()
        asked_of(READERS[reader], text)
        taken.append(time.process_time() - begin)
        if taken[-1] < SPARE / 2:
            break
    return min(taken)


def out_of_proportion(reader: str, pieces: list[str], length: int) -> list[str]:
    """Pieces of which a text takes more than `GROWTH` times what its length explains."""
    found = []
    for piece in pieces:
        short, long = (piece * (size // len(piece)) for size in (length // TIMES, length))
        limit = TIMES * GROWTH * seconds(reader, short, runs=1) + SPARE
        # One run each says that it is linear; what seems not to be is measured again.
        if seconds(reader, long, runs=1) > limit and (taken := seconds(reader, long)) > limit:
            found.append(f"{piece!r}: {taken:.2f} s for {length:,} characters")
    return found


@pytest.mark.parametrize(("place", "reader"), enumerate(READERS))
def test_time_is_linear(place, reader):
    """Every reader with a twelfth of the pieces, other ones for each."""
    assert out_of_proportion(reader, PIECES[place % 12 :: 12], 60_000) == []


# A text of a megabyte takes half a second, and every text of every reader would take hours: each has its own share, so that
# each piece is given to two or three readers.
SHARE = 24


@pytest.mark.slow
@pytest.mark.parametrize(("place", "reader"), enumerate(READERS))
def test_time_is_linear_up_to_a_megabyte(place, reader):
    assert out_of_proportion(reader, PIECES[place % SHARE :: SHARE], LARGE) == []


@pytest.mark.slow
@pytest.mark.parametrize(("place", "reader"), enumerate(READERS))
def test_no_long_text_breaks_a_reader(place, reader, watch):
    """Every text that is not long, and a share of those that are."""
    texts = answers(watch.canary, (DEEP, DEEPER), LARGE)
    long = [name for name, text in texts.items() if len(text) > LONG]
    left_out = set(long).difference(long[place % SHARE :: SHARE])
    assert problems(reader, {name: text for name, text in texts.items() if name not in left_out}, watch) == []
