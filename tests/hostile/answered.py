"""Questions with answers in the form an engine returns them."""

from __future__ import annotations

from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import ChatFormat
from nbg_lightning.engines.protocol import Completion
from nbg_lightning.rewards.protocol import Group


def question(answer: str | None = None, **data: object) -> Question:
    return Question(({"role": "user", "content": "What is it?"},), answer, "own", dict(data))


def group(asked: Question, texts: list[str]) -> Group:
    """Answers as they come from an engine."""
    read = ChatFormat(None).read
    return Group(asked, tuple(read(Completion((1,), (0.0,), "stop", 0, 0, 0, text=text)) for text in texts))


def some(texts: dict[str, str], step: int) -> dict[str, str]:
    return dict(list(texts.items())[::step])
