"""Benchmarks of the paper's tables read the published formats; gold answers score 1. All items are synthetic."""

import csv
import json

import pytest

from nbg_lightning.evaluation import (
    BBH,
    CMATH,
    CMMLU,
    HMMT,
    ArenaHard,
    MultiChallenge,
    Suite,
    SuperGPQA,
)
from nbg_lightning.evaluation.rows import ItemsMissing
from nbg_lightning.evaluation.tasks.bbh import MAX_ANSWER, score_brackets
from nbg_lightning.testing.benchmarks import AnsweringEngine, character_tokenizer, write_rows


def only_item(benchmark):
    (item,) = benchmark.load().items
    assert item.error is None
    return item


# -- base models ---------------------------------------------------------------------------------------------------------


def test_cmath_takes_the_number_of_an_answer(tmp_path):
    row = {"question": "小明有 3 个苹果，又买了 4 个，一共多少个？", "golden": "7", "grade": 2, "reasoning_step": 1}
    benchmark = CMATH(path=write_rows(tmp_path / "test.jsonl", [row]))
    item = only_item(benchmark)
    assert (item.category, benchmark.text(item)) == ("grade 2", f"问题：{row['question']}\n答案：")
    for right in ("答案是7", "一共 3+4=7 个", r"\boxed{7}", "答案是 7.0 个。"):
        assert benchmark.score(item, right).score == 1.0, right
    assert benchmark.score(item, "答案是8").score == 0.0
    assert benchmark.score(item, "不知道").parsed is False


@pytest.fixture
def cmmlu(tmp_path):
    """Two subjects as the authors' repository has them."""
    for split, letter in (("test", "B"), ("dev", "C")):
        (tmp_path / split).mkdir()
        for subject in ("anatomy", "arts"):
            with (tmp_path / split / f"{subject}.csv").open("w", encoding="utf-8", newline="") as file:
                rows = csv.writer(file)
                rows.writerow(["", "Question", "A", "B", "C", "D", "Answer"])
                rows.writerow([0, f"{split}，{subject}，哪一个？", "甲", "乙", "丙", "丁", letter])
    return str(tmp_path)


def test_cmmlu_has_examples_of_its_subject(cmmlu):
    benchmark = CMMLU(path=cmmlu, subjects=["anatomy", "arts"], num_shots=1)
    loaded = benchmark.load()
    assert [(item.id, item.answer, item.category) for item in loaded.items] == [
        ("anatomy-0", 1, "anatomy"),
        ("arts-0", 1, "arts"),
    ]
    (shot,) = benchmark.shots_for(loaded.items[1], loaded.shots)
    assert (shot.question, benchmark.solution(shot)) == ("dev，arts，哪一个？", "C")
    assert benchmark.text(shot).endswith("A. 甲\nB. 乙\nC. 丙\nD. 丁\n答案是：")
    written = CMMLU(path=cmmlu, subjects=["arts"], answers="written")
    item = only_item(written)
    assert [written.score(item, text).score for text in ("答案是(B)", "故选B", "答案是A")] == [1.0, 1.0, 0.0]


def test_cmmlu_says_what_is_missing(cmmlu):
    with pytest.raises(ValueError, match="subjects is invalid: anatomie; choose from agronomy, anatomy"):
        CMMLU(subjects=["anatomie"])
    loaded = CMMLU(path=cmmlu, subjects=["anatomy", "virology"]).load()
    assert [item.error is None for item in loaded.items] == [True, False]
    assert loaded.items[1].error.endswith("there is no file of this subject")


QUESTION = "Which is it?\nOptions:\n(A) red\n(B) blue"


def test_bbh_of_a_file_and_its_options(tmp_path):
    rows = [
        {"task": "snarks", "input": QUESTION, "target": "(B)"},
        {"task": "web_of_lies", "input": "Does Ann tell the truth?", "target": "Yes"},
        {"task": "dyck_languages", "input": "Complete: [ (", "target": ") ]"},
        {"task": "word_sorting", "input": "Sort: b a", "target": "a b"},
        {"task": "snarks", "input": QUESTION},
    ]
    benchmark = BBH(path=write_rows(tmp_path / "test.jsonl", rows), num_shots=0)
    *items, broken = benchmark.load().items
    assert broken.error.endswith("no 'target'")
    for item in items:
        assert benchmark.score(item, benchmark.solution(item)).score == 1.0
        assert benchmark.score(item, f"Reasons. So the answer is **{item.answer}**.").score == 1.0
        assert benchmark.score(item, "So the answer is 17.").score == 0.0
    assert benchmark.score(items[0], "So the answer is B.").score == 1.0
    assert benchmark.score(items[0], "So the answer is (A).").score == 0.0


def test_bbh_of_the_authors_folder_with_their_examples(tmp_path):
    (tmp_path / "bbh").mkdir()
    (tmp_path / "cot-prompts").mkdir()
    (tmp_path / "bbh" / "snarks.json").write_text(
        json.dumps({"canary": "no", "examples": [{"input": QUESTION, "target": "(B)"}, 7]})
    )
    worked = "canary\n-----\nFind it.\n\n" + "\n\n".join(
        f"Q: Example {number}?\nA: Let's think step by step.\nIt is so. So the answer is ({letter})."
        for number, letter in ((1, "A"), (2, "B"))
    )
    (tmp_path / "cot-prompts" / "snarks.txt").write_text(worked)
    benchmark = BBH(path=str(tmp_path), tasks=["snarks"], num_shots=2)
    loaded = benchmark.load()
    assert [item.error is None for item in loaded.items] == [True, False]
    assert [(shot.question, shot.answer) for shot in loaded.shots] == [("Example 1?", "(A)"), ("Example 2?", "(B)")]
    assert benchmark.solution(loaded.shots[0]) == "It is so. So the answer is (A)."
    with pytest.raises(ValueError, match="tasks is invalid: snark; choose from boolean_expressions"):
        BBH(tasks=["snark"])


def test_bbh_takes_the_examples_of_lm_eval():
    shots = list(BBH(tasks=["boolean_expressions", "word_sorting"]).shot_source())
    assert [row["task"] for _, row in shots] == ["boolean_expressions"] * 3 + ["word_sorting"] * 3
    assert all(row["target"] and row["steps"].endswith(f"answer is {row['target']}.") for _, row in shots)


@pytest.mark.parametrize(
    ("text", "score", "parsed"),
    [
        ("The answer is ) ].", 1.0, True),
        ("steps ( [\nso the answer is **)]**", 1.0, True),
        (r"\boxed{) ]}", 1.0, True),
        (") ]", 1.0, True),
        ("The answer is ] ).", 0.0, True),
        ("I do not know.", 0.0, False),
        ("", 0.0, False),
        ("x" * (2 * MAX_ANSWER) + "\nthe answer is ) ]", 1.0, True),
    ],
)
def test_brackets(text, score, parsed):
    verdict = score_brackets(text, ") ]")
    assert (verdict.score, verdict.parsed) == (score, parsed)


# -- chat models -----------------------------------------------------------------------------------------------------------


def test_supergpqa_has_up_to_ten_options(tmp_path):
    row = {
        "uuid": "u",
        "question": "Which?",
        "options": list("abcdefghij"),
        "answer": "i",
        "answer_letter": "I",
        "discipline": "Law",
    }
    rows = [row, {**row, "uuid": "v", "answer_letter": "A"}]
    benchmark = SuperGPQA(path=write_rows(tmp_path / "test.jsonl", rows), answers="written")
    item, wrong = benchmark.load().items
    assert (item.answer, item.category, item.choices[-1]) == (8, "Law", "J")
    assert benchmark.score(item, "The answer is (I).").score == 1.0
    assert benchmark.score(item, "The answer is (J).").score == 0.0
    assert wrong.error.endswith("the letter 'A' is not that of the answer")


def test_hmmt_compares_expressions(tmp_path):
    row = {"problem_idx": 3, "problem": "Compute it.", "answer": r"\frac{\sqrt{3}}{2}", "problem_type": ["Geometry"]}
    benchmark = HMMT(path=write_rows(tmp_path / "hmmt.jsonl", [row]))
    item = only_item(benchmark)
    assert (item.id, item.category) == ("3", "Geometry")
    assert benchmark.score(item, r"So it is $\boxed{\frac{\sqrt{3}}{2}}$.").score == 1.0
    assert benchmark.score(item, r"So it is $\boxed{\frac{\sqrt{2}}{2}}$.").score == 0.0


# -- judged -----------------------------------------------------------------------------------------------------------------


def test_multi_challenge_asks_for_the_criterion(tmp_path):
    turns = [
        {"role": "user", "content": "No nuts, please."},
        {"role": "assistant", "content": "Noted."},
        {"role": "user", "content": "A snack?"},
    ]
    row = {"QUESTION_ID": "q", "AXIS": "INFERENCE_MEMORY", "CONVERSATION": turns, "PASS_CRITERIA": "NO"}
    rows = [
        {**row, "TARGET_QUESTION": "Has it nuts?"},
        {**row, "QUESTION_ID": "r", "AXIS": "SELF_COHERENCE", "TARGET_QUESTION": "Is it rude?"},
        {**row, "QUESTION_ID": "s", "AXIS": "SELF_COHERENCE", "TARGET_QUESTION": "Has it wine?"},
        {**row, "QUESTION_ID": "t", "TARGET_QUESTION": "?", "CONVERSATION": turns[:2]},
    ]
    judge = AnsweringEngine(lambda p, s: "Well.\nYES" if "rude" in p.text else "It is free of it.\nNO")
    benchmark = MultiChallenge(path=write_rows(tmp_path / "test.jsonl", rows), judge=judge)
    model = AnsweringEngine(lambda p, s: " An apple.")
    result = Suite([benchmark]).run(model, character_tokenizer(tmp_path / "t"))["multi_challenge"]
    assert (result.items, result.errors) == (4, 1)
    assert "does not end with a turn of the user" in result.first_error
    assert result.metrics["accuracy"] == pytest.approx(2 / 3)
    assert result.metrics["category_mean"] == pytest.approx((1 + 0.5) / 2)
    assert "No nuts, please." in model.calls[0][0][0].text
    assert all("An apple." in prompt.text for prompt in judge.calls[0][0])


@pytest.fixture
def arena(tmp_path):
    """Four requests of two categories, whose baselines are answers of two models."""
    folder = tmp_path / "arena"
    (folder / "model_answer").mkdir(parents=True)
    questions = [
        {"uid": f"u{number}", "category": category, "prompt": f"request {number}"}
        for number, category in enumerate(["hard_prompt", "hard_prompt", "creative_writing", "creative_writing"])
    ]
    write_rows(folder / "question.jsonl", questions)
    answers = [{"uid": row["uid"], "messages": [{}, {"content": {"answer": "of o3"}}]} for row in questions[:2]]
    write_rows(folder / "model_answer" / "o3-mini-2025-01-31.jsonl", answers)
    written = [{"uid": "u2", "messages": [{"role": "assistant", "content": "of gemini"}]}]
    write_rows(folder / "model_answer" / "gemini-2.0-flash-001.jsonl", written)
    return folder


def test_arena_hard_pairs_with_each_categorys_baseline(arena, tmp_path):
    def judge(prompt, sample):
        first = prompt.text.index("mine") < prompt.text.index("of ", prompt.text.index("<|answer A|>"))
        strong = "request 0" in prompt.text
        return {
            (True, True): "[[A>>B]]",
            (False, True): "[[B>>A]]",
            (True, False): "[[A=B]]",
            (False, False): "[[A>B]]",
        }[first, strong]

    benchmark = ArenaHard(path=str(arena), judge=AnsweringEngine(judge))
    loaded = benchmark.load()
    assert [item.answer for item in loaded.items] == ["of o3", "of o3", "of gemini", None]
    assert loaded.items[3].error.endswith("gemini-2.0-flash-001 has no answer to it")
    result = Suite([benchmark]).run(AnsweringEngine(lambda p, s: " mine"), character_tokenizer(tmp_path / "t"))[
        "arena_hard_v2"
    ]
    # The first item wins both places clearly (3 + 3 of 6); each of the others is even once and lost once (0.5 of 2).
    assert (result.primary, result.errors) == ("win_rate", 1)
    assert result.metrics["win_rate"] == pytest.approx((6 + 0.5 + 0.5) / (6 + 2 + 2))
    assert result.metrics["accuracy"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert 0 < result.metrics["win_rate_style"] < 1
    low, high = result.intervals["win_rate"]
    assert low < result.metrics["win_rate"] < high
    assert (
        result.intervals["win_rate_style"].low
        < result.metrics["win_rate_style"]
        < result.intervals["win_rate_style"].high
    )


def test_arena_hard_says_which_answers_it_needs(arena):
    (arena / "model_answer" / "gemini-2.0-flash-001.jsonl").unlink()
    judge = AnsweringEngine(lambda p, s: "[[A=B]]")
    with pytest.raises(ItemsMissing, match=r"give the file for its baseline 'gemini-2.0-flash-001'"):
        ArenaHard(path=str(arena), judge=judge).load()
    assert len(ArenaHard(path=str(arena), judge=judge, categories=["hard_prompt"]).load().items) == 2
    own = ArenaHard(path=str(arena), judge=judge, baselines={"": "o3-mini-2025-01-31"}).load()
    assert [item.error is None for item in own.items] == [True, True, False, False]
