"""Packages below a program's own folders are mounted, and the program cannot replace them."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from nbg_lightning.scoring.sandbox.isolation import ENVIRONMENT, find_isolation, isolated_command

TRIES = """
import os, sys
sys.path += {places!r}
import found_here, found_there
print(found_here.NAME, found_there.NAME)
open("/tmp/own", "w").write("x")
def refused(action):
    try:
        action()
    except OSError:
        return True
    return False
top, inside = {top!r}, {places!r}[0]
tries = [
    lambda: os.rename(top, top + ".old"),
    lambda: os.rename(inside, inside + ".old"),
    lambda: os.rmdir(inside),
    lambda: os.mkdir(top + "/new"),
    lambda: os.remove(inside + "/found_here.py"),
    lambda: open(inside + "/found_here.py", "a"),
    lambda: open(inside + "/another.py", "w"),
]
print([refused(each) for each in tries].count(False), "of", len(tries), "done;", sorted(os.listdir("/tmp")))
"""


@pytest.fixture(params=["/tmp", "/dev/shm"])
def environments(request):
    """Two folders of packages, which everybody may read, below one of the program's own."""
    top = Path(tempfile.mkdtemp(dir=request.param, prefix="environment-"))
    top.chmod(0o755)
    for name in ("here", "there"):
        folder = top / name / "lib" / "site-packages"
        folder.mkdir(parents=True)
        (folder / f"found_{name}.py").write_text(f"NAME = {name!r}\n")
    (top / "private.txt").write_text("not for programs")
    yield sorted(top.glob("*/lib/site-packages"))
    shutil.rmtree(top)


def said_inside(folders, program):
    isolation = find_isolation(folders=folders)
    with isolated_command(isolation.command) as (whole, kept):
        ended = subprocess.run(
            [*whole, "-I", "-S", "-B", "-c", program],
            capture_output=True,
            text=True,
            pass_fds=kept,
            env=ENVIRONMENT,
            timeout=60,
            check=False,
        )
    assert not ended.stderr
    return ended.stdout.splitlines()


def test_packages_below_a_folder_of_the_program(environments):
    top = environments[0].parents[2]
    names, tried = said_inside(environments, TRIES.format(top=str(top), places=list(map(str, environments))))
    assert names == "here there"
    assert tried == f"0 of 7 done; {[top.name, 'own'] if top.parent == Path('/tmp') else ['own']}"


def test_nothing_else_of_that_folder_is_there(environments):
    top = environments[0].parents[2]
    (found,) = said_inside(environments, f"import os; print(sorted(os.listdir({str(top)!r})))")
    assert found == "['here', 'there']"


def test_a_folder_that_is_all_of_the_programs_own_is_refused():
    with pytest.raises(RuntimeError, match=r"^no sandbox: /tmp is a program's own inside; put .* elsewhere$"):
        find_isolation(folders=[Path("/tmp")])
