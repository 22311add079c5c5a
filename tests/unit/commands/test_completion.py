"""Shell completion, tested in a real bash."""

import subprocess

import pytest

from nbg_lightning.commands.completion import script
from nbg_lightning.commands.table import OWN_COMMANDS, TRAINER_COMMANDS


@pytest.fixture(scope="module")
def completed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    (folder / "nbg.sh").write_text(script("bash"))
    (folder / "mine.yaml").write_text("")

    def ask(*words):
        quoted = " ".join(f"'{word}'" for word in words)
        code = f"source ./nbg.sh; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _nbg; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        return subprocess.run(
            ["bash", "-c", code], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.split()

    return ask


def test_commands(completed):
    assert set(completed("nbg", "")) == {*TRAINER_COMMANDS, *OWN_COMMANDS, "--help", "--version"}
    assert completed("nbg", "gen") == ["generate"]


def test_options_and_words(completed):
    assert completed("nbg", "chat", "--show") == ["--show-thinking"]
    assert completed("nbg", "init", "s") == ["sft"]
    assert completed("nbg", "fit", "--trainer.max") == ["--trainer.max_steps"]
    assert completed("nbg", "recipe", "--dry") == ["--dry-run"]
    assert completed("nbg", "data", "preview", "--sa") == ["--samples"]


def test_configs_and_files(completed):
    assert "configs/sft/tiny.yaml" in completed("nbg", "fit", "--config", "configs/sft/t")
    assert completed("nbg", "fit", "--config", "mi") == ["mine.yaml"]
    assert completed("nbg", "export", "mi") == ["mine.yaml"]


def test_zsh_uses_it_through_bashcompinit():
    assert script("zsh").startswith("autoload -Uz compinit bashcompinit")
