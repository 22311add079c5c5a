"""The report of a recipe: one self-contained HTML file with charts, the benchmark table and the commands that were run."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Sequence
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbg_lightning.credentials import redacted_command
from nbg_lightning.data.durable import write_atomic
from nbg_lightning.pages.document import asset, document, shortened, text
from nbg_lightning.pages.records import Side
from nbg_lightning.pages.viewer import legend, record_html
from nbg_lightning.recipe.charts import Measured, benchmark_image, charted, curve_images, histogram_image
from nbg_lightning.recipe.gather import StepReport, stages_first
from nbg_lightning.recipe.plan import Recipe, Step

if TYPE_CHECKING:
    from nbg_lightning.evaluation.results import BenchmarkResult, SuiteResult

SAMPLES_SHOWN = 3  # items of each benchmark
TEXT_SHOWN = 700  # characters of a question or answer


def write_report(recipe: Recipe, reports: Sequence[StepReport]) -> Path:
    """Write ``report.html`` into the recipe's folder.

    Args:
        recipe: the recipe.
        reports: outputs of its steps so far (see `gather`).

    Returns:
        The file.
    """
    path = Path(recipe.folder) / "report.html"
    sections = {
        "Benchmarks": [*_benchmarks(reports)],
        "Training": [*_pictures(reports)],
        "Samples": [*_samples(reports)],
        "Rollouts": [*_rollouts(reports)],
        "What was run": [*_steps(reports)],
    }
    present = {title: "".join(parts) for title, parts in sections.items() if parts}
    body = "".join(
        [
            f"<h1>{text(recipe.name)}</h1>",
            f"<p class=quiet>{text(_circumstances(reports))}</p>",
            f"<p>{text(recipe.about)}</p>" if recipe.about else "",
            _contents(present, reports),
            *(f"<section id='{_anchor(title)}'><h2>{title}</h2>{body}</section>" for title, body in present.items()),
        ]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    style = asset("viewer.css") + resources.files(__package__).joinpath("report.css").read_text("utf-8")
    write_atomic(path, document(recipe.name, body, style))
    return path


def _contents(sections: dict[str, str], reports: Sequence[StepReport]) -> str:
    """Links to the sections, and to the steps that have pictures."""
    links = []
    for title in sections:
        links.append(f"<a href='#{_anchor(title)}'>{title}</a>")
        if title == "Training":
            drawn = [(number, report) for number, report in enumerate(reports) if _has_pictures(report)]
            links += [f"<a class=part href='#step-{number}'>{text(report.step.name)}</a>" for number, report in drawn]
    return f"<nav aria-label='contents'>{''.join(links)}</nav>"


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


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
    yield "<p class=quiet>After each stage. Under each number its 95 % interval over items, and the difference to the column "
    yield "before with the interval of the paired difference on the same items. References are no stages.</p>"
    yield "<div class=wide><table><thead><tr><th>benchmark</th>"
    yield "".join(f"<th{_apart(step)}>{_column(step)}</th>" for step, _ in measured) + "</tr></thead><tbody>"
    for name in names:
        yield f"<tr><td>{text(name)}"
        found = [_result(suite, name) for _, suite in measured]
        about = next(result for result in found if result is not None)
        yield f"<br><small>{text(about.primary)}, {about.items} items</small></td>"
        for column, result in enumerate(found):
            step = measured[column][0]
            before = measured[column - 1][1] if column and not step.reference else None
            yield f"<td{_apart(step)}>{_value(result)}{_difference(before, measured[column][1], name)}</td>"
        yield "</tr>"
    yield "</tbody></table></div>"
    if sum(not step.reference for step, _ in measured) > 1:
        yield f"<div class=charts>{''.join(_benchmark_image(name, measured) for name in names)}</div>"


def _apart(step: Step) -> str:
    return " class=reference" if step.reference else ""


def _benchmark_image(name: str, measured: Sequence[tuple[Step, SuiteResult]]) -> str:
    points, metric = [], ""
    for step, suite in measured:
        if (result := _result(suite, name)) is not None:
            interval = result.intervals.get(result.primary)
            low, high = (result.value, result.value) if interval is None else (interval.low, interval.high)
            points.append(Measured(step.measures or step.name, result.value, low, high, step.reference))
            metric = result.primary
    return benchmark_image(name, metric, points)


def _column(step: Step) -> str:
    return f"{'reference:' if step.reference else 'after'} {text(step.measures or step.name)}"


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
    for number, report in enumerate(reports):
        if charts := _step_images(report):
            name, about = text(report.step.name), text(report.step.about)
            yield f"<h3 id='step-{number}'>{name}</h3><p>{about}</p>"
            yield f"<div class=charts>{''.join(charts)}</div>"


def _step_images(report: StepReport) -> list[str]:
    rates = [histogram_image(report.pass_rates)] if report.pass_rates else []
    return [*curve_images(report.curves), *rates]


def _has_pictures(report: StepReport) -> bool:
    return bool(report.pass_rates) or any(charted(report.curves))


# -- samples -----------------------------------------------------------------------------------------------------------


def _samples(reports: Sequence[StepReport]) -> Iterable[str]:
    measured = [(report.step, report.suite) for report in stages_first(reports) if report.suite]
    names = list(dict.fromkeys(name for _, suite in measured for name in suite.records))
    if not names:
        return
    yield "<p class=quiet>The first items of each benchmark, as each stage answers them; nbg view shows all.</p>"
    for name in names:
        stages = [(step, {r["id"]: r for r in suite.records.get(name, [])}) for step, suite in measured]
        first = next((records for _, records in stages if records), {})
        shown = [record for record in first.values() if record.get("samples")][:SAMPLES_SHOWN]
        if not shown:
            continue
        yield f"<details open><summary>{text(name)}</summary>"
        for record in shown:
            gold = "" if record.get("answer") is None else f"<p class=quiet>gold <b>{_shown(record['answer'])}</b></p>"
            yield f"<div class=item><pre>{_shown(record.get('prompt', record['id']))}</pre>{gold}<div class=answers>"
            for step, records in stages:
                yield from _answer(step, records.get(record["id"]))
            yield "</div></div>"
        yield "</details>"


def _shown(value: Any) -> str:
    return text(shortened(str(value), TEXT_SHOWN))


def _answer(step: Step, record: dict[str, Any] | None) -> Iterable[str]:
    if record is None or not record.get("samples"):
        return
    sample = record["samples"][0]
    score = sample.get("score")
    mark = "quiet" if score is None else "right" if score >= 1 else "wrong"
    apart = " reference" if step.reference else ""
    said = "no score" if score is None else f"{score:g}"
    yield f"<div class='{mark}{apart}'><small>{_column(step)}: {said}</small><pre>{_shown(sample.get('text', ''))}</pre></div>"


def _rollouts(reports: Sequence[StepReport]) -> Iterable[str]:
    """Answers and episodes of the stages that sample their own, with trained tokens marked."""
    shown = [report for report in reports if report.rollouts]
    if not shown:
        return
    yield "<p class=quiet>What the policy drew for one question in the first and in the last step that was kept: turns, calls, "
    yield "results, rewards and advantages; nbg view shows all.</p>"
    yield legend([Side(record) for report in shown for record in report.rollouts])
    for report in shown:
        yield f"<details open><summary>{text(report.step.name)}</summary>"
        for record in report.rollouts:
            yield f"<div class=item><b>{text(record.title)}</b>{record_html(record, TEXT_SHOWN)}</div>"
        yield "</details>"


# -- steps -------------------------------------------------------------------------------------------------------------


def _steps(reports: Sequence[StepReport]) -> Iterable[str]:
    yield "<div class=wide><table><thead><tr><th>step</th><th>time</th><th>parts</th><th>state</th></tr></thead><tbody>"
    for report in reports:
        time = "" if report.seconds is None else _duration(report.seconds)
        state = {"done": "done", "run": "not run", "resume": "not finished", "redo": "of other settings"}[report.state]
        yield (
            f"<tr><td>{text(report.step.name)}<br><small>{text(report.step.about)}</small></td><td>{time}</td>"
            f"<td>{report.parts or ''}</td><td>{state}</td></tr>"
        )
    yield "</tbody></table></div>"
    for report in reports:
        yield f"<pre>{text(redacted_command(report.command))}</pre>"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
