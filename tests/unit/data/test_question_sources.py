import gzip
import json

import pytest
from datasets import Dataset

from nbg_lightning.data import (
    Question,
    QuestionHuggingFace,
    QuestionJsonLines,
    QuestionList,
    QuestionParquet,
    ReasoningGymQuestions,
)
from nbg_lightning.data.question_sources import QuestionCounts, digest

ROWS = [
    {"question": "What is 1 + 1?", "answer": 2},
    {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
        "answer": "because",
    },
    {"prompt": "Write f.", "data": {"tests": ["assert f() == 1"]}},
]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_json_lines_of_all_three_forms(tmp_path):
    first, second, third = QuestionJsonLines(lines(tmp_path / "q.jsonl", ROWS)).questions("math")
    assert first == Question(({"role": "user", "content": "What is 1 + 1?"},), "2", "math")
    assert [message["role"] for message in second.messages] == ["system", "user"]
    assert third.answer is None
    assert third.data == {"tests": ["assert f() == 1"]}


def test_all_sources_give_the_same_questions(tmp_path):
    rows = [{"problem": f"{n} + 1?", "solution": str(n + 1), "difficulty": n} for n in range(5)]
    names = {"prompt_field": "problem", "answer_field": "solution", "data_fields": ["difficulty"]}
    with gzip.open(tmp_path / "q.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    Dataset.from_list(rows).to_parquet(tmp_path / "q.parquet")
    Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    sources = [
        QuestionJsonLines(lines(tmp_path / "q.jsonl", rows), **names),
        QuestionJsonLines(str(tmp_path / "q.jsonl.gz"), **names),
        QuestionParquet(str(tmp_path / "q.parquet"), **names),
        QuestionHuggingFace(str(tmp_path / "saved"), **names),
        QuestionList(rows, **names),
    ]
    expected = [
        Question(({"role": "user", "content": f"{n} + 1?"},), str(n + 1), "s", {"difficulty": n}) for n in range(5)
    ]
    for source in sources:
        assert list(source.questions("s")) == expected, source


def test_data_may_be_json_in_a_column(tmp_path):
    Dataset.from_list([{"prompt": "a", "data": json.dumps({"tests": [1]})}]).to_parquet(tmp_path / "q.parquet")
    (question,) = QuestionParquet(str(tmp_path / "q.parquet")).questions()
    assert question.data == {"tests": [1]}


def test_instruction_and_system_are_part_of_the_question():
    plain = QuestionList(ROWS)
    told = QuestionList(ROWS, instruction="Put the answer in a box.", system="You are careful.")
    one, two, _ = told.questions()
    assert [message["content"] for message in one.messages] == [
        "You are careful.",
        "What is 1 + 1?\n\nPut the answer in a box.",
    ]
    assert two.messages[0]["content"] == "Be brief."  # it had a system turn
    assert one.key != next(plain.questions()).key
    assert ROWS[0] == {"question": "What is 1 + 1?", "answer": 2}  # rows are not touched


BAD = {
    "no prompt": ({"text": "hello"}, "no messages, prompt or question"),
    "ends with an assistant": (
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        "ends with a message of role 'assistant'",
    ),
    "no text": ({"prompt": "  "}, "has no text"),
    "content of another kind": ({"messages": [{"role": "user", "content": 3}]}, "has no text"),
    "data of another kind": ({"prompt": "a", "data": [1]}, "data is of type list"),
    "data that is no JSON": ({"prompt": "a", "data": "{"}, "line 1"),
}


@pytest.mark.parametrize(("row", "problem"), BAD.values(), ids=BAD)
def test_a_bad_row_is_an_error_or_counted(tmp_path, row, problem):
    source = QuestionJsonLines(lines(tmp_path / "q.jsonl", [ROWS[0], row, ROWS[1], row]))
    with pytest.raises(ValueError, match=f"q.jsonl:2: .*{problem}.*fix or remove this row"):
        list(source.questions())
    counts = QuestionCounts()
    assert len(list(source.questions("s", counts))) == 2
    assert (counts.seen, counts.invalid) == (4, 2)
    assert "q.jsonl:2" in counts.first


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"prompt": "2+3?", "answer": "5", "answer": "6"}', "a JSON object has the key 'answer' twice"),
        (b'{"prompt": "2+3?", "answer": "5", "more": {"a": 1, "a": 2}}', "a JSON object has the key 'a' twice"),
        (b'{"prompt": "q", "answer": "5", "more": ' + b"[" * 900 + b"]" * 900 + b"}", "nested too deeply"),
        (b'{"prompt": "q", "answer": ' + b"9" * 10_000 + b"}", "a number has too many digits"),
    ],
    ids=["two golds", "a key twice below", "deep", "digits"],
)
def test_a_line_that_could_be_read_in_two_ways_or_never_is_refused(tmp_path, line, words):
    (tmp_path / "x.jsonl").write_bytes(line + b"\n")
    with pytest.raises(ValueError, match=rf"x\.jsonl:1: .*{words}") as caught:
        list(QuestionJsonLines(str(tmp_path / "x.jsonl")).questions())
    assert "\n" not in str(caught.value)


def test_missing_fields_are_named():
    with pytest.raises(ValueError, match="no 'problem'; there are question, answer: set prompt_field"):
        list(QuestionList([ROWS[0]], prompt_field="problem").questions())
    with pytest.raises(ValueError, match="no 'tests', which data_fields names"):
        list(QuestionList([ROWS[0]], data_fields=["tests"]).questions())


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match="weight is invalid: -1"):
        QuestionList([], weight=-1)
    with pytest.raises(ValueError, match="list of questions, not one"):
        QuestionList("hello")
    with pytest.raises(ValueError, match="question 0 of the list is a int"):
        list(QuestionList([3]).questions())
    with pytest.raises(FileNotFoundError, match="does not exist"):
        list(QuestionJsonLines("/nowhere/q.jsonl").questions())
    with pytest.raises(ValueError, match="not in tasks"):
        ReasoningGymQuestions(["gcd"], 1, config={"lcm": {}})


def test_reasoning_gym_has_what_its_scorer_needs():
    import reasoning_gym

    easy = {"chain_sum": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}}
    questions = list(ReasoningGymQuestions(["chain_sum", "gcd"], 4, seed=3, config=easy).questions("sums"))
    assert [question.data["task"] for question in questions] == ["chain_sum"] * 4 + ["gcd"] * 4
    for question in questions:
        scorer = reasoning_gym.create_dataset(question.data["task"], **question.data["config"])
        assert scorer.score_answer(question.answer, question.data["entry"]) == 1.0
    assert all(question.data["entry"]["metadata"]["num_terms"] == 2 for question in questions[:4])
    assert list(ReasoningGymQuestions(["chain_sum", "gcd"], 4, seed=3, config=easy).questions("sums")) == questions
    assert list(ReasoningGymQuestions(["chain_sum", "gcd"], 4, seed=4, config=easy).questions("sums")) != questions


def test_digest_sees_answers_and_order():
    one, two = Question(({"role": "user", "content": "a"},), "1"), Question(({"role": "user", "content": "a"},), "2")
    assert len({digest([one]), digest([two]), digest([one, two]), digest([two, one])}) == 4


TURN = [{"role": "user", "content": "q"}]
TWO_PROMPTS = {
    "messages and conversations": {"messages": TURN, "conversations": [{"from": "human", "value": "p"}]},
    "messages and prompt": {"messages": TURN, "prompt": [{"role": "user", "content": "p"}]},
    "JSON text": {"prompt": TURN, "conversation": '[{"role": "user", "content": "p"}]'},
}


@pytest.mark.parametrize("name", TWO_PROMPTS)
def test_of_two_conversations_none_is_taken(name):
    with pytest.raises(ValueError, match="hold different conversations: remove one"):
        list(QuestionList([TWO_PROMPTS[name]]).questions())
    first = next(iter(TWO_PROMPTS[name]))
    (named,) = QuestionList([TWO_PROMPTS[name]], prompt_field=first).questions()
    assert named.messages == ({"role": "user", "content": "q"},)


def test_equal_conversations_and_a_text_beside_them_are_one_prompt():
    row = {"messages": TURN, "conversations": [{"from": "human", "value": "q"}], "prompt": "as a template wrote it"}
    (question,) = QuestionList([row]).questions()
    assert question.messages == ({"role": "user", "content": "q"},)
