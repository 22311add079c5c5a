"""An environment: the model guesses a number, and is told whether its own is too small or too large."""

from nbg_lightning.data import Question
from nbg_lightning.environments import Environment, EpisodeLimits, ModelTurn, Opening, Reply


class NumberGame(Environment):
    """One object for each episode."""

    limits = EpisodeLimits(max_turns=6, step_seconds=2.0)

    def reset(self, question: Question) -> Opening:
        """What the model reads first."""
        self.secret = int(question.answer or 0)
        return Opening(question.messages)

    def step(self, turn: ModelTurn) -> Reply:
        """What the world says to a turn of the model; the score of the end is the episode's."""
        try:
            guess = int(turn.content)
        except ValueError:
            return Reply(({"role": "user", "content": "Write a number."},))
        if guess == self.secret:
            return Reply(done=True, score=1.0)
        hint = "Larger." if guess < self.secret else "Smaller."
        return Reply(({"role": "user", "content": hint},))
