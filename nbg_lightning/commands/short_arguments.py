"""The arguments of a trainer's command in their long form: configs by `expand_configs`, and options in the same way."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nbg_lightning.class_names import SINGLE, class_names, class_path, full_name
from nbg_lightning.commands.shorthand import COUNTS, Classes, Say, data_of, expand_configs, model_of, named_class, size
from nbg_lightning.config_files import config_content, parse_yaml, yaml_text

_CLASS_OPTION = re.compile(r"--(model|data|trainer\.(callbacks\+?|logger|strategy))|--[\w.]+\.class_path")
_OBJECT_OPTION = re.compile(rf"--(model|data)\.([\w.]+\.)?({'|'.join(sorted(SINGLE - {'model', 'data'}))})")
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
    named = Classes(_named(arguments, "model"), _named(arguments, "data"))
    left_out = _left_out(arguments, list(configs.values()), named)
    expanded = expand_configs(given, Classes(named.model or left_out.model, named.data or left_out.data), say)
    for index, before, after in zip([*configs, *options], given, expanded, strict=True):
        if yaml_text(before) == yaml_text(after):
            continue
        arguments[index] = f"--config={yaml_text(after)}" if index in configs else _as_option(arguments[index], after)
    if arguments == _joined(argv):
        arguments = list(argv)
    classes = {"model": left_out.model, "data": left_out.data}
    arguments[1:1] = [f"--{part}={name}" for part, name in classes.items() if name is not None]
    return arguments


def _left_out(arguments: Sequence[str], configs: Sequence[Mapping[str, Any]], named: Classes) -> Classes:
    """The classes of parts that options speak of and nothing names, where only one fits: an option needs its class before it."""
    keys = {part: _keys_below(arguments, part) for part in ("model", "data")}
    classes = Classes(*(named_class(configs, part) for part in keys))
    model, data = named.model or classes.model, named.data or classes.data
    return Classes(
        model_of(data) if model is None and keys["model"] else None,
        data_of(model, keys["data"]) if data is None and keys["data"] else None,
    )


def _keys_below(arguments: Sequence[str], part: str) -> set[str]:
    """The arguments of the model or the data that options give."""
    starts = (f"--{part}.init_args.", f"--{part}.")
    options = [each.partition("=")[0] for each in arguments]
    below = [next((each.removeprefix(start) for start in starts if each.startswith(start)), "") for each in options]
    return {each.partition(".")[0] for each in below} - {"", "class_path", "init_args", "help"}


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
        any(each.fullmatch(option) for each in (_CLASS_OPTION, _OBJECT_OPTION, _CORE_OPTION, _SOURCE_OPTION))
        or _counts(option)
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
    if equals and _OBJECT_OPTION.fullmatch(option):
        is_class = value in class_names() or (_key(option) == "reward" and value[:1].isupper() and value.isidentifier())
        return f"{option}={class_path(value, option.removeprefix('--'))}" if is_class else argument
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
    """The config option that `_of_source` converted an option to."""
    option = argument.partition("=")[0]
    match = _SOURCE_OPTION.fullmatch(option)
    assert match is not None
    sources = config["data"]["init_args"][match[1]]
    return f"{option}={yaml_text(sources[match[2]] if match[2] else sources)}"
