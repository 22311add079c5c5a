"""The chat format of Nanbeige4-3B: ChatML with thinking and Hermes tools, built in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

from nbg_lightning.chat.conversation import Conversation, ConversationError, Message
from nbg_lightning.chat.encoder import SegmentEncoder, control_tokens
from nbg_lightning.chat.fast_encoder import EnginesDiffer, is_audited
from nbg_lightning.chat.nanbeige_template import TOOLS_AFTER, TOOLS_BEFORE
from nbg_lightning.chat.renderer import ChatOptions, Rendered, check_mask, check_prompt, turn_weights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

START, STOP = "<|im_start|>", "<|im_end|>"
ASSISTANT_HEADER = "assistant\n"
# System turns repeat over a dataset; those up to this length are cached.
CACHED_SYSTEMS = 1024
CACHED_SYSTEM_CHARACTERS = 16_384

# A turn before its ids exist: (kind, text, thinking characters, weight). `text` follows the start token;
# the thinking characters are counted from the end of the assistant header.
_Turn = tuple[str, str, int, float]


class NanbeigeRenderer:
    """ChatML with thinking and tools (paper, Model: tokens and chat format), as `nanbeige_template` defines it.

    A turn is `<|im_start|>role\\n…<|im_end|>\\n`. Tools are JSON lines in `<tools></tools>` in the system turn, calls are
    `<tool_call>\\n{"name": …, "arguments": …}\\n</tool_call>`, and results are a user turn of `<tool_response>` blocks
    (consecutive ones share the turn). Reasoning is `<think>\\n…\\n</think>\\n\\nanswer`; that of assistant turns before the
    last user query is dropped. The loss covers what follows `<|im_start|>assistant\\n`, up to and including
    `<|im_end|>`.

    Text between control tokens is encoded as a whole, so that the ids are those of the rendered text encoded at once;
    only if a token would straddle the end of `assistant\\n`, where a prompt ends, does the answer start a new token.
    Control tokens in the text of a message remain plain text. The mask is derived from the turns, not from pad or stop
    ids, so a pad token equal to the stop token is harmless.

    Args:
        tokenizer: a fast transformers tokenizer whose vocabulary has `<|im_start|>` and `<|im_end|>`.
        options: see `ChatOptions`.
        default_system: system text for conversations without one; None adds no system turn (the paper does not say).
        add_bos: put the tokenizer's bos before the conversation (ChatML has none).
        open_thinking: end the generation prompt with `<think>\\n`, for models that always think.

    Raises:
        ValueError: the tokenizer lacks a control token.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        options: ChatOptions | None = None,
        default_system: str | None = None,
        add_bos: bool = False,
        open_thinking: bool = False,
    ) -> None:
        self.options = options or ChatOptions()
        self.default_system = default_system
        self.opens_thinking = open_thinking
        self.takes_tools = True
        vocabulary = tokenizer.get_added_vocab()
        missing = [text for text in (START, STOP) if text not in vocabulary]
        if missing:
            raise ValueError(
                f"the tokenizer has no token {' and no '.join(missing)}; add the ChatML tokens to it, "
                "or use JinjaRenderer with the tokenizer's own template"
            )
        if add_bos and tokenizer.bos_token_id is None:
            raise ValueError(
                "add_bos is invalid: the tokenizer has no bos token; leave it out, or take another tokenizer"
            )
        self._start, self.stop_id = vocabulary[START], vocabulary[STOP]
        self.stop_ids: tuple[int, ...] = (self.stop_id,)
        self._bos: list[int] = [tokenizer.bos_token_id] if add_bos else []
        self._encoder = SegmentEncoder(tokenizer, control_tokens(tokenizer, START, STOP), parse_control=False)
        self._header = self._encoder.ids(ASSISTANT_HEADER)
        self._newline = self._encoder.ids("\n")
        self._systems: dict[str, list[int]] = {}
        self._judge: NanbeigeRenderer | None = None

    def fast(self, probe: bool) -> NanbeigeRenderer:
        """See `Renderer.fast`."""
        renderer = copy(self)
        renderer._encoder, renderer._systems, renderer._judge = self._encoder.fast(probe), {}, self
        return renderer

    def render(self, conversation: Conversation, add_generation_prompt: bool = False) -> Rendered:
        """See `Renderer.render`."""
        if not add_generation_prompt:
            result = self.render_batch([conversation])[0]
            if isinstance(result, ConversationError):
                raise result
            return result
        check_prompt(conversation)
        rendered = self._assemble([self._plan(conversation)])[0]
        rendered.loss_weights = [0.0] * len(rendered)
        begin = len(rendered)
        rendered.ids += self._generation_ids()
        rendered.loss_weights += [0.0] * (len(rendered.ids) - begin)
        rendered.spans.append((begin, len(rendered.ids), "header"))
        return rendered

    def _generation_ids(self) -> list[int]:
        """The header of the turn that the model generates next."""
        opened = self._encoder.continuation_ids("<think>\n") if self.opens_thinking else []
        return [self._start, *self._header, *opened]

    def continuation(self, conversation: Conversation, num_before: int) -> list[int] | None:
        """See `Renderer.continuation`."""
        check_prompt(conversation)
        turns, _ = self._plan(conversation)
        earlier, _ = self._plan(Conversation(conversation.messages[:num_before], conversation.tools))
        if any(turn[1] != before[1] for turn, before in zip(turns, earlier, strict=False)):
            return None
        further = self._assemble([(turns[len(earlier) :], 0)])[0].ids[len(self._bos) :]
        return [self.stop_id, *self._newline, *further, *self._generation_ids()]

    def render_batch(self, conversations: Sequence[Conversation]) -> list[Rendered | ConversationError]:
        """See `Renderer.render_batch`."""
        results: list[Rendered | ConversationError] = []
        plans = [self._plan(conversation) for conversation in conversations]
        made = self._assemble(plans)
        if self._judge is not None:
            for (turns, _), rendered in zip(plans, made, strict=True):
                if is_audited(turns[-1][1].encode()):
                    self._audit(turns, rendered)
        for rendered in made:
            try:
                check_mask(rendered.loss_weights)
            except ConversationError as error:
                results.append(error)
            else:
                results.append(rendered)
        return results

    def _audit(self, turns: list[_Turn], rendered: Rendered) -> None:
        """Compare a sample with the reference tokenizer.

        Raises:
            EnginesDiffer: its ids or weights differ.
        """
        assert self._judge is not None
        (expected,) = self._judge._assemble([(turns, rendered.num_reasoning_dropped)])
        if expected != rendered:
            raise EnginesDiffer(
                f"fastokens gives other ids than tokenizers in the conversation that ends with {turns[-1][1][-40:]!r}"
            )

    def _plan(self, conversation: Conversation) -> tuple[list[_Turn], int]:
        """The turns of a conversation as texts, and the number of trained turns that lose their reasoning."""
        messages = conversation.messages
        weights = turn_weights(conversation, self.options)
        last_query = conversation.last_query()
        turns: list[_Turn] = []
        system = messages[0].content if messages[0].role == "system" else self.default_system
        if conversation.tools:
            tools = _tools_text(conversation.tools)
            system = f"{system}\n\n{tools}" if system else tools
        if system:
            turns.append(("system", f"system\n{system}", 0, 0.0))
        num_dropped = 0
        results: list[str] = []
        for index, message in enumerate(messages):
            role = message.role
            if role == "tool":
                results.append(f"<tool_response>\n{message.content}\n</tool_response>")
                continue
            if results:
                turns.append(("tool", "user\n" + "\n".join(results), 0, 0.0))
                results = []
            if role == "user":
                turns.append(("user", f"user\n{message.content}", 0, 0.0))
            elif role == "assistant":
                thinking = ""
                if message.reasoning:
                    if index > last_query:
                        thinking = f"<think>\n{message.reasoning}\n</think>\n\n"
                    elif weights[index]:
                        num_dropped += 1
                answer = _answer_text(message, strip=bool(thinking))
                text = f"{ASSISTANT_HEADER}{thinking}{answer}"
                turns.append(("assistant", text, len(thinking), weights[index]))
        if results:
            turns.append(("tool", "user\n" + "\n".join(results), 0, 0.0))
        return turns, num_dropped

    def _assemble(self, plans: Sequence[tuple[list[_Turn], int]]) -> list[Rendered]:
        """Encode the texts of all plans together, and assemble the samples."""
        plain: list[str] = []
        thinking: list[str] = []
        ends: list[tuple[int, int]] = []  # of header and reasoning
        systems = self._systems
        for turns, _ in plans:
            for kind, text, num_thinking, _weight in turns:
                if num_thinking:
                    thinking.append(text)
                    ends.append((len(ASSISTANT_HEADER), len(ASSISTANT_HEADER) + num_thinking))
                elif kind != "system" or text not in systems:
                    plain.append(text)
        plain_ids = iter(self._encoder.batch_ids(plain))
        thinking_ids = iter(self._encoder.batch_cut(thinking, ends))
        fresh_systems: dict[str, list[int]] = {}
        result = []
        for turns, num_dropped in plans:
            made = _Assembled(list(self._bos))
            for kind, text, num_thinking, weight in turns:
                if kind == "assistant":
                    body = self._answer_ids(text, num_thinking, plain_ids, thinking_ids)
                    self._add_answer(made, *body, weight)
                    continue
                turn_ids = systems.get(text) if kind == "system" else None
                if turn_ids is None:
                    turn_ids = next(plain_ids)
                    if kind == "system" and len(text) <= CACHED_SYSTEM_CHARACTERS:
                        fresh_systems[text] = turn_ids
                begin = len(made.ids)
                made.ids += [self._start, *turn_ids, self.stop_id, *self._newline]
                made.spans.append((begin, len(made.ids), kind))
            result.append(made.rendered(num_dropped))
        if len(systems) + len(fresh_systems) > CACHED_SYSTEMS:
            systems.clear()
        systems.update(fresh_systems)
        return result

    def _answer_ids(
        self,
        text: str,
        num_thinking: int,
        plain_ids: Iterator[list[int]],
        thinking_ids: Iterator[tuple[list[int], list[int]]],
    ) -> tuple[list[int], int, int]:
        """The ids of an assistant turn, and the token positions at which its header and its reasoning end."""
        if num_thinking:
            turn_ids, (header, answer) = next(thinking_ids)
            return turn_ids, header, answer
        turn_ids, header = next(plain_ids), len(self._header)
        if turn_ids[:header] != self._header:  # a token straddles the end of the prompt
            turn_ids = self._header + self._encoder.continuation_ids(text[len(ASSISTANT_HEADER) :])
        return turn_ids, header, header

    def _add_answer(self, made: _Assembled, turn_ids: list[int], header: int, answer: int, weight: float) -> None:
        begin = len(made.ids)
        start = begin + 1
        made.ids += [self._start, *turn_ids, self.stop_id]
        end = len(made.ids)
        made.ids += self._newline
        made.spans.append((begin, start + header, "header"))
        if answer > header:
            made.spans.append((start + header, start + answer, "thinking"))
        made.spans += [(start + answer, end, "assistant"), (end, len(made.ids), "header")]
        if weight:
            made.trained.append((start + (header if self.options.train_on_thinking else answer), end, weight))


class _Assembled:
    """The accumulated ids of a conversation, with spans and loss weights."""

    def __init__(self, ids: list[int]):
        self.ids = ids
        self.spans: list[tuple[int, int, str]] = [(0, len(ids), "header")] if ids else []
        self.trained: list[tuple[int, int, float]] = []

    def rendered(self, num_dropped: int) -> Rendered:
        loss_weights = [0.0] * len(self.ids)
        for first, last, weight in self.trained:
            loss_weights[first:last] = [weight] * (last - first)
        return Rendered(self.ids, loss_weights, self.spans, num_dropped)


def _tools_text(tools: Sequence[dict[str, Any]]) -> str:
    lines = "".join("\n" + json.dumps(tool, ensure_ascii=False) for tool in tools)
    return f"{TOOLS_BEFORE}{lines}{TOOLS_AFTER}"


def _answer_text(message: Message, strip: bool) -> str:
    """Content and calls of an assistant turn; `strip` removes leading newlines (after reasoning)."""
    content = message.content.lstrip("\n") if strip else message.content
    if not message.tool_calls:
        return content
    calls = [
        json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False) for call in message.tool_calls
    ]
    blocks = [f"<tool_call>\n{call}\n</tool_call>" for call in calls]
    return "\n".join([content, *blocks] if content else blocks)
