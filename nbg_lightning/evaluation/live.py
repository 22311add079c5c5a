"""Running a suite on a module that is being trained or tested, without side effects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from lightning.pytorch.utilities.seed import isolate_rng

from nbg_lightning.core.fingerprint import weights_fingerprint
from nbg_lightning.core.sharding import reshard
from nbg_lightning.data.tokenizer import Tokenizer
from nbg_lightning.engines.capabilities import (
    AttachableEngine,
    ComparableEngine,
    FolderEngine,
    InterfaceEngine,
    Probe,
    ServedEngine,
)
from nbg_lightning.engines.local import LocalEngine
from nbg_lightning.engines.server import ServerEngine
from nbg_lightning.evaluation.log_likelihood import LogLikelihoodScorer
from nbg_lightning.evaluation.results import SuiteResult
from nbg_lightning.evaluation.suite import Suite

if TYPE_CHECKING:
    from nbg_lightning.core.model import LanguageModel
    from nbg_lightning.engines.chat import ChatFormat
    from nbg_lightning.engines.native import NativeEngine
    from nbg_lightning.engines.protocol import Engine

# What an engine's log-probs are compared on, after weights were pushed into it.
_PROBE = "The answer to a question is written here, word after word: 1, 2, 3, and so on until the end of the text."


class EvaluatedModule(Protocol):
    """What a suite needs from a module: its model, its averaged weights, and its position in training."""

    model: LanguageModel
    ema_decay: float | None
    ema: Any
    training: bool

    @property
    def global_step(self) -> int: ...

    def eval(self) -> Any: ...

    def train(self, mode: bool = True) -> Any: ...


@contextmanager
def evaluation_mode(module: EvaluatedModule, averaged: bool) -> Iterator[None]:
    """Evaluate inside the block; random states, training mode, weights and shards are restored afterwards.

    Args:
        module: module whose model is evaluated.
        averaged: swap in the averaged weights, if the module keeps them.
    """
    training = module.training
    module.eval()
    reshard(module.model)
    swapped = module.ema.swapped_in(module.model) if averaged and module.ema_decay is not None else nullcontext()
    try:
        with isolate_rng(), torch.no_grad(), swapped:
            yield
            reshard(module.model)  # before the weights are swapped back
    finally:
        module.train(training)


def run_on_module(
    suite: Suite,
    module: EvaluatedModule,
    tokenizer: Tokenizer,
    folder: str | Path | None,
    label: str,
    averaged: bool = True,
    engine: Engine | None = None,
    **engine_options: Any,
) -> SuiteResult:
    """Run a suite on a module's live weights. Collective.

    Args:
        suite: the suite.
        module: module with a model.
        tokenizer: the model's tokenizer.
        folder: see `Suite.run`.
        label: see `Suite.run`.
        averaged: see `evaluation_mode`.
        engine: generates with the module's weights; `NativeEngine` by default. Given answers are always rated by the
            module's model itself.
        **engine_options: options of `NativeEngine`.

    Raises:
        RuntimeError: the engine's log-probs are not those of the module.
    """
    from nbg_lightning.engines.native import NativeEngine

    with evaluation_mode(module, averaged):
        native = engine if isinstance(engine, NativeEngine) else NativeEngine(**engine_options)
        native.attach(module.model, tokenizer)
        identity = weights_fingerprint(module.model)
        if engine is None or engine is native:
            return suite.run(native, tokenizer, None, folder, label, identity)
        scorer = LogLikelihoodScorer(module.model)
        with engine_with_weights(engine, native, tokenizer, module.global_step):
            return suite.run(engine, tokenizer, scorer, folder, label, identity)


@contextmanager
def engine_with_weights(engine: Engine, native: NativeEngine, tokenizer: Tokenizer, version: int) -> Iterator[None]:
    """Open an engine with its own memory (`VLLMEngine`) with the weights of a native engine's model. Collective.

    Raises:
        RuntimeError: after the transfer, its log-probs of a text are not those of the model.
    """
    from nbg_lightning.engines.weights import weight_stream

    if isinstance(engine, AttachableEngine):
        engine.attach(native.model, tokenizer)
    ids = tuple(tokenizer.encode(_PROBE))
    probe = Probe(ids, tuple(native.score([ids])[0]))
    with engine:
        stream = weight_stream(native.model)
        try:
            engine.sync(stream, version)
        finally:
            for _ in stream:  # if it failed here: the other ranks are gathering these weights too
                pass
        if isinstance(engine, ComparableEngine):
            engine.check(probe)
        yield


# A conversation with every turn in which chat formats differ.
PROBE: list[dict[str, Any]] = [
    {"role": "system", "content": "Answer with a number."},
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "And 3 + 3?"},
]


def run_on_server(
    suite: Suite,
    engine: Engine,
    tokenizer: Tokenizer | None,
    folder: str | Path | None,
    label: str,
    expected: ChatFormat | None = None,
) -> SuiteResult:
    """Run a suite on an engine that has its own weights. Collective; ranks share the items.

    Args:
        suite: the suite.
        engine: `ServerEngine` or `LocalEngine`.
        tokenizer: the model's tokenizer; None if the engine takes and returns text.
        folder: see `Suite.run`. Existing results of the same address and model are reused.
        label: see `Suite.run`.
        expected: the model's chat format, which a server with ``interface: chat`` should have; None if unknown.

    Raises:
        ValueError: the server has another chat format.
    """
    with engine:
        if expected is not None and isinstance(engine, ServerEngine):
            engine.check_chat_format(PROBE, expected.prompt(PROBE).ids, str(expected.template))
        return suite.run(engine, tokenizer, None, folder, label, _identity(engine))


def _identity(engine: Engine) -> str:
    """Identity of an engine's weights. For a server, which does not reveal them, its address and the model's name there."""
    parts: list[object] = []
    if isinstance(engine, ServedEngine):
        parts += [engine.url, engine.model]
    if isinstance(engine, InterfaceEngine):
        parts.append(engine.interface)
    if isinstance(engine, FolderEngine):
        parts.append(engine.weights)
    if isinstance(engine, LocalEngine):
        parts.append(engine.ema)
    return " ".join(map(str, parts))


def print_table(result: SuiteResult) -> None:
    """Print the table, and the path of the results."""
    from rich.console import Console

    console = Console()
    console.print(result.table())
    if result.folder is not None:
        console.print(f"items and model outputs: {result.folder}", soft_wrap=True)
