"""Conversion of items to token ids in one place, so that the callback, `trainer.test` and Hugging Face folders use the same
prompts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nbg_lightning.chat.conversation import Conversation
from nbg_lightning.chat.template import AUTO
from nbg_lightning.data.tokenizer import Tokenizer
from nbg_lightning.engines.chat import ChatFormat
from nbg_lightning.engines.protocol import Completion
from nbg_lightning.evaluation.benchmark import Benchmark, Item
from nbg_lightning.evaluation.log_likelihood import Request

TEXT = "text"
Format = str
"""``text`` is text completion (base models). All others are chat formats: ``nanbeige``, ``tokenizer``, or a template file, see
`nbg_lightning.engines.chat.Template`. ``auto`` is the chat format of a model whose checkpoint records one, and else ``text``."""


@dataclass(frozen=True)
class RenderedPrompt:
    """The rendered prompt of an item.

    Attributes:
        ids: input ids of the model.
        text: the prompt as text (for a chat: its last message), for engines that take text, and for reading.
        identity: the whole prompt, independent of the tokenizer.
    """

    ids: tuple[int, ...]
    text: str
    identity: str


class Prompts:
    """Builds prompts and parses answers in one format.

    Args:
        tokenizer: None for an engine that takes and returns text; a chat's template is then the server's own.
        format: see `Format`.

    Raises:
        ValueError: a chat format that the tokenizer does not support.
    """

    def __init__(self, tokenizer: Tokenizer | None, format: Format = AUTO):
        if format == AUTO and (tokenizer is None or tokenizer.chat_template is None):
            format = TEXT
        self.tokenizer = tokenizer
        self.chat = None if format == TEXT else ChatFormat(tokenizer, format)
        self.format = format if self.chat is None else self.chat.template
        self.renderer = None if self.chat is None else self.chat.renderer

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer."""
        if self.chat is not None:
            return self.chat.stop_ids
        return () if self.tokenizer is None or self.tokenizer.eos_id is None else (self.tokenizer.eos_id,)

    def stop_strings(self, benchmark: Benchmark) -> tuple[str, ...]:
        """The texts that end an answer, for text-completion models, which would continue with the next question."""
        if self.format != TEXT:
            return ()
        return tuple(benchmark.stop_texts if benchmark.stop is None else benchmark.stop)

    @cached_property
    def template_hash(self) -> str:
        """Hex digest of the format and of everything that determines its ids."""
        template = "" if self.chat is None else self.chat.template_text
        fingerprint = None if self.tokenizer is None else self.tokenizer.fingerprint
        return digest([self.format, template, fingerprint, self._begin()])

    # -- prompts ---------------------------------------------------------------------------------------------------------

    def generation(self, benchmark: Benchmark, item: Item, shots: Sequence[Item]) -> RenderedPrompt:
        """The prompt of an item that the model answers by generation.

        Raises:
            ValueError: the chat format cannot render it.
        """
        if self.format == TEXT:
            text = self._text(benchmark, item, shots)
            return RenderedPrompt(self._begin() + self._ids(text), text, text)
        turns, tools = benchmark.conversation(item, shots)
        if tools and (self.renderer is None or not self.renderer.takes_tools):
            turns, tools = [{"role": "user", "content": benchmark.message(item)}], None
        identity = json.dumps([turns, tools], ensure_ascii=False, sort_keys=True)
        if self.renderer is None:
            return RenderedPrompt((), "\n\n".join(turn["content"] for turn in turns), identity)
        rendered = self.renderer.render(_conversation(turns, tools), add_generation_prompt=True)
        return RenderedPrompt(tuple(rendered.ids), turns[-1]["content"], identity)

    def choices(self, benchmark: Benchmark, item: Item, shots: Sequence[Item]) -> tuple[RenderedPrompt, list[Request]]:
        """The prompt of an item with choices, and a request for each of them."""
        if self.format == TEXT:
            text = self._text(benchmark, item, shots)
            requests = self._continued(text, [f" {choice}" for choice in item.choices])
        else:
            turns, tools = benchmark.conversation(item, shots)
            text = turns[-1]["content"]
            assert self.renderer is not None
            ids = tuple(self.renderer.render(_conversation(turns, tools), add_generation_prompt=True).ids)
            requests = [Request(ids, self._ids(choice)) for choice in item.choices]
        return RenderedPrompt(requests[0].context, text, json.dumps([text, item.choices], ensure_ascii=False)), requests

    def _continued(self, context: str, continuations: list[str]) -> list[Request]:
        """Encode each whole text at once, and split it after the context's own ids, as lm-eval does."""
        assert self.tokenizer is not None
        # Only the last line is encoded again for each continuation, where the tokenizer takes it as it takes it alone.
        cut = context.rfind("\n") + 1
        head, tail, *ends = self.tokenizer.encode_batch(
            [context, context[cut:], *(context[cut:] + c for c in continuations)]
        )
        if tail and head[-len(tail) :] == tail:
            wholes = [head[: -len(tail)] + end for end in ends]
        else:
            wholes = self.tokenizer.encode_batch([context + text for text in continuations])
        begin = self._begin()
        return [Request((*begin, *whole[: len(head)]), tuple(whole[len(head) :])) for whole in wholes]

    def _text(self, benchmark: Benchmark, item: Item, shots: Sequence[Item]) -> str:
        worked = [f"{benchmark.text(shot)} {benchmark.solution(shot)}" for shot in shots]
        return "\n\n".join([*worked, benchmark.text(item)])

    def _begin(self) -> tuple[int, ...]:
        return () if self.tokenizer is None else self.tokenizer.begin

    def _ids(self, text: str) -> tuple[int, ...]:
        return () if self.tokenizer is None else tuple(self.tokenizer.encode(text))

    # -- answers -------------------------------------------------------------------------------------------------------

    def read(self, benchmark: Benchmark, completion: Completion) -> tuple[str, str | None]:
        """The full completion, and the answer in it: without reasoning, and up to a stop string.

        The answer is None if reasoning was started but never ended.
        """
        if self.chat is not None:
            answer = self.chat.read(completion)
            return answer.text, answer.final
        ids, text = completion.ids, completion.text
        if text is None:
            assert self.tokenizer is not None
            kept = ids[:-1] if ids and ids[-1] in self.stop_ids else ids
            text = self.tokenizer.decode(kept, skip_special_tokens=True)
        read = text
        for stop in self.stop_strings(benchmark):
            read = read.split(stop, 1)[0]
        return text, read


def _conversation(turns: list[Any], tools: list[dict[str, Any]] | None) -> Conversation:
    return Conversation(turns, tools)


def digest(value: Any) -> str:
    """Hex digest of a text, or of another value as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
