"""Markdown tables of an experiment's JSON: its arms at each budget, and its contrasts."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    lines = [cells[0], ["---"] * len(cells[0]), *cells[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def span(interval: Sequence[float], form: str, scale: float) -> str:
    """Its two ends."""
    return " to ".join(format(end * scale, form) for end in interval)


def arms_table(plan: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Mean of each metric, with the lowest and the highest seed."""
    metrics = plan["metrics"]
    rows = []
    for budget, arms in results["arms"].items():
        for arm, own in arms.items():
            cells = []
            for name, metric in metrics.items():
                values = [value * metric["scale"] for value in own["metrics"][name]]
                form = f".{metric['digits']}f"
                mean, low, high = (format(value, form) for value in (statistics.mean(values), min(values), max(values)))
                cells.append(f"{mean} ({low} to {high})")
            operations = f"{own['operations']:.2e}" if own["operations"] else "not counted"
            rows.append([budget, arm, str(len(own["seeds"])), operations, *cells])
    head = ("budget", "arm", "seeds", "operations", *(metric["text"] for metric in metrics.values()))
    return table(head, rows)


def told_p(value: float) -> str:
    """Three digits; smaller ones by their bound."""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def contrast_row(found: Mapping[str, Any], metric: Mapping[str, Any]) -> list[str]:
    """Cells of one contrast."""
    form, scale = f"+.{metric['digits']}f", metric["scale"]
    higher = found["second_higher_in"]
    p_value = f"{told_p(found['p_holm'])} (Holm)" if "p_holm" in found else told_p(found["p"])
    items = found.get("interval_95_over_items")
    return [
        found["contrast"],
        found["budget"],
        metric["text"],
        f"{found['difference'] * scale:{form}}",
        span(found["interval_95"], form, scale),
        span(items, form, scale) if items else "",
        f"{higher} of {found['seeds']}",
        p_value,
        found["verdict"],
    ]


def contrasts_table(plan: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """The primary contrast in bold, then the others."""
    rows = []
    if results["primary"] is not None:
        rows.append([f"**{cell}**" if cell else "" for cell in _row(plan, results["primary"])])
    rows += [_row(plan, found) for found in results["secondary"]]
    head = (
        "contrast A - B",
        "budget",
        "of",
        "difference",
        "95 % over seeds",
        "95 % over items",
        "A higher in",
        "p",
        "A is",
    )
    return table(head, rows)


def _row(plan: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    return contrast_row(found, plan["metrics"][found["metric"]])


def trends_table(plan: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Slopes over budgets."""
    rows = []
    for found in results["trends"]:
        metric = plan["metrics"][found["metric"]]
        form, scale = f"+.{metric['digits']}f", metric["scale"]
        rows.append(
            [
                found["contrast"],
                metric["text"],
                ", ".join(found["places"]),
                str(found["seeds"]),
                format(found["slope"] * scale, form),
                span(found["interval_95"], form, scale),
                found["verdict"],
            ]
        )
    return table(
        ("contrast A - B", "of", "over", "seeds", "slope for ten times", "95 % over seeds", "difference"), rows
    )


def experiment_tables(document: Mapping[str, Any]) -> str:
    """All of them."""
    plan, results = document["settings"], document["results"]
    parts = [arms_table(plan, results), contrasts_table(plan, results)]
    if results.get("trends"):
        parts.append(trends_table(plan, results))
    return "\n\n".join(parts)
