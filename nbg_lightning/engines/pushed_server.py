"""A vLLM server that receives weights: its state, health, and the version of its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import httpx

from nbg_lightning import log
from nbg_lightning.engines.capabilities import Probe
from nbg_lightning.engines.separate_worker import check_probe
from nbg_lightning.engines.server import ServerEngine
from nbg_lightning.error_line import first_line

_HEALTH_SECONDS = 15.0  # for requests that take a server milliseconds, on a busy machine
_OPEN_SECONDS = 120.0  # for its first response about itself
PUSH_SECONDS = 1800.0
_NO_NUMBERS = "Out of range float values"  # a vLLM server's error when its log-probs are NaN
_ROUTES = ("/pause", "/resume", "/reset_prefix_cache", "/update_weight_version", "/weight_info")
_START = (
    "VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --logprobs-mode processed_logprobs "
    "--hf-overrides '{\"tie_word_embeddings\": false}'"
)


class Unwell(RuntimeError):
    """A server that responds, but does not do what it is asked."""


class PushedServer:
    """One server and its health.

    Args:
        engine: sends requests to it.
        tolerance: see `ServerPool`.
    """

    def __init__(self, engine: ServerEngine, tolerance: float):
        self.engine, self.tolerance, self.url = engine, tolerance, engine.url
        self.root = engine.url.removesuffix("/v1")
        self.lives, self.problem = True, ""
        self.tied, self.vocab_size = False, 0
        self._client = httpx.Client(headers=engine.headers, timeout=_HEALTH_SECONDS)

    def fail(self, problem: str) -> None:
        """Stop using the server, with one warning until it recovers."""
        if not self.problem:
            log.warn(f"{self.url}: {problem}; its questions are asked elsewhere until it takes the weights again")
        self.lives, self.problem = False, problem

    def recover(self) -> None:
        """Use the server again."""
        if self.problem:
            log.info(f"{self.url} takes questions again")
        self.lives, self.problem = True, ""

    def open(self, vocab_size: int, tied: bool, routes: Sequence[str]) -> None:
        """Query the server's properties.

        Args:
            vocab_size: vocabulary size of the model in training.
            tied: whether its head is tied to its embedding.
            routes: endpoints for the transfer of weights.

        Raises:
            ValueError: weights cannot be pushed to it, or it has another vocabulary.
        """
        self.vocab_size, self.tied = vocab_size, tied
        paths = self.ask("GET", "/openapi.json", seconds=_OPEN_SECONDS).get("paths", {})
        if missing := [route for route in (*_ROUTES, *routes) if route not in paths]:
            raise ValueError(f"{self.url} has no {missing[0]}, by which it is given weights; start it by {_START}")
        config = (
            self.ask("GET", "/server_info?config_format=json", seconds=_OPEN_SECONDS)
            .get("vllm_config", {})
            .get("model_config", {})
        )
        mode = config.get("logprobs_mode")
        if mode != "processed_logprobs":
            raise ValueError(f"{self.url} gives {mode}; start it with --logprobs-mode processed_logprobs")
        self._enter(has_weights=False)

    def _enter(self, has_weights: bool = True) -> None:
        """Open the engine, and check that the last id of the vocabulary is valid on the server.

        If the folder's head is tied but the server's is not, its log-probs are NaN before the first push: it is checked later.
        """
        try:
            self.engine.__exit__()
            self.engine.__enter__()
        except ConnectionError as error:
            raise Unwell(first_line(error)) from None
        (scores,) = self.engine.token_scores([[0, self.vocab_size - 1]], PUSH_SECONDS)
        if isinstance(scores, str):
            if "vocab" in scores:
                raise ValueError(
                    f"{self.url} serves a model of another vocabulary ({scores}); serve the one that is trained"
                )
            if not has_weights and _NO_NUMBERS in scores:
                self.engine.__exit__()
                return
            raise Unwell(scores)

    def has(self, name: str) -> bool:
        """Whether the server is up and has these weights."""
        try:
            return self.lives and self.weights_name() == name
        except (httpx.HTTPError, OSError, Unwell):
            return False

    def weights_name(self) -> Any:
        """The server's name of its weights; after a start, a name unknown to the pool.

        Raises:
            httpx.HTTPError, OSError, Unwell: it does not report one.
        """
        return self.ask("GET", "/weight_info").get("weight_version")

    def push(self, give: Callable[[PushedServer], None], name: str, version: int, probe: Probe | None) -> None:
        """Push weights to the server.

        Args:
            give: transfers them (`WeightTransfer.give`).
            name: name of the weights.
            version: number of steps of the weights.
            probe: the trainer's log-probs; None to compare later.

        Raises:
            httpx.HTTPError, Unwell: the push failed.
        """
        self.lives = False
        self.ask("GET", "/health")
        self.ask("POST", "/pause?mode=abort", seconds=PUSH_SECONDS)
        try:
            give(self)
            self.ask("POST", "/reset_prefix_cache")  # its keys and values belong to the old weights
        finally:
            self.ask("POST", "/resume", seconds=PUSH_SECONDS)
        if not self.engine.is_open:
            self._enter()
        if probe is not None:
            try:
                self.check(probe)
            except RuntimeError as error:
                raise Unwell(first_line(error)) from None
        self.ask("POST", "/update_weight_version", {"new_version": name})
        self.engine.weight_version = version

    def check(self, probe: Probe) -> None:
        """Compare the server with the trainer.

        Raises:
            RuntimeError: its log-probs differ from the trainer's.
        """
        (scores,) = self.engine.token_scores([probe.ids], PUSH_SECONDS)
        if isinstance(scores, str):
            raise Unwell(scores)
        try:
            check_probe([score.log_prob for score in scores], probe, self.tolerance, self.url)
        except RuntimeError as error:
            hint = "; start it with --hf-overrides '{\"tie_word_embeddings\": false}'" if self.tied else ""
            raise RuntimeError(first_line(error) + hint) from None

    def ask(self, method: str, path: str, body: Any = None, seconds: float = _HEALTH_SECONDS) -> dict[str, Any]:
        """Send a request and return the response.

        Raises:
            httpx.HTTPError: no response.
            Unwell: it refuses, or the response is not JSON.
        """
        response = self._client.request(method, self.root + path, json=body, timeout=seconds)
        if response.status_code != 200:
            raise Unwell(
                f"{path.partition('?')[0]} is answered with HTTP {response.status_code}: {response.text[:300]!r}"
            )
        try:
            value = response.json() if response.content else {}
        except ValueError:
            raise Unwell(f"{path} is answered with what is no JSON: {response.text[:100]!r}") from None
        return value if isinstance(value, dict) else {}

    def close(self) -> None:
        """Close the connections."""
        self.engine.__exit__()
        self._client.close()
