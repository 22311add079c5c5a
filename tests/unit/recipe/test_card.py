"""Model cards from the files of a run, whichever exist."""

import json

import pytest
import yaml
from huggingface_hub import ModelCard

from nbg_lightning.evaluation.results import SuiteResult, record_file, summarize
from nbg_lightning.loggers.record import RunRecord
from nbg_lightning.recipe.card import model_card, read_run, run_results
from nbg_lightning.url_path import UrlPath

CONFIG = {
    "model": {"class_path": "nbg_lightning.SFTModule", "init_args": {"optimizer": {"lr": None, "weight_decay": 0.1}}},
    "data": {
        "class_path": "nbg_lightning.ChatDataModule",
        "init_args": {
            "sequence_length": 512,
            "sources": {
                "hub": {
                    "class_path": "nbg_lightning.data.ChatHuggingFace",
                    "init_args": {"name_or_folder": "team/chats"},
                },
                "mi|ne": {"class_path": "x.ChatJsonLines", "init_args": {"path": "/home/alice/secret/chats.jsonl"}},
            },
        },
    },
    "trainer": {
        "default_root_dir": "/home/alice/runs",
        "callbacks": [
            {"class_path": "nbg_lightning.WarmupDecay", "init_args": {"lr": 0.002, "decay": "cosine"}},
            {
                "class_path": "nbg_lightning.FGWSD",
                "init_args": {"stages": [{"name": "hq", "tokens": "1M", "mixture": {"a": 1}}]},
            },
        ],
    },
}


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "run" / "checkpoints" / "step-00000010"
    folder.mkdir(parents=True)
    return folder


def suite(folder, scores):
    folder.mkdir(parents=True)
    sample = {"status": "ok", "text": "yes", "answer": "yes", "finish_reason": "stop", "tokens": 3}
    records = [
        {"id": str(i), "index": i, "status": "ok", "error": None, "score": s, "samples": [{**sample, "score": s}]}
        for i, s in enumerate(scores)
    ]
    record_file(folder, "sums").write_text("".join(json.dumps(record) + "\n" for record in records))
    SuiteResult("small", [summarize("sums", "generate", "accuracy", records, 1)]).save(folder)


def test_recipe_data_benchmarks_and_template(checkpoint):
    run = checkpoint.parents[1]
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    RunRecord(run).log_metrics({"train/loss": 0.5, "train/lr": 1e-3}, 10)
    suite(run / "benchmarks" / "small" / "step-00000010", [1.0] * 15 + [0.0] * 5)
    text = model_card(
        "me/model", [("parameters", "4,000")], read_run(checkpoint), run_results(checkpoint), "ChatML <b>"
    )
    card = ModelCard(text)
    assert card.data.library_name == "transformers" and card.data.tags == ["nbg_lightning"]
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("sums", "accuracy", 0.75)
    for said in (
        "# me/model", "supervised fine-tuning (`SFTModule`)", "| optimizer weight_decay | 0.1 |", "| decay | cosine |",
        "| stage hq | tokens 1M, mixture {'a': 1} |", "| hub | ChatHuggingFace | team/chats |",
        "| mi\\|ne | ChatJsonLines | chats.jsonl |", "| train/loss | 0.5 |", "| sequence_length | 512 |",
        "| small | sums | accuracy | 0.750 | 0.5", "Chat template: ChatML &lt;b&gt;.", "| parameters | 4,000 |",
    ):  # fmt: skip
        assert said in text, said
    assert "alice" not in text, "paths of the machine stay here"


@pytest.mark.parametrize("content", [None, "", "a: [", "- 1", "model: 3\ndata: [x]\ntrainer: {callbacks: 5}"])
def test_runs_that_say_little_have_a_card_too(checkpoint, content):
    if content is not None:
        (checkpoint.parents[1] / "config.yaml").write_text(content)
    text = model_card("m", [], read_run(checkpoint), run_results(checkpoint), None)
    assert "no record of how it was trained" in text and "None were run." in text and "Chat template: none." in text
    assert ("cannot be read" in text) == (content == "a: [")
    assert ModelCard(text).data.eval_results is None


def test_a_checkpoint_behind_a_url_has_its_run_elsewhere():
    place = UrlPath("memory://bucket/run/step-00000010")
    assert run_results(place) == []
    assert f"its run wrote its config and metrics elsewhere than {place}" in model_card(
        "m", [], read_run(place), [], None
    )


def test_a_damaged_result_is_left_out_and_said(checkpoint, caplog):
    folder = checkpoint.parents[1] / "benchmarks" / "s" / "one"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text("{}")
    with caplog.at_level("WARNING", logger="nbg_lightning"):
        assert run_results(checkpoint) == []
    assert "not in the model card" in caplog.text
