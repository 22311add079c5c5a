"""Protocols between modules, callbacks and datamodules; a class implements those that apply to it.

They are checked by ``isinstance``, for classes of the library and of users alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import lightning.pytorch as pl

if TYPE_CHECKING:
    from nbg_lightning.chat.template import ChatTemplate
    from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig
    from nbg_lightning.core.model import LanguageModel
    from nbg_lightning.data.tokenizer import Tokenizer
    from nbg_lightning.engines.chat import ChatFormat
    from nbg_lightning.rewards.protocol import Reward
    from nbg_lightning.rl.pass_rate import PassRateLedger
    from nbg_lightning.rl.rollouts import Rollout
    from nbg_lightning.schedule.mixture import MixturePlan
    from nbg_lightning.teachers.cache import TeacherCache


# -- of datamodules ------------------------------------------------------------------------------------------------------


@runtime_checkable
class HasVocabulary(Protocol):
    """It has token ids of a tokenizer; ``vocab_size`` is None if the model need not support them."""

    @property
    def vocab_size(self) -> int | None: ...


@runtime_checkable
class HasTokenizer(Protocol):
    """It has the tokenizer that produced its ids."""

    @property
    def tokenizer(self) -> Tokenizer | None: ...


@runtime_checkable
class HasTokenizerFolder(Protocol):
    """Its tokenizer is in a folder, which checkpoints record."""

    @property
    def tokenizer_folder(self) -> str | Path | None: ...


@runtime_checkable
class HasChatTemplate(Protocol):
    """Its rows are rendered in a chat format, which checkpoints record."""

    @property
    def chat_template(self) -> ChatTemplate | None: ...


@runtime_checkable
class GivesExamplePrompts(Protocol):
    """It provides example prompts, to try out the model."""

    def example_prompts(self) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Prompts of the data as messages, in order; for plain text, its beginning as a user's message."""


@runtime_checkable
class HasTeacherCache(Protocol):
    """It may serve cached outputs of a teacher and a reference."""

    @property
    def teacher_cache(self) -> TeacherCache | None: ...


@runtime_checkable
class ServesQuestions(Protocol):
    """It serves questions with their prompts, for which answers are sampled.

    Attributes:
        format: the chat format of the prompts.
        longest_prompt: length of the longest prompt in tokens.
        ledger: pass rates by which the questions were selected, if they were.
    """

    format: ChatFormat
    ledger: PassRateLedger | None

    @property
    def longest_prompt(self) -> int: ...

    def check(self, reward: Reward) -> None:
        """Drop or reject the questions that a reward cannot score."""

    def check_weights(self, fingerprint: str) -> None:
        """Compare weights with those that the ledger was measured with."""


@runtime_checkable
class ServesAnyStep(Protocol):
    """It can serve the questions of any step in advance, and knows the number of steps."""

    curriculum: MixturePlan | None

    def step_batch(self, step: int) -> Any:
        """This rank's questions of a step."""


@runtime_checkable
class BringsCallbacks(Protocol):
    """It provides callbacks, for as long as it is the trainer's datamodule."""

    def callbacks(self) -> list[pl.Callback]: ...


@runtime_checkable
class CountsSteps(Protocol):
    """It tracks its position in the data by optimizer steps."""

    def advance(self, hash_total: int) -> None: ...


@runtime_checkable
class UndoesSteps(Protocol):
    """It tracks its position in the data by steps, and which of them have been undone.

    Attributes:
        undone: (first, last): after step ``last``, the weights were restored to those after step ``first``.
    """

    undone: list[tuple[int, int]]

    def undo(self, step: int, chain_then: str) -> None: ...


@runtime_checkable
class HasCurriculum(Protocol):
    """It knows the plan of its data, and hence the number of steps; None until the plan is set."""

    curriculum: MixturePlan | None


@runtime_checkable
class TakesCurriculum(Protocol):
    """It can follow a given plan."""

    def use_curriculum(self, curriculum: MixturePlan) -> None: ...


@runtime_checkable
class CountsSamples(Protocol):
    """It knows the number of training samples of each source."""

    def source_windows(self, source: str, length: int) -> int: ...


@runtime_checkable
class NamesUnit(Protocol):
    """Its plan counts units other than tokens, such as questions."""

    unit: ClassVar[str]


def datamodule_of(trainer: Any) -> Any:
    """The trainer's datamodule, or None. Lightning sets it but does not declare it, so a trainer is `Any` here."""
    return trainer.datamodule


def callbacks_of(trainer: Any) -> list[pl.Callback]:
    """The trainer's callbacks, which Lightning's types do not declare."""
    return trainer.callbacks


def is_fast_dev_run(trainer: Any) -> bool:
    """Whether the run is a rehearsal of a few steps, which Lightning's types do not declare either."""
    return bool(trainer.fast_dev_run)


def curriculum_of(trainer: Any) -> MixturePlan | None:
    """The plan of the trainer's data, if there is one."""
    datamodule = datamodule_of(trainer)
    return datamodule.curriculum if isinstance(datamodule, HasCurriculum) else None


# -- of modules ----------------------------------------------------------------------------------------------------------


class TrainsLanguageModel(Protocol):
    """The attributes of `LanguageModule`; Lightning's own declaration makes any attribute ``Tensor | Module``.

    Attributes:
        model: the core.
        shape: the model config.
        base_weights: initial weights of a fresh run; None for random weights.
        ema_decay: decay of the averaged weights; None without them.
        parallel: parallelism, and compute dtype.
        saves_trained_only: whether an adapter is trained, and the rest frozen.
        num_trained: number of trained parameters.
        micro_batch_tokens: positions per forward pass.
        step_tokens: positions of the last step, over all ranks.
        step_length: mean document length in the last step, weighted by tokens.
    """

    model: LanguageModel
    shape: LanguageModelConfig
    base_weights: str | None
    ema_decay: float | None
    parallel: ParallelConfig
    micro_batch_tokens: int
    step_tokens: int
    step_length: int

    @property
    def saves_trained_only(self) -> bool: ...

    @property
    def num_trained(self) -> int: ...

    @property
    def sharding(self) -> ParallelConfig:
        """``parallel`` with the number of copies resolved to a number."""
        ...


@runtime_checkable
class CountsSkippedSteps(Protocol):
    """It skips updates whose gradient is not finite, and counts them."""

    skipped_steps: int


@runtime_checkable
class SharesSamples(Protocol):
    """Neighbouring ranks read the same samples, and train on a part of each."""

    @property
    def ranks_per_sample(self) -> int: ...


@runtime_checkable
class KeepsRollouts(Protocol):
    """It trains on sampled answers, and keeps this rank's of the last step."""

    last_rollouts: list[Rollout]


@runtime_checkable
class LimitsAnswers(Protocol):
    """Its answers are truncated at this number of tokens."""

    max_new_tokens: int
