"""The curriculum of a config of `nbg fit`, from a file or from the parser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbg_lightning.schedule.curriculum import Curriculum, Stage


def read_curriculum(config: Mapping[str, Any]) -> Curriculum | None:
    """The curriculum of the config's FGWSD callback; None where it has no such callback.

    Args:
        config: plain mappings, with or without the parser's defaults (a default that is null is the class's own).

    Raises:
        ValueError: two such callbacks, arguments that are missing or unknown, or values that `Curriculum` refuses.
    """
    given = (config.get("trainer") or {}).get("callbacks") or []
    callbacks = [each for each in (given if isinstance(given, list) else [given]) if isinstance(each, Mapping)]
    tables = [each.get("init_args") or {} for each in callbacks if _class_name(each) == "FGWSD"]
    if not tables:
        return None
    if len(tables) > 1:
        raise ValueError(f"trainer.callbacks is invalid: {len(tables)} of FGWSD; give one")
    table = tables[0]
    try:
        stages = [Stage(**_given(stage.get("init_args", stage))) for stage in table["stages"]]
        return Curriculum(**{**_given(table), "stages": stages})
    except (AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"trainer.callbacks FGWSD: {error}") from error


def _class_name(callback: Mapping[str, Any]) -> str:
    return str(callback.get("class_path", "")).rpartition(".")[2]


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if value is not None}
