"""All commands of `nbg`, with what each of them is for."""

from __future__ import annotations

import importlib
from typing import Any

from nbg_lightning.trainer_options import TRAINER_COMMANDS as TRAINER_COMMANDS

OWN_COMMANDS = {  # name: (module under nbg_lightning.commands, with the builder's class path; summary)
    "build-annotations": (
        "builder:filtering.builders.AnnotationBuilder",
        "score a sample of a corpus with a strong model and a rubric: training data for build-tagger",
    ),
    "build-answers": (
        "builder:pairs.best_answers.AnswerBuilder",
        "rejection sampling: keep a model's best correct answers to each question as SFT conversations",
    ),
    "build-cache": (
        "build_cache",
        "precompute teacher and reference log-probabilities of all pairs, for nbg fit to read from disk",
    ),
    "build-chains": (
        "builder:solutions.chains.ChainCompletionBuilder",
        "turn conversations with thinking into training data for a chain-completion model",
    ),
    "build-comparisons": (
        "builder:pairs.comparisons.ComparisonBuilder",
        "turn pairs into conversations that train a pairwise judge (both orders, with ties)",
    ),
    "build-corpus": (
        "builder:filtering.builders.CorpusBuilder",
        "merge sources into a corpus: drop unusable documents, duplicates and benchmark items; add quality signals",
    ),
    "build-pairs": (
        "builder:pairs.builder.PairBuilder",
        "preference pairs: a teacher's good answers against the student's bad ones, scored and filtered",
    ),
    "build-problems": (
        "builder:problems.builder.ProblemBuilder",
        "coding problems with public and private tests, written backwards from programs, checked by mutation testing",
    ),
    "build-reasoning": (
        "builder:solutions.reconstruction.ReconstructionBuilder",
        "chains of thought that lead to refined solutions, checked: SFT conversations with thinking",
    ),
    "build-recall": (
        "builder:filtering.builders.RecallBuilder",
        "score documents by similarity to seed documents (BM25 and vectors), bounded by source trust and quality",
    ),
    "build-refinements": (
        "builder:solutions.refinement.RefinementBuilder",
        "refine solutions to instructions in a loop: drafts, checklist, evaluators, reviser",
    ),
    "build-selection": (
        "builder:filtering.builders.SelectionBuilder",
        "select HQ and MQ pools by score; writes a report and the YAML that trains on the pools",
    ),
    "build-tagger": (
        "builder:filtering.builders.TaggerBuilder",
        "train a small, fast quality tagger on the annotations; reports its rank correlations",
    ),
    "build-tags": (
        "builder:filtering.builders.TagBuilder",
        "tag every document of a corpus: quality scores by the tagger, perplexity under a model",
    ),
    "build-trajectories": (
        "builder:pairs.trajectories.TrajectoryBuilder",
        "rejection sampling of episodes in an environment: keep the best as SFT conversations",
    ),
    "chat": ("chat", "chat with a checkpoint, run folder, Hugging Face model or server; several side by side"),
    "compare": ("compare", "compare two benchmark results item by item, with confidence intervals"),
    "completion": ("completion", 'print a shell completion script: eval "$(nbg completion bash)"'),
    "data": ("data_preview", "nbg data preview CONFIG: print the first training samples, trained tokens in colour"),
    "doctor": ("doctor", "check this machine: packages, GPUs, sandbox, disk; says how to fix what is missing"),
    "export": ("export_weights", "convert a checkpoint to a Hugging Face folder, verified against transformers"),
    "generate": ("generate", "generate answers to prompts from arguments, standard input or a file"),
    "import": (
        "import_weights",
        "convert a Llama-family Hugging Face model or peft adapter, verified against transformers",
    ),
    "init": ("init", "start a project: a commented config, a small data file, and the commands to run"),
    "merge": ("merge", "average checkpoints of a run into a Hugging Face folder"),
    "pass-rate": (
        "pass_rate",
        "measure how often a model solves each question, to filter the questions of a GRPO stage",
    ),
    "plan": ("plan", "predict memory, time and traffic of a config or recipe on a given number of GPUs"),
    "prepare": ("prepare", "tokenize a config's data ahead of the run, on one machine, on many, or on Ray"),
    "recipe": ("recipe", "run all stages of a recipe, skipping finished ones; ends with an HTML report"),
    "runs": ("runs", "list runs: state, step, latest losses, benchmark results, size"),
    "schedule": (
        "schedule",
        "print and draw a config's curriculum; --verify proves which samples a checkpoint has seen",
    ),
    "schema": ("schema", "print the JSON schema of configs, for editors"),
    "view": ("view", "write an offline HTML page of rollouts, benchmark items, pairs, conversations or pass rates"),
}


GROUPS = {  # as `nbg --help` lists them
    "start": ("init", "doctor", "completion", "schema"),
    "train and evaluate": ("fit", "validate", "test", "predict", "recipe"),
    "before a run": ("data", "schedule", "plan", "prepare", "pass-rate"),
    "look at results": ("runs", "view", "compare", "chat", "generate"),
    "models": ("export", "import", "merge"),
    "build data": tuple(name for name in OWN_COMMANDS if name.startswith("build-")),
}


def own_command(name: str) -> Any:
    """A command of the library, with ``main(argv)`` that runs it and, where it is parsed before, ``parser()``."""
    module, _, builder = OWN_COMMANDS[name][0].partition(":")
    found = importlib.import_module(f"nbg_lightning.commands.{module}")
    return found.BuilderCommand(builder) if builder else found
