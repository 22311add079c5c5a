"""Text for pretraining, in the order and mixture of a curriculum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from nbg_lightning import log
from nbg_lightning.core.batch import IGNORE, PackedBatch, packed_row
from nbg_lightning.data.encoder import Encoder, TextEncoder
from nbg_lightning.data.kind import DataKind
from nbg_lightning.data.shards import TokenizedSource
from nbg_lightning.data.source_checks import check_sources
from nbg_lightning.data.sources import Source
from nbg_lightning.data.stored_files import DataStore
from nbg_lightning.data.tokenizer import Tokenizer, TokenizerConfig, checkpoint_tokenizer
from nbg_lightning.data.tokenizer_folder import tokenizer_folder, tokenizer_name
from nbg_lightning.datamodules.ordered import TokenWindow, stack_rows
from nbg_lightning.datamodules.prepared import PreparedDataModule
from nbg_lightning.schedule.mixture import MixturePlan, MixtureStage
from nbg_lightning.schedule.tokens import parse_tokens

COUNTED_DOCUMENTS = 20_000_000  # 160 MB of offsets
_FIRST_WORDS, _SPAN = 6, 64  # words of an example prompt, and the number of tokens to take them from


class CurriculumDataModule(PreparedDataModule):
    """Tokenizes text sources once, and serves windows of packed documents according to a curriculum.

    Documents are concatenated in the order of their source and cut into windows; a document longer than a window is split
    (the counts are logged), and documents in one window do not attend to each other. A share of each source's documents,
    chosen by a hash of their text, is held out for validation: training sees neither them nor exact copies.

    Args:
        sources: name to source; the curriculum's mixtures use these names.
        tokenizer: folder or hub name of the tokenizer, a checkpoint or run folder (which record the tokenizer of their
            run), or a `TokenizerConfig`, which can also train one on the sources; defaults to that of the module's
            ``base_weights``.
        data_dir: where tokenized sources are cached, keyed by their content, so that other runs reuse them. A folder, a
            URL, or a `DataStore` (a URL with settings).
        validation_fraction: share of the documents held out.
        validation_tokens: maximum number of validation tokens per source, spread evenly over its split.
        validation_length: window length in validation; defaults to the curriculum's sequence length.
        validation_rows: rows per validation batch, over all ranks.
        num_workers: processes that prefetch training rows.
        prepare_workers: processes that tokenize; all cores by default.
        seed: seed of the data order and the validation split.
        sequence_length: window length for a run without `FGWSD`: its plan has one stage, in which each source is weighted
            by its size. With `FGWSD`, its table replaces this plan.
        tokens_per_step: tokens per optimizer step of that plan, over all ranks.
        tokens: length of that plan; by default given by ``epochs``.
        epochs: number of passes over the windows; may be fractional.

    Raises:
        ValueError: an invalid source, tokenizer or size, with the fix.
    """

    kind: ClassVar[DataKind] = "documents"

    def __init__(
        self,
        sources: dict[str, Source],
        tokenizer: TokenizerConfig | str | None = None,
        data_dir: str | DataStore = "runs/data",
        validation_fraction: float = 0.005,
        validation_tokens: int = 65_536,
        validation_length: int | None = None,
        validation_rows: int = 16,
        num_workers: int = 1,
        prepare_workers: int | None = None,
        seed: int = 0,
        sequence_length: int | None = None,
        tokens_per_step: int | str = 65_536,
        tokens: int | str | None = None,
        epochs: float = 1.0,
    ):
        super().__init__(
            data_dir, validation_fraction, validation_tokens, validation_rows, num_workers, prepare_workers, seed
        )
        check_sources(sources, self.kind, type(self).__name__)
        self.sources = sources
        if not epochs > 0:
            raise ValueError(f"epochs is invalid: {epochs}; give a number above 0")
        if tokens is not None and sequence_length is None:
            raise ValueError(
                "tokens has no effect without sequence_length; give the length of a window, or stages of FGWSD"
            )
        self.given_tokenizer = tokenizer
        self.sequence_length, self.epochs = sequence_length, epochs
        self.tokens_per_step = parse_tokens(tokens_per_step)
        self.tokens = None if tokens is None else parse_tokens(tokens)
        if sequence_length is not None:  # the sizes are checked before anything is read
            self._plan_of({"all": 1.0}, self.tokens_per_step)
        self.validation_length = validation_length
        self._train: dict[str, TokenizedSource] = {}
        self._validation: dict[str, TokenizedSource] = {}

    def load_tokenizer(self) -> Tokenizer:
        """Load the tokenizer from a folder that every process can read, training it first if configured and missing."""
        return Tokenizer(tokenizer_folder(self.sources, self._known_tokenizer(), Path(self.data_dir), progress=False))

    def _known_tokenizer(self) -> TokenizerConfig:
        """The tokenizer's settings, with a checkpoint replaced by the tokenizer folder inside it."""
        given = self.given_tokenizer
        if isinstance(given, TokenizerConfig) and given.name_or_path is None:
            return given
        return TokenizerConfig(checkpoint_tokenizer(tokenizer_name(given, self.starting_weights())))

    def encoders(self) -> Iterator[tuple[str, Source, Encoder]]:
        self.tokenizer_folder = tokenizer_folder(self.sources, self._known_tokenizer(), Path(self.data_dir), True)
        encoder = TextEncoder(self.tokenizer_folder)
        for name, source in self.sources.items():
            yield name, source, encoder

    def setup(self, stage: str) -> None:
        if self._train:
            return
        for name, _, folders in self.prepared():
            self._train[name] = TokenizedSource(folders.train, check_sizes=False)
            if folders.validation is not None:
                self._validation[name] = TokenizedSource(folders.validation, check_sizes=False)
        self.tokenizer = Tokenizer(self.tokenizer_folder)
        if self.sequence_length is not None:
            windows = {name: self.source_windows(name, self.sequence_length) for name in self._train}
            if not any(windows.values()):
                raise ValueError(
                    f"sequence_length is invalid: {self.sequence_length}; no source has as many tokens: lower it"
                )
            steps = max(1, round(self.epochs * sum(windows.values()) * self.sequence_length / self.tokens_per_step))
            self.use_curriculum(self._plan_of(windows, self.tokens or steps * self.tokens_per_step))

    def _plan_of(self, shares: Mapping[str, float], tokens: int) -> MixturePlan:
        """One stage over all sources."""
        assert self.sequence_length is not None
        stage = MixtureStage("pretraining", tokens, dict(shares))
        return MixturePlan([stage], self.tokens_per_step, self.sequence_length)

    @property
    def source_tokens(self) -> dict[str, int]:
        """Training tokens of each source."""
        return {name: source.num_tokens for name, source in self._train.items()}

    # -- training ------------------------------------------------------------------------------------------------------

    def source_windows(self, source: str, length: int) -> int:
        return self._train[source].num_windows(length)

    def use_curriculum(self, curriculum: MixturePlan) -> None:
        super().use_curriculum(curriculum)
        if self.trainer is None or self.trainer.is_global_zero:
            self._say_what_is_split(curriculum)

    def _say_what_is_split(self, curriculum: MixturePlan) -> None:
        """Count the documents longer than a window, if reading all their offsets is cheap."""
        if sum(source.num_documents for source in self._train.values()) > COUNTED_DOCUMENTS:
            return
        for index, stage in enumerate(curriculum.stages):
            length = curriculum.sequence_length_of(index)
            split = {
                name: self._train[name].num_longer_than(length) for name, weight in stage.mixture.items() if weight
            }
            counts = ", ".join(f"{name} {count:,}" for name, count in split.items() if count)
            if counts and (index == 0 or length != curriculum.sequence_length_of(index - 1)):
                log.info(f"documents longer than {length} tokens, split over windows: {counts}")

    def verify_data(self) -> None:
        for source in [*self._train.values(), *self._validation.values()]:
            source.verify()

    def fingerprints(self) -> dict[str, str]:
        return {name: source.fingerprint for name, source in self._train.items()}

    def read(self, source: str, window: int, length: int) -> TokenWindow:
        return (*packed_row(*self._train[source].window(window, length)), None)

    # -- validation ----------------------------------------------------------------------------------------------------

    def example_prompts(self) -> Iterator[list[dict[str, str]]]:
        """The first words of a text from each source, preferably from its held-out split."""
        for source in (self._validation or self._train).values():
            ids, starts = source.span(0, min(_SPAN, source.num_tokens))
            ends = [start for start in starts.tolist() if start > 0]
            text = self.tokenizer.decode(ids[: min(ends, default=None)].tolist(), skip_special_tokens=True)
            line = next((line.strip() for line in text.splitlines() if line.strip()), "")
            yield [{"role": "user", "content": " ".join(line.split(" ")[:_FIRST_WORDS]).rstrip("\ufffd")}]

    @property
    def bytes_per_token(self) -> dict[str, float]:
        """UTF-8 bytes per predicted token of each source's validation split (used to compute bits per byte)."""
        return {
            name: source.num_bytes / max(1, source.num_tokens - source.num_documents)
            for name, source in self._validation.items()
        }

    @property
    @override
    def known_windows(self) -> list[int]:
        return [length for length in (self.sequence_length, self.validation_length) if length is not None]

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        length = self.validation_length or (self.curriculum.sequence_length if self.curriculum else None)
        if length is None:
            raise ValueError(
                "data.validation_length is missing: without a curriculum there is no window to validate with; set it"
            )
        if not self._validation:
            return self.without_validation(self.kind)
        rank, num_ranks = self.rank_and_ranks
        rows = max(1, self.validation_rows // num_ranks)
        dataset = ValidationRows(self._validation, length, self.validation_tokens, rank, num_ranks, rows)
        return DataLoader(dataset, batch_size=None, shuffle=False)

    test_dataloader = val_dataloader
    predict_dataloader = val_dataloader


class ValidationRows(Dataset[Any]):
    """Windows of all validation splits as batches of one shape, the same number on every rank.

    The remainder of a split that does not fill a window is a row too, so every token of a small split counts; rows added to
    even out the ranks consist of `IGNORE` only.
    """

    def __init__(
        self,
        sources: dict[str, TokenizedSource],
        length: int,
        max_tokens: int,
        rank: int,
        num_ranks: int,
        rows: int,
    ):
        self.sources = list(sources.values())
        self.length, self.rows = length, rows
        picked: list[tuple[int, int] | None] = []
        for index, source in enumerate(self.sources):
            windows = -(-(source.num_tokens - 1) // length)
            wanted = min(windows, max(1, max_tokens // length))
            picked += [(index, begin * windows // wanted * length) for begin in range(wanted)]
        picked += [None] * (-len(picked) % (num_ranks * rows))
        self.picked = picked[rank::num_ranks]

    def __len__(self) -> int:
        return len(self.picked) // self.rows

    def __getitem__(self, batch: int) -> PackedBatch:
        picked = self.picked[batch * self.rows : (batch + 1) * self.rows]
        rows = [self._row(item) for item in picked]
        source = np.array([0 if item is None else item[0] for item in picked])
        return stack_rows(rows, source, np.zeros(len(rows)))

    def _row(self, item: tuple[int, int] | None) -> TokenWindow:
        window = np.zeros(self.length + 1, dtype=np.int64)
        num_tokens, starts = 0, np.zeros(0, dtype=np.int64)
        if item is not None:
            source = self.sources[item[0]]
            tokens, starts = source.span(item[1], min(item[1] + self.length + 1, source.num_tokens))
            num_tokens = len(tokens)
            window[:num_tokens] = tokens
        if num_tokens < self.length:
            starts = np.append(starts, num_tokens)  # padding counts as a document of its own
        tokens, labels, positions = packed_row(window, starts)
        labels[max(0, num_tokens - 1) :] = IGNORE
        return tokens, labels, positions, None
