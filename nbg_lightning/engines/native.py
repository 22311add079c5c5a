"""Generation with the model in training: its own weights, a key-value cache, and continuous batching."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nbg_lightning.core.decode import Decoder, KeyValueCache, Prefilled, gathered
from nbg_lightning.core.model import LanguageModel
from nbg_lightning.engines.protocol import (
    OUT_OF_SECONDS,
    Completion,
    FinishReason,
    GeneratedPiece,
    Listener,
    Prompt,
    Sampling,
    failed,
    most_tokens,
    prompt_error,
    sample_seed,
    samples_of,
)
from nbg_lightning.engines.sample import draw
from nbg_lightning.engines.stop_strings import StopStrings
from nbg_lightning.stopping import stop_asked

if TYPE_CHECKING:
    from nbg_lightning.data.tokenizer import Tokenizer

# Prompts wait until this share of the rows is free: a prefill is a separate forward, during which decoding pauses.
_REFILL_SHARE = 8


class NativeEngine:
    """KV-cached batch generation with the live model: no second copy of the weights, and nothing to sync.

    Prompts of any length share a batch. A prompt is prefilled once for its n samples. Finished rows leave the batch
    immediately and waiting prompts take their places. Sampling uses no generator: torch's random state, gradients and the
    training mode are left unchanged.

    Under FSDP2 the weights are gathered once per call, in the compute dtype, and released at its end; in between, ranks do
    not wait for each other. float8 linear layers are computed in the compute dtype.

    Args:
        model: a `LanguageModel`, sharded or not; None in YAML, where the module sets its own by `attach`.
        decode: decodes ids to text; needed for stop strings only.
        max_batch_tokens: positions in the key-value cache, over all rows. A position takes ``2 x layers x kv_heads x
            head_dim`` numbers (float32 on a CPU, otherwise the compute dtype).
        max_rows: maximum number of sequences decoded at once.
        prefill_tokens: maximum prompt tokens per forward (a longer prompt has a forward of its own).
        window: maximum positions of a sequence; by default the model's ``max_position_embeddings``.

    Example:
        >>> from nbg_lightning.core import create_model, preset
        >>> with NativeEngine(create_model(preset("nano"))) as engine:
        ...     [[completion]] = engine.generate([Prompt((1, 2, 3))], Sampling(max_new_tokens=4, temperature=0))
        >>> len(completion.ids), completion.finish_reason
        (4, 'length')
    """

    def __init__(
        self,
        model: LanguageModel | None = None,
        decode: Callable[[Sequence[int]], str] | None = None,
        max_batch_tokens: int = 65_536,
        max_rows: int = 256,
        prefill_tokens: int = 8192,
        window: int | None = None,
    ):
        for name, value in (("max_batch_tokens", max_batch_tokens), ("max_rows", max_rows), ("window", window or 1)):
            if value < 1:
                raise ValueError(f"{name} is invalid: {value}; give at least 1")
        self.decode = decode
        self.max_batch_tokens, self.max_rows, self.prefill_tokens = max_batch_tokens, max_rows, prefill_tokens
        self._given_window = window
        self.weight_version = 0
        self._model: LanguageModel | None = None
        if model is not None:
            self.attach(model)

    def attach(self, model: LanguageModel, tokenizer: Tokenizer | None = None) -> None:
        """Generate with this model from now on; the tokenizer is for stop strings."""
        self._model = model
        self.decode = self.decode if tokenizer is None else tokenizer.decode
        self.window = self._given_window or model.shape.max_position_embeddings

    @property
    def model(self) -> LanguageModel:
        """The live weights."""
        if self._model is None:
            raise RuntimeError("this NativeEngine has no model; give it one, or call attach")
        return self._model

    def __enter__(self) -> NativeEngine:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: memory is held during calls only."""

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Record the version. The weights are the model's own, so the stream is not read (and nothing is gathered)."""
        self.weight_version = version

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, deadline: float | None = None
    ) -> list[list[Completion]]:
        """See `Engine.generate`.

        Raises:
            ValueError: stop strings without ``decode``; raised on every rank, before any work.
        """
        return self._run(prompts, sampling, None, deadline)

    def stream(
        self, prompts: Sequence[Prompt], sampling: Sampling, listener: Listener, deadline: float | None = None
    ) -> list[list[Completion]]:
        """Generate the same ids as `generate`, and report every token as it is sampled.

        Raises:
            ValueError: as `generate`; exceptions of the listener propagate.
        """
        return self._run(prompts, sampling, listener, deadline)

    def _run(
        self, prompts: Sequence[Prompt], sampling: Sampling, listener: Listener | None, deadline: float | None
    ) -> list[list[Completion]]:
        if sampling.stop_strings and self.decode is None:
            raise ValueError(
                "NativeEngine needs decode to look for Sampling.stop_strings; give decode=tokenizer.decode"
            )
        end = math.inf if deadline is None else time.monotonic() + deadline
        with gathered(self.model), torch.inference_mode():
            return _Generation(self, prompts, sampling, end, listener).run()

    def score(self, sequences: Sequence[Sequence[int]], temperature: float = 1.0) -> list[list[float]]:
        """Log-probability of every token after the first, given those before it.

        Args:
            sequences: token ids, each of at least one token and at most the window.
            temperature: divisor of the logits.

        Returns:
            For each sequence, one number fewer than it has tokens.

        Raises:
            ValueError: an empty or too long sequence.
        """
        for index, ids in enumerate(sequences):
            if not 0 < len(ids) <= self.window:
                raise ValueError(f"sequence {index} is invalid: {len(ids):,} tokens; give 1 to {self.window:,}")
        scores: list[list[float]] = []
        with gathered(self.model), torch.inference_mode():
            decoder = Decoder(self.model)
            for part in _parts([len(ids) for ids in sequences], self.prefill_tokens):
                scores += [row.tolist() for row in decoder.score(sequences[part], temperature)]
        return scores


@dataclass
class _DecodedRow:
    """An unfinished completion. Its newest token is not in the cache yet."""

    prompt_index: int
    place: int  # among the samples of its prompt
    sample_index: int
    prompt_tokens: int
    limit: int
    seed: int
    drawn_before: int = 0  # of a continued answer
    end: float = math.inf
    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    broken: bool = False

    @property
    def cached(self) -> int:
        return self.prompt_tokens + len(self.ids) - 1

    @property
    def number(self) -> int:
        """Index in its answer of the token sampled next."""
        return self.drawn_before + len(self.ids)


class _Generation:
    """State of one call: queue, rows and cache."""

    def __init__(
        self,
        engine: NativeEngine,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        end: float,
        listener: Listener | None = None,
    ):
        self.engine, self.prompts, self.sampling, self.end, self.listener = engine, prompts, sampling, end, listener
        self.version = engine.weight_version
        self.stops = frozenset(sampling.stop_ids)
        self.stop_strings = StopStrings(sampling.stop_strings, engine.decode or (lambda ids: ""))
        self.samples = [samples_of(prompt, sampling) for prompt in prompts]
        self.results: list[list[Completion | None]] = [[None] * len(samples) for samples in self.samples]
        self.rows: list[_DecodedRow] = []
        self.queue: deque[int] = deque()
        self.next_sample = 0  # of the first prompt in the queue
        self.prefilled: tuple[Prefilled, dict[int, int]] | None = None  # with the index of each prompt in it

    def run(self) -> list[list[Completion]]:
        self._check()
        if self.queue:
            self.decoder = Decoder(self.engine.model)
            self._reserve()
            self._loop()
        return self.results  # type: ignore[return-value]  # all places are filled

    def _check(self) -> None:
        """Check the arguments before any work is done."""
        engine = self.engine
        for index, prompt in enumerate(self.prompts):
            error = prompt_error(prompt, index, engine.window, engine.model.shape.vocab_size)
            needed = len(prompt.ids) + self._limit(prompt)
            if error is None and needed > engine.max_batch_tokens:
                error = f"prompt {index} needs {needed:,} positions: raise max_batch_tokens={engine.max_batch_tokens:,}"
            if error is not None:
                self.results[index] = list(failed(index, self.sampling, self.version, error, prompt=prompt))
            else:
                self.queue.append(index)
        # Neighbours in the cache are read to the end of the longest of them, so sort them by length.
        self.queue = deque(sorted(self.queue, key=lambda index: -len(self.prompts[index].ids)))

    def _limit(self, prompt: Prompt) -> int:
        return min(most_tokens(prompt, self.sampling), self.engine.window - len(prompt.ids))

    def _reserve(self) -> None:
        prompts = [self.prompts[index] for index in self.queue]
        length = max(len(prompt.ids) + self._limit(prompt) for prompt in prompts)
        wanted = sum(len(self.samples[index]) for index in self.queue)
        self.capacity = min(self.engine.max_rows, self.engine.max_batch_tokens // length, wanted)
        decoder = self.decoder
        self.cache = KeyValueCache(decoder.shape, self.capacity, length, decoder.cache_dtype, decoder.device)

    def _loop(self) -> None:
        while self.rows or self.queue:
            free = self.capacity - len(self.rows)
            if self.queue and (free * _REFILL_SHARE >= self.capacity or not self.rows) and not self._out_of_time():
                self._admit(free)
            if self._out_of_time():
                self._give_up()
                return
            if self.rows:
                self._decode()

    def _out_of_time(self) -> bool:
        return time.monotonic() > self.end or stop_asked()

    # -- prompts come in -------------------------------------------------------------------------------------------

    def _admit(self, free: int) -> None:
        """Fill free rows from the queue; samples of a prompt share its prefill, even if they are added later."""
        first: list[tuple[_DecodedRow, int]] = []  # with the index of its prompt in the prefill
        while free and self.queue:
            index = self.queue[0]
            if self.prefilled is None or index not in self.prefilled[1]:
                if first:
                    free -= self._enter(first)
                    first = []
                self._prefill(free)
                if self._out_of_time():
                    return
                continue
            assert self.prefilled is not None
            first.append((self._row(index), self.prefilled[1][index]))
            if len(first) == free:
                free = 0
            self.next_sample += 1
            if self.next_sample == len(self.samples[index]):
                self.queue.popleft()
                self.next_sample = 0
        if first:
            self._enter(first)
        if self.next_sample == 0:
            self.prefilled = None  # otherwise samples of its last prompt are still waiting

    def _row(self, index: int) -> _DecodedRow:
        """Create the row of the next sample of a prompt."""
        prompt, sample = self.prompts[index], self.samples[index][self.next_sample]
        seed = sample_seed(self.sampling, prompt, sample)
        before = 0 if prompt.begun is None else prompt.begun.tokens
        end = math.inf if self.sampling.seconds is None else time.monotonic() + self.sampling.seconds
        return _DecodedRow(index, self.next_sample, sample, len(prompt.ids), self._limit(prompt), seed, before, end)

    def _prefill(self, free: int) -> None:
        """Prefill as many of the next prompts as there is room for with all their samples, but at least one."""
        indices: list[int] = []
        tokens = 0
        for index in self.queue:
            tokens += len(self.prompts[index].ids)
            free -= len(self.samples[index])
            if indices and (tokens > self.engine.prefill_tokens or free < 0):
                break
            indices.append(index)
        self.prefilled = None  # free its memory first
        prefilled = self.decoder.prefill([self.prompts[index].ids for index in indices])
        self.prefilled = prefilled, {index: place for place, index in enumerate(indices)}

    def _enter(self, new: list[tuple[_DecodedRow, int]]) -> int:
        """Sample the first token of new rows; unfinished ones get a place in the cache. Returns their number."""
        assert self.prefilled is not None
        prefilled = self.prefilled[0]
        places = torch.tensor([place for _, place in new], device=self.decoder.device)
        rows = [row for row, _ in new]
        self._draw(rows, prefilled.logits[places])
        entered = 0
        for row, place in new:
            if not self._ended(row):
                self.cache.write(len(self.rows), prefilled, place)
                self.rows.append(row)
                entered += 1
        return entered

    # -- rows go on --------------------------------------------------------------------------------------------------

    def _decode(self) -> None:
        """Decode the current rows until one of them finishes or time is up."""
        device = self.decoder.device
        rows = self.decoder.rows(self.cache, [row.cached for row in self.rows])
        tokens = torch.tensor([row.ids[-1] for row in self.rows], device=device)
        seeds = torch.tensor([row.seed for row in self.rows], device=device)
        steps = torch.tensor([row.number for row in self.rows], device=device)
        ended: list[bool] = []
        while not any(ended) and not self._out_of_time():
            drawn = draw(rows.step(tokens), self.sampling, seeds, steps)
            tokens = drawn.tokens
            steps += 1
            self._record(self.rows, tokens.tolist(), drawn.log_probs.tolist())
            ended = [self._ended(row) for row in self.rows]
        for place, row in enumerate(self.rows):
            if row.broken:
                self.cache.clear(place)
        self._compact([not end for end in ended] or [True] * len(self.rows))

    def _draw(self, rows: list[_DecodedRow], logits: Tensor) -> None:
        device = self.decoder.device
        seeds = torch.tensor([row.seed for row in rows], device=device)
        steps = torch.tensor([row.number for row in rows], device=device)
        drawn = draw(logits, self.sampling, seeds, steps)
        self._record(rows, drawn.tokens.tolist(), drawn.log_probs.tolist())

    def _record(self, rows: list[_DecodedRow], tokens: list[int], log_probs: list[float]) -> None:
        for row, token, log_prob in zip(rows, tokens, log_probs, strict=True):
            row.ids.append(token)
            row.log_probs.append(log_prob)
            if self.listener is not None and math.isfinite(log_prob):
                self.listener(GeneratedPiece(row.prompt_index, row.sample_index, token, log_prob))

    def _ended(self, row: _DecodedRow) -> bool:
        """Whether the newest token was the last one; then the completion is stored."""
        if not math.isfinite(row.log_probs[-1]):
            row.broken = True
            row.ids.pop()
            row.log_probs.pop()
            self._finish(row, "error", f"the logits after {len(row.ids)} new tokens are not finite; check the weights")
        elif row.ids[-1] in self.stops or self.stop_strings.reached(row.ids):
            self._finish(row, "stop")
        elif len(row.ids) == row.limit:
            self._finish(row, "length")
        elif row.end < math.inf and time.monotonic() > row.end:
            self._finish(row, "deadline", OUT_OF_SECONDS)
        else:
            return False
        return True

    def _compact(self, going: list[bool]) -> None:
        """Fill the gaps of finished rows with those at the end of the cache."""
        remaining = sum(going)
        holes = [place for place in range(remaining) if not going[place]]
        movers = [place for place in range(remaining, len(going)) if going[place]]
        if holes:
            self.cache.move(movers, holes, max(self.rows[place].cached for place in movers))
            for hole, mover in zip(holes, movers, strict=True):
                self.rows[hole] = self.rows[mover]
        del self.rows[remaining:]

    def _finish(self, row: _DecodedRow, reason: FinishReason, error: str | None = None) -> None:
        self.results[row.prompt_index][row.place] = Completion(
            tuple(row.ids), tuple(row.log_probs), reason, row.prompt_index, row.sample_index, self.version, error
        )

    def _give_up(self) -> None:
        """Return unfinished completions after the deadline."""
        for row in self.rows:
            self._finish(row, "deadline")
        for index in self.queue:
            for place, (sample, there) in enumerate(zip(self.samples[index], self.results[index], strict=True)):
                if there is None:
                    self._finish(_DecodedRow(index, place, sample, 0, 0, 0), "deadline")


def _parts(lengths: Sequence[int], most: int) -> Iterable[slice]:
    """Groups of neighbours whose lengths sum to at most ``most`` (a longer one is a group of its own)."""
    begin, total = 0, 0
    for index, length in enumerate(lengths):
        if index > begin and total + length > most:
            yield slice(begin, index)
            begin, total = index, 0
        total += length
    if begin < len(lengths):
        yield slice(begin, len(lengths))
