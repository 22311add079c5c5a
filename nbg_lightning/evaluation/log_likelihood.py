"""Log-likelihood of given continuations under the live model: of choices, and of whole texts.

Shape suffixes: T tokens of a packed row, D hidden size, V vocabulary, S scored tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from nbg_lightning.engines.capabilities import TokenScoringEngine, vocab_size_of, window_of

if TYPE_CHECKING:
    from nbg_lightning.core.decode import Decoder
    from nbg_lightning.core.model import LanguageModel
    from nbg_lightning.core.prefixes import SharePrefixes
    from nbg_lightning.data.tokenizer import Tokenizer


class Request(NamedTuple):
    """A request for the likelihood of a continuation given a context. Both are token ids; neither may be empty."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


class LogLikelihood(NamedTuple):
    """``sum_t log p(continuation_t | context, continuation_<t)`` in nats, or an error.

    Attributes:
        total: the sum; NaN if the model's outputs are not finite.
        is_greedy: whether greedy decoding would produce the continuation.
        num_tokens: length of the continuation.
        error: why there is no value.
    """

    total: float
    is_greedy: bool
    num_tokens: int
    error: str | None = None


class Scorer(Protocol):
    """Rates continuations. Calls are collective; each rank passes its own requests."""

    def __call__(self, requests: Sequence[Request]) -> list[LogLikelihood]: ...


class LogLikelihoodScorer:
    """Rates continuations with the model that is being trained.

    Requests are packed into rows as documents that do not attend to each other, without padding. Common prefixes in a row
    are computed once: the context of a question's endings, and the few-shot examples before all questions of a benchmark.
    Requests with the same forward input share it, so the letters of a multiple choice cost one forward pass, and the head
    is computed only for the tokens of continuations. Under FSDP2 the weights are gathered once per call, and ranks do not
    wait for each other inside. Gradients, random state and training mode are preserved.

    Args:
        model: a `LanguageModel`, sharded or not.
        row_tokens: tokens per forward pass; a longer request has its own.
        window: maximum tokens of a request; the model's ``max_position_embeddings`` by default.
        share_prefixes: whether common prefixes are computed once; ``auto`` if they are long enough to save time.
    """

    def __init__(
        self,
        model: LanguageModel,
        row_tokens: int = 8192,
        window: int | None = None,
        share_prefixes: SharePrefixes = "auto",
    ):
        from nbg_lightning.core.prefixes import shortest_shared

        if row_tokens < 1:
            raise ValueError(f"row_tokens is invalid: {row_tokens}; give at least 1")
        self.model, self.row_tokens = model, row_tokens
        self.window = window or model.shape.max_position_embeddings
        self.shortest = shortest_shared(share_prefixes)

    def __call__(self, requests: Sequence[Request]) -> list[LogLikelihood]:
        """A result per request, in order; requests that cannot be rated have an error."""
        import torch

        from nbg_lightning.core.decode import Decoder, gathered
        from nbg_lightning.core.prefixes import rows_that_fit

        vocab_size = self.model.shape.vocab_size
        results = [_refused(request, self.window, vocab_size) for request in requests]
        sharing: dict[tuple[int, ...], list[int]] = {}
        for index, request in enumerate(requests):
            if results[index] is None:
                sharing.setdefault((request.context + request.continuation)[:-1], []).append(index)
        with gathered(self.model), torch.inference_mode():
            if sharing:
                decoder = Decoder(self.model)
                inputs = list(sharing)
                for row in rows_that_fit([np.array(ids) for ids in inputs], self.row_tokens, self.shortest):
                    _rate(decoder, [inputs[index] for index in row], self.shortest, sharing, requests, results)
        return results  # type: ignore[return-value]  # every place has been filled


class EngineScorer:
    """Rates continuations with an engine whose weights are not in this process's model.

    Args:
        engine: an open engine.
        window: maximum tokens of a request; the engine's limit by default.
    """

    def __init__(self, engine: TokenScoringEngine, window: int | None = None):
        self.engine = engine
        # Engines rate the tokens of a prompt, and write at least one more: one position fewer than for rating alone.
        self.window: int = window or (window_of(engine) or 2050) - 2
        self.vocab_size = vocab_size_of(engine)

    def __call__(self, requests: Sequence[Request]) -> list[LogLikelihood]:
        """A result per request, in order; requests that cannot be rated have an error."""
        results = [_refused(request, self.window, self.vocab_size) for request in requests]
        asked = [index for index, refused in enumerate(results) if refused is None]
        sequences = [requests[index].context + requests[index].continuation for index in asked]
        for index, scores in zip(asked, self.engine.token_scores(sequences), strict=True):
            count = len(requests[index].continuation)
            if isinstance(scores, str):
                results[index] = LogLikelihood(math.nan, False, count, scores)
                continue
            own = scores[-count:]
            results[index] = _summed([each.log_prob for each in own], all(each.is_greedy for each in own))
        return results  # type: ignore[return-value]  # every place has been filled


def _summed(log_probs: Sequence[float], is_greedy: bool) -> LogLikelihood:
    if all(map(math.isfinite, log_probs)):
        return LogLikelihood(math.fsum(log_probs), is_greedy, len(log_probs))
    wrong = "the log-probabilities are not finite; check the weights"
    return LogLikelihood(math.nan, is_greedy, len(log_probs), wrong)


def _refused(request: Request, window: int, vocab_size: int | None = None) -> LogLikelihood | None:
    length = len(request.context) + len(request.continuation)
    error = None
    if not request.context or not request.continuation:
        error = "a request needs a context and a continuation of at least one token each"
    elif length - 1 > window:
        error = f"the request has {length:,} tokens, and the window is {window:,}"
    elif vocab_size is not None:
        outside = next((t for part in request for t in part if not 0 <= t < vocab_size), None)
        if outside is not None:
            error = f"the id {outside} is not in the vocabulary of {vocab_size}: use the model's tokenizer"
    return None if error is None else LogLikelihood(math.nan, False, len(request.continuation), error)


def _rate(
    decoder: Decoder,
    row: list[tuple[int, ...]],
    shortest: int | None,
    sharing: dict[tuple[int, ...], list[int]],
    requests: Sequence[Request],
    results: list[LogLikelihood | None],
) -> None:
    """Run one forward pass, and compute the results of all requests that it serves."""
    import torch

    from nbg_lightning.core.head import linear_token_scores
    from nbg_lightning.core.prefixes import pack_sequences

    packed = pack_sequences(row, shortest)
    predicting: list[np.ndarray] = []  # places in the row that predict the tokens of each request
    labels: list[int] = []
    counted: list[tuple[int, int]] = []  # request, number of its tokens
    for ids, places in zip(row, packed.places, strict=True):
        for index in sharing[ids]:
            context, continuation = requests[index]
            predicting.append(places[len(context) - 1 : len(context) - 1 + len(continuation)])
            labels += continuation
            counted.append((index, len(continuation)))
    hidden_TD, _ = decoder.residual(packed.input)
    device = hidden_TD.device
    places_S = torch.from_numpy(np.concatenate(predicting)).to(device)
    hidden_SD = decoder.rms_norm(hidden_TD[places_S], decoder.norm)
    scores = linear_token_scores(hidden_SD, decoder.head_weight, torch.tensor(labels, device=device))
    losses, correct = scores.losses.double().tolist(), scores.correct.tolist()
    first = 0
    for index, count in counted:
        part = slice(first, first + count)
        results[index] = _summed([-loss for loss in losses[part]], all(correct[part]))
        first += count


def rolling_prefix(tokenizer: Tokenizer) -> int:
    """The id before a text's first token: bos, else eos, as lm-eval takes it.

    Raises:
        ValueError: the tokenizer has neither.
    """
    prefix = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
    if prefix is None:
        raise ValueError("the tokenizer has neither bos nor eos, with which a text could begin; add one to it")
    return prefix


def rolling_requests(ids: Sequence[int], prefix: int, window: int) -> list[Request]:
    """Requests that together predict each token of a text of any length once, with as much context as fits.

    The first window begins with ``prefix`` (bos or eos); the last one is shifted left to be full, so that its tokens have a
    long context too.

    Args:
        ids: the text.
        prefix: id before the first token.
        window: maximum tokens of an input.

    Example:
        >>> [(r.context, r.continuation) for r in rolling_requests([1, 2, 3, 4, 5], 0, 2)]
        [((0,), (1, 2)), ((2,), (3, 4)), ((3, 4), (5,))]
    """
    whole = (prefix, *ids)
    requests = []
    done = 1  # tokens of `whole` that are known
    while done < len(whole):
        end = min(done + window, len(whole))
        begin = max(0, end - 1 - window)
        requests.append(Request(whole[begin:done], whole[done:end]))
        done = end
    return requests
