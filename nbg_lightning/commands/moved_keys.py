"""Keys of earlier configs that stand elsewhere today: they are read where they are, and their new place is said.

A run's own ``config.yaml`` names every setting, so an earlier run can only be resumed if these are read. What moved: keys of
`GRPOModule` at ``model.init_args.KEY`` (``clip_low``, ``kl_coefficient``, ... in `MOVED_SETTINGS`) are
``model.init_args.loss.KEY``, with ``loss: {name: NAME}``; and of all modules that draw answers, ``rollout_deadline`` is
``rollouts.deadline`` and ``validation_samples`` is ``rollouts.validation_samples``.

A loss that one config names and another gives settings is one loss: ``loss: dapo`` and ``loss: {clip_high: 0.3}`` are merged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nbg_lightning.commands.former_arguments import read_config_option, with_current_configs
from nbg_lightning.config_files import yaml_text
from nbg_lightning.rl.policy_loss import DEFAULT_LOSS, MOVED_SETTINGS, with_moved_settings
from nbg_lightning.rl.rollout_settings import MOVED as MOVED_ROLLOUTS

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
    argv = _with_moved_rollouts(with_current_configs(argv))
    arguments = _joined(argv)
    configs = {index: read_config_option(each) for index, each in enumerate(arguments) if each.startswith("--config=")}
    named = [each.partition("=")[2] for each in arguments if each.startswith(("--model=", "--model.class_path="))]
    named = [
        str(_model(config).get("class_path")) for config in configs.values() if "class_path" in _model(config)
    ] + named
    if not named or named[-1] not in _CLASS or not _need_merging(list(map(_settings, configs.values())), arguments):
        return list(argv)
    has_loss = False
    for index, argument in enumerate(arguments):
        if index in configs and (settings := _settings(configs[index])):
            loss = settings.pop("loss", None)
            own = {"name": loss} if isinstance(loss, str) else dict(loss or {})
            if not has_loss:  # the module's default
                own = {"name": DEFAULT_LOSS, **own}
            has_loss = True
            configs[index]["model"]["init_args"] = with_moved_settings({**settings, **({"loss": own} if own else {})})
            arguments[index] = "--config=" + yaml_text(configs[index])
        elif _names_loss(argument):
            arguments[index] = argument.replace("=", ".name=", 1)
        elif (key := _moved_option(argument)) is not None:
            arguments[index] = f"{_LOSS}.{key}={argument.partition('=')[2]}"
    return arguments


def _with_moved_rollouts(argv: Sequence[str]) -> list[str]:
    """The arguments with `MOVED_ROLLOUTS` in ``rollouts``; unchanged where none of them is there."""
    arguments = list(argv)
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        moved = next((new for old, new in MOVED_ROLLOUTS.items() for start in _HERE if name == start + old), None)
        if moved is not None:
            arguments[index] = f"--model.init_args.rollouts.{moved}{equals}{value}"
        elif name == "--config" and equals:
            arguments[index] = f"--config={_config_with_moved_rollouts(value)}"
        elif index and arguments[index - 1] == "--config" and not argument.startswith("--"):
            arguments[index] = _config_with_moved_rollouts(argument)
    return arguments


def _config_with_moved_rollouts(file: str) -> str:
    """The text of a config whose settings of rollouts are in one place; the file itself where nothing moves."""
    config = read_config_option(file)
    settings = _settings(config)
    if settings.keys().isdisjoint(MOVED_ROLLOUTS):
        return file
    found = {new: settings.pop(old) for old, new in MOVED_ROLLOUTS.items() if old in settings}
    settings["rollouts"] = {**(settings.get("rollouts") or {}), **found}
    return yaml_text(config)


def _need_merging(configs: Sequence[Mapping[str, Any]], arguments: Sequence[str]) -> bool:
    """Whether settings of the loss are given next to it, or without its name."""
    if any(not config.keys().isdisjoint(MOVED_SETTINGS) for config in configs) or any(map(_moved_option, arguments)):
        return True
    losses: list[Any] = [config["loss"] for config in configs if "loss" in config]
    losses += [each.partition("=")[2] for each in arguments if _names_loss(each)]
    apart = any(isinstance(loss, dict) for loss in losses) or any(each.startswith(f"{_LOSS}.") for each in arguments)
    together = bool(losses) and all(isinstance(loss, dict) for loss in losses) and "name" in losses[0]
    return apart and not together


def _names_loss(argument: str) -> bool:
    """Whether an option gives a loss by its name alone, and not as a mapping in JSON."""
    option, _, value = argument.partition("=")
    return option == _LOSS and value.isidentifier()


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


def _model(config: Mapping[str, Any]) -> dict[str, Any]:
    model = config.get("model")
    return model if isinstance(model, dict) else {}


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    settings = _model(config).get("init_args")
    return settings if isinstance(settings, dict) else {}
