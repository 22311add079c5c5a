"""The kinds of data: what sources and datamodules give, and what modules are for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

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


def check_sources(sources: object, taken: DataKind, datamodule: str) -> None:
    """Refuse sources of another kind than a datamodule takes, before any of their rows is read.

    Args:
        sources: name to source, as a user gave them.
        taken: the kind that the datamodule takes.
        datamodule: name of its class.

    Raises:
        ValueError: there is none, they have no names, or one is of another kind; where that kind belongs.
    """
    from nbg_lightning.data.question_sources import QuestionSource
    from nbg_lightning.data.sources import Source

    if not isinstance(sources, Mapping):
        raise ValueError(f"sources are invalid: a {type(sources).__name__}; give names to them: {{NAME: SOURCE}}")
    if not sources:
        raise ValueError(f"{datamodule} needs at least one source: name it under sources")
    for name, source in sources.items():
        given = source.kind if isinstance(source, (Source, QuestionSource)) else None
        if given == taken:
            continue
        it = f"source {name!r} is invalid: a {type(source).__name__}"
        if given is None:
            raise ValueError(f"{it}, which is no source; {datamodule} takes sources of {taken}")
        raise ValueError(
            f"{it}, which gives {given}; {datamodule} takes {taken}, and {given} go to {USERS[given].datamodule}"
        )


def check_weights(sources: Mapping[str, Any]) -> None:
    """Refuse weights that some sources have and others lack."""
    weights = [source.weight is not None for source in sources.values()]
    if any(weights) and not all(weights):
        missing = next(name for name, source in sources.items() if source.weight is None)
        raise ValueError(f"source {missing!r} has no weight and others have: give weights to all sources or to none")
