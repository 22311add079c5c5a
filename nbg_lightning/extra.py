"""Packages that an extra of this library installs."""

from __future__ import annotations

import importlib
from typing import Any


def require(module: str, who: str, extra: str = "construction") -> Any:
    """The module.

    Args:
        module: its import name.
        who: needs it.
        extra: of this library, that installs it.

    Raises:
        ImportError: it is not installed, and how it is.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{who} needs {module.split('.')[0]}; pip install 'nbg-lightning[{extra}]'") from error
