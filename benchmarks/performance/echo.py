"""The environment of `episodes.py`, in a module with few imports, from which its processes are forked."""

from __future__ import annotations

import time

from nbg_lightning.data.question import Question
from nbg_lightning.environments import Environment, EpisodeLimits, ModelTurn, Opening, Reply

TURNS = 3


class Echo(Environment):
    """Replies to each turn with a line, three times, after a delay given by the question."""

    limits = EpisodeLimits(max_turns=TURNS, step_seconds=120.0)

    def reset(self, question: Question) -> Opening:
        self.turns, self.seconds = 0, float(question.data.get("seconds", 0))
        return Opening(question.messages)

    def step(self, turn: ModelTurn) -> Reply:
        self.turns += 1
        if self.turns == 1:
            time.sleep(self.seconds)
        return Reply(({"role": "tool", "name": "echo", "content": f"This was turn {self.turns}."},))
