"""Client for OpenAI-compatible endpoints: vLLM, SGLang, or a hosted model."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Literal

import httpx
from torch import Tensor

from nbg_lightning import log
from nbg_lightning.credentials import resolved
from nbg_lightning.engines.capabilities import Interface
from nbg_lightning.engines.protocol import (
    OUT_OF_SECONDS,
    Completion,
    FinishReason,
    Listener,
    Prompt,
    Sampling,
    TokenScore,
    failed,
    most_tokens,
    request_seed,
    samples_of,
)
from nbg_lightning.engines.reply_values import of_type, seconds, shortened, token_id
from nbg_lightning.error_line import first_line

# Rate limits, and what proxies and servers return while starting, overloaded or restarting.
_RETRY_STATUS = {408, 409, 425, 429, 500, 502, 503, 504}
_TOKENIZE_SECONDS = 30.0  # for requests that take a server milliseconds
_LONGEST_PAUSE = 30.0  # maximum seconds between two attempts
_HALF_PAIR = re.compile("[\ud800-\udfff]")


class _Transient(RuntimeError):
    """A failure that a retry may fix."""

    def __init__(self, message: str, pause: float = 0.0):
        super().__init__(message)
        self.pause = pause


class _Permanent(RuntimeError):
    """A failure that a retry would repeat."""


class _OutOfTime(RuntimeError):
    """The call's deadline has passed."""


@dataclass(frozen=True)
class _Answer:
    ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    reason: FinishReason
    text: str | None


class ServerEngine:
    """Generation by a server with OpenAI's HTTP interface.

    Every completion is a separate request with its own seed, with up to ``concurrency`` requests at once. Failed requests are
    retried; if one keeps failing, its `Completion` has ``finish_reason="error"``.
    The three interfaces:

    * ``ids`` (vLLM): token ids in and out, with log-probs. By default vLLM's log-probs are those before temperature and
      truncation: start it with ``--logprobs-mode processed_logprobs``, or set ``log_probs="raw"`` here; then they are
      returned only if both are the same, and omitted otherwise.
    * ``text`` (``/completions`` of any server) and ``chat`` (``/chat/completions``, with the prompt as one user message):
      `Prompt.text` in and `Completion.text` out. There are no token ids, and hence no log-probs, stop ids or top-k: such
      completions can be read and judged, but not used for reinforcement learning. Seeds depend on the server.

    Args:
        url: base URL, such as ``http://127.0.0.1:8000/v1``.
        model: the model's name on the server; by default the first one that it lists.
        interface: see above.
        log_probs: which log-probs the server returns.
        concurrency: maximum number of concurrent requests.
        retries: maximum number of retries of a request.
        pause: seconds before the first retry, doubled for each further one, unless the server asks for a delay.
        request_timeout: maximum total seconds of one attempt.
        api_key: bearer token; ``env:NAME`` reads it from the environment, and keeps it out of all files of a run.
        weight_version: version recorded in completions.

    Raises:
        ConnectionError: on entering, if the server does not respond.
    """

    longest_body = 1 << 26  # bytes of a response: a million tokens with their log-probs

    def __init__(
        self,
        url: str,
        model: str | None = None,
        interface: Interface = "ids",
        log_probs: Literal["processed", "raw"] = "processed",
        concurrency: int = 64,
        retries: int = 4,
        pause: float = 0.5,
        request_timeout: float = 600.0,
        api_key: str | None = None,
        weight_version: int = 0,
    ):
        for name, value, least in (("concurrency", concurrency, 1), ("retries", retries, 0), ("pause", pause, 0)):
            if not value >= least:
                raise ValueError(f"{name} is invalid: {value}; give at least {least}")
        if not request_timeout > 0:
            raise ValueError(f"request_timeout is invalid: {request_timeout}; give seconds above 0")
        self.url, self.model, self.interface, self.log_probs = url.rstrip("/"), model, interface, log_probs
        self.concurrency, self.retries, self.pause, self.request_timeout = concurrency, retries, pause, request_timeout
        self.weight_version = weight_version
        key = resolved(api_key)
        # Identity: a small compressed response could exhaust memory.
        self.headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._replaced = 0
        self._client: httpx.Client | None = None

    # -- life ----------------------------------------------------------------------------------------------------------

    def __enter__(self) -> ServerEngine:
        if self._client is not None:
            raise RuntimeError("this ServerEngine is open; leave its with block before entering another")
        limits = httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        self._client = httpx.Client(headers=self.headers, limits=limits)
        if self.model is None:
            try:
                listed = self._retried("GET", "/models", None, time.monotonic() + 10 * (1 + self.retries))
                self.model = of_type(listed["data"][0]["id"], str)
            except (_Transient, _Permanent, _OutOfTime, KeyError, IndexError, TypeError) as error:
                self.__exit__()
                raise ConnectionError(
                    f"{self.url}/models lists no model ({first_line(error)}); start the server, or name the model"
                ) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    @property
    def is_open(self) -> bool:
        """Whether the engine is entered."""
        return self._client is not None

    @property
    def client(self) -> httpx.Client:
        """The HTTP client, while open."""
        if self._client is None:
            raise RuntimeError("this ServerEngine is not open; use it in a with block")
        return self._client

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Refuse: a server has its own weights.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            f"the weights of {self.url} cannot be changed by ServerEngine; use ServerPool, VLLMEngine or NativeEngine to train"
        )

    # -- the server's chat format ----------------------------------------------------------------------------------------

    def check_chat_format(self, messages: Sequence[dict[str, Any]], ids: Sequence[int], name: str) -> None:
        """Check that the server's template gives the same ids; logs if the server cannot tell (no ``/tokenize``).

        messages: a conversation up to the turn that the model generates.
            ids: its ids in the expected format.
            name: name of that format.
            name: of that format.

        Raises:
            ValueError: the server's ids differ.
        """
        theirs = self._chat_ids(messages)
        if theirs is None:
            log.info(f"{self.url} has no /tokenize: whether its chat format is {name} cannot be told")
        elif theirs != list(ids):
            pairs = zip((*theirs, None), (*ids, None), strict=False)
            place = next(place for place, (one, other) in enumerate(pairs) if one != other)
            raise ValueError(
                f"the chat format of {self.url} is not {name}: of a conversation of {len(ids)} tokens it makes other ids from "
                f"token {place} on; serve the model with its template (--chat-template FOLDER/chat_template.jinja), or use "
                "interface ids"
            )

    def _chat_ids(self, messages: Sequence[dict[str, Any]]) -> list[int] | None:
        """The server's ids of a conversation; None if unavailable. vLLM has the endpoint beside ``/v1``, not below it."""
        body = {"model": self.model, "messages": list(messages), "add_generation_prompt": True}
        address = f"{self.url.removesuffix('/v1')}/tokenize"
        end = time.monotonic() + _TOKENIZE_SECONDS
        try:
            return self._retried(
                "POST", address, body, end, lambda reply: [token_id(token) for token in of_type(reply["tokens"], list)]
            )
        except (_Transient, _Permanent, _OutOfTime, KeyError, TypeError, ValueError):
            return None

    # -- scores of given tokens --------------------------------------------------------------------------------------

    def token_scores(
        self, sequences: Sequence[Sequence[int]], deadline: float | None = None
    ) -> list[list[TokenScore] | str]:
        """Scores of every token after the first, at temperature 1; or the reason why there are none. vLLM servers only.

        Raises:
            ValueError: the interface is not ``ids``.
        """
        _ = self.client
        if self.interface != "ids":
            raise ValueError(f"interface is invalid: {self.interface!r} rates no tokens; use 'ids', which vLLM serves")
        end = math.inf if deadline is None else time.monotonic() + deadline

        def scored(ids: Sequence[int]) -> list[TokenScore] | str:
            body = {
                "model": self.model,
                "prompt": list(ids),
                "max_tokens": 1,
                "temperature": 0.0,
                "seed": 0,
                "prompt_logprobs": 0,
                "add_special_tokens": False,
            }
            try:
                return self._retried("POST", "/completions", body, end, lambda reply: _token_scores(reply, ids))
            except (_Transient, _Permanent, _OutOfTime) as error:
                return first_line(error)

        with ThreadPoolExecutor(self.concurrency, thread_name_prefix="nbg-server") as pool:
            return list(pool.map(scored, sequences))

    # -- generation --------------------------------------------------------------------------------------------------

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, deadline: float | None = None
    ) -> list[list[Completion]]:
        """See `Engine.generate`. Completions unanswered at the deadline are lost, since servers return whole completions.

        Raises:
            ValueError: the interface does not support the sampling settings.
        """
        self.check_sampling(sampling)
        end = math.inf if deadline is None else time.monotonic() + deadline
        results: list[list[Completion]] = []
        waiting: dict[Future[_Answer], tuple[int, int, int]] = {}
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="nbg-server")
        try:
            for index, prompt in enumerate(prompts):
                error = self.prompt_error(prompt, index)
                results.append(failed(index, sampling, self.weight_version, error or "not answered", prompt=prompt))
                for place, sample in enumerate(samples_of(prompt, sampling) if error is None else ()):
                    body = self.request_body(prompt, sampling, sample)
                    waiting[pool.submit(self._complete, body, sampling, end)] = (index, place, sample)
            wait(waiting, timeout=None if end == math.inf else max(0.0, end - time.monotonic()))
        finally:
            # Threads in the middle of a request end by their own time limit, which is that of the call.
            pool.shutdown(wait=False, cancel_futures=True)
        for future, (index, place, sample) in waiting.items():
            results[index][place] = self._completion(future, index, sample)
        return results

    def stream(
        self, prompts: Sequence[Prompt], sampling: Sampling, listener: Listener, deadline: float | None = None
    ) -> list[list[Completion]]:
        """See `StreamingEngine`; for the interfaces ``text`` and ``chat``. Requests are not retried.

        Raises:
            ValueError: the interface is ``ids``, or does not support the sampling settings.
        """
        from nbg_lightning.engines.server_stream import stream

        return stream(self, prompts, sampling, listener, deadline)

    def check_sampling(self, sampling: Sampling) -> None:
        """Check that the interface supports the sampling settings, and that the engine is open."""
        _ = self.client
        if self.interface != "ids" and (sampling.stop_ids or sampling.top_k):
            raise ValueError(
                f"interface is invalid: {self.interface!r} knows no stop ids and no top_k; use stop strings and top_p"
            )

    def prompt_error(self, prompt: Prompt, index: int) -> str | None:
        """The reason why a prompt cannot be sent; None if it can."""
        if self.interface == "ids":
            return None if prompt.ids else f"prompt {index} has no token ids: begin it with a token such as bos"
        given = prompt.text or (self.interface == "chat" and prompt.messages)
        return None if given else f"prompt {index} has no text: interface {self.interface!r} needs Prompt.text"

    def request_body(self, prompt: Prompt, sampling: Sampling, sample: int) -> dict[str, Any]:
        """The request for one completion."""
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": most_tokens(prompt, sampling),
            "temperature": sampling.temperature,
            "top_p": 1.0 if sampling.greedy else sampling.top_p,
            "seed": request_seed(sampling, prompt, sample),
            "n": 1,
        }
        if sampling.stop_strings:
            body["stop"] = list(sampling.stop_strings)
        if self.interface == "chat":
            messages = list(prompt.messages or [{"role": "user", "content": prompt.text}])
            return {**body, "messages": messages} | ({"tools": list(prompt.tools)} if prompt.tools else {})
        if self.interface == "text":
            return {**body, "prompt": prompt.text}
        return {
            **body,
            "prompt": list(prompt.ids),
            "logprobs": 0,
            "return_token_ids": True,
            "top_k": 0 if sampling.greedy else sampling.top_k,
            "stop_token_ids": list(sampling.stop_ids),
            "ignore_eos": True,  # only the caller's stop ids end a completion
            "add_special_tokens": False,
            "skip_special_tokens": False,
        }

    @property
    def path(self) -> str:
        """Path of completions below the base URL."""
        return "/chat/completions" if self.interface == "chat" else "/completions"

    def _complete(self, body: dict[str, Any], sampling: Sampling, end: float) -> _Answer:
        """One completion, with retries. Runs in a thread."""
        own = math.inf if sampling.seconds is None else time.monotonic() + sampling.seconds
        try:
            return self._retried("POST", self.path, body, min(end, own), lambda reply: self._read(reply, sampling))
        except _OutOfTime as error:
            raise _OutOfTime(OUT_OF_SECONDS if own < end else first_line(error)) from None

    def _retried(self, method: str, path: str, body: Any, end: float, read: Any = lambda reply: reply) -> Any:
        pause = self.pause
        for attempt in range(self.retries + 1):
            try:
                return read(self._try(method, path, body, end))
            except _Transient as error:
                delay = min(max(pause, error.pause), _LONGEST_PAUSE)
                if attempt == self.retries:
                    raise
                if time.monotonic() + delay >= end:
                    raise _OutOfTime(first_line(error)) from error
                time.sleep(delay)
                pause *= 2
        raise AssertionError("the loop returns or raises")

    def _try(self, method: str, path: str, body: Any, end: float) -> Any:
        """One request with a total time limit; httpx's own limits apply to each read."""
        assert self._client is not None
        limit = min(end, time.monotonic() + self.request_timeout)
        left = limit - time.monotonic()
        if left <= 0:
            raise _OutOfTime("the deadline has passed")
        content = bytearray()
        try:
            address = path if "://" in path else self.url + path
            with self._client.stream(method, address, json=body, timeout=left) as response:
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > self.longest_body:
                        raise _Permanent(f"the answer is longer than {self.longest_body:,} bytes")
                    if time.monotonic() > limit:
                        raise httpx.ReadTimeout("the answer did not end in time")
        except (httpx.TransportError, httpx.StreamError, OSError) as error:
            if time.monotonic() >= end:
                raise _OutOfTime(first_line(error)) from error
            raise _Transient(f"{type(error).__name__}: {first_line(error)}") from error
        except (RuntimeError, httpx.InvalidURL) as error:  # the client was closed, or the URL is invalid
            raise _Permanent(first_line(error)) from error
        if response.status_code != 200:
            message = f"HTTP {response.status_code}: {shortened(bytes(content))}"
            if response.status_code in _RETRY_STATUS:
                raise _Transient(message, seconds(response.headers.get("retry-after")))
            raise _Permanent(message)
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise _Transient(f"the answer is not JSON: {shortened(bytes(content))}") from error

    def _read(self, reply: Any, sampling: Sampling) -> _Answer:
        """Parse a response; a malformed one may be retried."""
        try:
            choices = reply["choices"]
            if len(choices) != 1:
                raise _Transient(f"the server gave {len(choices)} completions for one request")
            choice = choices[0]
            reason = choice["finish_reason"]
            if reason not in ("stop", "length"):
                raise _Permanent(f"the server ended the completion with {reason!r}")
            if self.interface == "chat":
                return _Answer((), (), reason, self._text(choice["message"]["content"] or ""))
            if self.interface == "text":
                return _Answer((), (), reason, self._text(choice["text"]))
            if choice.get("token_ids") is None:
                raise _Permanent("the server gives no token ids; use vLLM 0.10.2 or later, or interface='text'")
            ids = tuple(token_id(token) for token in of_type(choice["token_ids"], list))
            log_probs = tuple(float(value) for value in of_type(choice["logprobs"]["token_logprobs"], list))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise _Transient(f"the answer lacks {first_line(error)}") from error
        if len(ids) > sampling.max_new_tokens:
            raise _Permanent(f"the server gave {len(ids)} tokens, of {sampling.max_new_tokens} that were asked for")
        if len(log_probs) != len(ids):
            raise _Transient(f"the server gave {len(log_probs)} log-probs for {len(ids)} tokens")
        if not all(map(math.isfinite, log_probs)):
            raise _Permanent("the server's log-probs are not finite; check its weights")
        same = sampling.temperature in (0.0, 1.0) and not sampling.truncated
        return _Answer(ids, log_probs if self.log_probs == "processed" or same else (), reason, None)

    def _text(self, value: Any) -> str:
        """Replace lone surrogates by U+FFFD, with a warning."""
        text, count = _HALF_PAIR.subn("\N{REPLACEMENT CHARACTER}", of_type(value, str))
        if count and not self._replaced:
            log.warn(f"{self.url} sends half surrogate pairs, which no text may have: each is read as U+FFFD")
        self._replaced += count
        return text

    def _completion(self, future: Future[_Answer], index: int, sample: int) -> Completion:
        version = self.weight_version
        if not future.done() or future.cancelled():
            return Completion((), (), "deadline", index, sample, version)
        error = future.exception()
        if isinstance(error, _OutOfTime):
            return Completion((), (), "deadline", index, sample, version, first_line(error))
        if error is not None:
            tried = f" (tried {self.retries + 1} times)" if isinstance(error, _Transient) else ""
            return Completion((), (), "error", index, sample, version, first_line(error) + tried)
        answer = future.result()
        return Completion(answer.ids, answer.log_probs, answer.reason, index, sample, version, None, answer.text)


def _token_scores(reply: Any, ids: Sequence[int]) -> list[TokenScore]:
    try:
        given = reply["choices"][0].get("prompt_logprobs")
        if given is None:
            raise _Permanent("the server gives no prompt_logprobs; use a vLLM server, which log-likelihoods need")
        if len(given) != len(ids):
            raise _Transient(f"the server rated {len(given)} of {len(ids)} tokens")
        found = [at[str(token)] for at, token in zip(given[1:], ids[1:], strict=True)]
        return [TokenScore(float(each["logprob"]), each["rank"] == 1) for each in found]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise _Transient(f"the answer lacks {first_line(error)}") from error
