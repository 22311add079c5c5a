"""What an engine may do beside generating: a small protocol for each ability, which a class has by having its members.

The members of `Engine` alone make a whole engine: it takes token ids, keeps the weights it has, and says neither how long a
sequence may be nor how likely given tokens are. What is more, the library asks by the types below and in no other way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from nbg_lightning.core.model import LanguageModel
    from nbg_lightning.data.tokenizer import Tokenizer
    from nbg_lightning.engines.protocol import Completion, Engine, Listener, Prompt, Sampling, TokenScore

Interface = Literal["ids", "text", "chat"]
"""What an engine takes and gives: token ids, plain text, or text as one turn of a chat whose format is the engine's own."""


@dataclass(frozen=True)
class Probe:
    """What the trainer says about one text, to compare an engine with.

    Attributes:
        ids: tokens.
        log_probs: of every token after the first, at temperature 1 (`NativeEngine.score` gives them).
    """

    ids: tuple[int, ...]
    log_probs: tuple[float, ...]


# -- weights -----------------------------------------------------------------------------------------------------------


@runtime_checkable
class AttachableEngine(Protocol):
    """Generates with the weights of a model that is trained (`NativeEngine`, `VLLMEngine`)."""

    def attach(self, model: LanguageModel, tokenizer: Tokenizer | None = None) -> None:
        """Belong to this model from now on; called before the engine is entered. The tokenizer is for stop strings."""
        ...


@runtime_checkable
class ComparableEngine(Protocol):
    """Keeps a copy of the weights, and can be compared with the trainer after `Engine.sync` (`VLLMEngine`)."""

    def check(self, probe: Probe) -> Any:
        """Raise RuntimeError if this engine's log-probs of the probe are not the trainer's."""
        ...


@runtime_checkable
class StagingEngine(Protocol):
    """Can be given the next weights while it draws with others (`SeparateEngine`, `ServerPool`)."""

    def stage(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Keep a copy of these weights, which a later `Engine.sync` to this version draws with and need not read."""
        ...


@runtime_checkable
class RestingEngine(Protocol):
    """Can give its memory to the trainer while that updates the weights (`VLLMEngine`)."""

    def rest(self) -> bool:
        """Do without weights until the next `Engine.sync`; whether it does."""
        ...


@runtime_checkable
class FolderEngine(Protocol):
    """Reads its weights itself: a Hugging Face folder, a name on the hub, or a checkpoint (`LocalEngine`)."""

    weights: str


@runtime_checkable
class SkeletonEngine(Protocol):
    """Starts from the shape and the tokenizer in a folder, whose weights it is given (`VLLMEngine`); None without one."""

    folder: Path | None


@runtime_checkable
class ServedEngine(Protocol):
    """Asks a server, which has weights of its own (`ServerEngine`)."""

    url: str
    model: str | None


@runtime_checkable
class IdentifiedEngine(Protocol):
    """Says what decides its answers, as plain JSON: such as a version of its weights. For engines of your own."""

    identity: Mapping[str, Any]


# -- tokens ------------------------------------------------------------------------------------------------------------


@runtime_checkable
class InterfaceEngine(Protocol):
    """Says what it takes; an engine that does not takes token ids."""

    interface: Interface


@runtime_checkable
class Windowed(Protocol):
    """An engine or a scorer that says how many tokens a sequence may have."""

    window: int


@runtime_checkable
class VocabularyEngine(Protocol):
    """Says how many ids its model knows."""

    vocab_size: int


@runtime_checkable
class TokenScoringEngine(Protocol):
    """Says how likely given tokens are (`VLLMEngine`, and `ServerEngine` with ``interface: ids``)."""

    def token_scores(self, sequences: Sequence[Sequence[int]]) -> Sequence[Sequence[TokenScore] | str]:
        """For each sequence what it says of every token after the first, or in one line why it says nothing."""
        ...


# -- while it generates ------------------------------------------------------------------------------------------------


@runtime_checkable
class StreamingEngine(Protocol):
    """Tells what it writes while it writes (`NativeEngine`, `LocalEngine`, `ServerEngine`)."""

    def stream(
        self, prompts: Sequence[Prompt], sampling: Sampling, listener: Listener, deadline: float | None = None
    ) -> list[list[Completion]]:
        """Do what `Engine.generate` does, and call the listener with each token or text."""
        ...


# -- questions to any engine -------------------------------------------------------------------------------------------


def takes_weights(engine: Engine | None) -> bool:
    """Whether an engine generates with a module's weights, and not with its own; None is the native one, which does."""
    return engine is None or isinstance(engine, AttachableEngine)


def interface_of(engine: Engine | None) -> Interface:
    """What an engine takes: token ids, unless it says something else."""
    return engine.interface if isinstance(engine, InterfaceEngine) else "ids"


def window_of(thing: object) -> int | None:
    """Tokens that a sequence of an engine or a scorer may have; None if it does not say."""
    return thing.window if isinstance(thing, Windowed) else None


def vocab_size_of(engine: object) -> int | None:
    """Ids that an engine's model knows; None if it does not say."""
    return engine.vocab_size if isinstance(engine, VocabularyEngine) else None


def weights_of(engine: Engine) -> str | None:
    """Where an engine's weights, and a tokenizer beside them, are on this machine or the hub; None if nowhere."""
    weights = engine.weights if isinstance(engine, FolderEngine) else None
    folder = engine.folder if isinstance(engine, SkeletonEngine) else None
    place = weights or folder
    return None if place is None else str(place)
