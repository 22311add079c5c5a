"""The positions of a step of sampled answers, whose prompts are computed once for several of them."""

from __future__ import annotations

from dataclasses import dataclass

from nbg_lightning.core.batch import attended_length
from nbg_lightning.planning.workload import TrainingPhase


@dataclass(frozen=True)
class Answers:
    """The answers of a step.

    Attributes:
        prompts: prompts per step.
        group: answers to each.
        longest_prompt: maximum tokens of a prompt.
        longest: maximum tokens of an answer.
        prompt: mean tokens of a prompt.
        mean: mean tokens of an answer.
        room: positions of a forward pass of a rank, or of a context group.
        shortest_shared: minimum tokens of a prompt that is computed once for the answers of a forward pass; None if each
            answer has its own.
    """

    prompts: int
    group: int
    longest_prompt: int
    longest: int
    prompt: float
    mean: float
    room: int
    shortest_shared: int | None

    @property
    def copies(self) -> int:
        """How often a prompt is computed: once for as many answers as fit into a forward pass with it."""
        if self.shortest_shared is None or self.prompt < self.shortest_shared:
            return self.group
        together = max(1, int((self.room - self.prompt) // max(1.0, self._own)))
        return -(-self.group // together)

    @property
    def _own(self) -> float:
        """Positions of an answer behind its prompt: its last token is only predicted."""
        return self.mean - 1

    @property
    def computed(self) -> float:
        """Positions of a step."""
        return self.prompts * (self.copies * self.prompt + self.group * self._own)

    @property
    def attended(self) -> int:
        """Mean document length, weighted by tokens: answers attend to their prompt too."""
        own, prompt = self._own, self.prompt
        reached = self.copies * prompt * (prompt - 1) / 2 + self.group * own * (prompt + (own - 1) / 2)
        return attended_length(round(self.prompts * reached), round(self.computed))

    def phase(self, steps: int | None, context: int = 1) -> TrainingPhase:
        """The phase: memory for the longest prompts and answers, time for the mean ones.

        Args:
            steps: number of steps; None if unknown.
            context: number of ranks that share a window, which must divide it.
        """
        window = self.longest_prompt + self.longest
        window += -window % context
        positions = self.prompts * self.group * window
        full = self.mean == self.longest
        return TrainingPhase(
            "full answers" if full else f"answers of {self.mean:,.0f}",
            window,
            positions,
            steps,
            min(window, self.attended),
            computed=min(1.0, self.computed / positions),
            predicted=self.prompts * self.group * self.mean / positions,
            answer=self.mean,
        )
