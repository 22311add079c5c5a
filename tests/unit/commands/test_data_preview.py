"""`nbg data preview` on all kinds of data, including untrusted data."""

import json

import pytest
import yaml
from lightning.pytorch.demos.boring_classes import BoringDataModule

from nbg_lightning.commands import data_preview
from nbg_lightning.data import train_bpe
from nbg_lightning.data.tokenizer import load_tokenizer

ACTS = "\x1b]0;title\x07\x1b[31mred\u202egnp\u2028\x9b31m\r"
SEEN = r"\x1b]0;title\x07\x1b[31mred\u202egnp\u2028\x9b31m\r"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = ["what is the answer? it is 42, and nothing else than that."] * 3
    return train_bpe(texts, 290, tmp_path_factory.mktemp("tokenizer") / "t")


@pytest.fixture
def preview(tmp_path, tokenizer, capsys, monkeypatch):
    def preview(kind, source, rows, *options, **settings):
        monkeypatch.setenv("COLUMNS", "160")
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = {"class_path": f"nbg_lightning.data.{source}", "init_args": {"path": str(tmp_path / "rows.jsonl")}}
        arguments = {
            "tokenizer": str(tokenizer),
            "data_dir": str(tmp_path / "data"),
            "sources": {"mine": source},
            **settings,
        }
        config = {"data": {"class_path": f"nbg_lightning.{kind}", "init_args": arguments}}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        assert data_preview.main(["preview", str(tmp_path / "config.yaml"), *options]) == 0
        shown = capsys.readouterr().out
        assert not set(shown) & set("\x1b\x07\u202e\u2028\x9b\r")
        return shown

    return preview


CHAT = {"sequence_length": 512, "tokens_per_step": 512}


def test_conversations(preview):
    rows = [
        {"conversations": [{"from": "human", "value": f"q {ACTS}"}, {"from": "gpt", "value": f"a {ACTS}"}]},
        {"messages": [{"role": ACTS, "content": "x"}]},
        {"mesages": []},
    ]
    shown = preview("ChatDataModule", "ChatJsonLines", rows, **CHAT)
    assert "read as ShareGPT (conversations, from/value), 1 rows" in shown
    assert f"q {SEEN}" in shown and f"a {SEEN}" in shown
    assert "warning: a run stops at the first of the 2 invalid samples: set on_invalid to drop, or fix them" in shown
    assert "rows.jsonl:2: message 0: unknown role" in shown
    assert "stops at" not in preview("ChatDataModule", "ChatJsonLines", rows, on_invalid="drop", **CHAT)
    shown = preview("ChatDataModule", "ChatJsonLines", rows[2:], **CHAT)
    assert "no conversation is left; 1 samples: 0 rendered" in shown
    assert "read as nothing: no row can be used" in shown


def test_pairs_stand_side_by_side(preview):
    rows = [
        {"prompt": f"2+3? {ACTS}", "chosen": f"5 {ACTS}", "rejected": "six", "score_chosen": 1, "score_rejected": 3},
        {"chosen": "\n\nHuman: hi\n\nAssistant: hello", "rejected": "\n\nHuman: hi\n\nAssistant: go"},
        {"prompt": "q", "completion": "a", "label": True},
    ]
    shown = preview("PreferenceDataModule", "PairJsonLines", rows, **CHAT)
    assert "pair 0: 1 turn of prompt, scores 1 and 3" in shown and "trained" in shown
    (line,) = (line for line in shown.splitlines() if "six<|im_end|>" in line)
    assert line.index(f"5 {SEEN[:20]}") < line.index("six")  # the answers alone: the prompt stands above both
    assert shown.count("2+3?") == 1
    assert "1 of 1 pairs whose chosen answer has the lower score: are chosen and rejected the wrong way round?" in shown
    assert "1 of 3 pairs were invalid; first: " in shown and "KTO" in shown
    assert "lengths: " in shown and "best_fit" in shown


def test_questions_end_with_the_generation_prompt(preview):
    rows = [{"question": f"2+3? {ACTS}", "answer": f"5{ACTS}"}, {"question": ""}]
    shown = preview("PromptDataModule", "QuestionJsonLines", rows, prompts_per_step=1, max_prompt_tokens=4)
    lines = [line.strip("│ ") for line in shown.splitlines()]
    assert "<|im_start|>assistant↵" in lines and f"2+3? {SEEN}<|im_end|>↵" in lines
    assert f"answer: '5{SEEN}'; data: none" in shown
    assert "1 of 2 rows are not valid questions; first: " in shown
    assert "1 of 1 prompts are longer than max_prompt_tokens=4" in shown


def test_texts(preview, tmp_path):
    rows = [{"text": f"water {ACTS}"}, {"text": " "}, {"text": "it is"}]
    shown = preview("CurriculumDataModule", "JsonLines", rows)
    assert f"<s>water {SEEN}</s>" in shown and "bytes a token" in shown
    shown = preview("CurriculumDataModule", "JsonLines", rows, "--samples", "0", tokenizer={"train_vocab_size": 280})
    assert "water" not in shown and "lengths: " in shown
    assert [path.name.split("-")[0] for path in (tmp_path / "data").iterdir() if path.is_dir()] == ["tokenizer"]


def test_windows_have_the_borders_of_their_documents(tokenizer):
    loaded = load_tokenizer(str(tokenizer))
    windows = list(
        data_preview.document_windows(["it is", " ", "what is the answer? it is 42"], loaded, 8, lengths := [])
    )
    assert [sum(map(len, window)) for window in windows[:-1]] == [8] * (len(windows) - 1)
    assert len(lengths) == 2 and sum(len(part) for window in windows for part in window) == sum(lengths)
    assert len(windows[0]) == 2 and windows[0][0][-1] == loaded.eos_id and windows[0][1][0] == loaded.bos_id
    joined = [token for window in windows for part in window for token in part]
    assert loaded.decode(joined, skip_special_tokens=True) == "it iswhat is the answer? it is 42"


@pytest.mark.parametrize("format", ["text", "nanbeige"])
def test_benchmarks_with_their_prompts(tmp_path, tokenizer, capsys, format):
    arithmetic = {"class_path": "nbg_lightning.evaluation.Arithmetic", "init_args": {"count": 3}}
    suite = {
        "class_path": "nbg_lightning.evaluation.Suite",
        "init_args": {"benchmarks": [arithmetic], "format": format},
    }
    data = {"class_path": "nbg_lightning.BenchmarkDataModule", "init_args": {"suite": suite}}
    config = {"model": {"init_args": {"base_weights": str(tokenizer)}}, "data": data}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert data_preview.main(["preview", str(tmp_path / "config.yaml"), "--samples", "1"]) == 0
    shown = capsys.readouterr().out
    assert "item " in shown and "gold: " in shown and "3 items from " in shown and "lengths: " in shown
    assert ("<|im_start|>assistant" in shown) == (format == "nanbeige")
    data["init_args"]["suite"]["init_args"]["format"], config["model"] = format, {}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match="there is no tokenizer; give data"):
        data_preview.main(["preview", str(tmp_path / "config.yaml")])


def test_other_data_is_refused():
    with pytest.raises(ValueError, match="BoringDataModule has nothing to preview; give a config with Preference"):
        data_preview.print_preview(BoringDataModule(), 1, 1)
