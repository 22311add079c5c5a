"""vLLM servers whose weights are pushed: several behind one engine, of which some may die and come back."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import httpx
from torch import Tensor

from nbg_lightning import log
from nbg_lightning.distributed import get_rank, get_world_size
from nbg_lightning.engines.capabilities import Probe
from nbg_lightning.engines.protocol import Completion, Prompt, Sampling, failed
from nbg_lightning.engines.separate_worker import check_probe, valid_tolerance
from nbg_lightning.engines.server import ServerEngine
from nbg_lightning.engines.vllm_skeleton import with_untied_head
from nbg_lightning.engines.weight_files import WeightFiles, in_dtype, wait_for
from nbg_lightning.error_line import first_line

if TYPE_CHECKING:
    from nbg_lightning.core.model import LanguageModel
    from nbg_lightning.data.tokenizer import Tokenizer

_HEALTH_SECONDS = 15.0  # for what takes a server milliseconds, on a machine that is busy
_OPEN_SECONDS = 120.0  # for its first answer about itself
_PUSH_SECONDS = 1800.0
_NO_NUMBERS = "Out of range float values"  # how a vLLM server answers when its log-probs are NaN
_ROUTES = ("/collective_rpc", "/pause", "/resume", "/reset_prefix_cache", "/update_weight_version", "/weight_info")
_START = (
    "VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --logprobs-mode processed_logprobs "
    "--hf-overrides '{\"tie_word_embeddings\": false}'"
)


class ServerPool:
    """Draws answers on vLLM servers with the weights of a model that is trained.

    Weights are written to a folder that the servers read (`WeightFiles`), and each server is told: pause, reload, empty the
    prefix cache, note the version, resume. After every push its log-probs of a probe must be the trainer's. A server is asked
    only while it says that it has these weights: one that was started again has not, and is pushed to before it answers.

    Questions go round the servers that live. What a dying server leaves unanswered is asked of the others, with the same seeds.
    Under several ranks each has the servers at its places (rank, rank + ranks, ...), so that no other pushes to them.

    It starts no server, and ends none. Start each with development routes, and with a head of its own (reloading leaves a tied
    one as it was, seen in vLLM 0.32): ``VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --logprobs-mode processed_logprobs
    --hf-overrides '{"tie_word_embeddings": false}'``.

    Args:
        urls: such as ``[http://127.0.0.1:8000/v1, http://127.0.0.1:8001/v1]``.
        folder: for weights, which servers see under the same path; by default a temporary one, for servers of this machine.
        dtype: that weights are written in; by default as they are trained.
        transfer: how weights get there; ``files``.
        concurrency: requests at once to a server.
        retries: further tries of a request.
        request_timeout: seconds that one try may take.
        api_key: as in `ServerEngine`.
        tolerance: mean difference of log-probs to the trainer's that a push may leave, in nats.

    Raises:
        ValueError: no address, one that is there twice, or another transfer, dtype or tolerance; on entering, a folder that
            cannot be written.
    """

    def __init__(
        self,
        urls: list[str],
        folder: str | None = None,
        dtype: Literal["float32", "bfloat16"] | None = None,
        transfer: Literal["files"] = "files",
        concurrency: int = 64,
        retries: int = 1,
        request_timeout: float = 600.0,
        api_key: str | None = None,
        tolerance: float = 0.05,
    ):
        self.urls = [url.rstrip("/") for url in ([urls] if isinstance(urls, str) else urls)]
        if not self.urls or len(set(self.urls)) < len(self.urls):
            raise ValueError(f"urls is invalid: {urls}; give each server once")
        if transfer != "files":
            raise ValueError(f"transfer is invalid: {transfer!r}; choose files")
        if dtype not in (None, "float32", "bfloat16"):
            raise ValueError(f"dtype is invalid: {dtype!r}; choose float32 or bfloat16, or leave it out")
        self.folder, self.dtype, self.tolerance = folder, dtype, valid_tolerance(tolerance)
        self.kept_weights = 4  # on the disk: of validation and averages too
        self.options = {
            "concurrency": concurrency,
            "retries": retries,
            "request_timeout": request_timeout,
            "api_key": api_key,
        }
        self._all = [ServerEngine(url, **self.options) for url in self.urls]  # type: ignore[arg-type]
        self.weight_version = -1
        self._model: LanguageModel | None = None
        self._files: WeightFiles | None = None
        self._servers: list[_PushedServer] = []
        self._staged: dict[int, tuple[Path, str | None]] = {}
        self._source = Path()
        self._name = ""  # of the weights, as servers are told it
        self._probe: Probe | None = None

    def attach(self, model: LanguageModel, tokenizer: Tokenizer | None = None) -> None:
        """Draw with this model's weights; all ranks together, before the engine is entered."""
        self._model = model

    # -- life ----------------------------------------------------------------------------------------------------------

    def __enter__(self) -> ServerPool:
        if self._servers:
            raise RuntimeError("this ServerPool is open; leave its with block before entering another")
        if self._model is None:
            raise RuntimeError("this ServerPool has no model; call attach")
        rank, ranks = get_rank(), get_world_size()
        own = self._all[rank::ranks]
        if not own:
            raise ValueError(
                f"urls is invalid: {len(self.urls)} servers for {ranks} ranks; give each rank one at least"
            )
        self._servers = [_PushedServer(engine, self.tolerance) for engine in own]
        shape = dataclasses.replace(self._model.shape, rope_theta=self._model.rope_theta)
        try:
            problems = self._each(
                self._servers, lambda server: server.open(shape.vocab_size, shape.tie_word_embeddings)
            )
            if not any(server.lives for server in self._servers):
                raise ConnectionError(f"no server answers; see their messages: {problems}")
            if self._files is None:
                self._files = WeightFiles(shape, self.folder, self.kept_weights)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the servers, which go on with the weights that they have."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()

    def close(self) -> None:
        """Leave the servers, and remove the files of the weights."""
        self.__exit__()
        files, self._files = self._files, None
        if files is not None:
            files.close()

    def _each(self, servers: Sequence[_PushedServer], work: Callable[[_PushedServer], Any]) -> str:
        """Do something on several servers at once; those that fail are not asked until they are well again.

        Returns:
            Why it failed on which of them.
        """

        def tried(server: _PushedServer) -> None:
            try:
                work(server)
            except (httpx.HTTPError, OSError, _Unwell) as error:
                server.fail(first_line(error))
            else:
                server.recover()

        if servers:
            with ThreadPoolExecutor(len(servers), thread_name_prefix="nbg-servers") as threads:
                for future in [threads.submit(tried, server) for server in servers]:
                    future.result()
        return "; ".join(f"{server.url}: {server.problem}" for server in servers if not server.lives)

    # -- weights -------------------------------------------------------------------------------------------------------

    def stage(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Write these weights down for a later `sync`; all ranks together."""
        self._staged = {**dict(list(self._staged.items())[-self.kept_weights :]), version: self._written(weights)}

    def _written(self, weights: Iterable[tuple[str, Tensor]]) -> tuple[Path, str | None]:
        assert self._files is not None
        return self._files.write(in_dtype(with_untied_head(weights), self.dtype))

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """See `Engine.sync`; the stream of a version that was staged is not read.

        Raises:
            RuntimeError: the weights cannot be written, or no server takes them.
        """
        source, problem = self._staged[version] if version in self._staged else self._written(weights)
        if problem is not None:
            raise RuntimeError(problem)
        self._source, self.weight_version, self._probe = wait_for(source), version, None
        self._name = f"{uuid.uuid4().hex[:12]}-{version}"  # also of averaged weights of the same step
        problems = self._push(self._servers)
        if not any(server.lives for server in self._servers):
            raise RuntimeError(f"no server takes the weights of step {version}; see their messages: {problems}")

    def _push(self, servers: Sequence[_PushedServer]) -> str:
        source, name, version, probe = str(self._source), self._name, self.weight_version, self._probe
        return self._each(servers, lambda server: server.push(source, name, version, probe))

    def check(self, probe: Probe) -> None:
        """Compare every server with the trainer, and those that come back later.

        Raises:
            RuntimeError: the log-probs of one are not the trainer's.
        """
        self._probe = probe
        wrong: list[str] = []

        def compare(server: _PushedServer) -> None:
            try:
                server.check(probe)
            except RuntimeError as error:
                wrong.append(first_line(error))

        self._each([server for server in self._servers if server.lives], compare)
        if wrong:
            raise RuntimeError(wrong[0])

    # -- generation ----------------------------------------------------------------------------------------------------

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, deadline: float | None = None
    ) -> list[list[Completion]]:
        """See `Engine.generate`. A question of a server that dies is asked elsewhere; with no server left it is an error.

        Raises:
            ValueError: sampling that servers cannot ask for.
        """
        end = None if deadline is None else time.monotonic() + deadline
        results: list[list[Completion]] = [
            failed(n, sampling, self.weight_version, "not asked") for n in range(len(prompts))
        ]
        waiting = list(range(len(prompts)))
        for _ in range(1 + 2 * len(self._servers)):
            if not waiting:
                break
            servers = self._ready()
            if not servers:
                break
            left = None if end is None else max(0.01, end - time.monotonic())
            waiting = self._round(servers, waiting, prompts, sampling, left, results)
        return results

    def _ready(self) -> list[_PushedServer]:
        """Servers that have the weights, after those that have not were pushed to."""
        self._push([server for server in self._servers if not server.has(self._name)])
        return [server for server in self._servers if server.lives]

    def _round(
        self,
        servers: Sequence[_PushedServer],
        waiting: Sequence[int],
        prompts: Sequence[Prompt],
        sampling: Sampling,
        left: float | None,
        results: list[list[Completion]],
    ) -> list[int]:
        """Ask questions once; those that are to be asked again."""
        shares = [waiting[place :: len(servers)] for place in range(len(servers))]
        again: list[int] = []

        def ask(server: _PushedServer, share: Sequence[int]) -> None:
            found = server.engine.generate([prompts[index] for index in share], sampling, left)
            well = server.has(self._name)  # one that was started again meanwhile answered with other weights
            for index, completions in zip(share, found, strict=True):
                if not well:
                    again.append(index)
                results[index] = [
                    dataclasses.replace(each, prompt_index=index) if well else _lost(each, index, server.url)
                    for each in completions
                ]

        with ThreadPoolExecutor(len(servers), thread_name_prefix="nbg-servers") as threads:
            for future in [threads.submit(ask, *pair) for pair in zip(servers, shares, strict=True) if pair[1]]:
                future.result()
        if again:
            log.warn(f"{len(again)} questions are asked again: a server died, or was started again, while it had them")
        return sorted(again)


class _Unwell(RuntimeError):
    """A server that answers, and does not do what it is asked."""


class _PushedServer:
    """One server, and whether it is asked.

    Args:
        engine: asks it.
        tolerance: see `ServerPool`.
    """

    def __init__(self, engine: ServerEngine, tolerance: float):
        self.engine, self.tolerance, self.url = engine, tolerance, engine.url
        self.root = engine.url.removesuffix("/v1")
        self.lives, self.problem = True, ""
        self.tied, self.vocab_size = False, 0
        self._client = httpx.Client(headers=engine.headers, timeout=_HEALTH_SECONDS)

    def fail(self, problem: str) -> None:
        """It is not asked any more; said once, until it recovers."""
        if not self.problem:
            log.warn(f"{self.url}: {problem}; its questions are asked elsewhere until it takes the weights again")
        self.lives, self.problem = False, problem

    def recover(self) -> None:
        """It is asked."""
        if self.problem:
            log.info(f"{self.url} takes questions again")
        self.lives, self.problem = True, ""

    def open(self, vocab_size: int, tied: bool) -> None:
        """Ask what it is.

        Raises:
            ValueError: it cannot be pushed to, or has another vocabulary.
        """
        self.vocab_size, self.tied = vocab_size, tied
        paths = self._json("GET", "/openapi.json", seconds=_OPEN_SECONDS).get("paths", {})
        if missing := [route for route in _ROUTES if route not in paths]:
            raise ValueError(f"{self.url} has no {missing[0]}, by which it is given weights; start it by {_START}")
        config = (
            self._json("GET", "/server_info?config_format=json", seconds=_OPEN_SECONDS)
            .get("vllm_config", {})
            .get("model_config", {})
        )
        mode = config.get("logprobs_mode")
        if mode != "processed_logprobs":
            raise ValueError(f"{self.url} gives {mode}; start it with --logprobs-mode processed_logprobs")
        self._enter(has_weights=False)

    def _enter(self, has_weights: bool = True) -> None:
        """Open the engine, and see that the last id of the vocabulary is one of the server's.

        Where a folder's head is tied and the server's is its own, that has no numbers before the first push: asked again then.
        """
        try:
            self.engine.__exit__()
            self.engine.__enter__()
        except ConnectionError as error:
            raise _Unwell(first_line(error)) from None
        (scores,) = self.engine.token_scores([[0, self.vocab_size - 1]], _PUSH_SECONDS)
        if isinstance(scores, str):
            if "vocab" in scores:
                raise ValueError(
                    f"{self.url} serves a model of another vocabulary ({scores}); serve the one that is trained"
                )
            if not has_weights and _NO_NUMBERS in scores:
                self.engine.__exit__()
                return
            raise _Unwell(scores)

    def has(self, name: str) -> bool:
        """Whether it is there, with these weights."""
        try:
            return self.lives and self._json("GET", "/weight_info").get("weight_version") == name
        except (httpx.HTTPError, OSError, _Unwell):
            return False

    def push(self, folder: str, name: str, version: int, probe: Probe | None) -> None:
        """Have it take weights from a folder.

        Raises:
            httpx.HTTPError, _Unwell: it does not.
        """
        self.lives = False
        self._json("GET", "/health")
        self._json("POST", "/pause?mode=abort", seconds=_PUSH_SECONDS)
        try:
            body = {"method": "reload_weights", "kwargs": {"weights_path": folder}}
            try:
                self._json("POST", "/collective_rpc", body, _PUSH_SECONDS)
            except _Unwell as error:
                raise _Unwell(f"{first_line(error)}; does it serve the model that is trained?") from None
            self._json("POST", "/reset_prefix_cache")  # its keys and values are the old weights'
        finally:
            self._json("POST", "/resume", seconds=_PUSH_SECONDS)
        if not self.engine.is_open:
            self._enter()
        if probe is not None:
            try:
                self.check(probe)
            except RuntimeError as error:
                raise _Unwell(first_line(error)) from None
        self._json("POST", "/update_weight_version", {"new_version": name})
        self.engine.weight_version = version

    def check(self, probe: Probe) -> None:
        """Compare it with the trainer.

        Raises:
            RuntimeError: its log-probs are not the trainer's.
        """
        (scores,) = self.engine.token_scores([probe.ids], _PUSH_SECONDS)
        if isinstance(scores, str):
            raise _Unwell(scores)
        try:
            check_probe([score.log_prob for score in scores], probe, self.tolerance, self.url)
        except RuntimeError as error:
            hint = "; start it with --hf-overrides '{\"tie_word_embeddings\": false}'" if self.tied else ""
            raise RuntimeError(first_line(error) + hint) from None

    def _json(self, method: str, path: str, body: Any = None, seconds: float = _HEALTH_SECONDS) -> dict[str, Any]:
        response = self._client.request(method, self.root + path, json=body, timeout=seconds)
        if response.status_code != 200:
            raise _Unwell(
                f"{path.partition('?')[0]} is answered with HTTP {response.status_code}: {response.text[:300]!r}"
            )
        try:
            value = response.json() if response.content else {}
        except ValueError:
            raise _Unwell(f"{path} is answered with what is no JSON: {response.text[:100]!r}") from None
        return value if isinstance(value, dict) else {}

    def close(self) -> None:
        """Close the connections."""
        self.engine.__exit__()
        self._client.close()


def _lost(completion: Completion, index: int, url: str) -> Completion:
    error = completion.error or f"{url} had other weights when it had answered"
    return dataclasses.replace(completion, ids=(), log_probs=(), finish_reason="error", prompt_index=index, error=error)
