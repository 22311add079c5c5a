"""Which datamodules a module can be used with."""

from __future__ import annotations

import lightning.pytorch as pl

from nbg_lightning.datamodules.ordered import DataKind, OrderedDataModule

_USED_WITH: dict[DataKind, tuple[str, str]] = {  # what data of a kind is for: module and datamodule
    "documents": ("PretrainModule", "CurriculumDataModule"),
    "conversations": ("SFTModule", "ChatDataModule"),
    "pairs": ("DPDModule", "PreferenceDataModule"),
    "questions": ("GRPOModule", "PromptDataModule"),
}


def check_data(module: str, trains_on: DataKind | None, datamodule: pl.LightningDataModule | None, fits: bool) -> None:
    """Refuse data of another kind than a module is for, before it is prepared.

    Args:
        module: name of the module's class.
        trains_on: the kind of its data; None takes any.
        datamodule: the trainer's. One of the user's own that says no kind is taken.
        fits: whether it is to be trained, for which benchmarks are no data.

    Raises:
        ValueError: they do not go together, with those that do.
    """
    from nbg_lightning.datamodules.benchmark import BenchmarkDataModule

    if trains_on is None or datamodule is None:
        return
    name, wanted = type(datamodule).__name__, _USED_WITH[trains_on][1]
    if isinstance(datamodule, BenchmarkDataModule):
        if fits:
            raise ValueError(f"{name} has nothing to train on: use {wanted} to train, or `nbg test` to run benchmarks")
    elif isinstance(datamodule, OrderedDataModule) and datamodule.kind not in (None, trains_on):
        assert datamodule.kind is not None
        raise ValueError(
            f"{module} works on {trains_on}, and {name} gives {datamodule.kind}: use {wanted} with it, or "
            f"{_USED_WITH[datamodule.kind][0]} for this data"
        )
