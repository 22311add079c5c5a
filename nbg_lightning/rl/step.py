"""A step's answers as every rank trains them: packed, with as many forwards on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from nbg_lightning.distributed import gather_objects
from nbg_lightning.rl.metrics import RolloutSummary
from nbg_lightning.rl.rollout_batch import (
    RolloutBatch,
    TrainedAnswer,
    pack_answers,
    plan_groups,
    plan_micro_batches,
    trained_answers,
)
from nbg_lightning.rl.rollouts import Rollout


class PackedStep(NamedTuple):
    """This rank's share of a step, what all ranks' answers are like, and the answers of each micro-batch."""

    micro_batches: Sequence[RolloutBatch]
    summary: RolloutSummary
    answers: Sequence[Sequence[TrainedAnswer]]


def pack_step(
    rollouts: Sequence[Rollout],
    seconds: Mapping[str, float],
    micro_batch_tokens: int,
    shortest: int | None,
    device: torch.device,
) -> PackedStep:
    """Pack this rank's trained answers into as many micro-batches as every rank has, and at least one; all ranks together.

    FSDP gathers weights in each forward, so ranks must run the same number of them. One that trains nothing stands in where
    a rank has too few.

    Args:
        rollouts: with advantages, this rank's.
        seconds: that each part of collecting them took (`Collected.seconds`).
        micro_batch_tokens: positions of a micro-batch at most, or one answer.
        shortest: length of a prompt that is computed once for its group, at least (`core.prefixes.shortest_shared`); None
            computes it for each answer.
        device: where the micro-batches are put.
    """
    answers = trained_answers(rollouts)
    if shortest is None:
        plan = plan_micro_batches([answer.positions for answer in answers], micro_batch_tokens)
    else:
        plan = plan_groups(answers, micro_batch_tokens, shortest)
    summaries = gather_objects(RolloutSummary.of(rollouts, seconds, len(plan)))
    number = max(1, *(summary.micro_batches for summary in summaries))
    parts = [[answers[index] for index in part] for part in plan] + [[]] * (number - len(plan))
    micro_batches = [pack_answers(part, shortest).to(device) for part in parts]
    return PackedStep(micro_batches, RolloutSummary.joined(summaries), parts)
