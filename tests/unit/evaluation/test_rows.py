"""Files of benchmark items: every invalid line says why, and the others are items."""

import gzip
import json

import pytest

from nbg_lightning.evaluation import Questions

GOOD = {"question": "2+3?", "answer": "5"}
BAD_LINES = {
    "a gold twice": (b'{"question": "2+3?", "answer": "5", "answer": "6"}', "a JSON object has the key 'answer' twice"),
    "brackets without end": (b"[" * 100_000, "nested too deeply"),
    "a number of 10,000 digits": (b'{"question": "q", "answer": ' + b"9" * 10_000 + b"}", "too many digits"),
    "UTF-16": ('{"question": "q", "answer": "5"}'.encode("utf-16"), "not JSON"),
    "zeros": (bytes(64), "not JSON"),
    "a list": (b"[1, 2]", "a list, not an object"),
    "no answer": (b'{"question": "q"}', "no 'answer'"),
    "an answer that is NaN": (b'{"question": "q", "answer": NaN}', "answer"),
    "cut short": (b'{"question": "q", "ans', "not JSON"),
}
BAD_CHOICES = {
    "one": (["a"], 0, "there are 1 choices; give two or more"),
    "none": ([], 0, "there are 0 choices"),
    "a place behind the last": (["a", "b"], 2, "is not among the 2 choices"),
    "a place before the first": (["a", "b"], -1, "is not among the 2 choices"),
    "half a place": (["a", "b"], 0.5, "is not among the 2 choices"),
    "a truth value": (["a", "b"], True, "'True' is not among the 2 choices"),
    "numbers and a place": ([1, 2, 3], 2, "the answer '2' is ambiguous"),
    "one twice": (["a", "a", "b"], "A", "choices have 'a' twice"),
    "lists": ([["a"], ["b"]], 0, "one is a list; give texts"),
    "a missing one": (["a", None], 0, "one is missing; give texts"),
    "another form": ({"A": "x", "B": "y"}, "A", "an object without text and label"),
    "fewer labels": ({"text": ["x", "y"], "label": ["A"]}, "A", "2 choices and 1 labels"),
    "no answer": (["a", "b"], None, "there are choices, but no answer"),
    "more than letters": ([f"{i}x" for i in range(27)], 26, "more than 26 letters"),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_an_error_of_its_own(tmp_path, name, zipped, recwarn):
    line, said = BAD_LINES[name]
    file = tmp_path / ("x.jsonl.gz" if zipped else "x.jsonl")
    content = json.dumps(GOOD).encode() + b"\n" + line + b"\n"
    file.write_bytes(gzip.compress(content) if zipped else content)
    first, second = Questions(path=str(file)).load().items
    assert first.error is None
    assert f"{file}, line 2: " in second.error and said in second.error and "\n" not in second.error


@pytest.mark.parametrize("answers", ["rated", "written"])
@pytest.mark.parametrize("name", BAD_CHOICES)
def test_choices_that_have_no_right_one_are_refused(tmp_path, name, answers):
    choices, answer, said = BAD_CHOICES[name]
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps({"question": "q", "choices": choices, "answer": answer}) + "\n")
    with pytest.raises(ValueError, match="has no item that can be used; fix them, the first: ") as caught:
        Questions(path=str(file), answers=answers).load()
    assert said in str(caught.value) and "\n" not in str(caught.value)
