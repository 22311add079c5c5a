"""Settings of commands from options and YAML files: one way to name, read, merge and instantiate them.

``--config FILE`` may be given again, later files and options win. Options have dashes (``--query-terms``), and are accepted
with underscores too, as in YAML.

Two kinds of commands use this: those whose settings are the arguments of a class (`settings_parser`, `parse_settings`), and those
that read the config of a training for something else (`add_config_option`, `read_config`, `make_datamodule`, `instantiate`).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nbg_lightning import log
from nbg_lightning.commands.config_shapes import no_mapping
from nbg_lightning.commands.former_arguments import with_current_configs
from nbg_lightning.commands.meant import unrecognized, with_suggestion
from nbg_lightning.commands.precheck import check_configs
from nbg_lightning.commands.shorthand import expand_configs, expand_settings
from nbg_lightning.config_files import config_content, read_yaml, resolve_arguments, yaml_text
from nbg_lightning.error_line import one_line
from nbg_lightning.moved import with_current_arguments
from nbg_lightning.suggestion import did_you_mean

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule

_UNKNOWN = re.compile(r"^Option '([\w.-]+)' is not accepted|^unrecognized arguments: --([\w.-]+)")
_REQUIRED = re.compile(r"the following arguments are required: ([\w., -]+)|Key \"([\w.]+)\" is required")


# -- settings that are the arguments of a class ------------------------------------------------------------------------


def settings_parser(command: str, kind: type) -> Any:
    """Make the parser of a command whose settings are the arguments of a class; the class is not instantiated.

    Args:
        command: after ``nbg``.
        kind: with typed arguments, described in its docstring.
    """
    import jsonargparse

    description = (kind.__doc__ or "").strip().split("\n\n")[0]
    parser = jsonargparse.ArgumentParser(
        prog=f"nbg {command}", description=description, exit_on_error=False, default_env=False
    )
    parser.add_argument("--config", action="config", help="YAML file with the settings below; may be repeated")
    parser.add_class_arguments(kind)
    for option, action in list(parser._option_string_actions.items()):
        dashed = _dashed(option)
        if dashed != option:
            parser._option_string_actions[dashed] = action
            action.option_strings = [dashed]  # what --help shows
    return parser


def _dashed(option: str) -> str:
    return "--" + option[2:].replace("_", "-") if option.startswith("--") else option


def _underscored(argument: str) -> str:
    """An option of a nested setting as its key: ``--drafting.top-p`` is ``--drafting.top_p``."""
    option, equals, value = argument.partition("=")
    nested = option.startswith("--") and "." in option
    return ("--" + option[2:].replace("-", "_") if nested else option) + equals + value


def parse_settings(parser: Any, argv: Sequence[str], former: Mapping[str, str]) -> dict[str, Any]:
    """Read the settings of a command's options and configs, as objects.

    Args:
        parser: of `settings_parser`.
        argv: what stands after the command.
        former: former names of settings, and what they are called.

    Raises:
        FileNotFoundError: a config that is not there.
        ValueError: settings that the command does not have, or cannot use; in one line.
    """
    arguments = [_underscored(argument) for argument in with_current_configs(_long_settings(resolve_arguments(argv)))]
    try:
        settings = parser.instantiate(parser.parse_args(arguments))
    except argparse.ArgumentError as error:
        raise ValueError(_explained(one_line(str(error)), parser, former)) from error
    return {name: value for name, value in vars(settings).items() if name != "config"}


def _long_settings(argv: Sequence[str]) -> list[str]:
    """The arguments with configs in their long form; those that have no short form stay as they are."""
    arguments = list(argv)
    for index, argument in enumerate(arguments):
        follows = index > 0 and arguments[index - 1] == "--config"
        if follows or argument.startswith("--config="):
            content = config_content(argument.removeprefix("--config="))
            if isinstance(content, dict) and (text := yaml_text(expand_settings(content, log.info))) != yaml_text(
                content
            ):
                arguments[index] = text if follows else f"--config={text}"
    return arguments


def _explained(message: str, parser: Any, former: Mapping[str, str]) -> str:
    """A parser's error with what to do about it."""
    if match := _REQUIRED.search(message):
        return f"{match[1] or match[2]} is invalid: not given; give --config FILE with it, or the option"
    options = [option for action in parser._actions for option in action.option_strings]
    if match := _UNKNOWN.search(message):
        given = (match[1] or match[2]).replace("-", "_").partition(".")[0]
        if given in former:
            return f"{given} is invalid: this setting has another name; write {former[given]}"
        if match[1]:  # a key of YAML
            return message + did_you_mean(given, [action.dest for action in parser._actions])
    return with_suggestion(unrecognized(message, parser.prog.removeprefix("nbg "), options))


# -- configs of `nbg fit` ----------------------------------------------------------------------------------------------


def add_config_option(parser: argparse.ArgumentParser, explanation: str) -> None:
    """Add ``--config FILE``, which may be given again; the files are a list under ``config``."""
    parser.add_argument("--config", action="append", required=True, metavar="FILE", help=explanation)


def read_config(paths: Sequence[str], say: Callable[[str], None] = log.info) -> dict[str, Any]:
    """Merge YAML files of `nbg fit` key by key, the last one winning; another class keeps the settings that it has too.

    Args:
        paths: of the files.
        say: is given a line for each source whose class was guessed.

    Raises:
        FileNotFoundError, ValueError: a file that is not there, or no config, or a short form that `expand_configs` refuses.
    """
    contents = [(path, read_yaml(path)) for path in paths]
    for path, content in contents:
        if not isinstance(content, dict):
            raise ValueError(no_mapping("CONFIG", path, content))
    expanded = expand_configs([content for _, content in contents], say=say)
    current = [with_current_arguments(content) for content in expanded]
    check_configs(current)
    merged: dict[str, Any] = {}
    for content in current:
        merged = _merged(merged, content)
    return merged


def check_config(paths: Sequence[str]) -> None:
    """Refuse, before anything heavy is imported, what `read_config` would refuse later.

    Raises:
        FileNotFoundError, ValueError: as `read_config`.
    """
    read_config(paths, say=lambda line: None)


def _merged(base: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    if "class_path" in base and other.get("class_path", base["class_path"]) != base["class_path"]:
        base = {"init_args": _accepted(base.get("init_args") or {}, other["class_path"])}
    both = {k: _merged(base[k], v) for k, v in other.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return {**base, **other, **both}


def _accepted(settings: dict[str, Any], class_path: str) -> dict[str, Any]:
    from nbg_lightning.import_path import import_object
    from nbg_lightning.keywords import constructor_parameters

    parameters = constructor_parameters(import_object(class_path))
    return {name: value for name, value in settings.items() if name in parameters}


def instantiate(kind: Any, given: Any, where: str) -> Any:
    """Make an object from its YAML.

    Args:
        kind: what it must be.
        given: ``class_path`` and ``init_args``.
        where: its place in a config, for errors.

    Raises:
        ValueError: it cannot be made.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--it", type=kind)
    try:
        return parser.instantiate(parser.parse_object({"it": given})).it
    except Exception as error:  # jsonargparse raises its own kind; each means: this config cannot be
        raise ValueError(f"{where}: {one_line(str(error)).removeprefix('it: ')[:500]}") from error


def make_datamodule(config: Mapping[str, Any], name: str) -> LightningDataModule:
    """Make the datamodule of a config; nothing is read or prepared.

    Args:
        config: of `nbg fit`, as read.
        name: of the config, for errors.

    Raises:
        ValueError: the config has no ``data``, or one that cannot be made.
    """
    from lightning.pytorch import LightningDataModule

    from nbg_lightning.datamodules.steps import StepDataModule

    given = config.get("data")
    if not isinstance(given, Mapping) or "class_path" not in given:
        raise ValueError(f"{name} has no data.class_path; name a datamodule there")
    init_args = {"seed": config.get("seed", 0), **(given.get("init_args") or {})}
    data: LightningDataModule = instantiate(
        LightningDataModule, {"class_path": given["class_path"], "init_args": init_args}, f"{name}: data"
    )
    if isinstance(data, StepDataModule):
        data.base_weights = ((config.get("model") or {}).get("init_args") or {}).get("base_weights")
    return data
