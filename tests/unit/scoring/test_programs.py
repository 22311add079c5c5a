# ruff: noqa: E501 - a table
"""Which of an answer's blocks of code is the program."""

import time

import pytest

from nbg_lightning.scoring.fences import code_blocks
from nbg_lightning.scoring.programs import called_names, defined_names, extract_program

ADD = "def add(a, b):\n    return a + b\n"
DOC = 'def add(a, b):\n    """\n{0}\nadd(1, 2)\n{0}\n    """\n    return a + b\n'
RIGHT = [
    f"```python\n{ADD}```",
    f"```\n{ADD}```",
    f"```py\n{ADD}```",
    f"```Python3\n{ADD}```",
    f"``` python\n{ADD}```",
    f"```{{.python}}\n{ADD}```",
    f"```python title='a.py'\n{ADD}```",
    f"~~~python\n{ADD}~~~",
    f"~~~~~python\n{ADD}~~~~~~",
    f"````python\n{ADD}````",
    f"````markdown\n```python\n{ADD}```\n````",
    f"````\n```python\n{ADD}```\n````",
    f"```python\n{ADD}",
    f"```python\n{ADD}\nThis function adds two numbers.",
    f"```python\n{ADD.rstrip()}```",
    f"```python\n{ADD.rstrip()}```\nOutput:\n```\n3\n```",
    f"~~~python\n{ADD.rstrip()}~~~\nDone.",
    f"Here it is:```python\n{ADD}```",
    f"```python\n{ADD}    ```",
    f"```python\r\n{ADD.replace(chr(10), chr(13) + chr(10))}```\r\n",
    "1. Code:\n\n   ```python\n   def add(a, b):\n       return a + b\n   ```",
    "- ```python\n  def add(a, b):\n      return a + b\n  ```",
    "1. Code:\n   ```python\ndef add(a, b):\n  return a + b\n   ```",
    "    ```python\n    def add(a, b):\n        return a + b\n    ```",
    "\t```python\n\tdef add(a, b):\n\t\treturn a + b\n\t```",
    "```python\n    def add(a, b):\n        return a + b\n```",
    "> ```python\n> def add(a, b):\n>     return a + b\n> ```\nAs said.",
    f"```python\n{ADD}```\nOutput:\n```\n3\n```",
    f"```python\n{ADD}```\nOutput:\n```text\n3\n```",
    f"```python\n{ADD}```\n```\nadd = 3\n```",
    f"```\n{ADD}```\n```\n3\n```",
    f"```python\n{ADD}```\nUsage:\n```python\nprint(add(1, 2))\n```",
    f"```python\n{ADD}```\n```pycon\n>>> add(1, 2)\n3\n```",
    f"```python\n{ADD}```\n```bash\npython add.py\n```",
    f"```python\n{ADD}```\n```json\n{{}}\n```",
    f"```python\n{ADD}```\nThe signature:\n```python\ndef add(a, b): ...\n```",
    f"```python\n{ADD}```\nNot like this:\n```python\ndef add(a, b)\n    retrun\n```",
    f"```python\ndef add(a, b):\n    return 0\n```\nBetter:\n```python\n{ADD}```",
    f"```python\n{ADD}```\n```javascript\nfunction add(a, b) {{ return 0 }}\n```",
    f"First ```code``` then\n```python\n{ADD}```",
    f"```python\nprint(1)\n```python\n{ADD}```",
    f"```python\n{DOC.format('    ```')}```",
    f"```python\n{DOC.format('```')}```",
    f"```python\n{DOC.format('  ```python')}```",
    f"~~~python\n{DOC.format('~~~')}~~~",
    f"```python\n{DOC.format('```')}",
    "```python\ndef add(a, b):\n    return helper(a, b)\n```\n```python\ndef helper(a, b):\n    return a + b\n```",
    "```python\nfrom operator import add as plus\n```\n```python\ndef add(a, b):\n    return plus(a, b)\n```",
    "```python\nimport operator\n```\n```python\ndef add(a, b):\n    return operator.add(a, b)\n```",
    "```python\nZERO = 0\n```\n```python\ndef add(a, b):\n    return a + b + ZERO\n```",
    "```python\nclass Adder:\n    def of(self, a, b):\n        return a + b\n```\n"
    "```python\ndef add(a, b):\n    return Adder().of(a, b)\n```",
    "```python\ndef add(a, b):\n    return one(a, b)\n```\n```python\ndef one(a, b):\n    return two(a, b)\n```\n"
    "```python\ndef two(a, b):\n    return a + b\n```",
    "```python\nONE = 1\n```\n```python\nfrom __future__ import annotations\ndef add(a, b):\n    return a + b + ONE - 1\n```",
    "```python\nadd = lambda a, b: a + b\n```",
    "```python\nfrom operator import add\n```",
    "```python\nimport functools\n@functools.cache\ndef add(a, b):\n    return a + b\n```",
    "```python\nif True:\n    def add(a, b):\n        return a + b\n```",
    "```python\ndef add(a, b):\n    text = '`' * 3  # ```\n    return a + b\n```",
    '```python\ndef add(a, b):\n    text = """a \\""" b"""\n    return a + b\n```',
    f"```python3.11\n{ADD}```",
    f"```add.py\n{ADD}```",
    f"```python:add.py\n{ADD}```",
    f"```text\n{ADD}```",
    f"```code\n{ADD}```",
    "```pycon\n>>> def add(a, b):\n...     return a + b\n```",
    f"Let me think.\n```python\ndef add(a, b):\n    return a - b\n```\nThat is wrong. Fixed version:\n```python\n{ADD}```\nNow it works.",
    f"```python\n```python\n{ADD}```\n```",
    f"```python\n{ADD}~~~\n",
    f"\ufeff```python\n{ADD}```",
    f"```python\n\ufeff{ADD}```",
    "```python\ndef add(a, b):\n\xa0\xa0\xa0\xa0return a + b\n```",
    f"```python\n\u200b{ADD}```",
    "```python\rdef add(a, b):\r    return a + b\r```",
    f"```python\n\x0c{ADD}```",
    "```python\ndef add(a, b):\n    s = '\u2028'\n    return a + b\n```",
    f"```python\n{ADD}```\n```python\nif __name__ == '__main__':\n    print(add(1, 2))\n```",
    f"```python\n{ADD}```\n```python\nimport unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(add(1, 2), 3)\n```",
    f"```python\n{ADD}```\n```python\nassert add(1, 2) == 3\n```",
    f"```python\n{ADD}```\n```python\nfrom solution import add\nassert add(1, 2) == 3\n```",
    f"```python\n# add.py\n{ADD}```\n```python\nfrom add import add\nprint(add(1,2))\n```",
    "* a\n  * b\n\n    ```python\n    def add(a, b):\n        return a + b\n    ```",
    "```python\nK = 0\n```\n```python\ndef add(a, b):\n    return a + b + K\n```\n```python\nK = 5\nprint(add(1, 2))\n```",
    "```python\nfrom math import *\n```\n```python\ndef add(a, b):\n    return floor(a + b)\n```",
    "```python\nT = {}\nT['x'] = 0\n```\n```python\ndef add(a, b):\n    return a + b + T['x']\n```",
    "```python\nclass H: pass\nH.k = 0\n```\n```python\ndef add(a, b):\n    return a + b + H.k\n```",
    "```python\nT = []\nfor i in range(3):\n    T.append(0)\n```\n```python\ndef add(a, b):\n    return a + b + T[2]\n```",
    "```python\ntry:\n    import numpy as np\nexcept ImportError:\n    np = None\n```\n```python\ndef add(a, b):\n    return a + b if np is None or True else 0\n```",
    "```python\nfrom typing import List\nV = int\n```\n```python\ndef add(a: V, b: V) -> V:\n    return a + b\n```",
    "```python\ndef plus(a, b):\n    return a + b\n```\n```python\nadd = plus\n```",
    f"```python\ndef add(a, b:\n    return a + b\n```\nOops:\n```python\n{ADD}```",
    f"```python\n{ADD}```\nTemplate:\n```python\ndef add(a, b):\n    raise NotImplementedError\n```",
    f"```python\n{ADD}```\nTemplate:\n```python\ndef add(a, b):\n    # your code here\n    ...\n```",
    '```python\ndef add(a, b):\n    x = f"""\n```\n{a}\n```\n"""\n    return a + b\n```',
    "```python\ndef add(a, b):\n    r'''\n    ```python\n    >>> add(1, 2)\n    3\n    ```\n    '''\n    return a + b\n```",
    "```python\ndef add(a, b):\n    # don't\n    return a + b\n```\nOutput:\n```\n3\n```",
    f"```python\n{ADD}```\n```\n>>> add(1, 2)\n3\n```",
    f"```\n{ADD}```\n```\nThe result is 3\n```",
    f"<details>\n<summary>Code</summary>\n\n```python\n{ADD}```\n\n</details>",
    f"Code:```\n{ADD}```",
    f"```python\n%matplotlib inline\n{ADD}```",
    f"```python\n!pip install numpy\n{ADD}```",
    "```python\n>>> def add(a, b):\n...     return a + b\n...\n```",
    "```python\nadd, sub = (lambda a, b: a + b), (lambda a, b: a - b)\n```",
    "```python\nadd = (f := lambda a, b: a + b)\n```",
]
UNFENCED = [
    ADD,
    f"Here is the function:\n\n{ADD}",
    f"{ADD}\nThis adds two numbers, as asked.",
    f"{ADD}\nDone",
    f"{ADD}\nNote: addition",
    f"From the list of ways, I take this:\n{ADD}\nfor example, add(1, 2) gives 3.",
    "So:\n\n    def add(a, b):\n        return a + b\n\nThat is all.",
    f"import math\n{ADD}",
    "I use a helper.\n\ndef helper(a, b):\n    return a + b\n\nand then\n\ndef add(a, b):\n    return helper(a, b)\n\nBye.",
]
WRONG = [
    "",
    "I do not know.",
    "```python\n\n```",
    "```bash\nls\n```",
    "```json\n{}\n```",
    "```",
    "`add`",
    "```javascript\nfunction add(a, b) { return a + b }\n```",
    "Output: 3",
    "```text\nadd = 3 + \n```",
    "```console\nadd(1, 2)\n```",
    "```ruby\ndef add(a, b)\n  a + b\nend\n```",
]


def runs(program):
    names = {}
    exec(program, names)  # texts of this file
    return names["add"](1, 2) == 3


@pytest.mark.parametrize("text", RIGHT)
def test_the_program_is_found(text):
    assert runs(extract_program(text, entry_points=["add"]))


@pytest.mark.parametrize("text", UNFENCED)
def test_code_without_fences(text):
    assert extract_program(text, entry_points=["add"]) is None
    assert runs(extract_program(text, unfenced=True, entry_points=["add"]))


@pytest.mark.parametrize("text", WRONG)
def test_no_program(text):
    assert extract_program(text, unfenced=True, entry_points=["add"]) is None


def test_programs_that_read_and_print():
    program = "n = int(input())\nprint(n + 1)\n"
    usage = "print(add(1, 2))\n"
    assert extract_program(f"```python\n{program}```\nOutput\n```\n2\n```") == program
    assert extract_program(f"```python\nprint(1)\n```\nBetter:\n```python\n{program}```") == program
    assert extract_program(f"```python\n{program}```\n```python\n{usage}```") == program
    parts = f"```python\n{ADD}```\n```python\nprint(add(int(input()), 1))\n```"
    assert extract_program(parts) == f"{ADD.rstrip()}\n\nprint(add(int(input()), 1))\n"


def test_blocks_of_other_languages_are_programs_only_with_an_entry_point():
    assert extract_program("```text\nx = input()\nprint(x)\n```") is None
    assert extract_program(f"```text\n{ADD}```") is None
    assert extract_program("```pycon\n>>> print(1)\n1\n```") is None
    assert extract_program("```python\nprint(input())\n```\n```text\nx = input()\nprint(2)\n```") == "print(input())\n"


def test_what_uses_the_program_gives_nothing_to_it():
    text = "```python\nK = 0\n\ndef add(a, b):\n    return a + b + H\n```\n```python\nH = 5\nprint(add(1, 2))\n```\n```python\nH = 0\n```"
    assert runs(extract_program(text, entry_points=["add"]))


def test_names():
    assert called_names(["assert add(1, len([2])) == 3", "assert math.isclose(area(1), 3)", "broken("]) == [
        "add",
        "area",
    ]
    assert called_names(["def check(f):\n    assert f(2)\ncheck(g)"]) == ["g"]
    assert defined_names("x, (y, z) = 1, (2, 3)\ndef f(a): b = 1\nclass C: d = 1") == {"x", "y", "z", "f", "C"}
    assert defined_names("def f(") == set()


def test_blocks_keep_what_they_say():
    blocks = code_blocks("```text\na\n```\n~~~\nb\n```\n~~~\n```c++ x\nc")
    assert [(each.language, each.code, each.closed) for each in blocks] == [
        ("text", "a\n", True),
        ("", "b\n```\n", True),
        ("c++", "c\n", False),
    ]


HOSTILE = {
    "fences": "```python\n" * 100_000,
    "backticks": "`" * 1_000_000,
    "fences in a line": "```python\n" + "``` " * 250_000,
    "escaped quotes": '```python\n\\"""\n```\n' * 50_000,
    "open strings": "```python\n'''\n" * 50_000,
    "nested": "````\n```python\n" * 50_000,
    "quotes": "> ```python\n" * 50_000,
    "blocks": "```python\nx = 1\n```\n" * 50_000,
    "list items": "1. " * 300_000,
    "no Python": "x = 1 z\n" * 100_000,
    "open brackets": "f(\n" * 100_000,
    "errors": ("a = 1\n" * 50 + "b c\n") * 2000,
    "blanks": "import " + " " * 1_000_000,
    "one line": "```python\n" + "a" * 1_000_000,
    "dotted": "```python\nimport " + "a." * 500_000 + "a\n```",
    "powers": "```python\n" + "2**" * 30_000 + "1\n```",
    "brackets": "```python\n" + "(" * 90_000 + "\n```",
    "indents": "```python\n" + "".join(" " * depth + "if 1:\n" for depth in range(400)) + "```",
    "surrogates": "```python\nx = '\ud800'\n```",
    "zeros": "```python\nx = '\0'\n```",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_time_is_bounded(name):
    begin = time.process_time()
    extract_program(HOSTILE[name], unfenced=True, entry_points=["add"])
    assert time.process_time() - begin < 5
