"""Code of a sandbox that lives for several cells: a supervisor as its first process, which starts the interpreter.

Standard library only; see `nbg_lightning.scoring.sandbox.child`. No other process can kill or stop the supervisor. It resumes
all processes of the sandbox for a cell, and stops them after it, so that nothing runs between cells.
"""

from __future__ import annotations

import os
import sys
from _signal import SIG_DFL, SIGCONT, SIGINT, SIGSTOP, signal

from nbg_lightning.scoring.sandbox.child import hide, limit, whole, write_files
from nbg_lightning.scoring.sandbox.codec import decode, read_frame, write_frame
from nbg_lightning.scoring.sandbox.program import close_all_but, own_module, to_null

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BEGAN, DONE, RAISED, GONE = b"b", b"d", b"r", b"g"


def main(job_descriptor: int, commands: int, replies: int) -> None:
    """Run cells until the other side closes. Writes a byte at the start, and one for each cell."""
    signal(SIGINT, SIG_DFL)
    sys.path[:] = [place for place in sys.path if place]
    job = decode(whole(job_descriptor))
    limit(job["limits"])
    hide()
    sys.path += job["path"]
    write_files(job["files"])
    from_supervisor, to_interpreter = os.pipe()
    from_interpreter, to_supervisor = os.pipe()
    if os.fork() == 0:
        close_all_but(from_supervisor, to_supervisor)
        _interpret(from_supervisor, to_supervisor)
        os._exit(0)
    os.close(from_supervisor)
    os.close(to_supervisor)
    to_null(0, 1, 2)  # only the interpreter may print
    os.write(replies, BEGAN)
    while True:
        try:
            cell = read_frame(commands)
        except EOFError:
            os._exit(0)
        _signal_all(SIGCONT)
        write_frame(to_interpreter, cell)
        answer = os.read(from_interpreter, 1)
        _signal_all(SIGSTOP)
        _take_away_the_dead()
        os.write(replies, answer if answer in (DONE, RAISED) else GONE)
        if not answer:
            os._exit(0)


def _signal_all(number: int) -> None:
    """Signal every process of the sandbox except this one."""
    try:
        os.kill(-1, number)
    except ProcessLookupError:
        pass


def _take_away_the_dead() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


# -- the interpreter ---------------------------------------------------------------------------------------------------


def _interpret(reader: int, writer: int) -> None:
    sys.path.insert(0, "")
    names = own_module("__main__")
    number = 0
    while True:
        source = decode(read_frame(reader))
        number += 1
        raised = _run_cell(source, names, f"<cell {number}>")
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BaseException:
                raised = True
        os.write(writer, RAISED if raised else DONE)


def _run_cell(source: str, names: dict[str, Any], name: str) -> bool:
    """Run a cell, and print the value of its last expression; returns whether it raised."""
    import ast
    import linecache
    import traceback

    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    try:
        tree = ast.parse(source, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec", dont_inherit=True), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval", dont_inherit=True), names)
            if value is not None:
                print(repr(value))
        return False
    except SystemExit:
        print("SystemExit: the interpreter goes on")
    except BaseException as error:
        inner = error.__traceback__
        while inner is not None and inner.tb_frame.f_code.co_filename != name:
            inner = inner.tb_next
        print("".join(traceback.format_exception(type(error), error, inner)), end="")
    return True
