"""A suite with a scripted engine: what is requested, scored, stored and resumed, and never counted as wrong."""

import json
import math
import os
import re

import pytest

from nbg_lightning.core.create import create_model
from nbg_lightning.core.fingerprint import weights_fingerprint
from nbg_lightning.data.folder_lock import FolderInUse
from nbg_lightning.engines.native import NativeEngine
from nbg_lightning.engines.protocol import Completion, Sampling
from nbg_lightning.evaluation import Arithmetic, Questions, Suite, TextPerplexity, load_result
from nbg_lightning.evaluation.compare import compare
from nbg_lightning.scoring.result import Verdict
from nbg_lightning.testing import SMALL_SHAPE
from nbg_lightning.testing.benchmarks import AnsweringEngine, character_tokenizer, write_rows

ROWS = [
    {"id": f"q{i}", "question": f"What is {i} + {i}?", "answer": str(2 * i), "category": "ab"[i % 2]} for i in range(6)
]


@pytest.fixture
def tokenizer(tmp_path):
    return character_tokenizer(tmp_path / "tokenizer")


@pytest.fixture
def questions(tmp_path):
    return write_rows(tmp_path / "questions.jsonl", ROWS)


def number_of(prompt):
    return int(prompt.text.rsplit("What is ", 1)[1].split()[0])


def right(prompt, sample):
    return f" {2 * number_of(prompt)}"


def run(engine, tokenizer, path, folder=None, **settings):
    suite = Suite(
        [Questions(path=path, scorer="number", **settings)], sampling=Sampling(max_new_tokens=8, temperature=0.0)
    )
    return suite.run(engine, tokenizer, folder=folder)["questions"], suite


def test_accuracy_categories_and_what_was_written(tokenizer, questions, tmp_path):
    engine = AnsweringEngine(lambda p, s: right(p, s) if number_of(p) < 3 else " 99")
    result, _ = run(engine, tokenizer, questions, tmp_path / "out")
    assert result.metrics["accuracy"] == 0.5
    assert result.categories == {"a": (pytest.approx(2 / 3), 3), "b": (pytest.approx(1 / 3), 3)}
    assert result.intervals["accuracy"].low < 0.5 < result.intervals["accuracy"].high
    assert result.about["origin"] == questions
    assert len(result.about["prompt_hash"]) == 16
    (folder,) = (tmp_path / "out").iterdir()
    record = json.loads((folder / "questions.jsonl").read_text().splitlines()[3])
    assert record["samples"][0]["text"] == " 99"
    assert (record["answer"], record["score"]) == ("6", 0.0)


def test_seeds_belong_to_items_and_stops_to_the_format(tokenizer, questions):
    engine = AnsweringEngine(right)
    run(engine, tokenizer, questions)
    (prompts, sampling), = engine.calls  # fmt: skip
    assert len({prompt.seed for prompt in prompts}) == 6
    run(engine, tokenizer, questions, limit=2)
    assert [p.seed for p in engine.calls[1][0]] == [p.seed for p in prompts[:2]], "whatever else is asked"
    assert sampling.stop_strings == ("\n",)
    assert sampling.stop_ids == (tokenizer.eos_id,)
    assert prompts[0].ids[0] == tokenizer.bos_id


def test_samples_give_avg_pass_and_cons(tokenizer, questions):
    engine = AnsweringEngine(lambda p, s: right(p, s) if s < 2 else f" {100 + s}")
    result, _ = run(engine, tokenizer, questions, n=4)
    assert result.primary == "avg@4"
    assert result.metrics["avg@4"] == 0.5
    assert result.metrics["pass@4"] == 1.0
    assert result.metrics["cons@4"] == 1.0, "two agree, two are alone"


def test_answers_that_cannot_be_evaluated_in_time_are_wrong(tokenizer, tmp_path):
    rows = [{"id": f"q{i}", "question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(4)]
    hostile = {2: r"\boxed{9^{9^{9^9}}}", 3: r"\boxed{\sum_{n=1}^{10^9} \frac{1}{n}}"}
    engine = AnsweringEngine(lambda p, s: hostile.get(number_of(p), f" \\boxed{{{2 * number_of(p)}}}"))
    suite = Suite(
        [Questions(path=write_rows(tmp_path / "hostile.jsonl", rows), scorer="math")],
        sampling=Sampling(max_new_tokens=64, temperature=0.0),
    )
    result = suite.run(engine, tokenizer)["questions"]
    assert (result.errors, result.items, result.metrics["accuracy"]) == (0, 4, 0.5)


def test_errors_are_not_wrong_answers(tokenizer, questions):
    def answer(prompt, sample):
        what = number_of(prompt)
        if what == 0:
            return Completion((), (), "error", 0, 0, 0, "the server is gone")
        if what == 1:
            return Completion((1,), (), "deadline", 0, 0, 0, text="2")
        if what == 2:
            return Completion((1,) * 8, (), "length", 0, 0, 0, text="well, let me see")
        return "I do not know" if what == 3 else right(prompt, sample)

    result, _ = run(AnsweringEngine(answer), tokenizer, questions)
    assert (result.items, result.scored, result.errors) == (6, 4, 2)
    assert result.first_error == "the server is gone"
    assert result.metrics["accuracy"] == 0.5
    assert result.metrics["truncation_rate"] == 0.25
    assert result.metrics["parse_failure_rate"] == 0.5


def test_an_engine_that_crashes_costs_one_call(tokenizer, questions):
    def answer(prompt, sample):
        if number_of(prompt) == 2:
            raise RuntimeError("out of memory\nwith a long trace")
        return right(prompt, sample)

    suite = Suite([Questions(path=questions, scorer="number")], items_per_call=2)
    result = suite.run(AnsweringEngine(answer), tokenizer)["questions"]
    assert (result.errors, result.metrics["accuracy"]) == (2, 1.0)
    assert result.first_error == "the engine failed: out of memory"


def test_a_scorer_that_fails_is_an_error(tokenizer, questions, monkeypatch):
    monkeypatch.setattr(Questions, "score", lambda self, item, text: 1 / 0)
    result, _ = run(AnsweringEngine(right), tokenizer, questions)
    assert (result.errors, result.metrics) == (6, {})
    assert math.isnan(result.value)
    assert result.first_error == "scoring failed: division by zero"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Verdict(math.nan), "the score nan; scores are 0 to 1"),
        (Verdict(1.5), "the score 1.5"),
        (Verdict(-1.0), r"the score -1\.0"),
        (Verdict("0.5"), "the score '0.5'"),
        (Verdict(1.0, detail=7), "a int as detail"),
        (Verdict(1.0, answer=["2"]), "a list as answer"),
        (Verdict(1.0, extra={"loose": (math.nan, 1.0)}), r"\(nan, 1.0\) for loose"),
        (1.0, "a float; it must be a Verdict"),
        (None, "a NoneType; it must be a Verdict"),
    ],
)
def test_what_a_scorer_gives_is_checked_before_it_counts(tokenizer, questions, tmp_path, monkeypatch, given, said):
    monkeypatch.setattr(Questions, "score", lambda self, item, text: given if item.id == "q1" else Verdict(1.0))
    result, _ = run(AnsweringEngine(right), tokenizer, questions, tmp_path / "out")
    assert (result.items, result.scored, result.metrics["accuracy"]) == (6, 5, 1.0)
    assert re.search(f"the scorer is invalid: it gave {said}", result.first_error)


@pytest.mark.parametrize(
    ("given", "scored"), [([], 0), ([[Verdict(1.0)]] * 5, 0), ([[Verdict(1.0)]] * 5 + [[]], 5), (None, 0)]
)
def test_verdicts_of_another_number_are_errors(tokenizer, questions, monkeypatch, given, scored):
    monkeypatch.setattr(Questions, "score_all", lambda self, items, texts: given)
    result, _ = run(AnsweringEngine(right), tokenizer, questions)
    assert (result.items, result.scored, result.errors) == (6, scored, 6 - scored)


UNREADABLE = UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
NOT_JSON = json.JSONDecodeError("Expecting value", "x", 0)


@pytest.mark.parametrize(
    "error", [UNREADABLE, NOT_JSON, ValueError("could not convert string to float"), OSError("gone")]
)
def test_a_text_that_breaks_a_scorer_of_several_ends_no_run(tokenizer, questions, monkeypatch, error):
    def score_all(self, items, texts):
        raise error

    monkeypatch.setattr(Questions, "score_all", score_all)
    result, _ = run(AnsweringEngine(right), tokenizer, questions)
    assert (result.scored, result.errors) == (0, 6)
    assert result.first_error.startswith("scoring failed: ")


@pytest.mark.parametrize("error", [UNREADABLE, NOT_JSON])
def test_a_text_that_breaks_an_engine_ends_no_run_and_a_setting_does(tokenizer, questions, error):
    def broken(prompt, sample):
        raise error

    result, _ = run(AnsweringEngine(broken), tokenizer, questions)
    assert (result.scored, result.errors) == (0, 6)

    def refused(prompt, sample):
        raise ValueError("n=3 cannot be greedy")

    with pytest.raises(ValueError, match="cannot be greedy"):
        run(AnsweringEngine(refused), tokenizer, questions)


def test_every_item_has_an_id_of_its_own(tokenizer, tmp_path):
    names = ["a", "a", "a-2", "a", 1, "1", "malformed-7", None]
    rows = [{"id": name, "question": f"What is {i} + {i}?", "answer": str(2 * i)} for i, name in enumerate(names)]
    del rows[-1]["answer"]
    path = write_rows(tmp_path / "named.jsonl", rows)
    result, _ = run(AnsweringEngine(right), tokenizer, path, tmp_path / "out")
    assert (result.items, result.scored) == (8, 7)
    (folder,) = (tmp_path / "out").iterdir()
    ids = [record["id"] for record in load_result(folder).records["questions"]]
    assert ids == ["a", "a-2", "a-2-2", "a-3", "1", "1-2", "malformed-7", "malformed-7-2"]


def test_categories_are_texts(tokenizer, tmp_path):
    rows = [{**ROWS[i], "category": category} for i, category in enumerate([0, "a", 2.5, None, ["x"], {"y": 1}])]
    result, _ = run(AnsweringEngine(right), tokenizer, write_rows(tmp_path / "parts.jsonl", rows))
    assert result.categories == {"0": (1.0, 1), "2.5": (1.0, 1), "a": (1.0, 1)}
    assert (result.items, result.errors) == (6, 2)
    assert "the category is invalid: a list; give a text" in result.first_error


def test_malformed_items_are_errors_and_the_rest_goes_on(tokenizer, tmp_path):
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps(ROWS[1]) + '\n{"question": "no answer"}\nnot json\n[1]\n')
    result, _ = run(AnsweringEngine(right), tokenizer, str(file))
    assert (result.items, result.errors, result.metrics["accuracy"]) == (4, 3, 1.0)
    assert f"{file}, line 2: no 'answer'" in result.first_error
    file.write_text('{"question": "no answer"}\n')
    with pytest.raises(ValueError, match="no item that can be used"):
        run(AnsweringEngine(right), tokenizer, str(file))


def test_a_run_that_was_killed_goes_on(tokenizer, questions, tmp_path):
    def dies(prompt, sample):
        if number_of(prompt) == 4:
            raise KeyboardInterrupt
        return right(prompt, sample)

    suite = Suite([Questions(path=questions, scorer="number")], items_per_call=2)
    with pytest.raises(KeyboardInterrupt):
        suite.run(AnsweringEngine(dies), tokenizer, folder=tmp_path / "out")
    (folder,) = (tmp_path / "out").iterdir()
    with (folder / "questions.jsonl").open("a") as torn:
        torn.write('{"id": "q4", "ind')
    second = AnsweringEngine(right)
    result = suite.run(second, tokenizer, folder=tmp_path / "out")["questions"]
    assert [number_of(p) for prompts, _ in second.calls for p in prompts] == [4, 5]
    assert (result.items, result.metrics["accuracy"]) == (6, 1.0)
    third = AnsweringEngine(right)
    again = suite.run(third, tokenizer, folder=tmp_path / "out")["questions"]
    assert not third.calls
    assert again.metrics == result.metrics
    suite.run(third, tokenizer, folder=tmp_path / "out", identity="other weights")
    assert len(third.calls) == 3, "other weights are asked anew"


def test_another_process_that_writes_there_is_refused(tokenizer, questions, tmp_path, monkeypatch):
    monkeypatch.setattr("nbg_lightning.data.folder_lock.DYING_SECONDS", 0.1)
    suite = Suite([Questions(path=questions, scorer="number")])
    refusals = []

    def answer(prompt, sample):
        if not refusals:
            refusals.append("none")
            with pytest.raises(FolderInUse, match=f"runs benchmarks in {tmp_path}/out/suite-run-") as caught:
                suite.run(AnsweringEngine(right), tokenizer, folder=tmp_path / "out")
            suite.run(AnsweringEngine(right), tokenizer, folder=tmp_path / "out", identity="other weights")
            refusals[0] = str(caught.value)
        return right(prompt, sample)

    suite.run(AnsweringEngine(answer), tokenizer, folder=tmp_path / "out")
    assert refusals[0].startswith(f"process {os.getpid()} on ") and "\n" not in refusals[0]


def test_errors_are_tried_again(tokenizer, questions, tmp_path):
    failing = AnsweringEngine(
        lambda p, s: Completion((), (), "error", 0, 0, 0, "gone") if number_of(p) == 1 else right(p, s)
    )
    result, suite = run(failing, tokenizer, questions, tmp_path / "out")
    assert result.errors == 1
    engine = AnsweringEngine(right)
    result = suite.run(engine, tokenizer, folder=tmp_path / "out")["questions"]
    assert [number_of(p) for p in engine.calls[0][0]] == [1]
    assert (result.errors, result.metrics["accuracy"]) == (0, 1.0)


def test_a_folder_is_read_back_and_compared(tokenizer, questions, tmp_path):
    run(AnsweringEngine(right), tokenizer, questions, tmp_path / "good")
    run(AnsweringEngine(lambda p, s: " 4"), tokenizer, questions, tmp_path / "bad")
    good, bad = (load_result(next((tmp_path / name).iterdir())) for name in ("good", "bad"))
    (comparison,) = compare(bad, good)
    assert comparison.paired.difference == pytest.approx(5 / 6)
    assert (comparison.paired.wins, comparison.paired.losses, comparison.warnings) == (5, 0, [])
    with pytest.raises(FileNotFoundError, match="it has no results"):
        load_result(tmp_path / "nowhere")


def test_compare_command(tokenizer, questions, tmp_path, capsys):
    from nbg_lightning.cli import main

    run(AnsweringEngine(right), tokenizer, questions, tmp_path / "good")
    run(AnsweringEngine(lambda p, s: " 4"), tokenizer, questions, tmp_path / "bad", num_shots=0, max_new_tokens=9)
    folders = [str(next((tmp_path / name).iterdir())) for name in ("bad", "good")]
    assert main(["compare", *folders, "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["paired"]["difference"] == pytest.approx(5 / 6)
    assert entry["warnings"] == ["the sampling differs"]
    assert main(["compare", *folders]) == 0
    assert "questions" in capsys.readouterr().out
    both = Suite([Questions(path=questions, scorer="number"), Arithmetic(count=2)])
    both.run(AnsweringEngine(lambda p, s: " 4"), tokenizer, folder=tmp_path / "both")
    assert main(["compare", folders[0], str(next((tmp_path / "both").iterdir()))]) == 0
    assert "left out, without a scored item in both: arithmetic" in capsys.readouterr().out
    assert main(["compare", str(tmp_path), folders[0]]) == 2
    assert capsys.readouterr().err.startswith("nbg compare: error: ")


# -- the native engine and its scorer ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return create_model(SMALL_SHAPE, seed=1)


def test_rated_choices(model, tokenizer, tmp_path):
    rows = [{"question": f"pick {i}", "choices": ["one", "three hundred", "2"], "answer": i % 3} for i in range(8)]
    path = write_rows(tmp_path / "choices.jsonl", rows)
    suite = Suite([Questions(path=path, answers="rated")])
    result = suite.run(NativeEngine(model, tokenizer.decode), tokenizer)
    record = result.records["questions"][0]
    totals = record["log_likelihoods"]
    assert record["chosen"] == totals.index(max(totals))
    assert record["score"] == float(record["chosen"] == 0)
    per_character = [t / len(c) for t, c in zip(totals, record["choices"], strict=True)]
    assert record["score_norm"] == float(per_character.index(max(per_character)) == 0)
    assert set(result["questions"].metrics) == {"accuracy", "accuracy_norm"}


def test_perplexity_of_texts_longer_than_the_window(model, tokenizer, tmp_path):
    path = write_rows(tmp_path / "texts.jsonl", [{"text": "abc" * 40}, {"text": "a b"}])
    engine = NativeEngine(model, tokenizer.decode, window=32)
    result = Suite([TextPerplexity(path=path)]).run(engine, tokenizer)
    metrics = result["perplexity"].metrics
    nll = sum(record["nll"] for record in result.records["perplexity"])
    assert metrics["bits_per_byte"] == pytest.approx(nll / math.log(2) / 123)
    assert metrics["perplexity"] == pytest.approx(math.exp(nll / 123)), "a token is a byte here"
    assert 5 < metrics["bits_per_byte"] < 7, "61 ids, nearly equally likely"


def test_weights_that_are_not_finite_and_prompts_that_are_too_long(tokenizer, tmp_path):
    broken = create_model(SMALL_SHAPE)
    broken.norm.weight.data[0] = math.nan
    rows = [{"question": "pick", "choices": ["a", "b"], "answer": 0}]
    path = write_rows(tmp_path / "choices.jsonl", rows)
    suite = Suite([Questions(path=path, answers="rated"), Arithmetic(count=2)])
    result = suite.run(NativeEngine(broken, tokenizer.decode), tokenizer)
    for name in ("questions", "arithmetic"):
        assert result[name].errors == result[name].items
        assert "not finite" in result[name].first_error
    short = NativeEngine(create_model(SMALL_SHAPE), tokenizer.decode, window=4)
    result = suite.run(short, tokenizer)
    for name in ("questions", "arithmetic"):
        assert result[name].errors == result[name].items
        assert "the window is 4" in result[name].first_error


def test_rating_needs_a_scorer(tokenizer, tmp_path):
    path = write_rows(tmp_path / "choices.jsonl", [{"question": "pick", "choices": ["a", "b"], "answer": 0}])
    with pytest.raises(ValueError, match="AnsweringEngine only writes"):
        Suite([Questions(path=path, answers="rated")]).run(AnsweringEngine(right), tokenizer)


def test_fingerprint_tells_weights_apart(model):
    first = weights_fingerprint(model)
    assert first == weights_fingerprint(create_model(SMALL_SHAPE, seed=1))
    other = create_model(SMALL_SHAPE, seed=1)
    other.layers["0"].attention.wo.weight.data[[0, 1]] = other.layers["0"].attention.wo.weight.data[[1, 0]]
    assert weights_fingerprint(other) != first, "exchanged rows"


# -- settings ----------------------------------------------------------------------------------------------------------


def test_suites_that_cannot_be(questions):
    with pytest.raises(ValueError, match="benchmarks is invalid: empty"):
        Suite([])
    with pytest.raises(ValueError, match="benchmarks is invalid: several are called arithmetic"):
        Suite([Arithmetic(), Arithmetic()])
    with pytest.raises(ValueError, match="limit is invalid: 0"):
        Arithmetic(limit=0)
    for setting, value in (("n", 0), ("max_new_tokens", -1), ("temperature", math.nan), ("top_p", 1.5)):
        with pytest.raises(ValueError, match=f"arithmetic: {setting} is invalid: {value}"):
            Arithmetic(**{setting: value})
    for seconds in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"deadline is invalid: {seconds}"):
            Suite([Arithmetic()], deadline=seconds)
    for name in ("a/b", "../b", ".b", "b\0", "b" * 300):
        with pytest.raises(ValueError, match="the name of a benchmark is invalid"):
            Arithmetic(name=name)
        with pytest.raises(ValueError, match="the name of a suite is invalid"):
            Suite([Arithmetic()], name=name)


def test_from_yaml(tmp_path, questions):
    benchmark = {"class_path": "nbg_lightning.evaluation.Arithmetic", "init_args": {"count": 3}}
    for place, whole in (
        ("top.yaml", {"name": "mine", "benchmarks": [benchmark]}),
        (
            "run.yaml",
            {"data": {"class_path": "x", "init_args": {"suite": {"name": "mine", "benchmarks": [benchmark]}}}},
        ),
    ):
        (tmp_path / place).write_text(json.dumps(whole))
        suite = Suite.from_yaml(tmp_path / place)
        assert (suite.name, suite.benchmarks[0].count, suite.sampling.temperature) == ("mine", 3, 0.0)
    (tmp_path / "none.yaml").write_text("model: tiny\n")
    with pytest.raises(ValueError, match="has no suite"):
        Suite.from_yaml(tmp_path / "none.yaml")
    benchmark["init_args"] = {"counts": 3}
    (tmp_path / "wrong.yaml").write_text(json.dumps({"benchmarks": [benchmark]}))
    with pytest.raises(ValueError, match="counts") as caught:
        Suite.from_yaml(tmp_path / "wrong.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
def test_continuations_are_cut_out_of_whole_texts(kind, tmp_path):
    """Whatever the tokenizer does at the beginning of a text, or across the border, ids are those of the whole text."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, trainers

    from nbg_lightning.data.tokenizer import Tokenizer
    from nbg_lightning.evaluation.prompts import Prompts

    backend = Backend(models.BPE())
    parts = {"bytes": pre_tokenizers.ByteLevel(add_prefix_space=False), "metaspace": pre_tokenizers.Metaspace()}
    backend.pre_tokenizer, backend.decoder = parts[kind], decoders.ByteLevel()
    texts = ["Question: what is it? A. one\nAnswer: A one\n\nAnswer:A. two"] * 20
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=300, special_tokens=["</s>"], show_progress=False)
    )
    backend.save(str(tmp_path / "tokenizer.json"))
    prompts = Prompts(Tokenizer(tmp_path))
    for context in ("Question: what?\nAnswer:", "one line", "ends with a line\n", "a\n\nAnswer: the"):
        for request, text in zip(prompts._continued(context, [" A", "two", ":"]), [" A", "two", ":"], strict=True):
            assert list(request.context + request.continuation) == prompts.tokenizer.encode(context + text)
            assert (
                list(request.context)
                == prompts.tokenizer.encode(context + text)[: len(prompts.tokenizer.encode(context))]
            )
