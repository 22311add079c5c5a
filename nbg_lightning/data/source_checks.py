"""Checks that a datamodule is given sources of the right kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbg_lightning.data.kind import USERS, DataKind
from nbg_lightning.data.question_sources import QuestionSource
from nbg_lightning.data.sources import Source


def check_sources(sources: object, taken: DataKind, datamodule: str) -> None:
    """Refuse sources of the wrong kind for a datamodule, before any of their rows is read.

    Args:
        sources: sources by name, as given by the user.
        taken: the kind of data that the datamodule takes.
        datamodule: name of its class.

    Raises:
        ValueError: there are none, they have no names, or one has another kind; the message says where that kind belongs.
    """
    if not isinstance(sources, Mapping):
        raise ValueError(f"sources are invalid: a {type(sources).__name__}; give names to them: {{NAME: SOURCE}}")
    if not sources:
        raise ValueError(f"{datamodule} needs at least one source; name it under sources")
    for name, source in sources.items():
        given = source.kind if isinstance(source, (Source, QuestionSource)) else None
        if given == taken:
            continue
        it = f"source {name!r} is invalid: a {type(source).__name__}"
        if given is None:
            raise ValueError(f"{it}, which is not a source; {datamodule} takes sources of {taken}")
        raise ValueError(
            f"{it}, which gives {given}; {datamodule} takes {taken}, and {given} go to {USERS[given].datamodule}"
        )


def check_weights(sources: Mapping[str, Any]) -> None:
    """Refuse weights that only some of the sources have."""
    weights = [source.weight is not None for source in sources.values()]
    if any(weights) and not all(weights):
        missing = next(name for name, source in sources.items() if source.weight is None)
        raise ValueError(f"source {missing!r} has no weight and others have; give weights to all sources or to none")
