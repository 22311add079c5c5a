"""`nbg completion bash|zsh`: a script with which a shell completes commands, options and shipped configs."""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path

from nbg_lightning.commands.init import JOBS
from nbg_lightning.commands.parser import CommandParser
from nbg_lightning.commands.table import OWN_COMMANDS, TRAINER_COMMANDS

SHELLS = ("bash", "zsh")
_TRAINER_OPTIONS = (
    *("--config", "--seed", "--model", "--data", "--trainer", "--ckpt_path", "--print_config", "--help"),
    *("--trainer.max_steps", "--trainer.devices", "--trainer.default_root_dir", "--trainer.callbacks+"),
    *("--model.base_weights", "--model.optimizer.lr", "--data.sources", "--data.tokenizer"),
)
_WORDS = {"init": tuple(JOBS), "completion": SHELLS, "data": ("preview",)}  # that stand after a command
_BASH = """\
# Completion of nbg for bash (and for zsh through bashcompinit).
#   now:      eval "$(nbg completion {shell})"
#   always:   put that line into ~/.{shell}rc
_nbg() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{commands} --help --version" -- "$word")); return
    fi
    if [ "$before" = "--config" ]; then
        COMPREPLY=($(compgen -W "{configs}" -- "$word") $(compgen -f -- "$word")); return
    fi
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    case "$word" in
        -*) ;;
        *) COMPREPLY+=($(compgen -f -- "$word")) ;;
    esac
}}
complete -o filenames -F _nbg nbg
"""


def main(argv: list[str]) -> int:
    """Print the script."""
    print(script(parser().parse_args(argv).shell), end="")
    return 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = CommandParser(
        prog="nbg completion", description='Shell completion: put eval "$(nbg completion bash)" into ~/.bashrc.'
    )
    made.add_argument("shell", choices=SHELLS, help="bash or zsh")
    return made


def script(shell: str) -> str:
    """The script for a shell.

    Args:
        shell: one of `SHELLS`.
    """
    names = [*TRAINER_COMMANDS, *OWN_COMMANDS]
    cases = [f'        {name}) words="{" ".join((*_WORDS.get(name, ()), *options_of(name)))}" ;;' for name in names]
    root = Path(str(files("nbg_lightning.configs")))
    configs = sorted(f"configs/{path.relative_to(root).as_posix()}" for path in root.rglob("*.yaml"))
    text = _BASH.format(shell=shell, commands=" ".join(names), configs=" ".join(configs), cases="\n".join(cases))
    return f"autoload -Uz compinit bashcompinit; compinit -u; bashcompinit\n{text}" if shell == "zsh" else text


def options_of(name: str) -> tuple[str, ...]:
    """The options of a command; of a builder and of a training those that all have, since others are keys of its config."""
    import importlib

    if name in TRAINER_COMMANDS:
        return _TRAINER_OPTIONS
    module = OWN_COMMANDS[name][0]
    if module.startswith("builder:"):
        return ("--config", "--help")
    found = importlib.import_module(f"nbg_lightning.commands.{module}")
    if not callable(make := vars(found).get("parser")):
        return ("--help",)
    return tuple(option for action in make()._actions for option in action.option_strings)
