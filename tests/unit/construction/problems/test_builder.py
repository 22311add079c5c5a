"""Problems constructed backwards, in the real sandbox: the quality of their tests, and what is dropped."""

import json

import pytest

from nbg_lightning.construction.chat_models import ChatModelConfig
from nbg_lightning.construction.problems.builder import ProblemBuilder, signature
from nbg_lightning.construction.problems.given_code import CodeJsonLines, ModuleFunctions
from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import Answer
from nbg_lightning.engines.protocol import Completion
from nbg_lightning.rewards.code import CodeReward
from nbg_lightning.rewards.protocol import Group
from nbg_lightning.testing.benchmarks import AnsweringEngine

SIGN = "def sign(x):\n    if x > 0:\n        return 1\n    if x < 0:\n        return -1\n    return 0\n"


def build(folder, rows=None, engine=None, **settings):
    if rows is not None:
        file = folder / "code.jsonl"
        folder.mkdir(exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings["code"] = {"given": CodeJsonLines(str(file))}
    if engine is not None:
        engine.interface = "chat"
        settings["models"] = {"m": ChatModelConfig(engine)}
    given = {
        "progress": False,
        "mutants": 6,
        "calls": 40,
        "timeout": 5,
        "mutant_timeout": 1.0,
        "workers": 2,
        **settings,
    }
    return ProblemBuilder(out=str(folder / "out"), **given)


def rows(folder, name):
    return [json.loads(line) for line in (folder / "out" / f"{name}.jsonl").read_text().splitlines()]


def answered(program):
    text = f"```python\n{program}\n```"
    return Answer(Completion((), (), "stop", 0, 0, 0, text=text), text, None, text)


def test_a_problem_with_its_tests(tmp_path):
    row = {
        "task_id": 1,
        "code": SIGN,
        "text": "The sign of a number.",
        "test_list": ["assert sign(5) == 1", "assert sign(-2) == -1"],
    }
    report = build(tmp_path, [row]).run()
    assert report["outcomes"] == {"kept": {"count": 1}}
    [problem] = rows(tmp_path, "problems")
    data = problem["data"]
    text = problem["messages"][0]["content"]
    assert "The sign of a number." in text
    assert "`sign(x)`" in text
    assert data["public_tests"] == row["test_list"]
    assert all(test in text for test in data["public_tests"])
    assert not any(test in text for test in data["private_tests"])
    assert any("sign(0)" in test for test in data["private_tests"])  # what the public ones left out
    assert data["mutation_score"] == 1.0
    [solution] = rows(tmp_path, "solutions")
    assert solution["public_mutation_score"] < 1.0
    assert solution["survivors"] == []
    question = Question.from_dict(problem)
    assert solution["question"] == question.key
    with CodeReward() as reward:
        assert reward.check(question) is None
        wrong = SIGN.replace("return 0", "return 1")
        [results] = reward.score([Group(question, (answered(SIGN), answered(wrong), answered("def sign(x): pass")))])
    assert [result.score for result in results] == [1.0, 0.0, 0.0]


def test_problems_of_the_standard_library(tmp_path):
    code = {"library": ModuleFunctions(["statistics"], maximum_program_lines=15)}
    report = build(tmp_path, code=code, limit=5, items_per_batch=3, minimum_mutation_score=0.5).run()
    names = [row["name"] for row in rows(tmp_path, "solutions")]
    assert "median" in names
    median = next(row for row in rows(tmp_path, "solutions") if row["name"] == "median")
    assert median["mutation_score"] >= 0.9
    assert any(
        "must raise ValueError" in test
        for test in rows(tmp_path, "problems")[names.index("median")]["data"]["private_tests"]
    )
    assert report["mutation_scores"]["mean"] >= report["mutation_scores"]["mean_of_public_tests"]


def test_what_is_dropped_and_why(tmp_path):
    given = [
        {"code": "def broken(:"},
        {"code": SIGN},  # no text
        {"code": SIGN + "\n", "entry_point": "other", "text": "?"},
        {"code": "import random\ndef f(x):\n    return random.random() + len(x)", "text": "Random."},
        {"code": "def f(x):\n    while True: pass", "text": "Endless."},
        {"code": "class C: pass\ndef f(x):\n    return C()", "text": "Opaque."},
        {"code": SIGN + "# 2", "text": "Wrong.", "test_list": ["assert sign(1) == 2"]},
        {"code": SIGN + "# 3" * 300, "text": "Long."},
        {"code": "def f(x):\n    return x", "text": "Nothing to change.", "test_list": ["assert f(1) == 1"]},
        {"code": "import os\ndef f(x):\n    return os.listdir('/root')", "text": "Not allowed."},
    ]
    report = build(tmp_path, given, max_characters=600, timeout=2).run()
    became = {kind: each["count"] for kind, each in report["outcomes"].items()}
    assert became["invalid"] == 1
    assert became["no_text"] == 1
    assert became["no_function"] == 1
    assert became["few_tests"] == 4  # random, endless, opaque, not allowed
    assert became["solution_fails"] == 1
    assert became["too_long"] == 1
    assert became.get("kept", 0) + became.get("weak_tests", 0) == 1
    assert report["input"]["given"]["first"].endswith("code.jsonl:1: no Python, or too long or too deep")


def test_weak_tests_are_dropped_by_their_score(tmp_path):
    hidden = "def f(x):\n    if sum(map(ord, x)) == 98765:\n        return 40 + 2\n    return 0\n"
    row = {"code": hidden, "text": "Always 0?", "test_list": ["assert f('a') == 0"]}
    report = build(tmp_path, [row], minimum_mutation_score=0.9).run()
    assert report["outcomes"]["weak_tests"]["count"] == 1
    assert rows(tmp_path, "problems") == []


TWO_BLOCKS = f"Here it is:\n```python\n{SIGN}```\nCalls:\n```python\nsign(3)\nsign(-3)\nsign(0)\nsign(x)\n```"


class Told(AnsweringEngine):
    def __init__(
        self,
        program=TWO_BLOCKS,
        text="The function sign is given a number and returns its sign as -1, 0 or 1.",
        calls="",
    ):
        super().__init__(self._answer)
        self.told = (program, text, calls)
        self.asked = []

    def _answer(self, prompt, sample):
        kind = (
            0
            if prompt.text.startswith("Write one Python function")
            else 1
            if "programming problem" in prompt.text
            else 2
        )
        self.asked.append((kind, prompt.text))
        return self.told[kind]


def test_a_program_that_a_model_wrote(tmp_path):
    engine = Told()
    report = build(tmp_path, engine=engine, topics=["signs of numbers"], coder="m", describer="m").run()
    assert report["outcomes"] == {"kept": {"count": 1}}
    [problem] = rows(tmp_path, "problems")
    assert problem["messages"][0]["content"].startswith("The function sign is given a number")
    assert problem["data"]["origin"] == "written on: signs of numbers"
    assert "signs of numbers" in engine.asked[0][1]
    assert [kind for kind, _ in engine.asked] == [0, 1]  # the text comes last


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"program": "I'm sorry, but I can't write code."}, "program_refused"),
        ({"program": "def f(x): return x"}, "program_unparsable"),
        ({"program": "```python\ndef f(\n```"}, "program_unparsable"),
        ({"text": f"Write this: {SIGN}"}, None),
        ({"text": "Write:\n```python\nx\n```"}, "text_has_code"),
        ({"text": ""}, "text_empty"),
    ],
)
def test_what_models_write_that_is_of_no_use(tmp_path, told, reason):
    report = build(tmp_path, engine=Told(**told), topics=["signs"], coder="m", describer="m", tries=2).run()
    if reason is None:  # no line of this solution is long enough to give it away
        assert report["outcomes"] == {"kept": {"count": 1}}
    else:
        assert report["outcomes"][reason]["count"] == 1


def test_a_text_that_gives_the_solution_away(tmp_path):
    line = "return [value for value in values if value > limit]"
    source = f"def above(values, limit):\n    {line}\n"
    row = {"code": source, "test_list": ["assert above([1, 5], 2) == [5]"]}
    report = build(
        tmp_path, [row], Told(text=f"Write `{line}` as a function."), describer="m", minimum_mutation_score=0
    ).run()
    assert report["outcomes"]["text_gives_solution_away"]["count"] == 1


def test_further_calls_of_a_model(tmp_path):
    engine = Told(calls="```python\nsign(12345)\nsign('a')\n```")
    build(tmp_path, [{"code": SIGN, "text": "Sign."}], engine, tester="m").run()
    [record] = [json.loads(line) for line in (tmp_path / "out" / "records.jsonl").read_text().splitlines()]
    assert record["trace"][0]["outcome"] == "ok"
    assert record["status"] == "kept"


def test_a_restart_ends_the_same(tmp_path):
    given = [{"code": SIGN.replace("1", str(n)), "text": f"Sign {n}."} for n in range(1, 5)]
    build(tmp_path / "whole", given, items_per_batch=2).run()

    class Killed(BaseException):
        pass

    killed = build(tmp_path / "killed", given, items_per_batch=2)
    make, made = killed.make, []

    def stop(program, source, trace=None):
        if len(made) == 3:
            raise Killed
        made.append(program.name)
        return (yield from make(program, source, trace))

    killed.make = stop
    with pytest.raises(Killed):
        killed.run()
    again = build(tmp_path / "killed", given, items_per_batch=2)
    make_again, made_again = again.make, []
    again.make = lambda program, source, trace=None: (
        made_again.append(program.name) or make_again(program, source, trace)
    )
    again.run()
    assert len(made_again) == 1
    for name in ("problems", "solutions"):
        assert [{**row, "key": ""} for row in rows(tmp_path / "killed", name)] == [
            {**row, "key": ""} for row in rows(tmp_path / "whole", name)
        ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "code is invalid"),
        ({"topics": ["x"]}, "coder is invalid"),
        ({"code": {}, "topics": ["x"], "coder": "nobody"}, "coder is invalid: 'nobody'"),
        ({"code": {"m": ModuleFunctions(["bisect"])}, "mutants": 0}, "mutants is invalid: 0"),
        ({"code": {"m": ModuleFunctions(["bisect"])}, "minimum_tests": 99}, "minimum_tests is invalid: 99"),
        (
            {"code": {"m": ModuleFunctions(["bisect"])}, "minimum_mutation_score": 2},
            "minimum_mutation_score is invalid: 2",
        ),
    ],
)
def test_settings_that_cannot_be(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        build(tmp_path, **settings)


def test_the_signature():
    source = "def g(): pass\ndef f(a: int, b=2, *rest, c: str = 'x', **more) -> int: return 1"
    assert signature(source, "f") == "f(a, b=2, *rest, c='x', **more)"


def test_words_of_the_program_are_tried(tmp_path):
    hidden = "def f(x):\n    if x == 'open sesame':\n        return 40 + 2\n    return 0\n"
    build(tmp_path, [{"code": hidden, "text": "Opens.", "test_list": ["assert f('a') == 0"]}]).run()
    [problem] = rows(tmp_path, "problems")
    assert "assert f('open sesame') == 42" in problem["data"]["private_tests"] + problem["data"]["public_tests"]
