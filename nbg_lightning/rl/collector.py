"""Collecting rollouts: an engine samples answers with the current weights, and a reward scores them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from nbg_lightning import stopping
from nbg_lightning.data.question import Question
from nbg_lightning.distributed import gather_objects
from nbg_lightning.engines.chat import ChatFormat
from nbg_lightning.engines.protocol import Completion, Engine, Prompt, Sampling
from nbg_lightning.engines.supervised import SupervisedEngine
from nbg_lightning.environments.driver import EpisodeDriver, Generate
from nbg_lightning.environments.environment import Environment
from nbg_lightning.environments.reward import EnvironmentReward
from nbg_lightning.rewards.protocol import Reward
from nbg_lightning.rl.pending import DrawLimits, Gather, PendingGroup, draw_groups, rollout_of
from nbg_lightning.rl.policy_loss import probe_of
from nbg_lightning.rl.rollouts import Rollout, score_rollouts

if TYPE_CHECKING:
    import torch

    from nbg_lightning.core.model import LanguageModel


class PromptedQuestions(Protocol):
    """Questions to sample answers for: `QuestionBatch`."""

    questions: list[Question]
    prompts: list[Prompt]


class Collected(NamedTuple):
    """Scored answers, and the seconds spent on this rank in each part: ``sync``, ``engine``, ``reward``."""

    rollouts: list[Rollout]
    seconds: dict[str, float]


class RolloutCollector:
    """Samples answers with the weights of a model in training, and scores them.

    It owns the engine and the reward of a run, from `open_reward` and `open_engine` to `close`. Methods are collective. An
    engine that dies is restarted once, on all ranks (`SupervisedEngine`); if a reward fails for a group, groups are scored
    one by one, so that the others are not affected (`score_rollouts`).

    Args:
        reward: scores answers; None if the environment does.
        engine: samples answers; by default `NativeEngine` on the live weights.
        deadline: seconds that the engine has for the answers of a call. Answers not finished by then have no score.
        environment: environment for multi-turn episodes; without one, an answer is a single turn.

    Raises:
        ValueError: an invalid deadline, or neither reward nor environment.
    """

    def __init__(
        self, reward: Reward | None, engine: Engine | None, deadline: float, environment: Environment | None = None
    ):
        if not deadline > 0:
            raise ValueError(f"rollouts.deadline is invalid: {deadline}; give seconds above 0")
        if environment is not None:
            reward = EnvironmentReward(reward)
        if reward is None:
            raise ValueError("reward is invalid: there is none; give one, or an environment that gives scores")
        self.reward, self.engine, self.deadline = reward, engine, deadline
        self.environment = environment
        self._driver = None if environment is None else EpisodeDriver(environment)
        self._open = ExitStack()
        self._supervised: SupervisedEngine | None = None

    # -- life ----------------------------------------------------------------------------------------------------------

    def open_reward(self) -> None:
        """Start the reward, which raises if it lacks something it needs; whatever an earlier run left open is closed."""
        self.close()
        self._open.enter_context(self.reward)
        if self._driver is not None:
            self._open.enter_context(self._driver)

    def open_engine(self, model: LanguageModel, device: torch.device) -> SupervisedEngine:
        """The engine, opened once per run.

        Args:
            model: the live weights.
            device: device of the live weights, whose log-probs the engine's are compared with if the engine supports it.
        """
        if self._supervised is None:
            engine = self.engine
            if engine is None:
                from nbg_lightning.engines.native import NativeEngine

                engine = NativeEngine(model)
            supervised = SupervisedEngine(engine, model, partial(probe_of, model, device=device))
            supervised.open()
            self._open.callback(supervised.close)
            self._supervised = supervised
        return self._supervised

    def invalidate_engine_weights(self) -> None:
        """Make the engine receive the weights again before it samples the next answers."""
        if self._supervised is not None:
            self._supervised.version = None

    def close_later(self, close: Callable[[], None]) -> None:
        """Register a function to be called in `close`, before the engine is closed."""
        self._open.callback(close)

    def close(self) -> None:
        """Close the engine and the reward."""
        self._supervised = None
        self._open.close()

    # -- work ----------------------------------------------------------------------------------------------------------

    def collect(
        self, batch: PromptedQuestions, format: ChatFormat, sampling: Sampling, version: int, budget: int | None = None
    ) -> Collected | None:
        """Sample and score answers to a batch's questions with the weights of a version; the engine must be open.

        Args:
            batch: this rank's questions.
            format: chat format of prompts and answers.
            sampling: sampling settings of an answer, or of one of its turns.
            version: step of the weights.
            budget: token budget of all ranks' answers together; None is unlimited.

        Returns:
            None, on all ranks, if a signal on one of them requests to drop the work (`stopping.dropping`).

        Raises:
            EngineDied: the engine failed twice.
            ValueError, RuntimeError: answers that cannot be trained on.
        """
        engine = self._supervised
        if engine is None:
            raise RuntimeError("the engine is not open; call open_engine first")
        begin = time.perf_counter()
        engine.seconds_of_sync = 0.0

        def generate(prompts: Sequence[Prompt], turn: Sampling, seconds: float) -> list[list[Completion]]:
            return engine.generate(prompts, turn, seconds, version)

        window = engine.model.shape.max_position_embeddings
        drawn: list[Rollout] | None
        if self.environment is None:
            groups = self.draw(pending(batch, version), sampling, generate, window, budget, gather_objects)
            drawn = [rollout_of(group, format) for group in groups]
        else:
            drawn = self.play(batch, format, sampling, generate, window)
        if stop_asked() or drawn is None:
            return None
        middle = time.perf_counter()
        check_trainable(drawn, version)
        self.reward.begin_step(version)
        scored = stopping.unless_stopped(lambda: score_rollouts(self.reward, drawn))
        if stop_asked() or scored is None:
            return None
        seconds = {
            "sync": engine.seconds_of_sync,
            "engine": middle - begin - engine.seconds_of_sync,
            "reward": time.perf_counter() - middle,
        }
        return Collected(scored, seconds)

    def draw(
        self,
        groups: Sequence[PendingGroup],
        sampling: Sampling,
        generate: Generate,
        window: int,
        budget: int | None,
        gather: Gather,
    ) -> list[PendingGroup]:
        """Sample answers to questions, within a token budget if there is one (`rl.pending`).

        Args:
            groups: the questions, with any partial answers.
            sampling: sampling settings of an answer.
            generate: calls an engine.
            window: maximum positions of the model.
            budget: token budget over all processes of ``gather``.
            gather: gathers over the processes that share the budget.
        """
        return draw_groups(groups, sampling, generate, DrawLimits(self.deadline, window, budget), gather)

    def play(
        self, batch: PromptedQuestions, format: ChatFormat, sampling: Sampling, generate: Generate, window: int
    ) -> list[Rollout] | None:
        """Play the environment's episodes for a batch's questions, without scoring them; None if a signal requests a stop.

        Args:
            batch: the questions.
            format: chat format of prompts and answers.
            sampling: sampling settings of a turn.
            generate: calls an engine.
            window: maximum positions of the model.
        """
        assert self._driver is not None
        self._driver.window = window
        played = self._driver.play(batch.questions, batch.prompts, format, sampling, generate, self.deadline)
        if played is None:
            return None
        return [
            Rollout(question, prompt, answers, ())
            for question, prompt, answers in zip(batch.questions, batch.prompts, played, strict=True)
        ]


def pending(batch: PromptedQuestions, step: int) -> list[PendingGroup]:
    """The questions of a step's batch, without any answers."""
    return [
        PendingGroup(question, prompt, step) for question, prompt in zip(batch.questions, batch.prompts, strict=True)
    ]


def stop_asked() -> bool:
    """Whether a signal has asked any rank to drop the current work. Collective."""
    return any(gather_objects(stopping.stop_asked()))


def check_trainable(rollouts: Sequence[Rollout], version: int) -> None:
    """Raise for answers that cannot be trained on; answers that the engine did not finish are skipped.

    Args:
        rollouts: newly sampled. Answers to a question carried over from an earlier step (`Rollout.is_carried`) may be
            older.
        version: step of the weights that sampled them.

    Raises:
        ValueError: there are no token ids, or required log-probs are missing or not finite.
        RuntimeError: they were sampled with the weights of another version.
    """
    for rollout in rollouts:
        for answer in rollout.answers:
            completion = answer.completion
            if completion.finish_reason not in ("stop", "length"):
                continue
            if not completion.ids:
                raise ValueError("the engine gives texts and no token ids, which cannot be trained on; use another")
            if len(completion.log_probs) != len(completion.ids):
                raise ValueError(
                    "the engine gives no log-probs, which the correction of the loss needs; use another, or have it give them"
                )
            if not all(map(math.isfinite, completion.log_probs)):
                raise ValueError(
                    "the engine gives log-probs that are not finite; let it end such an answer as an error"
                )
            newest = completion.weight_version
            if newest != version and not (rollout.is_carried and newest < version):
                raise RuntimeError(
                    f"the engine answered with the weights of step {newest} in step {version}: "
                    "they were not given to it; report this as a bug of the engine"
                )
