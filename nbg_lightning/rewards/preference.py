"""A judge's pairwise preferences between the answers to one question, as a reward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from nbg_lightning.engines.chat import Answer, Template
from nbg_lightning.engines.protocol import Engine
from nbg_lightning.rewards.judge import Judge, conversation_text, judgement_text
from nbg_lightning.rewards.protocol import Group, Reward, RewardResult
from nbg_lightning.scoring.judgements import agreed, read_pairwise

PROMPT = """Which of two assistants' answers to the conversation below is better? {criteria}

Neither their order nor their length may influence you. Answer with one word: A, B, or tie.

<|conversation|>
{conversation}

<|answer A|>
{first}

<|answer B|>
{second}"""

CRITERIA = "Prefer the answer that is correct, does what was asked, and is helpful, clear and honest."

_PRIOR = 0.5  # weight of a win and a loss against an average answer: keeps strengths finite if one always wins
_ROUNDS = 200  # iterations of the fit, each a contraction; groups are small

PairOutcome = tuple[int, int, float]
"""Indices of two answers in their group, and the result for the first: 1 won, 0.5 tie, 0 lost."""


class PairwisePreferenceReward(Reward):
    """Compares the answers to a question pairwise by a judge model.

    Every comparison is judged twice, with the answers in both orders, and a verdict counts only if both agree; otherwise it
    is a tie (`nbg_lightning.scoring.judgements.agreed`). So a judge that always prefers the first answer finds all of them
    equal. Each answer is compared with at most ``opponents`` others, chosen by position in the group, so that a group of n
    takes at most ``n * opponents`` judgements (all pairs for small groups: ``n * (n - 1)``). Equal texts tie, and an answer
    whose reasoning has no end loses, without asking the judge.

    Args:
        judge: engine of the judge model, such as `ServerEngine` with ``interface: chat``, or `LocalEngine`.
        judge_tokenizer: the judge's tokenizer (a folder, a name, or a checkpoint of this library), if the engine takes
            token ids.
        template: the judge's chat format.
        scale: ``win_rate`` is the mean result of an answer's comparisons. ``bradley_terry`` fits strengths to the
            comparisons of the group and gives the probability of beating an answer of average strength, which accounts for
            the opponents.
        opponents: number of answers that each answer is compared with.
        criteria: what the judge is told to prefer.
        judge_tokens: maximum length of a judgement; a judge that reasons first needs hundreds.
        deadline: seconds for the judgements of a call.
        name: name in metrics.

    Raises:
        ValueError: an invalid setting.
    """

    def __init__(
        self,
        judge: Engine,
        judge_tokenizer: str | None = None,
        template: Template = "auto",
        scale: Literal["win_rate", "bradley_terry"] = "win_rate",
        opponents: int = 4,
        criteria: str = CRITERIA,
        judge_tokens: int = 32,
        deadline: float | None = 600.0,
        name: str = "preference",
    ):
        if scale not in ("win_rate", "bradley_terry"):
            raise ValueError(f"scale is invalid: {scale!r}; choose win_rate or bradley_terry")
        for setting, value in (("opponents", opponents), ("judge_tokens", judge_tokens)):
            if value < 1:
                raise ValueError(f"{setting} is invalid: {value}; give at least 1")
        self.name, self.judge, self.judge_tokenizer, self.template = name, judge, judge_tokenizer, template
        self.scale, self.opponents, self.criteria = scale, opponents, criteria
        self.judge_tokens, self.deadline = judge_tokens, deadline
        self._judge = Judge(judge, judge_tokenizer, template, deadline)

    def __enter__(self) -> PairwisePreferenceReward:
        self._judge.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._judge.__exit__(*error)

    def score(self, groups: Sequence[Group]) -> list[list[RewardResult]]:
        if not self._judge.is_open:
            raise RuntimeError("PairwisePreferenceReward is not open; use it in a with block")
        asked: list[tuple[int, int, int]] = []
        settled: list[list[PairOutcome]] = []
        for row, group in enumerate(groups):
            settled.append([])
            texts = [(answer.final or "").strip() for answer in group.answers]
            for one, two in pairs_of(len(texts), self.opponents):
                if texts[one] and texts[two] and texts[one] != texts[two]:
                    asked.append((row, one, two))
                elif texts[one] or texts[two]:
                    worth = 0.5 if texts[one] == texts[two] else float(bool(texts[one]))
                    settled[row].append((one, two, worth))
        problems: list[dict[int, str]] = [{} for _ in groups]
        for (row, one, two), judged in zip(asked, self._judged(groups, asked), strict=True):
            if isinstance(judged, float):
                settled[row].append((one, two, judged))
            else:
                problems[row].update({one: judged, two: judged})
        return [
            self._results(group, comparisons, problem)
            for group, comparisons, problem in zip(groups, settled, problems, strict=True)
        ]

    def _judged(self, groups: Sequence[Group], asked: Sequence[tuple[int, int, int]]) -> list[float | str]:
        """The result of each comparison for its first answer, or the reason why it is unknown."""
        prompts = [
            self._prompt(groups[row], groups[row].answers[first], groups[row].answers[second])
            for row, one, two in asked
            for first, second in ((one, two), (two, one))
        ]
        worths = [read_judgement(said) for said in self._judge.ask(prompts, self.judge_tokens)]
        return [_agreed(worths[2 * place], worths[2 * place + 1]) for place in range(len(asked))]

    def _prompt(self, group: Group, first: Answer, second: Answer) -> str:
        turns = conversation_text(group.question.messages)
        texts = ((answer.final or "").strip() for answer in (first, second))
        return PROMPT.format(
            criteria=self.criteria, conversation=turns, **dict(zip(("first", "second"), texts, strict=True))
        )

    def _results(
        self, group: Group, comparisons: Sequence[PairOutcome], problems: dict[int, str]
    ) -> list[RewardResult]:
        scores = {"win_rate": win_rates, "bradley_terry": bradley_terry}[self.scale](len(group.answers), comparisons)
        results = []
        for place, (answer, score) in enumerate(zip(group.answers, scores, strict=True)):
            if not (answer.final or "").strip():
                results.append(RewardResult(0.0, detail="there is no answer to compare", parsed=False))
            elif score is None:
                results.append(
                    RewardResult(None, "error", problems.get(place, "there is no other answer to compare with"))
                )
            else:
                count = sum(place in comparison[:2] for comparison in comparisons)
                results.append(RewardResult(score, detail=f"{count} comparisons"))
        return results


def pairs_of(count: int, opponents: int) -> list[tuple[int, int]]:
    """The pairs of a group's answers to compare: each with its neighbours on a circle, at most ``opponents`` others.

    With an odd number of opponents below ``count - 1``, one fewer; with 1, each second answer with the next.

    Example:
        >>> pairs_of(4, 2)
        [(0, 1), (0, 3), (1, 2), (2, 3)]
    """
    if opponents >= count - 1:
        return [(one, two) for one in range(count) for two in range(one + 1, count)]
    if opponents == 1:
        return [(one, one + 1) for one in range(0, count - 1, 2)] + ([(0, count - 1)] if count % 2 else [])
    steps = range(1, opponents // 2 + 1)
    around = ((one, (one + step) % count) for one in range(count) for step in steps)
    return sorted({(min(pair), max(pair)) for pair in around})


def read_judgement(said: Answer | str) -> float | str:
    """The result of a judgement for the answer in the first position, or the reason why it is unknown."""
    try:
        text = judgement_text(said)
    except ValueError as error:
        return str(error)
    try:
        return read_pairwise(text)
    except ValueError as error:
        return f"the judge's answer cannot be read: {error}"


def _agreed(one: float | str, swapped: float | str) -> float | str:
    if isinstance(one, str):
        return one
    if isinstance(swapped, str):
        return swapped
    return agreed(one, swapped)


def win_rates(count: int, comparisons: Sequence[PairOutcome]) -> list[float | None]:
    """Mean result of each answer's comparisons; None without any.

    Example:
        >>> win_rates(3, [(0, 1, 1.0), (0, 2, 0.5)])
        [0.75, 0.0, 0.5]
    """
    worths: list[list[float]] = [[] for _ in range(count)]
    for one, two, worth in comparisons:
        worths[one].append(worth)
        worths[two].append(1.0 - worth)
    return [sum(each) / len(each) if each else None for each in worths]


def bradley_terry(count: int, comparisons: Sequence[PairOutcome]) -> list[float | None]:
    r"""Probability of each answer to beat one of strength 1; None without a comparison.

    Strengths maximise :math:`\prod_{ij} (s_i / (s_i + s_j))^{w_{ij}}` (Bradley and Terry 1952) with half a win and half a
    loss of each against strength 1 as a prior, by the iteration of Hunter (2004, Annals of Statistics 32, MM algorithms):
    :math:`s_i = W_i / \sum_j n_{ij} / (s_i + s_j)`.

    Example:
        >>> [round(chance, 3) for chance in bradley_terry(2, [(0, 1, 1.0)])]
        [0.681, 0.319]
    """
    wins, strengths = [_PRIOR] * count, [1.0] * count
    mates: list[list[int]] = [[] for _ in range(count)]
    for one, two, worth in comparisons:
        wins[one] += worth
        wins[two] += 1.0 - worth
        mates[one].append(two)
        mates[two].append(one)
    for _ in range(_ROUNDS):
        before = list(strengths)
        for place, others in enumerate(mates):
            own = strengths[place]
            weight = 2 * _PRIOR / (own + 1.0) + math.fsum(1.0 / (own + strengths[other]) for other in others)
            strengths[place] = wins[place] / weight
        if all(math.isclose(old, new, rel_tol=1e-9) for old, new in zip(before, strengths, strict=True)):
            break
    return [own / (own + 1.0) if others else None for own, others in zip(strengths, mates, strict=True)]
