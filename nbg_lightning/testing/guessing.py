"""A multi-turn game without tools: a number is to be guessed, with hints."""

from __future__ import annotations

from nbg_lightning.data.question import Question
from nbg_lightning.environments.environment import Environment, EpisodeLimits, ModelTurn, Opening, Reply


class GuessingGame(Environment):
    """The model guesses the question's answer, an integer, and is told whether its guess is too small or too large.

    Args:
        limits: limits of the episodes.
    """

    def __init__(self, limits: EpisodeLimits = EpisodeLimits(max_turns=6)):  # noqa: B008 - never mutated
        self.limits = limits
        self.secret = 0

    def reset(self, question: Question) -> Opening:
        self.secret = int(question.answer or "")
        return Opening(question.messages)

    def step(self, turn: ModelTurn) -> Reply:
        try:
            guess = int(turn.content)
        except ValueError:
            return Reply(({"role": "user", "content": "Write a number."},), score=0.0, counts={"no_number": 1})
        if guess == self.secret:
            return Reply(done=True, score=1.0, counts={"guesses": 1})
        hint = "Larger." if guess < self.secret else "Smaller."
        return Reply(({"role": "user", "content": hint},), score=0.0, counts={"guesses": 1})
