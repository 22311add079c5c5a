"""The environment of `episodes.py`, in a module that imports what a tool needs and no more: its processes are forked from it."""

from __future__ import annotations

import time

from nbg_lightning.data.question import Question
from nbg_lightning.environments import Environment, EpisodeLimits, ModelTurn, Opening, Reply

TURNS = 3


class Echo(Environment):
    """Answers each turn by a line, three times, in any time that the question asks for."""

    limits = EpisodeLimits(max_turns=TURNS, step_seconds=120.0)

    def reset(self, question: Question) -> Opening:
        self.turns, self.seconds = 0, float(question.data.get("seconds", 0))
        return Opening(question.messages)

    def step(self, turn: ModelTurn) -> Reply:
        self.turns += 1
        if self.turns == 1:
            time.sleep(self.seconds)
        return Reply(({"role": "tool", "name": "echo", "content": f"This was turn {self.turns}."},))
