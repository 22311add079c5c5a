"""Optional packages, installed by extras of this library."""

from __future__ import annotations

import importlib
from typing import Any


def require(module: str, who: str, extra: str = "construction") -> Any:
    """Import an optional module.

    Args:
        module: its import name.
        who: component that needs it.
        extra: extra of this library that installs it.

    Raises:
        ImportError: it is not installed, with the command to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{who} needs {module.split('.')[0]}; pip install 'nbg-lightning[{extra}]'") from error
