"""Rubric reward: a judge model grades an answer by several criteria."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import Answer, Template
from nbg_lightning.engines.protocol import Engine
from nbg_lightning.error_line import first_line
from nbg_lightning.rewards.judge import Judge, conversation_text, judgement_text
from nbg_lightning.rewards.protocol import Group, Reward, RewardResult
from nbg_lightning.scoring.result import failure, unreadable
from nbg_lightning.scoring.rubric import HIGHEST, LOWEST, read_criteria, read_marks

CRITERIA_PROMPT = """Below is a conversation. Write a checklist by which an answer to its last turn can be judged: at most {most}
criteria, one a line, each beginning with "- ". Each says in a sentence what a good answer does, so that an answer can be seen to
do it or not. Do not answer yourself.

<|conversation|>
{conversation}"""

MARKS_PROMPT = """How well does the answer to the conversation below meet each criterion? Mark each from {lowest} (not at all) to
{highest} (fully). Write one line for each criterion, its number, a colon and the mark, such as "1: 7", and nothing else.

<|conversation|>
{conversation}

<|answer|>
{answer}

<|criteria|>
{criteria}"""

_KEPT = 65_536  # questions whose checklist is cached


class RubricReward(Reward):
    """The mean of a judge model's grades from 0 to 9 for each criterion, divided by 9.

    Criteria are either given, the same for all questions, or the judge writes a checklist for each question, once. A
    question may bring its own as ``data: {criteria: [...]}``. Judgements are parsed strictly: a criterion without a grade,
    with two, or with one off the scale is a failure, and the answer is masked, never scored 0. An answer without text, or
    whose reasoning has no end, scores 0 without asking the judge.

    Args:
        judge: engine of the judge model.
        criteria: what a good answer does, one sentence per criterion; None lets the judge write a checklist.
        judge_tokenizer: the judge's tokenizer, if the engine takes token ids.
        template: the judge's chat format.
        most_criteria: maximum number of criteria in a checklist.
        judge_tokens: maximum length of a judgement; a judge that reasons first needs hundreds.
        checklist_tokens: maximum length of a checklist.
        deadline: seconds for the judgements of a call.
        name: name in metrics.

    Raises:
        ValueError: an invalid setting.
    """

    def __init__(
        self,
        judge: Engine,
        criteria: list[str] | None = None,
        judge_tokenizer: str | None = None,
        template: Template = "auto",
        most_criteria: int = 8,
        judge_tokens: int = 128,
        checklist_tokens: int = 512,
        deadline: float | None = 600.0,
        name: str = "rubric",
    ):
        if criteria is not None and not (criteria and all(isinstance(each, str) and each.strip() for each in criteria)):
            raise ValueError(
                f"criteria is invalid: {criteria!r:.60}; give sentences, or leave it out to make a checklist"
            )
        for setting, value in (
            ("most_criteria", most_criteria),
            ("judge_tokens", judge_tokens),
            ("checklist_tokens", checklist_tokens),
        ):
            if value < 1:
                raise ValueError(f"{setting} is invalid: {value}; give at least 1")
        self.judge, self.criteria, self.judge_tokenizer, self.template = judge, criteria, judge_tokenizer, template
        self.deadline, self.name = deadline, name
        self._judge = Judge(judge, judge_tokenizer, template, deadline)
        self.most_criteria, self.judge_tokens, self.checklist_tokens = most_criteria, judge_tokens, checklist_tokens
        self._made: dict[str, list[str]] = {}

    def __enter__(self) -> RubricReward:
        self._judge.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._judge.__exit__(*error)

    @override
    def check(self, question: Question) -> str | None:
        own = question.data.get("criteria")
        if own is None or (isinstance(own, list) and own and all(isinstance(each, str) for each in own)):
            return None
        return f"data.criteria is invalid: {own!r:.60}; give a list of sentences"

    @override
    def score(self, groups: Sequence[Group]) -> list[list[RewardResult]]:
        if not self._judge.is_open:
            raise RuntimeError("RubricReward is not open; use it in a with block")
        rubrics = self._rubrics(groups)
        results: list[list[RewardResult]] = []
        places: list[tuple[int, int, list[str]]] = []
        prompts: list[str] = []
        for row, (group, rubric) in enumerate(zip(groups, rubrics, strict=True)):
            results.append([])
            for column, answer in enumerate(group.answers):
                text = (answer.final or "").strip()
                if not text:
                    results[row].append(unreadable("there is no answer to judge"))
                    continue
                results[row].append(failure(rubric if isinstance(rubric, str) else "not judged"))
                if not isinstance(rubric, str):
                    places.append((row, column, rubric))
                    prompts.append(_marks_prompt(group.question, text, rubric))
        for (row, column, rubric), said in zip(places, self._judge.ask(prompts, self.judge_tokens), strict=True):
            results[row][column] = _marked(said, rubric)
        return results

    def _rubrics(self, groups: Sequence[Group]) -> list[list[str] | str]:
        """The criteria of each group, or why there are none."""
        known: dict[str, list[str] | str] = {}
        missing: dict[str, Question] = {}
        for question in (group.question for group in groups):
            own = question.data.get("criteria") or self.criteria or self._made.get(question.key)
            if own is None:
                missing.setdefault(question.key, question)
            else:
                known[question.key] = [str(each) for each in own]
        prompts = [
            CRITERIA_PROMPT.format(most=self.most_criteria, conversation=conversation_text(q.messages))
            for q in missing.values()
        ]
        for key, said in zip(missing, self._judge.ask(prompts, self.checklist_tokens), strict=True):
            try:
                made = read_criteria(judgement_text(said), self.most_criteria)
            except ValueError as error:
                known[key] = f"no checklist could be made: {first_line(error)}"
                continue
            known[key] = made
            if len(self._made) < _KEPT:
                self._made[key] = made
        return [known[group.question.key] for group in groups]


def _marked(said: Answer | str, rubric: Sequence[str]) -> RewardResult:
    try:
        marks = read_marks(judgement_text(said), len(rubric))
    except ValueError as error:
        return failure(f"the judge's answer cannot be read: {first_line(error)}")
    score = (sum(marks) / len(marks) - LOWEST) / (HIGHEST - LOWEST)
    return RewardResult(score, detail=" ".join(f"{mark:g}" for mark in marks))


def _marks_prompt(question: Question, answer: str, rubric: Sequence[str]) -> str:
    criteria = "\n".join(f"{number}: {text}" for number, text in enumerate(rubric, 1))
    return MARKS_PROMPT.format(
        lowest=LOWEST,
        highest=HIGHEST,
        conversation=conversation_text(question.messages),
        answer=answer,
        criteria=criteria,
    )
