"""What an option, key or value that is not accepted may have meant."""

from __future__ import annotations

import inspect
import re

from nbg_lightning.suggestion import did_you_mean

_OPTION = re.compile(r"(?:([\w.]+): )?(?:Option '|unrecognized arguments: --)([\w.]+)")
_CHOICE = re.compile(r"expected Literal\[([^\]]*)\]; given value: (\S+)")


def with_suggestion(message: str) -> str:
    """A parser's error in one line, and the name that was meant, if one is like the one that was given.

    Args:
        message: such as ``data: nbg_lightning.ChatDataModule: Option 'tokeniser' is not accepted``.
    """
    if match := _CHOICE.search(message):
        return message + did_you_mean(match.group(2), re.findall(r"'([^']*)'", match.group(1)))
    if not (match := _OPTION.search(message)):
        return message
    owner, option = match.group(1), match.group(2)
    if owner is None and option.startswith("trainer."):
        owner, option = "nbg_lightning.Trainer", option.removeprefix("trainer.")
    return message + did_you_mean(option.partition(".")[0], _parameters(owner))


def _parameters(owner: str | None) -> list[str]:
    """Names that a class takes; none for what is no class."""
    from nbg_lightning.import_path import import_object

    if owner is None or "." not in owner:
        return []
    try:
        bases = inspect.getmro(import_object(owner))
        makers = [base.__dict__["__init__"] for base in bases if base is not object and "__init__" in base.__dict__]
        return [name for maker in makers for name in inspect.signature(maker).parameters]
    except (ValueError, ImportError, AttributeError, TypeError):
        return []
