"""A teacher on an OpenAI-compatible server: distributions over given text, by vLLM's ``prompt_logprobs``."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from nbg_lightning.data.tokenizer import Tokenizer
from nbg_lightning.engines.server import ServerEngine
from nbg_lightning.error_line import first_line
from nbg_lightning.teachers.targets import Sequence as TokenSequence
from nbg_lightning.teachers.targets import TopKTargets

_PROBED_IDS = 64  # whose meaning is compared with the server's
_LEAST_TAIL = 1e-12  # the server's numbers are float32: a smaller rest of 1 is rounding


class ServerTeacher(ServerEngine):
    """Top-k log-probs of given tokens from a vLLM server, one request per sequence, several concurrently.

    Start it with ``vllm serve MODEL --max-logprobs 64`` (or more, at least k), and a window that holds a sequence plus one
    token. The response has about 60 bytes of JSON for each of k ids of every token of a sequence, including the prompt:
    keep k small and the server near. The mass outside the top k is ``1 - sum``, with the accuracy of the server's float32.

    Args:
        url: base URL, such as ``http://127.0.0.1:8000/v1``.
        model: name of the model there; by default the first that the server lists.
        concurrency: maximum number of concurrent requests.
        retries: number of retries per request.
        request_timeout: total seconds per attempt.
        api_key: sent as a bearer token.
        tokenizer: tokenizer of the served model, a folder or a name on the hub, if it is not the student's: `OPDModule`,
            and `DPDModule` through a cache, then compare the two over chunks of text. It is verified against the server
            before the first response is used.

    Raises:
        ConnectionError: on entering, if the server does not answer.
    """

    dtype = "server"
    longest_body = 1 << 30  # some 60 bytes for each of k ids of every token

    def __init__(
        self,
        url: str,
        model: str | None = None,
        concurrency: int = 8,
        retries: int = 4,
        request_timeout: float = 600.0,
        api_key: str | None = None,
        tokenizer: str | None = None,
    ):
        self.tokenizer = tokenizer
        super().__init__(
            url,
            model,
            "ids",
            concurrency=concurrency,
            retries=retries,
            request_timeout=request_timeout,
            api_key=api_key,
        )

    def __enter__(self) -> ServerTeacher:
        super().__enter__()
        return self

    @property
    def fingerprint(self) -> str:
        """Identity of the teacher: all that a server reveals about its weights is a name."""
        return f"{self.url} {self.model}"

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Raise if the server's ids mean other texts, since its distributions would be over unrelated tokens.

        Ids from the whole vocabulary are sent as a prompt, and the server's name for each of them is compared.

        Raises:
            ValueError: the tokenizers differ, or the server does not return what its ids mean.
            RuntimeError: the server refuses, or keeps failing.
        """
        ids = list(range(0, tokenizer.vocab_size, -(-tokenizer.vocab_size // _PROBED_IDS)))
        probe = TokenSequence(np.array(ids), np.ones(len(ids), dtype=bool))
        end = time.monotonic() + self.request_timeout * (1 + self.retries)
        try:
            named = self._retried(
                "POST", "/completions", self._request(probe, 1), end, lambda reply: _names(reply, ids)
            )
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"the teacher at {self.url} cannot be compared with the data's tokenizer ({first_line(error)}); serve it by a "
                f"vLLM server of a model with the data's {tokenizer.vocab_size:,} ids"
            ) from error
        ours = [tokenizer.decode([id_]) for id_ in ids]
        told = [
            (id_, own, their)
            for id_, own, their in zip(ids, ours, named, strict=True)
            if own and "\ufffd" not in own + their
        ]
        differing = [each for each in told if each[1].strip() != each[2].strip()]  # blanks depend on what stands before
        if differing or not told:
            id_, own, their = differing[0] if differing else (ids[0], ours[0], named[0])
            raise ValueError(
                f"the teacher at {self.url} has another tokenizer than the data ({len(differing)} of {len(told)} ids differ: "
                f"{id_} is {own!r} here and {their!r} there); serve a model with the data's tokenizer, or name the served "
                "model's as the tokenizer of ServerTeacher"
            )

    def top_k(self, sequences: Sequence[TokenSequence], k: int, temperature: float = 1.0) -> list[TopKTargets]:
        """See `TargetSource.top_k`.

        Raises:
            ValueError: a temperature other than 1, which cannot be computed from the top k.
            RuntimeError: the server refuses, or keeps failing.
        """
        if temperature != 1:
            raise ValueError(
                f"temperature is invalid: {temperature}; a server gives the tail's mass at temperature 1 only; use the "
                "teacher's weights"
            )
        if self._client is None:
            raise RuntimeError("this ServerTeacher is not open; use it in a with block")
        end = time.monotonic() + self.request_timeout * (1 + self.retries) * -(-len(sequences) // self.concurrency)
        with ThreadPoolExecutor(self.concurrency, thread_name_prefix="nbg-teacher") as pool:
            futures = [pool.submit(self._targets, sequence, k, end) for sequence in sequences]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed = next((future.exception() for future in done if future.exception() is not None), None)
            if failed is not None:
                pool.shutdown(wait=False, cancel_futures=True)
                raise RuntimeError(
                    f"the teacher at {self.url} gives no prompt_logprobs ({first_line(failed)}); serve it by a vLLM server "
                    f"started with --max-logprobs {k} or more, and a window above the longest sequence"
                ) from failed
        return [future.result() for future in futures]

    def _targets(self, sequence: TokenSequence, k: int, end: float) -> TopKTargets:
        return self._retried(
            "POST", "/completions", self._request(sequence, k), end, lambda reply: _read(reply, sequence, k)
        )

    def _request(self, sequence: TokenSequence, k: int) -> dict[str, Any]:
        return {
            "model": self.model,
            "prompt": sequence.ids.tolist(),
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": k,
            "add_special_tokens": False,
        }


def _names(reply: Any, ids: Sequence[int]) -> list[str]:
    """The server's name for each id of a prompt; a replacement character for the first, which it does not report.

    Raises:
        ValueError: the server does not report them.
    """
    try:
        listed = reply["choices"][0]["prompt_logprobs"]
        return [
            "\ufffd",
            *(str(listed[place][str(id_)]["decoded_token"]) for place, id_ in enumerate(ids[1:], start=1)),
        ]
    except (KeyError, IndexError, TypeError):
        raise ValueError("its prompt_logprobs do not say what the ids of a prompt mean") from None


def _read(reply: Any, sequence: TokenSequence, k: int) -> TopKTargets:
    """The top-k lists of a response, at the trained tokens.

    Raises:
        ValueError: the response lacks requested data.
    """
    try:
        listed = reply["choices"][0]["prompt_logprobs"]
    except (KeyError, IndexError, TypeError):
        listed = None
    if not isinstance(listed, list) or len(listed) != len(sequence.ids):
        count = len(listed) if isinstance(listed, list) else "no"
        raise ValueError(f"it has {count} prompt_logprobs for {len(sequence.ids)} tokens")
    places = sequence.places + 1  # entry t is about token t
    ids = np.empty((len(places), k), np.int64)
    log_probs = np.empty((len(places), k), np.float64)
    for row, place in enumerate(places.tolist()):
        entries = sorted(
            (entry["rank"], int(token), float(entry["logprob"])) for token, entry in (listed[place] or {}).items()
        )[:k]  # the token itself is listed too, whatever its rank
        if len(entries) < k or entries[-1][0] > k:
            raise ValueError(f"it lists fewer than {k} ids of token {place}")
        ids[row] = [token for _, token, _ in entries]
        log_probs[row] = [value for _, _, value in entries]
    mass = np.exp(log_probs).sum(axis=1)
    if len(mass) and not (np.isfinite(log_probs).all() and mass.max() < 1 + 1e-3):
        raise ValueError("its numbers are no log-probabilities; start it without --logprobs-mode raw_logits")
    tail = np.where(1 - mass > _LEAST_TAIL, np.log(np.maximum(1 - mass, _LEAST_TAIL)), -math.inf)
    return TopKTargets(ids, log_probs, tail)
