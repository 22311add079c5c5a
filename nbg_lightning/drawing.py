"""Plots with literal texts: a dollar sign in a name does not start a formula."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def literal_text(draw: Callable[P, T]) -> Callable[P, T]:
    """Decorate a plotting function so that matplotlib does not parse text as mathematics (an invalid formula would raise)."""

    @functools.wraps(draw)
    def drawn(*arguments: P.args, **options: P.kwargs) -> T:
        import matplotlib

        with matplotlib.rc_context({"text.parse_math": False}):
            return draw(*arguments, **options)

    return drawn
