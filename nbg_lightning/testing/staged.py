"""An engine in this process that receives copies of the weights, and comparisons of runs with it."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from nbg_lightning.core.create import create_model
from nbg_lightning.engines.native import NativeEngine
from nbg_lightning.engines.protocol import Completion, Prompt, Sampling
from nbg_lightning.testing.grpo import SmallGRPORun


class StagedNative(NativeEngine):
    """The native engine with copies of the weights.

    Args:
        dies_in: calls in which it raises, counted from 1.
        wait: an event that each call waits for.
    """

    def __init__(self, dies_in: Collection[int] = (), wait: threading.Event | None = None):
        super().__init__()
        self.dies_in, self.wait = set(dies_in), wait
        self.staged: dict[int, dict[str, Tensor]] = {}
        self.calls = self.entered = self.left = 0

    def attach(self, model: Any, tokenizer: Any = None) -> None:
        """Generate with a copy of the model."""
        super().attach(create_model(model.shape, draw=False))

    def __enter__(self) -> StagedNative:
        self.entered += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.left += 1

    def stage(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """See `StagingEngine`."""
        kept = dict(list(self.staged.items())[-3:])
        self.staged = {**kept, version: {name: weight.clone() for name, weight in weights}}

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """See `Engine`."""
        from nbg_lightning.core.names import hf_name
        from nbg_lightning.core.weight_sources import named_parameters

        given = self.staged[version] if version in self.staged else dict(weights)
        with torch.no_grad():
            for name, parameter in named_parameters(self.model).items():
                parameter.copy_(given[hf_name(name)])
        super().sync(iter(()), version)

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, deadline: float | None = None
    ) -> list[list[Completion]]:
        """See `Engine`.

        Raises:
            OSError: in the calls of ``dies_in``.
        """
        self.calls += 1
        if self.calls in self.dies_in:
            raise OSError("the engine's process is gone")
        if self.wait is not None:
            assert self.wait.wait(60)
        return super().generate(prompts, sampling, deadline)


def same_weights(first: SmallGRPORun, second: SmallGRPORun) -> None:
    """Assert that two runs have bit-identical weights."""
    assert first.weights.keys() == second.weights.keys()
    for name, weight in first.weights.items():
        assert torch.equal(weight, second.weights[name]), name


def versions(run: SmallGRPORun) -> list[set[int]]:
    """The weight versions that generated each step's answers."""
    return [{answer.completion.weight_version for r in step for answer in r.answers} for step in run.rollouts]
