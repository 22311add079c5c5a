"""Kinds of data: what sources and datamodules provide, and what modules train on."""

from __future__ import annotations

from typing import Literal, NamedTuple

DataKind = Literal["documents", "conversations", "pairs", "questions"]


class Users(NamedTuple):
    """The module and the datamodule for a kind of data."""

    module: str
    datamodule: str


USERS: dict[DataKind, Users] = {
    "documents": Users("PretrainModule", "CurriculumDataModule"),
    "conversations": Users("SFTModule", "ChatDataModule"),
    "pairs": Users("DPDModule", "PreferenceDataModule"),
    "questions": Users("GRPOModule", "PromptDataModule"),
}


def misfit(module: str, trains_on: DataKind, datamodule: str, kind: DataKind) -> str | None:
    """Describe a module and a datamodule of different kinds in one sentence, with the ones that fit; None if they fit.

    Args:
        module: name of the module's class.
        trains_on: the kind of data that it trains on.
        datamodule: name of the datamodule's class.
        kind: the kind of data that it provides.
    """
    if trains_on == kind:
        return None
    return (
        f"{module} works on {trains_on}, and {datamodule} gives {kind}: use {USERS[trains_on].datamodule} with it, or "
        f"{USERS[kind].module} for this data"
    )
