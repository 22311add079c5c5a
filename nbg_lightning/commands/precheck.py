"""What can be seen to be wrong with the command of a training before torch is imported, which takes seconds.

Configs and options are compared with the sources of the classes that they name (`nbg_lightning.class_source`), and with the files
that they name. Only what is certain is refused; all else is left to the parser.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from nbg_lightning.class_source import (
    Definition,
    Kinds,
    SourceSignature,
    class_attribute,
    find,
    kinds,
    signature,
)
from nbg_lightning.commands.config_shapes import (
    Wrong,
    check_arguments_node,
    check_class_node,
    check_keys,
    check_mapping_class,
    check_null,
    check_shape,
    is_another_type,
    is_field,
    may_be,
    no_mapping,
    shown,
)
from nbg_lightning.commands.existing_class import existing_class
from nbg_lightning.commands.former_arguments import with_current_configs
from nbg_lightning.commands.input_paths import check_inputs
from nbg_lightning.commands.meant import unrecognized
from nbg_lightning.commands.one_seed import check_seed
from nbg_lightning.commands.short_arguments import expand_arguments
from nbg_lightning.commands.shorthand import expand_settings
from nbg_lightning.config_files import parse_yaml, read_yaml
from nbg_lightning.data.kind import misfit
from nbg_lightning.suggestion import did_you_mean
from nbg_lightning.trainer_options import ALWAYS, STEPS, TRAINING, refuse

TOP = ("seed", "model", "data", "trainer", "ckpt_path", "verbose", "weights_only", "return_predictions")
"""Keys of a config, and options without a dot."""
NO_MODEL = (
    "there is no model; give --config FILE, such as --config configs/pretrain/quickstart.yaml, or --model NAME, such as "
    "--model PretrainModule"
)
_MAIN = {"model": "SFTModule", "data": "ChatDataModule"}  # with an example of each
_CLASSES = {"callbacks": "nbg_lightning.StepCheckpoint", "logger": "nbg_lightning.loggers.TrackioLogger"}
_WHOLE = Kinds(scalars=["int"])
_CLASS_KEYS = {"class_path", "init_args", "dict_kwargs"}


@dataclass
class _Given:
    """What a command names, in its order.

    Attributes:
        configs: contents of its files.
        options: dotted keys with their values; None where the value follows in a way that is not read here.
    """

    command: str
    configs: list[dict[str, Any]] = field(default_factory=list)
    options: list[tuple[str, str | None]] = field(default_factory=list)

    def class_of(self, part: str, position: int | None = None) -> str | None:
        """The class of ``model`` or ``data``: after a config of this position, or of the whole command."""
        named = [_class_path(config.get(part)) for config in self.configs]
        options = [value for key, value in self.options if key in (part, f"{part}.class_path")]
        if position is None:
            return next((each for each in [*options[::-1], *named[::-1]] if each), None)
        before = [each for each in named[: position + 1] if each]
        return before[-1] if before else self.class_of(part)


def check(argv: Sequence[str]) -> None:
    """Refuse what is certainly wrong.

    Args:
        argv: the command of the trainer with its options; configs are files that exist.

    Raises:
        ValueError: a key, class, preset, or combination that cannot be; one line with the cause and what was meant.
        FileNotFoundError: data or weights that are not there.
    """
    if alone := list(takewhile(lambda each: not each.startswith("-"), argv[1:])):
        raise ValueError(unrecognized(f"unrecognized arguments: {' '.join(alone)}", argv[0], ["--config"]))
    given = _read(with_current_configs(expand_arguments(argv)))
    if given is None:
        return
    lists = f"nbg {given.command} --help lists options, nbg {given.command} --data.help CLASS those of a class"
    try:
        for position, config in enumerate(given.configs):
            _check_config(given, config, position)
        for key, value in given.options:
            _check_option(given, key, value)
    except Wrong as error:
        raise ValueError(f"{error} ({lists})") from None
    if given.class_of("model") is None and not any(config.get("model") for config in given.configs):
        raise ValueError(NO_MODEL)
    module, datamodule = given.class_of("model"), given.class_of("data")
    if module and datamodule:
        _check_fit(module, datamodule)
    options = dict(given.options)
    if any(key.startswith("print_config") for key in options):
        return
    _check_trainer_options(given, module, datamodule)
    check_seed(given.configs, options)
    if given.command == "fit":
        check_inputs(given.configs, options)


def check_configs(configs: Sequence[dict[str, Any]]) -> None:
    """Refuse a file that certainly is not a config of `nbg fit`, for other commands that read such configs.

    Raises:
        ValueError: an unknown key or class, or a value of another shape; one line that suggests the closest name.
    """
    given = _Given("fit", list(configs))
    try:
        for position, config in enumerate(given.configs):
            _check_config(given, config, position)
    except Wrong as error:
        raise ValueError(str(error)) from None


def _check_trainer_options(given: _Given, module: str | None, datamodule: str | None) -> None:
    settings = {key: value for config in given.configs for key, value in _mapping(config.get("trainer")).items()}
    for key, value in given.options:
        if key.startswith("trainer.") and value is not None:
            settings[key.removeprefix("trainer.")] = parse_yaml(value, f"--{key}")
    refuse(settings, ALWAYS)
    if given.command == "fit" and (module or "").startswith("nbg_lightning."):
        if datamodule is not None and class_attribute(find(datamodule), "kind"):
            refuse(settings, STEPS)
        refuse(settings, TRAINING)


def check_builder(class_path: str, argv: Sequence[str], former: Container[str]) -> None:
    """Refuse settings that a builder of data certainly does not have.

    Args:
        class_path: of the builder.
        argv: its options; configs are files that exist, or YAML.
        former: names that its command explains.

    Raises:
        ValueError: an unknown setting or class; suggests the closest name.
    """
    builder = find(class_path)
    given = _read([str(class_attribute(builder, "name")), *argv])
    if given is None or builder is None:
        return
    options: list[dict[str, Any]] = []
    for key, value in given.options:
        if meant := did_you_mean(key, ["config"], 0.9):  # it is no setting of the builder
            raise ValueError(f"unrecognized arguments: --{key}{meant.replace('mean ', 'mean --')}")
        first, *rest = key.replace("-", "_").split(".")
        node: Any = value
        for name in reversed(rest):
            node = {name: node}
        options.append({} if first in ("print_config", "h") else {first: node})
    for settings in [*map(expand_settings, given.configs), *options]:
        known = {key: value for key, value in settings.items() if key not in former}
        try:
            _check_arguments(builder, known, given.command)
        except Wrong as error:
            raise ValueError(f"{error} (nbg {given.command} --help lists what it takes)") from None


def _read(argv: Sequence[str]) -> _Given | None:
    """The configs and options; None where help is asked for, or something stands there that this does not read."""
    given = _Given(argv[0])
    rest = list(argv[1:])
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--"):
            if argument.startswith(("-c", "-h")) and len(argument) == 2:
                return None
            options = [f"--{each}" for each in (*TOP, "config", "print_config")]
            raise ValueError(unrecognized(f"unrecognized arguments: {argument}", argv[0], options))
        option, equals, value = argument.removeprefix("--").partition("=")
        if option.rpartition(".")[2] in ("help", "h"):
            return None
        if not equals and rest and not rest[0].startswith("--") and option != "print_config":
            value, equals = rest.pop(0), "="
        if option == "config" and not value:
            raise ValueError("--config is invalid: no file is given; write --config FILE")
        if option == "config":
            is_file = "\n" not in value and Path(value).expanduser().is_file()
            content = read_yaml(Path(value).expanduser()) if is_file else parse_yaml(value, "--config")
            if not isinstance(content, dict):
                raise ValueError(no_mapping("--config", value, content))
            given.configs.append(content)
        else:
            given.options.append((option, value if equals else None))
    return given


# -- keys and classes ------------------------------------------------------------------------------------------------------


def _check_config(given: _Given, config: Mapping[str, Any], position: int) -> None:
    for key in (key for key in config if not isinstance(key, str)):
        raise Wrong(f"key is invalid: {shown(key)}; write keys such as model, data and trainer")
    _check_names(config, TOP, "", f"nbg {given.command} does not accept option")
    for part, example in _MAIN.items():
        overlay = {"init_args", "dict_kwargs"}  # alone, they are laid over another config's
        if config.get(part) is not None and (not isinstance(config[part], dict) or config[part].keys() - overlay):
            check_class_node(config[part], part, example)
        node = _mapping(config.get(part))
        check_arguments_node(node, part)
        if node.keys() - _CLASS_KEYS:
            continue  # a short form
        path = given.class_of(part, position)
        if path:
            _check_class(path, node.get("init_args"), part)
    _check_value(config.get("seed"), _WHOLE, "seed")
    if not isinstance(config.get("ckpt_path"), str | None):
        raise Wrong(f"ckpt_path is invalid: {shown(config['ckpt_path'])}; give a checkpoint's folder, or last")
    if not isinstance(config.get("trainer"), dict | None):
        raise Wrong(f"trainer is invalid: {shown(config['trainer'])}; write its options as NAME: VALUE")
    _check_trainer(given, _mapping(config.get("trainer")))


def _check_trainer(given: _Given, trainer: Mapping[str, Any]) -> None:
    check_keys(trainer, "trainer")
    own = _trainer()
    if own.is_whole:
        _check_names(trainer, own.parameters, "trainer.", f"nbg {given.command} does not accept option")
    for key, value in trainer.items():
        if isinstance(value, str | list | dict | float | int) and key in own.parameters and key not in _CLASSES:
            _check_value(value, kinds(own.parameters[key]), f"trainer.{key}")
    for key in ("callbacks", "callbacks+", "logger", "strategy", "plugins"):
        where = f"trainer.{key.removesuffix('+')}"
        for node in trainer[key] if isinstance(trainer.get(key), list) else [trainer.get(key)]:
            may_be_absent = node is trainer.get(key) and (node is None or (isinstance(node, bool) and key == "logger"))
            is_overlay = node is trainer.get(key) and isinstance(node, dict) and set(node) == {"init_args"}
            if (example := _CLASSES.get(key.removesuffix("+"))) and not may_be_absent and not is_overlay:
                check_class_node(node, where, example)
                if isinstance(node, str) and "." not in node:
                    raise Wrong(f"{where} is invalid: {shown(node)}; write a list of classes, such as [{example}]")
            _check_value(node, None, where)


def _trainer() -> SourceSignature:
    found = find("nbg_lightning.Trainer")
    return SourceSignature({}, is_whole=False) if found is None else signature(found)


def _check_class(path: str, arguments: Any, where: str) -> None:
    """A class that is named, and the names of its arguments."""
    definition = existing_class(path, where)
    if arguments is not None:
        check_arguments_node({"init_args": arguments}, where)
    if definition is None or not definition.is_class or not isinstance(arguments, dict):
        return
    _check_arguments(definition, arguments, f"{where}: {path}")


def _check_arguments(definition: Definition, arguments: Mapping[str, Any], where: str) -> None:
    known = signature(definition)
    if known.is_whole:
        former = _former_keys(definition)
        for key in arguments:
            name = _name(key)
            if name is not None and name not in known.parameters and name not in former:
                raise Wrong(f"{where}: Option {name!r} is not accepted{did_you_mean(name, known.parameters)}")
    for key, value in arguments.items():
        if (name := _name(key)) is not None and name in known.parameters:
            kind = kinds(known.parameters[name])
            if value is None and key == name and kind.is_whole and not kind.is_optional:
                raise Wrong(f"{where}: {name} is invalid: null; give a value, or leave it out for the default")
            _check_value(value, kind, f"{where}: {name}")


def _former_keys(definition: Definition) -> frozenset[str]:
    """Keys of earlier configs, which `moved_keys` reads."""
    loss = find("nbg_lightning.rl.policy_loss.PolicyLossConfig")
    if definition != find("nbg_lightning.GRPOModule") or loss is None:
        return frozenset()
    return frozenset(signature(loss).parameters)


def _check_value(value: Any, kind: Kinds | None, where: str) -> None:
    """A value with classes in it, or one of few texts."""
    if kind is not None:
        check_shape(value, kind, where)
    if isinstance(value, dict):
        check_keys(value, where)
        if "class_path" in value:
            if kind is not None:
                check_mapping_class(value, kind, where)
            check_class_node(value, where, "package.module.Name")
            _check_class(value["class_path"], value.get("init_args"), where)
        elif value and value.keys() <= _CLASS_KEYS:
            check_arguments_node(value, where)
        elif kind is not None:
            _check_mapping(value, kind, where)
    elif isinstance(value, list):
        element = kind.elements[0] if kind is not None and len(kind.elements) == 1 else None
        for place, each in enumerate(value):
            if each is None and element is not None:
                check_null(element, f"{where}[{place}]")
            _check_value(each, element, where if isinstance(each, dict | str) else f"{where}[{place}]")
    elif isinstance(value, str) and kind is not None and is_another_type(value, kind):
        raise Wrong(f"{where} is invalid: {value}; expected {' or '.join(dict.fromkeys(kind.scalars))}")
    elif isinstance(value, str) and kind is not None and not may_be(value, kind):
        choices = ", ".join(map(repr, kind.literals))
        raise Wrong(f"{where}: expected Literal[{choices}]; given value: {value}{did_you_mean(value, kind.literals)}")


def _check_mapping(value: Mapping[str, Any], kind: Kinds, where: str) -> None:
    if kind.values and not kind.classes and kind.is_whole and len(kind.values) == 1:
        for name, each in value.items():
            if each is None:
                check_null(kind.values[0], f"{where}.{name}")
            _check_value(each, kind.values[0], where if isinstance(each, dict | str) else f"{where}.{name}")
    elif len(kind.classes) == 1 and not kind.values and kind.is_whole and not value.keys() & _CLASS_KEYS:
        known = signature(kind.classes[0])
        if known.is_data and "preset" not in value:
            _check_arguments(kind.classes[0], value, where)


def _check_names(node: Mapping[str, Any], known: Any, prefix: str, refusal: str) -> None:
    for key, value in node.items():
        name = _name(key)
        if name is not None and name not in known:
            inner = next((f".{each}" for each in value if isinstance(each, str)), "") if isinstance(value, dict) else ""
            raise Wrong(f"{refusal} '{prefix}{name}{inner}'{did_you_mean(name, known)}")


def _name(key: Any) -> str | None:
    """The first part of a key, without the plus of lists that are appended to."""
    return key.partition(".")[0].removesuffix("+") if isinstance(key, str) else None


# -- options ---------------------------------------------------------------------------------------------------------------


def _check_option(given: _Given, option: str, value: str | None) -> None:
    """A key of the command line."""
    first, *rest = option.split(".")
    if first.removesuffix("+") not in (*TOP, "print_config"):
        shown = f"{value}" if value is not None else ""
        meant = _whole_option(given, first) or did_you_mean(
            f"--{first}", [f"--{each}" for each in (*TOP, "config", "print_config")]
        )
        raise Wrong(f"unrecognized arguments: --{option} {shown}".rstrip() + meant)
    if first == "trainer" and rest:
        own = _trainer()
        name = rest[0].removesuffix("+")
        if own.is_whole and name not in own.parameters:
            raise Wrong(f"unrecognized arguments: --{option}{did_you_mean(name, own.parameters)}")
        if len(rest) == 1 and value is not None and name in own.parameters:
            _check_value(value, kinds(own.parameters[name]), f"trainer.{name}")
    if option == "seed":
        _check_value(value, _WHOLE, "seed")
    path = given.class_of(first) if first in _MAIN else None
    if path is None:
        return
    if not rest or rest == ["class_path"]:
        if value is not None and "." in value:
            existing_class(value, first)
        return
    rest = rest[1:] if rest[0] == "init_args" else rest
    if rest and rest[0] not in _CLASS_KEYS:
        node: Any = value
        for name in reversed(rest[1:]):
            node = {name: node}
        _check_class(path, {rest[0]: node}, first)


def _whole_option(given: _Given, name: str) -> str:
    """`` (did you mean --trainer.NAME?)`` for an option without the part that has it; empty where none has."""
    owners = {"trainer": "nbg_lightning.Trainer", **{part: given.class_of(part) for part in _MAIN}}
    for part, owner in owners.items():
        definition = find(owner or "")
        known = {} if definition is None else signature(definition).parameters
        inner = [key for key, each in known.items() if is_field(name, kinds(each))]
        if name in known or inner:
            return f" (did you mean --{'.'.join([part, *([] if name in known else inner[:1]), name])}?)"
    return ""


# -- what goes together ----------------------------------------------------------------------------------------------------


def _check_fit(module: str, datamodule: str) -> None:
    trains_on = class_attribute(find(module), "trains_on")
    kind = class_attribute(find(datamodule), "kind")
    if (
        trains_on
        and kind
        and (line := misfit(module.rpartition(".")[2], trains_on, datamodule.rpartition(".")[2], kind))
    ):
        raise ValueError(line)


def _class_path(node: Any) -> str | None:
    found = node if isinstance(node, str) else _mapping(node).get("class_path")
    return found if isinstance(found, str) else None


def _mapping(node: Any) -> dict[str, Any]:
    return node if isinstance(node, dict) else {}
