"""Public names that are imported on first use, so that `import nbg_lightning` does not import torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from nbg_lightning.moved import new_name
from nbg_lightning.suggestion import did_you_mean


def lazy_names(
    package: str, modules: dict[str, list[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package whose names live in the given submodules.

    A module may be named relative to the package, such as ``..scoring.sandbox``.
    """
    home = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in home:
            if (new := new_name(f"{package}.{name}")) is not None:
                raise ImportError(f"{package}.{name} has a new name: {new}; write that")  # Python keeps its text
            raise AttributeError(f"module {package!r} has no attribute {name!r}{did_you_mean(name, home)}")
        module = home[name] if home[name].startswith(".") else f".{home[name]}"
        return getattr(importlib.import_module(module, package), name)

    return get, lambda: sorted(home), sorted(home)
