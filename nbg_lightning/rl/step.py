"""Packing a step's answers for training, with the same number of forward passes on every rank."""

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
    """This rank's share of a step, the summary of all ranks' answers, and the answers of each micro-batch.

    Ranks that share micro-batches have the answers of all of them.
    """

    micro_batches: Sequence[RolloutBatch]
    summary: RolloutSummary
    answers: Sequence[Sequence[TrainedAnswer]]


class AnswerPacking(NamedTuple):
    """How answers are packed into micro-batches.

    Attributes:
        micro_batch_tokens: maximum positions per forward pass on a rank; at least this rank's part of one answer.
        shortest: minimum length of prompts that are computed once per group (`core.prefixes.shortest_shared`); None
            computes them for each answer.
        device: device of the micro-batches.
        context: this rank's position among those that share each micro-batch; None if it has whole answers.
        balances: whether answers move between ranks, so that each trains on about the same number of positions.
    """

    micro_batch_tokens: int
    shortest: int | None
    device: torch.device
    context: ContextShard | None = None
    balances: bool = False


def pack_step(rollouts: Sequence[Rollout], seconds: Mapping[str, float], packing: AnswerPacking) -> PackedStep:
    """Pack this rank's trained answers into the same number of micro-batches as every other rank, at least one. Collective.

    FSDP gathers weights in each forward pass, so ranks must run the same number of them; a rank with too few adds
    micro-batches that train nothing. Ranks that share micro-batches sample distinct answers, and train on a part of all of
    them.

    Args:
        rollouts: this rank's rollouts with advantages.
        seconds: duration of each part of collecting them (`Collected.seconds`).
        packing: packing settings.
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
