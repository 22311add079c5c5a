"""Code that starts inside the sandbox: the judge as its first process, which starts the program's process.

Standard library only; compiled outside and sent as code. The judge forks the program's process before it has read any test,
and communicates with it through two pipes. Tests, expected outputs, the verdict's descriptor and the secret that validates a
verdict exist in the judge only, whose memory the program cannot read (`PR_SET_DUMPABLE`, and a system call filter). A program
that exits early, prints what a success would print or writes to every descriptor therefore cannot claim to have passed.
"""

from __future__ import annotations

import os
import sys
from _signal import SIG_DFL, SIGINT, signal  # the `signal` module imports a lot: 5 of 25 ms

from nbg_lightning.scoring.sandbox.codec import decode, encode, write_frame
from nbg_lightning.scoring.sandbox.judge import judge_calls, judge_outputs
from nbg_lightning.scoring.sandbox.program import close_all_but, run_main, serve_calls, serve_runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(job_descriptor: int, secret_descriptor: int, verdict_descriptor: int) -> None:
    """Judge one program. Writes two frames: that it has started, and the verdict with the secret."""
    signal(SIGINT, SIG_DFL)  # the first process of a namespace gets only signals that it handles
    sys.path[:] = [place for place in sys.path if place]  # never import the judge's modules from the program's folder
    job = decode(whole(job_descriptor))
    limit(job["limits"])
    hide()
    sys.path += job["path"]
    write_files(job["files"])
    from_judge, to_program = os.pipe()
    from_program, to_judge = os.pipe()
    child = os.fork()
    if child == 0:
        _program(job, from_judge, to_judge)
        os._exit(0)
    os.close(from_judge)
    os.close(to_judge)
    write_frame(verdict_descriptor, b"began")
    secret = decode(whole(secret_descriptor))
    os.close(secret_descriptor)
    if job["mode"] == "run":
        verdict = _wait(child)
    elif job["mode"] == "calls":
        verdict = judge_calls(job, secret, from_program, to_program)
    else:
        verdict = judge_outputs(secret, from_program, to_program)
    if verdict[0] == "gone":
        done, status = os.waitpid(child, os.WNOHANG)
        signalled = done and os.WIFSIGNALED(status)
        by = f" by signal {os.WTERMSIG(status)}" if signalled else ""
        verdict = ("killed" if signalled else "failed", verdict[1] + by)
    write_frame(verdict_descriptor, encode((secret["word"], *verdict)))
    os._exit(0)


def _program(job: dict[str, Any], reader: int, writer: int) -> None:
    if job["mode"] == "run":
        close_all_but()
        run_main(job["source"], job["arguments"])
    sys.path.insert(0, "")
    if job["mode"] == "calls":
        serve_calls(job["source"], reader, writer)
    else:
        serve_runs(job["source"], reader, writer, job["largest_output"])


def _wait(child: int) -> tuple[str, str]:
    ended, status = os.wait()
    while ended != child:  # an orphan, adopted by the first process
        ended, status = os.wait()
    code = os.waitstatus_to_exitcode(status)
    return ("ok" if code == 0 else "failed" if code > 0 else "killed"), f"exit code {code}"


def write_files(files: dict[str, bytes]) -> None:
    """Write the files of the working folder."""
    for name, content in files.items():
        place = os.path.join("/tmp", name)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "wb") as file:
            file.write(content)


def limit(limits: dict[str, int]) -> None:
    """Set the limits of this process and its children."""
    import resource

    for name, value in limits.items():
        number = getattr(resource, f"RLIMIT_{name}", None)
        if number is not None:
            resource.setrlimit(number, (value, value))
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # first to be killed when memory runs out


def hide() -> None:
    """Hide this process's memory and descriptors from others of the same user."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(4, 0, 0, 0, 0) != 0:  # PR_SET_DUMPABLE
        raise OSError(ctypes.get_errno(), "PR_SET_DUMPABLE")


def whole(descriptor: int) -> bytes:
    """The whole content of a descriptor."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, "rb", closefd=False) as file:
        return file.read()
