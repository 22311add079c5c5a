"""Measurement of pass rates."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nbg_lightning import log
from nbg_lightning.data.durable import locked
from nbg_lightning.data.folder_lock import folder_lock
from nbg_lightning.data.question import Question
from nbg_lightning.digests import seal
from nbg_lightning.engines.chat import Answer, ChatModel
from nbg_lightning.engines.protocol import Sampling
from nbg_lightning.environments.driver import EpisodeDriver
from nbg_lightning.environments.environment import Environment
from nbg_lightning.environments.play import play_episodes
from nbg_lightning.environments.reward import EnvironmentReward
from nbg_lightning.rewards.length import answer_length
from nbg_lightning.rewards.protocol import Reward
from nbg_lightning.rl.pass_rate.ledger import PassRate, PassRateLedger, check_file
from nbg_lightning.rl.pass_rate.parts import appended, finished, part_file, part_files
from nbg_lightning.rl.pass_rate.progress import meter
from nbg_lightning.rl.pass_rate.questions import content, identity, is_known, unasked, unique
from nbg_lightning.rl.rollouts import Rollout, score_rollouts


@dataclass
class PassRateFilter:
    """Samples answers to questions, scores them, and writes a ledger.

    It can be killed at any time and continues where it stopped: finished questions are lines of files next to the ledger.
    Questions that a ledger already has for the same weights, sampling and reward are not sampled again.

    Several processes may share the work: process ``i`` of ``k`` takes every ``k``-th question, and the one that finds all
    of them done writes the ledger.

    Args:
        chat_model: an open engine and its chat format.
        reward: scores answers; already entered. None if the environment scores all.
        sampling: sampling settings, with ``n`` answers per question (16 in the paper).
        file: path of the ledger, a ``.parquet`` file.
        about: identity of weights and reward (``weights``, ``fingerprint``, ``reward``, ...), as JSON.
        pass_score: minimum score of a pass.
        prompts_per_call: questions per call of the engine: the most that a kill can lose.
        max_errors: maximum share of answers without a score, above which it stops.
        part: this process's part of the work, and the number of parts: (0, 1) is all.
        progress: show progress.
        environment: environment for multi-turn episodes; without one, an answer is a single turn.
    """

    chat_model: ChatModel
    reward: Reward | None
    sampling: Sampling
    file: Path
    about: dict[str, Any]
    pass_score: float = 1.0
    prompts_per_call: int = 64
    max_errors: float = 0.2
    part: tuple[int, int] = (0, 1)
    progress: bool = True
    environment: Environment | None = None
    identity: dict[str, Any] = field(init=False, repr=False)
    _unfit: dict[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.file = Path(self.file)
        check_file(self.file)
        index, of = self.part
        if not 0 <= index < of:
            raise ValueError(f"part is invalid: {index} of {of}; count parts from 0 to {of - 1}")
        if self.prompts_per_call < 1:
            raise ValueError(f"prompts_per_call is invalid: {self.prompts_per_call}; give at least 1")
        if not 0 <= self.max_errors <= 1:
            raise ValueError(f"max_errors is invalid: {self.max_errors}; give a share from 0 to 1")
        if self.sampling.truncated:
            log.warn("top_p and top_k change the pass rate: training samples by temperature alone")
        if self.environment is None and self.reward is None:
            raise ValueError("reward is invalid: there is none; give one, or an environment that gives scores")
        self._scorer = self.reward if self.environment is None else EnvironmentReward(self.reward)
        self._driver = None if self.environment is None else EpisodeDriver(self.environment)
        self.identity = identity(self.about, self.sampling, self.pass_score)

    def run(self, questions: Sequence[Question], unfit: Mapping[str, str] | None = None) -> PassRateLedger | None:
        """Pass rates of all questions; None if other parts of the work are not done.

        Args:
            questions: the questions; of those with the same key, the first is used.
            unfit: keys of questions that are skipped, with reasons; the ledger has them without answers.

        Raises:
            RuntimeError: too many answers without a score; finished questions are kept.
            FolderInUse: another process does this part of the work.
        """
        self._unfit = dict(unfit or {})
        lock = f".{part_file(self.file, self.part[0]).stem}.lock"
        with folder_lock(self.file.parent, "measures these pass rates", lock):
            return self._run(unique(questions))

    def _run(self, questions: list[Question]) -> PassRateLedger | None:
        index, of = self.part
        mine = [question for question in questions if question.key not in self._unfit][index::of]
        known = finished(self.file, self.identity)
        waiting = [question for question in mine if not is_known(question, known)]
        if len(waiting) < len(mine):
            log.info(f"{len(mine) - len(waiting):,} of {len(mine):,} questions were measured before")
        if waiting:
            with nullcontext() if self._driver is None else self._driver:
                self._measure(waiting, len(mine) - len(waiting))
        return self._collect(questions)

    # -- drawing -------------------------------------------------------------------------------------------------------

    def _measure(self, questions: list[Question], done: int) -> None:
        path = part_file(self.file, self.part[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        errors = answers = 0
        with appended(path, self.identity) as stream, meter(self.progress, len(questions) + done, done) as advance:
            for begin in range(0, len(questions), self.prompts_per_call):
                rows = self.measure(questions[begin : begin + self.prompts_per_call])
                errors += sum(row.errors for row in rows)
                answers += sum(row.n for row in rows)
                if errors > self.max_errors * answers:
                    first = next(row.first_error for row in rows if row.first_error)
                    raise RuntimeError(
                        f"{errors:,} of {answers:,} answers have no score, more than max_errors={self.max_errors:g} allows; "
                        f"first: {first}; fix the reward or the engine and start again: what was measured is kept"
                    )
                stream.write("".join(seal(asdict(row), indent=None) for row in rows))
                stream.flush()
                os.fsync(stream.fileno())
                advance(len(rows), sum(row.passes for row in rows), sum(row.n - row.errors for row in rows))

    def measure(self, questions: Sequence[Question]) -> list[PassRate]:
        """Sample and score answers to some questions."""
        form = self.chat_model.format
        prompts = [form.prompt(question.messages, question.data.get("tools")) for question in questions]
        answers: Iterable[Sequence[Answer]]
        if self._driver is None:
            answers = self.chat_model.write_prompts(prompts, self.sampling)
        else:
            answers = play_episodes(self._driver, self.chat_model.engine, questions, prompts, form, self.sampling)
        drawn = [Rollout(*each, ()) for each in zip(questions, prompts, map(tuple, answers), strict=True)]
        assert self._scorer is not None
        return [self._row(rollout) for rollout in score_rollouts(self._scorer, drawn)]

    def _row(self, rollout: Rollout) -> PassRate:
        scores = rollout.scores
        problems = [result.detail or result.status for result in rollout.results if result.score is None]
        completions = [answer.completion for answer in rollout.answers]
        lengths = [answer_length(a) for a in rollout.answers if a.completion.finish_reason in ("stop", "length")]
        return PassRate(
            key=rollout.question.key,
            source=rollout.question.source,
            n=len(completions),
            passes=sum(score >= self.pass_score for score in scores),
            errors=len(problems),
            mean_score=math.fsum(scores) / len(scores) if scores else None,
            mean_length=sum(lengths) / len(lengths) if lengths else 0.0,
            truncations=sum(c.finish_reason == "length" for c in completions),
            content=content(rollout.question),
            right_lengths=sorted(
                answer_length(answer)
                for answer, result in zip(rollout.answers, rollout.results, strict=True)
                if result.score is not None and result.score >= self.pass_score
            ),
            first_error=" ".join(problems[0].split())[:300] if problems else "",
        )

    # -- the ledger ----------------------------------------------------------------------------------------------------

    def _collect(self, questions: list[Question]) -> PassRateLedger | None:
        with locked(self.file):
            known = finished(self.file, self.identity)
            known |= {q.key: unasked(q, self._unfit[q.key]) for q in questions if q.key in self._unfit}
            missing = sum(not is_known(question, known) for question in questions)
            if missing:
                log.info(
                    f"part {self.part[0]} of {self.part[1]} is done; {missing:,} questions are left to other parts, the "
                    f"last of which writes {self.file}"
                )
                return None
            about = {**self.about, **self.identity, "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
            ledger = PassRateLedger((known[question.key] for question in questions), about)
            ledger.save(self.file)
            for path in part_files(self.file):
                path.unlink()
            return ledger
