"""An episode as the ids that the model saw and drew: context grows by what is new, and a rewritten history begins another row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nbg_lightning.chat.conversation import THINK_CLOSE, Conversation, ConversationError, Message
from nbg_lightning.chat.renderer import Renderer
from nbg_lightning.engines.protocol import Completion
from nbg_lightning.environments.environment import ModelTurn, Turn

_NOT_RENDERED = "(a turn that cannot be shown)"
_NOT_SHOWN = "error: the result has a control token of the chat format, and cannot be shown"


@dataclass(frozen=True)
class Segment:
    """A row of an episode: what the model read and drew, without a cut.

    Attributes:
        prompt: ids before the first that was drawn.
        ids: what follows: ids that were drawn, and between two turns those of the environment's messages.
        drawn: which of them the model drew; the others are context and are not trained.
        log_probs: of the engine, of each id; 0 where nothing was drawn.
        turns: the number of the model's turn that each belongs to (that of a message: the turn before it).
    """

    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    drawn: tuple[bool, ...]
    log_probs: tuple[float, ...]
    turns: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.drawn) == len(self.log_probs) == len(self.turns)


@dataclass
class _Row:
    prompt: tuple[int, ...]
    ids: list[int] = field(default_factory=list)
    drawn: list[bool] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)

    def append(self, ids: Sequence[int], log_probs: Sequence[float] | None, turn: int) -> None:
        self.ids += ids
        self.drawn += [log_probs is not None] * len(ids)
        self.log_probs += [0.0] * len(ids) if log_probs is None else log_probs
        self.turns += [turn] * len(ids)

    def segment(self) -> Segment:
        """The row up to the last id that was drawn."""
        end = len(self.drawn) - self.drawn[::-1].index(True)
        return Segment(
            self.prompt,
            tuple(self.ids[:end]),
            tuple(self.drawn[:end]),
            tuple(self.log_probs[:end]),
            tuple(self.turns[:end]),
        )


class History:
    """The messages of an episode beside the ids of its rows. Ids that were drawn are kept: they are never encoded again.

    What follows a turn of the model is encoded from the turn's stop token on, and appended (`Renderer.continuation`). Where the
    format writes what stands before that token in another way than without the new messages (it leaves out reasoning of earlier
    rounds, say), the row ends, and the whole rendered history is the prompt of another.

    Args:
        renderer: of the chat format.
        turns: the opening.
        tools: schemas.

    Raises:
        ConversationError: an opening that the format cannot render.
    """

    def __init__(self, renderer: Renderer, turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]]):
        self._renderer = renderer
        self._messages: list[Message] = [Message.parse(turn) for turn in turns]
        self._tools = [dict(tool) for tool in tools] or None
        self._num_turns = 0
        self._last = ModelTurn("")
        self._rows = [_Row(self._prompt_ids())]

    @property
    def ids(self) -> tuple[int, ...]:
        """What the model reads next."""
        row = self._rows[-1]
        return (*row.prompt, *row.ids)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The rows in which something was drawn."""
        return tuple(row.segment() for row in self._rows if any(row.drawn))

    @property
    def called(self) -> bool:
        """Whether the model's last turn called something."""
        return bool(self._last.calls)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages so far, as plain values."""
        return [_plain(message) for message in self._messages]

    def add_drawn(self, completion: Completion, turn: ModelTurn) -> None:
        """Append a turn of the model."""
        self._rows[-1].append(completion.ids, completion.log_probs, self._num_turns)
        self._messages.append(Message("assistant", turn.content, turn.reasoning, list(turn.calls) or None))
        self._last = turn

    def add_reply(self, turns: Sequence[Turn]) -> bool:
        """Append messages of the environment, and the header of the model's next turn.

        Returns:
            Whether they are shown. A program of the model may print a control token, which a template cannot write as text:
            an error then stands in the messages' place, so that no model ends its episode as its environment's failure.

        Raises:
            ConversationError: messages that the format cannot render.
        """
        before = len(self._messages)
        self._messages += [Message.parse(turn) for turn in turns]
        further = self._rendered(before)
        if further is None:
            self._rows.append(_Row(self._prompt_ids()))
        else:
            # A turn that ended by a stop string, or by another stop id, has the stop token as context.
            ended = self._rows[-1].ids[-1] == further[0]
            self._rows[-1].append(further[ended:], None, self._num_turns)
        self._num_turns += 1
        return all(message.content != _NOT_SHOWN for message in self._messages[before:])

    def _rendered(self, before: int) -> list[int] | None:
        """The ids from the last turn's stop token on; None where what stands before that is another with the new messages."""
        own, said = self._messages[before - 1], self._messages[before:]
        # A call of an unknown tool, or a control token in what the model wrote: the format may know it as text, or not at all.
        written = (own, Message("assistant", _uncalled(self._last)), Message("assistant", _NOT_RENDERED))
        failures = []
        for reply in (said, [replace(message, content=_NOT_SHOWN) for message in said]):
            for turn in written:
                self._messages[before - 1 :] = [turn, *reply]
                try:
                    return self._renderer.continuation(self._conversation(), before)
                except ConversationError as error:
                    failures.append(error)
        raise failures[0]

    def _prompt_ids(self) -> tuple[int, ...]:
        return tuple(self._renderer.render(self._conversation(), add_generation_prompt=True).ids)

    def _conversation(self) -> Conversation:
        return Conversation(list(self._messages), self._tools)


def _uncalled(turn: ModelTurn) -> str:
    """A turn's text without its reasoning."""
    return turn.text.rpartition(THINK_CLOSE)[2].lstrip("\n")


def _plain(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        found["reasoning_content"] = message.reasoning
    if message.tool_calls:
        found["tool_calls"] = [call.to_dict() for call in message.tool_calls]
    if message.name:
        found["name"] = message.name
    if message.tool_call_id:
        found["tool_call_id"] = message.tool_call_id
    return found
