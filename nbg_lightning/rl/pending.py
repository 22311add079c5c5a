"""Questions whose answers are in progress: sampling within a token budget, and over several steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import ChatFormat
from nbg_lightning.engines.protocol import OUT_OF_SECONDS, Begun, Completion, Prompt, Sampling
from nbg_lightning.environments.driver import Generate
from nbg_lightning.rl.rollouts import Rollout

Gather = Callable[[Any], list[Any]]
"""Gathers the values of all processes that share a token budget (`distributed.gather_objects`)."""


@dataclass(frozen=True)
class PendingGroup:
    """A question with its answers so far.

    Attributes:
        question: the question.
        prompt: token ids of the prompt.
        step: step whose batch contains the question.
        completions: answers in order; empty if sampling has not started.
    """

    question: Question
    prompt: Prompt
    step: int
    completions: tuple[Completion, ...] = ()

    @property
    def unfinished(self) -> list[int]:
        """Indices of the answers that may be continued."""
        return [place for place, completion in enumerate(self.completions) if may_go_on(completion)]

    def completions_since(self, before: PendingGroup) -> list[Completion]:
        """The completions that were unfinished before."""
        places = before.unfinished if before.completions else range(len(self.completions))
        return [self.completions[place] for place in places]


class DrawLimits(NamedTuple):
    """Limits on the answers of a step.

    Attributes:
        seconds: time for all of them. Answers not finished by then end with ``deadline``.
        window: maximum positions of the model.
        budget: token budget over all processes of `Gather`; None is unlimited.
    """

    seconds: float
    window: int
    budget: int | None = None


def _is_cut_by_time(completion: Completion) -> bool:
    return completion.finish_reason == "deadline" and completion.error != OUT_OF_SECONDS


def may_go_on(completion: Completion) -> bool:
    """Whether an answer is unfinished: the step's budget or deadline cut it, or it was not started."""
    return completion.finish_reason == "budget" or _is_cut_by_time(completion)


def draw_groups(
    groups: Sequence[PendingGroup], sampling: Sampling, generate: Generate, limits: DrawLimits, gather: Gather
) -> list[PendingGroup]:
    """Sample missing answers, and continue unfinished ones.

    Without a budget the engine is called once. With one it is called in rounds: in each, every unfinished answer gets an
    equal share of the remaining tokens, until less than one token per answer remains. So the budget is never exceeded, and
    which answers are cut depends on the answers alone, not on timing: the same seed gives the same result.

    Args:
        groups: everything that the step samples.
        sampling: sampling settings of an answer; ``max_new_tokens`` limits its total length.
        generate: calls the engine.
        limits: limits of the step.
        gather: gathers over the processes that share the budget, which call this collectively.
    """
    end = time.monotonic() + limits.seconds
    drawn = [_begun(group, sampling.n) for group in groups]
    spent, late = 0, False
    while True:
        asked = [(index, place) for index, group in enumerate(drawn) for place in group.unfinished]
        most = sampling.max_new_tokens
        if limits.budget is not None:
            states = gather((spent, len(asked), late))
            all_spent, waiting = (sum(state[field] for state in states) for field in (0, 1))
            most = min(most, (limits.budget - all_spent) // waiting) if waiting else 0
            if most < 1 or any(ended for *_, ended in states):
                return drawn
        left = max(0.0, end - time.monotonic())
        before = drawn
        drawn = _round(drawn, asked, replace(sampling, max_new_tokens=most), sampling, generate, left, limits.window)
        if limits.budget is None:
            return drawn
        spent += num_tokens(drawn) - num_tokens(before)
        late = any(_is_cut_by_time(drawn[index].completions[place]) for index, place in asked)


def _begun(group: PendingGroup, n: int) -> PendingGroup:
    """The group with a placeholder for each answer."""
    empty = (Completion((), (), "budget", 0, sample, 0) for sample in range(n))
    return group if group.completions else replace(group, completions=tuple(empty))


def num_tokens(groups: Sequence[PendingGroup]) -> int:
    """Total tokens of all answers so far."""
    return sum(len(completion.ids) for group in groups for completion in group.completions)


def _round(
    groups: list[PendingGroup],
    asked: Sequence[tuple[int, int]],
    part: Sampling,
    whole: Sampling,
    generate: Generate,
    seconds: float,
    window: int,
) -> list[PendingGroup]:
    """The groups after one call of the engine."""
    is_fresh = [_is_fresh(group) for group in groups]
    fresh = [index for index, new in enumerate(is_fresh) if new]
    going = [(index, place) for index, place in asked if not is_fresh[index]]
    prompts = [groups[index].prompt for index in fresh]
    prompts += [_going_on(groups[index], place, whole.max_new_tokens) for index, place in going]
    found = generate(prompts, part, seconds)
    places = [(index, place) for index in fresh for place in range(whole.n)] + going
    made = [completion for of_prompt in found for completion in of_prompt]
    if len(made) != len(places):
        raise ValueError(
            f"the engine gave {len(made)} answers for {len(places)}; let it go on with one that has begun (Prompt.begun)"
        )
    completions = [list(group.completions) for group in groups]
    for (index, place), completion in zip(places, made, strict=True):
        cut = _cut_by_round(completion, completions[index][place], groups[index].prompt, whole.max_new_tokens, window)
        completions[index][place] = joined(completions[index][place], cut)
    return [replace(group, completions=tuple(own)) for group, own in zip(groups, completions, strict=True)]


def _is_fresh(group: PendingGroup) -> bool:
    """Whether none of its answers has been started, so that the prompt can be computed once for all."""
    return all(may_go_on(completion) and not completion.ids for completion in group.completions)


def _going_on(group: PendingGroup, place: int, most: int) -> Prompt:
    """The request to the engine for continuing an answer."""
    before = group.completions[place]
    begun = Begun(place, len(before.ids), most - len(before.ids))
    return replace(group.prompt, ids=group.prompt.ids + before.ids, begun=begun)


def _cut_by_round(found: Completion, before: Completion, prompt: Prompt, most: int, window: int) -> Completion:
    """Mark a completion that reached the limit of its round, but not of its answer, as unfinished."""
    total = len(before.ids) + len(found.ids)
    if found.finish_reason != "length" or total >= most or len(prompt.ids) + total >= window:
        return found
    return replace(found, finish_reason="budget")


def joined(before: Completion, after: Completion) -> Completion:
    """Concatenate an unfinished answer with its continuation.

    Example:
        >>> first = Completion((1, 2), (-0.1, -0.2), "budget", 0, 3, weight_version=4)
        >>> joined(first, Completion((5,), (-0.3,), "stop", 9, 3, weight_version=5)).segments
        ((4, 2), (5, 1))
    """
    if not before.ids:
        return replace(after, sample_index=before.sample_index)
    if not after.ids:
        return replace(before, finish_reason=after.finish_reason, error=after.error)
    earlier = before.earlier if before.weight_version == after.weight_version else before.segments
    return replace(
        after,
        ids=before.ids + after.ids,
        log_probs=before.log_probs + after.log_probs,
        sample_index=before.sample_index,
        earlier=earlier,
    )


def split_pending(
    groups: Sequence[PendingGroup], step: int, carry_over: int
) -> tuple[list[PendingGroup], list[PendingGroup]]:
    """The groups that a step trains on, and those that continue in the next step.

    Args:
        groups: groups after the step's sampling.
        step: the step.
        carry_over: number of steps after its own in which a question may be continued.
    """
    going = [bool(group.unfinished) and step - group.step < carry_over for group in groups]
    trained = [group for group, goes in zip(groups, going, strict=True) if not goes]
    return trained, [group for group, goes in zip(groups, going, strict=True) if goes]


def rollout_of(group: PendingGroup, format: ChatFormat) -> Rollout:
    """The group as a rollout with decoded answers, without results."""
    return Rollout(group.question, group.prompt, tuple(map(format.read, group.completions)), (), asked=group.step)
