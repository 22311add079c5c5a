"""Names of earlier versions: asking for one is an error of one line that says the name of today.

A module or class keeps no alias: two names for one thing would have to be explained for ever.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from importlib.abc import MetaPathFinder
from typing import Any


def _of(old: str, new: str, names: str) -> dict[str, str]:
    return {f"{old}.{name}": f"{new}.{name}" for name in names.split()}


MODULES: Mapping[str, str] = {
    "chat.testing": "testing.conversations",
    "construction.progress": "data.progress",
    "construction.writers": "construction.workflow",
    **_of(
        "construction",
        "construction.filtering",
        "annotate columns contamination corpus deduplicate documents embedding features hashing perplexity retrieval rubric "
        "selection selection_report signals table tagger",
    ),
    **_of("construction", "construction.problems", "calls given_code mutants"),
    **_of("construction", "construction.solutions", "chains checklist conversation_rows reconstruction refinement"),
    "data.batch": "core.batch",
    "data.miniature": "testing.miniature",
    "data.rollout_batch": "rl.rollout_batch",
    "data.sums": "testing.sums",
    "data.worker_process": "worker_process",
    "evaluation.fingerprint": "core.fingerprint",
    "evaluation.scorers": "scoring.verdicts",
    "evaluation.testing": "testing.benchmarks",
    "evaluation.world": "distributed",
    "messages": "log",
    "metrics": "modules.metrics",
    "modules.learning_rate": "callbacks.learning_rate",
    "rewards.import_path": "import_path",
    "rewards.isolation": "scoring.sandbox.isolation",
    "rewards.sandbox": "scoring.sandbox.sandbox",
    "rewards.seccomp": "scoring.sandbox.seccomp",
    **_of("rewards", "scoring", "checker_process frames pool processors symbolic symbolic_child verifier worker"),
    "rollout": "engines",
    **_of("rollout", "engines", "chat local native protocol sample server stop_strings supervised vllm weights"),
    **_of("rollout", "rl", "metrics pass_rate rollouts"),
    "schedule_report": "schedule.plan",
    "schedules": "schedule.curriculum",
    "testing_damage": "testing.damage",
    "testing_grpo": "testing.grpo",
}
"""Modules and rooms, without `nbg_lightning.`: the name of before, the name of today."""

NAMES: Mapping[str, str] = {
    "construction.Chain": "construction.StepPipeline",
    "construction.Chains": "construction.ChainCompletionBuilder",
    "construction.Counts": "construction.OutcomeCounts",
    "construction.Interview": "construction.RequestScheduler",
    "construction.Problems": "construction.ProblemBuilder",
    "construction.Reconstruction": "construction.ReconstructionBuilder",
    "construction.Refinement": "construction.RefinementBuilder",
    "construction.Step": "construction.DocumentStep",
    "construction.WriterConfig": "construction.ChatModelConfig",
    **_of("data", "core", "PackedBatch"),
    **_of("data", "testing", "FunctionChat FunctionQuestions JudgementChat StyledChat SumChat SumFacts SumQuestions"),
    "engines.Writer": "engines.ChatModel",
    **_of("evaluation", "core", "weights_fingerprint"),
    **_of("rewards", "scoring", "VerifierPool"),
}
"""Public names that changed their room or their word, without `nbg_lightning.`."""

CLASSES: Mapping[str, str] = {"construction.writers.WriterConfig": "construction.chat_models.ChatModelConfig"}
"""Classes that files record and that have another word since, by module."""

ARGUMENTS: Mapping[str, Mapping[str, str]] = {"MathReward": {"last_resort": "sympy_fallback"}}
"""Arguments of classes that have another word since: configs are read under both, files record the first."""

_KNOWN = {  # made once: every import of the library asks
    **MODULES,
    **NAMES,
    **CLASSES,
    **_of("rollout", "rl", "PassRateBand PassRateFilter PassRateLedger Rollout score_rollouts"),
}


def new_name(old: str) -> str | None:
    """The name of today for a whole name of before; None for a name that was never another.

    >>> new_name("nbg_lightning.rollout.NativeEngine"), new_name("nbg_lightning.data.StyledChat")
    ('nbg_lightning.engines.NativeEngine', 'nbg_lightning.testing.StyledChat')
    """
    package, _, name = old.partition(".")
    if package != __package__:
        return None
    head, rest = name, ""
    while head:
        if head in _KNOWN:
            return f"{package}.{_KNOWN[head]}{rest}"
        head, _, last = head.rpartition(".")
        rest = f".{last}{rest}"
    return None


def recorded_name(kind: type) -> str:
    """The whole name of a class as files record it: its first name, so that moving it changes no recorded identity.

    >>> from nbg_lightning.engines.native import NativeEngine
    >>> recorded_name(NativeEngine)
    'nbg_lightning.rollout.native.NativeEngine'
    """
    before = {f"{__package__}.{new}": f"{__package__}.{old}" for old, new in (*MODULES.items(), *CLASSES.items())}
    whole = f"{kind.__module__}.{kind.__qualname__}"
    return before.get(whole, f"{before.get(kind.__module__, kind.__module__)}.{kind.__qualname__}")


def with_current_arguments(config: Any) -> Any:
    """A config, as YAML has it, in which former arguments of classes have the names of today.

    >>> with_current_arguments({"class_path": "nbg_lightning.rewards.MathReward", "init_args": {"last_resort": True}})
    {'class_path': 'nbg_lightning.rewards.MathReward', 'init_args': {'sympy_fallback': True}}
    """
    return _renamed(config, ARGUMENTS)


def with_recorded_arguments(config: Any) -> Any:
    """A config with the names that files record, so that a renaming changes no recorded identity."""
    return _renamed(config, {kind: {new: old for old, new in names.items()} for kind, names in ARGUMENTS.items()})


def _renamed(config: Any, tables: Mapping[str, Mapping[str, str]]) -> Any:
    if isinstance(config, list):
        return [_renamed(each, tables) for each in config]
    if not isinstance(config, dict):
        return config
    found = {name: _renamed(value, tables) for name, value in config.items()}
    given = found.get("init_args")
    kind = str(found.get("class_path", ""))
    if isinstance(given, dict) and (not kind or "." not in kind or kind.startswith(f"{__package__}.")):
        # Where no class is named, the config is laid over another, which names it.
        names = (
            tables.get(kind.rpartition(".")[2], {}) if kind else {o: n for t in tables.values() for o, n in t.items()}
        )
        found["init_args"] = {names.get(name, name): value for name, value in given.items()}
    return found


class _MovedModules(MetaPathFinder):
    """Asked first: an installed earlier version beside this one must not answer in its place."""

    def find_spec(self, fullname: str, path: Iterable[str] | None, target: Any = None) -> None:
        if fullname == f"{__package__}.rollout":  # all its modules are asked for by it first
            names = f"{__package__}.engines, or {__package__}.rl for rollouts and pass rates"
            raise ModuleNotFoundError(f"{fullname} has a new name: {names}", name=fullname)
        if (new := new_name(fullname)) is not None:
            raise ModuleNotFoundError(f"{fullname} has a new name: {new}; write that", name=fullname)


def install() -> None:
    """Let imports of earlier names say the name of today; once a process."""
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, _MovedModules())
