"""Benchmark items in which the model acts over several turns: playing, scoring and recording episodes."""

from __future__ import annotations

import json
from collections.abc import Sequence

from nbg_lightning.engines.protocol import Completion, Prompt, Sampling
from nbg_lightning.environments.episode import Episode
from nbg_lightning.environments.measures import episode_measures
from nbg_lightning.environments.play import play_episodes
from nbg_lightning.environments.transcript import played_turns
from nbg_lightning.evaluation.benchmark import Item
from nbg_lightning.evaluation.prompts import RenderedPrompt
from nbg_lightning.evaluation.results import Record
from nbg_lightning.evaluation.run_context import NumberedItems, RunContext
from nbg_lightning.evaluation.tasks.environment import EnvironmentBenchmark
from nbg_lightning.evaluation.verdicts import checked_verdict
from nbg_lightning.evaluation.written import Sample, add_verdict, drawn, item_prompt, sampled_record
from nbg_lightning.rewards.protocol import Group, score_groups


def episode_records(context: RunContext, part: NumberedItems) -> list[Record]:
    """Records of items after the model has acted in their environments. Collective.

    Failures are errors of their item or sample, and do not raise.

    Raises:
        ValueError: settings that the engine does not support, on all ranks alike.
    """
    benchmark, format = context.benchmark, context.prompts.chat
    assert isinstance(benchmark, EnvironmentBenchmark) and format is not None
    ready = [(place, item) for place, (_, item) in enumerate(part) if item.error is None]
    questions = [benchmark.asked(item) for _, item in ready]
    prompts = [item_prompt(context, item, _asked(item, ())) for _, item in ready]

    def draw(turns: Sequence[Prompt], sampling: Sampling, seconds: float | None) -> list[list[Completion]]:
        return drawn(context, turns, sampling, seconds)

    played = play_episodes(
        benchmark.driver, context.engine, questions, prompts, format, context.sampling, context.deadline, draw
    )
    groups = [Group(question, own) for question, own in zip(questions, played, strict=True)]
    episodes: list[tuple[Episode, ...]] = [()] * len(part)
    samples: list[list[Sample]] = [[] for _ in part]
    for (place, _), own, verdicts in zip(ready, played, score_groups(benchmark.scorer, groups), strict=True):
        episodes[place] = own
        for episode, verdict in zip(own, verdicts, strict=True):
            samples[place].append(_sample(episode))
            add_verdict(samples[place][-1], checked_verdict(verdict))
            _cut(samples[place][-1])
    return [
        sampled_record(context, index, item, item.error or _asked(item, episodes[place]), samples[place])
        for place, (index, item) in enumerate(part)
    ]


def _asked(item: Item, episodes: Sequence[Episode]) -> RenderedPrompt:
    """The text that the model read first: in the first episode, if the environment's openings differ."""
    text = str(item.question)
    first = next((each for each in episodes if each.segments), None)
    if first is None:
        return RenderedPrompt((), text, text)
    opening = [message for message in first.messages if message["role"] != "assistant"][:1]
    identity = json.dumps([opening, list(first.tools)], ensure_ascii=False, sort_keys=True, default=str)
    return RenderedPrompt(first.segments[0].prompt, text, identity)


def _sample(episode: Episode) -> Sample:
    """An episode before it is scored."""
    return {
        "text": episode.text,
        "finish_reason": episode.completion.finish_reason,
        "tokens": len(episode.completion.ids),
        "end": episode.end.value,
        "episode": episode_measures(episode),
        "turns": played_turns(episode),
    }


def _cut(sample: Sample) -> None:
    if sample["finish_reason"] == "length" and sample["status"] == "parse_failure":
        sample["status"] = "truncated"
