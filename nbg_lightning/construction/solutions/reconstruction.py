"""CoT reconstruction: the reasoning that leads to a rewritten solution.

Nanbeige4-3B report, SFT: rewriting breaks the link between the old reasoning and the new answer. A chain-completion model
therefore receives prompt and refined solution, writes a short summary of the reasoning, and expands it into a chain of thought
(CoT) that leads to that solution. The SFT target is the reconstructed CoT with the refined solution.

The same two requests, `SUMMARY` and `CHAIN`, are used by `nbg build-chains` for training conversations: a model trained on
them (``configs/sft/chain_completion.yaml``) gets exactly the requests it was trained on.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any, ClassVar

from nbg_lightning.construction.checks import check_least
from nbg_lightning.construction.outcomes import dropped, unusable_reason
from nbg_lightning.construction.prompt_templates import check_template, conversation_text, fill_template
from nbg_lightning.construction.solutions.conversation_rows import (
    ConversationRow,
    conversation_key,
    message_dicts,
    read_conversations,
)
from nbg_lightning.construction.store import JsonRecord
from nbg_lightning.construction.workflow import (
    ModelRequest,
    ModelResponse,
    UnusableError,
    Workflow,
    readable,
    request_usable,
    user_turn,
)
from nbg_lightning.construction.workflow_builder import WorkflowBuilder, WorkflowItem, named
from nbg_lightning.data.chat_sources import ChatSource
from nbg_lightning.data.question import Question
from nbg_lightning.data.question_sources import QuestionCounts
from nbg_lightning.engines.chat import Answer
from nbg_lightning.engines.protocol import Completion, Sampling
from nbg_lightning.rewards.protocol import Group, Reward, RewardResult, score_groups
from nbg_lightning.scoring.judgements import read_yes_or_no
from nbg_lightning.scoring.places import extract_expression
from nbg_lightning.scoring.verdicts import extract_number, number

SUMMARY = """\
Here are a question and its solution. Write a short summary of the reasoning that leads from the question to this solution: its \
steps in their order, in a few sentences. Write only the summary.

Question:
{question}

Solution:
{solution}"""

CHAIN = """\
Now write out the whole reasoning that this is a summary of, as it goes through the mind of someone who works on the question \
and does not know the solution yet: step by step, with every calculation, and with a second look where something is doubtful. \
End with the answer that the solution gives. Do not mention the solution or the summary."""

AGREEMENT = """\
Here are a question, a solution, and the reasoning of someone else. Does the reasoning come to the same final answer as the \
solution? Write YES or NO, and nothing else.

Question:
{question}

Solution:
{solution}

Reasoning:
{chain}

YES or NO:"""

_GIVES_AWAY = re.compile(
    r"\b(?:(?:the|this|our|that) (?:given|provided|reference|refined|original|supplied|stated) (?:solution|answer|summary)|"
    r"(?:the|this) summary\b|according to the (?:solution|summary)|(?:as|like) the solution (?:says|states|shows)|"
    r"the solution (?:says|states|shows|gives|provided|above|below))",
    re.IGNORECASE,
)


@dataclass(kw_only=True)
class ReconstructionBuilder(WorkflowBuilder):
    """Build SFT conversations with thinking from conversations with refined solutions.

    ``reasoning.jsonl``: the conversations, with the reconstructed ``reasoning_content`` in the last turn, for `ChatDataModule`.
    ``traces.jsonl``: every summary, chain and verdict, including those of dropped items.

    A chain must agree with the solution, as checked

    * by ``reward``, if it can score the question. The solution must be correct by the gold answer (otherwise it is dropped as
      ``solution_wrong``), and so must the end of the chain. Without a gold answer, or with ``check_solution`` off, the
      answer announced by the solution replaces it;
    * otherwise by ``judge``, a model that is asked whether both come to the same answer;
    * otherwise the item is dropped as ``not_checkable``.

    Args:
        conversations: sources whose conversations end with a solution, such as ``refined.jsonl``; existing reasoning of the
            last turn is ignored.
        completer: model that writes summary and chain: a trained chain-completion model, or any instruction-following one.
        judge: model that compares answers.
        reward: scores answers, such as `MathReward`.
        check_solution: drop solutions that are wrong according to the reward.
        summarizing, completing, judging: sampling settings of each.
        tries: maximum number of answers sampled for a step until one is usable.
        chains: maximum number of chains sampled until one agrees; otherwise the item is dropped as ``inconsistent``.
        minimum_words: minimum length of a chain; shorter ones are unusable (``too_short``).
        summary_prompt, chain_prompt, agreement_prompt: prompt templates.
    """

    name: ClassVar[str] = "build-reasoning"

    conversations: dict[str, ChatSource]
    completer: str
    judge: str | None = None
    reward: Reward | None = None
    check_solution: bool = True
    summarizing: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=512, temperature=0.6, top_p=0.95))
    completing: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=16384, temperature=0.6, top_p=0.95))
    judging: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=8, temperature=0.0))
    tries: int = 3
    chains: int = 4
    minimum_words: int = 20
    summary_prompt: str = SUMMARY
    chain_prompt: str = CHAIN
    agreement_prompt: str = AGREEMENT

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.conversations:
            raise ValueError("conversations is invalid: empty; name at least one source")
        if self.judge is None and self.reward is None:
            raise ValueError(
                "judge is invalid: None without a reward, so that nothing compares a chain's answer with the solution's; "
                "give a reward, a judge or both"
            )
        check_least(1, tries=self.tries, chains=self.chains)
        check_least(0, minimum_words=self.minimum_words)
        check_template(self.summary_prompt, "summary_prompt", ("question", "solution"))
        check_template(self.chain_prompt, "chain_prompt", ())
        check_template(self.agreement_prompt, "agreement_prompt", ("question", "solution", "chain"))
        self.counts: dict[str, QuestionCounts] = {}

    def roles(self) -> dict[str, Sequence[str]]:
        return {"completer": named(self.completer), "judge": named(self.judge)}

    def run(self) -> JsonRecord:
        with ExitStack() as stack:
            if self.reward is not None:
                stack.enter_context(self.reward)
            return super().run()

    def input_counts(self) -> dict[str, QuestionCounts]:
        return self.counts

    def items(self) -> Iterator[WorkflowItem]:
        for found in read_conversations(self.conversations, self.counts):
            messages = message_dicts(found.conversation)
            key = conversation_key(messages)
            last = found.conversation.messages[-1]
            length = sum(len(message["content"]) for message in messages)
            if last.role != "assistant" or last.tool_calls or not last.content.strip():
                yield key, dropped("no_solution", f"the last turn is {last.role}", source=found.source)
            elif length > self.max_characters:
                yield key, dropped("too_long", f"{length:,} characters", source=found.source)
            else:
                yield key, partial(self.reconstruct, found)

    # -- one conversation ------------------------------------------------------------------------------------------------

    def reconstruct(self, found: ConversationRow) -> Workflow:
        """Reconstruct the chain of thought of one conversation."""
        messages = message_dicts(found.conversation)
        solution = messages[-1]["content"].strip()
        answer, data = found.row.get("answer"), found.row.get("data")
        question = Question(
            tuple(messages[:-1]),
            None if answer is None else str(answer),
            found.source,
            dict(data) if isinstance(data, Mapping) else {},
        )
        trace: list[JsonRecord] = []
        record: JsonRecord = {
            "source": found.source,
            "messages": messages,
            "trace": trace,
            "question": question.to_dict(),
        }
        if found.conversation.tools:
            record["tools"] = found.conversation.tools
        how, scored, detail = self._way(question, solution)
        if scored is None and how != "judge":
            return dropped(how, detail, **record)
        asking = summary_turn(self.summary_prompt, question.messages, solution)
        request = ModelRequest(self.completer, "summary", asking, self.summarizing, readable)
        [summary] = yield from request_usable([request], self.tries, trace)
        if summary is None:
            return dropped(*unusable_reason(trace, "summary"), **record)
        record["summary"] = summary
        turns = chain_turn(asking, summary, self.chain_prompt)
        checks: list[JsonRecord] = []
        for attempt in range(1, self.chains + 1):
            request = ModelRequest(self.completer, f"chain/{attempt}", turns, self.completing, self._read_chain)
            [chain] = yield from request_usable([request], self.tries, trace)
            if chain is None:
                return dropped(*unusable_reason(trace, "chain"), checks=checks, **record)
            verdict: bool | None
            if scored is not None:
                result = self._scored(scored, chain)
                verdict = None if result.score is None else result.score >= 1
                detail = result.detail
            else:
                verdict = yield from self._judged(question, solution, chain, attempt, trace)
                detail = "" if verdict is None else "YES" if verdict else "NO"
            checks.append({"chain": attempt, "by": how, "agrees": verdict, "detail": detail})
            if verdict:
                return {"status": "kept", **record, "checks": checks, "chain": chain}
        if all(check["agrees"] is None for check in checks):
            if how == "judge":
                return dropped(*unusable_reason(trace, "agreement"), checks=checks, **record)
            return dropped("check_failed", checks[0]["detail"], checks=checks, **record)
        return dropped("inconsistent", checks[-1]["detail"], checks=checks, **record)

    def _way(self, question: Question, solution: str) -> tuple[str, Question | None, str]:
        """Choose the check of chains: its name, the question for the reward, and the reason why there is none."""
        reason = "there is no reward"
        if self.reward is not None:
            if self.check_solution and (reason := self.reward.check(question) or "") == "":
                result = self._scored(question, solution)
                if result.score is not None and result.score >= 1:
                    return "gold answer", question, ""
                if result.score is not None:
                    return "solution_wrong", None, result.detail
                reason = result.detail
            elif (answer := announced_answer(solution, _is_number(question.answer))) is not None:
                own = dataclasses.replace(question, answer=answer)
                if (reason := self.reward.check(own) or "") == "":
                    return "answer of the solution", own, ""
            else:
                reason = "the solution announces no answer"
        return ("judge", None, "") if self.judge is not None else ("not_checkable", None, reason)

    def _scored(self, question: Question, text: str) -> RewardResult:
        assert self.reward is not None
        answer = Answer(Completion((), (), "stop", 0, 0, 0, text=text), text, None, text)
        [[result]] = score_groups(self.reward, [Group(question, (answer,))])
        return result

    def _read_chain(self, response: ModelResponse) -> str:
        text = readable(response)
        if "<think>" in text or "</think>" in text:
            raise UnusableError("has_tags")
        if len(text.split()) < self.minimum_words:
            raise UnusableError("too_short", text[:120])
        if match := _GIVES_AWAY.search(text):
            raise UnusableError("mentions_solution", match[0])
        return text

    def _judged(
        self, question: Question, solution: str, chain: str, attempt: int, trace: list[JsonRecord]
    ) -> Generator[list[ModelRequest[Any]], list[ModelResponse], bool | None]:
        assert self.judge is not None
        prompt = fill_template(
            self.agreement_prompt,
            question=conversation_text(question.messages),
            solution=solution,
            chain=chain,
        )

        def read(response: ModelResponse) -> bool:
            text = readable(response, whole=False)
            try:
                return read_yes_or_no(text)
            except ValueError:
                raise UnusableError("unparsable", text[:80]) from None

        request = ModelRequest(self.judge, f"agreement/{attempt}", user_turn(prompt), self.judging, read)
        [verdict] = yield from request_usable([request], 1 if self.judging.greedy else self.tries, trace)
        return verdict

    # -- all of them -----------------------------------------------------------------------------------------------------

    def outputs(self, records: Callable[[], Iterator[JsonRecord]]) -> dict[str, Iterable[JsonRecord]]:
        return {"reasoning": (_row(record) for record in records() if record["status"] == "kept"), "traces": records()}

    def summary(self, records: Iterable[JsonRecord]) -> JsonRecord:
        checked: dict[str, int] = {}
        needed, lengths = [], []
        for record in records:
            for check in record.get("checks", ()):
                verdict = {True: "agree", False: "disagree", None: "no verdict"}[check["agrees"]]
                name = f"{check['by']}: {verdict}"
                checked[name] = checked.get(name, 0) + 1
            if record["status"] == "kept":
                needed.append(len(record["checks"]))
                lengths.append(len(record["chain"].split()))
        return {
            "checks": checked,
            "mean_chains_needed": fmean(needed) if needed else None,
            "mean_chain_words": fmean(lengths) if lengths else None,
        }


def summary_turn(template: str, messages: Iterable[dict[str, Any]], solution: str) -> tuple[dict[str, Any], ...]:
    """The first request to the completer: a summary of the reasoning between prompt and solution."""
    content = fill_template(template, question=conversation_text(list(messages)), solution=solution)
    return user_turn(content)


def chain_turn(asking: tuple[dict[str, Any], ...], summary: str, template: str) -> tuple[dict[str, Any], ...]:
    """The second request to the completer: to write out the summarized reasoning."""
    return (*asking, {"role": "assistant", "content": summary}, {"role": "user", "content": template})


def announced_answer(solution: str, numeric: bool = False) -> str | None:
    """The final answer announced by a solution: in a box, after "the answer is", in its last formula, or if it is just a number.

    Args:
        solution: text of the solution.
        numeric: whether the question asks for a number: then the last number counts if none is announced. (In other texts the
            last number may be a year.)

    Example:
        >>> announced_answer("The answer is 12."), announced_answer("She lived until 1817."), announced_answer("So 7", True)
        ('12', None, '7')
    """
    found = extract_expression(solution)
    if not found:
        value = extract_number(solution) if numeric else number(solution)
        return None if value is None else str(value)
    return found


def _is_number(answer: str | None) -> bool:
    return answer is not None and number(answer) is not None


def _row(record: JsonRecord) -> JsonRecord:
    last = {**record["messages"][-1], "reasoning_content": record["chain"]}
    question = record["question"]
    return {
        "key": record["key"],
        "messages": [*record["messages"][:-1], last],
        **({"tools": record["tools"]} if "tools" in record else {}),
        "answer": question["answer"],
        "source": record["source"],
        "data": question["data"],
        "reasoning": {"summary": record["summary"], "checks": record["checks"]},
    }
