"""What every generation engine takes and gives: token ids in, token ids and log-probabilities out.

Nothing that was sampled is decoded and encoded again: the ids that come out are those the model drew, so that their
log-probabilities are those of training on them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor

FinishReason = Literal["stop", "length", "deadline", "budget", "error"]
"""How a completion ended: by a stop id or string, the length limit or window, a deadline, the token budget of its step (which no
engine knows: `rl.pending`), a failure (see `error`)."""
OUT_OF_SECONDS = "the seconds of its question are over"
"""`Completion.error` of one that `Sampling.seconds` ended, with the reason ``deadline``."""


class Begun(NamedTuple):
    """An answer that goes on: the last ids of its prompt were drawn before.

    Attributes:
        sample: its number among the prompt's.
        tokens: how many of the prompt's ids were drawn.
        most: further tokens, at most.
    """

    sample: int
    tokens: int
    most: int


@dataclass(frozen=True)
class Prompt:
    """What is to be continued.

    Attributes:
        ids: the prompt's token ids.
        seed: what its samples are drawn by, beside `Sampling.seed`. By default the ids: the same prompt is continued in
            the same way wherever it stands. Give equal prompts different seeds to have different samples of them.
        text: the prompt as text, for endpoints that take no ids (`ServerEngine`, and only there).
        messages: the whole conversation, for endpoints whose chat format is their own; there it stands in place of ``text``.
        tools: JSON schemas of functions, with ``messages``.
        begun: the one answer that is drawn, which goes on; None draws `Sampling.n` from their beginnings.
    """

    ids: tuple[int, ...]
    seed: int | None = None
    text: str | None = None
    messages: tuple[Mapping[str, Any], ...] | None = None
    tools: tuple[Mapping[str, Any], ...] | None = None
    begun: Begun | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", tuple(int(token) for token in self.ids))


@dataclass(frozen=True)
class Sampling:
    """How continuations are drawn, the same for all prompts of a call.

    Attributes:
        max_new_tokens: tokens of a completion, at most; fewer where the model's window ends before.
        temperature: what logits are divided by; 0 is greedy.
        top_p: keep the likeliest tokens that together have this probability; 1 keeps all.
        top_k: keep this many of the likeliest tokens; 0 keeps all.
        n: completions of each prompt.
        stop_ids: a completion ends with the first of these; it is part of the completion.
        stop_strings: a completion ends with the token that completes one of these in its text, and holds that token.
        seed: the same seed gives the same samples, whatever else is generated beside them.
        seconds: that each completion may take from its first token, or its request, on; it ends with ``deadline`` then.

    Raises:
        ValueError: a setting that means nothing.
    """

    max_new_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    n: int = 1
    stop_ids: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()
    seed: int = 0
    seconds: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.stop_strings, str):
            raise ValueError(f"stop_strings is invalid: {self.stop_strings!r}, a text; give a tuple of texts")
        object.__setattr__(self, "stop_ids", tuple(self.stop_ids))
        object.__setattr__(self, "stop_strings", tuple(self.stop_strings))
        for name, value in (("max_new_tokens", self.max_new_tokens), ("n", self.n)):
            if value < 1:
                raise ValueError(f"{name} is invalid: {value}; give at least 1")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(
                f"temperature is invalid: {self.temperature}; give a number of at least 0, which is greedy"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is invalid: {self.top_p}; give a number above 0, of at most 1")
        if self.top_k < 0:
            raise ValueError(f"top_k is invalid: {self.top_k}; give at least 0, which takes all tokens")
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"seconds is invalid: {self.seconds}; give a number above 0, or leave it out")
        if "" in self.stop_strings:
            raise ValueError(
                "stop_strings is invalid: it holds an empty text, which would stop before the first token; remove it"
            )

    @property
    def greedy(self) -> bool:
        """Always the likeliest token."""
        return self.temperature == 0

    @property
    def truncated(self) -> bool:
        """Whether some tokens could not be drawn: then log-probs are not those of the model, and importance ratios
        made of them are biased. Rollouts for reinforcement learning must not be truncated."""
        return not self.greedy and (self.top_p < 1 or self.top_k > 0)


@dataclass(frozen=True)
class Completion:
    """One continuation of one prompt.

    Attributes:
        ids: the tokens that were drawn, with the stop token where one came.
        log_probs: for each token the logarithm of the probability it was drawn with: of ``softmax(logits /
            temperature)``, renormalised over the kept tokens where `Sampling.truncated`. For greedy decoding, of
            ``softmax(logits)``. Empty where a server gives none.
        finish_reason: see `FinishReason`. Only ``stop`` and ``length`` are finished answers.
        prompt_index: position of the prompt in the call.
        sample_index: 0 to n - 1.
        weight_version: version of the weights that drew it.
        error: for ``error``, what went wrong, in one line.
        text: what a server wrote that gave no ids.
        earlier: of an answer that went on, the version of the weights and the number of tokens of each part before the last.
    """

    ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    finish_reason: FinishReason
    prompt_index: int
    sample_index: int
    weight_version: int
    error: str | None = None
    text: str | None = None
    earlier: tuple[tuple[int, int], ...] = ()

    @property
    def segments(self) -> tuple[tuple[int, int], ...]:
        """Version of the weights and number of tokens of each part, in order."""
        return (*self.earlier, (self.weight_version, len(self.ids) - sum(tokens for _, tokens in self.earlier)))


class GeneratedPiece(NamedTuple):
    """What one completion has grown by, told while it is made.

    Attributes:
        prompt_index: position of the prompt in the call.
        sample_index: 0 to n - 1.
        token: its id; None from a server that gives text.
        log_prob: as in `Completion.log_probs`; None where a server gives none.
        text: from a server that gives text, what it wrote; None beside an id.
    """

    prompt_index: int
    sample_index: int
    token: int | None = None
    log_prob: float | None = None
    text: str | None = None


Listener = Callable[[GeneratedPiece], None]
"""Is told every `GeneratedPiece` as it is drawn. What it raises ends the call."""


class TokenScore(NamedTuple):
    """What a model says of a token that is given.

    Attributes:
        log_prob: of it after all before it, at temperature 1.
        is_greedy: whether no other is likelier.
    """

    log_prob: float
    is_greedy: bool


class Engine(Protocol):
    """A thing that continues prompts. What one may do beside that is declared in `nbg_lightning.engines.capabilities`.

    It owns what it starts: use it in a ``with`` block, which may be entered again after it was left. Under several
    ranks every one has its own prompts, which may be none, and all enter `generate` and `sync` together.

    `Any` stands where classes differ in what they say of a type: jsonargparse takes a class for an engine (``class_path`` in
    YAML) only if its annotations are equal to these.
    """

    weight_version: int

    def __enter__(self) -> Any: ...

    def __exit__(self, *_: object) -> None: ...

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, deadline: float | None = None
    ) -> list[list[Completion]]:
        """Continue every prompt n times.

        A prompt that cannot be continued gets completions with ``finish_reason="error"``; the others go on.

        Args:
            prompts: what to continue.
            sampling: how.
            deadline: seconds after which what is there is returned, unfinished completions as ``deadline``; so it is as soon
                as `nbg_lightning.stopping.stop_asked`.

        Returns:
            For each prompt, in order, its n completions, in order.
        """
        ...

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Generate with these weights from now on.

        Args:
            weights: Hugging Face name and whole tensor of every parameter (`weight_stream`).
            version: what completions are marked with.
        """
        ...


def sample_seed(sampling: Sampling, prompt: Prompt, sample_index: int) -> int:
    """Seed of one completion, below 2^63: a function of the seeds, or the prompt's ids, and the sample's number alone.

    Example:
        >>> sample_seed(Sampling(seed=1), Prompt((1, 2)), 0) == sample_seed(Sampling(seed=1, n=4), Prompt((1, 2)), 0)
        True
    """
    ids = prompt.ids if prompt.begun is None else prompt.ids[: len(prompt.ids) - prompt.begun.tokens]
    identity = f"seed {prompt.seed}" if prompt.seed is not None else f"ids {ids or prompt.text}"
    return _digest(f"{sampling.seed}|{identity}|{sample_index}")


def request_seed(sampling: Sampling, prompt: Prompt, sample_index: int) -> int:
    """Seed of one completion for an engine that counts its draws from 0: of an answer that goes on, another at each place."""
    seed = sample_seed(sampling, prompt, sample_index)
    return seed if prompt.begun is None else _digest(f"{seed}|{prompt.begun.tokens}")


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def samples_of(prompt: Prompt, sampling: Sampling) -> Sequence[int]:
    """Numbers of the samples that are drawn of a prompt."""
    return range(sampling.n) if prompt.begun is None else (prompt.begun.sample,)


def most_tokens(prompt: Prompt, sampling: Sampling) -> int:
    """Tokens that are drawn of a prompt's completions, at most."""
    return sampling.max_new_tokens if prompt.begun is None else min(sampling.max_new_tokens, prompt.begun.most)


def failed(
    prompt_index: int,
    sampling: Sampling,
    weight_version: int,
    error: str,
    reason: FinishReason = "error",
    prompt: Prompt | None = None,
) -> list[Completion]:
    """The completions of a prompt that could not be continued; n, where it is not given."""
    samples = range(sampling.n) if prompt is None else samples_of(prompt, sampling)
    return [Completion((), (), reason, prompt_index, sample, weight_version, error) for sample in samples]


def prompt_error(prompt: Prompt, index: int, window: int, vocab_size: int) -> str | None:
    """Why a prompt cannot be continued by a model, in one line, or None if it can."""
    if not prompt.ids:
        return f"prompt {index} has no token ids: begin it with a token such as bos"
    if len(prompt.ids) >= window:
        return f"prompt {index} has {len(prompt.ids):,} tokens, and the window is {window:,}: shorten it"
    outside = next((token for token in prompt.ids if not 0 <= token < vocab_size), None)
    if outside is not None:
        return (
            f"prompt {index} has the id {outside}, and the vocabulary ends at {vocab_size}: use the model's tokenizer"
        )
    return None
