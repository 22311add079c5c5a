"""Preference pairs: two answers to one prompt, parsed and validated once, and rendered to ids with loss masks."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np

from nbg_lightning.chat.conversation import Conversation, ConversationError, Message
from nbg_lightning.chat.renderer import BATCH_SIZE, KEPT_ERRORS, ChatTemplateError, RenderCounts, Rendered, Renderer
from nbg_lightning.data.pair_formats import SIDES, read_pair

KEY_BYTES = 16
Overflow = Literal["drop", "error"]  # what to do with a pair that is too long


@dataclass(slots=True)
class PreferencePair:
    """Two conversations with a common beginning, the prompt, and different answers.

    Only the answers are trained on: assistant turns of the prompt have weight 0.

    Attributes:
        chosen: prompt and better answer.
        rejected: prompt and worse answer.
        num_prompt: number of messages in the prompt.
        scores: scores of the chosen and the rejected answer, if the data has them.
        notes: findings while reading the row, for counts.

    Example:
        >>> PreferencePair.from_dict({"prompt": "2+2?", "chosen": "4", "rejected": "5"}).chosen.messages[1].content
        '4'
    """

    chosen: Conversation
    rejected: Conversation
    num_prompt: int
    scores: tuple[float, float] | None = None
    notes: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def from_dict(
        cls, row: Mapping[str, Any] | ConversationError, pair_format: str = "auto", ignored_keys: Collection[str] = ()
    ) -> PreferencePair:
        """Read a row with ``chosen`` and ``rejected``, and optionally ``prompt`` and ``tools``, in a format of `pair_formats`.

        A text is one message: of the user in a prompt, of the assistant in an answer. Without a prompt, or if they begin with a
        user or system turn, chosen and rejected are whole conversations, and the prompt is their common beginning.

        Args:
            row: the row; if it is the error of an unreadable row, that is raised.
            pair_format: name of the format; "auto" detects it from the keys.
            ignored_keys: message keys to ignore.

        Raises:
            ConversationError: equal or empty answers, answers to different prompts, or a malformed message; the error says which.
        """
        if isinstance(row, ConversationError):
            raise row
        turns = read_pair(row, pair_format, ignored_keys)
        prompt = None if turns.prompt is None else _parsed(turns.prompt, "prompt")
        answers = [_parsed(turns.chosen, SIDES[0]), _parsed(turns.rejected, SIDES[1])]
        if prompt is not None:
            prompt = _with_their_system(prompt, answers)
            answers = [_after(prompt, answer, side) for answer, side in zip(answers, SIDES, strict=True)]
        else:
            prompt = _common(*answers)
            answers = [answer[len(prompt) :] for answer in answers]
        for answer, side in zip(answers, SIDES, strict=True):
            if not answer:
                raise ConversationError(f"the {side} answer is empty")
            if answer[0].role != "assistant":
                raise ConversationError(f"the {side} answer begins with a {answer[0].role} turn, not an assistant's")
        if answers[0] == answers[1]:
            raise ConversationError("the chosen and the rejected answer are the same")
        chosen, rejected = (
            _conversation(prompt, answer, turns.tools, side) for answer, side in zip(answers, SIDES, strict=True)
        )
        notes = turns.notes
        if chosen.notes or rejected.notes:
            notes = tuple(dict.fromkeys((*notes, *chosen.notes, *rejected.notes)))
        return cls(chosen, rejected, len(prompt), turns.scores, notes)

    @property
    def prompt_key(self) -> bytes:
        """Key of the prompt: pairs with the same prompt share it."""
        messages = [dataclasses.asdict(message) for message in self.chosen.messages[: self.num_prompt]]
        return json.dumps([messages, self.chosen.tools], default=str).encode()


def _parsed(turns: list[Any], where: str) -> list[Message]:
    messages = []
    for index, item in enumerate(turns):
        try:
            message = Message.parse(item)
        except ConversationError as error:
            raise ConversationError(f"{where}: message {index}: {error}") from None
        if message.weight not in (None, 0.0, 1.0):
            raise ConversationError(f"{where}: message {index}: weight is invalid: {message.weight}; give 0 or 1")
        messages.append(message)
    if not any(map(_says_something, messages)):
        raise ConversationError(f"the {where}{'' if where == 'prompt' else ' answer'} is empty")
    return messages


def _says_something(message: Message) -> bool:
    return bool(message.content.strip() or message.tool_calls)


def _with_their_system(prompt: list[Message], answers: list[list[Message]]) -> list[Message]:
    """The prompt, preceded by the system turn with which both answers begin before repeating the prompt."""
    first = answers[0][0]
    if first.role == "system" and prompt[0].role != "system" and all(answer[0] == first for answer in answers):
        return [first, *prompt]
    return prompt


def _after(prompt: list[Message], answer: list[Message], side: str) -> list[Message]:
    """The answer without the prompt, if the row repeats it."""
    if answer[0].role not in ("system", "user"):
        return answer
    if answer[: len(prompt)] != prompt:
        raise ConversationError(f"the {side} conversation does not begin with the prompt")
    return answer[len(prompt) :]


def _common(chosen: list[Message], rejected: list[Message]) -> list[Message]:
    """The common beginning of two whole conversations."""
    if chosen == rejected:
        raise ConversationError("the chosen and the rejected answer are the same")
    for side, messages in zip(SIDES, (chosen, rejected), strict=True):
        if messages[0].role == "assistant":
            raise ConversationError(f"no 'prompt', and the {side} conversation begins with an assistant turn")
    count = 0
    while count < min(len(chosen), len(rejected)) and chosen[count] == rejected[count]:
        count += 1
    different = [messages[count].role for messages in (chosen, rejected) if len(messages) > count]
    if any(role != "assistant" for role in different):
        raise ConversationError(f"chosen and rejected have different prompts: they differ in message {count} already")
    return chosen[:count]


def _conversation(prompt: list[Message], answer: list[Message], tools: Any, side: str) -> Conversation:
    untrained = [dataclasses.replace(m, weight=0.0) if m.role == "assistant" else m for m in prompt]
    try:
        return Conversation([*untrained, *answer], tools)
    except ConversationError as error:
        raise ConversationError(f"{side}: {error}") from None


class RenderedPair(NamedTuple):
    """Ids (int64) and loss mask (bool) of both sequences, each up to its last trained id."""

    chosen_ids: np.ndarray
    chosen_mask: np.ndarray
    rejected_ids: np.ndarray
    rejected_mask: np.ndarray

    @property
    def num_positions(self) -> int:
        """Positions that the pair takes in a window: the last id of a sequence is a label only."""
        return len(self.chosen_ids) + len(self.rejected_ids) - 2

    @property
    def sides(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """(ids, mask) of the chosen and of the rejected sequence."""
        return (self.chosen_ids, self.chosen_mask), (self.rejected_ids, self.rejected_mask)


def sequence_key(ids: np.ndarray, trained: np.ndarray) -> bytes:
    """Cache key of a sequence: 16 bytes, from its ids and its loss mask.

    Example:
        >>> ids, trained = np.array([3, 1, 2]), np.array([False, True, True])
        >>> sequence_key(ids, trained).hex()[:8], len(sequence_key(ids, trained))
        ('a11a6849', 16)
    """
    digest = hashlib.blake2b(np.ascontiguousarray(ids, "<u4").tobytes(), digest_size=KEY_BYTES)
    digest.update(np.ascontiguousarray(trained, np.uint8).tobytes())
    return digest.digest()


def render_pairs(
    renderer: Renderer,
    rows: Iterable[Mapping[str, Any] | ConversationError],
    counts: RenderCounts,
    longest_pair: int,
    place: Callable[[int], str],
    read: Callable[[Mapping[str, Any] | ConversationError], PreferencePair] = PreferencePair.from_dict,
) -> Iterator[tuple[PreferencePair, RenderedPair]]:
    """Render a stream of pairs in order, with the renderer's options; every outcome is counted.

    Args:
        renderer: has ``train_on: all``. ``max_length`` applies to each sequence; ``truncate_left`` is not supported.
        rows: rows for `PreferencePair.from_dict`.
        counts: updated in place; a sample is a pair.
        longest_pair: maximum positions of a pair.
        place: returns the location of the row at an index.
        read: turns a row into a pair.

    Yields:
        Every pair that is kept.

    Raises:
        ConversationError: a malformed or (overflow="error") too long pair, with its location.
        ChatTemplateError: the spans of turns cannot be derived from the template.
    """
    stream, index = iter(rows), 0
    while batch := list(islice(stream, BATCH_SIZE // 2)):
        parsed = [_pair_or_error(row, read) for row in batch]
        pairs = [pair for pair in parsed if isinstance(pair, PreferencePair)]
        try:
            rendered = iter(renderer.render_batch([side for pair in pairs for side in (pair.chosen, pair.rejected)]))
        except ChatTemplateError as error:
            raise ChatTemplateError(f"{place(index)} and {len(batch) - 1} more: {error}") from None
        for pair in parsed:
            result = pair
            if isinstance(pair, PreferencePair):
                result = _joined(next(rendered), next(rendered))
            kept = _kept(result, renderer, counts, longest_pair, partial(place, index))
            if kept is not None:
                assert isinstance(pair, PreferencePair)
                yield pair, kept
            index += 1


def _pair_or_error(
    row: Mapping[str, Any] | ConversationError, read: Callable[[Mapping[str, Any] | ConversationError], PreferencePair]
) -> PreferencePair | ConversationError:
    try:
        return read(row)
    except ConversationError as error:
        return error


def _joined(chosen: Rendered | ConversationError, rejected: Rendered | ConversationError) -> Any:
    """The pair, or its error."""
    arrays = []
    for side, rendered in zip(SIDES, (chosen, rejected), strict=True):
        if isinstance(rendered, ConversationError):
            return ConversationError(f"{side}: {rendered}")
        mask = np.array(rendered.loss_weights) > 0
        end = int(np.flatnonzero(mask)[-1]) + 1
        arrays += [np.array(rendered.ids[:end], np.int64), mask[:end]]
    if all(np.array_equal(arrays[i], arrays[i + 2]) for i in (0, 1)):
        return ConversationError("the chosen and the rejected answer are the same in tokens")
    return RenderedPair(*arrays)


def _kept(
    result: Any, renderer: Renderer, counts: RenderCounts, longest_pair: int, place: Callable[[], str]
) -> RenderedPair | None:
    """Apply the options; None if the pair is dropped."""
    options = renderer.options
    counts.seen += 1
    if isinstance(result, ConversationError):
        if options.on_invalid == "error":
            raise ConversationError(f"{place()}: {result}")
        counts.invalid += 1
        if len(counts.errors) < KEPT_ERRORS:
            counts.errors.append(f"{place()}: {result}")
        return None
    assert isinstance(result, RenderedPair)
    longest = max(len(result.chosen_ids), len(result.rejected_ids))
    too_long = None
    if options.max_length is not None and longest > options.max_length:
        too_long = f"{longest} tokens, more than max_length {options.max_length}"
    elif result.num_positions > longest_pair:
        too_long = (
            f"a pair of {result.num_positions} positions, more than the sequence_length {longest_pair} they share"
        )
    if too_long is not None:
        if options.overflow == "error":
            raise ConversationError(f"{place()}: {too_long}: raise it, or set overflow to drop")
        counts.too_long += 1
        if len(counts.dropped_long) < KEPT_ERRORS:
            counts.dropped_long.append(f"{place()}: {too_long}")
        return None
    counts.rendered += 1
    counts.tokens += result.num_positions + 2
    counts.trained_tokens += int(result.chosen_mask.sum() + result.rejected_mask.sum())
    return result
