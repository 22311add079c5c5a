"""The report of a selection: a page with figures and samples, and the YAML file for training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nbg_lightning.construction.filtering.pools import SelectionSettings
from nbg_lightning.construction.filtering.ranking import EXCLUDED, Ranking
from nbg_lightning.data.durable import atomic, write_atomic
from nbg_lightning.drawing import literal_text

PAGE, PICTURE, CURRICULUM = "report.md", "histograms.png", "curriculum.yaml"
_CROWD = 0.8  # share of documents in the first bar above which it would dwarf the others
# Shares of the paper's stages (arXiv 2512.06266): warmup 0.1 T of the 12.5 T that form one epoch of HQ and MQ; one more epoch
# of HQ (6.5 T); decay 4 T, also of HQ.
_WARMUP, _DECAY = 0.1 / 12.5, 4 / 6.5


def write_reports(
    folder: Path,
    report: dict[str, Any],
    records: Sequence[dict[str, Any]],
    ranking: Ranking,
    settings: SelectionSettings,
) -> None:
    """Write ``report.md``, ``histograms.png`` and ``curriculum.yaml`` to the folder."""
    histograms = {
        name: np.sum([record["histograms"][name] for record in records if name in record["histograms"]], axis=0)
        for name in ranking.ranges
    }
    _draw(folder / PICTURE, histograms, ranking)
    samples: dict[int, dict[str, Any]] = {}
    for (first, _), record in zip(ranking.borders, records, strict=True):
        samples |= {first + int(number): sample for number, sample in record["samples"].items()}
    write_atomic(folder / PAGE, page(report, ranking, samples))
    write_atomic(folder / CURRICULUM, curriculum_yaml(folder, report, settings))


@literal_text
def _draw(file: Path, histograms: dict[str, np.ndarray], ranking: Ranking) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(histograms)
    columns = 4
    rows = 1 + -(-len(names) // columns)
    figure = Figure(figsize=(13, 2.3 * rows + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(rows, columns)
    colours = {"hq": "#1b7837", "mq": "#7fbf7b", "no pool": "#bbbbbb"}
    axes = figure.add_subplot(grid[0, :])
    allowed = ranking.pools != EXCLUDED
    scores = ranking.scores[allowed]
    edges = np.linspace(scores.min(), max(scores.max(), scores.min() + 1e-9), 80)
    bottom = np.zeros(len(edges) - 1)
    for name, inside in (("hq", ranking.pools == 1), ("mq", ranking.pools == 2), ("no pool", ranking.pools == 0)):
        heights, _ = np.histogram(ranking.scores[inside], edges, weights=ranking.tokens[inside])
        axes.bar(edges[:-1], heights, np.diff(edges), bottom=bottom, color=colours[name], align="edge", label=name)
        bottom += heights
    axes.set_title("tokens by score (" + " + ".join(f"{w:g} {n}" for n, w in ranking.weights.items()) + ")")
    axes.legend(loc="upper left", frameon=False)
    for number, name in enumerate(names):
        axes = figure.add_subplot(grid[1 + number // columns, number % columns])
        low, high = ranking.ranges[name]
        edges = np.linspace(low, high, histograms[name].shape[1] + 1)
        bottom = np.zeros(len(edges) - 1)
        title, values = name.replace("_", " "), histograms[name]
        if values[:, 0].sum() > _CROWD * values.sum():  # most documents are not recalled
            title += f" ({int(values[:, 0].sum()):,} at {low:g} left out)"
            values = np.concatenate([np.zeros_like(values[:, :1]), values[:, 1:]], 1)
        for pool, heights in zip(colours, values, strict=True):
            axes.bar(edges[:-1], heights, np.diff(edges), bottom=bottom, color=colours[pool], align="edge")
            bottom = bottom + heights
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=7)
    with atomic(file) as stream:
        figure.savefig(stream, dpi=90, format="png", metadata={"Software": None})


def page(report: dict[str, Any], ranking: Ranking, samples: dict[int, dict[str, Any]]) -> str:
    """The report as Markdown."""
    score = " + ".join(f"{weight:g} × {name}" for name, weight in report["score"].items())
    lines = [
        "# Selection",
        "",
        f"{report['documents']:,} documents, {report['tokens']:,} tokens ({report['tokens_are']}), ranked by {score}.",
        "",
        "| pool | documents | tokens | share | least score |",
        "|---|---:|---:|---:|---:|",
    ]
    total = max(1, report["tokens"])
    for pool, own in report["pools"].items():
        share = own["tokens"] / total
        lines.append(f"| {pool} | {own['documents']:,} | {own['tokens']:,} | {share:.1%} | {own['least_score']:.3f} |")
    rest, excluded = report["rest"], report["excluded_tokens"]
    lines += [
        f"| rest | {rest['documents']:,} | {rest['tokens']:,} | {rest['tokens'] / total:.1%} | |",
        f"| excluded | {sum(report['excluded'].values()):,} | {excluded:,} | {excluded / total:.1%} | |",
        "",
        f"![histograms]({PICTURE})",
        "",
        "## Tokens by source",
        "",
        "| source | hq | mq | all | in a pool |",
        "|---|---:|---:|---:|---:|",
    ]
    everything = np.bincount(ranking.source, ranking.tokens, len(ranking.sources)).astype(int)
    for source, whole in zip(ranking.sources, everything.tolist(), strict=True):
        hq, mq = (report["pools"][pool]["tokens_by_source"][source] for pool in ("hq", "mq"))
        lines.append(f"| {source} | {hq:,} | {mq:,} | {whole:,} | {(hq + mq) / max(1, whole):.1%} |")
    if report["excluded"]:
        lines += ["", "## Excluded", "", "| rule | documents |", "|---|---:|"]
        lines += [f"| {rule} | {number:,} |" for rule, number in report["excluded"].items()]
    lines += ["", "## Samples by decile of score", ""]
    for number, (high, low, picked) in enumerate(ranking.deciles, 1):
        lines += [f"### {number} ({high:.3f} to {low:.3f})", ""]
        for sample in (samples[place] for place in picked):
            excerpt = sample["text"].replace("```", "'''")
            lines += [
                f"{sample['source']}, score {sample['score']:.3f}, id {sample['id']}",
                "",
                "```text",
                excerpt,
                "```",
                "",
            ]
    return "\n".join(lines).rstrip() + "\n"


def curriculum_yaml(folder: Path, report: dict[str, Any], settings: SelectionSettings) -> str:
    """The sources for `CurriculumDataModule`, and the paper's stages scaled to these pools."""
    hq, mq = (report["pools"][pool]["tokens"] for pool in ("hq", "mq"))
    step = settings.tokens_per_step

    def whole(tokens: float) -> int:
        return max(1, round(tokens / step)) * step

    diverse = {"hq": hq, "mq": mq}
    stages = [
        {"name": "warmup", "tokens": whole(_WARMUP * (hq + mq)), "lr": [0, 4.5e-4], "mixture": diverse},
        {"name": "diverse-stable", "tokens": whole((1 - _WARMUP) * (hq + mq)), "lr": 4.5e-4, "mixture": diverse},
        {"name": "hq-stable", "tokens": whole(hq), "lr": 4.5e-4, "mixture": {"hq": 1}},
        {"name": "decay", "tokens": whole(_DECAY * hq), "lr": [4.5e-4, 1.5e-6], "mixture": {"hq": 1}},
    ]
    place = folder.resolve()
    lines = [
        "# Pools of `nbg build-selection` for CurriculumDataModule, with the stages of FG-WSD at their size: one epoch of both",
        "# pools, one more of HQ, and a decay on HQ as long as the paper's. The learning rate is that of the paper's 3B model.",
        "#   launch:  nbg fit --config YOUR_MODEL.yaml --config " + str(place / CURRICULUM),
        f"# Tokens are {report['tokens_are']}.",
        "data:",
        "  class_path: nbg_lightning.CurriculumDataModule",
        "  init_args:",
        "    sources:",
    ]
    for pool, tokens in (("hq", hq), ("mq", mq)):
        arguments = f"{{path: {json.dumps(str(place / pool))}, tokens: {tokens}, label: {pool.upper()}}}"
        lines += [f"      {pool}:", "        class_path: nbg_lightning.data.Parquet", f"        init_args: {arguments}"]
    lines += [
        "trainer:",
        "  callbacks:",
        "    - class_path: nbg_lightning.FGWSD",
        "      init_args:",
        f"        tokens_per_step: {step}",
        f"        sequence_length: {settings.sequence_length}",
        "        stages:",
        *(f"          - {_flow(stage)}" for stage in stages),
        "    - class_path: nbg_lightning.StepCheckpoint",
        "    - class_path: nbg_lightning.StageTable",
    ]
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    """A value in one line of YAML; floats get a decimal point, since YAML reads 4e-4 as text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_flow(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return f"{value:.1e}" if isinstance(value, float) else str(value)
