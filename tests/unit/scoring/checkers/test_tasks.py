"""A task's module is found without importing the package, and suffices for its checker."""

import subprocess
import sys
import textwrap

import pytest
import reasoning_gym

from nbg_lightning.scoring.checkers.tasks import TaskModule, find_task

WITHOUT_MODULE = {"composite"}  # is in the package itself, and needs the other tasks


def inside(code):
    """What a new process prints."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_every_task_is_found_where_its_class_is():
    classes = {task: made[0].__module__ for task, made in reasoning_gym.factory.DATASETS.items()}
    assert len(classes) > 100
    found = {task: place.name for task in classes if (place := find_task(task)) is not None}
    assert found == {task: module for task, module in classes.items() if task not in WITHOUT_MODULE}


@pytest.mark.parametrize("task", ["", "no_such_task", "chain_sum'", "..", "a\nb", "x" * 10_000, "\ud800"])
def test_no_other_name_is_found(task):
    assert find_task(task) is None


def test_tasks_with_imports_of_others_are_not_light():
    assert find_task("chain_sum") == TaskModule("reasoning_gym.arithmetic.chain_sum", True)
    assert find_task("countdown") == TaskModule("reasoning_gym.games.countdown", False)
    assert find_task("simple_integration") == TaskModule("reasoning_gym.algebra.simple_integration", False)


def test_finding_imports_nothing():
    code = (
        "import sys; from nbg_lightning.scoring.checkers.tasks import find_task; find_task('gcd'); print(*sys.modules)"
    )
    assert not {"reasoning_gym", "numpy", "sympy", "torch"} & set(inside(code))


def test_light_tasks_import_neither_numpy_nor_sympy():
    """All of them in one process, as in a sandbox that serves them all."""
    said = inside("""
        import json, sys
        from nbg_lightning.scoring.checkers import tasks
        folder = tasks.importlib.util.find_spec("reasoning_gym").submodule_search_locations[0]
        light = []
        for source in sorted(tasks.Path(folder).glob("*/**/*.py")):
            names = tasks._registered(tasks.ast.parse(source.read_bytes()))
            light += [name for name in names if (place := tasks.find_task(name)) is not None and place.light]
        for task in light:
            tasks.load_task(task)
        factory = sys.modules["reasoning_gym.factory"]
        assert set(light) <= set(factory.DATASETS)
        print(len(light), "numpy" in sys.modules, "sympy" in sys.modules)
    """)
    assert int(said[0]) > 70 and said[1:] == ["False", "False"]


def test_the_whole_package_after_a_part_of_it():
    said = inside("""
        import sys
        from nbg_lightning.scoring.checkers.tasks import load_task
        load_task("chain_sum")
        assert len(sys.modules["reasoning_gym.factory"].DATASETS) < 5
        load_task("composite")
        import reasoning_gym
        part = reasoning_gym.composite.DatasetSpec("gcd", 1.0, {})
        item = reasoning_gym.create_dataset("composite", size=1, seed=1, datasets=[part])[0]
        print(len(sys.modules["reasoning_gym.factory"].DATASETS), item["metadata"]["source_dataset"])
    """)
    assert int(said[0]) > 100 and said[1] == "gcd"
