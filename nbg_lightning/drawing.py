"""Pictures whose texts are what they say: a dollar sign in a name begins no formula."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def literal_text(draw: Callable[P, T]) -> Callable[P, T]:
    """A function that draws, while matplotlib takes no text for mathematics (a broken formula would end the drawing)."""

    @functools.wraps(draw)
    def drawn(*arguments: P.args, **options: P.kwargs) -> T:
        import matplotlib

        with matplotlib.rc_context({"text.parse_math": False}):
            return draw(*arguments, **options)

    return drawn
