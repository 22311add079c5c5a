"""Scores of a build's answers: each question's answers form one group, stored by reward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from nbg_lightning.construction.provenance import digest
from nbg_lightning.construction.store import KeyedLines
from nbg_lightning.data.progress import Progress
from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import Answer
from nbg_lightning.rewards.protocol import Group, Reward, score_groups


def complete_scores(
    questions: Sequence[Question],
    candidates_of: Callable[[Question], Sequence[Answer]],
    reward: Reward,
    scores: KeyedLines,
    per_call: int,
    progress: bool,
) -> None:
    """Complete the file of scores.

    Args:
        questions: all questions, in order.
        candidates_of: reads the answers of a question to be scored.
        reward: opened only if there is something to score.
        scores: scores by question key; errors are scored again.
        per_call: questions per call.
        progress: show progress.
    """

    def unscored(part: Sequence[Question]) -> Iterator[tuple[Question, list[Answer], str]]:
        for question in part:
            candidates = list(candidates_of(question))
            texts = digest([answer.text for answer in candidates])
            known = scores.get(question.key)
            stale = known is None or known["of"] != texts or any(score[1] != "ok" for score in known["scores"])
            if candidates and stale and reward.check(question) is None:
                yield question, candidates, texts

    parts = [questions[begin : begin + per_call] for begin in range(0, len(questions), per_call)]
    if not any(True for part in parts for _ in unscored(part)):
        return
    with reward, Progress("scores", len(questions), progress, "questions") as meter:
        for part in parts:
            todo = list(unscored(part))
            results = score_groups(reward, [Group(question, tuple(answers)) for question, answers, _ in todo])
            scores.add(
                [
                    {"key": question.key, "of": texts, "scores": [[r.score, r.status, r.detail] for r in own]}
                    for (question, _, texts), own in zip(todo, results, strict=True)
                ],
                replace=True,
            )
            meter.advance(len(part), fresh=bool(todo))
