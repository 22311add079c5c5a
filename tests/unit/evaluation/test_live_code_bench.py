"""LiveCodeBench: both kinds of tests in the sandbox, packed hidden tests, and invalid items."""

import base64
import json
import os
import pickle
import zlib

import pytest

from nbg_lightning.evaluation import LiveCodeBench
from nbg_lightning.evaluation.tasks import live_code_bench
from nbg_lightning.evaluation.tasks.live_code_bench import hidden_tests
from nbg_lightning.scoring.sandbox.judge import same_output
from nbg_lightning.testing.benchmarks import write_rows


def packed(tests):
    """As the data set has them: base64 of zlib of a pickled JSON text."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def cases_of(kind, *cases):
    return [{"input": given, "output": expected, "testtype": kind} for given, expected in cases]


STDIN = {
    "question_id": "sum",
    "question_content": "Add two numbers.",
    "platform": "atcoder",
    "contest_date": "2024-08-03T00:00:00",
    "difficulty": "easy",
    "starter_code": "",
    "metadata": "{}",
    "public_test_cases": json.dumps(cases_of("stdin", ("1 2\n", "3\n"))),
    "private_test_cases": packed(cases_of("stdin", ("2 3\n", "5.0\n"), ("-1 1", "0"))),
}
FUNCTIONAL = {
    **STDIN,
    "question_id": "pair",
    "contest_date": "2025-03-01T00:00:00",
    "difficulty": "hard",
    "starter_code": "class Solution:\n    def pair(self, values: List[int], target: int) -> List[int]:\n        ",
    "metadata": json.dumps({"func_name": "pair"}),
    "public_test_cases": json.dumps(cases_of("functional", ("[2, 7]\n9", "[0, 1]"))),
    "private_test_cases": json.dumps(cases_of("functional", ("[1, 2, 3]\n5", "[1, 2]"))),
}
RIGHT = """```python
class Solution:
    def pair(self, values: List[int], target: int) -> List[int]:
        seen = defaultdict(int)
        for place, value in enumerate(values):
            if target - value in seen:
                return seen[target - value], place
            seen[value] = place
```"""


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live_code_bench")
    write_rows(folder / "test.jsonl", [STDIN])
    write_rows(folder / "test2.jsonl", [FUNCTIONAL])
    return LiveCodeBench(path=str(folder))


def test_releases_are_files_and_dates_choose_among_them(benchmark):
    assert [(item.id, item.category) for item in benchmark.load().items] == [("sum", "easy"), ("pair", "hard")]
    folder = benchmark.path
    assert [item.id for item in LiveCodeBench(path=folder, release=1).load().items] == ["sum"]
    assert [item.id for item in LiveCodeBench(path=folder, since="2025-01-01").load().items] == ["pair"]
    assert [item.id for item in LiveCodeBench(path=folder, until="2024-12-31").load().items] == ["sum"]


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("```python\na, b = map(int, input().split())\nprint(a + b)\n```", 1.0),
        ("```python\nif __name__ == '__main__':\n    print(float(sum(map(int, sys.stdin.read().split()))))\n```", 1.0),
        ("```python\nprint(3)\n```", 0.0),  # the public test alone
        ("```python\nwhile True: pass\n```", 0.0),
        ("There is no program.", 0.0),
    ],
)
def test_programs_that_read_and_print(benchmark, text, score):
    quick = LiveCodeBench(path=benchmark.path, timeout=2.0)
    item = quick.load().items[0]
    assert quick.score(item, text).score == score


@pytest.mark.parametrize(
    ("text", "score"),
    [
        (RIGHT, 1.0),  # a tuple is as good as a list, and typing and collections are there
        (RIGHT.replace("place\n", "place + 1\n", 1), 0.0),
        ("```python\nclass Solution:\n    def pair(self, values, target):\n        return [0, 1]\n```", 0.0),
        ("```python\nclass Solution:\n    pass\n```", 0.0),
        ("```python\nimport os\nos._exit(0)\n```", 0.0),
    ],
)
def test_methods_of_a_solution(benchmark, text, score):
    assert benchmark.score(benchmark.load().items[1], text).score == score


def test_prompts_say_what_is_wanted(benchmark):
    first, second = benchmark.load().items
    assert "Read the input from stdin" in benchmark.message(first)
    assert "def pair(self, values" in benchmark.message(second)


class _Harm:
    def __reduce__(self):
        return os.system, ("exit 1",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "are a dict, not a list"),
        ("no base64!", "cannot be read"),
        (base64.b64encode(b"no zlib").decode(), "cannot be read"),
        (packed([1])[:-8], "cannot be read"),
        (base64.b64encode(zlib.compress(pickle.dumps(_Harm()))).decode(), "it names posix.system"),
        (base64.b64encode(zlib.compress(pickle.dumps([1]))).decode(), "cannot be read"),
    ],
)
def test_hidden_tests_that_are_none(text, reason):
    with pytest.raises(ValueError, match=reason):
        hidden_tests(text)


def test_hidden_tests_have_a_limit(monkeypatch):
    monkeypatch.setattr(live_code_bench, "MAX_TESTS", 1 << 20)
    with pytest.raises(ValueError, match="larger than 1 MiB"):
        hidden_tests(packed(["x" * (2 << 20)]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"public_test_cases": "[]", "private_test_cases": "[]"}, "it has no tests"),
        ({"metadata": json.dumps({"func_name": "f(); import os"})}, "its function's name is invalid"),
        ({"private_test_cases": json.dumps(cases_of("stdin", ("1", "2")))}, "its tests are of the kinds"),
        ({"contest_date": "soon"}, "Invalid isoformat"),
    ],
)
def test_items_that_are_none(tmp_path, change, reason):
    path = write_rows(tmp_path / "test.jsonl", [FUNCTIONAL, {**FUNCTIONAL, **change}])
    good, bad = LiveCodeBench(path=path).load().items
    assert good.error is None
    assert reason in bad.error


@pytest.mark.parametrize(
    ("given", "reason"), [({"release": 7}, "release is invalid: 7"), ({"since": "May"}, "date 'May'")]
)
def test_settings_that_are_invalid(given, reason):
    with pytest.raises(ValueError, match=reason):
        LiveCodeBench(**given)


@pytest.mark.parametrize(
    ("text", "expected", "same", "same_decimals"),
    [
        ("1\n", "1", True, True),
        ("1.0", "1", False, True),
        ("1 2.50", "1.0 2.5", False, True),
        (" 1", "1", False, True),
        ("YES 1.0", "YES 1", False, False),
        ("1\n2", "1", False, False),
        ("nan", "nan", True, True),
        ("sNaN 1", "NaN 1", False, False),
        ("50000000000000000", "50000000000000001", False, False),
    ],
)
def test_outputs(text, expected, same, same_decimals):
    assert (same_output(text, expected, False), same_output(text, expected, True)) == (same, same_decimals)
