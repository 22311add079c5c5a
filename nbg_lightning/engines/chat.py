"""Messages in, answers out, over any engine: what rewards, judges, annotators and builders of data ask of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from nbg_lightning import log
from nbg_lightning.chat.conversation import THINK_OPEN, Conversation
from nbg_lightning.chat.renderer import Renderer
from nbg_lightning.chat.template import AUTO, ChatTemplate, choose_template
from nbg_lightning.chat.thinking import read_thinking
from nbg_lightning.data.tokenizer import Tokenizer
from nbg_lightning.engines.protocol import Completion, Engine, Prompt, Sampling

Template = str
"""``auto`` is the model's format: what its checkpoint records, else the tokenizer's own template, else ``nanbeige``.
``nanbeige`` is the paper's chat format, ``tokenizer`` the tokenizer's own template, all else a file with a template."""


@dataclass(frozen=True)
class Answer:
    """What a model wrote, read.

    Attributes:
        completion: the sampled ids, their log-probs, how it ended.
        text: all of it as text, without the token that ended it; it begins with `<think>` where the prompt opened that.
        reasoning: what stands between think tags; None without them.
        final: the text after the reasoning; None where reasoning began and never ended.
    """

    completion: Completion
    text: str
    reasoning: str | None
    final: str | None

    @property
    def finished(self) -> bool:
        """It ended by itself, and not inside its reasoning."""
        return self.completion.finish_reason == "stop" and self.final is not None


class ChatFormat:
    """Renders prompts and reads completions of one tokenizer in one chat format.

    Args:
        tokenizer: None for an engine that takes and gives text (`ServerEngine` with ``interface: chat``).
        template: see `Template`.

    Attributes:
        template: what identifies the format; that given where there is no tokenizer.
        chat_template: the format; None without a tokenizer.

    Raises:
        ValueError, FileNotFoundError: a format that is not there, or that the tokenizer cannot do.
    """

    def __init__(self, tokenizer: Tokenizer | None, template: Template = AUTO):
        self.tokenizer, self.template = tokenizer, template
        self.chat_template: ChatTemplate | None = None
        self.renderer: Renderer | None = None
        if tokenizer is None:
            return
        chosen = choose_template(template, tokenizer.transformers, tokenizer.chat_template, tokenizer.name_or_path)
        if chosen.warning:
            _say_once(log.warn, chosen.warning)
        _say_once(log.info, f"chat format: {chosen.template.described} ({chosen.reason})")
        self.chat_template, self.template = chosen.template, chosen.template.identity
        self.renderer = chosen.template.renderer(tokenizer.transformers)

    @property
    def template_text(self) -> str:
        """The template, where it is not the paper's: what a hash of results has beside the name."""
        if self.chat_template is None or self.chat_template.settings is not None:
            return ""
        return self.chat_template.text

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer."""
        if self.tokenizer is None or self.renderer is None:
            return ()
        eos = () if self.tokenizer.eos_id is None else (self.tokenizer.eos_id,)
        return tuple(dict.fromkeys((*eos, *self.renderer.stop_ids)))

    def prompt(
        self,
        messages: Sequence[dict[str, Any]],
        tools: list[dict[str, Any]] | None = None,
        seed: int | None = None,
    ) -> Prompt:
        """The prompt that makes the model say the next assistant turn.

        Raises:
            ValueError: messages that the format cannot render, or tools for an engine that takes text.
        """
        text = "\n\n".join(str(message["content"]) for message in messages)
        if self.renderer is None:
            if tools:
                raise ValueError("tools need a tokenizer and its chat format; give the tokenizer of the model")
            return Prompt((), seed, text)
        turns: list[Any] = list(messages)  # Conversation parses them
        rendered = self.renderer.render(Conversation(turns, tools), add_generation_prompt=True)
        return Prompt(tuple(rendered.ids), seed, text)

    def read(self, completion: Completion) -> Answer:
        """A completion as text, its reasoning apart."""
        text = completion.text
        if text is None:
            if self.tokenizer is None and completion.ids:
                raise ValueError("the engine gives token ids, and no tokenizer reads them; give the model's tokenizer")
            ids = completion.ids
            kept = ids[:-1] if ids and ids[-1] in self.stop_ids else ids
            text = "" if self.tokenizer is None else self.tokenizer.written(kept)
            if self.renderer is not None and self.renderer.opens_thinking and not text.lstrip().startswith(THINK_OPEN):
                text = f"{THINK_OPEN}\n{text}"
        return Answer(completion, text, *read_thinking(text, completion.finish_reason == "stop"))


@cache
def _say_once(say: Callable[[str], None], line: str) -> None:
    """A line of a log; suites and rewards make the same format again and again."""
    say(line)


class ChatModel:
    """An engine that is spoken to in messages.

    Args:
        engine: what generates; it must be open.
        tokenizer: the model's; None for an engine that takes and gives text.
        template: the chat format.
    """

    def __init__(self, engine: Engine, tokenizer: Tokenizer | None = None, template: Template = AUTO):
        self.engine, self.format = engine, ChatFormat(tokenizer, template)

    def write(
        self,
        conversations: Sequence[Sequence[dict[str, Any]]],
        sampling: Sampling,
        deadline: float | None = None,
    ) -> list[list[Answer]]:
        """The next assistant turn of every conversation, ``sampling.n`` times.

        The format's stop tokens are added to the sampling's. A prompt that fails gives answers whose completion has
        ``finish_reason="error"``.
        """
        prompts = [self.format.prompt(messages) for messages in conversations]
        return self.write_prompts(prompts, sampling, deadline)

    def write_prompts(
        self, prompts: Sequence[Prompt], sampling: Sampling, deadline: float | None = None
    ) -> list[list[Answer]]:
        """As `write`, of prompts that are rendered."""
        completions = self.engine.generate(prompts, with_stops(sampling, self.format.stop_ids), deadline)
        return [[self.format.read(completion) for completion in samples] for samples in completions]


def with_stops(sampling: Sampling, stop_ids: Sequence[int]) -> Sampling:
    """The sampling, ended by these tokens too."""
    from dataclasses import replace

    return replace(sampling, stop_ids=tuple(dict.fromkeys((*sampling.stop_ids, *stop_ids))))
