"""Metrics of a reinforcement learning step: sums that can be added over ranks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from nbg_lightning.environments.episode import Episode
from nbg_lightning.environments.measures import episode_measures
from nbg_lightning.losses.policy_gradient import LOG_RATIO_LIMIT, kl_value, log_ratio
from nbg_lightning.rewards.bad_cases import bad_case

if TYPE_CHECKING:
    from nbg_lightning.core.head import TokenStatistics
    from nbg_lightning.engines.protocol import Completion
    from nbg_lightning.rl.policy_loss import PolicyTerms
    from nbg_lightning.rl.rollout_batch import RolloutBatch
    from nbg_lightning.rl.rollouts import Rollout

_RATIO_QUANTILE = 0.99


@dataclass
class RolloutSummary:
    """Statistics of a step's answers; plain types, so that ranks can exchange it.

    Attributes:
        sums: name to (total, count).
        seconds: duration of each part on this rank.
        longest: length of the longest answer in tokens.
        micro_batches: number of forward passes that this rank needs.
        answers: answers sampled.
        truncated: answers truncated by the length limit.
        first_problem: why the first answer without a score has none.
        OF_VALIDATION: name prefixes of the metrics that a validation logs.
    """

    OF_VALIDATION: ClassVar = (
        "reward/",
        "pass_rate/",
        "rollout/truncated",
        "rollout/errors",
        "rollout/length",
        "rollout/bad_cases",
    )

    sums: dict[str, tuple[float, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    longest: int = 0
    micro_batches: int = 0
    answers: int = 0
    truncated: int = 0
    tokens: int = 0
    first_problem: str = ""

    @classmethod
    def of(cls, rollouts: Sequence[Rollout], seconds: Mapping[str, float], micro_batches: int) -> RolloutSummary:
        """The summary of one rank."""
        values: dict[str, list[float]] = defaultdict(list)
        problems: list[str] = []
        for rollout in rollouts:
            if rollout.advantages and any(result.status != "unscored" for result in rollout.results):
                values["rollout/zero_variance"].append(float(rollout.zero_variance))
            values["rollout/trained"] += map(float, rollout.trained)
            for answer, result in zip(rollout.answers, rollout.results, strict=True):
                values["rollout/length"].append(float(len(answer.completion.ids)))
                values["rollout/truncated"].append(float(answer.completion.finish_reason == "length"))
                if rollout.step is not None:
                    values["rollout/staleness"].append(_staleness(rollout.step, answer.completion))
                    values["rollout/carried"].append(float(rollout.is_carried))
                values["rollout/dropped"].append(float(answer.completion.finish_reason in ("deadline", "budget")))
                if isinstance(answer, Episode):
                    _add_episode(values, answer)
                elif answer.completion.finish_reason in ("stop", "length"):
                    found = bad_case(answer)
                    values["rollout/bad_cases"].append(float(found is not None))
                    values["rollout/loop"].append(float(found == "loop"))
                    values["rollout/no_end"].append(float(found == "no_end"))
                    values["rollout/malformed"].append(float(found == "malformed"))
                if result.status == "unscored":
                    continue
                values["rollout/errors"].append(float(result.score is None))
                if result.score is None:
                    problems.append(f"{result.status}: {result.detail}")
                    continue
                for name in ("mean", rollout.question.source):
                    if name:
                        values[f"reward/{name}"].append(result.score)
                        values[f"pass_rate/{name}"].append(float(result.is_right))
        return cls(
            {name: (math.fsum(of_name), float(len(of_name))) for name, of_name in values.items()},
            dict(seconds),
            int(max(values["rollout/length"], default=0)),
            micro_batches,
            len(values["rollout/length"]),
            int(sum(values["rollout/truncated"])),
            int(sum(values["rollout/length"])),
            problems[0] if problems else "",
        )

    @classmethod
    def joined(cls, parts: Sequence[RolloutSummary]) -> RolloutSummary:
        """Add up all ranks; durations are those of the slowest."""
        sums: dict[str, tuple[float, float]] = {}
        seconds: dict[str, float] = {}
        for part in parts:
            for name, (total, count) in part.sums.items():
                before = sums.get(name, (0.0, 0.0))
                sums[name] = before[0] + total, before[1] + count
            for name, value in part.seconds.items():
                seconds[name] = max(value, seconds.get(name, 0.0))
        return cls(
            sums,
            dict(seconds),
            max(part.longest for part in parts),
            max(part.micro_batches for part in parts),
            sum(part.answers for part in parts),
            sum(part.truncated for part in parts),
            sum(part.tokens for part in parts),
            next((part.first_problem for part in parts if part.first_problem), ""),
        )

    def add_imbalance(self, drawn: Sequence[int], trained: Sequence[int]) -> None:
        """Add the load imbalance of ranks: the maximum of their positions over the mean.

        Args:
            drawn: positions of the answers that each rank has sampled.
            trained: positions of the answers that each rank trains on.
        """
        for name, positions in (("rollout/imbalance", drawn), ("rollout/imbalance_trained", trained)):
            if total := sum(positions):
                self.sums[name] = max(positions) * len(positions) / total, 1.0

    def metrics(self) -> dict[str, float]:
        """Means by metric name; those with a count of 0 are absent."""
        found = {name: total / count for name, (total, count) in self.sums.items() if count}
        found |= {f"time/{name}": value for name, value in self.seconds.items()}
        found["rollout/longest"] = float(self.longest)
        if self.seconds.get("engine"):
            found["rollout/tokens_per_second"] = self.tokens / self.seconds["engine"]
        return found

    def validation_metrics(self) -> dict[str, float]:
        """Means over held-out questions by metric name."""
        return {f"val/{name}": value for name, value in self.metrics().items() if name.startswith(self.OF_VALIDATION)}


def _staleness(step: int, completion: Completion) -> float:
    """Age in steps of the weights that sampled an answer, as a mean over its tokens."""
    if not completion.ids:
        return float(step - completion.weight_version)
    return math.fsum((step - version) * tokens for version, tokens in completion.segments) / len(completion.ids)


def _add_episode(values: dict[str, list[float]], episode: Episode) -> None:
    """Add the statistics of an episode: its turns, how it ended, and the counters of its environment."""
    for name, measure in episode_measures(episode).items():
        values[f"episode/{name}"].append(measure)


class PolicyRecord:
    """Sums over the completion tokens of a step, accumulated on the device."""

    def __init__(self) -> None:
        self._sums: dict[str, list[Tensor]] = defaultdict(list)
        self._drawn: list[Tensor] = []
        self._deviations: list[Tensor] = []
        self._tokens = self._updated = 0

    def add(self, batch: RolloutBatch, statistics: TokenStatistics, found: PolicyTerms) -> None:
        """Add one micro-batch of one update; a no-op without answers."""
        if not batch.num_answers:
            return
        self.add_update(found.clipped)
        if batch.old_log_probs is None:
            log_probs, entropies = (values[: batch.num_trained] for values in statistics)
            self._drawn.append(log_probs.detach())
            self.add_rollouts(log_probs, entropies, batch.engine_log_probs, found.correction)

    def with_old_log_probs(self, micro: Sequence[RolloutBatch]) -> list[RolloutBatch]:
        """The micro-batches of the first update, each with the log-probs that its tokens had in it."""
        drawn = iter(self._drawn)  # in the order of the micro-batches; those without answers are skipped
        found = [next(drawn, None) if batch.num_answers else None for batch in micro]
        return [replace(batch, old_log_probs=own) for batch, own in zip(micro, found, strict=True)]

    def add_update(self, clipped_T: Tensor) -> None:
        """Add one micro-batch of one update."""
        self._sums["policy/clip_share"].append(clipped_T.sum())
        self._updated += len(clipped_T)

    def add_rollouts(
        self, log_probs_T: Tensor, entropies_T: Tensor, engine_log_probs_T: Tensor, correction_T: Tensor
    ) -> None:
        """Add one micro-batch before the first update."""
        log_probs_T = log_probs_T.detach()
        self._tokens += len(log_probs_T)
        self._sums["policy/entropy"].append(entropies_T.detach().double().sum())
        # The engine sampled the tokens: this estimates KL(engine || trainer).
        mismatch = kl_value(engine_log_probs_T, log_probs_T, "k3")
        self._sums["policy/mismatch_kl"].append(mismatch.double().sum())
        deviations = log_ratio(log_probs_T, engine_log_probs_T).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
        uncorrected = torch.isclose(correction_T, deviations.exp()) | (correction_T == 1.0)
        self._sums["policy/corrected_share"].append((~uncorrected).sum())
        self._deviations.append(deviations.abs())

    def on_host(self) -> dict[str, tuple[float, float]]:
        """Totals with their denominators, and the quantile of the ratios on this rank."""
        if not self._updated:
            return {}
        names = list(self._sums)
        deviations = torch.cat(self._deviations)
        rank = max(1, math.ceil(_RATIO_QUANTILE * len(deviations)))
        quantile = deviations.kthvalue(rank).values.exp()  # of max(r, 1 / r)
        values = torch.stack([torch.stack(self._sums[name]).sum().double() for name in names] + [quantile.double()])
        *totals, p99 = values.tolist()
        counts = [self._updated if name == "policy/clip_share" else self._tokens for name in names]
        found = {name: (total, float(n)) for name, total, n in zip(names, totals, counts, strict=True)}
        return {**found, "policy/p99_ratio": (p99, 0.0)}

    @staticmethod
    def joined(parts: Iterable[dict[str, tuple[float, float]]]) -> dict[str, float]:
        """Means over all ranks; the quantile is the largest of all ranks."""
        sums: dict[str, tuple[float, float]] = {}
        for part in parts:
            for name, (total, count) in part.items():
                before = sums.get(name, (0.0, 0.0))
                worst = max(before[0], total) if name == "policy/p99_ratio" else before[0] + total
                sums[name] = worst, before[1] + count
        return {name: total / count if count else total for name, (total, count) in sums.items()}
