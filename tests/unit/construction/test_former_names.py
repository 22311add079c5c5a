"""Folders built under former names are read and resumed."""

import json

import pytest

from nbg_lightning.construction.filtering.table import Table
from nbg_lightning.construction.former_names import with_current_names
from nbg_lightning.construction.store import MANIFEST, REPORT, Store, manifest_file, read_manifest, read_report

MODEL = {"class": "nbg_lightning.construction.writers.WriterConfig", "template": "auto"}
FORMER = {"format": "nbg_lightning build-refinements 1", "settings": {"seed": 0, "writers": {"m": MODEL}}}
CURRENT = {"format": "nbg_lightning build-refinements 1", "settings": {"seed": 0, "models": {"m": MODEL}}}


def write(folder, name, content):
    (folder / name).write_text(json.dumps(content))


def test_a_former_manifest_is_that_of_the_same_settings(tmp_path):
    write(tmp_path, "about.json", FORMER)
    with Store(tmp_path, CURRENT) as store:
        store.lines("records").add([{"key": "a"}])
    assert not (tmp_path / MANIFEST).exists()  # the folder stays as it is
    assert manifest_file(tmp_path).name == "about.json" and read_manifest(tmp_path) == CURRENT
    other = {**CURRENT, "settings": {**CURRENT["settings"], "seed": 1}}
    with pytest.raises(ValueError, match=r"settings\.seed: 0 there, 1 here"), Store(tmp_path, other):
        pass


def test_a_new_folder_has_a_manifest(tmp_path):
    with Store(tmp_path, CURRENT):
        pass
    assert json.loads((tmp_path / MANIFEST).read_text()) == CURRENT
    write(tmp_path, "about.json", {"else": 1})  # of something else: the manifest counts
    assert read_manifest(tmp_path) == CURRENT


def test_only_settings_are_renamed():
    manifest = {"sources": {"bar": 1}, "settings": {"bar": ["x"], "limits": {"bar": [0, 1]}}}
    assert with_current_names(manifest) == {
        "sources": {"bar": 1},
        "settings": {"exclude": ["x"], "limits": {"bar": [0, 1]}},
    }


def test_a_described_model_keeps_its_recorded_name():
    from nbg_lightning.construction import ChatModelConfig
    from nbg_lightning.construction.provenance import describe
    from nbg_lightning.engines import ServerEngine

    found = describe(ChatModelConfig(ServerEngine("http://127.0.0.1:1/v1", interface="chat")))
    assert found["class"] == "nbg_lightning.construction.writers.WriterConfig"
    assert found["engine"]["class"] == "nbg_lightning.rollout.server.ServerEngine"


def test_a_former_report(tmp_path):
    write(tmp_path, REPORT, {"became": {"kept": {"count": 1}}, "barred": {"x": 2}, "barred_tokens": 3, "rows": {}})
    assert read_report(tmp_path) == {
        "outcomes": {"kept": {"count": 1}},
        "excluded": {"x": 2},
        "excluded_tokens": 3,
        "rows": {},
    }


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "about.json").write_text("{")
    with pytest.raises(ValueError, match=r"about.json is invalid: not JSON .*; give another folder"):
        read_manifest(tmp_path)
    with pytest.raises(FileNotFoundError, match="run its build again, which was interrupted"):
        Table(tmp_path)
    (tmp_path / REPORT).write_text("{")
    with pytest.raises(ValueError, match=r"report.json is invalid: not JSON .*; build the folder again"):
        read_report(tmp_path)
