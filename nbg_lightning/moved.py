"""Names of earlier versions: using one is a one-line error that gives the current name.

Modules and classes keep no aliases, since two names for one thing would have to be explained forever.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any


def _of(old: str, new: str, names: str) -> dict[str, str]:
    return {f"{old}.{name}": f"{new}.{name}" for name in names.split()}


def _in(module: str, names: str) -> dict[str, str]:
    """Names that are others in the same module: ``Old=New``."""
    return {f"{module}.{old}": f"{module}.{new}" for old, _, new in (pair.partition("=") for pair in names.split())}


_BUILDERS = "annotations chains corpus pairs problems reasoning recall refinements selection tagger tags"

MODULES: Mapping[str, str] = {
    "chat.testing": "testing.conversations",
    **{f"commands.build_{what}": "commands.builder" for what in _BUILDERS.split()},
    "construction.extra": "extra",
    "construction.jobs": "jobs",
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
    "recipe.check": "commands.recipe_check",
    "rewards.isolation": "scoring.sandbox.isolation",
    "rewards.sandbox": "scoring.sandbox.sandbox",
    "rewards.sandbox_child": "scoring.sandbox.child",
    "rewards.seccomp": "scoring.sandbox.seccomp",
    **_of("rewards", "scoring", "checker_process frames pool processors symbolic symbolic_child verifier worker"),
    "rollout": "engines",
    **_of("rollout", "engines", "chat local native protocol sample server stop_strings supervised vllm weights"),
    **_of("rollout", "rl", "metrics pass_rate rollouts"),
    "schedule_report": "schedule.plan",
    "schedules": "schedule.curriculum",
    **_of(
        "scoring",
        "scoring.mathematics",
        "algebra compare cursor expressions limits quantities reader tokens unit_table units values",
    ),
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

IN_MODULES: Mapping[str, str] = {
    **_in("callbacks.sentinel", "Rule=SentinelRule"),
    **_in("chat.encoder", "TextEncoder=SegmentEncoder"),
    **_of("construction.builder", "construction.outcomes", "dropped"),
    **_of("construction.builder", "construction.prompt_templates", "check_template conversation_text"),
    "construction.builder.filled": "construction.prompt_templates.fill_template",
    "construction.builder.Item": "construction.workflow_builder.WorkflowItem",
    **_of("construction.builder", "construction.workflow_builder", "ITEMS_PER_BATCH"),
    **_in("construction.filtering.documents", "MENDED=FIXED"),
    **_of("construction.filtering.retrieval", "construction.filtering.fusion", "fused_relevance"),
    **_of("construction.filtering.selection", "construction.filtering.pools", "PoolSize"),
    **_in("construction.filtering.signals", "Rule=FilterRule"),
    **_of("construction.problems", "construction.problems.prompts", "PROGRAM CALLS TEXT TASK"),
    "construction.problems.Problems": "construction.problems.builder.ProblemBuilder",
    **_in("construction.problems.calls", "Outcome=CallOutcome"),
    **_in("construction.solutions.chains", "Chains=ChainCompletionBuilder"),
    **_in("construction.solutions.reconstruction", "Reconstruction=ReconstructionBuilder"),
    **_in("construction.solutions.refinement", "Refinement=RefinementBuilder"),
    **_in("construction.step", "Chain=StepPipeline Row=DocumentRow Step=DocumentStep"),
    **_in("construction.store", "Record=JsonRecord"),
    "construction.store.Counts": "construction.outcomes.OutcomeCounts",
    **_in("construction.workflow", "Ask=ModelRequest Reply=ModelResponse Script=Workflow"),
    "construction.workflow.Interview": "construction.scheduler.RequestScheduler",
    "construction.workflow.WriterConfig": "construction.chat_models.ChatModelConfig",
    **_in("data.durable", "write_whole=write_atomic"),
    **_of("datamodules.chat", "datamodules.rendered", "ValidationWindows dropped"),
    **_of("datamodules.ordered", "datamodules.steps", "StepSampler"),
    **_of("datamodules.prompts", "datamodules.questions", "QuestionBatch StepQuestions"),
    "distributed.World": "distributed.gather_objects",
    **_in("engines.chat", "Writer=ChatModel"),
    "engines.protocol.first_line": "error_line.first_line",
    **_in("error_line", "is_mendable=is_user_error"),
    "evaluation.benchmark.Message": "chat.conversation.Message",
    **_in("evaluation.compare", "Comparison=MetricComparison"),
    **_in("evaluation.live", "undisturbed=evaluation_mode pushed=engine_with_weights"),
    **_of("evaluation.live", "engines.capabilities", "takes_weights"),
    **_in("evaluation.prompts", "Asked=RenderedPrompt"),
    "evaluation.statistics.bootstrap_interval": "evaluation.statistics.mean_interval",
    **_in("evaluation.tasks.bfcl", "find_calls=extract_calls"),
    "modules.dpd.Trained": "modules.answer_tokens.AnswerTokens",
    **_of("modules.grpo", "rl.policy_loss", "completion_statistics"),
    "rewards.code.find_program": "scoring.programs.extract_program",
    **_in("rewards.math", "find_in=extract_from"),
    **_in("rewards.preference", "Comparison=PairOutcome"),
    "rewards.protocol.Status": "scoring.result.Status",
    **_of("schedule.curriculum", "schedule.tokens", "format_tokens"),
    **_in("schedule.curriculum", "between=interpolate"),
    **_of("schedule.plan", "schedule.picture", "draw_plan"),
    **_of("schedule.plan", "schedule.table", "print_plan"),
    **_of("schedule.plan", "schedule.texts", "format_learning_rate"),
    **_in("scoring.letters", "find_letter=extract_letter"),
    **_in("scoring.places", "find_expression=extract_expression find_value=extract_value"),
    **_in("scoring.programs", "find_program=extract_program"),
    "scoring.sandbox.sandbox.Status": "scoring.result.Status",
    **_in("scoring.verdicts", "find_answer=extract_answer find_number=extract_number"),
    "scoring.verdicts.Status": "scoring.result.Status",
    "scoring.verdicts.find_expression": "scoring.places.extract_expression",
    **_of("teachers.cache", "teachers.cache_format", "CacheIdentity KEY_BYTES"),
    **_of("teachers.cache", "teachers.cache_writer", "CacheWriter"),
}
"""Names that left a module or have another word, by the module's name of today."""

_RENAMED_IN = {old.rpartition(".")[0] for old in IN_MODULES}

ARGUMENTS: Mapping[str, Mapping[str, str]] = {"MathReward": {"last_resort": "sympy_fallback"}}
"""Arguments of classes that have another word since: configs are read under both, files record the first."""

_KNOWN = {  # made once: every import of the library asks
    **MODULES,
    **NAMES,
    **CLASSES,
    **IN_MODULES,
    **_of("rollout", "rl", "PassRateBand PassRateFilter PassRateLedger Rollout score_rollouts"),
}


def new_name(old: str) -> str | None:
    """The current name for a full former name; None for a name that has not changed.

    >>> new_name("nbg_lightning.rollout.NativeEngine"), new_name("nbg_lightning.data.StyledChat")
    ('nbg_lightning.engines.NativeEngine', 'nbg_lightning.testing.StyledChat')
    """
    package, _, name = old.partition(".")
    if package != __package__:
        return None
    head, rest = name, ""
    while head:
        if head in _KNOWN:
            new = f"{package}.{_KNOWN[head]}{rest}"
            return new_name(new) or new  # a name can have another word in a module that moved
        head, _, last = head.rpartition(".")
        rest = f".{last}{rest}"
    return None


def recorded_name(kind: type) -> str:
    """The full name of a class as recorded in files: its original name, so that moving it changes no recorded identity.

    >>> from nbg_lightning.engines.native import NativeEngine
    >>> recorded_name(NativeEngine)
    'nbg_lightning.rollout.native.NativeEngine'
    """
    before = {f"{__package__}.{new}": f"{__package__}.{old}" for old, new in (*MODULES.items(), *CLASSES.items())}
    whole = f"{kind.__module__}.{kind.__qualname__}"
    return before.get(whole, f"{before.get(kind.__module__, kind.__module__)}.{kind.__qualname__}")


def with_current_arguments(config: Any) -> Any:
    """A config with former argument names of classes replaced by current ones.

    >>> with_current_arguments({"class_path": "nbg_lightning.rewards.MathReward", "init_args": {"last_resort": True}})
    {'class_path': 'nbg_lightning.rewards.MathReward', 'init_args': {'sympy_fallback': True}}
    """
    return _renamed(config, ARGUMENTS)


def with_recorded_arguments(config: Any) -> Any:
    """A config with argument names as recorded in files, so that renaming changes no recorded identity."""
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

    def find_spec(
        self, fullname: str, path: Iterable[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == f"{__package__}.rollout":  # all its modules are asked for by it first
            names = f"{__package__}.engines, or {__package__}.rl for rollouts and pass rates"
            raise ModuleNotFoundError(f"{fullname} has a new name: {names}; write that", name=fullname)
        if (new := new_name(fullname)) is not None:
            raise ModuleNotFoundError(f"{fullname} has a new name: {new}; write that", name=fullname)
        if fullname.partition(".")[2] not in _RENAMED_IN:
            return None
        spec = PathFinder.find_spec(fullname, None if path is None else list(path), target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _KnowsFormerNames(spec.loader.name, spec.loader.path)
        return spec


class _KnowsFormerNames(SourceFileLoader):
    """Lets a module answer for its former names; type checkers see none of it, so a wrong name stays an error to them."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)

        def former(name: str) -> Any:
            if (new := new_name(f"{module.__name__}.{name}")) is not None:
                raise ImportError(f"{module.__name__}.{name} has a new name: {new}; write that")
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        vars(module).setdefault("__getattr__", former)  # a room's own, `lazy_names`, asks `new_name` itself


def install() -> None:
    """Make imports of former names raise an error with the current name; once per process."""
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, _MovedModules())
