"""Pairs of answers for preference learning: rendered once, packed into windows, in an order that is a pure function."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch.utils.data import DataLoader, Dataset

from nbg_lightning import log
from nbg_lightning.chat import Renderer
from nbg_lightning.chat.template import AUTO
from nbg_lightning.core.batch import PackedBatch
from nbg_lightning.data.conversations import RenderedSource, Windows
from nbg_lightning.data.encoder import Encoder
from nbg_lightning.data.order import SampleOrder, Samples, sample_hash
from nbg_lightning.data.pair_batch import PairRow, Targets, pair_row, stack_pairs
from nbg_lightning.data.pair_sources import PairSource
from nbg_lightning.data.pairs import Overflow, RenderedPair, sequence_key
from nbg_lightning.data.rendered_pairs import PairEncoder, RenderedPairs
from nbg_lightning.datamodules.chat import ChatDataModule, ValidationWindows, dropped
from nbg_lightning.datamodules.ordered import Row, StepDataset

if TYPE_CHECKING:
    from nbg_lightning.teachers.cache import CachedTargets, TeacherCache

# Sequences of a split that are looked up in a cache before a run: one of other data lacks all of them.
_LOOKED_UP = 2048


class PreferenceDataModule(ChatDataModule):
    """Renders pairs to ids and masks, packs them into windows, and serves these in a fixed order.

    As `ChatDataModule`, whose sources hold pairs: prepared once and kept under ``data_dir``; without weights every pair comes
    exactly once an epoch; the order is that of `OrderedDataModule`. The chosen and the rejected sequence of a pair lie side by
    side in one window, so that no micro-batch splits a pair. Pairs of one prompt are all training data or all validation data.

    With ``cache`` the batches carry what a teacher, and perhaps the reference, said of every trained token (made by
    ``nbg build-cache``): then neither model runs in training.

    Args:
        sources: name to source of pairs; the name is the domain in metrics.
        tokenizer: folder or hub name of the tokenizer, or a checkpoint, which knows the tokenizer of its run.
        sequence_length: positions of a window, and of the longest pair (both sequences together).
        tokens_per_step: positions of an optimizer step over all ranks, padding included.
        epochs: how often the windows are gone through; not whole numbers too.
        tokens: positions of the whole run instead of ``epochs``.
        template: ``auto`` is the format that the weights were trained in, where their checkpoint or folder says so, else the
            tokenizer's own template, else ``nanbeige``, the paper's. ``tokenizer`` is the tokenizer's own; all else is the
            file of a Jinja template.
        train_on_thinking: whether reasoning is part of what is compared.
        max_length: longest sequence in tokens; a pair that fits is short enough by default.
        overflow: what happens to longer ones: ``drop`` or ``error``.
        on_invalid: what happens to malformed pairs: ``error`` names the first, ``drop`` counts them.
        default_system: system text of conversations without one (``nanbeige`` only).
        add_bos: begin conversations with the bos token (``nanbeige`` only).
        cache: folder of a teacher cache of these pairs, or of several, of which one fits.
        data_dir: where rendered sources are kept, keyed by their content and the settings.
        validation_fraction: share of the prompts held out.
        validation_tokens: at most so many positions of each source are validated.
        validation_rows: windows of a validation batch, over all ranks.
        num_workers: processes that read training windows ahead.
        prepare_workers: processes that render; all cores by default.
        seed: of the order and of the validation split.

    Raises:
        ValueError: a source, pair, tokenizer, template, size or cache that cannot work, named with the mend.
    """

    kind = "pairs"
    stage_name = "preference"

    def __init__(
        self,
        sources: dict[str, PairSource],
        tokenizer: str,
        sequence_length: int,
        tokens_per_step: int | str,
        epochs: float = 1.0,
        tokens: int | str | None = None,
        template: str = AUTO,
        train_on_thinking: bool = True,
        max_length: int | None = None,
        overflow: Overflow = "drop",
        on_invalid: Literal["error", "drop"] = "error",
        default_system: str | None = None,
        add_bos: bool = False,
        cache: str | None = None,
        data_dir: str = "runs/data",
        validation_fraction: float = 0.01,
        validation_tokens: int = 262_144,
        validation_rows: int = 4,
        num_workers: int = 1,
        prepare_workers: int | None = None,
        seed: int = 0,
    ):
        if overflow not in ("drop", "error"):
            raise ValueError(f"overflow must be drop or error, not {overflow!r}: a pair cannot be cut")
        super().__init__(
            dict(sources),
            tokenizer,
            sequence_length,
            tokens_per_step,
            epochs,
            tokens,
            template=template,
            train_on_thinking=train_on_thinking,
            max_length=max_length,
            overflow=overflow,
            on_invalid=on_invalid,
            default_system=default_system,
            add_bos=add_bos,
            data_dir=data_dir,
            validation_fraction=validation_fraction,
            validation_tokens=validation_tokens,
            validation_rows=validation_rows,
            num_workers=num_workers,
            prepare_workers=prepare_workers,
            seed=seed,
        )
        self.cache = cache
        self.teacher_cache: TeacherCache | None = None

    # -- preparation ---------------------------------------------------------------------------------------------------

    def encoder(self, name: str, renderer: Renderer, settings: dict[str, Any]) -> Encoder:
        source, tokenizer = self.sources[name], self.tokenizer
        identity = tokenizer.vocab_size, tokenizer.fingerprint
        return PairEncoder(renderer, self.sequence_length, *identity, settings, source.format, source.ignored_keys)

    @property
    def template_identity(self) -> str:
        """Hex digest of what decides the ids and masks of a pair, apart from the tokenizer."""
        form = {**self.template_form, "train_on_thinking": self.options.train_on_thinking}
        return hashlib.blake2b(json.dumps(form, sort_keys=True).encode(), digest_size=16).hexdigest()

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if self.cache is not None and self.teacher_cache is None:
            self.teacher_cache = self._opened_cache(self.cache)

    def _opened_cache(self, folder: str) -> TeacherCache:
        """The cache, after a look whether it is of these pairs."""
        from nbg_lightning.teachers.cache import open_cache

        splits = [(name, source) for name, (source, _) in (*self._train.items(), *self._validation.items())]
        some = [sequence_key(*side) for _, source in splits for side in _pairs(source).pair(0).sides]
        form = {"tokenizer": self.tokenizer.fingerprint, "template": self.template_identity}
        found = open_cache(folder, some, **form)
        for name, source in splits:
            count = min(source.num_documents, _LOOKED_UP // 2)
            for index in (number * source.num_documents // count for number in range(count)):
                self._cached(found, _pairs(source).pair(index), f"pair {index} of source {name!r}")
        return found

    def _report(self) -> None:
        self._report_template()
        for name, (source, windows) in self._train.items():
            counts = source.counts
            share = counts.trained_tokens / max(1, counts.tokens)
            log.info(
                f"{name}: {source.num_documents:,} pairs, {counts.tokens:,} tokens ({share:.1%} trained) in "
                f"{len(windows):,} windows of {windows.length:,}: {windows.efficiency:.1%} full"
            )
            self._report_reading(name, source)
            if lost := dropped(counts, "pairs"):
                log.warn(f"{name}: {lost}")

    def sequences(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Ids and trained mask of every sequence, for training and validation, chosen and then rejected."""
        for source, _ in (*self._train.values(), *self._validation.values()):
            for index in range(source.num_documents):
                yield from _pairs(source).pair(index).sides

    # -- rows ----------------------------------------------------------------------------------------------------------

    def read(self, source: str, window: int, length: int) -> Row:
        """The window as ids only; a training batch is made of `read_pairs`."""
        row = self.read_pairs(source, window, length)
        return row.tokens, row.labels, row.positions, None

    def read_pairs(self, source: str, window: int, length: int) -> PairRow:
        """One window of a source, with what the cache has of it. Called in workers."""
        place = self.located(source, window)
        return self.row([], "") if place is None else self.row_of(place[0], *self._train[place[0]], place[1])

    def row_of(self, name: str, source: Any, windows: Windows, window: int) -> PairRow:
        """A window of a split of the source of that name."""
        return self.row([source.pair(index) for index in windows[window]], f"a pair of source {name!r}")

    def row(self, pairs: list[RenderedPair], where: str) -> PairRow:
        """Pairs as one window; ``where`` they are from, for messages."""
        cache = self.teacher_cache
        if cache is None:
            return pair_row(pairs, self.sequence_length)
        found = [targets for pair in pairs for targets in self._cached(cache, pair, where)]
        references = None if cache.identity.reference is None else [_reference(targets) for targets in found]
        targets = [Targets(item.ids.astype(np.int32), item.log_probs, item.tail) for item in found]
        return pair_row(pairs, self.sequence_length, references, targets, cache.identity.k)

    @staticmethod
    def _cached(cache: TeacherCache, pair: RenderedPair, where: str) -> list[CachedTargets]:
        """What the cache has of both sequences."""
        found = []
        for ids, mask in pair.sides:
            targets = cache.lookup(sequence_key(ids, mask))
            if targets is None:
                raise ValueError(
                    f"the cache {cache.folder} lacks {where}: it is of other data; run nbg build-cache again"
                )
            if not all(np.isfinite(array).all() for array in targets if array is not None):
                raise ValueError(f"the cache {cache.folder} has numbers that are none for {where}: build it again")
            found.append(targets)
        return found

    # -- loaders -------------------------------------------------------------------------------------------------------

    def step_dataset(self, order: SampleOrder) -> Dataset:
        return PairSteps(self, order)

    def val_dataloader(self) -> DataLoader:
        rows = super().val_dataloader().dataset
        assert isinstance(rows, ValidationWindows)
        return DataLoader(PairValidation(self, rows), batch_size=None, shuffle=False)

    test_dataloader = val_dataloader
    predict_dataloader = val_dataloader


def _pairs(source: RenderedSource) -> RenderedPairs:
    assert isinstance(source, RenderedPairs)
    return source


def _reference(targets: CachedTargets) -> np.ndarray:
    assert targets.reference is not None
    return targets.reference


class PairSteps(StepDataset):
    """Reads the pairs of one rank's share of a step, in a worker."""

    def __init__(self, datamodule: PreferenceDataModule, order: SampleOrder):
        super().__init__(datamodule, order)
        self.read_pairs = datamodule.read_pairs

    def __getitem__(self, samples: Samples) -> PackedBatch:
        length = self.lengths[int(samples.stage[0])]
        rows = [
            self.read_pairs(self.sources[source], int(window), length)
            for source, window in zip(samples.source, samples.window, strict=True)
        ]
        return stack_pairs(rows, samples.source, sample_hash(self.seed, samples).view(np.int64))


class PairValidation(Dataset):
    """The windows of `ValidationWindows`, as pairs."""

    def __init__(self, datamodule: PreferenceDataModule, windows: ValidationWindows):
        self.datamodule, self.windows = datamodule, windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, batch: int) -> PackedBatch:
        size = self.windows.rows
        picked = self.windows.picked[batch * size : (batch + 1) * size]
        rows = [
            self.datamodule.row([], "")
            if item is None
            else self.datamodule.row_of(item[0], *self.windows.sources[item[0]], item[1])
            for item in picked
        ]
        source = np.array([0 if item is None else self.windows.domains.index(item[0]) for item in picked])
        return stack_pairs(rows, source, np.zeros(len(rows)))
