"""An engine managed by a trainer: opened, kept in sync with its weights, and restarted if it dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nbg_lightning import log
from nbg_lightning.distributed import gather_objects
from nbg_lightning.engines.capabilities import AttachableEngine, ComparableEngine, Probe, RestingEngine, RoundingEngine
from nbg_lightning.engines.protocol import Completion, Engine, Prompt, Sampling
from nbg_lightning.error_line import first_line

if TYPE_CHECKING:
    from nbg_lightning.core.model import LanguageModel


class EngineDied(RuntimeError):
    """The engine failed, was restarted, and failed again."""


class SupervisedEngine:
    """An engine on every rank, which generates with the weights of a model in training.

    All methods are collective. Weights are pushed if the engine has another version; after a push, an engine that can be compared
    (`ComparableEngine`, such as `VLLMEngine`) must reproduce the trainer's log-probs of a probe.

    Args:
        engine: any engine; an `AttachableEngine` gets the model before it is entered.
        model: the live weights.
        make_probe: computes the trainer's log-probs of given ids; called on all ranks.
    """

    def __init__(self, engine: Engine, model: LanguageModel, make_probe: Callable[[tuple[int, ...]], Probe]):
        self.engine, self.model, self.make_probe = engine, model, make_probe
        self.seconds_of_sync = 0.0
        self._opened = False

    def open(self) -> None:
        """Start the engine."""
        if isinstance(self.engine, AttachableEngine):
            self.engine.attach(self.model)
        self.engine.__enter__()
        self._opened = True
        self.version: int | None = None

    def close(self) -> None:
        """End the engine; does nothing if it is not open."""
        if self._opened:
            self._opened = False
            self.engine.__exit__(None, None, None)

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, deadline: float | None, version: int
    ) -> list[list[Completion]]:
        """Continue every prompt with the weights of this version.

        An engine has died if it raises, or if it returns only errors. Then it is restarted once, on all ranks.

        Raises:
            EngineDied: on all ranks, if one of them still has no answers.
        """
        found: list[list[Completion]] | None = None
        reasons: list[str] = []
        for attempt in range(2):
            failure = None
            try:
                if attempt:
                    self._reopen()
                self._sync(prompts, version)
                made = self.engine.generate(prompts if found is None else [], sampling, deadline)
                if found is None:
                    failure = failure_of(made)
                    found = made if failure is None else None
            except Exception as error:
                failure = first_line(error)
            reasons = [reason for reason in gather_objects(failure) if reason is not None]
            if not reasons:
                assert found is not None
                return found
            if attempt == 0:
                log.warn(f"the engine died at step {version} ({reasons[0]}): it is started again")
        raise EngineDied(f"the engine died twice at step {version}: {reasons[0]}")

    def rest(self) -> None:
        """Let an engine that can (`RestingEngine`) release its memory; it gets weights before it generates again."""
        if isinstance(self.engine, RestingEngine) and self.engine.rest():
            self.version = None

    def _reopen(self) -> None:
        try:
            self.close()
        except Exception as error:
            log.warn(f"the dead engine could not be closed: {first_line(error)}")
        self.open()

    def _sync(self, prompts: Sequence[Prompt], version: int) -> None:
        if self.version == version:
            return
        from nbg_lightning.engines.weights import weight_stream

        begin = time.perf_counter()
        copy = self.engine if isinstance(self.engine, ComparableEngine) else None
        probe = None if copy is None else self.make_probe(probe_ids(prompts))
        dtype = self.engine.weight_dtype if isinstance(self.engine, RoundingEngine) else None
        stream = weight_stream(self.model, dtype)
        try:
            self.engine.sync(stream, version)
        except Exception:
            for _ in stream:  # the other ranks are gathering these weights too
                pass
            raise
        if copy is not None and probe is not None:
            copy.check(probe)
        self.version = version
        self.seconds_of_sync = time.perf_counter() - begin


def probe_ids(prompts: Sequence[Prompt]) -> tuple[int, ...]:
    """The longest prompt, padded to two tokens, since the first token is not predicted."""
    longest = max((prompt.ids for prompt in prompts), key=len, default=())
    return longest + (0,) * (2 - len(longest))


def failure_of(completions: Sequence[Sequence[Completion]]) -> str | None:
    """The first error among a call's completions, if all are errors; otherwise None."""
    samples = [completion for group in completions for completion in group]
    if samples and all(completion.finish_reason == "error" for completion in samples):
        return samples[0].error or "all completions are errors"
    return None
