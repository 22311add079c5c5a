"""Names of parameters."""

from __future__ import annotations

LORA_A, LORA_B = "lora_a", "lora_b"  # the two matrices of an adapter, beside the weight that they change
_WRAPPERS = ("_checkpoint_wrapped_module.", "_orig_mod.")


def clean_name(name: str) -> str:
    """A parameter's name without the marks that activation checkpointing or compilation leave in it."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def is_adapter(name: str) -> bool:
    """Whether a parameter is an adapter's."""
    return name.endswith((f".{LORA_A}", f".{LORA_B}"))
