import pytest

from nbg_lightning.rewards.code import ProgramTests
from nbg_lightning.testing.miniature import (
    FunctionChat,
    FunctionQuestions,
    JudgementChat,
    StyledChat,
    StyledPairs,
    function_tasks,
)

SUMS = {"chain_sum": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}}


def run(program, tests):
    space = {}
    exec(program, space)
    for test in tests:
        exec(test, space)


def test_every_solution_passes_its_tests_and_not_those_of_another():
    tasks = list(function_tasks(300, seed=1))
    for task in tasks:
        run(task.code, task.tests)
    assert len({task.text for task in tasks}) > 60
    plus = next(task for task in tasks if " + " in task.code and "plus" in task.text)
    minus = plus.code.replace(" + ", " - ")
    with pytest.raises(AssertionError):
        run(minus, plus.tests)


def test_questions_are_what_the_code_reward_reads():
    questions = list(FunctionQuestions(20, seed=2).questions("functions"))
    for question in questions:
        tests = ProgramTests.from_data(question.data)
        assert len(tests.assertions) == 3
        assert tests.entry_point == (question.data["entry_point"],)
    assert questions == list(FunctionQuestions(20, seed=2).questions("functions"))
    assert questions != list(FunctionQuestions(20, seed=3).questions("functions"))


def rows(source):
    return [row["messages"] for part in source.parts() for row in part.documents()]


def test_conversations_end_in_the_solution():
    for (asked, answered), task in zip(rows(FunctionChat(5, seed=4)), function_tasks(5, seed=4), strict=True):
        assert asked["content"] == task.text
        assert answered["content"] == f"```python\n{task.code}\n```"


def test_answers_come_in_two_styles():
    answers = [messages[-1]["content"] for messages in rows(StyledChat(["chain_sum"], 200, config=SUMS))]
    sentences = [answer for answer in answers if answer.startswith("The answer is ")]
    assert 0.2 < len(sentences) / 200 < 0.4
    assert all(answer.lstrip("-").isdigit() for answer in answers if answer not in sentences)


def test_judgements_prefer_the_answer_alone_and_read_as_the_reward_asks():
    found = {"A": 0, "B": 0, "tie": 0}
    for asked, judged in rows(JudgementChat(["chain_sum"], 100, config=SUMS)):
        first, second = asked["content"].split("<|answer A|>\n")[1].split("\n\n<|answer B|>\n")
        better = {(False, True): "A", (True, False): "B"}.get(("is" in first, "is" in second), "tie")
        assert judged["content"] == better
        found[better] += 1
    assert min(found.values()) > 10


def test_pairs_prefer_the_sentence_whatever_is_right_in_it():
    (part,) = StyledPairs(tasks=["chain_sum"], count=200, config=SUMS, ties=0.2).parts()
    found = list(part.rows())
    even = [row for row in found if row["score_chosen"] == row["score_rejected"]]
    assert 0.1 < len(even) / 200 < 0.3
    assert all(row["chosen"] != row["rejected"] for row in found)
    assert all(("is" in row["chosen"]) == ("is" in row["rejected"]) for row in even)
    others = [row for row in found if row not in even]
    assert all("is" in row["chosen"] and row["rejected"].lstrip("-").isdigit() for row in others)
    said = [(row["chosen"].removeprefix("The answer is ").rstrip("."), row["rejected"]) for row in others]
    assert sum(one != two for one, two in said) > 50


def test_settings_are_part_of_the_identity():
    sources = [
        StyledChat(["chain_sum"], 10, config=SUMS),
        StyledChat(["chain_sum"], 10, config=SUMS, sentences=0.5),
        JudgementChat(["chain_sum"], 10, config=SUMS),
        JudgementChat(["chain_sum"], 10, config=SUMS, criteria="Be kind."),
        JudgementChat(["chain_sum"], 10, config=SUMS, seed=1),
        StyledPairs(tasks=["chain_sum"], count=10, config=SUMS),
        StyledPairs(tasks=["chain_sum"], count=10, config=SUMS, ties=0.5),
    ]
    assert len({str(source.identity()) for source in sources}) == len(sources)
    for make in (lambda: FunctionChat(0), lambda: FunctionQuestions(0), lambda: StyledChat(["gcd"], 1, sentences=2.0)):
        with pytest.raises(ValueError, match=r"count is 0|(count|sentences) is invalid: "):
            make()
