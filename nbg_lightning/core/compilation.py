"""Whether ``torch.compile`` pays off: the time it saves in a run, against the time that compiling takes."""

from __future__ import annotations

import os
import shutil

# Floating-point operations per rank from which a run is compiled. Compiling the graphs of a block takes half a minute of a core,
# whatever the model's size, and saves 7 to 19 % of a step on a CPU (docs/performance.md), so it pays off after three to seven
# minutes of steps: 10^14 operations take 17 minutes at 10^11 per second (a CPU), as do 10^17 at 10^14 (a GPU, not measured).
COMPILED_FROM = {"cpu": 1e14, "cuda": 1e17}

# The host compiler that torch.compile calls per device: the environment variable that names it, and the fallback.
_COMPILERS = {"cpu": ("CXX", ("g++", "c++", "clang++")), "cuda": ("CC", ("cc", "gcc", "clang"))}


def compiling_pays(operations: float | None, device_type: str) -> bool:
    """Tell whether the blocks should be compiled in a run.

    Args:
        operations: floating-point operations per rank in the whole run; None if the length of the run is unknown.
        device_type: the rank's device type; on devices other than ``cpu`` and ``cuda`` compilation has not been measured.

    Example:
        >>> compiling_pays(1e13, "cpu"), compiling_pays(1e15, "cpu"), compiling_pays(1e15, "cuda"), compiling_pays(None, "cpu")
        (False, True, False, False)
    """
    return operations is not None and operations >= COMPILED_FROM.get(device_type, float("inf"))


def host_compiler(device_type: str) -> str | None:
    """The host compiler that torch needs for a device type, or None if it is not installed.

    Args:
        device_type: ``cpu`` (C++) or ``cuda`` (C, for Triton's launchers).
    """
    variable, names = _COMPILERS[device_type]
    candidates = [os.environ.get(variable), *names]
    return next((path for name in candidates if name and (path := shutil.which(name))), None)
