"""Rollouts of a GRPO run (`SampleTable`'s file) as records."""

from __future__ import annotations

from typing import Any

from nbg_lightning.pages.episodes import episode_turns
from nbg_lightning.pages.records import Bar, Facts, ShownAnswer, ShownPiece, ShownRecord, ShownTurn, all_facts, fact
from nbg_lightning.pages.values import as_number, as_objects, as_text, key_of

ROLLOUTS = "rollouts.jsonl"
KEYS = {"step", "question", "answers", "rewards"}
MOST_BARS = 12


def rollout_record(row: dict[str, Any]) -> ShownRecord:
    """A group of answers; the loss covers the answers of a trained group, but not the question.

    Raises:
        ValueError: its question or answers are not lists.
    """
    question, answers = row["question"], row["answers"]
    if not isinstance(question, list) or not isinstance(answers, list):
        raise ValueError(
            f"question and answers are invalid: {type(question).__name__}, {type(answers).__name__}; give lists"
        )
    rewards = row["rewards"] if isinstance(row["rewards"], list) else []
    listed = ", ".join("none" if as_number(value) is None else f"{value:.3g}" for value in rewards)
    return ShownRecord(
        key=key_of(question),
        title=f"step {as_text(row['step'])}",
        group=as_text(row.get("source")),
        prompt=tuple(message_turn(message, 0.0) for message in as_objects(question)),
        answers=tuple(_answer(answer) for answer in as_objects(answers)),
        gold=None if row.get("gold") is None else as_text(row["gold"]),
        facts=all_facts([fact("source", row.get("source")), (("rewards of the group", listed),) if rewards else ()]),
    )


def message_turn(message: dict[str, Any], weight: float | None) -> ShownTurn:
    """A message with its role; what it has beside its content stands below it."""
    rest = {
        name: value
        for name, value in message.items()
        if name not in ("role", "content") and value not in (None, [], "")
    }
    texts = [as_text(message.get("content")), *(f"{name}: {as_text(value)}" for name, value in rest.items())]
    return ShownTurn(as_text(message.get("role")), (ShownPiece("\n".join(filter(None, texts)), weight),))


def _answer(answer: dict[str, Any]) -> ShownAnswer:
    trained = answer.get("trained")
    weight = None if trained is None else float(trained is True)
    advantage = as_number(answer.get("advantage"))
    status = answer.get("status")
    facts: list[Facts] = [
        () if advantage is None else (("advantage", f"{advantage:+.3f}"),),
        (("not trained", ""),) if trained is False else (),
        fact("tokens", answer.get("tokens")),
        fact("ended by", answer.get("end") or answer.get("finish_reason")),
        fact("weights of step", answer.get("weight_version")),
        fact("status", status) if status not in (None, "ok") else (),
        fact("verdict", answer.get("detail") or None),
    ]
    name = "answer" if answer.get("sample") is None else f"answer {as_text(answer['sample'])}"
    turns = episode_turns(answer.get("turns"), weight) or (
        ShownTurn("", (ShownPiece(as_text(answer.get("text")), weight),)),
    )
    return ShownAnswer(name, turns, as_number(answer.get("reward")), all_facts(facts))


class RewardBySteps:
    """Mean reward over a whole file, for a few ranges of its steps."""

    def __init__(self) -> None:
        self._sums: dict[int, tuple[float, int]] = {}

    def add(self, row: dict[str, Any]) -> None:
        """Count a line of the file."""
        step = as_number(row.get("step"))
        rewards = [number for number in map(as_number, _list(row.get("rewards"))) if number is not None]
        if step is not None and rewards:
            total, count = self._sums.get(int(step), (0.0, 0))
            self._sums[int(step)] = total + sum(rewards), count + len(rewards)

    def bars(self) -> tuple[str, list[Bar]] | None:
        """The chart; None without two steps with rewards."""
        steps = sorted(self._sums)
        if len(steps) < 2:
            return None
        size = -(-len(steps) // MOST_BARS)
        bars = []
        for part in (steps[begin : begin + size] for begin in range(0, len(steps), size)):
            mean = sum(self._sums[step][0] for step in part) / sum(self._sums[step][1] for step in part)
            label = f"{part[0]:,}" if len(part) == 1 else f"{part[0]:,} to {part[-1]:,}"
            bars.append(Bar(label, mean, f"{mean:.3f}"))
        return "mean reward of the groups that were kept, by step (groups whose rewards differ come first)", bars


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
