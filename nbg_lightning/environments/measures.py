"""Metrics of an episode."""

from __future__ import annotations

from nbg_lightning.environments.environment import End
from nbg_lightning.environments.episode import Episode

COUNTS = (
    *("calls", "unreadable_calls", "unknown_tools", "invalid_arguments"),
    *("raised", "unserialisable", "cut_results"),
)
"""Counts that every episode reports, even if 0."""


def episode_measures(episode: Episode) -> dict[str, float]:
    """Number of turns of the model, each possible end as 0 or 1, and the counts of environment and driver."""
    found = {"turns": float(episode.num_turns)}
    found |= {end.value: float(episode.end is end) for end in End}
    return found | {name: float(episode.counts.get(name, 0)) for name in {*COUNTS, *episode.counts}}
