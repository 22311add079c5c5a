"""The kinds of data: what sources and datamodules give, and what modules are for."""

from __future__ import annotations

from typing import Literal, NamedTuple

DataKind = Literal["documents", "conversations", "pairs", "questions"]


class Users(NamedTuple):
    """The module and the datamodule that data of a kind is for."""

    module: str
    datamodule: str


USERS: dict[DataKind, Users] = {
    "documents": Users("PretrainModule", "CurriculumDataModule"),
    "conversations": Users("SFTModule", "ChatDataModule"),
    "pairs": Users("DPDModule", "PreferenceDataModule"),
    "questions": Users("GRPOModule", "PromptDataModule"),
}


def misfit(module: str, trains_on: DataKind, datamodule: str, kind: DataKind) -> str | None:
    """One sentence about a module and a datamodule of another kind, with those that fit; None for two that go together.

    Args:
        module: name of the module's class.
        trains_on: the kind of its data.
        datamodule: name of the datamodule's class.
        kind: the kind that it gives.
    """
    if trains_on == kind:
        return None
    return (
        f"{module} works on {trains_on}, and {datamodule} gives {kind}: use {USERS[trains_on].datamodule} with it, or "
        f"{USERS[kind].module} for this data"
    )
