"""Serialization of episodes to plain JSON and back, for ledgers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from nbg_lightning.engines.protocol import Completion
from nbg_lightning.environments.environment import End
from nbg_lightning.environments.episode import Episode
from nbg_lightning.environments.segments import Segment

_AS_THEY_ARE = ("text", "reasoning", "final", "score", "detail")
_LISTS = ("messages", "tools", "turn_scores")


def episode_record(episode: Episode) -> dict[str, Any]:
    """An episode without its completion, as JSON."""
    return {
        **{name: vars(episode)[name] for name in _AS_THEY_ARE},
        **{name: list(vars(episode)[name]) for name in _LISTS},
        "end": episode.end.value,
        "counts": dict(episode.counts),
        "turn_counts": [dict(counts) for counts in episode.turn_counts],
        "segments": [asdict(segment) for segment in episode.segments],
    }


def episode_from_record(record: Mapping[str, Any], completion: Completion) -> Episode:
    """Restore an episode from a record.

    Raises:
        KeyError, TypeError, ValueError: not a record of `episode_record`.
    """
    segments = tuple(
        Segment(**{name: tuple(values) for name, values in segment.items()}) for segment in record["segments"]
    )
    fields: dict[str, Any] = {name: record[name] for name in _AS_THEY_ARE}
    fields |= {name: tuple(record[name]) for name in _LISTS}
    fields["turn_counts"] = tuple(record.get("turn_counts", ()))  # records of earlier versions have none
    return Episode(completion, **fields, end=End(record["end"]), counts=dict(record["counts"]), segments=segments)
