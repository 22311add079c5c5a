"""The source of a training step's answers: sampled synchronously, ahead of the step, or read from a ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nbg_lightning import log, stopping
from nbg_lightning.core.fingerprint import weights_fingerprint
from nbg_lightning.distributed import broadcast_object, gather_objects, get_rank, get_world_size
from nbg_lightning.engines.capabilities import AttachableEngine, ComparableEngine, StagingEngine
from nbg_lightning.engines.chat import ChatFormat
from nbg_lightning.engines.native import NativeEngine
from nbg_lightning.engines.protocol import Engine, Sampling
from nbg_lightning.engines.separate import SeparateEngine
from nbg_lightning.engines.server_pool import ServerPool
from nbg_lightning.engines.supervised import probe_ids
from nbg_lightning.engines.weights import weight_stream
from nbg_lightning.error_line import first_line
from nbg_lightning.rl.ahead import RolloutsAhead, StepOrder
from nbg_lightning.rl.collector import Collected, PromptedQuestions, RolloutCollector
from nbg_lightning.rl.ledger import FOLDER, DrawnStep, RolloutLedger, check_replay, wall_clock
from nbg_lightning.rl.pending import PendingGroup
from nbg_lightning.rl.policy_loss import probe_of
from nbg_lightning.rl.rollout_settings import RolloutSettings

SETTLE_SECONDS = 30.0  # that a stop waits for pending answers; without them a resumed run samples different ones


@dataclass(frozen=True)
class RunOfSteps:
    """Everything that the answers of a run's steps depend on.

    Attributes:
        model: the live weights.
        device: device of the live weights.
        format: chat format of prompts and answers.
        questions: returns this rank's questions of a step.
        sampling: sampling settings.
        num_steps: number of steps of the data's plan.
        trained_steps: maximum number of steps of this run.
        folder: folder of the run.
        settings: settings that determine the answers, for the ledger.
        num_questions: this rank's number of questions in the first step.
    """

    model: Any
    device: torch.device
    format: ChatFormat
    questions: Callable[[int], PromptedQuestions]
    sampling: Callable[[int], Sampling]
    num_steps: int
    trained_steps: int
    folder: Path
    settings: Mapping[str, Any]
    num_questions: int


class TrainingRollouts:
    """Provides the answers of each step, according to `RolloutSettings`.

    With ``max_staleness`` k, the weights of every step s are staged as soon as its answers are available, and the answers
    of step s + k are ordered with them: these are sampled while steps s to s + k - 1 are trained. The first k steps use the
    initial weights. So the version is a function of the step, max(0, s - k), and the same seed reproduces the run.

    Args:
        collector: samples answers synchronously, and owns the reward.
        settings: settings of rollouts.
        dtype: compute dtype of the weights.

    Raises:
        ValueError: an engine that cannot sample ahead.
    """

    def __init__(self, collector: RolloutCollector, settings: RolloutSettings, dtype: str):
        self.collector, self.settings, self.dtype = collector, settings, dtype
        given = collector.engine
        self.native = given is None or (isinstance(given, NativeEngine) and not isinstance(given, StagingEngine))
        self._engine: Engine | None = None
        if collector.environment is not None and (name := _without_environment(settings)) is not None:
            raise ValueError(f"{name} is invalid with an environment, whose answers have turns; leave it out")
        if settings.replay is not None:
            RolloutLedger.at(settings.replay)  # raises if it cannot be read
        elif settings.max_staleness:
            self._engine = _staging_engine(given, settings.max_staleness, dtype)
            if not self.native:  # validation uses the same engine between steps; otherwise it uses the live weights
                collector.engine = self._engine
        self._run: RunOfSteps | None = None
        self._ahead: RolloutsAhead | None = None
        self._ledger: RolloutLedger | None = None
        self._written_by: str | None = None  # id of the ledger of the run that is resumed
        self._first = 0

    # -- life ----------------------------------------------------------------------------------------------------------

    def open(self, run: RunOfSteps, step: int, resumed: bool) -> None:
        """Start with a step. Collective.

        Args:
            run: everything that the answers depend on.
            step: the first step.
            resumed: whether the weights come from a checkpoint of this run.

        Raises:
            ValueError: the ledger belongs to another run or is damaged, the environment does not support asynchronous
                sampling, or the token budget is too small.
        """
        self._run, self._first = run, step
        self.collector.close_later(self._forget)
        if self.settings.replay is not None:
            self._ledger = RolloutLedger.at(self.settings.replay)
            weights = None if resumed else weights_fingerprint(run.model)
            steps = range(step, run.trained_steps)
            check_replay(self._ledger, run.settings, weights, steps)
            _check_whole(self._ledger, steps)
            return
        self._check_budget(run.sampling(step).n, run.num_questions)
        if self.settings.keeps_ledger:
            self._ledger = self._own_ledger(run, step, resumed)
        if self.settings.max_staleness:
            if self.collector.environment is not None and get_world_size() > 1:
                raise ValueError(
                    "max_staleness is invalid with an environment on several ranks, which draw its turns together; set it to 0"
                )
            self._begin_ahead(run, step)

    def _check_budget(self, n: int, num_questions: int) -> None:
        """Raise if the token budget does not suffice for one token per answer."""
        budget = self.settings.token_budget
        if budget is not None and budget < (answers := n * sum(gather_objects(num_questions))):
            raise ValueError(
                f"token_budget is invalid: {budget:,} tokens for the {answers:,} answers of a step; give {answers:,} times their "
                "mean length"
            )

    def _forget(self) -> None:
        self._run = self._ahead = self._ledger = None

    @property
    def is_open(self) -> bool:
        """Whether the run's first step has started."""
        return self._run is not None

    def _own_ledger(self, run: RunOfSteps, step: int, resumed: bool) -> RolloutLedger:
        weights = weights_fingerprint(run.model)
        problem = None
        folder = run.folder / FOLDER
        if get_rank() == 0:
            try:
                self._continued_or_new(run, folder, weights, step, resumed)
            except OSError as error:
                problem = f"the ledger {folder} cannot be written: {first_line(error)}"
        if (problem := broadcast_object(problem)) is not None:
            raise ValueError(problem)
        return RolloutLedger(folder)

    def _continued_or_new(self, run: RunOfSteps, folder: Path, weights: str, step: int, resumed: bool) -> None:
        if resumed and self._written_by is not None:
            try:
                ledger = RolloutLedger(folder)
                if ledger.run == self._written_by:
                    ledger.forget_after(step)
                    return
                reason = "it is of another run"
            except (FileNotFoundError, ValueError) as error:
                reason = first_line(error)
            lost = ", and questions that were carried over are left out" if self.settings.carry_over else ""
            log.warn(
                f"the ledger of the run that is resumed is not there ({reason}): what was under way is drawn again{lost}"
            )
        RolloutLedger.create(folder, run.settings, weights, step)

    def _begin_ahead(self, run: RunOfSteps, step: int) -> None:
        k, engine = self.settings.max_staleness, self._engine
        assert engine is not None
        close_engine: Callable[[], None] = partial(engine.__exit__, None, None, None)
        if not self.native:
            close_engine = self.collector.open_engine(run.model, run.device).close
        elif isinstance(engine, AttachableEngine):
            engine.attach(run.model)
            engine.__enter__()
        shape = run.model.shape
        budget = self.settings.token_budget
        ahead = RolloutsAhead(
            self.collector,
            engine,
            run.format,
            shape.max_position_embeddings,
            self._ledger,
            get_rank(),
            None if budget is None else budget // get_world_size(),
        )
        self._ahead = ahead
        restore = _share_threads(engine, run.device)

        def end() -> None:
            ahead.close()
            close_engine()
            ahead.join()
            if isinstance(engine, SeparateEngine | ServerPool):
                engine.close()
            restore()

        self.collector.close_later(end)
        self._stage(step)
        there = self._there(range(step, min(step + k, run.num_steps)))
        ahead.carry(self._carried_to(step, there))
        for each in range(step, min(step + k + 1, run.num_steps)):
            if each in there:
                ahead.put(there[each])
            else:
                self._order(each, step)

    def _there(self, steps: range) -> dict[int, DrawnStep]:
        """Answers in the ledger that a stopped run had already sampled; on all ranks or on none."""
        assert self._run is not None
        found: dict[int, DrawnStep] = {}
        for step in steps if self._ledger is not None else ():
            try:
                n = self._run.sampling(step).n
                found[step] = self._ledger.read(step, self._run.questions, n, self._run.format)  # type: ignore[union-attr]  # without a ledger there are no steps here
            except ValueError:
                break
        number = min(gather_objects(len(found)))
        return {step: found[step] for step in list(found)[:number]}

    def _carried_to(self, step: int, there: Mapping[int, DrawnStep]) -> Sequence[PendingGroup]:
        """Questions that continue in the first step to be ordered."""
        assert self._run is not None
        if there:
            return there[max(there)].carried
        if self._ledger is None or step == 0:
            return []
        return self._ledger.read_carried(step - 1, self._run.questions, self._run.sampling(step).n, self._run.format)

    # -- one step ------------------------------------------------------------------------------------------------------

    def collect(self, batch: PromptedQuestions, step: int) -> Collected | None:
        """The scored answers of a step; None, on all ranks, if a signal requests to drop the work.

        Raises:
            EngineDied: the engine failed.
            ValueError, RuntimeError: answers that cannot be trained on.
        """
        assert self._run is not None
        run, begin, asked = self._run, time.perf_counter(), wall_clock()
        if self.settings.replay is not None:
            assert self._ledger is not None

            def questions(asked: int) -> PromptedQuestions:
                return batch if asked == step else run.questions(asked)

            drawn = self._ledger.read(step, questions, run.sampling(step).n, run.format)
            return Collected(drawn.rollouts, {"replay": time.perf_counter() - begin})
        if self._ahead is None:
            return self._in_turn(batch, step, asked)
        found = self._ahead.take(step)
        if found is None:
            return None
        waited, had = time.perf_counter() - begin, wall_clock()
        begin = time.perf_counter()
        if step > self._first:
            self._stage(step)
            if step + self.settings.max_staleness < run.num_steps:
                self._order(step + self.settings.max_staleness, step)
        if self._ledger is not None and get_rank() == 0:
            self._ledger.note(step, asked, had)
        seconds = {**found.seconds, "trainer_idle": waited, "sync": time.perf_counter() - begin}
        return Collected(found.rollouts, seconds)

    def _in_turn(self, batch: PromptedQuestions, step: int, asked: float) -> Collected | None:
        assert self._run is not None
        engine = self.collector.open_engine(self._run.model, self._run.device)
        sampling = self._run.sampling(step)
        found = self.collector.collect(batch, self._run.format, sampling, step, self.settings.token_budget)
        engine.rest()
        if found is None or self._ledger is None:
            return found
        had = wall_clock()
        times = (asked, had - found.seconds["reward"], had)
        rollouts = [replace(rollout, step=step) for rollout in found.rollouts]
        drawn = DrawnStep(step, step, rollouts, found.seconds, times)
        self._ledger.write(drawn, get_rank(), sampling.seed, self._run.format)
        if get_rank() == 0:
            self._ledger.note(step, asked, had)
        return found

    def _stage(self, version: int) -> None:
        assert self._run is not None and self._ahead is not None
        run, engine, probe = self._run, self._ahead.engine, None
        if isinstance(engine, ComparableEngine):
            probe = probe_of(run.model, probe_ids(run.questions(version).prompts), run.device)
        self._ahead.stage(weight_stream(run.model, getattr(torch, self.dtype)), version, probe)

    def _order(self, step: int, version: int) -> None:
        assert self._run is not None and self._ahead is not None
        run = self._run
        carry_over = self.settings.carry_over if step + 1 < run.num_steps else 0  # no step follows the last
        self._ahead.order(StepOrder(step, version, run.questions(step), run.sampling(step), carry_over))

    def paused(self) -> AbstractContextManager[None]:
        """Keep background sampling off the engine and the reward inside the block."""
        return nullcontext() if self._ahead is None else self._ahead.paused()

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint. Waits for pending answers, so that a resumed run finds them in the ledger."""
        if self._ahead is not None:
            current = stopping.current()
            stops = current is not None and current.received is not None
            if not self._ahead.settle(SETTLE_SECONDS if stops else 2 * self.settings.deadline):
                log.warn("answers under way are not in the ledger: a run that is resumed draws them with newer weights")
        return {} if self._ledger is None else {"ledger": self._ledger.run}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the identity of the ledger that a checkpoint's run wrote."""
        self._written_by = state.get("ledger")


def _without_environment(settings: RolloutSettings) -> str | None:
    """The setting that requires single-turn answers."""
    return "token_budget" if settings.token_budget is not None else "carry_over" if settings.carry_over else None


def _check_whole(ledger: RolloutLedger, steps: range) -> None:
    """Raise for a damaged ledger, on all ranks alike; the first one reads it."""
    problem = None
    if get_rank() == 0:
        try:
            ledger.check(steps)
        except ValueError as error:
            problem = first_line(error)
    if (problem := broadcast_object(problem)) is not None:
        raise ValueError(problem)


def _staging_engine(engine: Engine | None, slots: int, dtype: str) -> Engine:
    """The engine, or a separate process around it, that can receive weights while it samples."""
    if isinstance(engine, ServerPool):
        engine.kept_weights += slots
    if isinstance(engine, StagingEngine):
        return engine
    if engine is None or isinstance(engine, AttachableEngine):
        return SeparateEngine(engine, slots, dtype)
    raise ValueError(
        f"max_staleness is invalid with {type(engine).__name__}, which cannot be given weights while it draws; use NativeEngine, "
        "VLLMEngine or ServerPool"
    )


def _share_threads(engine: Engine, device: torch.device) -> Callable[[], None]:
    """Give some of this process's threads to the engine's process if both compute on a CPU; returns a function that undoes
    it.
    """
    before = torch.get_num_threads()
    if device.type != "cpu" or not isinstance(engine, SeparateEngine):
        return lambda: None
    torch.set_num_threads(max(1, before - engine.num_threads))
    return lambda: torch.set_num_threads(before)
