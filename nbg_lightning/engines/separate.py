"""An engine in a separate process with its own copy of the weights, which generates while this process trains."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nbg_lightning.core.names import hf_name
from nbg_lightning.core.parameter_shapes import parameter_shapes
from nbg_lightning.engines.capabilities import AttachableEngine, Probe
from nbg_lightning.engines.protocol import Completion, Engine, Prompt, Sampling
from nbg_lightning.engines.separate_worker import EngineOrder, serve, valid_tolerance
from nbg_lightning.engines.shared_weights import SharedWeights
from nbg_lightning.error_line import first_line
from nbg_lightning.worker_process import hidden_main_module, worker_context

if TYPE_CHECKING:
    from nbg_lightning.core.model import LanguageModel
    from nbg_lightning.data.tokenizer import Tokenizer

START_SECONDS = 600.0  # for imports, memory allocation and compilation by engines such as vLLM
SYNC_SECONDS = 600.0
_GRACE_SECONDS = 60.0  # beyond a call's deadline, for a step of the engine and the response
_LOOK_SECONDS = 0.2  # interval of checks that the process is alive
_END_SECONDS = 5.0


class SeparateEngine:
    """Runs an engine in a separate process. Results are those of the engine with these weights.

    Weights are passed through shared memory. `stage` writes a version there while the engine may be generating, and `sync`
    makes the engine use it for its next call. The process ends with this one, which handles all signals.

    Args:
        engine: the engine, pickled, so its class must be importable; by default `NativeEngine`.
        slots: number of versions that can be staged at a time.
        dtype: dtype of staged weights, and compute dtype of the native engine.
        num_threads: threads of the process on a CPU; by default half of this process's, but at least one.
        device: device of the engine; by default that of the attached model.
        tolerance: maximum mean difference of log-probs in `check`, in nats.

    Raises:
        ValueError: the engine has weights of its own, there is no slot, or the tolerance is invalid.
    """

    def __init__(
        self,
        engine: Engine | None = None,
        slots: int = 1,
        dtype: str = "float32",
        num_threads: int | None = None,
        device: str | None = None,
        tolerance: float = 0.05,
    ):
        if engine is None:
            from nbg_lightning.engines.native import NativeEngine

            engine = NativeEngine()
        if not isinstance(engine, AttachableEngine):
            raise ValueError(
                f"engine is invalid: {type(engine).__name__} has weights of its own; use NativeEngine or VLLMEngine"
            )
        for name, value in (("slots", slots), ("num_threads", num_threads or 1)):
            if value < 1:
                raise ValueError(f"{name} is invalid: {value}; give at least 1")
        self.engine, self.slots, self.dtype, self.device = engine, slots, dtype, device
        self.tolerance = valid_tolerance(tolerance)
        self.num_threads = num_threads or 0
        self.weight_version = 0
        self._order: EngineOrder | None = None
        self._weights: SharedWeights | None = None
        self._process: Any = None
        self._link: Any = None
        self._staged: dict[int, int] = {}  # version by slot
        self._doing = "starting"

    def attach(self, model: LanguageModel, tokenizer: Tokenizer | None = None) -> None:
        """Generate with copies of this model's weights from now on; called before the engine is entered."""
        shape = dataclasses.replace(model.shape, rope_theta=model.rope_theta)  # a stage may have raised it
        device = self.device or str(next(model.parameters()).device)
        self.num_threads = self.num_threads or max(1, torch.get_num_threads() // 2)
        self._order = EngineOrder(self.engine, shape, self.dtype, device, self.num_threads, self.tolerance)

    # -- life ----------------------------------------------------------------------------------------------------------

    def __enter__(self) -> SeparateEngine:
        if self._process is not None:
            raise RuntimeError("this SeparateEngine is open; leave its with block before entering another")
        if self._order is None:
            raise RuntimeError("this SeparateEngine has no model; call attach")
        if self._weights is None:
            sizes = {hf_name(name): size for name, size in parameter_shapes(self._order.shape).items()}
            self._weights = SharedWeights(sizes, self.dtype, self.slots + 1)  # one more, for unstaged weights
        context = worker_context("spawn")
        self._link, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, self._order, self._weights.layout), daemon=True)
        try:
            with hidden_main_module():
                process.start()
        except Exception as error:
            self._link.close()
            raise ValueError(
                f"engine is invalid: {type(self.engine).__name__} cannot be sent to a process of its own ({first_line(error)}); "
                "define it in a module"
            ) from None
        finally:
            theirs.close()
        self._process, self._doing = process, "starting"
        return self

    def __exit__(self, *_: object) -> None:
        """End the process. Staged weights are kept for a process that replaces it."""
        process, self._process = self._process, None
        if process is None:
            return
        self._link.close()
        process.terminate()
        process.join(_END_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()

    def close(self) -> None:
        """End the process, and free the memory of the weights."""
        self.__exit__()
        weights, self._weights = self._weights, None
        self._staged = {}
        if weights is not None:
            weights.close()

    # -- weights -------------------------------------------------------------------------------------------------------

    def stage(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Keep a copy of these weights for a later `sync`; the last ``slots`` staged versions are kept."""
        assert self._weights is not None
        slot = version % self.slots
        self._staged.pop(slot, None)
        self._weights.write(slot, weights)
        self._staged[slot] = version

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """See `Engine.sync`; the stream of a staged version is not read.

        Raises:
            RuntimeError: the process died, or does not respond.
        """
        assert self._weights is not None
        slot = version % self.slots
        if self._staged.get(slot) != version:
            slot = self.slots
            self._weights.write(slot, weights)
        self._ask(f"taking the weights of step {version}", SYNC_SECONDS, "sync", slot, version)
        self.weight_version = version

    def check(self, probe: Probe) -> None:
        """Compare with the trainer.

        Raises:
            RuntimeError: the log-probs of the probe differ from the trainer's; or as `sync`.
        """
        self._ask("being compared with the trainer", SYNC_SECONDS, "check", probe)

    # -- generation ----------------------------------------------------------------------------------------------------

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, deadline: float | None = None
    ) -> list[list[Completion]]:
        """See `Engine.generate`.

        Raises:
            RuntimeError: the process died, or does not respond in time.
        """
        doing = f"drawing {sampling.n} answers to each of {len(prompts)} questions with the weights of step {self.weight_version}"
        seconds = None if deadline is None else deadline + _GRACE_SECONDS
        found: list[list[Completion]] = self._ask(doing, seconds, "generate", list(prompts), sampling, deadline)
        return found

    def _ask(self, doing: str, seconds: float | None, *message: Any) -> Any:
        process, link = self._process, self._link
        if process is None:
            raise RuntimeError("this SeparateEngine is not open; use it in a with block")
        if self._doing == "starting" and seconds is not None:
            seconds += START_SECONDS
        begin, self._doing = time.monotonic(), doing
        try:
            link.send(message)
            while not link.poll(_LOOK_SECONDS):
                if not process.is_alive():
                    raise EOFError
                if seconds is not None and time.monotonic() - begin > seconds:
                    raise RuntimeError(
                        f"the engine's process does not answer: it has been {doing} for {seconds:.0f} s; see its "
                        "messages, and resume"
                    )
            fine, value = link.recv()
        except (OSError, EOFError, ValueError):  # ValueError: from a closed process object
            raise RuntimeError(
                f"the engine's process ended while it was {doing}; see its messages, often out of memory, and resume"
            ) from None
        if not fine:
            raise RuntimeError(value)
        return value
