"""Asynchronous rollouts: a thread samples and scores the answers of the next steps while the trainer updates the weights."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from torch import Tensor

from nbg_lightning import log, stopping
from nbg_lightning.distributed import gather_objects
from nbg_lightning.engines.capabilities import ComparableEngine, Probe, StagingEngine
from nbg_lightning.engines.chat import ChatFormat
from nbg_lightning.engines.protocol import Completion, Engine, Prompt, Sampling
from nbg_lightning.engines.supervised import EngineDied, failure_of
from nbg_lightning.error_line import first_line
from nbg_lightning.rl.collector import PromptedQuestions, RolloutCollector, check_trainable, pending, stop_asked
from nbg_lightning.rl.ledger import DrawnStep, RolloutLedger, wall_clock
from nbg_lightning.rl.pending import PendingGroup, rollout_of, split_pending
from nbg_lightning.rl.rollouts import Rollout, score_rollouts

_LOOK_SECONDS = 0.1
_SAY_SECONDS = 60.0  # interval of log lines while waiting
_BEYOND_SECONDS = 3600.0  # beyond two deadlines: for starting the engine, and for rewards, which have their own limits
_END_SECONDS = 10.0


@dataclass(frozen=True)
class StepOrder:
    """A request for the answers of a step.

    Attributes:
        step: step that trains on them.
        version: step of the weights that sample them.
        batch: the questions.
        sampling: sampling settings.
        carry_over: number of steps after its own in which a question may be continued.
    """

    step: int
    version: int
    batch: PromptedQuestions
    sampling: Sampling
    carry_over: int = 0


class _Closed(Exception):
    """Raised in the thread when the run ends."""


class RolloutsAhead:
    """Samples and scores the answers of steps in the order in which they are requested, each with the weights of its
    version.

    Methods are collective and called from the main thread; each rank has its own thread and engine. An engine that dies is
    restarted once and samples the same step again, so no question is lost. The answers depend only on seed, step, question
    and version, not on timing.

    Args:
        collector: provides the reward, and samples for validation; it must be open.
        engine: a `StagingEngine`; it must be open.
        format: chat format of prompts and answers.
        window: maximum positions of the model.
        ledger: where answers are recorded, if they are.
        rank: rank of this process.
        budget: token budget of this rank's answers per step; None is unlimited.
    """

    def __init__(
        self,
        collector: RolloutCollector,
        engine: Engine,
        format: ChatFormat,
        window: int,
        ledger: RolloutLedger | None = None,
        rank: int = 0,
        budget: int | None = None,
    ):
        self.collector, self.engine, self.format, self.window = collector, engine, format, window
        self.ledger, self.rank, self.budget = ledger, rank, budget
        self._carried: list[PendingGroup] = []  # for the next step that is sampled
        self._orders: deque[StepOrder] = deque()
        self._drawn: dict[int, DrawnStep | Exception] = {}
        self._under_way: int | None = None
        self._probes: dict[int, Probe] = {}
        self._loaded: int | None = None
        self._dead: EngineDied | None = None
        self._turn, self._busy = threading.Condition(), threading.Lock()
        self._closing = False
        self._state, self._since = "waiting for the first step", time.monotonic()
        self._thread = threading.Thread(target=self._run, name="rollouts-ahead", daemon=True)
        self._thread.start()

    # -- in the main thread --------------------------------------------------------------------------------------------

    def stage(self, weights: Iterable[tuple[str, Tensor]], version: int, probe: Probe | None) -> None:
        """Stage the weights of a version in the engine, for the steps that are ordered with it."""
        assert isinstance(self.engine, StagingEngine)
        self.engine.stage(weights, version)
        if probe is not None:
            self._probes = {version: probe, **dict(list(self._probes.items())[:8])}

    def order(self, order: StepOrder) -> None:
        """Queue a step for sampling."""
        with self._turn:
            self._orders.append(order)
            self._turn.notify_all()

    def put(self, drawn: DrawnStep) -> None:
        """Add existing answers, such as those of a ledger."""
        self._drawn[drawn.step] = drawn

    def carry(self, groups: Sequence[PendingGroup]) -> None:
        """Continue these questions in the step that is ordered next; must precede the first order."""
        self._carried = list(groups)

    def take(self, step: int) -> DrawnStep | None:
        """Wait for the answers of a step.

        Returns:
            None, on all ranks, if a signal on one of them requests to drop the work.

        Raises:
            EngineDied: the engine of a rank failed twice, or a rank has waited for too long.
            ValueError, RuntimeError: answers that cannot be trained on.
        """
        try:
            found: DrawnStep | Exception | None = self._wait(step, self._limit, stops=True)
        except EngineDied as error:
            found = error
        stopped = stop_asked()
        failures = [each for each in gather_objects(str(found) if isinstance(found, EngineDied) else None) if each]
        if stopped:
            return None
        if failures:
            raise EngineDied(failures[0])
        if isinstance(found, Exception):
            raise found
        assert found is not None
        with self._turn:
            self._drawn.pop(step, None)
        return found

    def settle(self, seconds: float) -> bool:
        """Wait until everything that was ordered is sampled and in the ledger; returns whether it is."""
        with self._turn:
            steps = [order.step for order in self._orders]
            steps += [] if self._under_way is None else [self._under_way]
        try:
            return all(self._wait(step, seconds) is not None for step in steps)
        except EngineDied:
            return False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Keep the thread off the engine and the reward inside the block, once its current step is done."""
        begin = time.monotonic()
        while not self._busy.acquire(timeout=_LOOK_SECONDS):
            if time.monotonic() - begin > self._limit:
                raise EngineDied(f"the answers ahead do not end: it is {self._what()}")
        try:
            yield
        finally:
            self._loaded = None  # the engine may have loaded others
            self._busy.release()

    def close(self) -> None:
        """Ask the thread to end, dropping its current work. The engine must be closed too, since the thread may be waiting
        for it.
        """
        with self._turn:
            self._closing = True
            self._orders.clear()
            self._turn.notify_all()

    def join(self) -> None:
        """Wait for the thread to end, after its engine has been closed."""
        self._thread.join(_END_SECONDS)

    @property
    def _limit(self) -> float:
        return 2 * self.collector.deadline + _BEYOND_SECONDS

    def _what(self) -> str:
        return f"{self._state} since {time.monotonic() - self._since:.0f} s"

    def _wait(self, step: int, seconds: float, stops: bool = False) -> DrawnStep | Exception | None:
        """The answers of a step; None on a stop, or if the thread has been closed."""
        begin = said = time.monotonic()
        with self._turn:
            while step not in self._drawn:
                if (stops and stopping.stop_asked()) or not self._thread.is_alive():
                    return None
                self._turn.wait(_LOOK_SECONDS)
                waited = time.monotonic() - begin
                if waited > seconds:
                    raise EngineDied(f"step {step} has no answers after {waited:.0f} s: its engine is {self._what()}")
                if time.monotonic() - said > _SAY_SECONDS:
                    said = time.monotonic()
                    log.info(
                        f"step {step} has been waiting for its answers for {waited:.0f} s: the engine is {self._what()}"
                    )
            return self._drawn[step]

    # -- in the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            begin = time.perf_counter()
            with self._turn:
                while not self._orders and not self._closing:
                    self._turn.wait()
                if self._closing:
                    return
                order = self._orders.popleft()
                self._under_way = order.step
            with self._busy:
                try:
                    idle = time.perf_counter() - begin
                    found: DrawnStep | Exception = self._work(order, idle)
                except _Closed:
                    return
                except Exception as error:
                    found = error
            with self._turn:
                self._say("waiting for the next weights")
                self._under_way = None
                self._drawn[order.step] = found
                self._turn.notify_all()

    def _say(self, state: str) -> None:
        self._state, self._since = state, time.monotonic()

    def _work(self, order: StepOrder, idle: float) -> DrawnStep:
        begin, first = time.perf_counter(), wall_clock()
        rollouts, carried = self._draw(order)
        middle, second = time.perf_counter(), wall_clock()
        check_trainable(rollouts, order.version)
        self._say(f"scoring the answers of step {order.step}")
        self.collector.reward.begin_step(order.step)
        scored = score_rollouts(self.collector.reward, rollouts)
        end = time.perf_counter()
        seconds = {"engine": middle - begin, "reward": end - middle, "engine_idle": idle}
        drawn = DrawnStep(order.step, order.version, scored, seconds, (first, second, wall_clock()), carried)
        if self.ledger is not None and not self._closing:
            self.ledger.write(drawn, self.rank, order.sampling.seed, self.format)
        self._carried = carried
        return drawn

    def _draw(self, order: StepOrder) -> tuple[list[Rollout], list[PendingGroup]]:
        """The answers of a step, restarting the engine once if it dies, and the questions that continue in the next step."""
        if self._dead is not None:
            raise self._dead
        reason = ""
        for attempt in range(2):
            if self._closing:
                raise _Closed
            try:
                if attempt:
                    self._say("starting again")
                    self._reopen()
                self._load(order.version)
                self._say(f"drawing the answers of step {order.step} with the weights of step {order.version}")
                return self._answers(order)
            except _Closed:
                raise
            except Exception as error:
                reason = first_line(error)
            self._loaded = None
            if not attempt and not self._closing:
                log.warn(
                    f"the engine died while it drew the answers of step {order.step} ({reason}): it is started again"
                )
        if self._closing:
            raise _Closed
        self._dead = EngineDied(f"the engine died twice while it drew the answers of step {order.step}: {reason}")
        raise self._dead

    def _answers(self, order: StepOrder) -> tuple[list[Rollout], list[PendingGroup]]:
        """See `_draw`.

        Raises:
            RuntimeError: the engine returned only errors.
            _Closed: a signal requested a stop meanwhile.
        """
        if self.collector.environment is not None:
            played = self.collector.play(order.batch, self.format, order.sampling, self._generate, self.window)
            if played is None:
                raise _Closed
            _check_drawn([[answer.completion for answer in rollout.answers] for rollout in played])
            return [replace(each, step=order.step) for each in played], []
        groups = [*self._carried, *pending(order.batch, order.step)]
        drawn = self.collector.draw(groups, order.sampling, self._generate, self.window, self.budget, _alone)
        _check_drawn([after.completions_since(before) for before, after in zip(groups, drawn, strict=True)])
        trained, carried = split_pending(drawn, order.step, order.carry_over)
        return [replace(rollout_of(group, self.format), step=order.step) for group in trained], carried

    def _generate(self, prompts: Sequence[Prompt], sampling: Sampling, seconds: float) -> list[list[Completion]]:
        return self.engine.generate(prompts, sampling, seconds)

    def _load(self, version: int) -> None:
        if self._loaded == version:
            return
        self._say(f"taking the weights of step {version}")
        self.engine.sync(iter(()), version)
        probe = self._probes.get(version)
        if probe is not None and isinstance(self.engine, ComparableEngine):
            self.engine.check(probe)
        self._loaded = version

    def _reopen(self) -> None:
        try:
            self.engine.__exit__(None, None, None)
        except Exception as error:
            log.warn(f"the dead engine could not be closed: {first_line(error)}")
        self.engine.__enter__()


def _alone(value: object) -> list[object]:
    """The gather function of a rank's thread, which must not communicate with others."""
    return [value]


def _check_drawn(completions: Sequence[Sequence[Completion]]) -> None:
    """Check the completions that an engine just returned.

    Raises:
        RuntimeError: all of them are errors.
        _Closed: answers were truncated by a stop signal, as an engine in this process may do: a resumed run samples them
            again.
    """
    if (reason := failure_of(completions)) is not None:
        raise RuntimeError(reason)
    current = stopping.current()
    stops = current is not None and current.received is not None
    if stops and any(completion.finish_reason == "deadline" for own in completions for completion in own):
        raise _Closed
