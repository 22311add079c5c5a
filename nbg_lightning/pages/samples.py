"""Conversations and preference pairs of data files as records, with trained tokens marked if a tokenizer is given."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from nbg_lightning.chat.conversation import Conversation, Message
from nbg_lightning.chat.preview import decoded_runs
from nbg_lightning.chat.renderer import Rendered, Renderer
from nbg_lightning.chat.template import AUTO, choose_template
from nbg_lightning.data.pairs import PreferencePair
from nbg_lightning.data.tokenizer import Tokenizer, load_tokenizer
from nbg_lightning.pages.records import Facts, ShownAnswer, ShownPiece, ShownRecord, ShownTurn, fact
from nbg_lightning.pages.values import as_text, key_of


class TrainedTokens:
    """Marks the tokens of a conversation that have a loss, by rendering it in its chat format.

    Args:
        tokenizer: folder, hub name or checkpoint.
        template: the chat format, as in `nbg_lightning.engines.chat.Template`.

    Attributes:
        described: description of the chat format, for a page.

    Raises:
        FileNotFoundError, ValueError: no such tokenizer, or one that does not support the format.
    """

    def __init__(self, tokenizer: str, template: str = AUTO):
        loaded = load_tokenizer(tokenizer)
        chosen = choose_template(template, loaded.transformers, loaded.chat_template, loaded.name_or_path)
        self.described = f"{chosen.template.described} ({chosen.reason})"
        self._tokenizer: Tokenizer = loaded
        self._renderer: Renderer = chosen.template.renderer(loaded.transformers)

    def turn(self, conversation: Conversation, begin: int = 0) -> ShownTurn:
        """The rendered text from a token on.

        Raises:
            ConversationError: it cannot be rendered.
        """
        return rendered_turn(self._renderer.render(conversation), self._tokenizer, begin)

    def pair(self, pair: PreferencePair) -> tuple[ShownTurn, ShownTurn, ShownTurn]:
        """The prompt, and both answers."""
        chosen, rejected = self._renderer.render(pair.chosen), self._renderer.render(pair.rejected)
        return pair_turns(chosen, rejected, self._tokenizer)


def rendered_turn(sample: Rendered, tokenizer: Tokenizer, begin: int = 0, end: int | None = None) -> ShownTurn:
    """A part of a rendered sample, as text marked with its weights."""
    ids, weights = sample.ids[begin:end], sample.loss_weights[begin:end]
    runs = decoded_runs(Rendered(ids, weights, []), tokenizer.transformers)
    alike = groupby(runs, key=lambda run: run[1])
    return ShownTurn("", tuple(ShownPiece("".join(text for text, *_ in group), weight) for weight, group in alike))


def pair_turns(chosen: Rendered, rejected: Rendered, tokenizer: Tokenizer) -> tuple[ShownTurn, ShownTurn, ShownTurn]:
    """The common untrained beginning of both sequences, and the two remainders."""
    common = chosen.common_context(rejected)
    prompt = rendered_turn(chosen, tokenizer, 0, common)
    return prompt, rendered_turn(chosen, tokenizer, common), rendered_turn(rejected, tokenizer, common)


def conversation_record(row: dict[str, Any], marks: TrainedTokens | None, place: str) -> ShownRecord:
    """The record of a conversation; without ``marks``, whole assistant turns are marked.

    Raises:
        ConversationError: it is not a conversation, or cannot be rendered.
    """
    conversation = Conversation.from_dict(row, require_assistant=False)
    turns = message_turns(conversation.messages) if marks is None else (marks.turn(conversation),)
    tools = None if not conversation.tools else f"{len(conversation.tools)} given"
    first = next((m.content for m in conversation.messages if m.role == "user"), "")
    facts = fact("tools", tools)
    return ShownRecord(key_of(first), place, conversation.domain or "", turns, facts=facts)


def pair_record(row: dict[str, Any], marks: TrainedTokens | None, place: str) -> ShownRecord:
    """The record of a pair, its answers side by side.

    Raises:
        ConversationError: it is not a pair, or cannot be rendered.
    """
    pair = PreferencePair.from_dict(row)
    prompt = pair.chosen.messages[: pair.num_prompt]
    if marks is None:
        sides = [message_turns(side.messages[pair.num_prompt :]) for side in (pair.chosen, pair.rejected)]
        asked: Sequence[ShownTurn] = message_turns(prompt, 0.0)
    else:
        first, chosen, rejected = marks.pair(pair)
        asked, sides = (first,), [(chosen,), (rejected,)]
    return ShownRecord(
        key_of([as_text(message.content) for message in prompt]),
        place,
        as_text(row.get("domain") or row.get("source")),
        tuple(asked),
        tuple(
            ShownAnswer(name, turns, None, _score(pair, number))
            for number, (name, turns) in enumerate(zip(("chosen", "rejected"), sides, strict=True))
        ),
    )


def _score(pair: PreferencePair, side: int) -> Facts:
    return () if pair.scores is None else (("score", f"{pair.scores[side]:g}"),)


def message_turns(messages: Sequence[Message], weight: float | None = None) -> tuple[ShownTurn, ...]:
    """Messages as they stand; an assistant's are covered by the loss, by their own weight, unless ``weight`` says another."""
    turns = []
    for message in messages:
        own = (1.0 if message.weight is None else message.weight) if message.role == "assistant" else 0.0
        calls = [f"tool call {call.name}: {as_text(call.arguments)}" for call in message.tool_calls or ()]
        texts = [f"<think>\n{message.reasoning}\n</think>" if message.reasoning else "", message.content, *calls]
        piece = ShownPiece("\n".join(filter(None, texts)), own if weight is None else weight)
        turns.append(ShownTurn(f"{message.role} {message.name}" if message.name else message.role, (piece,)))
    return tuple(turns)
