"""Short forms of the configs of trainings and tests, made long before they are parsed: mappings in, mappings out.

docs/configs.md has a table of them. A config that has none is left as it is. Several configs of a command are made long
together, since one may say what another leaves out: a second file that gives sources to the first one's datamodule need not
name its class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast, get_args

from nbg_lightning.class_names import with_whole_names
from nbg_lightning.class_source import class_attribute, find
from nbg_lightning.commands.config_shapes import check_arguments_node, check_class_node
from nbg_lightning.config_files import shipped
from nbg_lightning.core.config import PRESETS
from nbg_lightning.data.guess import guess_source, source_names
from nbg_lightning.data.kind import USERS, DataKind
from nbg_lightning.schedule.tokens import parse_tokens
from nbg_lightning.suggestion import did_you_mean

_BENCHMARKS = "nbg_lightning.BenchmarkDataModule"
_MODULES = {
    **{f"nbg_lightning.{users.datamodule}": f"nbg_lightning.{users.module}" for users in USERS.values()},
    _BENCHMARKS: "nbg_lightning.PretrainModule",  # any module will do: of it a suite needs nothing but the weights
}
_EXAMPLES = {"model": "SFTModule", "data": "ChatDataModule"}
_OWN = {"class_path", "init_args", "dict_kwargs"}
_SOURCES = ("sources", "validation_sources")
COUNTS = frozenset(
    {
        *("count", "every_n_steps", "limit", "max_steps", "prompts_per_step", "seed", "steps", "val_check_interval"),
        *("max_batch_tokens", "max_length", "max_new_tokens", "max_position_embeddings", "max_prompt_tokens"),
        *(
            "micro_batch_tokens",
            "sequence_length",
            "train_vocab_size",
            "validation_length",
            "validation_tokens",
            "vocab_size",
        ),
    }
)
"""Keys of whole numbers that may be written as texts: ``64K``, ``8.4M``."""
_REAL = frozenset(
    {"minimum_score", "rope_theta", "threshold", "timeout"}
)  # keys of shipped configs: a float is as well there
_FREE = frozenset({"config", "dict_kwargs"})  # mappings that other libraries read: nothing in them is changed
Say = Callable[[str], None]


class Classes(NamedTuple):
    """The module and datamodule that a command's configs name; None where none does."""

    model: str | None = None
    data: str | None = None


NO_OPTIONS = Classes()


def expand_configs(
    configs: Sequence[Mapping[str, Any]], named: Classes = NO_OPTIONS, say: Say = lambda line: None
) -> list[dict[str, Any]]:
    """The configs of one command in their long form.

    Args:
        configs: in their order; they are not changed.
        named: by options, which win over configs.
        say: is given a line for each source whose class was guessed.

    Raises:
        ValueError: an unknown class, preset, path or number, or a datamodule that has to be named.
    """
    try:
        lifted = [_lifted(with_whole_names(dict(config))) for config in configs]
    except RecursionError:
        raise ValueError(
            "a config is invalid: it is nested too deeply, or refers to itself; remove its anchors (&, *)"
        ) from None
    lines: dict[str, None] = {}
    models, datamodules = (_in_effect(lifted, key, name) for key, name in zip(("model", "data"), named, strict=True))
    last = Classes(
        *(option or next(reversed(found), None) for option, found in zip(named, (models, datamodules), strict=True))
    )
    _give_classes(lifted, last, any(_has_flat_data(config) for config in configs))
    for index, config in enumerate(lifted):
        classes = Classes(*(found[index] or None for found in (models, datamodules)))
        lifted[index] = _with_values(_with_core(_with_sources(config, classes, lambda line: lines.setdefault(line))))
    for line in lines:  # once, though several configs have it
        say(line)
    return lifted


def _lifted(config: dict[str, Any]) -> dict[str, Any]:
    """Arguments that stand right under ``model`` and ``data`` put under ``init_args``."""
    for key in _EXAMPLES:
        given = config.get(key)
        if isinstance(given, dict) and "class_path" in given:
            check_class_node(given, key, _EXAMPLES[key])
        if isinstance(given, dict) and not given.keys() <= _OWN:
            check_arguments_node(given, key)
            beside = {name: value for name, value in given.items() if name not in _OWN}
            config[key] = {name: value for name, value in given.items() if name in _OWN}
            config[key]["init_args"] = {**(given.get("init_args") or {}), **beside}
    return config


def _has_flat_data(config: Mapping[str, Any]) -> bool:
    """Whether arguments stand right under ``data``, as only a short form has them."""
    data = config.get("data")
    return isinstance(data, dict) and not data.keys() <= _OWN


def _in_effect(configs: Sequence[Mapping[str, Any]], key: str, option: str | None) -> list[str | None]:
    """For each config the class that it names, or the nearest one before it, or the first one after it, or that of the option."""
    nodes = [config.get(key) for config in configs]
    named = [node.get("class_path") if isinstance(node, dict) else None for node in nodes]
    own = [name if isinstance(name, str) else None for name in named]
    current = next((name for name in own if name), option)
    found = []
    for name in own:
        current = name or current
        found.append(current)
    return found


# -- the class that is left out --------------------------------------------------------------------------------------------


def _give_classes(configs: list[dict[str, Any]], named: Classes, is_short: bool) -> None:
    """Name the class of data or model in the first config that has one, where no config does and only one fits.

    Raises:
        ValueError: none or several fit data in their short form.
    """
    data, model = (next((c for c in configs if isinstance(c.get(key), dict)), None) for key in ("data", "model"))
    datamodule = named.data
    if data is not None and datamodule is None:
        datamodule = data_of(named.model, {name for config in configs for name in _arguments(config, "data")})
        if datamodule is not None:
            data["data"] = {"class_path": datamodule, **data["data"]}
        elif is_short and named.model is not None and find(named.model) is not None:
            known = ", ".join(users.datamodule for users in USERS.values())
            raise ValueError(
                f"data is invalid: it names no class, and {named.model} trains on data of any kind; write "
                f"data: {{NAME: {{...}}}}, one of {known}"
            )
    if model is not None and named.model is None and (module := model_of(datamodule)) is not None:
        model["model"] = {"class_path": module, **model["model"]}


def _arguments(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    node = config.get(key)
    inside = node.get("init_args") if isinstance(node, dict) else None
    return inside if isinstance(inside, dict) else {}


def data_of(model: str | None, keys: set[str]) -> str | None:
    """The one datamodule that fits; None where none or several do.

    Args:
        model: the class of the module.
        keys: arguments that are given to the datamodule.
    """
    if "suite" in keys:
        return _BENCHMARKS
    kind = None if model is None else _kind_of_module(model)
    return None if kind is None else f"nbg_lightning.{USERS[kind].datamodule}"


def model_of(data: str | None) -> str | None:
    """The module that the library's datamodule is made for."""
    return _MODULES.get(data or "")


def named_class(configs: Sequence[Mapping[str, Any]], part: str) -> str | None:
    """The class that the last of the configs names for ``model`` or ``data``."""
    nodes = [with_whole_names(dict(config)).get(part) for config in configs]
    names = [node.get("class_path") if isinstance(node, dict) else None for node in nodes]
    return next((name for name in reversed(names) if isinstance(name, str)), None)


def _kind_of_module(name: str) -> DataKind | None:
    """What a module trains on; the class is asked where it is not one of those that train in the library."""
    known = {f"nbg_lightning.{users.module}": kind for kind, users in USERS.items()}
    return known.get(name) or _declared(name, "trains_on")


def _kind_of_datamodule(name: str) -> DataKind | None:
    known = {f"nbg_lightning.{users.datamodule}": kind for kind, users in USERS.items()}
    return known.get(name) or (None if name == _BENCHMARKS else _declared(name, "kind"))


def _declared(name: str, attribute: str) -> DataKind | None:
    """What a class of the user's own says of its data, read from its source; None for one that says nothing."""
    found = class_attribute(find(name), attribute)
    return cast(DataKind, found) if found in get_args(DataKind) else None


# -- sources -----------------------------------------------------------------------------------------------------------


def _with_sources(config: dict[str, Any], classes: Classes, say: Say) -> dict[str, Any]:
    """Sources that are paths or names of data sets as classes."""
    arguments = _arguments(config, "data")
    name = (config["data"].get("class_path") if isinstance(config.get("data"), dict) else None) or classes.data
    found = {key: arguments[key] for key in _SOURCES if key in arguments}
    name = name or data_of(classes.model, set(arguments))
    kind = _kind_of_datamodule(name) if found and name is not None else None
    if kind is None:
        return config
    guessed = {key: expand_sources(sources, kind, f"data.{key}", say) for key, sources in found.items()}
    return {**config, "data": {**config["data"], "init_args": {**arguments, **guessed}}}


def expand_sources(sources: Any, kind: DataKind, place: str, say: Say = lambda line: None) -> Any:
    """Sources with a class each: a path alone, a list of paths, or a mapping of names to paths, or to arguments with a path.

    Args:
        sources: as they were read; what has classes stays.
        kind: of the data that they shall give.
        place: for errors.
        say: as in `expand_configs`.

    Raises:
        ValueError: a path that stands for nothing, see `guess_source`.

    Example:
        >>> expand_sources({"chats": "my/chats.jsonl"}, "conversations", "sources")["chats"]["class_path"]
        'nbg_lightning.data.ChatJsonLines'
    """
    texts = [sources] if isinstance(sources, str) else sources
    if isinstance(texts, list) and texts and all(isinstance(each, str) for each in texts):
        sources = dict(zip(source_names(texts), texts, strict=True))
    if not isinstance(sources, dict):
        return sources
    return {name: _source(source, kind, f"{place}.{name}", say) for name, source in sources.items()}


_BUILDER_SOURCES: Mapping[str, DataKind] = {
    "sources": "documents",
    "conversations": "conversations",
    "questions": "questions",
}


def expand_settings(settings: Mapping[str, Any], say: Say = lambda line: None) -> dict[str, Any]:
    """The settings of a builder in their long form: classes by their short names, sources by their paths.

    Raises:
        ValueError: as `expand_configs`.
    """
    whole = with_whole_names(_with_values(dict(settings)))
    kinds = {key: kind for key, kind in _BUILDER_SOURCES.items() if key in whole}
    return {**whole, **{key: expand_sources(whole[key], kind, key, say) for key, kind in kinds.items()}}


def _source(source: Any, kind: DataKind, place: str, say: Say) -> Any:
    given = {"path": source} if isinstance(source, str) else source
    if not isinstance(given, dict) or not given.keys().isdisjoint(_OWN):
        return source
    text = given.get("path", given.get("name_or_folder"))
    if not isinstance(text, str):
        return source
    try:
        guess = guess_source(text, kind)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    say(f"source {place.rpartition('.')[2]}: {text} is read as {guess.form} ({guess.class_path.rpartition('.')[2]})")
    rest = {name: value for name, value in given.items() if name not in ("path", "name_or_folder")}
    return {"class_path": guess.class_path, "init_args": {guess.argument: text, **rest}}


# -- presets and sizes -------------------------------------------------------------------------------------------------


def _with_core(config: dict[str, Any]) -> dict[str, Any]:
    """``core: {preset: NAME, ...}`` as the shape of that preset with these changes."""
    arguments = _arguments(config, "model")
    core = arguments.get("core")
    if not isinstance(core, dict) or "preset" not in core:
        return config
    name, changes = core["preset"], {key: value for key, value in core.items() if key != "preset"}
    if name not in PRESETS:
        raise ValueError(
            f"model.core.preset is invalid: {name}{did_you_mean(str(name), PRESETS)}; there are {', '.join(PRESETS)}"
        )
    return {**config, "model": {**config["model"], "init_args": {**arguments, "core": {**PRESETS[name], **changes}}}}


def _with_values(node: Any, key: str = "") -> Any:
    """Whole numbers that are written as texts or with an exponent, as numbers; ``configs/...`` as the file that is meant."""
    if isinstance(node, dict):
        return {
            name: value if name in _FREE else _with_values(value, name if isinstance(name, str) else "")
            for name, value in node.items()
        }
    if isinstance(node, list):
        return [_with_values(each) for each in node]
    return size(key, shipped(node) if isinstance(node, str) else node)


def size(key: str, value: Any) -> Any:
    """The whole number that an exponent stands for, or a text under a key of `COUNTS`; any other value as it is.

    A number with an exponent is a float in YAML. Below 2 it stays one: shares of 1.0 are not counts of 1.

    >>> size("sequence_length", "64K"), size("max_steps", 1e3), size("name", "64K"), size("val_check_interval", 1.0)
    (64000, 1000, '64K', 1.0)
    """
    if isinstance(value, float):
        return int(value) if value >= 2 and value.is_integer() and key not in _REAL else value
    if not isinstance(value, str) or key not in COUNTS:
        return value
    try:
        return parse_tokens(value)
    except ValueError:
        return value  # the parser says what is wrong with it
