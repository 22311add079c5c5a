"""The interface of generation engines: token ids in, token ids and log-probabilities out.

Generated ids are never decoded and encoded again: the ids returned are those the model sampled, so that their
log-probabilities match those in training.
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
"""How a completion ended: by a stop id or string, the length limit or window, a deadline, the token budget of its step (unknown
to engines: `rl.pending`), or a failure (see `error`)."""
OUT_OF_SECONDS = "the seconds of its question are over"
"""`Completion.error` of a completion ended by `Sampling.seconds`, with reason ``deadline``."""


class Begun(NamedTuple):
    """A partially generated answer to continue: the last ids of its prompt were sampled earlier.

    Attributes:
        sample: sample index of the answer.
        tokens: number of sampled ids at the end of the prompt.
        most: maximum number of further tokens.
    """

    sample: int
    tokens: int
    most: int


@dataclass(frozen=True)
class Prompt:
    """A prompt to continue.

    Attributes:
        ids: token ids of the prompt.
        seed: seed of its samples, combined with `Sampling.seed`. By default derived from the ids, so that a prompt is continued
            in the same way wherever it occurs. Give equal prompts different seeds to get different samples.
        text: the prompt as text, for endpoints that do not take ids (`ServerEngine` only).
        messages: the whole conversation, for endpoints with their own chat format; used instead of ``text``.
        tools: JSON schemas of functions, for ``messages``.
        begun: the partial answer to continue; None samples `Sampling.n` new answers.
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
    """Sampling settings, shared by all prompts of a call.

    Attributes:
        max_new_tokens: maximum tokens of a completion; fewer if the model's window ends earlier.
        temperature: divisor of the logits; 0 is greedy.
        top_p: keep the most likely tokens that together have this probability; 1 keeps all.
        top_k: keep this many of the most likely tokens; 0 keeps all.
        n: number of completions per prompt.
        stop_ids: a completion ends with the first of these ids, which is included.
        stop_strings: a completion ends with the token that completes one of these strings, which is included.
        seed: the same seed gives the same samples, whatever else is generated in the same call.
        seconds: time limit of each completion, from its first token or its request; it then ends with ``deadline``.

    Raises:
        ValueError: a setting is invalid.
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
        """Whether the most likely token is always chosen."""
        return self.temperature == 0

    @property
    def truncated(self) -> bool:
        """Whether some tokens cannot be sampled: then log-probs are not those of the model, and importance ratios based on
        them are biased. Rollouts for reinforcement learning must not be truncated."""
        return not self.greedy and (self.top_p < 1 or self.top_k > 0)


@dataclass(frozen=True)
class Completion:
    """One continuation of one prompt.

    Attributes:
        ids: the sampled tokens, including a stop token.
        log_probs: log-probability with which each token was sampled: of ``softmax(logits / temperature)``, renormalized over
            the kept tokens if `Sampling.truncated`. For greedy decoding, of ``softmax(logits)``. Empty if a server returns
            none.
        finish_reason: see `FinishReason`. Only ``stop`` and ``length`` are finished answers.
        prompt_index: position of the prompt in the call.
        sample_index: 0 to n - 1.
        weight_version: version of the weights that generated it.
        error: for ``error``, what went wrong, in one line.
        text: the text from a server that returns no ids.
        earlier: for a continued answer, weight version and number of tokens of each part before the last.
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
        """Weight version and number of tokens of each part, in order."""
        return (*self.earlier, (self.weight_version, len(self.ids) - sum(tokens for _, tokens in self.earlier)))


class GeneratedPiece(NamedTuple):
    """New output of one completion, reported during generation.

    Attributes:
        prompt_index: position of the prompt in the call.
        sample_index: 0 to n - 1.
        token: its id; None from a server that returns text.
        log_prob: as in `Completion.log_probs`; None if a server returns none.
        text: new text from a server that returns text; None beside an id.
    """

    prompt_index: int
    sample_index: int
    token: int | None = None
    log_prob: float | None = None
    text: str | None = None


Listener = Callable[[GeneratedPiece], None]
"""Called with every `GeneratedPiece` as it is generated. An exception from it ends the call."""


class TokenScore(NamedTuple):
    """A model's score of a given token.

    Attributes:
        log_prob: log-probability of the token given all before it, at temperature 1.
        is_greedy: whether no other token is more likely.
    """

    log_prob: float
    is_greedy: bool


class Engine(Protocol):
    """Continues prompts. Optional capabilities are declared in `nbg_lightning.engines.capabilities`.

    An engine owns the resources it starts: use it as a context manager, which may be entered again after leaving. Each rank
    has its own prompts, possibly none, and all ranks enter `generate` and `sync` together.

    `Any` is used where classes annotate different types: jsonargparse accepts a class as an engine (``class_path`` in
    YAML) only if its annotations are equal to these.
    """

    weight_version: int

    def __enter__(self) -> Any: ...

    def __exit__(self, *_: object) -> None: ...

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, deadline: float | None = None
    ) -> list[list[Completion]]:
        """Continue every prompt n times.

        A prompt that cannot be continued gets completions with ``finish_reason="error"``; the others are not affected.

        Args:
            prompts: the prompts.
            sampling: the sampling settings.
            deadline: seconds after which the call returns, with unfinished completions as ``deadline``; it also returns as soon
                as `nbg_lightning.stopping.stop_asked`.

        Returns:
            The n completions of each prompt, in order.
        """
        ...

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Generate with these weights from now on.

        Args:
            weights: Hugging Face name and full tensor of every parameter (`weight_stream`).
            version: version recorded in completions.
        """
        ...


def sample_seed(sampling: Sampling, prompt: Prompt, sample_index: int) -> int:
    """Seed of one completion, below 2^63: a function of the sampling seed, the prompt's seed or ids, and the sample index only.

    Example:
        >>> sample_seed(Sampling(seed=1), Prompt((1, 2)), 0) == sample_seed(Sampling(seed=1, n=4), Prompt((1, 2)), 0)
        True
    """
    ids = prompt.ids if prompt.begun is None else prompt.ids[: len(prompt.ids) - prompt.begun.tokens]
    identity = f"seed {prompt.seed}" if prompt.seed is not None else f"ids {ids or prompt.text}"
    return _digest(f"{sampling.seed}|{identity}|{sample_index}")


def request_seed(sampling: Sampling, prompt: Prompt, sample_index: int) -> int:
    """Seed of one completion for an engine that counts its draws from 0; for a continued answer, it depends on its length."""
    seed = sample_seed(sampling, prompt, sample_index)
    return seed if prompt.begun is None else _digest(f"{seed}|{prompt.begun.tokens}")


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def samples_of(prompt: Prompt, sampling: Sampling) -> Sequence[int]:
    """Indices of the samples to generate for a prompt."""
    return range(sampling.n) if prompt.begun is None else (prompt.begun.sample,)


def most_tokens(prompt: Prompt, sampling: Sampling) -> int:
    """Maximum number of tokens generated per completion of a prompt."""
    return sampling.max_new_tokens if prompt.begun is None else min(sampling.max_new_tokens, prompt.begun.most)


def failed(
    prompt_index: int,
    sampling: Sampling,
    weight_version: int,
    error: str,
    reason: FinishReason = "error",
    prompt: Prompt | None = None,
) -> list[Completion]:
    """The completions of a prompt that could not be continued; n of them if the prompt is not given."""
    samples = range(sampling.n) if prompt is None else samples_of(prompt, sampling)
    return [Completion((), (), reason, prompt_index, sample, weight_version, error) for sample in samples]


def prompt_error(prompt: Prompt, index: int, window: int, vocab_size: int) -> str | None:
    """The reason why a model cannot continue a prompt, in one line; None if it can."""
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
