"""Errors about options and arguments: one line, with a suggestion."""

import pytest

from nbg_lightning.cli import main

CASES = {
    "fit with a config alone": (["fit", "c.yaml"], "give a config as: nbg fit --config c.yaml"),
    "fit with two": (["fit", "a.yaml", "b.yml"], "give a config as: nbg fit --config a.yaml --config b.yml"),
    "fit with a folder": (["fit", "runs"], "give a config as: nbg fit --config FILE"),
    "fit with an option of another spelling": (["fit", "--confg", "c.yaml"], "did you mean --config?"),
    "fit with a dash in place of a line": (["fit", "--ckpt-path", "x"], "did you mean --ckpt_path?"),
    "fit with a class misspelt": (
        ["fit", "--model", "SftModul"],
        "there is no class SftModul (did you mean SFTModule?)",
    ),
    "a builder with a config alone": (["build-corpus", "c.yaml"], "give a config as: nbg build-corpus --config c.yaml"),
    "pairs with a config alone": (["build-pairs", "c.yaml"], "nbg build-pairs --config c.yaml"),
    "a builder's misspelt option": (["build-tags", "--confg", "c.yaml"], "did you mean --config?"),
    "a misspelt option": (["schedule", "c.yaml", "--pgn", "x.png"], "--pgn x.png (did you mean --png?)"),
    "no config": (["schedule"], "arguments are required: config (nbg schedule --help"),
    "no subcommand": (["data", "c.yaml"], "invalid choice: 'c.yaml'"),
    "no number": (
        ["data", "preview", "c.yaml", "--samples", "x"],
        "--samples: invalid int value: 'x' (nbg data preview --help",
    ),
    "no such config": (["data", "preview", "--config", "none.yaml"], "there is no config none.yaml"),
    "too many": (["export", "a", "b", "c"], "unrecognized arguments: c (nbg export --help"),
    "too few": (["compare", "a"], "arguments are required: B"),
    "no recipe": (["recipe", "--only", "x"], "arguments are required: FILE"),
    "no questions": (["pass-rate", "--config"], "arguments are required: config"),
    "no caches": (["build-cache", "c.yaml", "-k", "many"], "argument -k: invalid int value"),
    "no such option": (["import", "a", "b", "--nope"], "unrecognized arguments: --nope"),
}


@pytest.mark.parametrize("name", CASES)
def test_one_line_says_how_it_was_meant(capfd, tmp_path, monkeypatch, name):
    arguments, said = CASES[name]
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"nbg {arguments[0]}: error: ") and said in lines[0]


@pytest.mark.parametrize("given", [["c.yaml"], ["--config", "c.yaml"], ["--config=c.yaml"]])
def test_a_config_stands_alone_or_with_its_option(capfd, tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("trainer: {}\n")
    assert main(["schedule", *given]) == 2
    assert "trainer.callbacks is invalid: it has no FGWSD" in capfd.readouterr().err


def test_a_shipped_recipe_is_checked_from_any_folder(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["recipe", "--config", "configs/recipe/quickstart.yaml", "--dry-run"]) == 0
    assert "teacher-pretrain: to run" in capfd.readouterr().out


def test_options_may_stand_between_arguments():
    from nbg_lightning.commands import generate

    found = generate.parser().parse_args(["runs/sft", "--max-new-tokens", "4", "2 + 3?", "--json", "and 4?"])
    assert (found.model, found.prompts, found.max_new_tokens, found.json) == ("runs/sft", ["2 + 3?", "and 4?"], 4, True)
