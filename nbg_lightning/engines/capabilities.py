"""Optional capabilities of engines: a small protocol for each, which a class implements by having its members.

The members of `Engine` alone make a complete engine: it takes token ids, has fixed weights, and reports neither its window nor
log-probabilities of given tokens. The library finds out about anything else through the types below, and in no other way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nbg_lightning.core.model import LanguageModel
    from nbg_lightning.data.tokenizer import Tokenizer
    from nbg_lightning.engines.protocol import Completion, Engine, Listener, Prompt, Sampling, TokenScore

Interface = Literal["ids", "text", "chat"]
"""What an engine takes and returns: token ids, plain text, or text as one turn of a chat in the engine's own format."""


@dataclass(frozen=True)
class Probe:
    """Log-probabilities of one text by the trainer, to compare an engine with.

    Attributes:
        ids: token ids.
        log_probs: of every token after the first, at temperature 1 (see `NativeEngine.score`).
    """

    ids: tuple[int, ...]
    log_probs: tuple[float, ...]


# -- weights -----------------------------------------------------------------------------------------------------------


@runtime_checkable
class AttachableEngine(Protocol):
    """Generates with the weights of a model in training (`NativeEngine`, `VLLMEngine`)."""

    def attach(self, model: LanguageModel, tokenizer: Tokenizer | None = None) -> None:
        """Generate with this model from now on; called before the engine is entered. The tokenizer is for stop strings."""
        ...


@runtime_checkable
class ComparableEngine(Protocol):
    """Keeps a copy of the weights, which can be compared with the trainer after `Engine.sync` (`VLLMEngine`)."""

    def check(self, probe: Probe) -> Any:
        """Raise RuntimeError if this engine's log-probs of the probe differ from the trainer's."""
        ...


@runtime_checkable
class RoundingEngine(Protocol):
    """Keeps a copy of the weights in a dtype of its own, to which they are rounded before ranks exchange them
    (`VLLMEngine`).

    Attributes:
        weight_dtype: the dtype; None for that of the trainer.
    """

    weight_dtype: torch.dtype | None


@runtime_checkable
class StagingEngine(Protocol):
    """Can receive the next weights while it generates with the current ones (`SeparateEngine`, `ServerPool`)."""

    def stage(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Keep a copy of these weights; a later `Engine.sync` to this version uses it without reading the stream."""
        ...


@runtime_checkable
class RestingEngine(Protocol):
    """Can release its memory to the trainer during the update of the weights (`VLLMEngine`)."""

    def rest(self) -> bool:
        """Release the weights until the next `Engine.sync`; returns whether it did."""
        ...


@runtime_checkable
class FolderEngine(Protocol):
    """Loads its weights itself: from a Hugging Face folder, a hub name, or a checkpoint (`LocalEngine`)."""

    weights: str


@runtime_checkable
class SkeletonEngine(Protocol):
    """Starts from the shape and tokenizer in a folder, and receives its weights later (`VLLMEngine`); None without a folder."""

    folder: Path | None


@runtime_checkable
class ServedEngine(Protocol):
    """Queries a server with weights of its own (`ServerEngine`)."""

    url: str
    model: str | None


@runtime_checkable
class IdentifiedEngine(Protocol):
    """Identifies what determines its answers, as plain JSON, such as a version of its weights. For your own engines."""

    identity: Mapping[str, Any]


# -- tokens ------------------------------------------------------------------------------------------------------------


@runtime_checkable
class InterfaceEngine(Protocol):
    """Declares what it takes; engines without this take token ids."""

    interface: Interface


@runtime_checkable
class Windowed(Protocol):
    """An engine or scorer that declares the maximum number of tokens in a sequence."""

    window: int


@runtime_checkable
class VocabularyEngine(Protocol):
    """Declares the vocabulary size of its model."""

    vocab_size: int


@runtime_checkable
class TokenScoringEngine(Protocol):
    """Scores given tokens (`VLLMEngine`, and `ServerEngine` with ``interface: ids``)."""

    def token_scores(self, sequences: Sequence[Sequence[int]]) -> Sequence[Sequence[TokenScore] | str]:
        """Scores of every token after the first, for each sequence, or a one-line reason why there are none."""
        ...


# -- while it generates ------------------------------------------------------------------------------------------------


@runtime_checkable
class StreamingEngine(Protocol):
    """Reports output while generating (`NativeEngine`, `LocalEngine`, `ServerEngine`)."""

    def stream(
        self, prompts: Sequence[Prompt], sampling: Sampling, listener: Listener, deadline: float | None = None
    ) -> list[list[Completion]]:
        """Do what `Engine.generate` does, and call the listener with each token or piece of text."""
        ...


# -- questions to any engine -------------------------------------------------------------------------------------------


def takes_weights(engine: Engine | None) -> bool:
    """Whether an engine generates with a module's weights rather than its own; None means the native one, which does."""
    return engine is None or isinstance(engine, AttachableEngine)


def interface_of(engine: Engine | None) -> Interface:
    """What an engine takes: token ids, unless it declares otherwise."""
    return engine.interface if isinstance(engine, InterfaceEngine) else "ids"


def window_of(thing: object) -> int | None:
    """Maximum tokens in a sequence of an engine or scorer; None if it does not declare it."""
    return thing.window if isinstance(thing, Windowed) else None


def vocab_size_of(engine: object) -> int | None:
    """Vocabulary size of an engine's model; None if it does not declare it."""
    return engine.vocab_size if isinstance(engine, VocabularyEngine) else None


def weights_of(engine: Engine) -> str | None:
    """Local or hub location of an engine's weights, with a tokenizer beside them; None if there is none."""
    weights = engine.weights if isinstance(engine, FolderEngine) else None
    folder = engine.folder if isinstance(engine, SkeletonEngine) else None
    place = weights or folder
    return None if place is None else str(place)
