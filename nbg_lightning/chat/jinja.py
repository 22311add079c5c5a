"""Rendering by a tokenizer's own chat template, with assistant spans that are derived and verified.

Why not the `renderers` package (PyPI): its hand-written formats need one class per model, and its `DefaultRenderer`, for all
other templates, renders each prefix again and gives no mask of the sampled tokens. On the same template both give the same ids;
this takes 0.28 times its processor time, and `NanbeigeRenderer` 0.42 times that of `Qwen3Renderer`, which has the same format
(renderers 0.1.12, 200 conversations of 9 messages; benchmarks/performance/chat_renderers.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbg_lightning.chat.completeness import Completeness
from nbg_lightning.chat.conversation import THINK_CLOSE, THINK_OPEN, Conversation, ConversationError, Message
from nbg_lightning.chat.encoder import SegmentEncoder, control_tokens
from nbg_lightning.chat.fast_encoder import EnginesDiffer
from nbg_lightning.chat.renderer import ChatOptions, ChatTemplateError, Rendered, check_mask, check_prompt, turn_weights

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerFast

DEFAULT_STOP = "<|im_end|>"
# Keys of a message's reasoning in templates, most common first.
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
MARK = "MARKQZ"  # stands for the assistant's texts; extended if a conversation contains it
_OPENING, _CLOSING = re.compile(rf"\s*({THINK_OPEN})?\s*"), re.compile(rf"\s*{THINK_CLOSE}")
QUOTED_CHARACTERS = 60  # of a template's output in error messages


@dataclass(slots=True)
class _TurnSpan:
    """One assistant turn in rendered text: character positions of answer, stop token and thinking."""

    begin: int
    answer: int
    stop: int  # start of the stop token
    stop_text: str


class JinjaRenderer:
    """Renders by a chat template, and finds the assistant turns in its output.

    With `{% generation %}` blocks the template itself marks them. Without, the conversation is rendered a second time with marks
    in place of the assistant's texts: the text between the marks is the template's own, and must be found in the real output,
    piece by piece and to the last character. This also works for templates that strip reasoning from the history. Either way each
    span is verified: it must consist of the message's reasoning, content and calls, followed by the stop token, and there must be
    as many spans as assistant turns. A template that omits part of a conversation is refused (`Completeness`), as is one that
    takes too long (`bounded_jinja`).

    Samples with control tokens in the text of a message are refused, since a template would treat them as such.

    Args:
        tokenizer: a fast transformers tokenizer.
        options: see `ChatOptions`.
        chat_template: template to use instead of the tokenizer's.
        stop_tokens: tokens that end an assistant turn; None means the tokenizer's eos and `<|im_end|>`.
        template_arguments: further variables for the template, for example {"enable_thinking": True}.

    Raises:
        ValueError: no template, or a stop token that the tokenizer does not have.
        ChatTemplateError: spans cannot be derived, or the stop token would not be trained.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        options: ChatOptions | None = None,
        chat_template: str | None = None,
        stop_tokens: list[str] | None = None,
        template_arguments: dict[str, Any] | None = None,
    ) -> None:
        self.options = options or ChatOptions()
        if chat_template is None and not tokenizer.chat_template:
            raise ValueError("the tokenizer has no chat template; give chat_template, or use NanbeigeRenderer")
        self.template = chat_template or tokenizer.get_chat_template()
        self._arguments = {**tokenizer.special_tokens_map, **(template_arguments or {})}
        vocabulary = tokenizer.get_vocab()
        if stop_tokens is None:
            stop_tokens = [text for text in (DEFAULT_STOP, tokenizer.eos_token) if text in vocabulary]
        unknown = [text for text in stop_tokens if text not in vocabulary]
        if unknown or not stop_tokens:
            raise ValueError(
                f"the tokenizer has no stop token {', '.join(unknown) or '(no eos)'}; set stop_tokens to the "
                "tokens that end an assistant turn"
            )
        self._stops = {text: vocabulary[text] for text in stop_tokens}
        self.stop_ids: tuple[int, ...] = tuple(self._stops.values())
        self._stop_pattern = re.compile("|".join(map(re.escape, stop_tokens)))
        control = control_tokens(tokenizer, *stop_tokens)
        self._control_pattern = re.compile("|".join(map(re.escape, sorted(control, key=len, reverse=True))))
        self._encoder = SegmentEncoder(tokenizer, control, parse_control=True)
        self.takes_tools = re.search(r"\btools\b", self.template) is not None
        self.has_generation = re.search(r"\{%-?\+?\s*generation\s*-?\+?%\}", self.template) is not None
        self._reasoning_key = next(
            (key for key in REASONING_KEYS if re.search(rf"(\.|\[['\"]|get\(['\"]){key}\b", self.template)),
            None,
        )
        self._completeness = Completeness(self._text)
        self._headers = self._assistant_headers()
        self.opens_thinking = bool(self._headers) and self._headers[0].rstrip().endswith(THINK_OPEN)
        self._probe()

    # What a session asks for

    def render(self, conversation: Conversation, add_generation_prompt: bool = False) -> Rendered:
        """See `Renderer.render`; raises ChatTemplateError if the spans cannot be derived."""
        if not add_generation_prompt:
            result = self.render_batch([conversation])[0]
            if isinstance(result, ConversationError):
                raise result
            return result
        ids = self._encoder.ids(self._prompt_text(conversation))
        return Rendered(ids, [0.0] * len(ids), [(0, len(ids), "context")])

    def continuation(self, conversation: Conversation, num_before: int) -> list[int] | None:
        """See `Renderer.continuation`."""
        text = self._prompt_text(conversation)
        earlier, turns = self._text_and_spans(Conversation(conversation.messages[:num_before], conversation.tools))
        end = turns[-1].stop + len(turns[-1].stop_text)
        return self._encoder.ids(text[turns[-1].stop :]) if text[:end] == earlier[:end] else None

    def _prompt_text(self, conversation: Conversation) -> str:
        check_prompt(conversation)
        self._check_control(conversation)
        messages = self._dicts(conversation)
        text, _ = self._apply(messages, conversation.tools, add_generation_prompt=True)
        self._completeness.check(conversation, messages, text)
        return text

    def render_batch(self, conversations: Sequence[Conversation]) -> list[Rendered | ConversationError]:
        """See `Renderer.render_batch`; raises ChatTemplateError if the spans cannot be derived."""
        results: list[Rendered | ConversationError | None] = []
        texts: list[str] = []
        spans: list[list[_TurnSpan]] = []
        for conversation in conversations:
            try:
                text, turns = self._text_and_spans(conversation)
            except ConversationError as error:
                results.append(error)
            else:
                results.append(None)
                texts.append(text)
                spans.append(turns)
        found = iter(zip(texts, self._encoder.batch_encodings(texts), spans, strict=True))
        for index, conversation in enumerate(conversations):
            if results[index] is None:
                try:
                    results[index] = self._assemble(conversation, *next(found))
                except ConversationError as error:
                    results[index] = error
        return [result for result in results if result is not None]

    def fast(self, probe: bool) -> JinjaRenderer:
        """See `Renderer.fast`; always raises EnginesDiffer, since templates take longer than `tokenizers`."""
        raise EnginesDiffer("the chat template is not the built-in format")

    # The template

    def _apply(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        add_generation_prompt: bool = False,
    ) -> tuple[str, list[tuple[int, int]]]:
        """Rendered text and the character spans of `{% generation %}` blocks."""
        from nbg_lightning.chat.bounded_jinja import render  # a slow import

        variables: dict[str, Any] = {"messages": messages, "tools": tools, "documents": None, **self._arguments}
        try:
            return render(self.template, self.has_generation, add_generation_prompt=add_generation_prompt, **variables)
        except Exception as error:  # an untrusted template may raise any type
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ConversationError(f"the chat template refuses it: {reason}") from None

    def _text(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
        return self._apply(messages, tools)[0]

    def _dicts(self, conversation: Conversation) -> list[dict[str, Any]]:
        return [self._to_dict(message, message.content, message.reasoning) for message in conversation.messages]

    def _to_dict(self, message: Message, content: str, reasoning: str | None) -> dict[str, Any]:
        """A message as the template expects it; reasoning is put into the content if the template has no key for it."""
        result: dict[str, Any] = {"role": message.role, "content": content}
        if reasoning:
            if self._reasoning_key is None:
                result["content"] = f"{THINK_OPEN}\n{reasoning}\n{THINK_CLOSE}\n\n{content}"
            else:
                result[self._reasoning_key] = reasoning
        if message.tool_calls:
            result["tool_calls"] = [call.to_dict() for call in message.tool_calls]
        for key in ("name", "tool_call_id"):
            if getattr(message, key) is not None:
                result[key] = getattr(message, key)
        return result

    def _assistant_headers(self) -> list[str]:
        """Texts that may open an assistant turn: the generation prompt, with and without an opened `<think>`."""
        user = [{"role": "user", "content": "question"}]
        try:
            without, _ = self._apply(user, None)
            text, _ = self._apply(user, None, add_generation_prompt=True)
        except ConversationError as error:
            raise ChatTemplateError(f"the chat template does not render a single user turn: {error}") from None
        header = text[len(without) :] if text.startswith(without) else ""
        return list(dict.fromkeys(item for item in (header, header.split(THINK_OPEN)[0]) if item))

    def _probe(self) -> None:
        """Render a small conversation, so that an unusable template fails before any data is read."""
        turns = ("user", "question"), ("assistant", "answer"), ("user", "more"), ("assistant", "another answer")
        conversation = Conversation([Message(role, content) for role, content in turns])
        try:
            text, spans = self._text_and_spans(conversation)
            self._assemble(conversation, text, self._encoder.batch_encodings([text])[0], spans)
        except ConversationError as error:
            raise ChatTemplateError(
                f"the chat template cannot be used on a plain two-round conversation: {error}"
            ) from None

    # Spans in the rendered text

    def _check_control(self, conversation: Conversation) -> None:
        search = self._control_pattern.search
        for index, message in enumerate(conversation.messages):
            match = search(message.content) or (search(message.reasoning) if message.reasoning else None)
            for call in message.tool_calls or ():
                match = match or search(call.name) or search(str(call.arguments))
            if match:
                raise ConversationError(f"message {index} contains the control token {match.group()!r}")
        if conversation.tools and (match := search(str(conversation.tools))):
            raise ConversationError(f"the tools contain the control token {match.group()!r}")

    def _text_and_spans(self, conversation: Conversation) -> tuple[str, list[_TurnSpan]]:
        self._check_control(conversation)
        given = self._dicts(conversation)
        text, blocks = self._apply(given, conversation.tools)
        messages = [message for message in conversation.messages if message.role == "assistant"]
        spans = (
            self._spans_from_blocks(text, blocks, len(messages))
            if self.has_generation
            else self._spans_from_marks(text, conversation)
        )
        for number, (span, message) in enumerate(zip(spans, messages, strict=True)):
            body = text[span.begin : span.stop]
            try:
                span.answer = span.begin + _answer_offset(message, body)
            except ConversationError as error:
                raise ConversationError(f"assistant turn {number}: {error}") from None
        self._completeness.check(conversation, given, text)
        return text, spans

    def _spans_from_blocks(self, text: str, blocks: list[tuple[int, int]], num_turns: int) -> list[_TurnSpan]:
        """Spans from `{% generation %}` blocks; adjacent blocks are merged."""
        merged: list[list[int]] = []
        for begin, end in blocks:
            if merged and merged[-1][1] == begin:
                merged[-1][1] = end
            elif end > begin:
                merged.append([begin, end])
        if len(merged) != num_turns:
            raise ChatTemplateError(
                f"the chat template marks {len(merged)} {{% generation %}} spans for {num_turns} assistant turns"
            )
        spans = []
        for begin, end in merged:
            stop = self._stop_pattern.search(text, begin, end)
            if stop is None:
                after = self._stop_pattern.match(text, end)
                where = (
                    f"{after.group()!r} follows the block: move it inside"
                    if after
                    else f"looked for {', '.join(self._stops)}; the block ends with {_quote(text[begin:end], True)}"
                )
                raise ChatTemplateError(
                    f"the stop token is not inside the {{% generation %}} block and would never be trained ({where})"
                )
            if text[stop.end() : end].strip():
                raise ChatTemplateError(
                    f"the {{% generation %}} block goes on after the stop token: {_quote(text[stop.end() : end])}"
                )
            spans.append(_TurnSpan(begin, begin, stop.start(), stop.group()))
        return spans

    def _spans_from_marks(self, text: str, conversation: Conversation) -> list[_TurnSpan]:
        """Spans from a second rendering, with marks in place of the assistant's texts."""
        nonce = MARK
        while nonce in text:
            nonce += "Z"
        messages: list[dict[str, Any]] = []
        marks: list[tuple[str, str, bool]] = []  # content mark, reasoning mark, whether the turn has calls
        for message in conversation.messages:
            if message.role != "assistant":
                messages.append(self._to_dict(message, message.content, None))
                continue
            mark, thought = f"{nonce}C{len(marks)}E", f"{nonce}R{len(marks)}E"
            content = mark if message.content.strip() else ""
            marked = self._to_dict(message, content, thought if message.reasoning else None)
            if not content:  # only calls: the mark is in the first call's name
                call = marked["tool_calls"][0]
                call["function"] = {**call["function"], "name": mark}
            messages.append(marked)
            marks.append((mark, thought, bool(message.tool_calls)))
        marked_text, _ = self._apply(messages, conversation.tools)
        pieces, stops = self._constant_pieces(marked_text, marks)
        return _locate(text, pieces, stops)

    def _constant_pieces(self, text: str, marks: list[tuple[str, str, bool]]) -> tuple[list[str], list[str]]:
        """The template's own text before, between and after the assistant turns, and their stop tokens."""
        pieces, stops = [], []
        previous = 0
        for number, (mark, thought, has_calls) in enumerate(marks):
            if text.count(mark) != 1:
                times = "leaves out" if mark not in text else "repeats"
                raise ChatTemplateError(
                    f"the chat template {times} the content of assistant turn {number}; its span cannot be derived"
                )
            position = text.index(mark, previous)
            has_thought = text.count(thought, previous, position) == 1
            first = text.index(thought, previous) if has_thought else position
            begin = self._header_end(text, previous, first)
            if begin is None:
                if has_thought or has_calls:
                    raise ChatTemplateError(
                        f"cannot tell where assistant turn {number} begins: it does not open with the template's "
                        f"generation prompt ({_quote(self._headers[0]) if self._headers else 'it has none'})"
                    )
                begin = first
                while begin > previous and text[begin - 1] == " ":  # "[/INST] answer": the space belongs to the answer
                    begin -= 1
            end = position + len(mark)
            stop = self._stop_pattern.search(text, end)
            tail = text[end : stop.start()] if stop else text[end:]
            if stop is None or (tail.strip() and not has_calls) or any(item in tail for item in self._headers):
                raise ChatTemplateError(
                    f"no stop token ({', '.join(self._stops)}) right after assistant turn {number}, so the model "
                    f"would never learn to stop; the template writes {_quote(text[end:].split(MARK)[0])} there "
                    "(set stop_tokens if that begins with one)"
                )
            pieces.append(text[previous:begin])
            stops.append(stop.group())
            previous = stop.start()
        return [*pieces, text[previous:]], stops

    def _header_end(self, text: str, begin: int, end: int) -> int | None:
        """The end of the assistant's header before position `end`."""
        ends = [found + len(header) for header in self._headers if (found := text.rfind(header, begin, end)) >= 0]
        position = max(ends, default=None)
        if position is None or self._stop_pattern.search(text, position, end):
            return None
        return position

    # Spans in the ids

    def _assemble(self, conversation: Conversation, text: str, encoding: Encoding, turns: list[_TurnSpan]) -> Rendered:
        positions = [position for turn in turns for position in (turn.begin, turn.answer, turn.stop)]
        ids, cuts = self._encoder.cut(text, encoding, positions)
        messages = conversation.messages
        weights = turn_weights(conversation, self.options)
        assistants = [index for index, message in enumerate(messages) if message.role == "assistant"]
        loss_weights = [0.0] * len(ids)
        spans: list[tuple[int, int, str]] = []
        num_dropped = 0
        previous = 0
        for number, (index, turn) in enumerate(zip(assistants, turns, strict=True)):
            begin, answer, stop = cuts[3 * number : 3 * number + 3]
            end = stop + 1
            if stop >= len(ids) or ids[stop] != self._stops[turn.stop_text]:
                raise ChatTemplateError(
                    f"the tokenizer does not encode the stop token {turn.stop_text!r} as one token after assistant "
                    f"turn {number}; add it to the tokenizer as a special token"
                )
            if begin > previous:
                spans.append((previous, begin, "context"))
            if answer > begin:
                spans.append((begin, answer, "thinking"))
            spans.append((answer, end, "assistant"))
            previous = end
            if weights[index]:
                first = begin if self.options.train_on_thinking else answer
                loss_weights[first:end] = [weights[index]] * (end - first)
                reasoning = messages[index].reasoning
                num_dropped += reasoning is not None and reasoning.strip() not in text[turn.begin : turn.answer]
        if previous < len(ids):
            spans.append((previous, len(ids), "context"))
        check_mask(loss_weights)
        return Rendered(ids, loss_weights, spans, num_dropped)


def _locate(text: str, pieces: list[str], stops: list[str]) -> list[_TurnSpan]:
    """Find the template's pieces in the real text; the assistant's text is between them.

    A piece after an assistant turn begins with the stop token, which no message contains: so the first stop token is
    the turn's, and the search is unambiguous.
    """
    problem = "the chat template's text around assistant turn {} depends on what the assistant says; {}"
    if not text.startswith(pieces[0]):
        raise ChatTemplateError(problem.format(0, "its span cannot be derived"))
    begin = len(pieces[0])
    spans = []
    for number, stop_text in enumerate(stops):
        stop = text.find(stop_text, begin)
        if stop < 0 or not text.startswith(pieces[number + 1], stop):
            raise ChatTemplateError(
                problem.format(number, f"expected {_quote(pieces[number + 1])} after it, got {_quote(text[stop:])}")
            )
        spans.append(_TurnSpan(begin, begin, stop, stop_text))
        begin = stop + len(pieces[number + 1])
    if begin != len(text):
        raise ChatTemplateError(problem.format(len(stops) - 1, f"{_quote(text[begin:])} is left over"))
    return spans


def _answer_offset(message: Message, body: str) -> int:
    """Check that a span matches its message; returns where the answer begins after the thinking.

    Raises:
        ConversationError: the template changed the content, or added text that is not the message's.
    """
    answer = 0
    reasoning = (message.reasoning or "").strip()
    opening = _OPENING.match(body)
    begin = opening.end() if opening else 0
    for thought in (reasoning, ""):  # a template may also write an empty pair of tags
        closing = _CLOSING.match(body, begin + len(thought)) if body.startswith(thought, begin) else None
        if closing:
            answer = closing.end()
            break
    if answer:  # newlines between thinking and answer belong to the thinking
        answer += len(body[answer:]) - len(body[answer:].lstrip())
    rest = body[answer:].strip()
    content = message.content.strip()
    if message.tool_calls:
        if not rest.startswith(content) or any(call.name not in rest[len(content) :] for call in message.tool_calls):
            raise ConversationError(
                f"the template changes content or calls: {_quote(rest)} for content {_quote(content)}"
            )
    elif rest != content:
        raise ConversationError(f"the template changes the content: {_quote(rest)} instead of {_quote(content)}")
    return answer


def _quote(text: str, tail: bool = False) -> str:
    """A short, one-line quotation for error messages; `tail` quotes the end."""
    if len(text) <= QUOTED_CHARACTERS:
        return repr(text)
    return repr("…" + text[-QUOTED_CHARACTERS:] if tail else text[:QUOTED_CHARACTERS] + "…")
