"""Errors in one line: the cause and the fix, without debugging details."""

from __future__ import annotations

import errno
import os
import re

from nbg_lightning.printable import printable

_NOISE = re.compile(  # of jsonargparse's reports: what it tried, and what it got, which the user has in the YAML
    r"Does not validate against any of|Subtypes:|Errors:|Given value type:|Expected a <class 'NoneType'>|"
    r"Expected a path but|Not a valid subclass of|Subclass types expect one of|"
    r"a class path \(str\)|a dict with|a dict without|$"
)
_WORDS = [  # of jsonargparse, in ours
    (
        re.compile(r"Expected an instantiatable class, but (\S+) is (?:abstract|a protocol)"),
        r"it names no class; write class_path and init_args of a class that does what \1 says",
    ),
    (re.compile(r"Key must be a string, got: (.*)\."), r"its key \1 is no text; write a name, such as NAME: VALUE"),
    (
        re.compile(r"Type collections\.abc\.Callable.*? expects a function or a callable class: .*"),
        "expected the path of a function, such as package.module.name",
    ),
    (
        re.compile(r"Not a valid subclass of (\w+)\. Got value: (.*)"),
        r"it is no \1: \2; write class_path and init_args",
    ),
]
_WEAK = "Expected a dot import path"  # said of every text that might have been a class; the other reasons are better
_LONGEST_VALUE = 60  # characters of a given value that are worth a place in the line
_LONGEST_PATH = 300  # characters of one


_SYSTEM = {  # errors of the operating system: what to do
    errno.ENOENT: "there is no such file or folder: check the path",
    errno.EACCES: "permission denied: give another path, or change its owner or mode",
    errno.EPERM: "permission denied: give another path, or change its owner or mode",
    errno.EROFS: "the file system is read-only: give another path",
    errno.EEXIST: "it exists already: give another path, or move it away",
    errno.ENOTDIR: "a part of the path is a file: give a folder",
    errno.EISDIR: "it is a folder: give a file",
    errno.ENAMETOOLONG: "the name is too long: give a shorter one",
    errno.ENOSPC: "no space is left: free some, or give another path",
}


def is_user_error(error: BaseException) -> bool:
    """Whether an error's message is for the user: it is of a kind that says what to change, or raised by this library
    itself.

    Anything else is a bug, whose traceback is needed.
    """
    if isinstance(error, (ValueError, OSError, ImportError)):
        return True
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    raised_in = "" if traceback is None else str(traceback.tb_frame.f_globals.get("__name__"))
    return isinstance(error, RuntimeError) and raised_in.startswith("nbg_lightning.")


def one_line(message: str) -> str:
    """A message in one line, with nested reports of jsonargparse reduced to path and reason.

    >>> one_line('Parser key "model":\\n  Errors:\\n    - Expected a <class \\'int\\'>\\n  Given value: many')
    'model: expected int; given value: many'
    """
    message = re.sub(r'Parser key "([^"]*)":', r"\1:", message.strip())
    for pattern, words in _WORDS:
        message = pattern.sub(words, message)
    lines = [line.strip().removeprefix("- ").strip() for line in message.splitlines()]
    if len(lines) < 2:
        return printable(message)
    strong = any(
        line.startswith(("Expected", "Problem")) and not _NOISE.match(line) and _WEAK not in line for line in lines
    )
    text = ""
    for line in lines:
        if _NOISE.match(line) or (strong and line.startswith(_WEAK)):
            continue
        if line.startswith("Given value:") and ("NestedArg(" in line or len(line) > _LONGEST_VALUE):
            continue
        line = re.sub(r"^Problem with given class_path '(.*)':$", r"\1:", line)
        line = re.sub(r"^E(xpected) an? (?:<class '(.*?)'>|typing\.(.*))", r"e\1 \2\3", line)
        line = re.sub(f"{_WEAK} string: (.+)", r"there is no class \1; write package.module.Name", line)
        line = line.replace("Given value:", "given value:")
        text += ("" if not text else " " if text.endswith(":") else "; ") + line
    return printable(text)


def message(error: BaseException) -> str:
    """The message of an error; for an operating system error, the path and what to do.

    >>> message(FileNotFoundError(2, "No such file or directory", "my/text.jsonl"))
    'path is invalid: my/text.jsonl; there is no such file or folder: check the path'
    """
    if isinstance(error, OSError) and error.filename is not None and error.errno in _SYSTEM:
        return f"path is invalid: {_readable(os.fsdecode(error.filename))}; {_SYSTEM[error.errno]}"
    return str(error)


def _readable(path: str) -> str:
    """A path of which both ends are shown where it is longer than any that is meant."""
    half = _LONGEST_PATH // 2
    return path if len(path) <= _LONGEST_PATH else f"{path[:half]}…{path[-half:]} ({len(path):,} characters)"


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its class if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
