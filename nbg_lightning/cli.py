"""`nbg`: Lightning's fit, validate, test and predict on YAML, and the library's own commands.

`nbg --help` and a command's own work import no more than they need: torch takes seconds.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from nbg_lightning import stopping
from nbg_lightning.config_files import resolve_arguments
from nbg_lightning.error_line import is_mendable, one_line
from nbg_lightning.suggestion import did_you_mean

TRAINER_COMMANDS = {
    "fit": "train by a YAML file: nbg fit --config configs/pretrain/quickstart.yaml",
    "validate": "validation loss of a checkpoint: nbg validate --config ... --ckpt_path ...",
    "test": "the same through trainer.test, or benchmarks: nbg test --config configs/benchmark/small.yaml",
    "predict": "the loss of every token: nbg predict --config ... --ckpt_path ...",
}
OWN_COMMANDS = {  # name: (module under nbg_lightning.commands, summary)
    "build-annotations": (
        "build_annotations",
        "scores of a sample of a corpus by a strong model and a rubric: what a tagger learns from",
    ),
    "build-cache": (
        "build_cache",
        "build-cache CONFIG: a teacher's and the reference's numbers of all pairs, once, on disk",
    ),
    "build-chains": (
        "build_chains",
        "conversations that train a chain-completion model, from conversations with thinking",
    ),
    "build-corpus": (
        "build_corpus",
        "sources to a corpus: unusable documents, duplicates and benchmark items counted and taken out, signals added",
    ),
    "build-pairs": (
        "build_pairs",
        "preference pairs: a teacher's good answers beside the student's bad ones, scored and filtered",
    ),
    "build-problems": (
        "build_problems",
        "coding problems with public and private tests, backwards from programs, measured by mutants",
    ),
    "build-reasoning": (
        "build_reasoning",
        "chains of thought that lead to refined solutions, checked: SFT conversations with thinking",
    ),
    "build-recall": (
        "build_recall",
        "documents of a corpus that are like seed documents, by BM25 and vectors, bounded by trust and quality",
    ),
    "build-refinements": (
        "build_refinements",
        "refined solutions to instructions: drafts, checklist, evaluators, rewriter, in a loop",
    ),
    "build-selection": (
        "build_selection",
        "from scores to HQ and MQ pools, with a report of histograms and samples, and the YAML that trains on them",
    ),
    "build-tagger": (
        "build_tagger",
        "a small model of an annotator's scores that tags megabytes a second on a core, with its rank correlations",
    ),
    "build-tags": (
        "build_tags",
        "the tagger's scores of every document of a corpus, and what a given model's perplexity says",
    ),
    "compare": ("compare", "compare A B: two results of a benchmark suite, item by item, with intervals"),
    "data": ("data_preview", "data preview CONFIG: the first conversations, with their trained tokens in colour"),
    "export": (
        "export_weights",
        "a checkpoint as a Hugging Face folder, compared with transformers before it is called done",
    ),
    "import": ("import_weights", "a Llama-family model from a Hugging Face folder or the hub, checked and normalized"),
    "pass-rate": ("pass_rate", "pass-rate CONFIG: how often the model solves each question of a GRPO stage, before it"),
    "recipe": ("recipe", "recipe FILE: all stages in one go, skipping what is done, with a report at the end"),
    "schedule": ("schedule", "table and picture of a run's curriculum; --verify proves which samples a checkpoint saw"),
}

_KEPT = {  # what a stopped command says of its work; training says where its checkpoint is
    "pass-rate": "finished questions are kept, and the same command goes on",
    "recipe": "finished steps are kept, and the same command goes on",
}
_KEPT_BY_BUILDERS = "what is finished is kept, and the same command goes on"
_KEPT_BY_OTHERS = "the same command begins again"


def _help() -> str:
    lines = ["usage: nbg COMMAND ...", "", "Pretrain and post-train language models by YAML (docs: README.md).", ""]
    rows = TRAINER_COMMANDS | {name: summary for name, (_, summary) in OWN_COMMANDS.items()}
    width = max(map(len, rows))
    lines += [f"  {name:<{width}} {summary}" for name, summary in rows.items()]
    lines += ["", "nbg COMMAND --help says more. Add --debug to see a whole traceback."]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors that a user can mend are one line and exit code 2."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in argv
    argv = [argument for argument in argv if argument != "--debug"]
    if not argv or argv[0] in ("-h", "--help"):
        print(_help())
        return 0
    if argv[0] == "--version":
        from nbg_lightning import __version__

        print(f"nbg_lightning {__version__}")
        return 0
    command = argv[0]
    if command not in TRAINER_COMMANDS and command not in OWN_COMMANDS:
        known = [*TRAINER_COMMANDS, *OWN_COMMANDS]
        meant = did_you_mean(command, known)
        print(f"nbg: error: no command {command!r}{meant}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    if os.getcwd() not in sys.path:  # a config may name a class or function of a file here; installed ones come first
        sys.path.append(os.getcwd())
    with stopping.handling(f"nbg {command}", owns_process=arguments is None) as signals:
        signals.kept = lambda: _KEPT.get(
            command, _KEPT_BY_BUILDERS if command.startswith("build-") else _KEPT_BY_OTHERS
        )
        if stopping.is_launched():
            stopping.die_with(os.getppid())
        code = _run(command, argv, debug, signals)
    return (
        0 if code > 128 and stopping.is_launched() else code
    )  # Lightning kills a rank that has started one that failed


def _run(command: str, argv: list[str], debug: bool, signals: stopping.StopHandler) -> int:
    try:
        argv = resolve_arguments(argv)  # a missing config is answered before anything heavy is imported
        if command in TRAINER_COMMANDS:
            from nbg_lightning.commands.trainer import main as run

            signals.phase = "working"
            return run(argv)
        from nbg_lightning.quiet import quiet_libraries

        quiet_libraries()
        module = importlib.import_module(f"nbg_lightning.commands.{OWN_COMMANDS[command][0]}")
        signals.phase = "working"
        return module.main(argv[1:])
    except stopping.Stopped as stop:
        stopping.say(signals.line())
        return 128 + stop.signal
    except KeyboardInterrupt:
        print(f"nbg {command}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if debug or not (is_mendable(error) or signals.received):
            raise
        if signals.received and not is_mendable(error):  # another rank or a worker has left, which got the signal too
            stopping.say(signals.line())
            return 128 + signals.received
        print(f"nbg {command}: error: {one_line(str(error))}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
