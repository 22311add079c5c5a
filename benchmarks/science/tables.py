"""The tables of docs/science.md, from the JSON of the experiments; one whose JSON is not there is left as it is.

python benchmarks/science/tables.py
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from seeds import RESULTS

PAGE = Path(__file__).parents[2] / "docs" / "science.md"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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


TABLES = (filtering, decontamination, fg_wsd, dpd_small, pass_rate_bands)


def with_tables(page: str) -> str:
    """The page with its tables made from the results."""
    for make in TABLES:
        file = RESULTS / f"{make.__name__}.json"
        if file.is_file():
            text = make(json.loads(file.read_text())["results"])
            begin, end = f"<!-- table: {make.__name__} -->", "<!-- end of table -->"
            found = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
            if not found.search(page):
                raise ValueError(f"{PAGE.name} has no place for {make.__name__}: write {begin} and {end}")
            page = found.sub(lambda _, t=text, b=begin, e=end: f"{b}\n\n{t}\n\n{e}", page, count=1)
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text("utf-8")), "utf-8")
    print(PAGE)
