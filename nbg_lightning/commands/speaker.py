"""A model to speak to: opened by a name, asked in messages, and heard while it writes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nbg_lightning import log
from nbg_lightning.chat.template import AUTO, TOKENIZER
from nbg_lightning.core.checkpoint_folder import checkpoint_at, is_complete
from nbg_lightning.data.tokenizer import Tokenizer, checkpoint_template, load_tokenizer
from nbg_lightning.engines.capabilities import Interface, StreamingEngine, window_of
from nbg_lightning.engines.chat import Answer, ChatFormat, with_stops
from nbg_lightning.engines.local import LocalEngine
from nbg_lightning.engines.protocol import Completion, GeneratedPiece, Prompt, Sampling
from nbg_lightning.engines.server import ServerEngine

TEXT = "text"
Hear = Callable[[int, str, float | None], None]
"""Is told what a sample has grown by: its number, a text, and the log-probability of that."""


@dataclass(frozen=True)
class SpeakerOptions:
    """How models are opened.

    Attributes:
        template: chat format: ``auto``, ``text`` (no chat: the prompt is continued), ``nanbeige``, ``tokenizer``, or a file.
        tokenizer: folder, hub name or checkpoint, where it is not beside the weights.
        ema: the averaged weights of checkpoints.
        device: where local models compute; CUDA where there is one.
        dtype: of local models.
        served_model: name of the model on a server; the first that it lists by default.
        api_key: for servers; ``env:NAME`` takes it from the environment.
    """

    template: str = AUTO
    tokenizer: str | None = None
    ema: bool = False
    device: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    served_model: str | None = None
    api_key: str | None = None


@dataclass(frozen=True)
class Speaker:
    """An open model.

    Attributes:
        name: as it was given.
        engine: what generates.
        tokenizer: the model's; None for a server, which has its own.
        chat: the chat format; None where text is continued, and for a server.
    """

    name: str
    engine: LocalEngine | ServerEngine
    tokenizer: Tokenizer | None
    chat: ChatFormat | None

    @property
    def converses(self) -> bool:
        """Whether it takes messages, and not only a text to continue."""
        return self.chat is not None or (isinstance(self.engine, ServerEngine) and self.engine.interface == "chat")

    @property
    def opens_thinking(self) -> bool:
        """Whether its prompt ends with an open think tag."""
        renderer = None if self.chat is None else self.chat.renderer
        return renderer is not None and renderer.opens_thinking

    def prompt(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None) -> Prompt:
        """The prompt of a conversation; of a model that only continues text, of its last message.

        Raises:
            ValueError: messages that the chat format cannot render, an empty prompt, or one that is too long.
        """
        text = str(messages[-1].get("content") or "")
        if messages[-1].get("role") == "user" and not text.strip():
            raise ValueError("the prompt is empty; write something")
        if self.chat is not None:
            prompt = self.chat.prompt([dict(each) for each in messages], [dict(each) for each in tools or ()] or None)
        elif self.tokenizer is not None:
            prompt = Prompt((*self.tokenizer.begin, *self.tokenizer.encode(text)), text=text)
        else:
            sent = tuple(_as_openai(message) for message in messages)
            prompt = Prompt((), None, text, sent, tuple(tools) if tools else None)
        window = window_of(self.engine)
        if window is not None and len(prompt.ids) >= window:
            raise ValueError(
                f"the prompt is too long: {len(prompt.ids):,} tokens, and the window of {self.name} is {window:,}; shorten it"
            )
        return prompt

    def speak(self, prompts: Sequence[Prompt], sampling: Sampling, hear: Hear | None = None) -> list[list[Completion]]:
        """Generate, and tell the texts of the first prompt's samples as they come.

        The ids are those of `Engine.generate` with the same prompts and sampling.
        """
        sampling = self.with_stops(sampling)
        if hear is None or not isinstance(self.engine, StreamingEngine):
            return self.engine.generate(prompts, sampling)
        return self.engine.stream(prompts, sampling, self._listener(hear))

    def _listener(self, hear: Hear) -> Callable[[GeneratedPiece], None]:
        writers: dict[int, Callable[[int], str]] = {}

        def listen(piece: GeneratedPiece) -> None:
            if piece.prompt_index:
                return
            text = piece.text or ""
            if piece.token is not None and self.tokenizer is not None:
                if piece.sample_index not in writers:
                    writers[piece.sample_index] = self.tokenizer.writer()
                text = writers[piece.sample_index](piece.token)
            hear(piece.sample_index, text, piece.log_prob)

        return listen

    def with_stops(self, sampling: Sampling) -> Sampling:
        """The sampling, ended by the tokens that end the model's answers."""
        if self.chat is not None:
            return with_stops(sampling, self.chat.stop_ids)
        eos = None if self.tokenizer is None else self.tokenizer.eos_id
        return sampling if eos is None else with_stops(sampling, (eos,))

    def read(self, completion: Completion) -> Answer:
        """A completion as text, its reasoning apart."""
        if self.chat is not None:
            return self.chat.read(completion)
        if completion.text is None and self.tokenizer is not None:
            ids = completion.ids
            kept = ids[:-1] if ids and ids[-1] == self.tokenizer.eos_id else ids
            completion = dataclasses.replace(completion, text=self.tokenizer.written(kept))
        if not self.converses:
            text = completion.text or ""
            return Answer(completion, text, None, text)
        return ChatFormat(None).read(completion)


@contextmanager
def open_speaker(name: str, options: SpeakerOptions) -> Iterator[Speaker]:
    """Open a checkpoint, the newest one of a run's folder, a Hugging Face folder or hub name, or a server by its URL.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: it cannot be had; in one line.
    """
    if is_url(name):
        interface: Interface = "text" if options.template == TEXT else "chat"
        if options.template not in (AUTO, TEXT):
            raise ValueError(
                f"template is invalid with a server: {options.template}; leave it out: the server applies its own chat format"
            )
        with ServerEngine(
            name,
            options.served_model,
            interface,
            retries=0,
            api_key=options.api_key,
        ) as server:
            yield Speaker(name, server, None, None)
        return
    weights = checkpoint_at(name)
    window = {"max_batch_tokens": 1 << 20}  # of a few rows; the window is the limit
    engine = LocalEngine(weights, options.ema, options.device, options.dtype, window)
    tokenizer = load_tokenizer(options.tokenizer or weights)
    chat = _chat_format(weights, tokenizer, options.template)
    if weights != name:
        log.info(f"{name}: {weights}")
    if chat is None and options.template != TEXT:
        log.info(f"{name} has no chat format: it continues the text that it is given (--template sets a format)")
    with engine:
        yield Speaker(name, engine, tokenizer, chat)


def _as_openai(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as servers take it: arguments of calls are JSON text, and reasoning of earlier turns is left out."""
    sent = {key: value for key, value in message.items() if key not in ("reasoning_content", "tool_calls")}
    if calls := message.get("tool_calls"):
        sent["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
            for call in calls
        ]
    return sent


def is_url(name: str) -> bool:
    """Whether a model's name is a server's address."""
    return name.startswith(("http://", "https://"))


def _chat_format(weights: str, tokenizer: Tokenizer, template: str) -> ChatFormat | None:
    """What the suites take with ``auto`` for a checkpoint; of a Hugging Face folder, its own template."""
    if template == TEXT:
        return None
    if template != AUTO or tokenizer.chat_template is not None:
        return ChatFormat(tokenizer, template)
    recorded = checkpoint_template(weights)
    if recorded is not None:
        tokenizer.chat_template = recorded
        return ChatFormat(tokenizer, AUTO)
    own = tokenizer.transformers.chat_template
    return None if is_complete(Path(weights).expanduser()) or not own else ChatFormat(tokenizer, TOKENIZER)
