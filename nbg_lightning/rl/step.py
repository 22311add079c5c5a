"""A step's answers as every rank trains them: packed, with as many forwards on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from nbg_lightning.core.context import ContextShard
from nbg_lightning.distributed import gather_objects
from nbg_lightning.rl.balance import balanced_answers, rank_positions
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
    """This rank's share of a step, what all ranks' answers are like, and the answers of each micro-batch.

    Ranks that share micro-batches have the answers of all of them.
    """

    micro_batches: Sequence[RolloutBatch]
    summary: RolloutSummary
    answers: Sequence[Sequence[TrainedAnswer]]


class AnswerPacking(NamedTuple):
    """How answers are packed into micro-batches.

    Attributes:
        micro_batch_tokens: positions of a forward on a rank at most, or one answer's part.
        shortest: length of a prompt that is computed once for its group, at least (`core.prefixes.shortest_shared`); None
            computes it for each answer.
        device: where the micro-batches are put.
        context: this rank's place among those that share each micro-batch; None where it has whole answers.
        balances: whether answers move between ranks, so that each trains about as many positions.
    """

    micro_batch_tokens: int
    shortest: int | None
    device: torch.device
    context: ContextShard | None = None
    balances: bool = False


def pack_step(rollouts: Sequence[Rollout], seconds: Mapping[str, float], packing: AnswerPacking) -> PackedStep:
    """Pack this rank's trained answers into as many micro-batches as every rank has, and at least one; all ranks together.

    FSDP gathers weights in each forward, so ranks must run the same number of them. One that trains nothing stands in where
    a rank has too few. Ranks that share micro-batches have drawn answers of their own each, and train on a part of all of them.

    Args:
        rollouts: with advantages, this rank's.
        seconds: that each part of collecting them took (`Collected.seconds`).
        packing: how.
    """
    answers, context, shortest = trained_answers(rollouts), packing.context, packing.shortest
    drawn = rank_positions(answers, shortest)
    if packing.balances:
        answers = balanced_answers(answers, shortest)
    loads = gather_objects((drawn, rank_positions(answers, shortest)))
    if context is not None:
        answers = [answer for of_rank in context.gather(answers) for answer in of_rank]
    positions = packing.micro_batch_tokens * (1 if context is None else context.size)
    if shortest is None:
        plan = plan_micro_batches([answer.positions for answer in answers], positions)
    else:
        plan = plan_groups(answers, positions, shortest)
    summaries = gather_objects(RolloutSummary.of(rollouts, seconds, len(plan)))
    number = max(1, *(summary.micro_batches for summary in summaries))
    parts = [[answers[index] for index in part] for part in plan] + [[]] * (number - len(plan))
    micro_batches = [pack_answers(part, shortest, context).to(packing.device) for part in parts]
    summary = RolloutSummary.joined(summaries)
    if len(loads) > 1:
        before, after = zip(*loads, strict=True)
        summary.add_imbalance(before, after)
    return PackedStep(micro_batches, summary, parts)
