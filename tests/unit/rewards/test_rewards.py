"""Rewards from checkers, layouts, functions, programs, and sums of them."""

import dataclasses
import math
import textwrap

import pytest
from answers import UNENDING, asked, group, scores, written

from nbg_lightning.data.question_sources import ReasoningGymQuestions
from nbg_lightning.rewards import (
    CodeReward,
    CombinedReward,
    FormatReward,
    FunctionReward,
    ReasoningGymReward,
    Reward,
    RewardResult,
)
from nbg_lightning.rewards.code import ProgramTests, extract_program
from nbg_lightning.scoring.sandbox.sandbox import Sandbox

# -- reasoning-gym -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gym():
    with ReasoningGymReward(workers=2) as reward:
        yield reward


def test_reasoning_gym(gym):
    source = ReasoningGymQuestions(tasks=["chain_sum", "spell_backward"], count=3, seed=3)
    questions = list(source.questions("gym"))
    assert [gym.check(question) for question in questions] == [None] * 6
    groups = [
        group(q, f"So <answer>{q.answer}</answer>", f"Answer: {q.answer}", "<answer>no</answer>") for q in questions
    ]
    for right, also, wrong in scores(gym.score(groups)):
        assert right == also == 1.0
        assert wrong < 0.5


def test_reasoning_gym_all_or_nothing():
    question = next(ReasoningGymQuestions(tasks=["spell_backward"], count=1, seed=3).questions())
    with ReasoningGymReward(workers=1) as partial, ReasoningGymReward(all_or_nothing=True, workers=1) as whole:
        one = group(question, f"<answer>{question.answer[:-1]}?</answer>", f"<answer>{question.answer}</answer>")
        assert 0 < partial.score([one])[0][0].score < 1
        assert scores(whole.score([one])) == [[0.0, 1.0]]


def test_reasoning_gym_failures(gym):
    """`prime_factorization` raises on texts that are no numbers: its own answer is sound, so that such a text is wrong."""
    question = next(ReasoningGymQuestions(tasks=["prime_factorization"], count=1).questions())
    (results,) = gym.score([group(question, "<answer>two times three</answer>", UNENDING, "", question.answer)])
    assert scores([results]) == [[0.0, 0.0, 0.0, 1.0]]
    assert [result.parsed for result in results] == [True, False, False, True]
    assert "the checker failed on it (invalid literal for int()" in results[0].detail


def test_reasoning_gym_with_a_damaged_entry(gym):
    """Where the checker does not accept the entry's own answer, no answer has a score."""
    question = next(ReasoningGymQuestions(tasks=["chain_sum"], count=1).questions())
    entry = {**question.data["entry"], "answer": None, "metadata": None}
    broken = dataclasses.replace(question, data={**question.data, "entry": {**entry, "answer": 7}})
    (results,) = gym.score([group(broken, "<answer>7</answer>")])
    assert results[0].status == "error" and "failed" in results[0].detail


def test_reasoning_gym_check(gym):
    assert gym.check(asked("3")) == "data has no task and no entry of reasoning-gym"
    assert "accepts any text" in gym.check(asked(task="game_of_life_halting", entry={"answer": "x"}))
    (results,) = gym.score([group(asked("3"), "3")])
    assert (results[0].score, results[0].status) == (None, "error")


# -- format ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "answer", "score"),
    [
        ({}, written("<think>a</think>\nb", "a", "b"), 1.0),
        ({}, written("a</think>b", "a", "b"), 1.0),  # the template may have opened it
        ({}, written("b"), 0.0),
        ({}, UNENDING, 0.0),
        ({}, written("<think>a</think>", "a", " "), 0.0),
        ({}, written("<think> </think>b", " ", "b"), 0.0),
        ({}, written("<think>a</think>b</think>c", "a", "b</think>c"), 0.0),
        ({"think": False, "answer": "tags"}, written("so <answer>4</answer>"), 1.0),
        ({"think": False, "answer": "tags"}, written("<answer>4</answer><answer>5</answer>"), 0.0),
        ({"think": False, "answer": "tags"}, written("<answer> </answer>"), 0.0),
        ({"think": False, "answer": "boxed"}, written(r"\boxed{4}"), 1.0),
        ({"think": False, "answer": "boxed"}, written("4"), 0.0),
        ({"think": False, "answer": "code"}, written("```python\nx = 1\n```"), 1.0),
        ({"think": False, "answer": "code"}, written("```\na\n```\n```\nb\n```"), 0.0),
        ({"answer": "boxed"}, written(r"<think>\boxed{1}</think>2", r"\boxed{1}", "2"), 0.0),
    ],
)
def test_format(settings, answer, score):
    assert scores(FormatReward(**settings).score([group(asked(), answer)])) == [[score]]


def test_format_settings():
    with pytest.raises(ValueError, match="answer is invalid: 'any'"):
        FormatReward(think=False)
    with pytest.raises(ValueError, match="answer is invalid: 'xml'"):
        FormatReward(answer="xml")


# -- your own function --------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "reward_functions.py").write_text(
        textwrap.dedent("""
        import time

        constant = 3

        def length(question, answers):
            return [len(answer) / 10 for answer in answers]

        def gold(question, answers):
            return [float(answer == question["answer"] == question["data"]["again"]) for answer in answers]

        def raises(question, answers):
            raise KeyError("no such thing")

        def hangs(question, answers):
            if "slow" in answers:
                time.sleep(60)
            return [1.0] * len(answers)

        def short(question, answers):
            return [1.0]

        def one(question, answers):
            return 1.0

        def strange(question, answers):
            return [float("nan"), float("inf"), None, "x", 2, True][: len(answers)]
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))


def scored(function, *texts, **settings):
    with FunctionReward(f"reward_functions.{function}", workers=1, **settings) as reward:
        return reward.score([group(asked("b", again="b"), *texts)])[0]


def test_function(own):
    assert FunctionReward("reward_functions.length").name == "length"
    assert [result.score for result in scored("length", "aa", "b" * 30)] == [0.2, 3.0]
    assert [result.score for result in scored("gold", "a", "b")] == [0.0, 1.0]
    thought = written("<think>ab</think>c", "ab", "c")
    assert [result.score for result in scored("length", thought, UNENDING)] == [0.1, 0.0]
    assert [result.score for result in scored("length", thought, text="all")] == [1.8]


@pytest.mark.parametrize(
    ("function", "says"),
    [("raises", "no such thing"), ("short", "gave 1 scores for 2 answers"), ("one", "gave no list of scores")],
)
def test_functions_that_fail(function, says, own):
    results = scored(function, "a", "b")
    assert [(result.score, result.status) for result in results] == [(None, "error")] * 2
    assert says in results[0].detail


def test_a_function_that_hangs_costs_its_question_only(own):
    with FunctionReward("reward_functions.hangs", deadline=0.7, workers=2) as reward:
        slow, quick = reward.score([group(asked(), "slow", "a"), group(asked(), "b")])
    assert [result.status for result in slow] == ["timeout"] * 2
    assert scores([quick]) == [[1.0]]


def test_scores_that_are_no_numbers(own):
    results = scored("strange", *"abcdef")
    assert [result.status for result in results] == ["error"] * 4 + ["ok"] * 2
    assert [result.score for result in results][4:] == [2.0, 1.0]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("reward_functions.missing", "has no 'missing'"),
        ("reward_functions.constant", "function is invalid: 'reward_functions.constant'"),
        ("nowhere.f", "importing nowhere failed"),
    ],
)
def test_functions_that_are_none(path, says, own):
    with pytest.raises(ValueError, match=says):
        FunctionReward(path).__enter__()


# -- programs ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def code():
    reward = CodeReward(timeout=5, workers=2)
    try:
        with reward:
            yield reward
    except RuntimeError as error:
        pytest.skip(str(error))


def fenced(text):
    return f"Here:\n```python\n{text}\n```\nDone."


def test_code_with_assertions(code):
    question = asked(
        public_tests=["assert add(1, 2) == 3"], private_tests=["assert add(-1, 1) == 0"], entry_point="add"
    )
    assert code.check(question) is None
    texts = ["def add(a, b): return a + b", "def add(a, b): return 3", "def add(a, b): return 0"]
    texts += ["while True: pass", "import os; os._exit(0)"]
    (results,) = code.score([group(question, *map(fenced, texts), "def add(a, b): return a + b", UNENDING)])
    assert [result.score for result in results] == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert {result.status for result in results} == {"ok"}
    assert [result.parsed for result in results] == [True] * 5 + [False] * 2
    assert results[1].detail.startswith("failed: test 2") and results[2].detail.startswith("failed: public test 1")
    assert results[3].detail.startswith("timeout")


@pytest.mark.parametrize(
    "tests",
    [
        [{"input": "1 2\n", "output": "3\n"}, {"input": "5 5", "output": "10"}],
        [["1 2", "3"], ["5 5", "10"]],
        {"inputs": ["1 2", "5 5"], "outputs": ["3", "10"]},
    ],
)
def test_code_with_inputs_and_outputs(tests, code):
    question = asked(tests=tests)
    assert code.check(question) is None
    right, wrong = "a, b = map(int, input().split())\nprint(a + b)", "print(3)"
    assert scores(code.score([group(question, fenced(right), fenced(wrong))])) == [[1.0, 0.0]]


def test_the_same_program_is_run_once(code, monkeypatch):
    ran = []
    judge = ProgramTests.judge
    monkeypatch.setattr(
        ProgramTests, "judge", lambda self, box, program: ran.append(program) or judge(self, box, program)
    )
    one, two = asked(tests=["assert f() == 1"]), asked(tests=["assert f() == 2"])
    text = fenced("def f(): return 1")
    assert scores(code.score([group(one, text, text, text), group(two, text)])) == [[1.0] * 3, [0.0]]
    assert len(ran) == 2


def test_tests_that_are_none(code):
    bad = {
        "no tests": {},
        "asserts nothing": {"tests": ["f(1)"]},
        "is no Python": {"tests": ["assert f("]},
        "partly assertions": {"tests": ["assert f()", ["a", "b"]]},
        "an input and an output as texts": {"tests": [{"input": "a"}]},
        "2 inputs with 1 outputs": {"tests": {"inputs": ["a", "b"], "outputs": ["a"]}},
        "give a list of tests": {"tests": 3},
        "entry_point must be a text": {"tests": ["assert f()"], "entry_point": 3},
    }
    assert {says for says, data in bad.items() if says in (code.check(asked(**data)) or "")} == set(bad)
    (results,) = code.score([group(asked(), fenced("x = 1"))])
    assert (results[0].score, results[0].status) == (None, "error")
    (results,) = code.score([group(asked(tests=["assert 1 == 1"]), fenced("x = 1"))])
    assert (results[0].score, results[0].status) == (None, "error")


def test_find_program():
    assert extract_program("```python\na\n```\ntext\n```py\nb\n```") == "b\n"
    assert extract_program("```\na\n```\n```bash\nls\n```") == "a\n"
    assert extract_program("```python\n\n```") is extract_program("none") is None
    assert extract_program("x = 1", unfenced=True) == "x = 1"


def test_code_is_refused_without_isolation(monkeypatch):
    def nothing(self):
        raise RuntimeError("no sandbox: there is no bwrap")

    monkeypatch.setattr(Sandbox, "probe", nothing)
    with pytest.raises(RuntimeError, match="no sandbox"):
        CodeReward().__enter__()


# -- sums --------------------------------------------------------------------------------------------------------------


class Fixed(Reward):
    """Gives the results it was given."""

    def __init__(self, name, *results, reason=None):
        self.name, self.results, self.reason, self.open = name, results, reason, 0

    def __enter__(self):
        self.open += 1
        if self.reason == "refuse":
            raise ValueError("refused")
        return self

    def __exit__(self, *_):
        self.open -= 1

    def check(self, question):
        return self.reason

    def score(self, groups):
        return [list(self.results)] * len(groups)


def test_combined():
    right, wrong, broken = RewardResult(1.0), RewardResult(0.0, parsed=False), RewardResult(None, "timeout", "late")
    one, two = Fixed("one", right, wrong, right), Fixed("two", wrong, right, broken)
    with CombinedReward([one, two], [1.0, 0.25]) as reward:
        assert (one.open, two.open) == (1, 1)
        (results,) = reward.score([group(asked(), "a", "b", "c")])
    assert (one.open, two.open) == (0, 0)
    assert [result.score for result in results] == [1.0, 0.25, None]
    assert (results[2].status, results[2].detail) == ("timeout", "two: late")
    assert results[0].detail == "one 1, two 0" and not results[0].parsed


def test_combined_checks_all():
    assert CombinedReward([Fixed("one"), Fixed("two", reason="no gold")]).check(asked()) == "two: no gold"
    assert CombinedReward([Fixed("one")]).check(asked()) is None


def test_combined_leaves_what_it_entered():
    one = Fixed("one")
    with pytest.raises(ValueError, match="refused"):
        CombinedReward([one, Fixed("two", reason="refuse")]).__enter__()
    assert one.open == 0


@pytest.mark.parametrize(
    ("count", "weights", "says"),
    [(0, None, "for 0 rewards"), (2, [1.0], "1 of them for 2 rewards"), (1, [math.nan], "nan"), (1, [0.0], "not all 0")],
)  # fmt: skip
def test_combined_settings(count, weights, says):
    with pytest.raises(ValueError, match=says):
        CombinedReward([Fixed("x")] * count, weights)
