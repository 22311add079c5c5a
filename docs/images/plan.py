"""Draws the memory of a recipe's trainings, and the table of docs/plan.md, from what `nbg plan` writes.

nbg plan configs/recipe/nanbeige4-3b.yaml --ranks 64 --json plan-64.json       # and with 512
python docs/images/plan.py OUT.svg plan-64.json plan-512.json                  # prints the table
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

WIDTH, LEFT, ROW, TOP = 760, 250, 18, 56
COLOURS = {
    "states": "#4c78a8",
    "gathered": "#72b7b2",
    "gradients": "#eeca3b",
    "activations": "#f58518",
    "other": "#9d755d",
}
SHOWN_GIB = 80  # of an H100


def rows(plans: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, plan and phase of every phase."""
    for plan in plans:
        for phase in plan["phases"]:
            several = len(plan["phases"]) > 1
            yield (f"{plan['config']}, {phase['name']}" if several else plan["config"]), plan, phase


def table(plans: list[dict[str, Any]]) -> str:
    """The phases as lines of Markdown."""
    lines = [
        "| step | GPUs | `context` | window | forwards x rows | GiB a GPU | s a step | days |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, plan, phase in rows(plans):
        seconds, steps = phase["step_seconds"]["total"], phase["steps"]
        days = "?" if steps is None else f"{steps * seconds / 86400:.3g}"
        memory = f"{phase['memory_gib']['total']:.1f}"
        lines.append(
            f"| {name} | {plan['ranks']} | {plan['context']} | {phase['window']:,} | {phase['forwards']} x {phase['rows']} | "
            f"{memory} | {seconds:.3g} | {days} |"
        )
    return "\n".join(lines)


def picture(plans: list[dict[str, Any]]) -> str:
    """Memory of a GPU in every phase, by kind, as bars in an SVG."""
    shown = list(rows(plans))
    height = TOP + ROW * len(shown) + 30
    scale = (WIDTH - LEFT - 20) / SHOWN_GIB
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        '<text x="8" y="16" font-size="13">GiB of a GPU at the peak of a step, of 80: predicted, not measured</text>',
    ]
    for number, (kind, colour) in enumerate(COLOURS.items()):
        x = LEFT + number * 95
        parts.append(
            f'<rect x="{x}" y="26" width="11" height="11" fill="{colour}"/><text x="{x + 15}" y="36">{kind}</text>'
        )
    for number, (name, plan, phase) in enumerate(shown):
        y, x = TOP + number * ROW, float(LEFT)
        parts.append(f'<text x="{LEFT - 6}" y="{y + 11}" text-anchor="end">{escape(name)}, {plan["ranks"]} GPUs</text>')
        for kind, colour in COLOURS.items():
            width = phase["memory_gib"][kind] * scale
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="13" fill="{colour}">'
                f"<title>{kind}: {phase['memory_gib'][kind]:.1f} GiB</title></rect>"
            )
            x += width
        parts.append(f'<text x="{x + 4:.1f}" y="{y + 11}">{phase["memory_gib"]["total"]:.1f}</text>')
    for tick in range(0, SHOWN_GIB + 1, 20):
        x = LEFT + tick * scale
        parts.append(
            f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{tick}</text>'
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 4}" y2="{height - 20}" stroke="#00000022"/>'
        )
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    read = [plan for file in sys.argv[2:] for plan in json.loads(Path(file).read_text("utf-8"))]
    Path(sys.argv[1]).write_text(picture(read), "utf-8")
    print(table(read))
