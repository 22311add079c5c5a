"""Whether compiling pays: what it saves of a run's steps, against the time that it takes."""

from __future__ import annotations

import os
import shutil

# Operations of a rank from which a run is compiled. Compiling the graphs of a block takes half a minute of a core, whatever
# the model's size, and saves 7 to 19 % of a step on a CPU (docs/performance.md), so that it is back after three to seven
# minutes of steps: 10^14 operations are 17 minutes at 10^11 a second (a CPU), 10^17 as long at 10^14 (a GPU, not measured).
COMPILED_FROM = {"cpu": 1e14, "cuda": 1e17}

# What torch's compiler calls on each: the variable that names it, and what is taken without.
_COMPILERS = {"cpu": ("CXX", ("g++", "c++", "clang++")), "cuda": ("CC", ("cc", "gcc", "clang"))}


def compiling_pays(operations: float | None, device_type: str) -> bool:
    """Tell whether a run's blocks should be compiled.

    Args:
        operations: floating-point operations of a rank in the whole run; None where its length is not known.
        device_type: of the rank's device; on others than ``cpu`` and ``cuda`` compiling has not been measured.

    Example:
        >>> compiling_pays(1e13, "cpu"), compiling_pays(1e15, "cpu"), compiling_pays(1e15, "cuda"), compiling_pays(None, "cpu")
        (False, True, False, False)
    """
    return operations is not None and operations >= COMPILED_FROM.get(device_type, float("inf"))


def host_compiler(device_type: str) -> str | None:
    """The compiler that torch calls to build for a device, or None if there is none.

    Args:
        device_type: ``cpu`` (C++) or ``cuda`` (C, for Triton's launchers).
    """
    variable, names = _COMPILERS[device_type]
    candidates = [os.environ.get(variable), *names]
    return next((path for name in candidates if name and (path := shutil.which(name))), None)
