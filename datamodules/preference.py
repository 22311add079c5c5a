"""Pairs of answers for preference learning."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch.utils.data import Dataset
from typing_extensions import override

from nbg_lightning.chat import Conversation, Renderer
from nbg_lightning.core.batch import PackedBatch
from nbg_lightning.data.chat_sources import ChatSource
from nbg_lightning.data.conversations import RenderedSource, RenderingEncoder, Windows
from nbg_lightning.data.kind import DataKind
from nbg_lightning.data.order import SampleOrder, Samples, sample_hash
from nbg_lightning.data.pair_batch import PairRow, Targets, pair_row, stack_pairs
from nbg_lightning.data.pair_sources import PairSource
from nbg_lightning.data.pairs import Overflow, PreferencePair, RenderedPair, sequence_key
from nbg_lightning.data.rendered_pairs import PairEncoder, RenderedPairs
from nbg_lightning.data.tokenizer import TokenizerConfig
from nbg_lightning.datamodules.ordered import StepDataset, TokenWindow
from nbg_lightning.datamodules.rendered import RenderedDataModule, RenderingKeywords, ValidationWindows
from nbg_lightning.keywords import Keywords

if TYPE_CHECKING:
    from nbg_lightning.teachers.cache import TeacherCache
    from nbg_lightning.teachers.cache_format import CachedTargets

# Sequences per split that are looked up in a cache before a run: a cache of other data lacks all of them.
_LOOKED_UP = 2048


class PreferenceDataModule(RenderedDataModule):
    """Renders pairs to token ids and masks, packs them into windows, and serves them in a fixed order.

    Pairs are prepared once and cached under ``data_dir``; order, epochs and weights work as in `RenderedDataModule`, so
    without weights every pair is seen exactly once per epoch. The chosen and the rejected sequence of a pair are adjacent
    in one window, so that no micro-batch splits a pair. All pairs of one prompt are on the same side of the
    train/validation split.

    With ``cache``, batches carry the teacher's, and optionally the reference's, outputs for every trained token (created by
    ``nbg build-cache``): then neither model runs in training.

    Args:
        sources: name to source of pairs; the name is the domain in metrics.
        tokenizer: folder or hub name of the tokenizer, a checkpoint or run folder (which record the tokenizer of their
            run), or a `TokenizerConfig`; defaults to that of the module's ``base_weights``.
        sequence_length: positions per window; also the maximum length of a pair (both sequences together).
        tokens_per_step: positions per optimizer step over all ranks, padding included.
        overflow: handling of pairs longer than ``max_length``: ``drop`` or ``error``.
        cache: folder of a teacher cache of these pairs, or of several caches, of which the matching one is used.
        rendering: as in `RenderedDataModule`: epochs or tokens, template, max_length, on_invalid, data_dir, seed and
            others.

    Raises:
        ValueError: an invalid source, pair, tokenizer, template, size or cache, with the fix.
    """

    kind: ClassVar[DataKind] = "pairs"
    stage_name: ClassVar[str] = "preference"

    def __init__(
        self,
        sources: dict[str, PairSource],
        tokenizer: TokenizerConfig | str | None = None,
        sequence_length: int = 4096,
        tokens_per_step: int | str = 65_536,
        overflow: Overflow = "drop",
        cache: str | None = None,
        **rendering: Keywords[RenderingKeywords],
    ):
        if overflow not in ("drop", "error"):
            raise ValueError(f"overflow is invalid: {overflow!r}; choose drop or error: a pair cannot be cut")
        super().__init__(sources, tokenizer, sequence_length, tokens_per_step, **rendering)
        self.options = replace(self.options, overflow=overflow)
        self.cache = cache
        self.teacher_cache: TeacherCache | None = None

    # -- preparation ---------------------------------------------------------------------------------------------------

    def encoder(self, name: str, renderer: Renderer, settings: dict[str, Any]) -> RenderingEncoder:
        source, tokenizer = self.sources[name], self.tokenizer
        return PairEncoder(
            name,
            renderer,
            tokenizer.vocab_size,
            tokenizer.fingerprint,
            settings,
            source.format,
            source.ignored_keys,
            longest_pair=self.sequence_length,
        )

    @property
    def template_identity(self) -> str:
        """Hex digest of everything that determines the ids and masks of a pair, apart from the tokenizer."""
        form = {**self.template_form, "train_on_thinking": self.options.train_on_thinking}
        return hashlib.blake2b(json.dumps(form, sort_keys=True).encode(), digest_size=16).hexdigest()

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if self.cache is not None and self.teacher_cache is None:
            self.teacher_cache = self._opened_cache(self.cache)

    def _opened_cache(self, folder: str) -> TeacherCache:
        """The cache, after checking that it contains these pairs."""
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

    def sequences(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Ids and trained mask of every sequence of the training and validation splits, chosen before rejected."""
        for source, _ in (*self._train.values(), *self._validation.values()):
            for index in range(source.num_documents):
                yield from _pairs(source).pair(index).sides

    # -- rows ----------------------------------------------------------------------------------------------------------

    def read(self, source: str, window: int, length: int) -> TokenWindow:
        """The window as ids only; training batches are made by `read_pairs`."""
        row = self.read_pairs(source, window, length)
        return row.tokens, row.labels, row.positions, None

    def read_pairs(self, source: str, window: int, length: int) -> PairRow:
        """One window of a source, with its cached targets. Called in workers."""
        place = self.located(source, window)
        return self.row([], "") if place is None else self.row_of(place[0], *self._train[place[0]], place[1])

    def row_of(self, name: str, source: RenderedSource, windows: Windows, window: int) -> PairRow:
        """A window of a split of the named source."""
        return self.row([_pairs(source).pair(index) for index in windows[window]], f"a pair of source {name!r}")

    def row(self, pairs: list[RenderedPair], where: str) -> PairRow:
        """Pack pairs into one window; ``where`` names their origin in messages."""
        cache = self.teacher_cache
        if cache is None:
            return pair_row(pairs, self.sequence_length)
        found = [targets for pair in pairs for targets in self._cached(cache, pair, where)]
        references = None
        if cache.identity.reference is not None:
            sides = [side for pair in pairs for side in pair.sides]
            references = [_reference(each, mask) for each, (_, mask) in zip(found, sides, strict=True)]
        if cache.identity.teacher_tokenizer is not None:  # another tokenizer: the module reads its targets for chunks
            return pair_row(pairs, self.sequence_length, references)
        targets = [Targets(item.ids.astype(np.int32), item.log_probs, item.tail) for item in found]
        return pair_row(pairs, self.sequence_length, references, targets, cache.identity.k)

    @staticmethod
    def _cached(cache: TeacherCache, pair: RenderedPair, where: str) -> list[CachedTargets]:
        """The cached targets of both sequences."""
        found = []
        for ids, mask in pair.sides:
            targets = cache.lookup(sequence_key(ids, mask))
            if targets is None:
                raise ValueError(
                    f"the cache {cache.folder} lacks {where}, and is of other data; run nbg build-cache again"
                )
            if not all(np.isfinite(array).all() for array in targets if array is not None):
                raise ValueError(f"the cache {cache.folder} has non-finite values for {where}; build it again")
            found.append(targets)
        return found

    @override
    def conversation(self, source: ChatSource, row: Any) -> Conversation:
        return PreferencePair.from_dict(row, source.format, source.ignored_keys).chosen

    # -- loaders -------------------------------------------------------------------------------------------------------

    def step_dataset(self, order: SampleOrder) -> Dataset[Any]:
        return PairSteps(self, order)

    def validation_dataset(self) -> Dataset[Any]:
        return PairValidation(self, self.validation_windows())


def _pairs(source: RenderedSource) -> RenderedPairs:
    assert isinstance(source, RenderedPairs)
    return source


def _reference(targets: CachedTargets, mask: np.ndarray) -> np.ndarray:
    """The reference's log-probs of a sequence's trained ids; a record may have extra rows."""
    assert targets.reference is not None
    return targets.reference[: int(np.count_nonzero(mask[1:]))]


class PairSteps(StepDataset):
    """Reads the pairs of one rank's share of a step, in a worker."""

    def __init__(self, datamodule: PreferenceDataModule, order: SampleOrder):
        super().__init__(datamodule, order)
        self.read_pairs = datamodule.read_pairs

    @override
    def read_row(self, stage: int, source: int, window: int) -> PairRow:
        return self.read_pairs(self.sources[source], window, self.lengths[stage])

    def __getitem__(self, samples: Samples) -> PackedBatch:
        return stack_pairs(self.rows(samples), samples.source, sample_hash(self.seed, samples).view(np.int64))


class PairValidation(Dataset[Any]):
    """The windows of `ValidationWindows`, as pairs."""

    def __init__(self, datamodule: PreferenceDataModule, windows: ValidationWindows):
        self.datamodule, self.windows = datamodule, windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, batch: int) -> PackedBatch:
        picked, source = self.windows.picked_for(batch)
        rows = [
            self.datamodule.row([], "")
            if item is None
            else self.datamodule.row_of(item[0], *self.windows.sources[item[0]], item[1])
            for item in picked
        ]
        return stack_pairs(rows, source, np.zeros(len(rows)))
