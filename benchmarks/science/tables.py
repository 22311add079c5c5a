"""The tables of docs/science/, from the experiments' JSON results; those without results are left unchanged.

python benchmarks/science/tables.py
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.experiment import PlanError, told
from harness.tables import experiment_tables, table
from seeds import RESULTS

from nbg_lightning.data.durable import write_atomic

DOCS = Path(__file__).parents[2] / "docs"


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def by_seed(values: list[float], form: Callable[[float], str] = percent) -> str:
    """The mean, and the runs of all seeds."""
    return f"{form(statistics.mean(values))} ({', '.join(map(form, values))})"


def span(interval: list[float] | None, form: str, scale: float = 1.0) -> str:
    if interval is None:
        return "one seed"
    return " to ".join(format(end * scale, form) for end in interval)


def difference(found: dict[str, Any], form: str, scale: float = 1.0) -> list[str]:
    """Cells: the difference, its interval over seeds, and that over questions."""
    cells = [format(found["difference"] * scale, form), span(found.get("interval_95"), form, scale)]
    return [*cells, span(found["questions"]["interval"], form, scale)] if "questions" in found else cells


def filtering(results: dict[str, Any]) -> str:
    spam, tier = results["tagger_spam"]["dimensions"]["wanted"], results["tagger_tier"]["dimensions"]["tier"]
    rows = [
        ("spam or ham, mails that the tagger has not seen", f"AUC {spam['auc']:.4f}"),
        ("nine tiers of sources, documents that it has not seen", f"rank correlation {tier['rank_correlation']:.3f}"),
    ]
    rows += [
        (
            f"tagging {each['bytes'] / 1e9:.2f} GB in one process",
            f"{each['megabytes_per_second']:.1f} MB/s of a core, peak memory {each['peak_bytes'] / 1e6:.0f} MB",
        )
        for each in results["memory"]
    ]
    pools = results["selection"]["pools"]
    rows += [
        (
            f"{name.upper()} pool: documents; million tokens",
            f"{pool['documents']:,}; {pool['tokens'] / 1e6:.2f}",
        )
        for name, pool in pools.items()
    ]
    rows.append(("documents left out when the corpus was built", results["corpus"]["dropped"].replace("_", " ")))
    return table(("measured", "result"), rows)


def decontamination(results: dict[str, Any]) -> str:
    parts = []
    for size, found in results.items():
        shares = found["found"]
        forms = [name for name in next(iter(shares.values())) if not name.startswith("items")]
        rows = [
            [
                name,
                f"{own['items_of_that_many_words']} of {own['items']}",
                *(f"{100 * own[form]:.0f}" for form in forms),
            ]
            for name, own in shares.items()
        ]
        parts.append(table((f"{size}: found, %", "long enough", *forms), rows))
        parts.append(
            f"Of {found['carriers']:,} real documents in which nothing was planted, {found['carriers_flagged']} are flagged."
        )
    return "\n\n".join(parts)


def fg_wsd(results: dict[str, Any]) -> str:
    runs = results["runs"]

    def bits(value: float) -> str:
        return f"{value:.4f}"

    arms = table(
        (
            "arm",
            "HQ among its tokens, %",
            "held-out HQ, bits a byte",
            "held-out MQ, bits a byte",
            "true continuation, %",
        ),
        [
            [
                arm,
                percent(own[0]["shares"]["hq"]),
                *(by_seed([run[metric] for run in own], bits) for metric in ("hq_bits_per_byte", "mq_bits_per_byte")),
                by_seed([run["accuracy"] for run in own]),
            ]
            for arm, own in runs.items()
        ],
    )
    rows = []
    for name, own in results["comparisons"].items():
        hq, mq, choices = own["hq_bits_per_byte"], own["mq_bits_per_byte"], own["accuracy"]
        rows.append(
            [
                name,
                *("{} ({})".format(*difference(found, "+.4f")) for found in (hq, mq)),
                "{} ({}; {})".format(*difference(choices, "+.1f", 100)),
            ]
        )
    head = (
        "difference (95 % over seeds; over questions)",
        "HQ, bits a byte",
        "MQ, bits a byte",
        "points of continuation",
    )
    return f"{arms}\n\n{table(head, rows)}"


def _gains(comparisons: dict[str, Any]) -> str:
    rows = [[name.replace("_", " "), *difference(found, "+.1f", 100)] for name, found in comparisons.items()]
    return table(("difference", "points", "95 % over seeds", "95 % over questions"), rows)


def dpd_small(results: dict[str, Any]) -> str:
    models = table(
        ("model", "accuracy, % (by seed)"),
        [[name.replace("_", " "), by_seed(own)] for name, own in results["accuracy_by_seed"].items()],
    )
    return f"{models}\n\n{_gains(results['comparisons'])}"


def pass_rate_bands(results: dict[str, Any]) -> str:
    rows = []
    for band, own in results["accuracy_by_seed"].items():
        run = results["grpo"].get(band)
        cells = ["", "", ""]
        if run is not None:
            cells = [
                f"{statistics.mean(run['questions_by_seed']):,.0f}",
                percent(run["zero_variance"]),
                f"{statistics.mean(run['tokens_by_seed']) / 1e6:.2f}",
            ]
        rows.append([band if run is None else f"GRPO, {band}", *cells, by_seed(own)])
    head = ("model", "questions", "groups without variance, %", "million tokens drawn", "accuracy, % (by seed)")
    return f"{table(head, rows)}\n\n{_gains(results['comparisons'])}"


def rubric_dimensions(results: dict[str, Any]) -> str:
    rows = [
        [name, f"{power:+.2f}", results["dropped"].get(name, "kept")]
        for name, power in sorted(results["power"].items(), key=lambda each: -each[1])
    ]
    return table(("dimension", f"power over {results['runs']} runs", "verdict"), rows)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    make.__name__: make for make in (filtering, decontamination, fg_wsd, dpd_small, pass_rate_bands, rubric_dimensions)
}
"""Of results that are no experiment of the harness."""
_BEGIN, _END = "<!-- table: ", "<!-- end of table -->"
_PLACE = re.compile(rf"^{_BEGIN}(\S+) -->(?:(?!^{_BEGIN}).)*?^{_END}", re.DOTALL | re.MULTILINE)


def table_of(name: str) -> str | None:
    """The tables of an experiment; None if its JSON is not there.

    Raises:
        ValueError: a result that nothing here knows how to show.
    """
    file = RESULTS / f"{name}.json"
    if not file.is_file():
        return None
    with told(file, "restore it from git"):
        document = json.loads(file.read_text())
        if "question" in document["settings"]:
            return experiment_tables(document)
    if name not in TABLES:
        raise ValueError(f"table is invalid: {name!r}; choose {', '.join(TABLES)}, or an experiment of the harness")
    return TABLES[name](document["results"])


def with_tables(page: str) -> str:
    """The page with its tables made from the results.

    Raises:
        PlanError: the end of a table is not told.
    """

    def made(place: re.Match[str]) -> str:
        text = table_of(place[1])
        return place[0] if text is None else f"{_BEGIN}{place[1]} -->\n\n{text}\n\n{_END}"

    made_page, number = _PLACE.subn(made, page)
    if number < len(_names(page)):
        raise PlanError(f"a table has no end; write {_END} below each {_BEGIN}NAME -->")
    return made_page


def pages() -> list[Path]:
    """All that have tables of experiments."""
    return sorted((DOCS / "science").glob("*.md"))


def write_tables() -> list[Path]:
    """Remake the tables of all pages; those that have changed."""
    changed = []
    for page in pages():
        with told(page, "fix the page"):
            text = page.read_text("utf-8")
            made = with_tables(text)
        if made != text:
            write_atomic(page, made)  # else a full disk cuts it off
            changed.append(page)
    return changed


def pages_of(name: str) -> list[Path]:
    """Pages with the tables of a result."""
    return [page for page in pages() if name in _names(page.read_text("utf-8"))]


def _names(page: str) -> list[str]:
    return re.findall(rf"^{_BEGIN}(\S+) -->", page, re.MULTILINE)


if __name__ == "__main__":
    try:
        for page in write_tables():
            print(page)
    except PlanError as error:
        raise SystemExit(str(error)) from error
