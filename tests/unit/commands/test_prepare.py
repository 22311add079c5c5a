"""`nbg prepare`: a config's data before its run, by one machine or several."""

import json

import pytest
import yaml

from nbg_lightning.cli import main
from nbg_lightning.data import InMemory, TokenizerConfig
from nbg_lightning.data.encoder import TextEncoder
from nbg_lightning.datamodules import CurriculumDataModule

TEXTS = ["a text of a few words", "another text", "and a third one", "the fourth text is the last"]


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = {
        "class_path": "CurriculumDataModule",
        "init_args": {
            "sources": {"web": {"class_path": "InMemory", "init_args": {"texts": TEXTS}}},
            "tokenizer": {"train_vocab_size": 270},
            "data_dir": "data",
            "prepare_workers": 0,
            "validation_fraction": 0.0,
        },
    }
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({"data": data}))


def manifests(tmp_path):
    return list(tmp_path.glob("data/web-*/train/manifest.json"))


def test_all(tmp_path, capsys):
    assert main(["prepare", "my.yaml", "--workers", "0"]) == 0
    assert capsys.readouterr().out == "prepared in data\n"
    assert len(manifests(tmp_path)) == 1


def test_what_is_prepared_is_what_a_run_reads(tmp_path, monkeypatch):
    """The run finds it by the identity of source and tokenizer: nothing is encoded again."""
    assert main(["prepare", "my.yaml", "--workers", "0"]) == 0
    monkeypatch.setattr(TextEncoder, "encode", lambda *_: pytest.fail("a text was encoded again"))
    data = CurriculumDataModule(
        {"web": InMemory(TEXTS)},
        TokenizerConfig(train_vocab_size=270),
        data_dir="data",
        prepare_workers=0,
        validation_fraction=0.0,
    )
    data.prepare_data()
    data.setup("fit")
    (manifest,) = manifests(tmp_path)
    assert data.source_tokens["web"] == sum(part["tokens"] for part in json.loads(manifest.read_text())["parts"]) > 0


def test_parts(tmp_path, capsys):
    assert main(["prepare", "my.yaml", "--part", "1/2"]) == 0  # there is one part of text
    first = capsys.readouterr().out
    assert len(manifests(tmp_path)) == 1
    assert main(["prepare", "my.yaml", "--part", "2/2"]) == 0
    assert first == capsys.readouterr().out == "prepared in data\n"


def test_a_part_that_waits_for_others(tmp_path, capsys):
    assert main(["prepare", "my.yaml", "--part", "2/2"]) == 0
    assert capsys.readouterr().out == "part 2/2 is prepared; web: the last machine to end writes the manifest\n"
    assert manifests(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["my.yaml", "--part", "3/2"], "part is invalid: 3/2"),
        (["my.yaml", "--part", "1/2", "--engine", "ray"], "--part is invalid"),
        (["my.yaml", "--workers", "-1"], "num_workers is invalid: -1"),
        (["nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_one_line_of_error(arguments, named, capsys):
    assert main(["prepare", *arguments]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert named in told[-1]


def test_a_config_that_prepares_nothing(tmp_path, capsys):
    (tmp_path / "grpo.yaml").write_text(
        "data: {class_path: PromptDataModule, init_args: {sources: {sums: {class_path: SumQuestions}}}}"
    )
    assert main(["prepare", "grpo.yaml"]) == 2
    assert "PromptDataModule has nothing to prepare" in capsys.readouterr().err
