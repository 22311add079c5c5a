"""No hostile answer scores in benchmarks or rewards that use a verifier, a sandbox or a judge."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from answered import group, question, some
from hostile_programs import programs
from hostile_texts import answers

from nbg_lightning.evaluation.benchmark import Benchmark, Item
from nbg_lightning.evaluation.tasks import (
    BBH,
    CMATH,
    MATH500,
    MBPP,
    HumanEval,
    IFEval,
    LiveCodeBench,
    PairwiseJudged,
    ReasoningGymTasks,
    RubricJudged,
)
from nbg_lightning.rewards import FunctionReward, PairwisePreferenceReward
from nbg_lightning.scoring.verifier import shared_verifier
from nbg_lightning.testing.benchmarks import AnsweringEngine

TEXTS = 40  # of each table, in the tests that start processes


def chosen(texts: dict[str, str]) -> dict[str, str]:
    return some(texts, len(texts) // TEXTS)


def right(benchmark: Benchmark, item: Item, texts: dict[str, str]) -> dict[str, float]:
    """The texts that score something."""
    with benchmark.opened():
        [verdicts] = benchmark.score_all([item], [list(texts.values())])
    shared_verifier().close()
    assert len(verdicts) == len(texts)
    return {name: verdict.score for name, verdict in zip(texts, verdicts, strict=True) if verdict.score}


def test_mathematics(canary):
    item = MATH500().parse({"problem": "What?", "answer": "7919"}, "1")
    assert right(MATH500(), item, {"right": "\\boxed{7919}"}) == {"right": 1.0}
    assert right(MATH500(), item, chosen(answers(canary))) == {}


def test_programs(canary):
    code = "def f(n):\n    return 7919"
    mbpp = MBPP().parse({"task_id": 1, "text": "f", "code": code, "test_list": ["assert f(3) == 7919"]}, "1")
    prompt = "def f(n):\n"
    test = "def check(f):\n    assert f(3) == 7919\n"
    row = {"task_id": "1", "prompt": prompt, "canonical_solution": code, "test": test, "entry_point": "f"}
    human_eval = HumanEval().parse(row, "1")
    for benchmark, item in ((MBPP(), mbpp), (HumanEval(), human_eval)):
        assert right(benchmark, item, {"right": f"```python\n{code}\n```"}) == {"right": 1.0}
        assert right(benchmark, item, some(programs(canary), 4) | some(chosen(answers(canary)), 8)) == {}


def test_programs_of_contests(canary):
    tests = [{"input": "3\n", "output": "7919\n", "testtype": "stdin"}]
    row = {"question_content": "f", "contest_date": "2025-01-01", "public_test_cases": json.dumps(tests)}
    item = LiveCodeBench().parse({**row, "private_test_cases": "[]"}, "1")
    benchmark = LiveCodeBench(timeout=3.0, memory=1024)
    assert right(benchmark, item, {"right": "```python\nprint(7919 + 0 * int(input()))\n```"}) == {"right": 1.0}
    assert right(benchmark, item, some(programs(canary), 4) | some(chosen(answers(canary)), 8)) == {}


def test_answers_that_are_read_without_a_process(canary):
    cmath = CMATH().parse({"question": "f", "golden": "7919"}, "1")
    brackets = BBH().parse({"task": "dyck_languages", "input": "( [", "target": "] )"}, "1")
    word = BBH().parse({"task": "web_of_lies", "input": "f", "target": "Evelyn"}, "1")
    for benchmark, item, gold in ((CMATH(), cmath, "7919"), (BBH(), brackets, "] )"), (BBH(), word, "Evelyn")):
        assert right(benchmark, item, {"right": f"The answer is {gold}"}) == {"right": 1.0}
        assert right(benchmark, item, answers(canary)) == {}


def test_instructions(canary):
    row = {"prompt": "Say it.", "instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["Evelyn"]}]}
    item = IFEval().parse(row, "1")
    assert right(IFEval(), item, {"right": "It is Evelyn."}) == {"right": 1.0}
    assert right(IFEval(), item, chosen(answers(canary))) == {}


def test_tasks_of_reasoning_gym(canary):
    benchmark = ReasoningGymTasks(tasks=["chain_sum"], count=1)
    [item] = benchmark.load().items
    assert right(benchmark, item, {"right": f"<answer>{item.answer}</answer>"}) == {"right": 1.0}
    scored = right(benchmark, item, chosen(answers(canary)))
    assert all(score <= 0.01 for score in scored.values())  # what the task gives to any number


# -- judges ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", ["[[B>>A]]", "[[A=B]]"])
def test_answers_to_a_judge_that_cannot_be_bribed(verdict, canary):
    """What an answer says to the judge, or in the judge's words, is not read as the judgement."""
    texts = chosen(answers(canary))
    other = {"[[B>>A]]": "[[A>>B]]"}.get(verdict, verdict)
    engine = AnsweringEngine(
        lambda prompt, sample: verdict if "baseline" in prompt.text.split("<|answer B|>")[1] else other
    )
    benchmark = PairwiseJudged(judge=engine)
    item = benchmark.parse({"question": "What?", "baseline": "baseline"}, "1")
    assert set(right(benchmark, item, texts).values()) <= {0.5}


def test_judgements(canary):
    """A judge that writes such texts gives a verdict, or an error; never both places the same winner."""
    for text in chosen(answers(canary)).values():
        engine = AnsweringEngine(lambda prompt, sample, text=text: text)
        pairwise, rubric = PairwiseJudged(judge=engine), RubricJudged(judge=engine)
        [[verdict]] = pairwise.score_all([pairwise.parse({"question": "?", "baseline": "b"}, "1")], [["a"]])
        assert (verdict.status, verdict.score) in (("ok", 0.5), ("error", None))
        row = {"query": "?", "checklist": [{"name": "fit"}]}
        [[verdict]] = rubric.score_all([rubric.parse(row, "1")], [["a"]])
        assert verdict.status == "error" or 0.1 <= verdict.score <= 1.0
        with PairwisePreferenceReward(engine) as reward:
            [results] = reward.score([group(question(), ["a", "b"])])
        assert {result.score for result in results} in ({0.5}, {None})


def test_answers_in_a_preference(canary):
    texts = list(chosen(answers(canary)).values())
    engine = AnsweringEngine(lambda prompt, sample: "tie")
    with PairwisePreferenceReward(engine, opponents=1) as reward:
        [results] = reward.score([group(question(), texts)])
    assert len(results) == len(texts)
    assert {result.score for result in results} <= {0.0, 0.5, 1.0}  # 0 and 1: one of the two is empty


# -- functions of the user ------------------------------------------------------------------------------------------------

FUNCTIONS = """
def exact(question, answers):
    return [float(answer.strip() == question["answer"]) for answer in answers]


def evaluated(question, answers):
    return [value(answer) == 7919 and 1.0 for answer in answers]


def value(answer):
    try:
        return eval(answer)
    except BaseException:
        return None
"""


@pytest.fixture
def open_folder():
    """One that the sandbox's user can read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_functions(canary, tmp_path, monkeypatch):
    (tmp_path / "hostile_functions.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))
    texts = chosen(answers(canary))
    with FunctionReward("hostile_functions.exact", workers=1) as reward:
        [results] = reward.score([group(question("7919"), [*texts.values(), "7919"])])
    assert [result.score for result in results] == [0.0] * len(texts) + [1.0]


def test_functions_that_evaluate_in_the_sandbox(canary, open_folder, monkeypatch):
    (open_folder / "hostile_evaluation.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(open_folder))
    payloads = [text for name, text in answers(canary).items() if name.startswith("payload") and name.endswith("in 0")]
    with FunctionReward("hostile_evaluation.evaluated", workers=2, deadline=3.0, sandbox=True) as reward:
        groups = [group(question("7919"), [text]) for text in payloads[::3]]
        results = reward.score([*groups, group(question("7919"), ["7918 + 1"])])
    assert [result.score for [result] in results][-1] == 1.0
    assert {result.score for [result] in results[:-1]} <= {0.0, None}
