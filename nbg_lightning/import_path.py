"""Objects by import path, as YAML and command lines name them.

Not jsonargparse's function of this name: it is private there, does not take ``module:name``, and lets errors of a user's module
through.
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
