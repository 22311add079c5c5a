"""All commands of `nbg`, with what each of them is for."""

from __future__ import annotations

import importlib
from typing import Any

from nbg_lightning.trainer_options import TRAINER_COMMANDS as TRAINER_COMMANDS

OWN_COMMANDS = {  # name: (module under nbg_lightning.commands, with the builder's class path; summary)
    "build-annotations": (
        "builder:filtering.builders.AnnotationBuilder",
        "score a sample of a corpus by a strong model and a rubric, for a tagger to learn from",
    ),
    "build-answers": (
        "builder:pairs.best_answers.AnswerBuilder",
        "rejection sampling: the best right answers of a model to each question, as conversations for SFT",
    ),
    "build-cache": (
        "build_cache",
        "compute the log-probabilities of teacher and reference for all pairs once, and keep them on disk",
    ),
    "build-chains": (
        "builder:solutions.chains.ChainCompletionBuilder",
        "conversations that train a chain-completion model, from conversations with thinking",
    ),
    "build-comparisons": (
        "builder:pairs.comparisons.ComparisonBuilder",
        "pairs to conversations that train a judge to say which of two answers is better, in both orders, with ties",
    ),
    "build-corpus": (
        "builder:filtering.builders.CorpusBuilder",
        "make a corpus of sources: count and remove unusable documents, duplicates and benchmark items; add signals",
    ),
    "build-pairs": (
        "builder:pairs.builder.PairBuilder",
        "preference pairs: a teacher's good answers beside the student's bad ones, scored and filtered",
    ),
    "build-problems": (
        "builder:problems.builder.ProblemBuilder",
        "coding problems with public and private tests, backwards from programs, measured by mutants",
    ),
    "build-reasoning": (
        "builder:solutions.reconstruction.ReconstructionBuilder",
        "chains of thought that lead to refined solutions, checked: SFT conversations with thinking",
    ),
    "build-recall": (
        "builder:filtering.builders.RecallBuilder",
        "find documents of a corpus similar to seed documents, by BM25 and vectors, within bounds of trust and quality",
    ),
    "build-refinements": (
        "builder:solutions.refinement.RefinementBuilder",
        "refined solutions to instructions: drafts, checklist, evaluators, rewriter, in a loop",
    ),
    "build-selection": (
        "builder:filtering.builders.SelectionBuilder",
        "from scores to HQ and MQ pools, with a report of histograms and samples, and the YAML that trains on them",
    ),
    "build-tagger": (
        "builder:filtering.builders.TaggerBuilder",
        "train a small model of an annotator's scores, which tags megabytes a second on a core; report its rank correlations",
    ),
    "build-tags": (
        "builder:filtering.builders.TagBuilder",
        "the tagger's scores of every document of a corpus, and what a given model's perplexity says",
    ),
    "build-trajectories": (
        "builder:pairs.trajectories.TrajectoryBuilder",
        "rejection sampling of episodes in an environment: the best of each question, as conversations for SFT",
    ),
    "chat": (
        "chat",
        "chat MODEL ...: talk to a checkpoint, a run, a Hugging Face folder or a server; several side by side",
    ),
    "compare": ("compare", "compare A B: two results of a benchmark suite, item by item, with intervals"),
    "completion": ("completion", "completion bash|zsh: what a shell needs to complete commands and options"),
    "data": ("data_preview", "data preview: the first conversations, with their trained tokens in colour"),
    "doctor": ("doctor", "doctor [FOLDER]: whether this machine has what runs need, and what to type where it has not"),
    "export": (
        "export_weights",
        "a checkpoint as a Hugging Face folder, compared with transformers before it is called done",
    ),
    "generate": ("generate", "generate MODEL PROMPT ...: answers to prompts from arguments, standard input or a file"),
    "import": ("import_weights", "a Llama-family model from a Hugging Face folder or the hub, checked and normalized"),
    "init": ("init", "init JOB [FOLDER]: a config with comments, a small data file, and the commands to type"),
    "merge": ("merge", "merge CKPT ... --out OUT: the average of checkpoints, read one group of tensors at a time"),
    "pass-rate": ("pass_rate", "how often the model solves each question of a GRPO stage, before it"),
    "plan": (
        "plan",
        "plan CONFIG: memory, time and traffic of a config or recipe on a number of GPUs, before they are paid for",
    ),
    "prepare": (
        "prepare",
        "prepare CONFIG: tokenize a config's sources before the run, also by many machines (--part i/N) or on Ray",
    ),
    "recipe": ("recipe", "recipe FILE: all stages in one go, skipping what is done, with a report at the end"),
    "runs": ("runs", "runs [FOLDER]: the runs in a folder: state, step, last losses, benchmarks, size"),
    "schedule": ("schedule", "table and picture of a run's curriculum; --verify proves which samples a checkpoint saw"),
    "schema": ("schema", "schema [COMMAND]: the JSON schema of a command's configs, for editors"),
    "view": (
        "view",
        "view PATH [PATH2]: rollouts, benchmark items, pairs, conversations or pass rates as a page, offline",
    ),
}


def own_command(name: str) -> Any:
    """A command of the library, with ``main(argv)`` that runs it and, where it is parsed before, ``parser()``."""
    module, _, builder = OWN_COMMANDS[name][0].partition(":")
    found = importlib.import_module(f"nbg_lightning.commands.{module}")
    return found.BuilderCommand(builder) if builder else found
