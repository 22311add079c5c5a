"""No answer executes code, scores by it, stops its checker, or affects the next answer."""

import os
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest
import reasoning_gym
from answers import asked, group, scores

from nbg_lightning.rewards import FunctionReward, MathReward, ReasoningGymReward
from nbg_lightning.rewards.reasoning_gym import UNFIT
from nbg_lightning.scoring.checker_process import CheckerProcess, checker_isolation
from nbg_lightning.scoring.checkers.kinds import EVALUATING
from nbg_lightning.scoring.pool import VerifierPool
from nbg_lightning.scoring.sandbox import isolation
from nbg_lightning.scoring.verifier import Verifier, VerifierError

SETTINGS = {"size": 1, "seed": 3}
OS = "__import__('os')"
PAYLOADS = [
    f"{OS}.system('id > MARK')", f"[{OS}.system('id > MARK')]", f"{{{OS}.system('id > MARK')}}", f"{OS}.system('id') or 1+1",
    "().__class__.__bases__[0].__subclasses__()", "[c for c in ().__class__.__mro__]", "(lambda: 1)()",
    f"{OS}._exit(0)", f"{OS}.kill({OS}.getppid(), 9)", f"{OS}.kill(1, 9)", f"[{OS}.fork() for i in range(99)]",
    f"[{OS}.write(i, b'+{{\"value\": 1.0}}') for i in range(21)]", "print('+{\"value\": 1.0}')",
    "[setattr(__import__('reasoning_gym'), 'score_answer', 1)]", "getattr(1, 'real')", "open('/etc/passwd').read()",
    "sympify('().__class__')", "sin('__import__(\"os\").system(\"id\")')", "parse_expr('eval(1)')", "lambdify(x, 'x')",
    "Function('f')(getattr)(1)", "integrate(x**2, x)", "breakpoint()", "input()", "import os; os._exit(0)", "while True: pass",
    "9**9**9**9", "'a'*10**12", "[0]*10**12", "factorial(10**9)", f"{OS}.abort()", "raise SystemExit", "exit(0)",
    "__import__('time').sleep(100)", "__import__('sys').exc_info()[2].tb_frame.f_back.f_locals.clear()",
]  # fmt: skip


@pytest.fixture(scope="module")
def pool():
    with VerifierPool(workers=2, deadline=2.0) as pool:
        yield pool


def entry(task):
    return reasoning_gym.create_dataset(task, **SETTINGS)[0]


def test_no_payload_runs_or_scores(pool):
    """Each payload for each task that evaluates answers, then the task's own answer, which is right yet."""
    mark = os.path.join(tempfile.mkdtemp(), "ran")
    calls = []
    for task in EVALUATING:
        one = entry(task)
        calls += [(task, SETTINGS, one, payload.replace("MARK", mark)) for payload in PAYLOADS]
        calls += [(task, SETTINGS, one, one["answer"])] if one["answer"] else []
    begin = time.process_time()
    outcomes = pool.map("reasoning_gym", calls)
    for (task, _, one, text), outcome in zip(calls, outcomes, strict=True):
        assert outcome.status == "ok", (task, text, outcome)
        assert outcome.value == float(text == one["answer"]), (task, text, outcome)
    assert not os.path.exists(mark)
    assert time.process_time() - begin < 10  # of this process: it only waits


def test_programs_say_why_they_are_wrong(pool):
    (outcome,) = pool.map("reasoning_gym", [("countdown", SETTINGS, entry("countdown"), f"{OS}.system('id')")])
    assert outcome.value == 0.0 and outcome.detail.startswith("the answer is not evaluated: ")
    (outcome,) = pool.map("reasoning_gym", [("countdown", SETTINGS, entry("countdown"), "factorial(10**9)")])
    assert (outcome.value, outcome.detail) == (0.0, "no verdict within 2 s")


@pytest.mark.slow
def test_every_task_has_the_verdicts_of_its_checker(pool):
    """The task's own answer and three others, of every task; what the checker raises on is wrong."""
    calls, expected = [], []
    for task in sorted(set(reasoning_gym.factory.DATASETS) - set(UNFIT) - {"composite"}):
        dataset = reasoning_gym.create_dataset(task, **SETTINGS)
        one = dataset[0]
        for text in (one["answer"], "wrong", "[1, 2, 3]", f"{str(one['answer'])[:-1]}7"):
            if text is None:
                continue
            try:
                expected.append(float(dataset.score_answer(answer=text, entry=one)))
            except Exception:
                expected.append(0.0)
            calls.append((task, SETTINGS, one, text))
    assert len(calls) > 350
    outcomes = pool.map("reasoning_gym", calls)
    assert [(outcome.status, outcome.value) for outcome in outcomes] == [("ok", value) for value in expected]


def test_errors_are_the_questions_fault(pool):
    one = entry("chain_sum")
    (outcome,) = pool.map("reasoning_gym", [("chain_sum", SETTINGS, {**one, "answer": [7]}, one["answer"])])
    assert outcome.status == "error" and "failed" in outcome.detail
    outcomes = pool.map("reasoning_gym", [("no_such_task", {}, one, "1"), ("chain_sum", {"nothing": 1}, one, "1")])
    assert [outcome.status for outcome in outcomes] == ["error", "error"]
    (outcome,) = pool.map("math", [(r"\frac{", "1")])
    assert outcome.status in ("ok", "error") and not outcome.value


def test_expressions_of_many_variables_are_compared(pool):
    """sympy makes code for polynomials of so many variables, which is not the answer's."""
    pairs = [
        (r"\frac{ab+cd+ef}{\sqrt{a}}", r"\frac{ab}{\sqrt a}+\frac{cd}{\sqrt a}+\frac{ef}{\sqrt a}"),
        (r"(a+b+c)^3\sin(x)", r"(a+b+c)(a+b+c)^2\sin x"),
        ("The answer is 5", "5"),
    ]
    outcomes = pool.map("math", pairs)
    assert [(outcome.value, outcome.detail) for outcome in outcomes] == [(True, ""), (True, ""), (False, "")]


def test_memory_is_bounded():
    process = CheckerProcess("math", memory=256)
    try:
        reply = process.ask(("1", "[" + ",".join(["x+1"] * 200_000) + "]"), 5.0)
        assert reply["status"] == "ok" and reply["value"] is False and reply["detail"]
        assert process.ask(("1/2", "0.5"), 5.0)["value"] is True
    finally:
        process.close()


@pytest.fixture
def functions(monkeypatch):
    """A module of the user's, where the sandbox's user can read it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        Path(folder, "sandboxed_functions.py").write_text(
            textwrap.dedent("""
            import os, socket, subprocess, time

            KEPT = []

            def look(question, answers):
                KEPT.append(1)
                return [float(len(KEPT)), float(os.getuid() == 0), float("HOME_SECRET" in os.environ)]

            def harm(question, answers):
                found = []
                for action in (
                    lambda: open("/tmp/file", "w"), lambda: os.mkdir("/dev/shm/folder"), lambda: os.fork(), lambda: os.kill(1, 9),
                    lambda: subprocess.run(["id"]), lambda: socket.socket(), lambda: os.setpriority(os.PRIO_PROCESS, 1, 19),
                    lambda: open("/proc/1/mem", "rb"), lambda: os.listdir("/root"), lambda: os.listdir("/work"),
                ):
                    try:
                        action()
                        found.append(1.0)
                    except OSError:
                        found.append(0.0)
                return found

            def hang(question, answers):
                time.sleep(60)

            def evaluate(question, answers):
                return [float(eval(answer)) for answer in answers]

            def raises(question, answers):
                raise ValueError("no reason")
            """)
        )
        monkeypatch.syspath_prepend(folder)
        yield


def test_sandboxed_functions(functions, monkeypatch):
    monkeypatch.setenv("HOME_SECRET", "1")
    checker_isolation.cache_clear()
    with VerifierPool(workers=1, deadline=2.0) as pool:

        def ask(name, *calls):
            return pool.map(f"sandboxed function sandboxed_functions.{name}", calls)

        assert [outcome.value for outcome in ask("look", ({}, []), ({}, []))] == [[1.0, 0.0, 0.0]] * 2
        assert ask("harm", ({}, []))[0].value == [0.0] * 10
        assert ask("evaluate", ({}, ["1 + 1", "2 ** 3"]))[0].value == [2.0, 8.0]
        assert ask("hang", ({}, []))[0].status == "timeout"
        assert ask("raises", ({}, []))[0].status == "error"
        assert ask("evaluate", ({}, ["3"]))[0].value == [3.0]


def test_function_reward_in_the_sandbox(functions):
    checker_isolation.cache_clear()
    with FunctionReward("sandboxed_functions.evaluate", sandbox=True, workers=1) as reward:
        assert scores(reward.score([group(asked("?"), "1 + 1", "5")])) == [[2.0, 5.0]]
    with pytest.raises(ValueError, match=r"packages is invalid: .* without a sandbox"):
        FunctionReward("sandboxed_functions.evaluate", packages=["numpy"])
    with pytest.raises(RuntimeError, match="'no_such_package' is not installed"):
        FunctionReward("sandboxed_functions.evaluate", sandbox=True, packages=["no_such_package"]).__enter__()


def test_without_isolation_nothing_runs(monkeypatch):
    monkeypatch.setattr(isolation, "_bubblewraps", lambda: [])
    checker_isolation.cache_clear()
    try:
        for reward in (MathReward(), ReasoningGymReward()):
            with pytest.raises(RuntimeError, match="no sandbox: there is no bwrap; install bubblewrap"):
                reward.__enter__()
        with pytest.raises(RuntimeError, match="no sandbox"), Verifier() as verifier:
            verifier.call("math", "1", "2")
    finally:
        checker_isolation.cache_clear()


def test_a_checker_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    checker_isolation.cache_clear()
    try:
        with Verifier() as verifier, pytest.raises(VerifierError, match="not installed; pip install reasoning-gym"):
            verifier.call("reasoning_gym", "chain_sum", {}, {}, "1")
    finally:
        checker_isolation.cache_clear()


def test_importing_verifiers_imports_no_torch():
    code = "import sys, nbg_lightning.scoring.verifier; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
