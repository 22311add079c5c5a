"""Questions for reinforcement learning, filtered by pass rate, in an order that is a pure function."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader
from typing_extensions import override

from nbg_lightning import log
from nbg_lightning.data.question import Question
from nbg_lightning.data.question_sources import QuestionSource, digest
from nbg_lightning.data.source_checks import check_weights
from nbg_lightning.data.tokenizer import TokenizerConfig
from nbg_lightning.datamodules.difficulty import DifficultyFilter
from nbg_lightning.datamodules.questions import QuestionDataModule, QuestionKeywords, ValidationQuestions
from nbg_lightning.datamodules.steps import ALL
from nbg_lightning.keywords import Keywords
from nbg_lightning.rewards.protocol import Reward
from nbg_lightning.rl.pass_rate import PassRateBand, PassRateLedger
from nbg_lightning.schedule.mixture import MixturePlan, MixtureStage


@dataclass(frozen=True)
class PromptStage:
    """A number of steps with one mixture of sources.

    Args:
        name: unique name, for messages.
        steps: optimizer steps.
        mixture: source to weight; weights are relative, and 0 excludes a source.
    """

    name: str
    steps: int
    mixture: dict[str, float]


class PromptDataModule(QuestionDataModule):
    """Reads questions, keeps those of medium difficulty, and serves them step by step.

    A batch is this rank's share of one optimizer step: a `QuestionBatch`. The order is that of `StepDataModule`, with
    questions in place of windows; so mixtures are exact, the position for resuming is one integer, and the number of ranks
    may change between runs.

    Without weights every question is used exactly once per epoch. With weights, each step has the sources in these
    proportions, and an exhausted source starts over. With ``stages`` the proportions change during the run (for example,
    easy questions first).

    Args:
        sources: name to source of questions; the name is the source in metrics.
        tokenizer: folder or hub name of the tokenizer, a checkpoint or run folder (which record the tokenizer of their
            run), or a `TokenizerConfig`; defaults to that of the module's ``base_weights``.
        prompts_per_step: questions per optimizer step over all ranks.
        steps: optimizer steps of the run.
        epochs: number of passes over the questions, instead of ``steps``; 1 by default.
        stages: successive mixtures, instead of ``steps`` and weights.
        ledger: file written by `nbg pass-rate`; only questions within ``pass_rate`` are kept.
        pass_rate: bounds of the pass rate in the ledger, exclusive (paper: above 10 %, below 90 %).
        min_questions: minimum number of questions after the filter, below which it is an error; ``prompts_per_step`` by
            default.
        validation_fraction: share of the questions (after the filter) held out, by a hash of the question.
        validation_sources: additional questions for validation, by name.
        validation_prompts: questions per validation batch, over all ranks.
        reading: as in `QuestionDataModule`: template, max_prompt_tokens, on_invalid, data_dir and seed.

    Raises:
        ValueError: an invalid source, tokenizer, template, ledger or size, with the fix.
    """

    unit = "questions"

    def __init__(
        self,
        sources: dict[str, QuestionSource],
        tokenizer: TokenizerConfig | str | None = None,
        prompts_per_step: int = 16,
        steps: int | None = None,
        epochs: float | None = None,
        stages: list[PromptStage] | None = None,
        ledger: str | None = None,
        pass_rate: PassRateBand = PassRateBand(),  # noqa: B008 - jsonargparse reads the default; never mutated
        min_questions: int | None = None,
        validation_fraction: float = 0.0,
        validation_sources: dict[str, QuestionSource] | None = None,
        validation_prompts: int = 16,
        **reading: Keywords[QuestionKeywords],
    ):
        super().__init__(sources, tokenizer, **reading)
        check_weights(sources)
        _check_length(steps, epochs, stages)
        if stages and any(source.weight is not None for source in sources.values()):
            raise ValueError("stages and weights of sources both set the mixture; remove the weights, or the stages")
        for name, value in (("prompts_per_step", prompts_per_step), ("validation_prompts", validation_prompts)):
            if value < 1:
                raise ValueError(f"{name} is invalid: {value}; give at least 1")
        if not 0 <= validation_fraction < 1:
            raise ValueError(f"validation_fraction is invalid: {validation_fraction}; give a share from 0 to below 1")
        self.validation_sources = validation_sources or {}
        if both := sorted(set(sources) & set(self.validation_sources)):
            raise ValueError(f"{', '.join(both)} is a source of training and of validation; rename one of the two")
        self.prompts_per_step = prompts_per_step
        self.steps, self.epochs, self.stages = steps, epochs, stages
        self.ledger_file, self.pass_rate = ledger, pass_rate
        self.min_questions = prompts_per_step if min_questions is None else min_questions
        self.validation_fraction, self.validation_prompts = validation_fraction, validation_prompts
        self.difficulty: DifficultyFilter | None = None
        self._train: dict[str, list[Question]] = {}
        self._validation: dict[str, list[Question]] = {}
        self._fingerprints: dict[str, str] = {}

    # -- preparation ---------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        if self.curriculum is not None:
            return
        self.load_format()
        for name, questions in self._filtered(self.load_questions()).items():
            held_out = [self._is_validation(question) for question in questions]
            self._train[name] = [q for q, out in zip(questions, held_out, strict=True) if not out]
            if any(held_out):
                self._validation[name] = [q for q, out in zip(questions, held_out, strict=True) if out]
        for name, source in self.validation_sources.items():
            self._validation[name] = self._load(name, source)
        self._check_enough()
        self._report()
        self.use_curriculum(self._plan())

    @property
    def ledger(self) -> PassRateLedger | None:
        """The pass rates that the questions were filtered by; None until then."""
        return None if self.difficulty is None else self.difficulty.ledger

    def check_weights(self, fingerprint: str) -> None:
        """Raise if pass rates were measured with other weights than the run starts from, see
        `DifficultyFilter.check_weights`.
        """
        if self.difficulty is not None:
            self.difficulty.check_weights(fingerprint)

    def _filtered(self, questions: dict[str, list[Question]]) -> dict[str, list[Question]]:
        """The questions whose pass rate lies strictly inside the band."""
        if self.ledger_file is None:
            return questions
        self.difficulty = DifficultyFilter.load(self.ledger_file, self.pass_rate)
        return {name: self.difficulty.kept(name, of_source) for name, of_source in questions.items()}

    def _is_validation(self, question: Question) -> bool:
        """Decide by the question alone, so that it is on the same side of the split in every run, source and order."""
        hashed = hashlib.blake2b(f"{self.seed} {question.key}".encode(), digest_size=8).digest()
        return int.from_bytes(hashed, "little") < self.validation_fraction * 2**64

    def _used(self) -> list[str]:
        """Names of the sources with a positive weight."""
        if self.stages:
            return list(dict.fromkeys(name for stage in self.stages for name, w in stage.mixture.items() if w > 0))
        return [name for name, source in self.sources.items() if source.weight is None or source.weight > 0]

    def _check_enough(self) -> None:
        unknown = sorted(set(self._used()) - set(self.sources))
        if unknown:
            raise ValueError(f"stages mix unknown sources {', '.join(unknown)}; there are: {', '.join(self.sources)}")
        total = sum(len(self._train[name]) for name in self._used())
        if total < self.min_questions:
            self._too_few(f"{total:,} questions are left, and min_questions is {self.min_questions:,}", self._used())
        weighted = self.stages is not None or any(source.weight is not None for source in self.sources.values())
        for name in self._used() if weighted else ():
            if not self._train[name]:
                self._too_few(f"source {name!r} has no question left", [name])

    def _too_few(self, problem: str, names: Sequence[str]) -> NoReturn:
        if self.difficulty is None:
            raise ValueError(
                f"{problem}; give more questions, or lower min_questions, validation_fraction or the weight"
            )
        read = self.load_questions()
        raise self.difficulty.too_few(problem, [q for name in names for q in read[name]])

    def _report(self) -> None:
        for name, questions in self._train.items():
            held_out = len(self._validation.get(name, ()))
            lengths = [self.prompt_length(q) for q in questions] or [0]
            twice = len(questions) - len({q.key for q in questions})
            log.info(
                f"{name}: {len(questions):,} questions" + (f" and {held_out:,} for validation" if held_out else "")
                + f", prompts of {min(lengths):,} to {max(lengths):,} tokens"
                + (f"; {twice:,} come more than once" if twice else "")
            )  # fmt: skip

    def _plan(self) -> MixturePlan:
        """The order of the run, with a question in place of a token."""
        size = self.prompts_per_step
        if self.stages:
            return MixturePlan([MixtureStage(s.name, s.steps * size, s.mixture) for s in self.stages], size, 1)
        weights = {name: source.weight for name, source in self.sources.items() if source.weight is not None}
        count = sum(len(self._train[name]) for name in self._used())
        steps = self.steps or max(1, -(-round((self.epochs or 1.0) * count) // size))
        return MixturePlan([MixtureStage("questions", steps * size, weights or {ALL: 1.0})], size, 1)

    def check(self, reward: Reward) -> int:
        """Drop the questions that a reward cannot score; `GRPOModule` calls this before anything is generated.

        Returns:
            The number of such questions, which are dropped from validation too.

        Raises:
            ValueError: there are some and ``on_invalid`` is ``error``, naming the first; or too few questions remain.
        """
        splits = (self._train, self._validation)
        unfit: dict[tuple[str, str], str] = {}  # reasons by source and key
        for questions in (found for split in splits for found in split.values()):
            for question in questions:
                reason = reward.check(question)
                if reason is not None:
                    asked = str(question.messages[-1]["content"])[:60]
                    unfit[question.source, question.key] = f"{reason} (question: {asked!r})"
        if not unfit:
            return 0
        fit = [{n: [q for q in found if (q.source, q.key) not in unfit] for n, found in s.items()} for s in splits]
        of = sum(len(found) for split in splits for found in split.values())
        total = of - sum(len(found) for split in fit for found in split.values())
        (source, _), reason = next(iter(unfit.items()))
        text = f"{total:,} of {of:,} questions cannot be scored; first, of source {source!r}: {reason}"
        if self.on_invalid == "error":
            raise ValueError(f"{text}; fix them, or set on_invalid to drop")
        log.warn(f"{text}; they are left out")
        self._train, self._validation = fit
        self._fingerprints = {}
        self._check_enough()
        if self.curriculum is not None:  # as many steps as before, over the remaining questions
            self.use_curriculum(self.curriculum)
        return total

    # -- what others ask -----------------------------------------------------------------------------------------------

    @property
    def domains(self) -> list[str]:
        """Names of the sources, in the order of the batches' ``source``."""
        return [*self.sources, *self.validation_sources]

    @property
    def longest_prompt(self) -> int:
        """Length of the longest prompt in tokens."""
        splits = (*self._train.values(), *self._validation.values())
        return max((self.prompt_length(q) for questions in splits for q in questions), default=0)

    # -- training ------------------------------------------------------------------------------------------------------

    def source_windows(self, source: str, length: int) -> int:
        if length != 1:
            raise ValueError(
                f"sequence_length of the curriculum is invalid: {length}; give 1, since a sample is a question"
            )
        return sum(len(q) for q in self._train.values()) if source == ALL else len(self._train[source])

    def question(self, source: str, window: int) -> Question:
        """One question of a source of the curriculum."""
        if source != ALL:
            return self._train[source][window]
        for questions in self._train.values():
            if window < len(questions):
                return questions[window]
            window -= len(questions)
        raise IndexError(f"there is no question {window} beyond the last")

    def fingerprints(self) -> dict[str, str]:
        if not self._fingerprints:
            found = {name: digest(questions) for name, questions in self._train.items()}
            self._fingerprints = {**found, ALL: "-".join(found.values())}
        return self._fingerprints

    @override
    def check_ranks(self, num_ranks: int) -> None:
        if self.prompts_per_step % num_ranks:
            raise ValueError(
                f"{num_ranks} ranks do not divide prompts_per_step={self.prompts_per_step}; make it a multiple of "
                f"{num_ranks}, or use fewer ranks"
            )

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "prompts_per_step": self.prompts_per_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["prompts_per_step"] != self.prompts_per_step:
            raise ValueError(
                f"prompts_per_step was {state['prompts_per_step']} in the checkpoint's run and is {self.prompts_per_step} "
                "here; set it as it was, or start a new run from these weights"
            )
        super().load_state_dict(state)

    # -- validation ----------------------------------------------------------------------------------------------------

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Batches of the held-out questions, the same number on every rank; empty without such questions.

        Raises:
            ValueError: there are none, and validation was requested.
        """
        if not self._validation:
            if self.trainer is not None and self.trainer.state.fn in (TrainerFn.VALIDATING, TrainerFn.TESTING):
                raise ValueError(
                    "no question is held out; set data.validation_sources, or raise data.validation_fraction"
                )
            return []
        dataset = ValidationQuestions(self, self.validation_questions, self.validation_prompts, *self.rank_and_ranks)
        return DataLoader(dataset, batch_size=None, shuffle=False)

    def test_dataloader(self) -> DataLoader[Any] | list[Any]:
        return self.val_dataloader()

    @property
    def validation_questions(self) -> list[Question]:
        """The held-out questions of all sources."""
        return [question for questions in self._validation.values() for question in questions]


def _check_length(steps: int | None, epochs: float | None, stages: list[PromptStage] | None) -> None:
    if sum(given is not None for given in (steps, epochs, stages)) > 1:
        raise ValueError("steps, epochs and stages each set the length of the run; give one of them")
    for name, number in (("steps", steps), ("epochs", epochs)):
        if number is not None and not number > 0:
            raise ValueError(f"{name} is invalid: {number}; give a number above 0")
