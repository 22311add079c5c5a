"""Turns of an episode for display: roles, calls, and the scores of the model's turns."""

from __future__ import annotations

from typing import Any

from nbg_lightning.pages.records import ShownPiece, ShownTurn
from nbg_lightning.pages.values import as_number, as_objects, as_text


def episode_turns(turns: Any, weight: float | None) -> tuple[ShownTurn, ...]:
    """The turns of `environments.transcript.played_turns`, read from a file.

    Args:
        turns: messages; those of the model have ``turn``.
        weight: loss weight of the model's tokens; None is unknown. All others are context.
    """
    return tuple(_turn(turn, weight) for turn in as_objects(turns))


def _turn(turn: dict[str, Any], weight: float | None) -> ShownTurn:
    own = turn.get("turn") is not None
    reasoning = turn.get("reasoning_content")
    calls = [each.get("function") or {} for each in as_objects(turn.get("tool_calls"))]
    texts = [
        f"<think>\n{as_text(reasoning)}\n</think>" if reasoning else "",
        as_text(turn.get("content")),
        *(f"tool call {as_text(call.get('name'))}: {as_text(call.get('arguments'))}" for call in calls),
    ]
    piece = ShownPiece("\n".join(filter(None, texts)), weight if own else 0.0)
    return ShownTurn(", ".join(_said(turn, own)), (piece,))


def _said(turn: dict[str, Any], own: bool) -> list[str]:
    """The role, and for turns of the model their number, score, own advantage and errors."""
    role = as_text(turn.get("role"))
    if not own:
        return [f"{role} {as_text(turn['name'])}" if turn.get("name") else role]
    score, advantage = as_number(turn.get("score")), as_number(turn.get("advantage"))
    counts = turn.get("counts")
    number = as_number(turn.get("turn"))
    parts = [role, "turn" if number is None else f"turn {int(number) + 1}"]
    parts += [] if score is None else [f"score {score:g}"]
    parts += [] if advantage is None else [f"advantage {advantage:+.3f}"]
    return parts + ([f"{name} {as_text(value)}" for name, value in counts.items()] if isinstance(counts, dict) else [])
