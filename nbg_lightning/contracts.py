"""Protocols of what modules, callbacks and datamodules ask of each other; each has what applies to it.

Those of the library and of users alike are asked by ``isinstance``.
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
    """Its ids are those of a tokenizer; ``vocab_size`` is None where the model is not asked for them."""

    @property
    def vocab_size(self) -> int | None: ...


@runtime_checkable
class HasTokenizer(Protocol):
    """It holds the tokenizer that made its ids."""

    @property
    def tokenizer(self) -> Tokenizer | None: ...


@runtime_checkable
class HasTokenizerFolder(Protocol):
    """Its tokenizer lies in a folder, which checkpoints record."""

    @property
    def tokenizer_folder(self) -> str | Path | None: ...


@runtime_checkable
class HasChatTemplate(Protocol):
    """Its rows are rendered in a chat format, which checkpoints record."""

    @property
    def chat_template(self) -> ChatTemplate | None: ...


@runtime_checkable
class GivesExamplePrompts(Protocol):
    """It can say what its model is asked, for whoever tries the model first."""

    def example_prompts(self) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Prompts of the data as messages, in their order; the beginning of a text as a user's message."""


@runtime_checkable
class HasTeacherCache(Protocol):
    """It may serve what a teacher and a reference said of its rows."""

    @property
    def teacher_cache(self) -> TeacherCache | None: ...


@runtime_checkable
class ServesQuestions(Protocol):
    """It serves questions with their prompts, to which answers are drawn.

    Attributes:
        format: the chat format of the prompts.
        longest_prompt: tokens of the longest prompt.
        ledger: pass rates by which the questions were chosen, if they were.
    """

    format: ChatFormat
    ledger: PassRateLedger | None

    @property
    def longest_prompt(self) -> int: ...

    def check(self, reward: Reward) -> None:
        """Refuse a reward that cannot score the questions."""

    def check_weights(self, fingerprint: str) -> None:
        """Compare weights with those that the ledger is of."""


@runtime_checkable
class ServesAnyStep(Protocol):
    """It can serve the questions of a step before its turn, and knows how many steps there are."""

    curriculum: MixturePlan | None

    def step_batch(self, step: int) -> Any:
        """This rank's questions of a step."""


@runtime_checkable
class BringsCallbacks(Protocol):
    """It works through callbacks, for as long as it is the trainer's."""

    def callbacks(self) -> list[pl.Callback]: ...


@runtime_checkable
class CountsSteps(Protocol):
    """It keeps its place in the data by optimizer steps."""

    def advance(self, hash_total: int) -> None: ...


@runtime_checkable
class UndoesSteps(Protocol):
    """It keeps its place in the data by steps, and which of them are in the weights no longer.

    Attributes:
        undone: (first, last): after step ``last`` the weights became again those after step ``first``.
    """

    undone: list[tuple[int, int]]

    def undo(self, step: int, chain_then: str) -> None: ...


@runtime_checkable
class HasCurriculum(Protocol):
    """It knows the plan that its data follow, and so the number of steps; None until the plan is there."""

    curriculum: MixturePlan | None


@runtime_checkable
class TakesCurriculum(Protocol):
    """It can follow a plan that it is given."""

    def use_curriculum(self, curriculum: MixturePlan) -> None: ...


@runtime_checkable
class CountsSamples(Protocol):
    """It knows how many samples each source has for training."""

    def source_windows(self, source: str, length: int) -> int: ...


@runtime_checkable
class NamesUnit(Protocol):
    """Its plan counts something else than tokens, such as questions."""

    unit: ClassVar[str]


def datamodule_of(trainer: Any) -> Any:
    """The trainer's datamodule, or None. Lightning sets it but does not declare it, so a trainer is `Any` here."""
    return trainer.datamodule


def curriculum_of(trainer: Any) -> MixturePlan | None:
    """The plan that the trainer's data follow, if they follow one."""
    datamodule = datamodule_of(trainer)
    return datamodule.curriculum if isinstance(datamodule, HasCurriculum) else None


# -- of modules ----------------------------------------------------------------------------------------------------------


class TrainsLanguageModel(Protocol):
    """What `LanguageModule` has; Lightning's own declaration makes any attribute ``Tensor | Module``.

    Attributes:
        model: the core.
        shape: of the core.
        base_weights: where a fresh run began; None for random weights.
        ema_decay: of the averaged weights; None without them.
        parallel: how it is spread, and in which dtype it computes.
        saves_trained_only: whether an adapter is trained, and the rest frozen.
        num_trained: parameters that are trained.
        micro_batch_tokens: positions of a forward.
        step_tokens: positions of the last step, over all ranks.
        step_length: length of a document in the last step, weighted by tokens.
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
        """``parallel`` with the number of copies as one."""
        ...


@runtime_checkable
class CountsSkippedSteps(Protocol):
    """It leaves out updates whose gradient is not finite, and counts them."""

    skipped_steps: int


@runtime_checkable
class SharesSamples(Protocol):
    """Neighbouring ranks read the same samples, and train on a part of each."""

    @property
    def ranks_per_sample(self) -> int: ...


@runtime_checkable
class KeepsRollouts(Protocol):
    """It trains on answers that it draws, and keeps this rank's of the last step."""

    last_rollouts: list[Rollout]


@runtime_checkable
class LimitsAnswers(Protocol):
    """Its answers are cut off at this number of tokens."""

    max_new_tokens: int
