"""Prompt templates with fields in braces, and conversations as text in an instruction."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_FIELD = re.compile(r"\{([a-z_]+)\}")


def fill_template(template: str, **values: Any) -> str:
    """Replace the ``{names}`` of a template in one pass: braces in the values are kept.

    Example:
        >>> fill_template("Q: {question} (at most {n} words)", question="what is {x}?", n=3)
        'Q: what is {x}? (at most 3 words)'
    """
    return _FIELD.sub(lambda match: str(values[match[1]]), template)


def check_template(template: str, name: str, fields: Sequence[str]) -> None:
    """Check that a template has exactly these fields.

    Raises:
        ValueError: it has not.
    """
    found = set(_FIELD.findall(template))
    if found != set(fields):
        wanted = ", ".join("{" + each + "}" for each in fields) or "none"
        raise ValueError(
            f"{name} is invalid: its fields are {', '.join(sorted(found)) or 'none'}; give it the fields {wanted}"
        )


def conversation_text(messages: Sequence[dict[str, Any]]) -> str:
    """A conversation as text in an instruction: its only turn, or all turns with their roles."""
    if len(messages) == 1:
        return str(messages[0]["content"]).strip()
    return "\n\n".join(f"{message['role'].capitalize()}: {str(message['content']).strip()}" for message in messages)
