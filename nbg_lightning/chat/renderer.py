"""The common parts of chat renderers: options, results, counts, and the loop over samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import islice
from typing import Any, Literal, Protocol

from nbg_lightning.chat.conversation import Conversation, ConversationError

# Conversations rendered together: enough for efficient batches of the tokenizer, few enough to stay in cache.
BATCH_SIZE = 256
KEPT_ERRORS = 5  # number of messages about skipped samples kept for the summary


class ChatTemplateError(ValueError):
    """A chat template in which the assistant's tokens cannot be located; never caused by a single sample."""


@dataclass
class ChatOptions:
    """Options for rendering conversations as training samples.

    Attributes:
        train_on: assistant turns with a loss. "all"; "last": the last one; "last_query": all after the last user
            query, which are the turns that keep their reasoning (an agent's tool calls and its answer).
        train_on_thinking: whether reasoning has a loss; otherwise only the answer and the stop token have one.
        max_length: maximum length of a sample in tokens; None for no limit.
        overflow: what to do with longer ones. "drop"; "truncate_left": drop the oldest rounds (a user query with everything
            that answers it), keeping the system turn and the last rounds, and drop the sample if its last round alone is too
            long; "error".
        on_invalid: what to do with a malformed sample: "error" raises with its location; "drop" counts it.
    """

    train_on: Literal["all", "last", "last_query"] = "all"
    train_on_thinking: bool = True
    max_length: int | None = None
    overflow: Literal["drop", "truncate_left", "error"] = "drop"
    on_invalid: Literal["error", "drop"] = "error"

    def __post_init__(self) -> None:
        for name, known in (
            ("train_on", ("all", "last", "last_query")),
            ("overflow", ("drop", "truncate_left", "error")),
            ("on_invalid", ("error", "drop")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is invalid: {getattr(self, name)}; there are {', '.join(known)}")
        if self.max_length is not None and self.max_length < 1:
            raise ValueError(f"max_length is invalid: {self.max_length}; give at least 1, or null")


@dataclass(slots=True)
class Rendered:
    """One conversation as token ids with its loss mask.

    Attributes:
        ids: token ids, length n.
        loss_weights: n weights; a token's weight applies where it is the *label*. 0 means no loss.
        spans: (start, end, kind), ascending, covering 0..n. Kinds: "assistant" (answer and calls with the stop token),
            "thinking" (reasoning of an assistant turn), "header" (layout around assistant turns), and "system",
            "user", "tool" for whole turns; a template renderer uses "context" for everything that is not the assistant's.
        num_reasoning_dropped: trained turns whose reasoning the format omits (turns before the last query).
        num_rounds_dropped: rounds dropped on the left to fit `max_length`.
    """

    ids: list[int]
    loss_weights: list[float]
    spans: list[tuple[int, int, str]]
    num_reasoning_dropped: int = 0
    num_rounds_dropped: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_trained(self) -> int:
        """Number of tokens with a weight above 0."""
        return len(self.ids) - self.loss_weights.count(0.0)

    def trained_spans(self) -> list[tuple[int, int]]:
        """(start, end) of every contiguous run of trained tokens."""
        runs: list[tuple[int, int]] = []
        start = None
        for index, weight in enumerate(self.loss_weights):
            if weight and start is None:
                start = index
            elif not weight and start is not None:
                runs.append((start, index))
                start = None
        return runs if start is None else [*runs, (start, len(self.ids))]

    def common_context(self, other: Rendered) -> int:
        """Length of the common prefix of both before any trained token."""
        pairs = zip(self.ids, other.ids, self.loss_weights, other.loss_weights, strict=False)
        count = 0
        for first, second, trained, also in pairs:
            if first != second or trained or also:
                break
            count += 1
        return count


@dataclass
class RenderCounts:
    """Outcome counts of samples; `seen` = `rendered` + `too_long` + `invalid`.

    Attributes:
        seen: samples read.
        rendered: samples returned, including truncated ones.
        truncated: samples that lost rounds on the left.
        rounds_dropped: number of these rounds.
        too_long: samples dropped for their length.
        invalid: malformed samples dropped (`on_invalid="drop"`).
        reasoning_dropped: trained turns whose reasoning the format omitted.
        tokens: tokens returned.
        trained_tokens: tokens with a loss.
        errors: the first few causes of invalid samples.
        dropped_long: the first few samples dropped for their length.
    """

    seen: int = 0
    rendered: int = 0
    truncated: int = 0
    rounds_dropped: int = 0
    too_long: int = 0
    invalid: int = 0
    reasoning_dropped: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    errors: list[str] = field(default_factory=list)
    dropped_long: list[str] = field(default_factory=list)

    def merge(self, other: RenderCounts) -> None:
        """Add the counts of another worker."""
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))
        del self.errors[KEPT_ERRORS:]
        del self.dropped_long[KEPT_ERRORS:]

    def summary(self) -> str:
        """The counts in one line, for a log."""
        share = self.trained_tokens / self.tokens if self.tokens else 0.0
        return (
            f"{self.seen} samples: {self.rendered} rendered ({self.truncated} truncated), "
            f"{self.too_long} too long, {self.invalid} invalid; "
            f"{self.tokens} tokens, {share:.1%} trained; {self.reasoning_dropped} turns without their reasoning"
        )


class Renderer(Protocol):
    """Turns conversations into ids and loss masks in one pass."""

    options: ChatOptions
    stop_ids: tuple[int, ...]  # tokens that may end an assistant turn
    opens_thinking: bool  # whether a generation prompt ends with `<think>`
    takes_tools: bool  # whether the format supports tools

    def render(self, conversation: Conversation, add_generation_prompt: bool = False) -> Rendered:
        """Render one conversation of any length.

        Args:
            conversation: the conversation.
            add_generation_prompt: end with the header of an assistant turn; such a prompt has no loss.

        Raises:
            ConversationError: no or every token would be trained on, or the content cannot be rendered.
        """
        ...

    def continuation(self, conversation: Conversation, num_before: int) -> list[int] | None:
        """The ids from the stop token of an assistant turn on, for further messages after it that ask for the next turn.

        Only new text is encoded. The ids are the suffix of ``render(conversation, add_generation_prompt=True)`` after those
        of the history without the new messages.

        Args:
            conversation: the whole conversation, with the new messages last.
            num_before: number of messages up to and including that turn.

        Returns:
            The ids; None if the new messages change how the format renders the history.

        Raises:
            ConversationError: the content cannot be rendered.
        """
        ...

    def render_batch(self, conversations: Sequence[Conversation]) -> list[Rendered | ConversationError]:
        """Render training samples together; for a bad sample the result is its error."""
        ...

    def fast(self, probe: bool) -> Renderer:
        """A renderer with the same ids by fastokens, which checks one sample in a thousand against this one.

        Args:
            probe: compare the engines on probe texts first.

        Raises:
            EnginesDiffer: fastokens cannot be used here; the new renderer's `render_batch` may raise it, too.
        """
        ...


def turn_weights(conversation: Conversation, options: ChatOptions) -> list[float]:
    """Loss weight of every message: 0 except for trained assistant turns."""
    messages = conversation.messages
    first = 0
    if options.train_on == "last_query":
        first = conversation.last_query()
    elif options.train_on == "last":
        assistants = [index for index, message in enumerate(messages) if message.role == "assistant"]
        first = assistants[-1] if assistants else 0
    return [
        (1.0 if message.weight is None else message.weight) if message.role == "assistant" and index >= first else 0.0
        for index, message in enumerate(messages)
    ]


def check_mask(loss_weights: Sequence[float]) -> None:
    """Refuse masks that train on nothing or on everything.

    Raises:
        ConversationError: with the cause.
    """
    num_zeros = loss_weights.count(0.0)
    if num_zeros == len(loss_weights):
        raise ConversationError("no token is trained (no assistant turn with a weight above 0 was selected)")
    if num_zeros == 0:
        raise ConversationError("every token is trained, so the mask does not tell prompt from answer")


def check_prompt(conversation: Conversation) -> None:
    """Refuse a conversation that already ends with an assistant turn.

    Raises:
        ConversationError: the conversation ends with an assistant turn.
    """
    if conversation.messages[-1].role == "assistant":
        raise ConversationError("ends with an assistant turn; a generation prompt needs a user or tool turn last")


def without_rounds(conversation: Conversation, num_dropped: int) -> Conversation:
    """The conversation without its first `num_dropped` rounds, but with its system turn."""
    messages = conversation.messages
    starts = [index for index, message in enumerate(messages) if message.is_query()]
    system = [messages[0]] if messages[0].role == "system" else []
    return Conversation([*system, *messages[starts[num_dropped] :]], conversation.tools, conversation.domain)


def truncate_left(renderer: Renderer, conversation: Conversation, max_length: int) -> Rendered | None:
    """Render with as few of the oldest rounds dropped as necessary to fit into `max_length` tokens.

    Returns:
        The sample, or None if its last round does not fit or no trained token is left.
    """
    num_rounds = sum(message.is_query() for message in conversation.messages)
    best = None
    low, high = 1, num_rounds - 1  # the length decreases with every dropped round: bisect
    while low <= high:
        middle = (low + high) // 2
        rendered = renderer.render_batch([without_rounds(conversation, middle)])[0]
        if isinstance(rendered, ConversationError):  # all trained turns are dropped, and dropping more does not help
            high = middle - 1
        elif len(rendered) <= max_length:
            rendered.num_rounds_dropped = middle
            best = rendered
            high = middle - 1
        else:
            low = middle + 1
    return best


def _parsed(
    samples: Iterable[Mapping[str, Any] | Conversation | ConversationError],
) -> Iterator[Conversation | ConversationError]:
    for sample in samples:
        if isinstance(sample, (Conversation, ConversationError)):
            yield sample
            continue
        try:
            yield Conversation.from_dict(sample)
        except ConversationError as error:
            yield error


def render_samples(
    renderer: Renderer,
    samples: Iterable[Mapping[str, Any] | Conversation | ConversationError],
    counts: RenderCounts,
    source: str = "chat",
    first_index: int = 0,
    batch_size: int = BATCH_SIZE,
    place: Callable[[int], str] | None = None,
) -> Iterator[tuple[int, Rendered]]:
    """Render a stream of samples in order with the renderer's options; every outcome is counted.

    Args:
        renderer: a renderer with its `ChatOptions`.
        samples: dataset rows (see `Conversation.from_dict`), conversations, or errors of unreadable rows.
        counts: updated in place.
        source: name of the dataset, for error messages.
        first_index: index of the first sample, for shards.
        batch_size: number of conversations rendered together.
        place: returns the location of the sample at an index (file and line), for error messages.

    Yields:
        (index, rendered) of every sample that is kept.

    Raises:
        ConversationError: a malformed or (overflow="error") too long sample, with its location.
        ChatTemplateError: the spans cannot be derived from the template, whatever `on_invalid` says.
    """
    options = renderer.options
    stream = _parsed(samples)

    def name(index: int) -> str:
        return f"{source}, sample {index}" if place is None else place(index)

    index = first_index
    while batch := list(islice(stream, batch_size)):
        valid = [item for item in batch if isinstance(item, Conversation)]
        try:
            results = iter(renderer.render_batch(valid))
        except ChatTemplateError as error:
            raise ChatTemplateError(f"{source}, samples {index} to {index + len(batch) - 1}: {error}") from None
        for item in batch:
            result = next(results) if isinstance(item, Conversation) else item
            counts.seen += 1
            if isinstance(result, ConversationError):
                if options.on_invalid == "error":
                    raise ConversationError(f"{name(index)}: {result}")
                counts.invalid += 1
                if len(counts.errors) < KEPT_ERRORS:
                    counts.errors.append(f"{name(index)}: {result}")
            else:
                assert isinstance(item, Conversation)
                kept = _fit(renderer, item, result, partial(name, index))
                if kept is None:
                    counts.too_long += 1
                    if len(counts.dropped_long) < KEPT_ERRORS:
                        counts.dropped_long.append(f"{name(index)}: {len(result)} tokens")
                else:
                    _count(counts, kept)
                    yield index, kept
            index += 1


def _fit(
    renderer: Renderer, conversation: Conversation, rendered: Rendered, name: Callable[[], str]
) -> Rendered | None:
    """Apply `max_length`; None if the sample is dropped."""
    options = renderer.options
    if options.max_length is None or len(rendered) <= options.max_length:
        return rendered
    if options.overflow == "error":
        raise ConversationError(
            f"{name()}: {len(rendered)} tokens are more than max_length={options.max_length}; "
            'raise it, or set overflow to "drop" or "truncate_left"'
        )
    if options.overflow == "drop":
        return None
    return truncate_left(renderer, conversation, options.max_length)


def _count(counts: RenderCounts, rendered: Rendered) -> None:
    counts.rendered += 1
    counts.truncated += rendered.num_rounds_dropped > 0
    counts.rounds_dropped += rendered.num_rounds_dropped
    counts.reasoning_dropped += rendered.num_reasoning_dropped
    counts.tokens += len(rendered)
    counts.trained_tokens += rendered.num_trained
