"""Chat data that is rendered once, packed into windows, and served in an order that is a pure function."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from itertools import chain, takewhile
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from nbg_lightning import log
from nbg_lightning.chat import ChatOptions, Conversation, ConversationError, RenderCounts, Renderer
from nbg_lightning.chat.template import AUTO, ChosenTemplate, choose_template
from nbg_lightning.core.batch import PackedBatch, conversation_row
from nbg_lightning.data.chat_sources import ChatPart, ChatSource
from nbg_lightning.data.conversations import Packing, RenderedSource, RenderingEncoder, Windows, plan_windows
from nbg_lightning.data.kind import DataKind
from nbg_lightning.data.reading import describe, likely_mistakes
from nbg_lightning.data.source_checks import check_sources, check_weights
from nbg_lightning.data.sources import Source
from nbg_lightning.data.tokenizer import Tokenizer, TokenizerConfig, trained_template
from nbg_lightning.data.tokenizer_folder import local_tokenizer, tokenizer_name
from nbg_lightning.datamodules.ordered import TokenWindow, stack_rows
from nbg_lightning.datamodules.prepared import PreparationKeywords, PreparedDataModule
from nbg_lightning.datamodules.steps import ALL
from nbg_lightning.keywords import Keywords
from nbg_lightning.schedule.mixture import MixturePlan, MixtureStage
from nbg_lightning.schedule.tokens import parse_tokens

WindowedSources = dict[str, tuple[RenderedSource, Windows]]
"""Source name -> its samples, and their assignment to windows."""


class RenderingKeywords(PreparationKeywords, total=False):
    """Keyword arguments of `RenderedDataModule` that its subclasses pass on."""

    epochs: float
    tokens: int | str | None
    template: str
    train_on_thinking: bool
    max_length: int | None
    on_invalid: Literal["error", "drop"]
    default_system: str | None
    add_bos: bool


class RenderedDataModule(PreparedDataModule):
    """Renders chat data to token ids and loss weights, packs it into windows, and serves them in a fixed order.

    The order is that of `StepDataModule`, by a plan of one stage created in `setup` (with `FGWSD` in the trainer, its table
    over the same sources replaces it). Without weights every window is used exactly once per epoch: the windows of all
    sources form one sequence, padded to whole steps with empty windows on which nothing is trained. With weights, each step
    has the sources in these proportions, an epoch has as many windows as all sources together, and an exhausted source
    starts over.

    Subclasses define `kind`, `stage_name` and `encoder`.

    Args:
        sources: name to source; the name is the domain in metrics.
        tokenizer: folder or hub name of the tokenizer, a checkpoint or run folder (which record the tokenizer of their
            run), or a `TokenizerConfig`; defaults to that of the module's ``base_weights``.
        sequence_length: positions per window.
        tokens_per_step: positions per optimizer step over all ranks, padding included.
        epochs: number of passes over the windows; may be fractional.
        tokens: positions of the whole run, instead of ``epochs``.
        template: ``auto`` uses the format that the weights were trained with if their checkpoint or folder records it, else
            the tokenizer's own template, else ``nanbeige``, the paper's. ``tokenizer`` is the tokenizer's own; any other
            value is the path of a Jinja template.
        train_on_thinking: whether reasoning is trained on.
        max_length: maximum sequence length in tokens; ``sequence_length`` by default.
        on_invalid: handling of malformed samples: ``error`` names the first, ``drop`` drops and counts them.
        default_system: system prompt of conversations without one (``nanbeige`` only).
        add_bos: start conversations with the bos token (``nanbeige`` only).
        preparation: as in `PreparedDataModule`.

    Raises:
        ValueError: an invalid source, tokenizer, template or size, with the fix.

    Attributes:
        options: how conversations are rendered.
        packing: how samples are packed into windows.
    """

    kind: ClassVar[DataKind]
    stage_name: ClassVar[str]

    def __init__(
        self,
        sources: Mapping[str, ChatSource],
        tokenizer: TokenizerConfig | str | None = None,
        sequence_length: int = 4096,
        tokens_per_step: int | str = 65_536,
        epochs: float = 1.0,
        tokens: int | str | None = None,
        template: str = AUTO,
        train_on_thinking: bool = True,
        max_length: int | None = None,
        on_invalid: Literal["error", "drop"] = "error",
        default_system: str | None = None,
        add_bos: bool = False,
        **preparation: Keywords[PreparationKeywords],
    ):
        super().__init__(**preparation)
        check_sources(sources, self.kind, type(self).__name__)
        check_weights(sources)
        if not epochs > 0:
            raise ValueError(f"epochs is invalid: {epochs}; give a number above 0")
        if max_length is not None and max_length > sequence_length + 1:
            raise ValueError(
                f"max_length is invalid: {max_length}; lower it to fit into sequence_length {sequence_length}"
            )
        if template == "tokenizer" and (default_system is not None or add_bos):
            raise ValueError("default_system and add_bos have no effect with template: tokenizer; remove them")
        self.sources = dict(sources)
        self.given_tokenizer = tokenizer
        self.sequence_length = sequence_length
        self.tokens_per_step = parse_tokens(tokens_per_step)
        self.epochs = epochs
        self.tokens = None if tokens is None else parse_tokens(tokens)
        self.packing: Packing = "best_fit"
        self.template = template
        self.options = ChatOptions(
            train_on_thinking=train_on_thinking,
            max_length=sequence_length if max_length is None else max_length,
            on_invalid=on_invalid,
        )
        self.default_system = default_system
        self.add_bos = add_bos
        self._train: WindowedSources = {}
        self._validation: WindowedSources = {}
        # Checks the sizes, before anything is read.
        self._one_step = MixturePlan(
            [MixtureStage(self.stage_name, 1, {ALL: 1.0})], self.tokens_per_step, sequence_length
        )

    @override
    def check_ranks(self, num_ranks: int) -> None:
        self._one_step.check_ranks(num_ranks)

    @property
    @override
    def known_windows(self) -> list[int]:
        return [self.sequence_length]

    @abstractmethod
    def encoder(self, name: str, renderer: Renderer, settings: dict[str, Any]) -> RenderingEncoder:
        """Create the encoder of the named source, whose ``reader`` reads its output."""

    # -- preparation ---------------------------------------------------------------------------------------------------

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's folder, name or checkpoint."""
        return tokenizer_name(self.given_tokenizer, self.starting_weights())

    def load_tokenizer(self) -> Tokenizer:
        """Load the tokenizer from a folder that every process can read."""
        self.tokenizer_folder: Path = local_tokenizer(self.tokenizer_name, self.data_dir)
        return Tokenizer(self.tokenizer_folder)

    def choose_template(self, tokenizer: Tokenizer) -> ChosenTemplate:
        """Choose the chat format, with the reason for the choice, and set it on the tokenizer."""
        recorded = trained_template(self.tokenizer_name, self.starting_weights())
        chosen = choose_template(
            self.template,
            tokenizer.transformers,
            recorded,
            f"tokenizer {self.tokenizer_name}",
            self.default_system,
            self.add_bos,
        )
        self.chat_template = tokenizer.chat_template = chosen.template
        return chosen

    def encoders(self) -> Iterator[tuple[str, Source, RenderingEncoder]]:
        self.tokenizer = self.load_tokenizer()
        self.chosen = self.choose_template(self.tokenizer)
        renderer = self.chosen.template.renderer(self.tokenizer.transformers, self.options)
        # Everything that determines the ids of a conversation, apart from the tokenizer and the options.
        self.template_form = self.chosen.template.form
        for name, source in self.sources.items():
            yield name, source, self.encoder(name, renderer, {**self.template_form, **vars(self.options)})

    def _packed(self, source: RenderedSource) -> tuple[RenderedSource, Windows]:
        return source, plan_windows(source, self.sequence_length, self.packing)

    def setup(self, stage: str) -> None:
        if self.curriculum is not None:
            return
        for name, encoder, folders in self.prepared():
            reader = cast(type[RenderedSource], encoder.reader)
            self._train[name] = self._packed(reader(folders.train, check_sizes=False))
            if folders.validation is not None:
                self._validation[name] = self._packed(reader(folders.validation, check_sizes=False))
        self._domain_begins = np.cumsum([0, *(len(windows) for _, windows in self._train.values())])
        self._report()
        self.use_curriculum(self._plan())

    def _plan(self) -> MixturePlan:
        rows = self._one_step.samples_per_step(0)
        windows = int(self._domain_begins[-1])
        weights = {name: source.weight for name, source in self.sources.items() if source.weight is not None}
        if not weights:
            windows = self.source_windows(ALL, self.sequence_length)
        steps = max(1, round(self.epochs * windows / rows))
        tokens = steps * self.tokens_per_step if self.tokens is None else self.tokens
        stage = MixtureStage(self.stage_name, tokens, weights or {ALL: 1.0})
        return MixturePlan([stage], self.tokens_per_step, self.sequence_length)

    def conversation(self, source: ChatSource, row: Any) -> Conversation:
        """Parse a row of a source as a training conversation.

        Raises:
            ConversationError: the row is not a valid conversation.
        """
        return Conversation.from_dict(row, row_format=source.format, ignored_keys=source.ignored_keys)

    def example_prompts(self) -> Iterator[list[dict[str, Any]]]:
        """The messages before the first answer, of rows from the beginning of each source; rows with tools are skipped."""
        for source in self.sources.values():
            for row in chain.from_iterable(cast("ChatPart", part).rows() for part in source.parts()):
                try:
                    found = self.conversation(source, row)
                except ConversationError:
                    continue
                if not found.tools:
                    asked = takewhile(lambda message: message.role != "assistant", found.messages)
                    yield [{"role": message.role, "content": message.content} for message in asked]

    # -- what is said of it --------------------------------------------------------------------------------------------

    def _report(self) -> None:
        log.info(f"chat format: {self.chosen.template.described} ({self.chosen.reason})")
        if self.chosen.warning:
            log.warn(self.chosen.warning)
        for name, (source, windows) in self._train.items():
            counts = source.counts
            share = counts.trained_tokens / max(1, counts.tokens)
            log.info(
                f"{name}: {source.num_documents:,} {self.kind}, {counts.tokens:,} tokens ({share:.1%} trained) in "
                f"{len(windows):,} windows of {windows.length:,}: {windows.efficiency:.1%} full ({self.packing})"
            )
            log.info(f"{name}: read as {describe(source.notes)}")
            for mistake in likely_mistakes(source.notes):
                log.warn(f"{name}: {mistake}")
            if lost := dropped(counts, self.kind):
                log.warn(f"{name}: {lost}")

    @property
    def domains(self) -> list[str]:
        """Names of the sources, in the order of the validation batches' ``source``."""
        return list(self.sources)

    @property
    def source_tokens(self) -> dict[str, int]:
        """Tokens of each source's training samples."""
        return {name: source.num_tokens for name, (source, _) in self._train.items()}

    @property
    def counts(self) -> dict[str, RenderCounts]:
        """Outcome counts of each source's rows."""
        return {name: source.counts for name, (source, _) in self._train.items()}

    @property
    def packing_efficiency(self) -> dict[str, float]:
        """Share of each source's positions that hold tokens rather than padding."""
        return {name: windows.efficiency for name, (_, windows) in self._train.items()}

    # -- training ------------------------------------------------------------------------------------------------------

    def source_windows(self, source: str, length: int) -> int:
        if length != self.sequence_length:
            raise ValueError(
                f"length is invalid: {length}; {self.kind} are packed for sequence_length {self.sequence_length}: set it to that"
            )
        if source != ALL:
            return len(self._train[source][1])
        rows = self._one_step.samples_per_step(0)
        return -(-int(self._domain_begins[-1]) // rows) * rows

    def located(self, source: str, window: int) -> tuple[str, int] | None:
        """A window of `ALL` as its source's name and index in that source; None for an empty window that pads the last step."""
        if source != ALL:
            return source, window
        domain = int(np.searchsorted(self._domain_begins, window, side="right")) - 1
        if domain == len(self._train):
            return None
        return list(self._train)[domain], window - int(self._domain_begins[domain])

    def read(self, source: str, window: int, length: int) -> TokenWindow:
        place = self.located(source, window)
        return conversation_row([], length) if place is None else read_window(*self._train[place[0]], place[1])

    def verify_data(self) -> None:
        for source, _ in [*self._train.values(), *self._validation.values()]:
            source.verify()

    def fingerprints(self) -> dict[str, str]:
        found = {name: f"{s.fingerprint}-{self.packing}-{w.length}" for name, (s, w) in self._train.items()}
        return {**found, ALL: "-".join(found)}

    # -- validation ----------------------------------------------------------------------------------------------------

    def validation_windows(self) -> ValidationWindows:
        """This rank's windows of all validation splits, at least one of which is not empty."""
        rank, num_ranks = self.rank_and_ranks
        rows = max(1, self.validation_rows // num_ranks)
        most = max(1, self.validation_tokens // self.sequence_length)
        return ValidationWindows(self._validation, self.domains, self.sequence_length, most, rank, num_ranks, rows)

    def validation_dataset(self) -> Dataset[Any]:
        """The batches of validation."""
        return self.validation_windows()

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        if not self._validation:
            return self.without_validation(self.kind)
        return DataLoader(self.validation_dataset(), batch_size=None, shuffle=False)

    def test_dataloader(self) -> DataLoader[Any] | list[Any]:
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[Any] | list[Any]:
        return self.val_dataloader()


def read_window(source: RenderedSource, windows: Windows, window: int) -> TokenWindow:
    """The conversations of one window of a source as a row."""
    documents = [source.document(index) for index in windows[window]]
    return conversation_row(documents, windows.length, windows.padded)


def dropped(counts: RenderCounts, noun: str) -> str:
    """Describe which rows of a source were dropped and why; empty if none were."""
    kinds = {
        "too long": counts.too_long,
        "invalid": counts.invalid,
    }
    lost = ", ".join(f"{number:,} {kind}" for kind, number in kinds.items() if number)
    text = f"{counts.too_long + counts.invalid:,} of {counts.seen:,} {noun} dropped ({lost})" if lost else ""
    for first in (*counts.errors[:1], *counts.dropped_long[:1]):
        text += f"; first: {first}"
    if counts.truncated:
        text += f"{'; ' if text else ''}{counts.truncated:,} cut on the left"
    return text


class ValidationWindows(Dataset[Any]):
    """Windows of all validation splits as batches of one shape, the same number on every rank.

    Rows added to even out the ranks are empty.
    """

    def __init__(
        self, sources: WindowedSources, domains: list[str], length: int, most: int, rank: int, num_ranks: int, rows: int
    ):
        self.sources, self.domains, self.length, self.rows = sources, domains, length, rows
        picked: list[tuple[str, int] | None] = []
        for name, (_, windows) in sources.items():
            wanted = min(len(windows), most)
            picked += [(name, index * len(windows) // wanted) for index in range(wanted)]
        picked += [None] * (-len(picked) % (num_ranks * rows))
        self.picked = picked[rank::num_ranks]

    def __len__(self) -> int:
        return len(self.picked) // self.rows

    def picked_for(self, batch: int) -> tuple[list[tuple[str, int] | None], np.ndarray]:
        """The windows of a batch, by source and number, and the domain of each."""
        picked = self.picked[batch * self.rows : (batch + 1) * self.rows]
        return picked, np.array([0 if item is None else self.domains.index(item[0]) for item in picked])

    def __getitem__(self, batch: int) -> PackedBatch:
        picked, source = self.picked_for(batch)
        rows = [
            conversation_row([], self.length) if item is None else read_window(*self.sources[item[0]], item[1])
            for item in picked
        ]
        return stack_rows(rows, source, np.zeros(len(rows)))
