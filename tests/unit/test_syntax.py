"""Syntax trees created by several threads at once."""

import ast
import gc
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from nbg_lightning import syntax


@pytest.fixture
def thread_changes_within_a_tree():
    """A collection in the middle of a tree gives way to another thread, as any finalizer may."""

    def give_way(*_):
        time.sleep(0)

    threshold = gc.get_threshold()
    gc.callbacks.append(give_way)
    gc.set_threshold(50)
    yield
    gc.set_threshold(*threshold)
    gc.callbacks.remove(give_way)


@pytest.mark.usefixtures("thread_changes_within_a_tree")
def test_threads_make_trees_at_once():
    source = "def f(x):\n" + "".join(f"    if x == {n}:\n        return [{n}, (x, {{x: -x}})]\n" for n in range(30))
    with ThreadPoolExecutor(4) as threads:
        trees = list(threads.map(syntax.parse, [source] * 16))
    assert len({ast.dump(tree) for tree in trees}) == 1
