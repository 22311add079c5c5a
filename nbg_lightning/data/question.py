"""A question with what its answers are judged by: the input of rollouts, filters and builders of data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Question:
    """One prompt for reinforcement learning or data construction; all of it is JSON.

    Attributes:
        messages: the conversation up to the turn that the model writes, as ``{"role": ..., "content": ...}``.
        answer: the gold answer, where there is one.
        source: name of its source: a key of metrics and mixtures.
        data: whatever else a reward needs: tests of a program, the entry of a reasoning-gym task, a reference text.
    """

    messages: tuple[dict[str, Any], ...]
    answer: str | None = None
    source: str = ""
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Hex digest of the messages: the same question has the same key in every ledger, cache and run."""
        text = json.dumps(self.messages, sort_keys=True, ensure_ascii=False)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "messages": list(self.messages)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any], source: str = "") -> Question:
        """From a JSON row: ``messages``, or ``prompt`` or ``question`` as a text or as messages; ``answer``; ``data``.

        Raises:
            ValueError: there is no prompt in the row, or it is malformed.
        """
        prompt = next((row[name] for name in ("messages", "prompt", "question") if row.get(name)), None)
        if prompt is None:
            raise ValueError(
                f"no messages, prompt or question in a row with the keys {', '.join(sorted(row)) or 'none'}"
            )
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        for message in messages:
            if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
                raise ValueError(f"a message must have a role and a content, not {str(message)[:80]!r}")
        if messages[-1]["role"] == "assistant":
            raise ValueError("the prompt ends with an assistant turn: that is what the model is to write")
        answer = row.get("answer")
        return cls(
            tuple(dict(message) for message in messages),
            None if answer is None else str(answer),
            str(row.get("source") or source),
            dict(row.get("data") or {}),
        )
