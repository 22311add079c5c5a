"""Intervals of benchmark results, and comparisons."""

import json
import random

import pytest

from nbg_lightning.digests import sealed_line
from nbg_lightning.evaluation.benchmark import Item
from nbg_lightning.evaluation.compare import compare
from nbg_lightning.evaluation.results import SuiteResult, clusters_of, load_result, read_records, record_file, summarize
from nbg_lightning.evaluation.statistics import mean_interval
from nbg_lightning.evaluation.tasks.questions import Questions
from nbg_lightning.json_lines import json_line


def written(scores, clusters=None):
    """Records of items that were answered once."""
    records = [
        {
            "id": f"q{index}",
            "index": index,
            "status": "ok",
            "error": None,
            "category": None,
            "score": score,
            "samples": [{"score": score, "status": "ok", "answer": "", "finish_reason": "stop", "tokens": 1}],
        }
        for index, score in enumerate(scores)
    ]
    for record, cluster in zip(records, clusters or [], strict=False):
        record["cluster"] = cluster
    return records


def rated(nats):
    """Records of a perplexity."""
    return [
        {"id": f"t{i}", "index": i, "status": "ok", "error": None, "category": None, "nll": n, "bytes": 10, "tokens": 4}
        for i, n in enumerate(nats)
    ]


def suite(records, kind="generate", primary="accuracy"):
    return SuiteResult("s", [summarize("b", kind, primary, records, 1)], {"b": records})


def test_all_wrong_is_an_interval_with_a_width():
    result = summarize("b", "generate", "accuracy", written([0.0] * 30), 1)
    assert result.intervals["accuracy"] == mean_interval([0.0] * 30)
    assert result.intervals["accuracy"].high == pytest.approx(0.13, abs=0.01)


def test_items_of_a_cluster_widen_the_interval():
    scores, clusters = [1.0] * 10 + [0.0] * 10, ["a"] * 5 + ["b"] * 5 + ["c"] * 5 + ["d"] * 5
    alone = summarize("b", "generate", "accuracy", written(scores), 1).intervals["accuracy"]
    together = summarize("b", "generate", "accuracy", written(scores, clusters), 1).intervals["accuracy"]
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


def test_items_without_a_cluster_are_their_own():
    records = written([1.0, 0.0, 1.0], ["a", None, "q1"])
    assert clusters_of(records) == [("cluster", "a"), ("item", "q1"), ("cluster", "q1")]
    assert clusters_of(written([1.0])) is None


def test_one_text_has_bits_per_byte_and_no_interval():
    result = summarize("b", "perplexity", "bits_per_byte", rated([7.0]), 1)
    assert "bits_per_byte" in result.metrics
    assert result.intervals == {}


def test_clusters_are_read_from_rows(tmp_path):
    rows = [{"question": f"{i}+1?", "answer": str(i + 1), "cluster": i // 2} for i in range(4)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = Questions(path=str(tmp_path / "questions.jsonl")).load().items
    assert [item.cluster for item in items] == ["0", "0", "1", "1"]
    assert Item("x").cluster is None


def test_a_comparison_takes_clusters_as_draws():
    first, second = [0.0] * 20, [1.0] * 10 + [0.0] * 10
    (alone,) = compare(suite(written(first)), suite(written(second)))
    clusters = ["a"] * 10 + [str(i) for i in range(10)]
    (together,) = compare(suite(written(first, clusters)), suite(written(second, clusters)))
    assert alone.better is True
    assert alone.paired.p_value < 0.05
    assert together.better is None
    assert together.paired.p_value > 0.05


def test_clusters_of_either_result_count_and_a_disagreement_is_said():
    scores, others = [1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0]
    plain, clustered = suite(written(scores)), suite(written(others, list("aabbccdd")))
    wanted = compare(suite(written(scores, list("aabbccdd"))), clustered)[0].paired
    assert compare(plain, clustered)[0].paired == wanted
    assert compare(clustered, plain)[0].paired.p_value == wanted.p_value
    (disagreeing,) = compare(clustered, suite(written(scores, list("abababab"))))
    assert disagreeing.warnings == ["the clusters of items differ: those of the first count"]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), 7.0, -0.5, "1", None])
def test_a_stored_score_that_is_no_share_is_named(score):
    records = written([1.0, 0.0])
    records[1]["score"] = score
    damaged = SuiteResult("s", [summarize("b", "generate", "accuracy", written([1.0, 0.0]), 1)], {"b": records})
    for pair in ((damaged, suite(written([1.0, 1.0]))), (suite(written([1.0, 1.0])), damaged)):
        with pytest.raises(ValueError, match="b: the score of item 'q1' is invalid"):
            compare(*pair)


@pytest.mark.parametrize("change", [{"nll": None}, {"nll": float("nan")}, {"bytes": 0}])
def test_a_stored_perplexity_without_a_number_is_named(change):
    result = suite(rated([7.0, 8.0]), "perplexity", "bits_per_byte")
    result.benchmarks[0].about["kind"] = "perplexity"
    result.records["b"][1].update(change)
    with pytest.raises(ValueError, match="b: the nats per byte of item 't1' is invalid"):
        compare(result, result)


def test_a_perplexity_and_an_accuracy_of_one_name_are_not_compared():
    records = [{**record, "id": f"q{i}"} for i, record in enumerate(rated([7.0, 8.0]))]
    perplexity = suite(records, "perplexity", "bits_per_byte")
    perplexity.benchmarks[0].about["kind"] = "perplexity"
    with pytest.raises(ValueError, match="no scored item in common"):
        compare(perplexity, suite(written([1.0, 0.0])))


def test_measures_of_nothing_are_left_out():
    records = written([1.0, 0.0])
    for record in records:
        record["samples"][0]["extra"] = {"loose": (0.0, 0.0)}
    assert "loose" not in summarize("b", "generate", "accuracy", records, 1).metrics


def test_fewer_nats_are_better():
    first = rated([9.0, 8.0, 9.5, 8.5, 9.2])
    second = rated([7.0, 6.1, 7.4, 6.6, 7.1])
    sides = [suite(records, "perplexity", "bits_per_byte") for records in (first, second)]
    for side in sides:
        side.benchmarks[0].about["kind"] = "perplexity"
    (found,) = compare(*sides)
    assert found.metric == "nats per byte"
    assert found.paired.interval.high < 0
    assert found.better is True


@pytest.mark.parametrize("character", ["x", "\u2028", "\u2029", "\x85", "\x0c", "\x0b", "\x1e", "\ud83d"])
def test_records_hold_whatever_a_model_writes(tmp_path, character):
    """Line ends of other alphabets, and half a surrogate pair."""
    samples = [
        {"score": 1.0, "status": "ok", "text": f"a{character}b", "answer": "", "finish_reason": "stop", "tokens": 3}
    ]
    records = [
        {"id": str(i), "index": i, "status": "ok", "error": None, "category": None, "score": 1.0, "samples": samples}
        for i in range(4)
    ]
    SuiteResult("suite", [summarize("sums", "generate", "accuracy", records, 1)]).save(tmp_path)
    for line in (json_line, sealed_line):
        record_file(tmp_path, "sums").write_bytes(b"".join(map(line, records)))
        assert load_result(tmp_path).records["sums"] == records


def test_a_line_that_is_no_record_is_named(tmp_path):
    record_file(tmp_path, "sums").write_text('{"id": "0", "index": 0, "status": "ok"}\n[1]\n')
    with pytest.raises(ValueError, match=r"sums\.jsonl, line 2 is no record of an item"):
        read_records(record_file(tmp_path, "sums"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": "q0"}, r"line 3 is of another item than an earlier line with its id 'q0' \(their places are 2 and 0\)"),
        ({"id": ["q2"]}, "line 3 has no id of an item, or no place"),
        ({"index": "2"}, "line 3 has no id of an item, or no place"),
        ({"index": None}, "line 3 has no id of an item, or no place"),
    ],
)
def test_records_of_two_items_do_not_become_one(tmp_path, change, said):
    records = written([1.0, 0.0, 1.0])
    records[2].update(change)
    (tmp_path / "b.jsonl").write_bytes(b"".join(map(sealed_line, records)))
    with pytest.raises(ValueError, match=said):
        read_records(tmp_path / "b.jsonl")


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "[" * 200_000,
        "{}",
        '{"suite": "s", "benchmarks": [1]}',
        '{"suite": "s", "benchmarks": [{"name": "../b", "intervals": {}, "categories": {}, "metrics": {}}]}',
        '{"suite": "s", "benchmarks": [{"name": "b", "primary": "a", "intervals": {}, "categories": {}, "metrics": {"a": "x"}}]}',
    ],
)
def test_other_files_are_not_taken_for_results(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ValueError, match=r"results\.json is not a result of this library"):
        load_result(tmp_path)


def test_every_flipped_bit_of_a_record_is_found(tmp_path, caplog):
    records = written([1.0, 0.0, 1.0])
    lines = [sealed_line(record) for record in records]
    file = record_file(tmp_path, "sums")
    chance = random.Random(0)
    for _ in range(400):
        place, bit = chance.randrange(len(lines[1])), chance.randrange(8)
        damaged = bytearray(lines[1])
        damaged[place] ^= 1 << bit
        file.write_bytes(lines[0] + bytes(damaged) + lines[2])
        caplog.clear()
        with caplog.at_level("WARNING", logger="nbg_lightning"):
            read = read_records(file)
        assert all(record in records for record in read) and records[0] in read, (place, bit)
        assert "is damaged" in caplog.text or read == records  # a flipped line end may become another blank


def test_records_that_are_gone_are_said(tmp_path, caplog):
    records = written([1.0, 0.0, 1.0])
    SuiteResult("suite", [summarize("sums", "generate", "accuracy", records, 1)]).save(tmp_path)
    record_file(tmp_path, "sums").write_bytes(b"".join(map(sealed_line, records[:2])))
    with caplog.at_level("WARNING", logger="nbg_lightning"):
        load_result(tmp_path)
    assert "sums has the records of 2 of its 3 items" in caplog.text


def test_files_with_and_without_digests_go_on(tmp_path):
    records = written([1.0, 0.0])
    record_file(tmp_path, "sums").write_bytes(json_line(records[0]) + sealed_line(records[1]))
    assert read_records(record_file(tmp_path, "sums")) == records
