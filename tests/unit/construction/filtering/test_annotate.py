import json
from collections import Counter

import pytest

from nbg_lightning.construction.filtering.annotate import (
    AnnotationSettings,
    annotate,
    annotation_prompt,
    choose_documents,
    excerpt,
    label_by_source,
    parse_scores,
)
from nbg_lightning.construction.filtering.rubric import Dimension, Rubric, load_rubric
from nbg_lightning.engines.chat import ChatModel
from nbg_lightning.engines.protocol import Completion
from nbg_lightning.testing.benchmarks import AnsweringEngine

RUBRIC = Rubric((Dimension("depth", "how deep", "flat", "deep", weight=2), Dimension("noise", "how clean", "a", "b")))
GOOD = '{"depth": 6, "noise": 3}'


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        (GOOD, None),
        ("```json\n" + GOOD + "\n```", None),
        ('First {"depth": 1, "noise": 1}, no: ' + GOOD, None),
        ('{"depth": "6", "noise": 3.0, "extra": {"a": 1}}', None),
        ("I'm sorry, but I cannot help with that.", "refused"),
        ("As an AI I must decline.", "refused"),
        ("depth is 6", "unreadable"),
        ("", "unreadable"),
        ('{"depth": 6', "unreadable"),
        ('{"depth": 6}', "missing"),
        ('{"depth": 10, "noise": 3}', "out_of_range"),
        ('{"depth": -1, "noise": 3}', "out_of_range"),
        ('{"depth": 6.5, "noise": 3}', "out_of_range"),
        ('{"depth": true, "noise": 3}', "out_of_range"),
        ('{"depth": NaN, "noise": 3}', "out_of_range"),
        ('{"depth": 1e999, "noise": 3}', "out_of_range"),
        ('{"depth": null, "noise": 3}', "out_of_range"),
        ('{"depth": [6], "noise": 3}', "out_of_range"),
        ("{" * 3000, "unreadable"),
        ('{"a": ' * 100_000, "unreadable"),
        ('{"depth": 6, "depth": 7, "noise": 3}', "unreadable"),
        ('{"depth": 1' + "0" * 400 + ', "noise": 3}', "out_of_range"),
        ('{"depth": "' + "9" * 5000 + '", "noise": 3}', "out_of_range"),
        ("I can’t score this document.", "refused"),
    ],
)
def test_reading_scores(text, failure):
    scores, found, _ = parse_scores(text, RUBRIC.names)
    assert found == failure
    assert scores == (None if failure else {"depth": 6, "noise": 3})


def test_the_prompt_has_all_dimensions_and_an_excerpt():
    prompt = annotation_prompt(load_rubric(), "the beginning " + "x" * 10_000 + " the end", 400)
    assert all(f"- {name}: " in prompt for name in load_rubric().names)
    assert "the beginning" in prompt
    assert "the end" in prompt
    assert len(excerpt("y" * 10_000, 400)) < 430


def run(corpus, out, answer, **settings):
    engine = AnsweringEngine(answer)
    report = annotate(
        corpus, ChatModel(engine), RUBRIC, out, AnnotationSettings(**{"number": 20, **settings}), {"a": 1}
    )
    return engine, report


def test_choice_is_of_the_seed_and_nested(corpus):
    ids = [[row["id"] for row in choose_documents(corpus, number, True, 0)] for number in (10, 40)]
    assert set(ids[0]) < set(ids[1])
    assert [row["id"] for row in choose_documents(corpus, 40, True, 0)] == ids[1]
    assert [row["id"] for row in choose_documents(corpus, 40, True, 1)] != ids[1]
    counts = Counter(row["source"] for row in choose_documents(corpus, 41, True, 0))
    assert sorted(counts.values()) == [20, 21]
    assert len(choose_documents(corpus, 10_000, True, 0)) == len(corpus)
    assert {row["source"] for row in choose_documents(corpus, 9, True, 0, {"spam"})} == {"spam"}


def test_scores_and_counts(corpus, tmp_path, keyed):
    """Bad answers are asked again with another temperature and seed, then given up and counted by what was wrong."""

    def answer(prompt, sample):
        kind = len(prompt.text) % 4
        return (GOOD, "I'm sorry, I can't.", '{"depth": 99, "noise": 0}', GOOD)[kind]

    engine, report = run(corpus, tmp_path / "a", answer)
    lines = keyed(tmp_path / "a" / "annotations.jsonl")
    found = [lines[key] for key in lines]
    assert len(found) == report["documents"] == 20
    assert report["scored"] == sum(record["scores"] is not None for record in found)
    assert 0 < report["scored"] < 20
    given_up = {kind: own["count"] for kind, own in report["given_up"].items()}
    assert given_up == Counter(r["failures"][-1] for r in found if r["scores"] is None)
    assert all(len(record["failures"]) == (0 if record["scores"] else 3) for record in found)
    assert {record["quality"] for record in found if record["scores"]} == {5.0}
    assert [sampling.temperature for _, sampling in engine.calls] == [0.0, 0.7, 0.7]
    assert len({sampling.seed for _, sampling in engine.calls}) == 3
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["annotator"] == {"a": 1}
    assert manifest["rubric"] == RUBRIC.to_dict()


def test_a_retry_can_mend(corpus, tmp_path):
    calls = []

    def answer(prompt, sample):
        calls.append(prompt)
        return "no JSON" if len(calls) <= 20 else GOOD

    _, report = run(corpus, tmp_path / "a", answer)
    assert report["scored"] == 20
    assert report["failed_answers"]["unreadable"]["count"] == 20


def test_cut_off_and_failed_answers(corpus, tmp_path):
    def answer(prompt, sample):
        reason = ("length", "error", "stop")[len(prompt.text) % 3]
        error = "server down" if reason == "error" else None
        return Completion((1,), (), reason, 0, sample, 0, error, GOOD if reason == "stop" else '{"depth": 6')

    _, report = run(corpus, tmp_path / "a", answer)
    assert set(report["given_up"]) == {"truncated", "error"}
    assert "server down" in report["given_up"]["error"]["first"]


def test_what_is_there_is_not_asked_again(corpus, tmp_path):
    """An engine that dies loses the call it died in, no more; the rest and the file are those of a straight run."""
    asked = []

    def dies(prompt, sample):
        if len(asked) == 13:
            raise RuntimeError("out of credit")
        asked.append(prompt.text)
        return GOOD

    with pytest.raises(RuntimeError, match="out of credit"):
        run(corpus, tmp_path / "a", dies, batch=4)
    engine, _ = run(corpus, tmp_path / "a", lambda *_: GOOD, batch=8)
    again = [prompt.text for prompts, _ in engine.calls for prompt in prompts]
    assert len(again) == 8
    assert not set(again) & set(asked[:12])
    run(corpus, tmp_path / "b", lambda *_: GOOD)
    assert (tmp_path / "a" / "annotations.jsonl").read_bytes() == (tmp_path / "b" / "annotations.jsonl").read_bytes()
    engine, _ = run(corpus, tmp_path / "a", lambda *_: GOOD)
    assert engine.calls == []


def test_other_settings_need_another_folder(corpus, tmp_path):
    run(corpus, tmp_path / "a", lambda *_: GOOD)
    with pytest.raises(ValueError, match=r"build with other settings \(settings.seed: 0 there, 1 here\)"):
        run(corpus, tmp_path / "a", lambda *_: GOOD, seed=1)


def test_nothing_scored_is_an_error(corpus, tmp_path):
    with pytest.raises(RuntimeError, match=r"none of 20 documents \(20 refused\); try a stronger"):
        run(corpus, tmp_path / "a", lambda *_: "I can't do that", attempts=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"number": 0}, "number is invalid: 0"),
        ({"attempts": 2, "retry_temperature": 0.0}, "retry_temperature is invalid: 0"),
        ({"temperature": -1.0}, "temperature is invalid: -1"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        AnnotationSettings(**settings)


def test_labels_of_sources(corpus, tmp_path, keyed):
    report = label_by_source(corpus, {"wanted": {"science": 9, "spam": 0}}, tmp_path / "a", 30)
    lines = keyed(tmp_path / "a" / "annotations.jsonl")
    assert report["scored"] == len(lines) == 30
    assert {(lines[key]["source"], lines[key]["scores"]["wanted"]) for key in lines} == {("science", 9), ("spam", 0)}
    only = label_by_source(corpus, {"wanted": {"science": 9}}, tmp_path / "b", 30)
    assert only["scored"] == 30
    with pytest.raises(ValueError, match="'ham' is not in the corpus; choose one of science, spam"):
        label_by_source(corpus, {"wanted": {"ham": 9}}, tmp_path / "c", 30)
    with pytest.raises(ValueError, match="label of source 'spam' is invalid: 10; give 0 to 9"):
        label_by_source(corpus, {"wanted": {"spam": 10}}, tmp_path / "c", 30)
