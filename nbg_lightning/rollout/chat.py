"""Messages in, answers out, over any engine: what rewards, judges, annotators and builders of data ask of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from nbg_lightning.chat.conversation import Conversation, ConversationError, split_thinking
from nbg_lightning.chat.renderer import Renderer
from nbg_lightning.data.tokenizer import Tokenizer
from nbg_lightning.rollout.protocol import Completion, Engine, Prompt, Sampling

Template = Literal["nanbeige", "tokenizer"]
"""``nanbeige`` is the paper's chat format, ``tokenizer`` the tokenizer's own chat template."""


@dataclass(frozen=True)
class Answer:
    """What a model wrote, read.

    Attributes:
        completion: the sampled ids, their log-probs, how it ended.
        text: all of it as text, without the token that ended it.
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

    Raises:
        ValueError: a format that the tokenizer cannot do.
    """

    def __init__(self, tokenizer: Tokenizer | None, template: Template = "nanbeige"):
        self.tokenizer, self.template = tokenizer, template
        self.renderer: Renderer | None = None if tokenizer is None else make_renderer(tokenizer, template)

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
                raise ValueError("tools need a tokenizer and its chat format: give the tokenizer of the model")
            return Prompt((), seed, text)
        turns: list[Any] = list(messages)  # Conversation parses them
        rendered = self.renderer.render(Conversation(turns, tools), add_generation_prompt=True)
        return Prompt(tuple(rendered.ids), seed, text)

    def read(self, completion: Completion) -> Answer:
        """A completion as text, its reasoning apart."""
        text = completion.text
        if text is None:
            if self.tokenizer is None and completion.ids:
                raise ValueError("the engine gives token ids, and no tokenizer reads them: give the model's tokenizer")
            ids = completion.ids
            kept = ids[:-1] if ids and ids[-1] in self.stop_ids else ids
            text = "" if self.tokenizer is None else self.tokenizer.decode(kept, skip_special_tokens=True)
        try:
            return Answer(completion, text, *split_thinking(text))
        except ConversationError:
            return Answer(completion, text, None, None)


class Writer:
    """An engine that is spoken to in messages.

    Args:
        engine: what generates; it must be open.
        tokenizer: the model's; None for an engine that takes and gives text.
        template: the chat format.
    """

    def __init__(self, engine: Engine, tokenizer: Tokenizer | None = None, template: Template = "nanbeige"):
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


def make_renderer(tokenizer: Tokenizer, template: Template) -> Renderer:
    """The renderer of a chat format.

    Raises:
        ValueError: the tokenizer lacks its tokens, or has no usable template.
    """
    if template == "nanbeige":
        from nbg_lightning.chat.nanbeige import NanbeigeRenderer

        return NanbeigeRenderer(tokenizer.transformers)
    from nbg_lightning.chat.jinja import JinjaRenderer

    return JinjaRenderer(tokenizer.transformers)
