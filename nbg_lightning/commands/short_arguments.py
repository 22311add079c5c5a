"""The arguments of a trainer's command in their long form: configs by `expand_configs`, and options likewise."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from nbg_lightning.class_names import class_path, full_name
from nbg_lightning.commands.shorthand import COUNTS, Classes, Say, expand_configs, size
from nbg_lightning.config_files import config_content, parse_yaml, yaml_text

_CLASS_OPTION = re.compile(r"--(model|data|trainer\.(callbacks\+?|logger|strategy))|--[\w.]+\.class_path")
_CORE_OPTION = re.compile(r"--model\.(?:init_args\.)?core(\.preset)?")
_SOURCE_OPTION = re.compile(r"--data\.(?:init_args\.)?(sources|validation_sources)(?:\.(\w+))?")


def expand_arguments(argv: Sequence[str], say: Say = lambda line: None) -> list[str]:
    """The arguments with configs and options in their long form; those that have no short form stay as they are.

    Args:
        argv: the command and its options.
        say: is given a line for each source whose class was guessed.

    Raises:
        FileNotFoundError, ValueError: as `expand_configs`.
    """
    arguments = [_long_option(argument) for argument in _joined(argv)]
    places = [index for index, argument in enumerate(arguments) if argument.startswith("--config=")]
    contents = {index: config_content(arguments[index].removeprefix("--config=")) for index in places}
    configs = {index: content for index, content in contents.items() if isinstance(content, dict)}
    sources = {index: _of_source(arguments[index]) for index in range(len(arguments))}
    options = {index: content for index, content in sources.items() if content is not None}
    given = [*configs.values(), *options.values()]
    expanded = expand_configs(given, Classes(_named(arguments, "model"), _named(arguments, "data")), say)
    for index, before, after in zip([*configs, *options], given, expanded, strict=True):
        if yaml_text(before) == yaml_text(after):
            continue
        arguments[index] = f"--config={yaml_text(after)}" if index in configs else _as_option(arguments[index], after)
    return arguments if arguments != _joined(argv) else list(argv)


def _joined(argv: Sequence[str]) -> list[str]:
    """Options with their values behind an equals sign, where they are looked at here."""
    arguments: list[str] = []
    for argument in argv:
        before = arguments[-1] if arguments else ""
        if _is_read(before) and not argument.startswith("--"):
            arguments[-1] = f"{before}={argument}"
        else:
            arguments.append(argument)
    return arguments


def _is_read(option: str) -> bool:
    return option == "--config" or bool(
        any(each.fullmatch(option) for each in (_CLASS_OPTION, _CORE_OPTION, _SOURCE_OPTION)) or _counts(option)
    )


def _counts(option: str) -> bool:
    return option.startswith("--") and _key(option) in COUNTS


def _key(option: str) -> str:
    return option.removeprefix("--").rpartition(".")[2]


def _long_option(argument: str) -> str:
    option, equals, value = argument.partition("=")
    if equals and _CLASS_OPTION.fullmatch(option):
        is_class = value[:1].isupper() and value.isidentifier() and not option.endswith(("logger", "strategy"))
        return f"{option}={class_path(value, option.removeprefix('--')) if is_class else full_name(value)}"
    if equals and (match := _CORE_OPTION.fullmatch(option)):
        return _core_option(
            option.removesuffix(".preset"), {"preset": value} if match[1] else parse_yaml(value, option)
        )
    return f"{option}={size(_key(option), value)}" if equals and _counts(option) else argument


def _core_option(option: str, core: Any) -> str:
    """A shape, of a preset perhaps, as one option; a preset's name stays a name."""
    if not isinstance(core, dict):
        return f"{option}={core}"
    (config,) = expand_configs([{"model": {"init_args": {"core": core}}}])
    return f"{option}={yaml_text(config['model']['init_args']['core'])}"


def _named(arguments: Sequence[str], key: str) -> str | None:
    """The class that the last option names."""
    starts = (f"--{key}=", f"--{key}.class_path=")
    return next((each.partition("=")[2] for each in reversed(arguments) if each.startswith(starts)), None)


def _of_source(argument: str) -> dict[str, Any] | None:
    """An option of sources as a config."""
    option, equals, value = argument.partition("=")
    match = _SOURCE_OPTION.fullmatch(option)
    if match is None or not equals:
        return None
    content = parse_yaml(value, option)
    return {"data": {"init_args": {match[1]: {match[2]: content} if match[2] else content}}}


def _as_option(argument: str, config: dict[str, Any]) -> str:
    """The option of a config that `_of_source` made of it."""
    option = argument.partition("=")[0]
    match = _SOURCE_OPTION.fullmatch(option)
    assert match is not None
    sources = config["data"]["init_args"][match[1]]
    return f"{option}={yaml_text(sources[match[2]] if match[2] else sources)}"
