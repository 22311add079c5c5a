"""API keys of servers: given by the name of an environment variable, and never written to a file."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

SECRETS = frozenset({"api_key"})  # names of settings
PREFIX = "env:"
_IN_COMMAND = re.compile(r"(\bapi_key(?:=|\s+))(?!env:)\S+")
DEFAULT = f"{PREFIX}NBG_API_KEY"  # what a key that was given in clear is written as


def resolved(key: str | None) -> str | None:
    """A key; ``env:NAME`` refers to an environment variable.

    Raises:
        ValueError: there is no such variable.
    """
    if key is None or not key.startswith(PREFIX):
        return key
    name = key.removeprefix(PREFIX)
    if not os.environ.get(name):
        raise ValueError(f"api_key is invalid: {key}; set the environment variable {name} to the server's key")
    return os.environ[name]


def redacted(value: Any) -> Any:
    """A copy of settings that is safe to write to a file: keys are replaced by the name of a variable.

    Example:
        >>> redacted({"engine": {"url": "http://here/v1", "api_key": "sk-123"}})
        {'engine': {'url': 'http://here/v1', 'api_key': 'env:NBG_API_KEY'}}
    """
    if isinstance(value, Namespace):
        return type(value)(**{name: _redacted(name, each) for name, each in vars(value).items()})
    if isinstance(value, Mapping):
        return {name: _redacted(name, each) for name, each in value.items()}
    return [redacted(each) for each in value] if isinstance(value, list) else value


def redacted_command(command: str) -> str:
    """A command line that is safe to show.

    Example:
        >>> redacted_command("nbg pass-rate c.yaml --engine.api_key sk-123 --n 4")
        'nbg pass-rate c.yaml --engine.api_key env:NBG_API_KEY --n 4'
    """
    return _IN_COMMAND.sub(rf"\1{DEFAULT}", command)


def _redacted(name: Any, value: Any) -> Any:
    hidden = name in SECRETS and isinstance(value, str) and not value.startswith(PREFIX)
    return DEFAULT if hidden else redacted(value)
