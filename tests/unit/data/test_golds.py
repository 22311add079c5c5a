"""Gold answers in rows: each gives the intended gold, or a one-line error with advice."""

import json
import re
from decimal import Decimal

import numpy as np
import pytest
from datasets import Dataset

from nbg_lightning.data import Question, QuestionJsonLines, QuestionList, QuestionParquet
from nbg_lightning.data.golds import MAX_GOLD_CHARACTERS, Choices, gold_text, right_choice
from nbg_lightning.data.question import prompt_messages
from nbg_lightning.data.question_sources import QuestionCounts
from nbg_lightning.evaluation.tasks.questions import Questions

GOLDS = [
    ("5", "5"),
    (" 5 ", " 5 "),
    ("1,2", "1,2"),
    ("\\boxed{3}", "\\boxed{3}"),
    ("\\infty", "\\infty"),
    ("Infinity War", "Infinity War"),
    ("None of these", "None of these"),
    (5, "5"),
    (-3, "-3"),
    (0, "0"),
    (0.1 + 0.2, "0.30000000000000004"),
    (2.0, "2.0"),
    (Decimal("0.30"), "0.30"),
    (np.int64(7), "7"),
    (np.float64(0.5), "0.5"),
    (np.float32(0.5), "0.5"),
    (np.str_("a"), "a"),
    (["5"], "5"),
    (np.array([5]), "5"),
    (None, None),
]
NO_GOLDS = [
    (["5", "6"], "list of 2: only one gold is supported"),
    ([], "list of 0"),
    ([[]], "list of 0"),
    (np.array([1, 2]), "list of 2"),
    (float("nan"), "is nan, which no answer equals"),
    (float("inf"), "is inf, which"),
    (-np.inf, "is -inf, which"),
    (np.float32("nan"), "is nan, which"),
    (Decimal("NaN"), "is NaN, which"),
    ("nan", "'nan', which exports write for a missing one"),
    ("-inf", "'-inf', which exports"),
    ("", "is empty"),
    (" \n ", "is empty"),
    (True, "truth value"),
    (np.bool_(False), "truth value"),
    ({"value": 5}, "is an object; give its text"),
    (b"5", "is of bytes"),
    ("\ud800", "half of a surrogate pair"),
    ("5" * (MAX_GOLD_CHARACTERS + 1), "shorten it to 100,000"),
    (10**5000, "too many digits"),
    (1j, "type complex"),
    (object(), "type object"),
]
ABC, NUMBERS = ["a", "b", "c"], [1, 2, 3]
NAMED = {"text": ["x", "y"], "label": ["A", "B"]}
RIGHT = [
    ({"choices": ABC, "answer": "b"}, 1),
    ({"choices": ABC, "answer": "B"}, 1),
    ({"choices": ["red", "green"], "answer": "green"}, 1),
    ({"choices": ["red", "green"], "answer": " green "}, 1),
    ({"choices": ["red", "green"], "answer": "GREEN"}, 1),
    ({"choices": ["red", "green"], "answer": "b"}, 1),
    ({"choices": ["red", "green"], "answer": "(B)"}, 1),
    ({"choices": ["red", "green"], "answer": "B."}, 1),
    ({"choices": ["red", "green"], "answer": "b)"}, 1),
    ({"choices": ["red", "green"], "answerKey": "B"}, 1),
    ({"choices": ["red", "green"], "answer": 0}, 0),
    ({"choices": ["red", "green"], "answer": np.int64(1)}, 1),
    ({"choices": ["red", "green"], "answer": ["green"]}, 1),
    ({"choices": np.array(["red", "green"]), "answer": "green"}, 1),
    ({"choices": ["True", "False"], "answer": True}, 0),
    ({"choices": ["true", "false"], "answer": False}, 1),
    ({"choices": [True, False], "answer": False}, 1),
    ({"choices": NUMBERS, "answer": 3}, 2),  # there is no index 3
    ({"choices": [0, 1, 2], "answer": 1}, 1),  # both readings agree
    ({"choices": [10, 20, 30], "answer": 20}, 1),
    ({"choices": NUMBERS, "answer": "2"}, 1),
    ({"choices": NUMBERS, "answer": "B"}, 1),
    ({"choices": NUMBERS, "answer_index": 2}, 2),
    ({"choices": NUMBERS, "answer": 2, "answer_index": 2}, 2),
    ({"choices": [0.5, 0.25], "answer": 0.25}, 1),
    ({"choices": ["0.50", "0.25"], "answer": 0.5}, 0),
    ({"choices": NAMED, "answer": "B"}, 1),
    ({"choices": NAMED, "answer": "y"}, 1),
    ({"choices": NAMED, "answerKey": "A"}, 0),
    ({"choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}, 1),
    ({"choices": {"text": ["x", "y"]}, "answer": "y"}, 1),
    ({"choices": ["None", "One"], "answer": "None"}, 0),
]
NO_CHOICE = [
    ({"choices": NUMBERS, "answer": 2}, "'2' is ambiguous: '2' (by its value) or '3' (by its index); give the index"),
    ({"choices": NUMBERS, "answer": 1}, "is ambiguous"),
    ({"choices": ["1", "2", "3"], "answer": 2}, "is ambiguous"),
    ({"choices": ["1", "2", "many"], "answer": 2}, "is ambiguous"),
    ({"choices": [10, 20, 30], "answer": 2}, "'2' is not among the 3 choices"),
    ({"choices": {"text": ["x", "y", "z"], "label": ["1", "2", "3"]}, "answer": 2}, "is ambiguous"),
    (
        {"choices": {"text": ["2", "1"], "label": ["1", "2"]}, "answer": "2"},
        "is ambiguous: '2' (by its text) or '1' (by its",
    ),
    ({"choices": ["b", "a"], "answer": "b"}, "is ambiguous"),
    ({"choices": ABC, "answer": True}, "'True' is not among"),
    ({"choices": NUMBERS, "answer": True}, "'True' is not among"),
    ({"choices": ABC, "answer": 3}, "'3' is not among"),
    ({"choices": ABC, "answer": -1}, "'-1' is not among"),
    ({"choices": ABC, "answer": 1.0}, "'1.0' is not among"),
    ({"choices": ABC, "answer": "D"}, "'D' is not among the 3 choices; give the text or the label (A to C)"),
    ({"choices": ABC, "answer": ""}, "is not among"),
    ({"choices": ABC, "answer": ["a", "b"]}, "is not among"),
    ({"choices": ABC, "answer": float("nan")}, "'nan' is not among"),
    ({"choices": ABC, "answer": {"a": 1}}, "is not among"),
    ({"choices": ABC}, "there are choices, but no answer"),
    ({"choices": ABC, "answer": None}, "there are choices, but no answer"),
    ({"choices": ABC, "answer": "a", "answerKey": "B"}, "another field says 'a'"),
    ({"choices": ABC, "answer": "a", "answer_index": 1}, "another field says 'b'"),
    ({"choices": ABC, "answer_index": 3}, "answer_index is invalid: '3'; give 0 to 2"),
    ({"choices": ABC, "answer_index": True}, "answer_index is invalid: 'True'"),
    ({"choices": NAMED, "answer": "text"}, "'text' is not among the 2 choices"),
    ({"choices": {"text": ["x", "y"], "label": ["A"]}, "answer": "A"}, "2 choices and 1 labels"),
    ({"choices": {"text": ["x", "y"], "label": ["A", "A"]}, "answer": "A"}, "labels of choices have 'A' twice"),
    ({"choices": {"A": "x", "B": "y"}, "answer": "A"}, "an object without text and label"),
    ({"choices": ["a", "b", "a"], "answer": "b"}, "choices have 'a' twice"),
    ({"choices": [1, "1"], "answer": "1"}, "choices have '1' twice"),
    ({"choices": [], "answer": "a"}, "there are 0 choices"),
    ({"choices": ["a"], "answer": "a"}, "there are 1 choices"),
    ({"choices": ["a", None], "answer": "a"}, "one is missing"),
    ({"choices": ["a", " "], "answer": "a"}, "one is empty"),
    ({"choices": ["a", {"b": 1}], "answer": "a"}, "is an object"),
    ({"choices": "abc", "answer": "a"}, "of type str; give a list"),
    ({"choices": list(map(str, range(27))), "answer": "1"}, "more than 26 letters"),
]


@pytest.mark.parametrize(("value", "gold"), GOLDS, ids=range(len(GOLDS)))
def test_a_gold(value, gold):
    assert gold_text(value) == gold
    assert [q.answer for q in QuestionList([{"question": "q", "answer": value}]).questions()] == [gold]


@pytest.mark.parametrize(("value", "problem"), NO_GOLDS, ids=range(len(NO_GOLDS)))
def test_what_no_answer_can_match_is_refused_and_counted(value, problem):
    source = QuestionList([{"question": "q", "answer": "1"}, {"question": "q", "answer": value}])
    with pytest.raises(ValueError, match="question 1 of the list: ") as caught:
        list(source.questions())
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    counts = QuestionCounts()
    assert [question.answer for question in source.questions("s", counts)] == ["1"]
    assert (counts.seen, counts.invalid) == (2, 1)
    assert problem in counts.first


@pytest.mark.parametrize(("row", "right"), RIGHT)
def test_the_right_choice(row, right):
    row = {"question": "q", **row}
    choices, place = right_choice(row)
    assert place == right
    (question,) = QuestionList([row]).questions()
    assert question.answer == choices.texts[right]
    assert "choices" in question.data
    item = Questions(path="unused", answers="rated").parse(row, "0")
    assert (item.answer, item.choices) == (right, choices.texts)
    assert Questions(path="unused").parse(row, "0").answer == choices.texts[right]


@pytest.mark.parametrize(("row", "problem"), NO_CHOICE)
def test_a_gold_that_is_no_single_choice_is_refused(row, problem):
    row = {"question": "q", **row}
    for read in (
        lambda: list(QuestionList([row]).questions()),
        lambda: Questions(path="x", answers="rated").parse(row, "0"),
    ):
        with pytest.raises(ValueError, match=re.escape(problem)) as caught:
            read()
        assert "\n" not in str(caught.value)


def test_a_label_stays_where_the_prompt_shows_the_choices():
    row = {"question": "Which?\nA. red\nB. green", "choices": ["red", "green"]}
    golds = [next(QuestionList([{**row, "answer": answer}]).questions()).answer for answer in ("b", "green", 1)]
    assert golds == ["B", "green", "green"]


def test_rated_items_of_a_file_name_the_line(tmp_path):
    path = tmp_path / "q.jsonl"
    rows = [
        {"question": "How many?", "choices": NUMBERS, "answer": 2},
        {"question": "q", "choices": ABC, "answer": "B"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    bad, good = Questions(path=str(path), answers="rated").load().items
    assert "is ambiguous" in bad.error
    assert (good.answer, good.error) == (1, None)
    with pytest.raises(ValueError, match=r"q.jsonl:1: .*is ambiguous"):
        list(QuestionJsonLines(str(path)).questions())


TURN = {"role": "user", "content": "2+3?"}
PROMPTS = [
    ("2+3?", [TURN]),
    ([TURN], [TURN]),
    (json.dumps([TURN]), [TURN]),
    ([{"role": "user", "content": [{"type": "text", "text": "2+"}, {"type": "text", "text": "3?"}]}], [TURN]),
    ([{"from": "human", "value": "2+3?"}], [TURN]),
    ("[1, 2, 3]", [{"role": "user", "content": "[1, 2, 3]"}]),
    ('{"role": "user"}', [{"role": "user", "content": '{"role": "user"}'}]),
]
NO_PROMPTS = [
    ('[{"role": "user", "content": ', "begins as messages in JSON"),
    ('[{"role": "user", "content": "a"}] What is this?', "begins as messages in JSON"),
    ('[{"role": "user"}]', "give it a role and a content"),
    ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "only text is supported"),
    ([{"role": "user", "content": [{"type": "thinking", "thinking": "x"}]}], "part of reasoning"),
    ([TURN, {"role": "assistant", "content": "5"}], "ends with a message of role 'assistant'"),
    ([{"role": "user", "content": "\ud800"}], "half of a surrogate pair"),
    ("\ud800", "half of a surrogate pair"),
    (5, "of type int"),
    ({"role": "user", "content": "x"}, "of type dict"),
    (["2+3?"], "give it a role and a content"),
]


@pytest.mark.parametrize(("prompt", "messages"), PROMPTS)
def test_a_prompt(prompt, messages):
    assert prompt_messages(prompt) == messages
    (question,) = QuestionList([{"prompt": prompt, "answer": 5}]).questions()
    assert question == Question(tuple(messages), "5")


@pytest.mark.parametrize(("prompt", "problem"), NO_PROMPTS)
def test_a_prompt_that_cannot_be_asked(prompt, problem):
    with pytest.raises(ValueError, match="question 0 of the list: ") as caught:
        list(QuestionList([{"prompt": prompt, "answer": 5}]).questions())
    assert problem in str(caught.value)


def test_every_other_column_is_kept(tmp_path):
    rows = [
        {
            "problem": "a",
            "question": "of the exam",
            "answer": "1",
            "level": 5,
            "tests": ["x"],
            "raw": b"1",
            "absent": None,
        },
        {"problem": "b", "question": "of the exam", "answer": "2", "level": 4, "tests": [], "raw": b"2", "absent": "c"},
    ]
    Dataset.from_list(rows).to_parquet(tmp_path / "q.parquet")
    first, second = QuestionParquet(str(tmp_path / "q.parquet"), prompt_field="problem").questions("s")
    assert first.data == {"question": "of the exam", "level": 5, "tests": ["x"]}
    assert second.data == {"question": "of the exam", "level": 4, "tests": [], "absent": "c"}
    assert first.key == Question(({"role": "user", "content": "a"},)).key  # columns are no part of what is asked


def test_a_system_column_is_the_system_turn():
    (question,) = QuestionList([{"prompt": "a", "system": "Be brief.", "answer": "1"}], system="else").questions()
    assert [(m["role"], m["content"]) for m in question.messages] == [("system", "Be brief."), ("user", "a")]
    assert question.data == {}
    with pytest.raises(ValueError, match="only text is supported"):
        list(QuestionList([{"prompt": "a", "image": "x.png", "answer": "1"}]).questions())


def test_a_question_given_as_such_stays_the_same():
    question = Question((TURN,), "5", "sums", {"tests": [1]})
    assert list(QuestionList([question]).questions()) == [question]


def test_choices_have_letters_unless_they_are_named():
    assert Choices.read(ABC).labels == ("A", "B", "C")
    assert Choices.read(NAMED) == Choices(("x", "y"), ("A", "B"), named=True)
