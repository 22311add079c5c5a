"""The transcript of an episode with the data of each model turn, as plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nbg_lightning.environments.episode import Episode


def turn_numbers(messages: Sequence[Mapping[str, Any]], num_turns: int) -> list[int | None]:
    """The model's turn number of each message; None for other messages, including an assistant's in the opening.

    Args:
        messages: messages of an episode.
        num_turns: number of the model's turns: that many last assistant messages.

    Example:
        >>> roles = ["user", "assistant", "user", "assistant", "tool", "assistant"]
        >>> turn_numbers([{"role": role} for role in roles], 2)
        [None, None, None, 0, None, 1]
    """
    number = num_turns - sum(message["role"] == "assistant" for message in messages)
    found: list[int | None] = []
    for message in messages:
        own = number if message["role"] == "assistant" else None
        number += message["role"] == "assistant"
        found.append(own if own is not None and own >= 0 else None)
    return found


def played_turns(episode: Episode, advantages: Sequence[float] = ()) -> list[dict[str, Any]]:
    """The messages after the opening; those of the model with ``turn`` (its number), ``score`` and ``counts``.

    Args:
        episode: the episode.
        advantages: advantages of its turns, which are added as ``advantage``; empty if each has the episode's.
    """
    numbers = turn_numbers(episode.messages, episode.num_turns)
    begin = next((place for place, number in enumerate(numbers) if number is not None), len(numbers))
    turns = []
    for message, number in zip(episode.messages[begin:], numbers[begin:], strict=True):
        own = {} if number is None else _own(episode, number, advantages)
        turns.append({**message, **own})
    return turns


def _own(episode: Episode, number: int, advantages: Sequence[float]) -> dict[str, Any]:
    return {
        "turn": number,
        "score": episode.turn_scores[number],
        "counts": dict(episode.turn_counts[number]) if number < len(episode.turn_counts) else {},
        **({"advantage": advantages[number]} if number < len(advantages) else {}),
    }
