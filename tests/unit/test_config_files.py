"""YAML files of users, and shipped ones."""

import gc
import json
import time

import pytest
import yaml

from nbg_lightning.config_files import config_file, parse_yaml, read_yaml, resolve_arguments, shipped
from nbg_lightning.suggestion import did_you_mean


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-1E+3", -1e3),
        (".5e2", 50.0),
        ("1.0e-6", 1e-6),
        ("12", 12),
        ("1e", "1e"),
        ("e4", "e4"),
        ("1e-4x", "1e-4x"),
    ],
)
def test_numbers_are_those_of_yaml_1_2(text, value):
    assert parse_yaml(f"lr: {text}", "f") == {"lr": value}


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\tx: 1", "!!python/object/apply:os.system [id]", "[" * 5000])
def test_what_is_not_yaml_is_named(text):
    with pytest.raises(ValueError, match=r"my\.yaml is not YAML"):
        parse_yaml(text, "my.yaml")


def test_aliases_without_end_or_measure_are_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    with pytest.raises(
        ValueError, match=r"f is invalid: its aliases .* stand for [\d,]+ values; write at most 1,000,000"
    ):
        parse_yaml("\n".join(lines), "f")
    with pytest.raises(ValueError, match="f is not YAML: brackets or blocks are nested too deeply; correct it there"):
        parse_yaml("a: &a [*a]", "f")
    assert parse_yaml("a: &a [1, 2]\nb: *a", "f") == {"a": [1, 2], "b": [1, 2]}


SIZES = {
    "a file of three megabytes": ("a:\n" + "- /data/part-000123.jsonl\n" * 115_000, "more than 2,000,000 characters"),
    "a text of three megabytes": (f"a: {'x' * 3_000_000}", "more than 2,000,000 characters"),
    "numbers": (f"a: [{'1,' * 900_000}1]", "more than 100,000 keys and values"),
    "keys": ("".join(f"k{index}: {index}\n" for index in range(100_000)), "more than 100,000 keys and values"),
    "lists in lists": ("- - - - - - - - a\n" * 100_000, "more than 100,000 keys and values"),
    "brackets": ("[" * 1_900_000, "nested too deeply"),
    "braces": ("{a: " * 400_000, "nested too deeply"),
    "dashes": ("- " * 900_000, "nested too deeply"),
    "question marks": ("? " * 900_000, "nested too deeply"),
    "closed brackets": ("[" * 300 + "]" * 300, "nested too deeply"),
}


def seconds_of(run):
    """Processor seconds of a function in this thread; what else the process holds is not searched for garbage meanwhile."""
    gc.freeze()
    try:
        begin = time.thread_time()
        run()
        return time.thread_time() - begin
    finally:
        gc.unfreeze()


@pytest.mark.parametrize(("text", "said"), SIZES.values(), ids=SIZES)
def test_what_is_too_large_or_too_deep_is_refused_at_once(tmp_path, text, said):
    (tmp_path / "a.yaml").write_text(text)

    def read():
        with pytest.raises(ValueError, match=rf"a\.yaml is .*{said}; (name files by|correct it)"):
            read_yaml(tmp_path / "a.yaml")

    assert seconds_of(read) < 0.5


def test_large_configs_are_read_in_half_a_second_and_faster_than_by_yaml_in_python():
    files = [f"/data/corpus/shard-{index:05d}-of-20000.parquet" for index in range(20_000)]
    text = "files:\n" + "".join(f"  - {each}\n" for each in files)
    assert parse_yaml(text, "f") == {"files": files}
    assert parse_yaml("[" * 100 + "]" * 100, "f")
    own, in_python = (
        min(seconds_of(read) for _ in range(2))  # the faster one: the other may have met a busy machine
        for read in (lambda: parse_yaml(text, "f"), lambda: yaml.load(text, yaml.SafeLoader))
    )
    assert own < min(0.5, in_python / 2)


def test_the_line_of_a_mistake_is_shown():
    with pytest.raises(ValueError, match=r"in line 2, column 5: b: c: d; correct it there"):
        parse_yaml("a: 1\nb: c: d", "f")
    with pytest.raises(ValueError, match=r"in line 2, column 1: b: 1; indent by spaces"):
        parse_yaml("a:\n\tb: 1", "f")


def test_bytes_that_are_no_text_are_named(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_yaml(tmp_path / "a.yaml")


def test_shipped_configs_resolve_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_yaml("configs/benchmark/small.yaml")["data"]
    assert resolve_arguments(["fit", "--config", "configs/sft/tiny.yaml"])[2].endswith("sft/tiny.yaml")
    assert resolve_arguments(["fit", "--config=configs/sft/tiny.yaml"])[1] != "--config=configs/sft/tiny.yaml"
    assert shipped("configs/none.yaml") == "configs/none.yaml"


def test_shipped_configs_have_short_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = shipped("configs/sft/tiny.yaml")
    for name in ("sft/tiny", "sft/tiny.yaml", "configs/sft/tiny"):
        assert resolve_arguments(["fit", f"--config={name}", "--config", name]) == [
            "fit",
            f"--config={whole}",
            "--config",
            whole,
        ]
        assert read_yaml(name)["data"]
    assert resolve_arguments(["fit", "--trainer.default_root_dir", "sft/tiny"])[2] == "sft/tiny"
    assert resolve_arguments(["fit", "--config", "a: sft"])[2] == "a: sft"
    with pytest.raises(FileNotFoundError, match=r"no config sft/tini \(did you mean configs/sft/tiny.yaml"):
        config_file("sft/tini")
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft" / "tiny.yaml").write_text("mine: 1")
    assert read_yaml("sft/tiny.yaml") == {"mine": 1}


def test_a_config_of_the_user_comes_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs" / "sft").mkdir(parents=True)
    (tmp_path / "configs" / "sft" / "tiny.yaml").write_text("mine: 1")
    assert read_yaml("configs/sft/tiny.yaml") == {"mine": 1}


def test_a_missing_config_is_refused_with_the_one_that_was_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"did you mean configs/sft/tiny\.yaml"):
        resolve_arguments(["fit", "--config", "configs/sft/tini.yaml"])
    (tmp_path / "train.yaml").write_text("a: 1")
    with pytest.raises(FileNotFoundError, match=r"did you mean train\.yaml"):
        config_file("trian.yaml")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        config_file(tmp_path)


def test_json_with_characters_beyond_16_bits_is_a_config():
    value = {"name": "\U0001f600 \U0001d54f", "literal": r"\ud83d\ude00"}
    assert parse_yaml(json.dumps(value), "c.yaml") == value
    assert parse_yaml(r"a: \ud83d\ude00", "c.yaml") == {"a": r"\ud83d\ude00"}
    with pytest.raises(ValueError, match=r"c\.yaml is not YAML"):
        parse_yaml(r'{"half": "\ud83d"}', "c.yaml")


def test_suggestions():
    assert did_you_mean("fti", ["fit", "test"]) == " (did you mean fit?)"
    assert did_you_mean("chatdatamodule", ["ChatDataModule"]) == " (did you mean ChatDataModule?)"
    assert did_you_mean("zzz", ["fit"]) == ""
