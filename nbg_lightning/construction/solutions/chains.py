"""Training data for a chain-completion model: prompt and solution, then a summary of the reasoning, then the reasoning.

Nanbeige4-3B report, SFT: the model that reconstructs chains of thought is trained on aligned pairs. Conversations with
thinking already have prompt, reasoning and solution; a model writes the missing summary of the reasoning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from nbg_lightning.construction.solutions.reconstruction import CHAIN, SUMMARY, chain_turn, summary_turn
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
from nbg_lightning.data.question_sources import QuestionCounts
from nbg_lightning.engines.protocol import Sampling

SUMMARIZE = """\
Here are a question and the reasoning of someone who solved it. Write a short summary of the reasoning: its steps in their \
order, in a few sentences. Write only the summary.

Question:
{question}

Reasoning:
{chain}"""

_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?](?!\s|$)[^.!?\n]*)*[.!?]?")


@dataclass(kw_only=True)
class ChainCompletionBuilder(WorkflowBuilder):
    """Build training conversations for a chain-completion model from conversations with thinking.

    ``chains.jsonl``: conversations of four turns, for `ChatDataModule`: prompt and solution with a request for a summary, the
    summary, a request for the chain, the chain. The two requests are those of `nbg build-reasoning`. Each assistant turn with
    reasoning that answers the last question of a conversation gives one.

    Args:
        conversations: sources of conversations with thinking.
        summarizer: model that writes summaries; without one, a summary is ``summary_sentences`` sentences of the reasoning
            itself, evenly spaced from first to last: enough to test the pipeline, but not to teach summarization.
        summarizing: sampling settings of summaries.
        summary_sentences: see summarizer.
        tries: maximum number of answers sampled until one is usable.
        minimum_words: minimum length of a chain; shorter ones are dropped as ``too_short``.
        maximum_ratio: a summary with more than this share of its chain's words is unusable (``too_long``); ``minimum_words``
            are always allowed.
        summarize_prompt: prompt for the summarizer.
        summary_prompt, chain_prompt: the two requests; the same as those of `nbg build-reasoning`.
    """

    name: ClassVar[str] = "build-chains"

    conversations: dict[str, ChatSource]
    summarizer: str | None = None
    summarizing: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=512, temperature=0.6, top_p=0.95))
    summary_sentences: int = 3
    tries: int = 3
    minimum_words: int = 20
    maximum_ratio: float = 0.5
    summarize_prompt: str = SUMMARIZE
    summary_prompt: str = SUMMARY
    chain_prompt: str = CHAIN

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.conversations:
            raise ValueError("conversations is invalid: empty; name at least one source")
        check_least(1, tries=self.tries, summary_sentences=self.summary_sentences, minimum_words=self.minimum_words)
        if not 0 < self.maximum_ratio <= 1:
            raise ValueError(f"maximum_ratio is invalid: {self.maximum_ratio}; give more than 0 and at most 1")
        check_template(self.summarize_prompt, "summarize_prompt", ("question", "chain"))
        check_template(self.summary_prompt, "summary_prompt", ("question", "solution"))
        check_template(self.chain_prompt, "chain_prompt", ())
        self.counts: dict[str, QuestionCounts] = {}

    def roles(self) -> dict[str, Sequence[str]]:
        return {"summarizer": named(self.summarizer)}

    def input_counts(self) -> dict[str, QuestionCounts]:
        return self.counts

    def items(self) -> Iterator[WorkflowItem]:
        for found in read_conversations(self.conversations, self.counts):
            turns = found.conversation.messages
            asked_last = found.conversation.last_query()
            thinking = [i for i, turn in enumerate(turns) if i > asked_last and turn.reasoning and turn.content.strip()]
            if not thinking:
                messages = message_dicts(found.conversation)
                yield conversation_key(messages), dropped("no_thinking", source=found.source)
            for index in thinking:
                messages = message_dicts(found.conversation, index + 1, reasoning=True)
                key = conversation_key(messages)
                chain = (turns[index].reasoning or "").strip()
                length = sum(len(message["content"]) for message in messages) + len(chain)
                if length > self.max_characters:
                    yield key, dropped("too_long", f"{length:,} characters", source=found.source)
                elif len(chain.split()) < self.minimum_words:
                    yield key, dropped("too_short", chain[:120], source=found.source)
                else:
                    yield key, partial(self.align, found, index, chain)

    def align(self, found: ConversationRow, index: int, chain: str) -> Workflow:
        """Align one assistant turn: its conversation with the summary between solution and reasoning."""
        messages = message_dicts(found.conversation, index)
        solution = found.conversation.messages[index].content.strip()
        trace: list[JsonRecord] = []
        record: JsonRecord = {"source": found.source, "trace": trace}
        if self.summarizer is None:
            summary: str | None = spread_sentences(chain, self.summary_sentences)
            made_by = "sentences"
        else:
            question = conversation_text(messages)
            prompt = fill_template(self.summarize_prompt, question=question, chain=chain)
            limit = max(self.minimum_words, int(self.maximum_ratio * len(chain.split())))
            read = partial(_read_summary, limit=limit)
            request = ModelRequest(self.summarizer, "summary", user_turn(prompt), self.summarizing, read)
            [summary] = yield from request_usable([request], self.tries, trace)
            made_by = self.summarizer
        if summary is None:
            return dropped(*unusable_reason(trace, "summary"), **record)
        asking = summary_turn(self.summary_prompt, messages, solution)
        turns = [*chain_turn(asking, summary, self.chain_prompt), {"role": "assistant", "content": chain}]
        return {"status": "kept", **record, "messages": turns, "summary_by": made_by}

    def outputs(self, records: Callable[[], Iterator[JsonRecord]]) -> dict[str, Iterable[JsonRecord]]:
        names = ("key", "messages", "source", "summary_by")
        return {
            "chains": ({name: record[name] for name in names} for record in records() if record["status"] == "kept")
        }

    def summary(self, records: Iterable[JsonRecord]) -> dict[str, Any]:
        words = [
            (len(record["messages"][1]["content"].split()), len(record["messages"][3]["content"].split()))
            for record in records
            if record["status"] == "kept"
        ]
        if not words:
            return {}
        return {
            "mean_summary_words": fmean(short for short, _ in words),
            "mean_chain_words": fmean(long for _, long in words),
        }


def _read_summary(response: ModelResponse, limit: int) -> str:
    text = readable(response)
    if len(text.split()) > limit:
        raise UnusableError("too_long", f"{len(text.split())} words, at most {limit} wanted")
    return text


def spread_sentences(text: str, count: int) -> str:
    """Evenly spaced sentences of a text, from the first to the last, in order.

    Example:
        >>> spread_sentences("One. Two, 2.5.\\nThree. Four. Five.", 3)
        'One. Three. Five.'
    """
    sentences = [found for match in _SENTENCE.finditer(text) if (found := match[0].strip())]
    if len(sentences) <= count:
        return " ".join(sentences)
    if count == 1:
        return sentences[-1]
    places = {round(number * (len(sentences) - 1) / (count - 1)) for number in range(count)}
    return " ".join(sentences[place] for place in sorted(places))
