"""Public names that are imported on first use, so that `import nbg_lightning` imports no torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from nbg_lightning.suggestion import did_you_mean


def lazy_names(
    package: str, modules: dict[str, list[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package whose names live in the given submodules."""
    home = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}{did_you_mean(name, home)}")
        return getattr(importlib.import_module(f"{package}.{home[name]}"), name)

    return get, lambda: sorted(home), sorted(home)
