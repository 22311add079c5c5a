"""Keys of earlier configs that stand elsewhere today: they are read where they are, and their new place is said.

A run's own ``config.yaml`` names every setting, so a run of before can only be resumed if these are read. What moved:

====================================================== ==========================================================
key of `GRPOModule`, at ``model.init_args.KEY``        today
====================================================== ==========================================================
``clip_low``, ``kl_coefficient``, ... (`MOVED_SETTINGS`) ``model.init_args.loss.KEY``, with ``loss: {name: NAME}``
====================================================== ==========================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from nbg_lightning.config_files import read_yaml
from nbg_lightning.rl.policy_loss import DEFAULT_LOSS, MOVED_SETTINGS, with_moved_settings

_CLASS = (
    "GRPOModule",
    "nbg_lightning.GRPOModule",
    "nbg_lightning.modules.GRPOModule",
    "nbg_lightning.modules.grpo.GRPOModule",
)
_HERE = ("--model.init_args.", "--model.")
_LOSS = "--model.init_args.loss"


def with_moved_keys(argv: Sequence[str]) -> list[str]:
    """The arguments of a trainer's command with every key where it stands today; configs that change become texts."""
    arguments = _joined(argv)
    configs = {index: _config(each) for index, each in enumerate(arguments) if each.startswith("--config=")}
    named = [each.partition("=")[2] for each in arguments if each.startswith(("--model=", "--model.class_path="))]
    named = [
        str(_model(config).get("class_path")) for config in configs.values() if "class_path" in _model(config)
    ] + named
    moved = [config for config in configs.values() if set(_settings(config)) & set(MOVED_SETTINGS)]
    if not named or named[-1] not in _CLASS or not (moved or any(map(_moved_option, arguments))):
        return list(argv)
    has_loss = False
    for index, argument in enumerate(arguments):
        if index in configs:
            settings = _settings(configs[index])
            if not settings:
                continue
            loss = settings.get("loss")
            settings["loss"] = {"name": loss} if isinstance(loss, str) else dict(loss or {})
            if not has_loss:
                settings["loss"] = {"name": DEFAULT_LOSS, **settings["loss"]}
            has_loss = True
            configs[index]["model"]["init_args"] = with_moved_settings(settings)
            arguments[index] = "--config=" + yaml.safe_dump(configs[index], sort_keys=False)
        elif argument.startswith(f"{_LOSS}="):
            arguments[index] = argument.replace("=", ".name=", 1)
        elif (key := _moved_option(argument)) is not None:
            arguments[index] = f"{_LOSS}.{key}={argument.partition('=')[2]}"
    return arguments


def _joined(argv: Sequence[str]) -> list[str]:
    """Options with their values behind an equals sign, where they are looked at here."""
    arguments: list[str] = []
    for argument in argv:
        before = arguments[-1] if arguments else ""
        if "=" not in before and (before in ("--config", "--model", _LOSS) or _moved_option(before) is not None):
            arguments[-1] = f"{before}={argument}"
        else:
            arguments.append(argument)
    return arguments


def _moved_option(argument: str) -> str | None:
    name = argument.partition("=")[0]
    return next((key for start in _HERE for key in MOVED_SETTINGS if name == start + key), None)


def _config(argument: str) -> dict[str, Any]:
    path = argument.removeprefix("--config=")
    try:
        content = read_yaml(path) if Path(path).is_file() else None
    except ValueError:
        return {}  # the parser says what is wrong with it
    return content if isinstance(content, dict) else {}


def _model(config: Mapping[str, Any]) -> dict[str, Any]:
    model = config.get("model")
    return model if isinstance(model, dict) else {}


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    settings = _model(config).get("init_args")
    return settings if isinstance(settings, dict) else {}
