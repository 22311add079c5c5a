"""Draw when engine and trainer worked in some steps, from the ledger of a run: `python docs/images/rollouts.py RUN OUT.svg`."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

from nbg_lightning.rl.ledger import STEPS, RolloutLedger

Bar = tuple[float, float, str, int]  # from, to, what, step

WIDTH, LEFT, ROW, TOP = 720, 80, 34, 30
COLOURS = {"draw": "#4c78a8", "score": "#72b7b2", "train": "#f58518"}
SHOWN = 6  # steps


def bars(ledger: RolloutLedger) -> tuple[list[Bar], list[Bar]]:
    """What the engine did, and what the trainer did: it trains a step from when it has the answers until it asks for the next."""
    engine: list[Bar] = []
    for step in sorted(ledger.steps()):
        row = ledger.rows(step)[0]
        engine.append((row["drawn_from"], row["drawn_to"], "draw", step))
        engine.append((row["drawn_to"], row["scored_at"], "score", step))
    notes = [json.loads(line) for line in (ledger.folder / STEPS).read_text("utf-8").splitlines()]
    trainer = [(one["had"], two["asked"], "train", one["step"]) for one, two in itertools.pairwise(notes)]
    return engine, trainer


def picture(ledger: RolloutLedger, first: int) -> str:
    """An SVG of `SHOWN` steps."""
    engine, trainer = bars(ledger)
    last = max(step for *_, step in trainer)
    shown = range(first, min(first + SHOWN, last + 1))
    kept = [[bar for bar in each if bar[3] in shown] for each in (engine, trainer)]
    begin = min(bar[0] for bar in kept[1])
    end = max(bar[1] for bar in kept[1])
    scale = (WIDTH - LEFT - 10) / (end - begin)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {TOP + 2 * ROW + 30}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{TOP + 2 * ROW + 30}" fill="white"/>',
    ]
    for number, (name, rows) in enumerate(zip(("engine", "trainer"), kept, strict=True)):
        y = TOP + number * ROW
        parts.append(f'<text x="8" y="{y + 17}">{name}</text>')
        for start, stop, what, step in rows:
            x, width = LEFT + max(0.0, start - begin) * scale, (min(stop, end) - max(start, begin)) * scale
            if width <= 0:
                continue
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="24" fill="{COLOURS[what]}" stroke="white">'
                f"<title>{what} step {step}: {stop - start:.3f} s</title></rect>"
            )
            if width > 14:
                parts.append(
                    f'<text x="{x + width / 2:.1f}" y="{y + 16}" text-anchor="middle" fill="white">{step}</text>'
                )
    for number, (what, colour) in enumerate(COLOURS.items()):
        x = LEFT + number * 90
        parts.append(
            f'<rect x="{x}" y="8" width="12" height="12" fill="{colour}"/><text x="{x + 16}" y="18">{what}</text>'
        )
    parts.append(
        f'<text x="{LEFT}" y="{TOP + 2 * ROW + 18}">{end - begin:.2f} s, steps {shown[0]} to {shown[-1]}</text>'
    )
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    run, out = sys.argv[1], Path(sys.argv[2])
    out.write_text(picture(RolloutLedger.at(run), first=4), "utf-8")
