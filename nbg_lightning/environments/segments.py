"""An episode as token ids: context is only appended, and a rewritten history starts a new row."""

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
    """A row of an episode: a contiguous sequence that the model read and sampled.

    Attributes:
        prompt: ids before the first sampled id.
        ids: following ids: sampled ones, and between two turns those of the environment's messages.
        drawn: which of them the model sampled; the others are context and are not trained on.
        log_probs: the engine's log-prob of each id; 0 for context.
        turns: number of the model's turn that each id belongs to (for a message: the turn before it).
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
        """The row up to the last sampled id."""
        end = len(self.drawn) - self.drawn[::-1].index(True)
        return Segment(
            self.prompt,
            tuple(self.ids[:end]),
            tuple(self.drawn[:end]),
            tuple(self.log_probs[:end]),
            tuple(self.turns[:end]),
        )


class History:
    """The messages of an episode and the ids of its rows. Sampled ids are kept as they are, never re-encoded.

    Messages after a turn of the model are encoded from the turn's stop token on, and appended (`Renderer.continuation`). If
    new messages change how the format renders the text before that token (for example, by dropping the reasoning of earlier
    rounds), the row ends, and the whole re-rendered history becomes the prompt of a new one.

    Args:
        renderer: renderer of the chat format.
        turns: messages of the opening.
        tools: schemas of the tools.

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
        """The ids that the model reads next."""
        row = self._rows[-1]
        return (*row.prompt, *row.ids)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The rows that contain sampled ids."""
        return tuple(row.segment() for row in self._rows if any(row.drawn))

    @property
    def called(self) -> bool:
        """Whether the model's last turn contains a call."""
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
            Whether they are shown. A model's program may print a control token, which a template cannot write as text: the
            messages are then replaced by an error, so that a model cannot end its episode as a failure of its environment.

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
        """The ids from the last turn's stop token on; None if the new messages change the text before it."""
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
