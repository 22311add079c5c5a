"""Questions for reinforcement learning: rendered, filtered by pass rate, and served in an order that is a pure function."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nbg_lightning import log
from nbg_lightning.data.kind import DataKind, check_sources
from nbg_lightning.data.order import SampleOrder, Samples, sample_hash
from nbg_lightning.data.question import Question
from nbg_lightning.data.question_sources import QuestionCounts, QuestionSource, digest
from nbg_lightning.data.tokenizer import Tokenizer, TokenizerConfig, checkpoint_tokenizer, trained_template
from nbg_lightning.data.tokenizer_folder import tokenizer_folder
from nbg_lightning.datamodules.steps import StepDataModule
from nbg_lightning.engines.chat import ChatFormat, Template
from nbg_lightning.engines.protocol import Prompt
from nbg_lightning.rewards.protocol import Reward
from nbg_lightning.rl.pass_rate import PassRateBand, PassRateLedger
from nbg_lightning.schedule.mixture import MixturePlan, MixtureStage

ALL = "all sources"  # no source can have this name: it has a space


@dataclass
class QuestionBatch:
    """One rank's share of an optimizer step: questions, each to be answered by a group of samples.

    Attributes:
        questions: what is asked; `Question.source` is the source's name in the datamodule.
        prompts: the same, rendered. `Prompt.seed` is the sample's identity: a question has other answers when it comes again.
        sample_hash: 64-bit identity of each sample ``[questions]``; their sum over a step enters the hash chain.
        source: index of each question's source in the datamodule's ``domains`` ``[questions]``.
    """

    questions: list[Question]
    prompts: list[Prompt]
    sample_hash: Tensor
    source: Tensor

    def __len__(self) -> int:
        return len(self.questions)

    def to(self, device: torch.device) -> QuestionBatch:
        """The batch with its tensors on ``device``."""
        return replace(self, sample_hash=self.sample_hash.to(device), source=self.source.to(device))


@dataclass(frozen=True)
class PromptStage:
    """Some steps with one mixture of sources.

    Args:
        name: for messages; unique.
        steps: optimizer steps.
        mixture: source to weight; weights are relative, 0 leaves a source out.
    """

    name: str
    steps: int
    mixture: dict[str, float]


class PromptDataModule(StepDataModule):
    """Reads questions, keeps those of medium difficulty, and serves them step by step.

    A batch is what one optimizer step sees, this rank's share of it: a `QuestionBatch`. The order is that of
    `StepDataModule`, a question in the place of a window; so mixtures of difficulties are exact, resume is one integer,
    and the number of ranks may change between runs.

    Without weights every question comes exactly once an epoch. With weights, each step has the sources in these shares, and
    a source that is through is gone through again. With ``stages`` the shares change on the way (easy first, say).

    Args:
        sources: name to source of questions; the name is the source in metrics.
        tokenizer: folder or hub name of the tokenizer, or a checkpoint, which knows the tokenizer of its run; by default
            that of the module's ``base_weights``.
        prompts_per_step: questions of an optimizer step over all ranks.
        steps: optimizer steps of the run.
        epochs: how often the questions are gone through, instead of ``steps``; 1 by default.
        stages: mixtures one after the other, instead of ``steps`` and weights.
        template: ``auto`` is the format that the weights were trained in, where their checkpoint or folder says so, else the
            tokenizer's own template, else ``nanbeige``, the paper's. ``tokenizer`` is the tokenizer's own; all else is the
            file of a Jinja template.
        ledger: file of `nbg pass-rate`; only questions within ``pass_rate`` are kept.
        pass_rate: the band of the ledger's pass rates, strictly inside (paper: above 10 %, below 90 %).
        min_questions: fewer questions than these, after the filter, are an error; ``prompts_per_step`` by default.
        max_prompt_tokens: longer prompts are left out and counted.
        on_invalid: rows that are no question, and questions that the reward cannot score: ``error`` names the first,
            ``drop`` leaves them out and counts them.
        validation_fraction: share of the questions (those that pass the filter) held out, by a hash of the question.
        validation_sources: more questions to validate with, by name.
        validation_prompts: questions of a validation batch, over all ranks.
        data_dir: where a tokenizer that is downloaded is kept.
        seed: of the order and of the validation split.

    Raises:
        ValueError: a source, tokenizer, template, ledger or size that cannot work, named with the mend.
    """

    unit = "questions"  # in which progress is shown

    kind: ClassVar[DataKind] = "questions"

    def __init__(
        self,
        sources: dict[str, QuestionSource],
        tokenizer: str | None = None,
        prompts_per_step: int = 16,
        steps: int | None = None,
        epochs: float | None = None,
        stages: list[PromptStage] | None = None,
        template: Template = "auto",
        ledger: str | None = None,
        pass_rate: PassRateBand = PassRateBand(),  # noqa: B008 - jsonargparse reads the default; never mutated
        min_questions: int | None = None,
        max_prompt_tokens: int | None = None,
        on_invalid: Literal["error", "drop"] = "error",
        validation_fraction: float = 0.0,
        validation_sources: dict[str, QuestionSource] | None = None,
        validation_prompts: int = 16,
        data_dir: str = "runs/data",
        seed: int = 0,
    ):
        super().__init__(seed=seed, num_workers=0)
        check_sources(sources, self.kind, type(self).__name__)
        weights = [source.weight is not None for source in sources.values()]
        if any(weights) and not all(weights):
            missing = next(name for name, source in sources.items() if source.weight is None)
            raise ValueError(
                f"source {missing!r} has no weight and others have: give weights to all sources or to none"
            )
        if sum(given is not None for given in (steps, epochs, stages)) > 1:
            raise ValueError("steps, epochs and stages each say how long the run is: give one of them")
        if stages and any(weights):
            raise ValueError("stages and weights of sources both say the mixture: remove the weights, or the stages")
        for name, value in (("prompts_per_step", prompts_per_step), ("validation_prompts", validation_prompts)):
            if value < 1:
                raise ValueError(f"{name} is {value}: give at least 1")
        for name, number in (("steps", steps), ("epochs", epochs), ("max_prompt_tokens", max_prompt_tokens)):
            if number is not None and not number > 0:
                raise ValueError(f"{name} is {number}: give a number above 0")
        if not 0 <= validation_fraction < 1:
            raise ValueError(f"validation_fraction is {validation_fraction}: give a share from 0 to below 1")
        validation_sources = validation_sources or {}
        if both := sorted(set(sources) & set(validation_sources)):
            raise ValueError(f"{', '.join(both)} is a source of training and of validation: rename one of the two")
        self.sources, self.validation_sources = sources, validation_sources
        self.given_tokenizer = tokenizer
        self.prompts_per_step = prompts_per_step
        self.steps, self.epochs, self.stages = steps, epochs, stages
        self.template: Template = template
        self.ledger_file, self.pass_rate = ledger, pass_rate
        self.min_questions = prompts_per_step if min_questions is None else min_questions
        self.max_prompt_tokens = max_prompt_tokens
        self.on_invalid = on_invalid
        self.validation_fraction, self.validation_prompts = validation_fraction, validation_prompts
        self.data_dir = data_dir
        self.counts: dict[str, QuestionCounts] = {}
        self.ledger: PassRateLedger | None = None
        self._train: dict[str, list[Question]] = {}
        self._validation: dict[str, list[Question]] = {}
        self._ids: dict[tuple[str, str], np.ndarray] = {}  # of prompts, by `_prompt_key`
        self._fingerprints: dict[str, str] = {}

    # -- preparation ---------------------------------------------------------------------------------------------------

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's folder, name or checkpoint."""
        name = self.given_tokenizer or self.starting_weights()
        if name is None:
            raise ValueError(
                "there is no tokenizer: give data.init_args.tokenizer, or the model base_weights that have one"
            )
        return name

    def load_tokenizer(self) -> Tokenizer:
        """The tokenizer, from a folder that can be read again by every process."""
        name = checkpoint_tokenizer(self.tokenizer_name)
        self.tokenizer_folder = tokenizer_folder({}, TokenizerConfig(name), Path(self.data_dir), progress=False)
        return Tokenizer(self.tokenizer_folder)

    def prepare_data(self) -> None:
        """Download what has to be (one process a node)."""
        self.load_tokenizer()

    def load_questions(self) -> dict[str, list[Question]]:
        """All questions of the training sources that can be asked, before any filter: what `nbg pass-rate` measures.

        Raises:
            ValueError: a row that is no question (``on_invalid: error``), a source without questions.
        """
        return {name: self._load(name, source) for name, source in self.sources.items()}

    def setup(self, stage: str) -> None:
        if self.curriculum is not None:
            return
        self.load_format()
        kept = self._filtered(self.load_questions())
        for name, questions in kept.items():
            held_out = [self._is_validation(question) for question in questions]
            self._train[name] = [q for q, out in zip(questions, held_out, strict=True) if not out]
            if any(held_out):
                self._validation[name] = [q for q, out in zip(questions, held_out, strict=True) if out]
        for name, source in self.validation_sources.items():
            self._validation[name] = self._load(name, source)
        self._check_enough()
        self._report()
        self.use_curriculum(self._plan())

    def load_format(self) -> None:
        """Loads the tokenizer, and chooses the chat format."""
        self.tokenizer = self.load_tokenizer()
        self.tokenizer.chat_template = trained_template(self.tokenizer_name, self.starting_weights())
        self.format = ChatFormat(self.tokenizer, self.template)
        self.chat_template = self.tokenizer.chat_template = self.format.chat_template

    def _load(self, name: str, source: QuestionSource) -> list[Question]:
        """One source's questions, with their prompts rendered."""
        if not hasattr(self, "format"):
            self.load_format()
        counts = self.counts[name] = QuestionCounts()
        found, too_long, longest = [], 0, 0
        try:
            for question in source.questions(name, counts):
                try:
                    ids = self.format.prompt(question.messages, question.data.get("tools")).ids
                except ValueError as error:
                    counts.invalid += 1
                    place = f"question {counts.seen - 1}" if counts.place is None else counts.place()
                    counts.first = counts.first or f"{place}: {' '.join(str(error).split())}"
                    continue
                longest = max(longest, len(ids))
                if self.max_prompt_tokens is not None and len(ids) > self.max_prompt_tokens:
                    too_long += 1
                    continue
                self._ids[_prompt_key(question)] = np.asarray(ids, np.int32)
                found.append(question)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"source {name!r}: {error}") from error
        except ValueError as error:
            raise ValueError(f"source {name!r}: {error}") from error
        if counts.invalid:
            text = f"source {name!r}: {counts.invalid:,} of {counts.seen:,} rows are no question; first: {counts.first}"
            if self.on_invalid == "error":
                raise ValueError(f"{text}; fix them, or set on_invalid to drop")
            log.warn(f"{text}; they are left out")
        if too_long:
            log.warn(
                f"source {name!r}: {too_long:,} of {counts.seen:,} prompts are longer than max_prompt_tokens="
                f"{self.max_prompt_tokens} (the longest has {longest:,}) and left out"
            )
        if not found:
            raise ValueError(f"source {name!r} has no question left of {counts.seen:,} rows: check the source")
        return found

    def check_weights(self, fingerprint: str) -> None:
        """Refuse pass rates of other weights than those that a run starts from, wherever either stand.

        Args:
            fingerprint: of the run's first weights (`weights_fingerprint`).

        Raises:
            ValueError: the ledger was measured with other weights.
        """
        if self.ledger is None:
            return
        measured, weights = str(self.ledger.about.get("fingerprint")), self.ledger.about.get("weights")
        if not re.fullmatch("[0-9a-f]{16}", measured):
            log.warn(
                f"the pass rates of {self.ledger_file} are those of {measured}, whose weights cannot be compared with those "
                "that this run starts from"
            )
        elif measured != fingerprint:
            raise ValueError(
                f"the pass rates of {self.ledger_file} are those of other weights ({weights}, fingerprint {measured}) than "
                f"this run starts from ({fingerprint}): run `nbg pass-rate` again with this run's base_weights, or leave out "
                "data.init_args.ledger"
            )

    def _filtered(self, questions: dict[str, list[Question]]) -> dict[str, list[Question]]:
        """Those whose pass rate lies strictly inside the band."""
        if self.ledger_file is None:
            return questions
        self.ledger = PassRateLedger.load(self.ledger_file)
        kept = {}
        for name, of_source in questions.items():
            missing = [q for q in of_source if q.key not in self.ledger]
            if missing:
                raise ValueError(
                    f"{len(missing):,} of {len(of_source):,} questions of source {name!r} are not in the ledger "
                    f"{self.ledger_file}, the first: {str(missing[0].messages[-1]['content'])[:60]!r}; run `nbg pass-rate` "
                    "on this config again"
                )
            kept[name] = [q for q in of_source if self.ledger.keeps(q.key, self.pass_rate)]
            log.info(
                f"{name}: {len(kept[name]):,} of {len(of_source):,} questions have {self.pass_rate} "
                f"({self.ledger.histogram([q.key for q in of_source]).line()})"
            )
        return kept

    def _is_validation(self, question: Question) -> bool:
        """By the question alone: it is on the same side in every run, source and order."""
        hashed = hashlib.blake2b(f"{self.seed} {question.key}".encode(), digest_size=8).digest()
        return int.from_bytes(hashed, "little") < self.validation_fraction * 2**64

    def _used(self) -> list[str]:
        """Sources that are drawn from."""
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

    def _too_few(self, what: str, names: Sequence[str]) -> NoReturn:
        if self.ledger is None:
            raise ValueError(f"{what}: give more questions, or lower min_questions, validation_fraction or the weight")
        keys = [q.key for name in names for q in self.load_questions()[name]]
        histogram = self.ledger.histogram(keys)
        raise ValueError(f"{what} with {self.pass_rate} ({histogram.line()}): {histogram.advice(self.pass_rate)}")

    def _report(self) -> None:
        for name, questions in self._train.items():
            held_out = len(self._validation.get(name, ()))
            lengths = [len(self._ids[_prompt_key(q)]) for q in questions] or [0]
            twice = len(questions) - len({q.key for q in questions})
            log.info(
                f"{name}: {len(questions):,} questions" + (f" and {held_out:,} for validation" if held_out else "")
                + f", prompts of {min(lengths):,} to {max(lengths):,} tokens"
                + (f"; {twice:,} come more than once" if twice else "")
            )  # fmt: skip

    def _plan(self) -> MixturePlan:
        """The order of the run, with a question in the place of a token."""
        size = self.prompts_per_step
        if self.stages:
            return MixturePlan([MixtureStage(s.name, s.steps * size, s.mixture) for s in self.stages], size, 1)
        weights = {name: source.weight for name, source in self.sources.items() if source.weight is not None}
        count = sum(len(self._train[name]) for name in self._used())
        steps = self.steps or max(1, -(-round((self.epochs or 1.0) * count) // size))
        return MixturePlan([MixtureStage("questions", steps * size, weights or {ALL: 1.0})], size, 1)

    def check(self, reward: Reward) -> int:
        """Ask a reward which questions it cannot score; `GRPOModule` does so before anything is generated.

        Returns:
            How many there are. They are left out, of validation too.

        Raises:
            ValueError: there are some and ``on_invalid`` is ``error``, naming the first; or too few others are left.
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
        if self.curriculum is not None:  # as many steps as before, over what is left
            self.use_curriculum(self.curriculum)
        return total

    # -- what others ask -----------------------------------------------------------------------------------------------

    @property
    def domains(self) -> list[str]:
        """Names of the sources, in the order of the batches' ``source``."""
        return [*self.sources, *self.validation_sources]

    @property
    def vocab_size(self) -> int:
        """Ids of the tokenizer; the model's vocabulary must have at least as many."""
        return self.tokenizer.vocab_size

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt that is asked."""
        splits = (*self._train.values(), *self._validation.values())
        return max((len(self._ids[_prompt_key(q)]) for questions in splits for q in questions), default=0)

    # -- training ------------------------------------------------------------------------------------------------------

    def source_windows(self, source: str, length: int) -> int:
        if length != 1:
            raise ValueError(f"sequence_length {length} of the curriculum: a question is a sample, so it must be 1")
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

    def prompt(self, question: Question, seed: int | None = None) -> Prompt:
        """A question, rendered."""
        text = "\n\n".join(str(message["content"]) for message in question.messages)
        return Prompt(tuple(self._ids[_prompt_key(question)].tolist()), seed, text)

    def batch(self, questions: Sequence[Question], hashes: np.ndarray) -> QuestionBatch:
        """Questions with the identities of their samples, as uint64."""
        prompts = [self.prompt(q, int(seed)) for q, seed in zip(questions, hashes, strict=True)]
        source = [self.domains.index(question.source) for question in questions]
        return QuestionBatch(
            list(questions),
            prompts,
            torch.from_numpy(hashes.astype(np.uint64).view(np.int64)),
            torch.tensor(source, dtype=torch.int64),
        )

    def fingerprints(self) -> dict[str, str]:
        if not self._fingerprints:
            found = {name: digest(questions) for name, questions in self._train.items()}
            self._fingerprints = {**found, ALL: "-".join(found.values())}
        return self._fingerprints

    def step_dataset(self, order: SampleOrder) -> Dataset:
        return StepQuestions(self, order)

    def _check_ranks(self, plan: MixturePlan, num_ranks: int) -> None:
        if self.prompts_per_step % num_ranks:
            raise ValueError(
                f"{num_ranks} ranks do not divide prompts_per_step={self.prompts_per_step}: make it a multiple of "
                f"{num_ranks}, or use fewer ranks"
            )

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "prompts_per_step": self.prompts_per_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["prompts_per_step"] != self.prompts_per_step:
            raise ValueError(
                f"prompts_per_step was {state['prompts_per_step']} in the checkpoint's run and is {self.prompts_per_step} "
                "here: set it as it was, or start a new run from these weights"
            )
        super().load_state_dict(state)

    # -- validation ----------------------------------------------------------------------------------------------------

    def val_dataloader(self) -> DataLoader | list[Any]:
        """Batches of the held-out questions, as many on every rank; none without such questions."""
        if not self._validation:
            return []
        rank, num_ranks = self.rank_and_ranks
        return DataLoader(ValidationQuestions(self, rank, num_ranks), batch_size=None, shuffle=False)

    test_dataloader = val_dataloader

    @property
    def validation_questions(self) -> list[Question]:
        """The held-out questions of all sources."""
        return [question for questions in self._validation.values() for question in questions]


class StepQuestions(Dataset):
    """One rank's share of a step."""

    def __init__(self, datamodule: PromptDataModule, order: SampleOrder):
        self.datamodule, self.order = datamodule, order

    def __getitem__(self, samples: Samples) -> QuestionBatch:
        data, sources = self.datamodule, self.order.plan.sources
        questions = [
            data.question(sources[source], int(window))
            for source, window in zip(samples.source, samples.window, strict=True)
        ]
        return data.batch(questions, sample_hash(data.seed, samples))


class ValidationQuestions(Dataset):
    """Every held-out question once, over all ranks; ranks that have fewer end with shorter or empty batches."""

    def __init__(self, datamodule: PromptDataModule, rank: int, num_ranks: int):
        self.datamodule = datamodule
        questions = datamodule.validation_questions
        self.rows = max(1, datamodule.validation_prompts // num_ranks)
        self.num_batches = -(-len(questions) // (self.rows * num_ranks))
        self.questions = questions[rank::num_ranks]

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, batch: int) -> QuestionBatch:
        questions = self.questions[batch * self.rows : (batch + 1) * self.rows]
        # The same samples at every validation: their seeds are the questions' own.
        seeds = np.array([int(question.key[:16], 16) for question in questions], np.uint64)
        return self.datamodule.batch(questions, seeds)


def _prompt_key(question: Question) -> tuple[str, str]:
    """What a prompt is rendered from."""
    tools = question.data.get("tools")
    return question.key, "" if tools is None else json.dumps(tools, sort_keys=True)
