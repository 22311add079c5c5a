"""A pool of vLLM servers that receive weights from the trainer; servers may die and come back."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import httpx
import torch
from torch import Tensor

from nbg_lightning import log
from nbg_lightning.distributed import get_rank, get_world_size
from nbg_lightning.engines.capabilities import Probe
from nbg_lightning.engines.nccl_transfer import NCCLTransfer
from nbg_lightning.engines.protocol import Completion, Prompt, Sampling, failed
from nbg_lightning.engines.pushed_server import PushedServer, Unwell
from nbg_lightning.engines.separate_worker import valid_tolerance
from nbg_lightning.engines.server import ServerEngine
from nbg_lightning.engines.vllm_skeleton import with_untied_head
from nbg_lightning.engines.weight_files import WeightFiles, in_dtype
from nbg_lightning.engines.weight_transfer import WeightTransfer
from nbg_lightning.error_line import first_line

if TYPE_CHECKING:
    from nbg_lightning.core.config import LanguageModelConfig
    from nbg_lightning.core.model import LanguageModel
    from nbg_lightning.data.tokenizer import Tokenizer


class ServerPool:
    """Generates on vLLM servers with the weights of a model in training.

    Weights are written to a folder that the servers read (`WeightFiles`), or sent from GPU to GPU (`NCCLTransfer`). Each server
    is then told to pause, reload, reset its prefix cache, record the version, and resume. After every push its log-probs of a
    probe must match the trainer's. A server is used only while it reports these weights: a restarted one does not, and is pushed
    to before it is used.

    Prompts are distributed over the live servers. Prompts of a server that dies are sent to others, with the same seeds.
    With several ranks, each uses its own servers (rank, rank + ranks, ...), so that no two push to the same one.

    The pool neither starts nor ends servers. Start each with development routes, and with an untied head (reloading does not
    update a tied one, as seen in vLLM 0.32): ``VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --logprobs-mode processed_logprobs
    --hf-overrides '{"tie_word_embeddings": false}'``.

    Args:
        urls: base URLs, such as ``[http://127.0.0.1:8000/v1, http://127.0.0.1:8001/v1]``.
        folder: folder for weights, at the same path on the servers; by default a temporary one, for servers on this machine.
        dtype: dtype of written weights; by default as in training.
        transfer: how weights are transferred: by ``files``, on any machine, or by ``nccl`` between NVIDIA GPUs, with servers
            started with ``--weight-transfer-config '{"backend": "nccl"}'``.
        concurrency: maximum concurrent requests per server.
        retries: maximum number of retries of a request.
        request_timeout: maximum seconds of one attempt.
        api_key: as in `ServerEngine`.
        tolerance: maximum mean difference of log-probs to the trainer's after a push, in nats.

    Raises:
        ValueError: no URL, a duplicate one, an unknown transfer, dtype or tolerance, or ``nccl`` without a GPU or vLLM;
            on entering, if the folder is not writable.
    """

    def __init__(
        self,
        urls: list[str],
        folder: str | None = None,
        dtype: Literal["float32", "bfloat16"] | None = None,
        transfer: Literal["files", "nccl"] = "files",
        concurrency: int = 64,
        retries: int = 1,
        request_timeout: float = 600.0,
        api_key: str | None = None,
        tolerance: float = 0.05,
    ):
        self.urls = [url.rstrip("/") for url in ([urls] if isinstance(urls, str) else urls)]
        if not self.urls or len(set(self.urls)) < len(self.urls):
            raise ValueError(f"urls is invalid: {urls}; give each server once")
        if transfer not in ("files", "nccl"):
            raise ValueError(f"transfer is invalid: {transfer!r}; choose files or nccl")
        if transfer == "nccl":
            NCCLTransfer.check(folder)
        if dtype not in (None, "float32", "bfloat16"):
            raise ValueError(f"dtype is invalid: {dtype!r}; choose float32 or bfloat16, or leave it out")
        self.folder, self.dtype, self.transfer = folder, dtype, transfer
        self.tolerance = valid_tolerance(tolerance)
        self.kept_weights = 4  # on disk: including those of validation and averaged weights
        self.options = {
            "concurrency": concurrency,
            "retries": retries,
            "request_timeout": request_timeout,
            "api_key": api_key,
        }
        self._all = [ServerEngine(url, **self.options) for url in self.urls]  # type: ignore[arg-type]  # options of many types, by name
        self.weight_version = -1
        self._model: LanguageModel | None = None
        self._transfer: WeightTransfer | None = None
        self._servers: list[PushedServer] = []
        self._staged: dict[int, tuple[str, str | None]] = {}
        self._source = ""
        self._name = ""  # name of the weights, as sent to servers
        self._probe: Probe | None = None

    def attach(self, model: LanguageModel, tokenizer: Tokenizer | None = None) -> None:
        """Generate with this model's weights; collective over all ranks, before the engine is entered."""
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
        self._servers = [PushedServer(engine, self.tolerance) for engine in own]
        shape = dataclasses.replace(self._model.shape, rope_theta=self._model.rope_theta)
        routes = NCCLTransfer.ROUTES if self.transfer == "nccl" else WeightFiles.ROUTES
        try:
            problems = self._each(
                self._servers, lambda server: server.open(shape.vocab_size, shape.tie_word_embeddings, routes)
            )
            if not any(server.lives for server in self._servers):
                raise ConnectionError(f"no server answers; see their messages: {problems}")
            if self._transfer is None:
                self._transfer = self._new_transfer(self._model, shape)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _new_transfer(self, model: LanguageModel, shape: LanguageModelConfig) -> WeightTransfer:
        if self.transfer == "nccl":
            return NCCLTransfer(self.kept_weights)
        dtype = next(model.parameters()).dtype if self.dtype is None else getattr(torch, self.dtype)
        return WeightFiles(shape, self.folder, self.kept_weights, dtype)

    def __exit__(self, *_: object) -> None:
        """Disconnect from the servers, which keep running with their weights."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()

    def close(self) -> None:
        """Disconnect from the servers, and delete kept weights."""
        self.__exit__()
        transfer, self._transfer = self._transfer, None
        if transfer is not None:
            transfer.close()

    def _each(self, servers: Sequence[PushedServer], work: Callable[[PushedServer], Any]) -> str:
        """Do something on several servers at once; those that fail are not used until they recover.

        Returns:
            The reasons of the failures, with their servers.
        """

        def tried(server: PushedServer) -> None:
            try:
                work(server)
            except (httpx.HTTPError, OSError, Unwell) as error:
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
        """Keep these weights for a later `sync`; collective over all ranks."""
        self._staged = {**dict(list(self._staged.items())[-self.kept_weights :]), version: self._written(weights)}

    def _written(self, weights: Iterable[tuple[str, Tensor]]) -> tuple[str, str | None]:
        assert self._transfer is not None
        return self._transfer.write(in_dtype(with_untied_head(weights), self.dtype))

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """See `Engine.sync`; the stream of a staged version is not read.

        Raises:
            RuntimeError: the weights cannot be written, or no server accepts them.
        """
        source, problem = self._staged[version] if version in self._staged else self._written(weights)
        if problem is not None:
            raise RuntimeError(problem)
        assert self._transfer is not None
        self._transfer.wait_for(source)
        self._source, self.weight_version, self._probe = source, version, None
        self._name = f"{uuid.uuid4().hex[:12]}-{version}"  # unique, since averaged weights have the same step
        problems = self._push(self._servers)
        if not any(server.lives for server in self._servers):
            raise RuntimeError(f"no server takes the weights of step {version}; see their messages: {problems}")

    def _push(self, servers: Sequence[PushedServer]) -> str:
        transfer, source = self._transfer, self._source
        name, version, probe = self._name, self.weight_version, self._probe
        assert transfer is not None
        return self._each(
            servers, lambda server: server.push(partial(transfer.give, source, name), name, version, probe)
        )

    def check(self, probe: Probe) -> None:
        """Compare every server with the trainer, including those that come back later.

        Raises:
            RuntimeError: the log-probs of one differ from the trainer's.
        """
        self._probe = probe
        wrong: list[str] = []

        def compare(server: PushedServer) -> None:
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
        """See `Engine.generate`. Prompts of a server that dies are sent to another; without any server left they are errors.

        Raises:
            ValueError: servers do not support the sampling settings.
        """
        end = None if deadline is None else time.monotonic() + deadline
        results: list[list[Completion]] = [
            failed(index, sampling, self.weight_version, "not asked", prompt=prompt)
            for index, prompt in enumerate(prompts)
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

    def _ready(self) -> list[PushedServer]:
        """Servers with the current weights, after pushing to those without."""
        self._push([server for server in self._servers if not server.has(self._name)])
        return [server for server in self._servers if server.lives]

    def _round(
        self,
        servers: Sequence[PushedServer],
        waiting: Sequence[int],
        prompts: Sequence[Prompt],
        sampling: Sampling,
        left: float | None,
        results: list[list[Completion]],
    ) -> list[int]:
        """Send prompts once; returns those to be sent again."""
        shares = [waiting[place :: len(servers)] for place in range(len(servers))]
        again: list[int] = []

        def ask(server: PushedServer, share: Sequence[int]) -> None:
            found = server.engine.generate([prompts[index] for index in share], sampling, left)
            well = server.has(self._name)  # one that was restarted meanwhile has answered with other weights
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


def _lost(completion: Completion, index: int, url: str) -> Completion:
    error = completion.error or f"{url} had other weights when it had answered"
    return dataclasses.replace(completion, ids=(), log_probs=(), finish_reason="error", prompt_index=index, error=error)
