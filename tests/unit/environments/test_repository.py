"""A repository as a task: a scripted agent solves it, an empty one fails, and cheating does not work."""

import pytest

from nbg_lightning.chat.tool_calls import ToolCall
from nbg_lightning.data.question import Question
from nbg_lightning.environments import EpisodeLimits, ModelTurn, RepositoryEnvironment
from nbg_lightning.environments.repository_tests import named_tests

CART = """class Cart:
    def __init__(self):
        self.items = []

    def add(self, price, number=1):
        self.items.append(price)


def total(cart):
    return sum(cart.items)
"""
SHOWN = """from shop.cart import Cart, total


def test_one():
    cart = Cart()
    cart.add(3)
    assert total(cart) == 3
"""
HIDDEN = """import math

from shop.cart import Cart, total

NUMBER = 4


def filled(number):
    cart = Cart()
    cart.add(2, number)
    return cart


def test_several():
    assert total(filled(NUMBER)) == 8
    assert math.isclose(total(filled(1)), 2)
"""
DATA = {
    "repository": {"shop/__init__.py": "", "shop/cart.py": CART, "tests/test_cart.py": SHOWN},
    "hidden_tests": {"tests/test_hidden.py": HIDDEN},
    "fail_to_pass": ["tests/test_hidden.py::test_several"],
    "pass_to_pass": ["tests/test_cart.py::test_one"],
}
RIGHT = ("self.items.append(price)", "self.items += [price] * number")
DONE = ModelTurn("done", None, "done")


def asked(**data):
    return Question(({"role": "user", "content": "Carts ignore numbers."},), data={**DATA, **data})


def call(name, **arguments):
    return ModelTurn("", None, "", (ToolCall(name, arguments, "call00000"),))


def write(path, content):
    return call("write_file", path=path, content=content)


def played(*turns, question=None, **settings):
    """The replies to some turns, and to the one that ends the episode."""
    environment = RepositoryEnvironment(**settings)
    environment.reset(question or asked())
    return [environment.step(turn) for turn in (*turns, DONE)]


def test_a_scripted_agent_solves_it_and_an_empty_one_does_not():
    assert played()[-1].score == 0.0
    listed, read, _, tests, end = played(
        call("list_files"),
        call("read_file", path="shop/cart.py", first=5, last=6),
        call("replace_text", path="shop/cart.py", old=RIGHT[0], new=RIGHT[1]),
        call("run_tests"),
    )
    assert "shop/cart.py (10 lines)" in listed.turns[0]["content"]
    assert "hidden" not in listed.turns[0]["content"]
    assert read.turns[0]["content"].splitlines()[0] == "5\t    def add(self, price, number=1):"
    assert "1 passed, 0 failed" in tests.turns[0]["content"]
    assert (end.done, end.score, end.counts) == (True, 1.0, {"test_files_passed": 2})


def test_what_passed_before_must_pass_still():
    broken = CART.replace(*RIGHT).replace("return sum", "return 8 or sum")
    end = played(write("shop/cart.py", broken))[-1]
    assert end.score == 0.0 and "tests/test_hidden.py" in end.detail
    only_hidden = CART.replace(*RIGHT).replace("[price] * number", "[price] * number if number > 1 else [2]")
    end = played(write("shop/cart.py", only_hidden))[-1]
    assert end.score == 0.0 and "tests/test_cart.py" in end.detail


CHEATS = {
    "its own tests": [("tests/test_hidden.py", "def test_several():\n    assert True\n")],
    "a conftest": [("conftest.py", "import os\nos._exit(0)\n"), ("tests/conftest.py", "collect_ignore = ['test_hidden.py']\n")],
    "a start file": [("sitecustomize.py", "import os\nos._exit(0)\n"), ("usercustomize.py", "import os\nos._exit(0)\n")],
    "settings": [("pytest.ini", "[pytest]\naddopts = --collect-only\n"), ("pyproject.toml", "[tool.pytest]\n")],
    "an early exit": [("shop/cart.py", "import os, sys\nprint('2 passed')\nsys.stdout.flush()\nos._exit(0)\n")],
    "an exit by exception": [("shop/cart.py", f"{CART}\ndef total(cart):\n    raise SystemExit(0)\n")],
    "what equals everything": [
        (
            "shop/cart.py",
            f"{CART}\nclass Yes(int):\n    def __eq__(self, other):\n        return True\n\n    __hash__ = int.__hash__\n\n\n"
            "def total(cart):\n    return Yes(0)\n",
        )
    ],
    "a patched module": [
        ("shop/cart.py", f"import builtins, math\nmath.isclose = lambda *a: True\nbuiltins.sum = lambda *a: 8\n{CART}")
    ],
    "a module of the standard library": [("math.py", "def isclose(*a):\n    return True\n")],
    "a word to every descriptor": [
        (
            "shop/cart.py",
            "import os\nfor n in range(1, 64):\n    try:\n        os.write(n, b'ok' * 99)\n"
            f"    except OSError:\n        pass\n{CART}",
        )
    ],
}  # fmt: skip


@pytest.mark.parametrize("cheat", CHEATS)
def test_no_cheat_passes(cheat):
    end = played(*(write(path, text) for path, text in CHEATS[cheat]))[-1]
    assert (end.status, end.done, end.score) == ("ok", True, 0.0), end.detail


def test_a_right_repository_is_right_whatever_else_stands_in_it():
    own = write("tests/test_hidden.py", "def test_several():\n    assert False\n")
    assert played(write("shop/cart.py", CART.replace(*RIGHT)), own)[-1].score == 1.0


def test_code_that_hangs_is_wrong_and_in_time():
    hanging = write("shop/cart.py", "while True:\n    pass\n")
    limits = EpisodeLimits(step_seconds=6.0)
    tests, end = played(hanging, call("run_tests"), timeout=1.0, limits=limits)[1:]
    assert "no end within 1 s" in tests.turns[0]["content"]
    assert (end.status, end.score) == ("ok", 0.0)


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (write("../x.py", ""), "inside the repository"),
        (write("/etc/x", ""), "inside the repository"),
        (write("shop", ""), "'shop' is a file"),
        (write("shop/cart.py/x", ""), "'shop/cart.py' is a file"),
        (write("a" * 300, ""), "inside the repository"),
        (write("a\0b", ""), "give a plain one"),
        (write("big.txt", "x" * 3_000_000), "at most 500 and 2,000,000"),
        (call("read_file", path="../../etc/passwd"), "there is no file"),
        (call("replace_text", path="shop/cart.py", old="cart", new="x"), "stands 2 times"),
        (call("replace_text", path="shop/cart.py", old="", new="x"), "stands 0 times"),
        (call("run_tests", path="nothing.py"), "there is no file"),
    ],
)
def test_what_a_tool_cannot_do_is_said_and_breaks_nothing(turn, said):
    first, end = played(turn)
    assert said in first.turns[0]["content"] and first.counts["raised"] == 1
    assert (end.status, end.score) == ("ok", 0.0)


def test_a_folder_is_read_and_questions_that_cannot_be_graded_are_refused(tmp_path):
    for path, text in DATA["repository"].items():
        (tmp_path / "repo" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repo" / path).write_text(text)
    (tmp_path / "repo" / "link").symlink_to("/etc/passwd")
    repaired = write("shop/cart.py", CART.replace(*RIGHT))
    assert played(repaired, question=asked(repository="repo"), root=str(tmp_path))[-1].score == 1.0
    environment = RepositoryEnvironment(root=str(tmp_path))
    for data, said in (
        ({"repository": "nowhere"}, "give a folder"),
        ({"repository": None}, "has no repository"),
        ({"fail_to_pass": [], "pass_to_pass": []}, "name tests"),
        ({"fail_to_pass": ["tests/test_hidden.py"]}, "path::function"),
        ({"fail_to_pass": ["tests/test_hidden.py::test_none"]}, "no function"),
        ({"fail_to_pass": ["none.py::test_none"]}, "there is no file"),
    ):
        with pytest.raises(ValueError, match=said):
            environment.reset(asked(**data))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def test_x(fixture):\n    assert fixture", "without fixtures"),
        ("from shop.cart import *\ndef test_x():\n    assert 1", "whole path"),
        ("from .cart import total\ndef test_x():\n    assert 1", "whole path"),
        ("def test_x(:", "cannot be read"),
    ],
)
def test_tests_that_cannot_run_outside_are_refused(text, said):
    with pytest.raises(ValueError, match=said):
        named_tests(["test_x.py::test_x"], {"test_x.py": text.encode(), "shop/cart.py": b""})
