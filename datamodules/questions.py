"""Reading and rendering questions."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from nbg_lightning import log
from nbg_lightning.data.kind import DataKind
from nbg_lightning.data.order import SampleOrder, Samples, sample_hash
from nbg_lightning.data.question import Question
from nbg_lightning.data.question_sources import QuestionCounts, QuestionSource
from nbg_lightning.data.source_checks import check_sources
from nbg_lightning.data.tokenizer import Tokenizer, TokenizerConfig, trained_template
from nbg_lightning.data.tokenizer_folder import local_tokenizer, tokenizer_name
from nbg_lightning.datamodules.steps import StepDataModule, StepSampler
from nbg_lightning.engines.chat import ChatFormat, Template
from nbg_lightning.engines.protocol import Prompt


@dataclass
class QuestionBatch:
    """One rank's share of an optimizer step: questions, each of which is answered by a group of samples.

    Attributes:
        questions: the questions; `Question.source` is the source's name in the datamodule.
        prompts: the same, rendered. `Prompt.seed` identifies the sample, so that a question in a later epoch gets different
            answers.
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


class QuestionKeywords(TypedDict, total=False):
    """Keyword arguments of `QuestionDataModule`, apart from sources and tokenizer."""

    template: Template
    max_prompt_tokens: int | None
    on_invalid: Literal["error", "drop"]
    data_dir: str
    seed: int


class QuestionDataModule(StepDataModule):
    """Reads questions and renders their prompts.

    Args:
        sources: name to source of questions; the name is the source in metrics.
        tokenizer: folder or hub name of the tokenizer, a checkpoint or run folder (which record the tokenizer of their
            run), or a `TokenizerConfig`; defaults to that of the module's ``base_weights``.
        template: ``auto`` uses the format that the weights were trained with if their checkpoint or folder records it, else
            the tokenizer's own template, else ``nanbeige``, the paper's. ``tokenizer`` is the tokenizer's own; any other
            value is the path of a Jinja template.
        max_prompt_tokens: longer prompts are dropped and counted.
        on_invalid: handling of rows that cannot be parsed as a question, and of questions that the reward cannot score:
            ``error`` names the first, ``drop`` drops and counts them.
        data_dir: where a downloaded tokenizer is stored.
        seed: seed of the order and of the validation split.

    Raises:
        ValueError: an invalid source, tokenizer or template, with the fix.

    Attributes:
        counts: outcome counts of each source's rows.
    """

    kind: ClassVar[DataKind] = "questions"

    def __init__(
        self,
        sources: dict[str, QuestionSource],
        tokenizer: TokenizerConfig | str | None = None,
        template: Template = "auto",
        max_prompt_tokens: int | None = None,
        on_invalid: Literal["error", "drop"] = "error",
        data_dir: str = "runs/data",
        seed: int = 0,
    ):
        super().__init__(seed=seed, num_workers=0)
        check_sources(sources, self.kind, type(self).__name__)
        if max_prompt_tokens is not None and not max_prompt_tokens > 0:
            raise ValueError(f"max_prompt_tokens is invalid: {max_prompt_tokens}; give a number above 0")
        self.sources = sources
        self.given_tokenizer = tokenizer
        self.template: Template = template
        self.max_prompt_tokens = max_prompt_tokens
        self.on_invalid = on_invalid
        self.data_dir = data_dir
        self.counts: dict[str, QuestionCounts] = {}
        self._format: ChatFormat | None = None
        self._ids: dict[tuple[str, str], np.ndarray] = {}  # of prompts, by `_prompt_key`

    # -- tokenizer and format ------------------------------------------------------------------------------------------

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's folder, name or checkpoint."""
        return tokenizer_name(self.given_tokenizer, self.starting_weights())

    def load_tokenizer(self) -> Tokenizer:
        """Load the tokenizer from a folder that every process can read."""
        self.tokenizer_folder = local_tokenizer(self.tokenizer_name, self.data_dir)
        return Tokenizer(self.tokenizer_folder)

    def prepare_data(self) -> None:
        """Download what is needed (one process per node)."""
        self.load_tokenizer()

    def load_format(self) -> None:
        """Load the tokenizer, and choose the chat format."""
        self.tokenizer = self.load_tokenizer()
        self.tokenizer.chat_template = trained_template(self.tokenizer_name, self.starting_weights())
        self._format = ChatFormat(self.tokenizer, self.template)
        self.chat_template = self.tokenizer.chat_template = self._format.chat_template

    @property
    def format(self) -> ChatFormat:
        """The chat format of prompts, loaded on first use."""
        if self._format is None:
            self.load_format()
        assert self._format is not None
        return self._format

    @property
    def vocab_size(self) -> int:
        """Vocabulary size of the tokenizer; the model's must be at least as large."""
        return self.tokenizer.vocab_size

    # -- questions -----------------------------------------------------------------------------------------------------

    def load_questions(self) -> dict[str, list[Question]]:
        """All usable questions of the training sources, before any filter: those that `nbg pass-rate` measures.

        Raises:
            ValueError: a row cannot be parsed as a question (``on_invalid: error``), or a source has no questions.
        """
        return {name: self._load(name, source) for name, source in self.sources.items()}

    def _load(self, name: str, source: QuestionSource) -> list[Question]:
        """One source's questions, with their prompts rendered."""
        counts = self.counts[name] = QuestionCounts()
        try:
            rendered = self._render(name, source, counts)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"source {name!r}: {error}") from error
        except ValueError as error:
            raise ValueError(f"source {name!r}: {error}") from error
        if counts.invalid:
            text = f"source {name!r}: {counts.invalid:,} of {counts.seen:,} rows are not valid questions; first: {counts.first}"
            if self.on_invalid == "error":
                raise ValueError(f"{text}; fix them, or set on_invalid to drop")
            log.warn(f"{text}; they are left out")
        most = self.max_prompt_tokens
        too_long = [] if most is None else [len(ids) for _, ids in rendered if len(ids) > most]
        if too_long:
            log.warn(
                f"source {name!r}: {len(too_long):,} of {counts.seen:,} prompts are longer than max_prompt_tokens="
                f"{most} (the longest has {max(too_long):,}) and left out"
            )
        kept = [(question, ids) for question, ids in rendered if most is None or len(ids) <= most]
        if not kept:
            raise ValueError(f"source {name!r} has no question left of {counts.seen:,} rows; check the source")
        self._ids |= {_prompt_key(question): ids for question, ids in kept}
        return [question for question, _ in kept]

    def _render(self, name: str, source: QuestionSource, counts: QuestionCounts) -> list[tuple[Question, np.ndarray]]:
        """The questions with the ids of their prompts; those that cannot be rendered are counted as invalid."""
        form, found = self.format, []
        for question in source.questions(name, counts):
            try:
                ids = form.prompt(question.messages, question.data.get("tools")).ids
            except ValueError as error:
                counts.invalid += 1
                place = f"question {counts.seen - 1}" if counts.place is None else counts.place()
                counts.first = counts.first or f"{place}: {' '.join(str(error).split())}"
                continue
            found.append((question, np.asarray(ids, np.int32)))
        return found

    def prompt_length(self, question: Question) -> int:
        """Length of a question's prompt in tokens."""
        return len(self._ids[_prompt_key(question)])

    def prompt(self, question: Question, seed: int | None = None) -> Prompt:
        """A question, rendered."""
        text = "\n\n".join(str(message["content"]) for message in question.messages)
        return Prompt(tuple(self._ids[_prompt_key(question)].tolist()), seed, text)

    def example_prompts(self) -> Iterator[list[dict[str, Any]]]:
        """Example questions from the beginning of each source; those with tools are skipped."""
        for name, source in self.sources.items():
            for question in source.questions(name, QuestionCounts()):
                if not question.data.get("tools"):
                    yield [dict(message) for message in question.messages]

    @property
    def domains(self) -> list[str]:
        """Names of the sources, in the order of the batches' ``source``."""
        return list(self.sources)

    def batch(self, questions: Sequence[Question], hashes: np.ndarray) -> QuestionBatch:
        """Build a batch from questions and the identities of their samples, as uint64."""
        prompts = [self.prompt(q, int(seed)) for q, seed in zip(questions, hashes, strict=True)]
        source = [self.domains.index(question.source) for question in questions]
        return QuestionBatch(
            list(questions),
            prompts,
            torch.from_numpy(hashes.astype(np.uint64).view(np.int64)),
            torch.tensor(source, dtype=torch.int64),
        )

    @abstractmethod
    def question(self, source: str, window: int) -> Question:
        """One question of a source of the plan."""

    def step_dataset(self, order: SampleOrder) -> Dataset[Any]:
        return StepQuestions(self, order)

    def step_batch(self, step: int) -> QuestionBatch:
        """This rank's questions of any step of the plan, as `train_dataloader` serves them."""
        if self.order is None:
            raise ValueError("there is no plan yet; call setup first")
        return StepQuestions(self, self.order)[StepSampler(self.order, 0, *self.rank_and_ranks).samples(step)]


class StepQuestions(Dataset[Any]):
    """One rank's share of a step."""

    def __init__(self, datamodule: QuestionDataModule, order: SampleOrder):
        self.datamodule, self.order = datamodule, order

    def __getitem__(self, samples: Samples) -> QuestionBatch:
        data, sources = self.datamodule, self.order.plan.sources
        questions = [
            data.question(sources[source], int(window))
            for source, window in zip(samples.source, samples.window, strict=True)
        ]
        return data.batch(questions, sample_hash(data.seed, samples))


class ValidationQuestions(Dataset[Any]):
    """Every held-out question once, over all ranks; ranks that have fewer end with shorter or empty batches."""

    def __init__(self, datamodule: QuestionDataModule, questions: list[Question], rows: int, rank: int, num_ranks: int):
        self.datamodule, self.rows = datamodule, max(1, rows // num_ranks)
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
    """The identity of a prompt: its question and tools."""
    tools = question.data.get("tools")
    return question.key, "" if tools is None else json.dumps(tools, sort_keys=True)
