"""Import of objects by path, as given in YAML and on command lines.

jsonargparse's function of this name is not used: it is private, does not accept ``module:name``, and passes on errors of a
user's module.
"""

from __future__ import annotations

import importlib
from typing import Any


def import_object(path: str) -> Any:
    """The object at ``package.module.name`` (or ``package.module:name``).

    Raises:
        ValueError: the path names nothing, or its module cannot be imported.

    Example:
        >>> import_object("math.gcd")(12, 18)
        6
    """
    module_name, _, name = path.replace(":", ".").rpartition(".")
    if not module_name or not name:
        raise ValueError(f"import path is invalid: {path!r}; write package.module.name")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises
        raise ValueError(
            f"{path!r}: importing {module_name} failed ({type(error).__name__}: {error}); fix the module, or name another"
        ) from error
    if not hasattr(module, name):
        raise ValueError(f"{path!r}: {module_name} has no {name!r}; check the name")
    return getattr(module, name)
