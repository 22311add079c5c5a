"""Shapes of values in a config: a list where a mapping belongs, a number where a class does, a word where a number does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbg_lightning.class_source import Kinds, find, is_abstract, is_mapping, signature

_SHOWN = 60  # characters of a value
_YES_OR_NO = {"true", "false", "yes", "no", "on", "off"}
_NONE = {"null", "none", "~", ""}
_CLASS = "write the name of a class, such as {example}, or class_path and init_args"


class Wrong(ValueError):
    """A config or option that no parser would accept."""


def check_class_node(node: Any, where: str, example: str) -> None:
    """Refuse what cannot be a class with its arguments.

    Args:
        node: a name, or a mapping with ``class_path`` and ``init_args``.
        where: of the node, for the error.
        example: a class that would do.

    Raises:
        Wrong: a number, a list, or a mapping whose parts are of another kind.
    """
    if isinstance(node, str) and node.strip():
        return
    if not isinstance(node, Mapping):
        raise Wrong(f"{where} is invalid: {shown(node)}; {_CLASS.format(example=example)}")
    if "class_path" in node and not (isinstance(node["class_path"], str) and node["class_path"].strip()):
        value = shown(node["class_path"])
        raise Wrong(f"{where}.class_path is invalid: {value}; write the name of a class, such as {example}")
    if not node.keys() - {"init_args", "dict_kwargs"}:
        raise Wrong(f"{where} is invalid: {shown(dict(node))}; {_CLASS.format(example=example)}")
    check_arguments_node(node, where)


def check_arguments_node(node: Mapping[str, Any], where: str) -> None:
    """Refuse arguments of a class that are not a mapping.

    Raises:
        Wrong: they are nothing, a list, a number or a text, or have names that are not strings.
    """
    for key in ("init_args", "dict_kwargs"):
        if key in node and not isinstance(node[key], Mapping):
            or_no = ", or leave init_args out" if node[key] is None else ""
            raise Wrong(f"{where}.{key} is invalid: {shown(node[key])}; write each argument as NAME: VALUE{or_no}")
        check_keys(node.get(key) or {}, f"{where}.{key}")


def check_keys(node: Mapping[Any, Any], where: str) -> None:
    """Refuse keys that are not strings: a number, a truth value or nothing, as YAML reads ``1:``, ``yes:`` and ``:``.

    Raises:
        Wrong: with the key.
    """
    for key in node:
        if not isinstance(key, str):
            raise Wrong(f"{where} is invalid: its key {shown(key)} is no text; write a name, such as NAME: VALUE")


def check_mapping_class(node: Mapping[str, Any], kind: Kinds, where: str) -> None:
    """Refuse ``class_path`` where the keys of one dataclass are wanted.

    Raises:
        Wrong: it names another class.
    """
    if kind.is_whole and kind.classes and not kind.values and all(map(is_mapping, kind.classes)):
        named = node["class_path"]
        if not (isinstance(named, str) and find(named) in kind.classes):
            raise Wrong(f"{where} is invalid: class_path {shown(named)}; expected {expected(kind)}")


def check_shape(value: Any, kind: Kinds, where: str) -> None:
    """Refuse a value whose shape an annotation does not allow; what it may allow is left to the parser.

    Raises:
        Wrong: a list, mapping, number or truth value where there can be none.
    """
    if not kind.is_whole or not (kind.classes or kind.literals or kind.scalars or kind.elements or kind.values):
        return
    if isinstance(value, list):
        wrong = not kind.elements
    elif isinstance(value, dict):
        # Arguments alone are laid over the class that another config names.
        needs_class = bool(kind.classes) and all(map(is_abstract, kind.classes)) and not value
        wrong = not kind.values and (not kind.classes or needs_class)
    elif isinstance(value, str):
        wrong = _is_wrong_text(value, kind)
    elif isinstance(value, bool):
        wrong = "bool" not in kind.scalars
    elif isinstance(value, float):
        wrong = set(kind.scalars) <= {"str", "bool"} or ("float" not in kind.scalars and not value.is_integer())
    elif isinstance(value, int):
        wrong = set(kind.scalars) <= {"str", "bool"}
    else:
        return
    if wrong:
        raise Wrong(f"{where} is invalid: {shown(value)}; expected {expected(kind)}")


def _is_wrong_text(value: str, kind: Kinds) -> bool:
    """Whether a text is nothing where something is wanted, or a word where keys or a list are."""
    if not value.strip():
        return "str" not in kind.scalars
    only_keys = bool(kind.classes) and all(signature(each).is_data for each in kind.classes)
    others = kind.scalars or kind.literals or kind.elements or kind.values
    only_list = bool(kind.elements) and not (kind.scalars or kind.literals or kind.values or kind.classes)
    only_class = bool(kind.classes) and not others and (only_keys or not value[:1].isupper())
    is_name = value.isidentifier() and value.lower() not in _NONE  # an option's null is a text
    return (only_list or only_class) and is_name and not Path(value).exists()


def check_null(kind: Kinds, where: str) -> None:
    """Refuse an element that is nothing.

    Raises:
        Wrong: the annotation has no None.
    """
    if kind.is_whole and not kind.is_optional:
        raise Wrong(f"{where} is invalid: null; expected {expected(kind)}")


def expected(kind: Kinds) -> str:
    """What an annotation allows, in words.

    Example:
        >>> expected(Kinds(scalars=["float"], elements=[Kinds(scalars=["float"])]))
        'float or a list'
    """
    found = list(dict.fromkeys(kind.scalars))
    if kind.literals:
        found.append(f"one of {', '.join(kind.literals)}")
    if kind.elements:
        found.append("a list")
    if kind.values:
        found.append("NAME: VALUE")
    for each in kind.classes:
        known = signature(each)
        names = ", ".join(list(known.parameters)[:3])
        if known.is_data and not is_abstract(each):
            found.append(f"keys such as {names}" if names else "a mapping")
        else:
            found.append("a class with class_path and init_args")
    return " or ".join(dict.fromkeys(found)) or "another value"


def shown(value: Any) -> str:
    """A value for an error: short, on one line, as YAML has it.

    Example:
        >>> shown(None), shown([1, 2]), shown(True)
        ('null', '[1, 2]', 'true')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value) if not isinstance(value, str) or not value.strip() else value
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def is_another_type(value: str, kind: Kinds) -> bool:
    """Whether a text is certainly neither of the numbers, nor the yes or no, that are allowed alone."""
    if not kind.scalars or "str" in kind.scalars or not kind.is_whole or _is_text_of_yaml(value):
        return False
    if kind.literals or kind.classes or kind.elements or kind.values:
        return False
    if value.lower() in _NONE or ("bool" in kind.scalars and value.lower() in _YES_OR_NO):
        return False
    if "int" not in kind.scalars and "float" not in kind.scalars:
        return True
    try:
        return float(value.replace("_", "")) is None
    except ValueError:
        return not value.lstrip("-+").startswith(("0x", "0o", "0b", "."))


def _is_text_of_yaml(value: str) -> bool:
    return value[:1] in ("{", "[", "!", "&", "*", "'", '"')


def may_be(value: str, kind: Kinds) -> bool:
    """Whether a text may be a value of the kind: anything where more than literals, numbers and data are allowed."""
    if not kind.literals or not kind.is_whole or kind.elements or kind.values:
        return True
    if kind.scalars and not is_another_type(value, Kinds(scalars=kind.scalars)):
        return True  # as typed: --....replicate 2
    is_other = value.lower() in _NONE or value[0] in "{[" or "/" in value  # YAML, or a path of it
    return value in kind.literals or is_other or not all(signature(each).is_data for each in kind.classes)


def no_mapping(option: str, name: str, content: Any) -> str:
    """Say that a config has no keys."""
    held = "nothing" if not content else "a list" if isinstance(content, list) else f"{content!r}"[:60]
    return f"{option} is invalid: {name}; it holds {held}: write keys such as model, data and trainer"


def is_field(name: str, kind: Kinds) -> bool:
    """Whether a parameter is of a dataclass with such a field."""
    found = [signature(each) for each in kind.classes]
    return any(each.is_data and name in each.parameters for each in found)
