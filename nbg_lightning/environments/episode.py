"""An episode: one rollout in an environment, with several turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nbg_lightning.engines.chat import Answer
from nbg_lightning.engines.protocol import Completion, FinishReason
from nbg_lightning.environments.environment import End
from nbg_lightning.environments.segments import Segment
from nbg_lightning.scoring.result import Status, Verdict

FINISH: Mapping[End, FinishReason] = {
    End.ANSWERED: "stop",
    End.DONE: "stop",
    End.MAX_TURNS: "stop",
    End.UNREADABLE_CALL: "stop",
    End.MAX_TOKENS: "length",
    End.TIMEOUT: "deadline",
    End.ERROR: "error",
}
WITHOUT_SCORE: Mapping[End, Status] = {End.TIMEOUT: "timeout", End.ERROR: "error"}
_LOST = {
    End.MAX_TURNS: "the episode was not done in its turns",
    End.UNREADABLE_CALL: "calls could not be read",
    End.MAX_TOKENS: "the episode was cut at its tokens",
}


@dataclass(frozen=True)
class Episode(Answer):
    """A multi-turn answer, accepted wherever an `Answer` is.

    ``completion`` has all ids that the model sampled, turn after turn; ``text`` is the transcript; ``reasoning`` and
    ``final`` are those of the last turn.

    Attributes:
        end: how it ended.
        segments: the rows of ids to train on.
        messages: all turns, as plain messages.
        tools: schemas of the available functions.
        turn_scores: the environment's score of each turn of the model; None for a turn without one.
        score: the environment's score of the episode; None leaves it to the reward.
        detail: the reason for its end, in one line.
        counts: event counts of the environment and the driver.
        turn_counts: the same for each turn of the model.
    """

    end: End = End.ERROR
    segments: tuple[Segment, ...] = ()
    messages: tuple[Mapping[str, Any], ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    turn_scores: tuple[float | None, ...] = ()
    score: float | None = None
    detail: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    turn_counts: tuple[Mapping[str, int], ...] = ()

    @property
    def num_turns(self) -> int:
        """Number of turns of the model."""
        return len(self.turn_scores)

    @property
    def verdict(self) -> Verdict | None:
        """The result given by the environment and the limits; None leaves it to a reward."""
        if self.end in WITHOUT_SCORE:
            return Verdict(None, WITHOUT_SCORE[self.end], self.detail)
        if self.end in _LOST:
            return Verdict(0.0, detail=self.detail or _LOST[self.end], parsed=False)
        return None if self.score is None else Verdict(self.score, detail=self.detail)


def joined_completion(
    segments: tuple[Segment, ...], end: End, index: tuple[int, int], version: int, error: str
) -> Completion:
    """Everything that the model sampled, as one completion."""
    drawn = [
        (token, log_prob)
        for segment in segments
        for token, log_prob, own in zip(segment.ids, segment.log_probs, segment.drawn, strict=True)
        if own
    ]
    ids, log_probs = tuple(token for token, _ in drawn), tuple(log_prob for _, log_prob in drawn)
    reason = FINISH[end]
    return Completion(ids, log_probs, reason, *index, version, error or None if reason == "error" else None)
