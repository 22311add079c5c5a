"""Chat over any engine, messages in and answers out: used by rewards, judges, annotators and builders."""

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
"""``auto`` is the model's own format: recorded in its checkpoint, else the tokenizer's template, else ``nanbeige``.
``nanbeige`` is the paper's chat format, ``tokenizer`` the tokenizer's template, anything else a file with a template."""


@dataclass(frozen=True)
class Answer:
    """A parsed answer of a model.

    Attributes:
        completion: the sampled ids, their log-probs, and how generation ended.
        text: the whole answer as text, without the stop token; begins with `<think>` if the prompt opened it.
        reasoning: the text between think tags; None without them.
        final: the text after the reasoning; None if the reasoning never ended.
    """

    completion: Completion
    text: str
    reasoning: str | None
    final: str | None

    @property
    def finished(self) -> bool:
        """Whether it ended by itself, and not inside its reasoning."""
        return self.completion.finish_reason == "stop" and self.final is not None


class ChatFormat:
    """Renders prompts and parses completions for one tokenizer in one chat format.

    Args:
        tokenizer: the tokenizer; None for an engine that takes and returns text (`ServerEngine` with ``interface: chat``).
        template: see `Template`.

    Attributes:
        template: identifies the format; the given value if there is no tokenizer.
        chat_template: the format; None without a tokenizer.

    Raises:
        ValueError, FileNotFoundError: the format does not exist, or the tokenizer does not support it.
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
        """The template's text, unless it is the paper's: hashes of results include it with the name."""
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
        """The prompt for the next assistant turn.

        Raises:
            ValueError: the format cannot render the messages, or tools are given for an engine that takes text.
        """
        text = "\n\n".join(str(message["content"]) for message in messages)
        if self.renderer is None:
            if tools:
                raise ValueError("tools need a tokenizer and its chat format; give the tokenizer of the model")
            return Prompt((), seed, text)
        turns: list[Any] = list(messages)  # parsed by Conversation
        rendered = self.renderer.render(Conversation(turns, tools), add_generation_prompt=True)
        return Prompt(tuple(rendered.ids), seed, text)

    def read(self, completion: Completion) -> Answer:
        """Decode a completion, and separate its reasoning."""
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
    """Log a line once, since suites and rewards create the same format repeatedly."""
    say(line)


class ChatModel:
    """Chat interface to an engine.

    Args:
        engine: the engine, which must be open.
        tokenizer: the model's tokenizer; None for an engine that takes and returns text.
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
        """Generate the next assistant turn of every conversation, ``sampling.n`` times.

        The format's stop tokens are added to those of the sampling. A prompt that fails gets answers whose completion has
        ``finish_reason="error"``.
        """
        prompts = [self.format.prompt(messages) for messages in conversations]
        return self.write_prompts(prompts, sampling, deadline)

    def write_prompts(
        self, prompts: Sequence[Prompt], sampling: Sampling, deadline: float | None = None
    ) -> list[list[Answer]]:
        """Like `write`, for rendered prompts."""
        completions = self.engine.generate(prompts, with_stops(sampling, self.format.stop_ids), deadline)
        return [[self.format.read(completion) for completion in samples] for samples in completions]


def with_stops(sampling: Sampling, stop_ids: Sequence[int]) -> Sampling:
    """The sampling with additional stop tokens."""
    from dataclasses import replace

    return replace(sampling, stop_ids=tuple(dict.fromkeys((*sampling.stop_ids, *stop_ids))))
