"""A model card, generated from the files of a run: training settings, data, and benchmark results."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbg_lightning import log
from nbg_lightning.config_files import read_yaml
from nbg_lightning.error_line import first_line
from nbg_lightning.loggers.record import RECORD, read_metrics
from nbg_lightning.loggers.tables import markdown_cell, markdown_table
from nbg_lightning.url_path import PathOrUrl, UrlPath

if TYPE_CHECKING:
    from nbg_lightning.evaluation.results import SuiteResult

CONFIG = "config.yaml"
LAST = ("train/loss", "val/loss", "reward/mean", "train/accuracy")  # metrics whose last value is reported
MODULES = {
    "PretrainModule": "pretraining",
    "SFTModule": "supervised fine-tuning",
    "DPDModule": "preference distillation (DPD)",
    "GRPOModule": "reinforcement learning (GRPO)",
    "RewardModule": "a reward model",
    "OPDModule": "on-policy distillation (OPD)",
}


@dataclass
class RunFacts:
    """Contents of a run's folder.

    Attributes:
        config: its configuration; empty without one.
        last: last values of its metrics, by name.
        notes: files that could not be read.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    last: Mapping[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_run(checkpoint: PathOrUrl) -> RunFacts:
    """The facts of a checkpoint's run (``RUN/checkpoints/step-XXXXXXXX``); empty for one behind a URL."""
    facts = RunFacts()
    if isinstance(checkpoint, UrlPath):
        facts.notes.append(f"its run wrote its config and metrics elsewhere than {checkpoint}")
        return facts
    folder = checkpoint.resolve().parent.parent
    try:
        config = read_yaml(folder / CONFIG) if (folder / CONFIG).is_file() else {}
        facts.config = config if isinstance(config, dict) else {}
    except ValueError as error:
        facts.notes.append(f"its {CONFIG} cannot be read ({first_line(error)})")
    if (folder / RECORD).is_file():
        metrics = read_metrics(folder / RECORD)
        facts.last = {name: metrics[name][max(metrics[name])] for name in LAST if name in metrics}
    return facts


def run_results(checkpoint: PathOrUrl) -> list[SuiteResult]:
    """The newest result of each suite in a checkpoint's run; unreadable ones are skipped with a warning.

    A run whose checkpoints are behind a URL has its results elsewhere: none are found.
    """
    if isinstance(checkpoint, UrlPath):
        return []
    from nbg_lightning.evaluation.results import load_result
    from nbg_lightning.pages.sources import newest_results

    found = []
    for folder in newest_results(checkpoint.resolve().parent.parent):
        try:
            found.append(load_result(folder))
        except ValueError as error:
            log.warn(f"not in the model card: {error}")
    return found


def model_card(
    title: str,
    model: Sequence[tuple[str, str]],
    run: RunFacts,
    suites: Sequence[SuiteResult],
    template: str | None,
) -> str:
    """The card as Markdown with the hub's front matter.

    It contains no paths of this machine: of a source, only its kind and the last part of its location.

    Args:
        title: title of the model.
        model: names and values of its model config.
        run: see `read_run`.
        suites: benchmark results.
        template: description of the chat format, or None.
    """
    parts = [
        _front_matter(title, suites),
        f"# {markdown_cell(title)}\n",
        "Trained and exported by nbg_lightning; transformers was seen to compute the same logits before this was written.\n",
        "## Model\n\n" + markdown_table(["", ""], model) + "\n",
        f"Chat template: {markdown_cell(template or 'none')}.\n",
        *_training(run),
        *_benchmarks(suites),
        "## Use\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"tokenizer = AutoTokenizer.from_pretrained({title!r})\n"
        f"model = AutoModelForCausalLM.from_pretrained({title!r})\n```\n\n"
        "No licence is named here: it is yours to choose, by the data and weights that this model was made from.\n",
    ]
    return "\n".join(parts)


def _front_matter(title: str, suites: Sequence[SuiteResult]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=result.name,
            dataset_name=result.name,
            metric_type=result.primary,
            metric_value=round(result.value, 6),
        )
        for suite in suites
        for result in suite.benchmarks
        if math.isfinite(result.value)
    ]
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["nbg_lightning"],
        model_name=title if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _training(run: RunFacts) -> Iterable[str]:
    yield "## Training\n"
    kind = _class_name(run.config.get("model"))
    if kind:
        yield f"{MODULES.get(kind, markdown_cell(kind))} (`{markdown_cell(kind)}`).\n"
    settings = [*_settings(run.config)]
    if settings:
        yield markdown_table(["setting", "value"], settings) + "\n"
    if sources := [*_sources(run.config)]:
        yield "### Data\n\n" + markdown_table(["source", "kind", "from"], sources) + "\n"
    if run.last:
        yield markdown_table(["metric", "last value"], [[name, value] for name, value in run.last.items()]) + "\n"
    if not kind and not settings and not run.last:
        yield "The run's folder has no record of how it was trained.\n"
    for note in run.notes:
        yield f"{markdown_cell(note)}\n"


def _settings(config: Mapping[str, Any]) -> Iterable[list[str]]:
    """Optimizer, schedule and stages, as the configuration has them."""
    optimizer = _arguments(config.get("model")).get("optimizer")
    for name, value in (optimizer if isinstance(optimizer, dict) else {}).items():
        if value is not None and not isinstance(value, dict):
            yield [f"optimizer {name}", str(value)]
    callbacks = _of(config.get("trainer"), dict).get("callbacks")
    for callback in _of(callbacks, list):
        if _class_name(callback) in ("FGWSD", "WarmupDecay"):
            for name, value in _arguments(callback).items():
                yield from _stages(value) if name == "stages" else [[name, str(value)]]
    for name in ("tokens", "tokens_per_step", "sequence_length", "prompts_per_step"):
        if (value := _arguments(config.get("data")).get(name)) is not None:
            yield [name, str(value)]


def _stages(stages: Any) -> Iterable[list[str]]:
    for stage in _of(stages, list):
        if isinstance(stage, dict):
            told = (f"{key} {stage[key]}" for key in ("tokens", "lr", "mixture") if stage.get(key) is not None)
            yield [f"stage {stage.get('name')}", ", ".join(told)]


def _sources(config: Mapping[str, Any]) -> Iterable[list[str]]:
    for name, source in _of(_arguments(config.get("data")).get("sources"), dict).items():
        arguments = _arguments(source)
        where = next(
            (arguments[key] for key in ("name_or_folder", "path", "folder") if isinstance(arguments.get(key), str)), ""
        )
        is_path = where.startswith(("/", ".", "~")) or Path(where).suffix
        yield [str(name), _class_name(source), Path(where).name if is_path else where]


def _class_name(given: Any) -> str:
    path = _of(given, dict).get("class_path")
    return path.rpartition(".")[2] if isinstance(path, str) else ""


def _arguments(given: Any) -> dict[str, Any]:
    return _of(_of(given, dict).get("init_args"), dict)


def _of(value: Any, kind: Any) -> Any:
    """The value if it is of a kind, else an empty one: a configuration may hold anything."""
    return value if isinstance(value, kind) else kind()


def _benchmarks(suites: Sequence[SuiteResult]) -> Iterable[str]:
    rows: list[list[Any]] = []
    for suite in suites:
        for result in suite.benchmarks:
            interval = result.intervals.get(result.primary)
            value = "no number" if math.isnan(result.value) else f"{result.value:.3f}"
            spread = "" if interval is None else f"{interval.low:.3f} to {interval.high:.3f}"
            rows.append([suite.name, result.name, result.primary, value, spread, result.items, result.errors])
    yield "## Benchmarks\n"
    if not rows:
        yield "None were run.\n"
        return
    columns = ["suite", "benchmark", "metric", "value", "95 % interval", "items", "errors"]
    yield markdown_table(columns, rows) + "\n"
