"""The worker process of `SeparateEngine`: an engine controlled through a pipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from nbg_lightning.engines.capabilities import AttachableEngine, ComparableEngine, Probe
from nbg_lightning.error_line import first_line

if TYPE_CHECKING:
    from torch import Tensor

    from nbg_lightning.core.config import LanguageModelConfig
    from nbg_lightning.core.model import LanguageModel
    from nbg_lightning.engines.protocol import Engine
    from nbg_lightning.engines.shared_weights import SharedLayout


@dataclass(frozen=True)
class EngineOrder:
    """What the process runs.

    Attributes:
        engine: an `AttachableEngine`, not entered.
        shape: the model's shape.
        dtype: dtype of the weights, for an engine that runs a module's model.
        device: device of that model.
        num_threads: number of torch's threads.
        tolerance: maximum mean difference of log-probs, if the engine has no limit of its own.
    """

    engine: Engine
    shape: LanguageModelConfig
    dtype: str
    device: str
    num_threads: int
    tolerance: float


def serve(link: Connection, order: EngineOrder, layout: SharedLayout) -> None:
    """Run the engine until the other end is closed. Each message gets one reply: (True, value) or (False, reason)."""
    import torch

    torch.set_num_threads(order.num_threads)
    if order.device.startswith("cuda"):
        torch.cuda.set_device(order.device)
    host: _Host | None = None
    while True:
        try:
            what, *arguments = link.recv()
        except (EOFError, OSError):
            break
        try:
            host = host or _Host(order, layout)
            reply = (True, host.methods[what](*arguments))
        except Exception as error:
            reply = (False, first_line(error))
        try:
            link.send(reply)
        except OSError:
            break
    if host is not None:
        host.close()


class _Host:
    """The engine, with a model of its own if it runs a module's model."""

    def __init__(self, order: EngineOrder, layout: SharedLayout):
        from nbg_lightning.engines.native import NativeEngine

        self.engine, self.tolerance, self.slots = order.engine, order.tolerance, layout.views()
        assert isinstance(self.engine, AttachableEngine)
        self.parameters: dict[str, Tensor] = {}
        native = isinstance(self.engine, NativeEngine)
        model = _model(order, native)
        if native:
            from nbg_lightning.core.names import hf_name
            from nbg_lightning.core.weight_sources import named_parameters

            self.parameters = {hf_name(name): weight.data for name, weight in named_parameters(model).items()}
        self.engine.attach(model)
        self.engine.__enter__()
        self.methods: dict[str, Callable[..., Any]] = {
            "sync": self.sync,
            "check": self.check,
            "generate": self.engine.generate,
        }

    def sync(self, slot: int, version: int) -> None:
        """Use the weights of a slot."""
        weights = self.slots[slot]
        for name, parameter in self.parameters.items():
            parameter.copy_(weights[name])
        stream: Iterable[tuple[str, Tensor]] = weights.items()
        self.engine.sync(iter(() if self.parameters else stream), version)

    def check(self, probe: Probe) -> None:
        """Check that the log-probs match the trainer's."""
        from nbg_lightning.engines.native import NativeEngine

        if isinstance(self.engine, ComparableEngine):
            self.engine.check(probe)
        elif isinstance(self.engine, NativeEngine):
            check_probe(self.engine.score([probe.ids])[0], probe, self.tolerance, "the engine")

    def close(self) -> None:
        """End the engine."""
        self.engine.__exit__(None, None, None)


def valid_tolerance(nats: float, name: str = "tolerance") -> float:
    """Validate a tolerance for `check_probe`.

    Raises:
        ValueError: log-probs could never meet it, or never exceed it.
    """
    if not 0 < nats < math.inf:
        raise ValueError(f"{name} is invalid: {nats}; give nats above 0, such as 0.05")
    return nats


def check_probe(log_probs: list[float], probe: Probe, tolerance: float, name: str) -> None:
    """Compare an engine's log-probs of a probe with the trainer's.

    Raises:
        RuntimeError: they differ by more than the tolerance on average, or are not finite.
    """
    differences = [abs(ours - theirs) for ours, theirs in zip(log_probs, probe.log_probs, strict=True)]
    mean = math.fsum(differences) / max(1, len(differences))
    if not mean <= tolerance:  # also false for NaN
        raise RuntimeError(
            f"the log-probs of {name} differ from the trainer's by {mean:.3g} on average (allowed {tolerance:g}): its weights "
            "are not those that were pushed; compute in the trainer's dtype, or report this"
        )


def _model(order: EngineOrder, native: bool) -> LanguageModel:
    """The model that the engine runs; a model without memory for an engine that only reads its shape."""
    import torch

    from nbg_lightning.core.create import create_model

    model = create_model(order.shape, device=order.device if native else "meta", draw=False)
    model.eval().requires_grad_(False)
    for parameter in model.parameters():  # not `model.to`: rotary tables stay float32
        parameter.data = parameter.data.to(getattr(torch, order.dtype))
    return model
