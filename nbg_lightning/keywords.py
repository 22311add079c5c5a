"""Keyword arguments that a constructor passes on to its base class, with their names and types declared once."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

__all__ = ["Keywords", "constructor_parameters"]

if TYPE_CHECKING:
    from typing import Unpack as Keywords
else:

    class Keywords:
        """``**settings: Keywords[Declared]``: a type checker reads the TypedDict ``Declared``.

        At run time it is `Any`, so that jsonargparse follows ``super().__init__(**settings)`` to the parameters of the base,
        which have the defaults that a TypedDict cannot hold; YAML keys stay flat.
        """

        def __class_getitem__(cls, declared: type) -> Any:
            return Any


def constructor_parameters(kind: type) -> dict[str, inspect.Parameter]:
    """The constructor parameters of a class: its own, and those of its bases to which it passes its keywords.

    >>> from collections import Counter
    >>> list(constructor_parameters(type("Own", (Counter,), {"__init__": lambda self, size, **others: None})))
    ['size', 'iterable']
    """
    found: dict[str, inspect.Parameter] = {}
    for base in inspect.getmro(kind):
        if base is object or "__init__" not in base.__dict__:
            continue
        parameters = list(inspect.signature(base.__dict__["__init__"]).parameters.values())[1:]
        variadic = {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
        found |= {p.name: p for p in parameters if p.kind not in variadic and p.name not in found}
        if all(p.kind != inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
    return found
