"""Sources that are tokenized once and cached on disk."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, TypedDict

from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from nbg_lightning import log
from nbg_lightning.data.encoder import Encoder
from nbg_lightning.data.prepare import PreparationSettings, PreparedSource, prepare_encoded, prepare_share
from nbg_lightning.data.share import Share
from nbg_lightning.data.sources import Source
from nbg_lightning.data.stored_files import DataStore
from nbg_lightning.data.tokenizer import Tokenizer
from nbg_lightning.datamodules.ordered import OrderedDataModule
from nbg_lightning.jobs import EngineName
from nbg_lightning.remote import is_url

MOST_AHEAD = 48  # windows per worker: 70 MB of rows at 64K
BLOCKS_OF_WINDOW = (
    8  # of the cache that a window may take: tokens over a border, offsets, digests, and as much again to stay
)


class PreparationKeywords(TypedDict, total=False):
    """Keyword arguments of `PreparedDataModule`."""

    data_dir: str | DataStore
    validation_fraction: float
    validation_tokens: int
    validation_rows: int
    num_workers: int
    prepare_workers: int | None
    seed: int


class PreparedDataModule(OrderedDataModule):
    """Prepares its sources once and caches them under ``data_dir``: by parallel workers, in bounded memory, safe to
    interrupt.

    Args:
        data_dir: where prepared sources are cached, keyed by their content and the settings, so that other runs reuse them.
            A folder, a URL, or a `DataStore` (a URL with settings).
        validation_fraction: share of the samples held out.
        validation_tokens: maximum number of validation positions per source, spread evenly over its split.
        validation_rows: windows per validation batch, over all ranks.
        num_workers: processes that prefetch training windows.
        prepare_workers: processes that prepare the data; all cores by default.
        seed: seed of the data order and the validation split.
    """

    def __init__(
        self,
        data_dir: str | DataStore = "runs/data",
        validation_fraction: float = 0.01,
        validation_tokens: int = 262_144,
        validation_rows: int = 4,
        num_workers: int = 1,
        prepare_workers: int | None = None,
        seed: int = 0,
    ):
        super().__init__(seed=seed, num_workers=num_workers)
        self.store = DataStore(data_dir) if isinstance(data_dir, str) and is_url(data_dir) else None
        if isinstance(data_dir, DataStore):
            self.store = data_dir
        self.data_dir = str(data_dir) if self.store is None else self.store.local
        self.validation_fraction = validation_fraction
        self.validation_tokens = validation_tokens
        self.validation_rows = validation_rows
        self.prepare_workers = prepare_workers
        self.engine: EngineName = "local"

    tokenizer: Tokenizer
    """The tokenizer of the data; `setup` sets it."""

    @property
    def vocab_size(self) -> int:
        """Vocabulary size of the tokenizer; the model's must be at least as large."""
        return self.tokenizer.vocab_size

    @property
    def checks_sizes(self) -> bool:
        """Whether this process checks the files of prepared sources against their manifests: one per machine does."""
        return self.trainer is None or self.trainer.local_rank == 0

    def prepare_data(self) -> None:
        """Prepare what is missing (one process per node; an interrupted preparation continues)."""
        for _ in self.prepared():
            pass

    @property
    def preparation(self) -> PreparationSettings:
        """How the sources are prepared."""
        return PreparationSettings(
            self.data_dir,
            self.validation_fraction,
            self.seed,
            self.prepare_workers,
            engine=self.engine,
            store=self.store,
        )

    @property
    def place(self) -> str:
        """The location of prepared sources, for messages."""
        return self.data_dir if self.store is None else self.store.url

    @property
    @override
    def windows_ahead(self) -> int:
        if self.store is None:
            return 0
        blocks = self.store.cache_bytes // self.store.block_bytes
        return max(1, min(MOST_AHEAD, blocks // (BLOCKS_OF_WINDOW * max(1, self.num_workers))))

    def prepared(self) -> Iterator[tuple[str, Encoder, PreparedSource]]:
        """Name, encoder and folders of every source, preparing it if necessary."""
        for name, source, encoder in self.encoders():
            yield name, encoder, prepare_encoded(name, source, encoder, self.preparation, self.checks_sizes)

    def prepare_share(self, share: Share) -> list[str]:
        """Prepare this machine's share of every source; the last machine to finish completes the source.

        Returns:
            Names of the sources that other machines have yet to finish.
        """
        return [
            name
            for name, source, encoder in self.encoders()
            if not prepare_share(name, source, encoder, self.preparation, share)
        ]

    def without_validation(self, noun: str) -> list[Any]:
        """The validation loader if nothing was held out: warns, and training continues without validation.

        Args:
            noun: what the sources contain, for the message.

        Raises:
            ValueError: validation itself was requested.
        """
        fix = "raise data.validation_fraction"
        if self.trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            raise ValueError(f"no source has validation {noun}; {fix}, or set limit_val_batches=0")
        log.warn(
            f"no {noun} of any source were held out, so nothing is validated: {fix} (it is {self.validation_fraction:g})"
        )
        return []

    @abstractmethod
    def encoders(self) -> Iterator[tuple[str, Source, Encoder]]:
        """Every source's name and encoder; the tokenizer is loaded, or trained, before the first."""
