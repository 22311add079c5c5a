"""The JSON schema of configs, for editors: every public class with its arguments, in the long and in the short form."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from typing_extensions import is_protocol

from nbg_lightning.class_names import LISTS, NAMED, SINGLE, class_names
from nbg_lightning.import_path import import_object
from nbg_lightning.keywords import constructor_parameters

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_ARGUMENT = re.compile(r"^( +)(\w+(?:, \w+)*): (.+(?:\n\1 +\S.*)*)", re.MULTILINE)  # further lines are indented more
_LONGEST_DESCRIPTION = 400  # characters that an editor shows at once
_ROOMS = {  # where the classes of a key are; a key that is not here takes any class
    "model": ("nbg_lightning.modules",),
    "data": ("nbg_lightning.datamodules",),
    "callbacks": ("nbg_lightning.callbacks", "lightning.pytorch.callbacks"),
    "callbacks+": ("nbg_lightning.callbacks", "lightning.pytorch.callbacks"),
    "reward": ("nbg_lightning.rewards",),
    "rewards": ("nbg_lightning.rewards",),
    "engine": ("nbg_lightning.engines",),
    "logger": ("lightning.pytorch.loggers", "nbg_lightning.loggers"),
    "benchmarks": ("nbg_lightning.evaluation",),
    "environment": ("nbg_lightning.environments",),
    "sources": ("nbg_lightning.data", "nbg_lightning.testing"),
    "validation_sources": ("nbg_lightning.data", "nbg_lightning.testing"),
}
_ANY = "any"  # what stands under a key whose classes may be of any room
Schema = dict[str, Any]


def training_schema() -> Schema:
    """The schema of configs of `nbg fit`, ``validate``, ``test`` and ``predict``."""
    from nbg_lightning.trainer import Trainer

    classes = _classes()
    trainer = _arguments(Trainer)
    lightning = _arguments(Trainer.__mro__[1])
    trainer["properties"] = {**lightning["properties"], **trainer["properties"]}
    trainer["properties"] |= {f"{key}+": value for key, value in trainer["properties"].items() if key == "callbacks"}
    return {
        "$schema": _DRAFT,
        "title": "a config of nbg fit, validate, test or predict",
        "type": "object",
        "properties": {
            "seed": {"type": "integer", "description": "of the weights and of the data order"},
            "model": _reference("key:model"),
            "data": _reference("key:data"),
            "trainer": trainer,
            "ckpt_path": {"type": ["string", "null"], "description": "checkpoint or run to go on from; last"},
            "weights_only": {},
            "verbose": {"type": "boolean"},
            "dataloaders": {},
            "return_predictions": {},
        },
        "additionalProperties": False,
        "$defs": _definitions(classes),
    }


def class_schema(title: str, kind: type) -> Schema:
    """The schema of a config whose keys are the arguments of a class."""
    classes = _classes()
    return {
        "$schema": _DRAFT,
        "title": title,
        **_arguments(kind),
        "$defs": _definitions(classes),
    }


def _definitions(classes: Mapping[str, tuple[type, str]]) -> Schema:
    """Every class with its arguments, and what may stand under each key."""
    return {
        **{name: _arguments(found) for name, (found, _) in sorted(classes.items())},
        _ANY: _object("", classes),
        **{f"key:{key}": _value(key, classes) for key in sorted(SINGLE | LISTS | NAMED)},
    }


def _classes() -> Mapping[str, tuple[type, str]]:
    """Short name to class and import path, of those that can be made in a config here."""
    found = {}
    for name, path in class_names().items():
        try:
            kind = import_object(path)
        except (ImportError, AttributeError):  # its library is not installed
            continue
        if isinstance(kind, type) and not inspect.isabstract(kind) and not is_protocol(kind):
            found[name] = kind, path
    return found


def _value(key: str, classes: Mapping[str, tuple[type, str]]) -> Schema:
    """What stands under a key of `class_names`: an object, a list of them, or names with one each; texts are short forms."""
    one = _object(key, classes) if key in _ROOMS else _reference(_ANY)
    if key in LISTS:
        return {"if": {"type": "array"}, "then": {"items": one}, "else": one}
    if key in NAMED:
        return {"anyOf": [{"type": "object", "additionalProperties": one}, {"type": "array"}, {"type": "string"}]}
    return one


def _object(key: str, classes: Mapping[str, tuple[type, str]]) -> Schema:
    """An object: ``class_path`` with ``init_args``, ``Name: {arguments}``, a name alone, or arguments alone."""
    rooms = _ROOMS.get(key)
    fitting = {
        name: path
        for name, (kind, path) in classes.items()
        if rooms is None or kind.__module__.startswith(rooms) or path.startswith(rooms)
    }
    names = [*fitting, *fitting.values()]
    cases = [
        {
            "if": {"properties": {"class_path": {"enum": [name, path]}}, "required": ["class_path"]},
            "then": {"properties": {"init_args": {"anyOf": [_reference(name), {"type": "null"}]}}},
        }
        for name, path in fitting.items()
    ]
    return {
        "type": ["object", "string", "null", "boolean", "array"],
        "properties": {
            "class_path": {"type": "string", "anyOf": [{"enum": names}, {}], "description": "class of the object"},
            "init_args": {"type": ["object", "null"]},
            **{name: {"anyOf": [_reference(name), {"type": "null"}]} for name in fitting},
        },
        "allOf": cases,
    }


def _reference(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _arguments(kind: type | Callable[..., Any]) -> Schema:
    """The arguments of a class; unknown ones are refused where all are known."""
    parameters = constructor_parameters(kind)  # type: ignore[arg-type]  # a function's signature is read alike
    described = dict(_descriptions(kind))
    properties = {}
    for name in sorted(parameters):
        given: Schema = {}
        if name in SINGLE | LISTS | NAMED:
            given["$ref"] = f"#/$defs/key:{name}"
        if name in described:
            given["description"] = described[name]
        properties[name] = given
    own = inspect.getdoc(kind) or ""
    return {
        "type": "object",
        "description": own.partition("\n\n")[0][:_LONGEST_DESCRIPTION],
        "properties": properties,
        "additionalProperties": False,
    }


def _descriptions(kind: Any) -> Iterable[tuple[str, str]]:
    """What docstrings say of arguments; those of a class go before those of its bases."""
    for each in reversed(inspect.getmro(kind)):
        documentation = each.__dict__.get("__doc__") or ""
        part = re.split(r"\n\s*(?:Args|Attributes):\n", documentation, maxsplit=1)
        for match in _ARGUMENT.finditer(part[1].split("\n\n")[0] + "\n" if len(part) > 1 else ""):
            text = " ".join(match[3].split())[:_LONGEST_DESCRIPTION]
            yield from ((name, text) for name in match[2].split(", "))
