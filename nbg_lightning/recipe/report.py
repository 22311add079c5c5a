"""The report of a recipe: one HTML file that opens offline, with pictures, the benchmark table and what was run."""

from __future__ import annotations

import base64
import html
import io
import math
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbg_lightning.credentials import redacted_command
from nbg_lightning.data.durable import write_atomic
from nbg_lightning.drawing import literal_text
from nbg_lightning.printable import printable
from nbg_lightning.recipe.gather import Curve, StepReport, stages_first
from nbg_lightning.recipe.plan import Recipe, Step

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nbg_lightning.evaluation.results import BenchmarkResult, SuiteResult

SAMPLES_SHOWN = 3  # items of each benchmark
TEXT_SHOWN = 700  # characters of a question or answer


@dataclass(frozen=True)
class Chart:
    """Curves of a run that belong in one picture.

    Attributes:
        title: above it.
        tags: that are drawn; one that ends in / stands for all that begin so.
        suffix: what they end in.
        stacked: shares of a whole, drawn as areas.
    """

    title: str
    tags: tuple[str, ...]
    suffix: str = ""
    stacked: bool = False

    def has(self, tag: str) -> bool:
        """Whether a scalar of a run belongs here."""
        named = any(tag.startswith(each) if each.endswith("/") else tag == each for each in self.tags)
        return named and tag.endswith(self.suffix)


CHARTS = [
    Chart("learning rate", ("train/lr",)),
    Chart("mixture", ("data/mixture/",), stacked=True),
    Chart("loss", ("train/loss",)),
    Chart("validation loss", ("val/",), "loss"),
    Chart("reward", ("reward/",)),
    Chart("pass rate", ("pass_rate/",)),
    Chart("preference accuracy", ("train/accuracy",)),
    Chart("margin", ("train/margin",)),
    Chart("answer length in tokens", ("rollout/length",)),
    Chart("entropy", ("policy/entropy",)),
]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72em; margin: 2em auto; padding: 0 1em; color: #1d2430; }
h1 { font-size: 1.7em; margin-bottom: .1em } h2 { margin-top: 2em; border-bottom: 1px solid #d5dae2; padding-bottom: .2em }
table { border-collapse: collapse; margin: 1em 0 } th, td { padding: .3em .8em; text-align: right; vertical-align: top }
th:first-child, td:first-child { text-align: left } thead th { border-bottom: 2px solid #8a94a6 }
tbody tr:nth-child(odd) { background: #f5f7fa }
small, .quiet { color: #6b7585 } .better { color: #12743a } .worse { color: #a3261b }
pre { white-space: pre-wrap; background: #f5f7fa; padding: .6em .8em; border-radius: 4px; font-size: 12.5px; margin: .3em 0 }
.charts { display: flex; flex-wrap: wrap; gap: 1em } .charts img { width: 22em; max-width: 100% }
details { margin: .5em 0 } summary { cursor: pointer } .answers { display: grid; gap: .6em }
.answers > div { border-left: 3px solid #c9d0da; padding-left: .8em } .answers > .right { border-color: #2a9d57 }
.answers > .wrong { border-color: #c8553d } .bar { display: inline-block; height: .7em; background: #4c78a8; margin-left: .5em }
"""


def write_report(recipe: Recipe, reports: Sequence[StepReport]) -> Path:
    """Write ``report.html`` into the recipe's folder.

    Args:
        recipe: which was run.
        reports: what its steps have left so far (see `gather`).

    Returns:
        The file.
    """
    path = Path(recipe.folder) / "report.html"
    parts = [
        f"<h1>{_text(recipe.name)}</h1>",
        f"<p class=quiet>{_text(_circumstances(reports))}</p>",
        f"<p>{_text(recipe.about)}</p>" if recipe.about else "",
        *_benchmarks(reports),
        *_pictures(reports),
        *_samples(reports),
        *_steps(reports),
    ]
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{_text(recipe.name)}</title>"
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, page)
    return path


def _circumstances(reports: Sequence[StepReport]) -> str:
    from importlib.metadata import version

    import torch

    worked = sum(report.seconds or 0.0 for report in reports)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    when = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return (
        f"{when} · {_duration(worked)} of work · {device} · nbg_lightning {version('nbg-lightning')}, torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )


# -- benchmarks --------------------------------------------------------------------------------------------------------


def _benchmarks(reports: Sequence[StepReport]) -> Iterable[str]:
    measured = [(report.step, report.suite) for report in stages_first(reports) if report.suite]
    if not measured:
        return
    names = list(dict.fromkeys(result.name for _, suite in measured for result in suite.benchmarks))
    yield "<h2>Benchmarks after each stage</h2><p class=quiet>Under each number its 95 % interval over items, and the "
    yield "difference to the column before with the interval of the paired difference on the same items.</p>"
    yield "<table><thead><tr><th>benchmark</th>"
    yield "".join(f"<th>{_column(step)}</th>" for step, _ in measured) + "</tr></thead><tbody>"
    for name in names:
        yield f"<tr><td>{_text(name)}"
        found = [_result(suite, name) for _, suite in measured]
        about = next(result for result in found if result is not None)
        yield f"<br><small>{_text(about.primary)}, {about.items} items</small></td>"
        for column, result in enumerate(found):
            before = measured[column - 1][1] if column and not measured[column][0].reference else None
            yield f"<td>{_value(result)}{_difference(before, measured[column][1], name)}</td>"
        yield "</tr>"
    yield "</tbody></table>"


def _column(step: Step) -> str:
    return f"{'reference:' if step.reference else 'after'} {_text(step.measures or step.name)}"


def _result(suite: SuiteResult, name: str) -> BenchmarkResult | None:
    return next((result for result in suite.benchmarks if result.name == name), None)


def _value(result: BenchmarkResult | None) -> str:
    if result is None or math.isnan(result.value):
        return "<span class=quiet>no number</span>"
    text = f"<b>{result.value:.3f}</b>"
    if result.primary != "bits_per_byte":
        text += f"<span class=bar style='width:{max(0.0, min(1.0, result.value)) * 5:.2f}em'></span>"
    if interval := result.intervals.get(result.primary):
        text += f"<br><small>{interval.low:.3f} to {interval.high:.3f}</small>"
    if result.errors:
        text += f"<br><small class=worse>{result.errors} errors, not counted</small>"
    return text


def _difference(before: SuiteResult | None, after: SuiteResult, name: str) -> str:
    if before is None:
        return ""
    from nbg_lightning.evaluation.compare import compare

    try:
        found = next((each for each in compare(before, after) if each.name == name), None)
    except ValueError:  # nothing in common
        return ""
    if found is None:
        return ""
    low, high = found.paired.interval
    sign = {True: "better", False: "worse", None: "quiet"}[found.better]
    return f"<br><small class={sign}>{found.paired.difference:+.3f} ({low:+.3f} to {high:+.3f})</small>"


# -- pictures ----------------------------------------------------------------------------------------------------------


def _pictures(reports: Sequence[StepReport]) -> Iterable[str]:
    drawn = [(report, list(_charts(report.curves))) for report in reports]
    if not any(charts for _, charts in drawn):
        return
    yield "<h2>Training</h2>"
    for report, charts in drawn:
        if charts:
            yield f"<h3>{_text(report.step.name)}</h3><p>{_text(report.step.about)}</p>"
            yield f"<div class=charts>{''.join(charts)}</div>"


def _charts(curves: dict[str, Curve]) -> Iterable[str]:
    for chart in CHARTS:
        chosen = {tag: curve for tag, curve in curves.items() if chart.has(tag) and len(curve.steps) > 1}
        if chosen:
            yield f"<img alt='{_text(chart.title)}' src='{_draw(chart, chosen)}'>"


@literal_text
def _draw(chart: Chart, curves: dict[str, Curve]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 2.9), layout="constrained")
    axes = figure.subplots()
    names = [printable(tag.removeprefix(_common(curves)).removesuffix("/loss") or tag) for tag in curves]
    if chart.stacked:
        steps = next(iter(curves.values())).steps
        shares = [curve.values for curve in curves.values() if curve.steps == steps]
        axes.stackplot(steps, *shares, labels=names[: len(shares)], alpha=0.85)
        axes.set_ylim(0, 1)
    else:
        for name, curve in zip(names, curves.values(), strict=True):
            axes.plot(curve.steps, curve.values, label=name, linewidth=1.3)
    axes.set_title(chart.title, fontsize=10)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if len(curves) > 1:
        axes.legend(fontsize=7, frameon=False)
    return _embedded(figure)


def _common(curves: dict[str, Curve]) -> str:
    """The groups that all tags share; of a single one, none."""
    return os.path.commonpath(list(curves)) + "/" if len(curves) > 1 else ""


def _embedded(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


# -- samples -----------------------------------------------------------------------------------------------------------


def _samples(reports: Sequence[StepReport]) -> Iterable[str]:
    measured = [(report.step.measures or report.step.name, report.suite) for report in reports if report.suite]
    names = list(dict.fromkeys(name for _, suite in measured for name in suite.records))
    if not names:
        return
    yield "<h2>Samples</h2><p class=quiet>The first items of each benchmark, as each stage answers them.</p>"
    for name in names:
        stages = [(stage, {r["id"]: r for r in suite.records.get(name, [])}) for stage, suite in measured]
        first = next((records for _, records in stages if records), {})
        shown = [record for record in first.values() if record.get("samples")][:SAMPLES_SHOWN]
        if not shown:
            continue
        yield f"<details><summary>{_text(name)}</summary>"
        for record in shown:
            yield f"<pre>{_text(_shortened(str(record.get('prompt', record['id']))))}</pre><div class=answers>"
            for stage, records in stages:
                yield from _answer(stage, records.get(record["id"]))
            yield "</div>"
        yield "</details>"


def _answer(stage: str, record: dict[str, Any] | None) -> Iterable[str]:
    if record is None or not record.get("samples"):
        return
    sample = record["samples"][0]
    score = sample.get("score")
    mark = "quiet" if score is None else "right" if score >= 1 else "wrong"
    yield f"<div class={mark}><small>after {_text(stage)}: {'no score' if score is None else f'{score:g}'}</small>"
    yield f"<pre>{_text(_shortened(str(sample.get('text', ''))))}</pre></div>"


def _shortened(text: str) -> str:
    return text if len(text) <= TEXT_SHOWN else f"{text[: TEXT_SHOWN // 2]}\n[…]\n{text[-TEXT_SHOWN // 2 :]}"


# -- steps -------------------------------------------------------------------------------------------------------------


def _steps(reports: Sequence[StepReport]) -> Iterable[str]:
    yield "<h2>What was run</h2><table><thead><tr><th>step</th><th>time</th><th>parts</th><th>state</th></tr></thead><tbody>"
    for report in reports:
        time = "" if report.seconds is None else _duration(report.seconds)
        state = {"done": "done", "run": "not run", "resume": "not finished", "redo": "of other settings"}[report.state]
        yield (
            f"<tr><td>{_text(report.step.name)}<br><small>{_text(report.step.about)}</small></td><td>{time}</td>"
            f"<td>{report.parts or ''}</td><td>{state}</td></tr>"
        )
    yield "</tbody></table>"
    for report in reports:
        yield f"<pre>{_text(redacted_command(report.command))}</pre>"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _text(value: str) -> str:
    return html.escape(printable(value), quote=True)
