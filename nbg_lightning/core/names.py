"""Names of parameters."""

from __future__ import annotations

_WRAPPERS = ("_checkpoint_wrapped_module.", "_orig_mod.")


def clean_name(name: str) -> str:
    """A parameter's name without the marks that activation checkpointing or compilation leave in it."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name
