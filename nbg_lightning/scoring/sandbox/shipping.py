"""The modules that run inside, as code for the inner Python without files: no file of this project is mounted there."""

from __future__ import annotations

import functools
import importlib.util
import marshal
import subprocess
from pathlib import Path

_MODULES = (
    "plain",
    "codec",
    "program",
    "handles",
    "errors",
    "link",
    "guard",
    "judge",
    "child",
)  # each after its imports
CELLS = (*_MODULES, "cells")
"""The modules of a sandbox for several cells."""
_COMPILE = (
    "import marshal, sys; modules = marshal.loads(sys.stdin.buffer.read()); "
    "codes = [(name, compile(text, name, 'exec', dont_inherit=True, optimize=2)) for name, text in modules]; "
    "sys.stdout.buffer.write(marshal.dumps(codes))"
)
_START = """
import marshal, os, sys
for name, code in marshal.loads(os.pread({descriptor}, 1 << 24, 0)):
    sys.modules[name] = module = type(sys)(name)
    exec(code, module.__dict__)
module.main(*map(int, sys.argv[1:4]))
"""


@functools.cache
def inner_code(python: str, names: tuple[str, ...] = _MODULES) -> bytes:
    """These modules, compiled by the interpreter that will run them; compiling takes longer than starting it."""
    modules = []
    for name in names:
        whole = f"nbg_lightning.scoring.sandbox.{name}"
        spec = importlib.util.find_spec(whole)
        assert spec is not None and spec.origin is not None
        modules.append((whole, Path(spec.origin).read_text("utf-8")))
    given = marshal.dumps(modules, 2)
    return subprocess.run([python, "-I", "-S", "-c", _COMPILE], input=given, capture_output=True, check=True).stdout


def start_command(descriptor: int) -> str:
    """Python text that starts the code of `inner_code`, read from a descriptor."""
    return _START.format(descriptor=descriptor)
