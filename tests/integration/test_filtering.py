"""The data filtering commands in sequence, on real text that every machine has."""

import json
from pathlib import Path

import pytest
import yaml

from nbg_lightning.cli import main

CORPUS = Path(__file__).parents[2] / "configs" / "construction" / "corpus.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("filtering")


def nbg(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def corpus(folder):
    source = {
        "class_path": "nbg_lightning.data.PackageSource",
        "init_args": {"packages": ["json", "email"], "content": "code"},
    }
    words = {
        "class_path": "nbg_lightning.data.PackageSource",
        "init_args": {"packages": ["json", "email"], "content": "docstrings"},
    }
    gym = {"class_path": "nbg_lightning.data.ReasoningGym", "init_args": {"tasks": ["gsm_symbolic"], "count": 60}}
    config = {"sources": {"code": source, "words": words, "gym": gym}, "trust": {"code": 0.5}, "num_workers": 0}
    (folder / "corpus.yaml").write_text(yaml.safe_dump(config))
    assert nbg("build-corpus", "--config", folder / "corpus.yaml", "--out", folder / "corpus") == 0
    return folder / "corpus"


def test_from_sources_to_pools(folder, corpus, capfd):
    labels = '{"wanted": {"gym": 9, "words": 6, "code": 2}}'
    annotate = [
        "build-annotations",
        "--corpus",
        corpus,
        "--out",
        folder / "annotations",
        "--labels",
        labels,
        "--number",
        400,
    ]
    assert nbg(*annotate) == 0
    tagger = ["build-tagger", "--corpus", corpus, "--annotations", folder / "annotations", "--out", folder / "tagger"]
    assert nbg(*tagger, "--bits", 14) == 0
    assert "wanted" in capfd.readouterr().out
    tags = [
        "build-tags",
        "--corpus",
        corpus,
        "--tagger",
        folder / "tagger",
        "--out",
        folder / "tags",
        "--num_workers",
        0,
    ]
    assert nbg(*tags) == 0
    seeds = '{"class_path": "nbg_lightning.data.InMemory", "init_args": {"texts": ["decode a JSON document to Python objects"]}}'
    recall = [
        "build-recall",
        "--corpus",
        corpus,
        "--tags",
        folder / "tags",
        "--out",
        folder / "recall",
        "--seeds",
        seeds,
    ]
    assert nbg(*recall, "--num_workers", 0, "--embedding", "HashedEmbedding", "--embedding.dim", 16) == 0
    columns = json.dumps([str(folder / "tags"), str(folder / "recall")])
    select = [
        "build-selection",
        "--corpus",
        corpus,
        "--columns",
        columns,
        "--out",
        folder / "pools",
        "--num_workers",
        0,
    ]
    assert nbg(*select, "--hq.share", 0.2, "--mq.tokens", "20K") == 0
    out = capfd.readouterr().out
    assert f"look at {folder}/pools/report.md, and train with {folder}/pools/curriculum.yaml" in out
    report = json.loads((folder / "pools" / "report.json").read_text())
    assert report["pools"]["hq"]["tokens_by_source"]["gym"] > 0
    assert report["pools"]["mq"]["tokens"] >= 20_000
    assert report["score"] == {"quality": 1.0, "recall": 2.0}
    assert nbg("schedule", folder / "pools" / "curriculum.yaml", "--png", folder / "schedule.png") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build-corpus", "--out", "x"], "sources"),
        (["build-corpus", "--out", "x", "--sources", '{"a": {"class_path": "nbg_lightning.data.JsonLines"}}'], "path"),
        (
            ["build-tags", "--corpus", "nowhere", "--out", "x", "--tagger", "y"],
            "nowhere is invalid: no report.json in it",
        ),
        (
            ["build-annotations", "--corpus", "nowhere", "--out", "x"],
            "give either an engine that annotates, or labels",
        ),
        (["build-tags", "--corpus", "nowhere", "--out", "x"], "give tagger, perplexity_weights or both"),
        (
            ["build-selection", "--corpus", "nowhere", "--out", "x", "--columns", "[]", "--limits", '{"a": [1]}'],
            "limits of a",
        ),
        (
            [
                "build-selection",
                "--corpus",
                "n",
                "--out",
                "x",
                "--columns",
                "[]",
                "--hq.share",
                "0.2",
                "--hq.tokens",
                "5",
            ],
            "exactly one",
        ),
    ],
)
def test_errors_are_one_line(arguments, message, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert nbg(*arguments) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_the_shipped_corpus_parses(monkeypatch):
    """Its sources are there on every machine; what is built is not built here."""
    from nbg_lightning.construction.filtering import builders as module

    seen = {}

    def build(sources, out, *arguments):
        seen.update(sources=sources, out=out)
        raise ValueError("stop here")

    monkeypatch.setattr(module, "build_corpus", build)
    assert nbg("build-corpus", "--config", CORPUS) == 2
    assert all(source.parts() for source in seen["sources"].values())
