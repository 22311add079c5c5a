"""A complete HTML page: no network access, only its own script, dark mode, narrow screens, print."""

from __future__ import annotations

import base64
import hashlib
import html
from functools import cache
from importlib import resources

from nbg_lightning.printable import printable


def text(value: str) -> str:
    """A text escaped for HTML, including invisible characters (control characters, writing direction).

    Example:
        >>> text("<b>\\x1b[31m")
        '&lt;b&gt;\\\\x1b[31m'
    """
    return html.escape(printable(value), quote=True)


def shortened(value: str, limit: int) -> str:
    """A text of at most ``limit`` characters, truncated in the middle with a note of how many are omitted.

    Example:
        >>> shortened("abcdefghij", 4)
        'ab\\n[… 6 characters left out …]\\nij'
    """
    if len(value) <= limit:
        return value
    end = limit // 2
    left_out = len(value) - limit
    return f"{value[: limit - end]}\n[… {left_out:,} characters left out …]\n{value[len(value) - end :]}"


@cache
def asset(name: str) -> str:
    """A style sheet or script of this package."""
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def document(title: str, body: str, style: str = "", script: str = "") -> str:
    """The page.

    Its content security policy blocks all requests, and all scripts except ``script``, which is allowed by its digest.

    Args:
        title: window title, as plain text.
        body: HTML.
        style: CSS in addition to ``page.css``.
        script: JavaScript.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"'sha256-{digest}'" if script else "'none'"
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'; "
        "form-action 'none'"
    )
    return (
        "<!doctype html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        "<meta name=viewport content='width=device-width, initial-scale=1'>\n"
        "<meta name=color-scheme content='light dark'>\n<meta name=generator content=nbg_lightning>\n"
        f"<title>{text(title)}</title>\n<style>\n{asset('page.css')}{style}</style>\n</head>\n<body>\n{body}\n"
        f"{f'<script>{script}</script>' if script else ''}\n</body>\n</html>\n"
    )
