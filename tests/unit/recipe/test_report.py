"""The report: one file, from whatever files the steps have left."""

import base64
import json
import re

import pytest
import torch
import yaml
from torch.utils.tensorboard import SummaryWriter

from nbg_lightning.evaluation.results import SuiteResult, record_file, summarize
from nbg_lightning.pages.document import text
from nbg_lightning.recipe.charts import CHARTS, carried, draw_curves, smoothed
from nbg_lightning.recipe.gather import Curve, gather, read_curves
from nbg_lightning.recipe.plan import Recipe
from nbg_lightning.recipe.report import write_report
from nbg_lightning.recipe.summary import summary


def suite(folder, scores):
    folder.mkdir(parents=True)
    records = [
        {
            "id": str(i), "index": i, "status": "ok", "error": None, "category": None, "prompt": f"1 < {i}?", "score": s,
            "answer": "<i>gold",
            "samples": [
                {"score": s, "status": "ok", "text": "<b>yes</b>", "answer": "yes", "finish_reason": "stop", "tokens": 3}
            ],
        }
        for i, s in enumerate(scores)
    ]  # fmt: skip
    record_file(folder, "sums").write_text("".join(json.dumps(record) + "\n" for record in records))
    SuiteResult("s", [summarize("sums", "generate", "accuracy", records, 1)]).save(folder)


def test_benchmarks_curves_samples_and_commands(tmp_path):
    (tmp_path / "c.yaml").write_text("a: 1\n")
    steps = {name: {"command": "fit", "config": str(tmp_path / "c.yaml")} for name in ("base", "tuned")}
    steps |= {f"test-{name}": {"command": "test", "measures": name} for name in ("base", "tuned")}
    steps["later"] = {"command": "fit"}
    recipe_file = tmp_path / "r.yaml"
    content = {"name": "r", "folder": str(tmp_path / "runs"), "about": "small & quick", "steps": steps}
    recipe_file.write_text(yaml.safe_dump(content, sort_keys=False))
    recipe = Recipe.from_yaml(recipe_file)
    for name in recipe.steps:
        if name != "later":
            recipe.step_folder(name).mkdir(parents=True)
            record = {"key": recipe.key(name), "done": True, "command": [], "seconds": 61.0, "parts": 1}
            (recipe.step_folder(name) / "step.json").write_text(json.dumps(record))
    with SummaryWriter(str(recipe.step_folder("base"))) as log:
        for step in range(5):
            log.add_scalar("train/loss", 5.0 - step, step)
    suite(recipe.step_folder("test-base") / "b" / "one", [0.0] * 20)
    suite(recipe.step_folder("test-tuned") / "b" / "one", [1.0] * 20)
    assert read_curves(recipe.step_folder("base"))["train/loss"].values == [5.0, 4.0, 3.0, 2.0, 1.0]
    reports = gather(recipe)
    said = summary(reports)
    assert [line.split()[1] for line in said] == ["base", "tuned"]
    assert said[0].startswith("  after base   sums accuracy  0.000  (0.000 to ")
    page = write_report(recipe, reports).read_text()
    assert "after base" in page and "after tuned" in page and "small &amp; quick" in page
    assert "class=better>+1.000 (+0.720 to +1.000)" in page
    assert "alt='loss'" in page and "data:image/svg+xml;base64," in page
    assert "&lt;b&gt;yes&lt;/b&gt;" in page and "<b>yes</b>" not in page, "what a model writes is text"
    assert page.count("gold <b>&lt;i&gt;gold</b>") == 3 and "<div class='wrong'><small>after base: 0</small>" in page
    for anchor in re.findall(r"href='#([^']*)'", page):
        assert page.count(f"id='{anchor}'") == 1
    assert "href='#step-0'>base</a>" in page and "script-src 'none'" in page and "prefers-color-scheme: dark" in page
    assert "not run" in page and "1 min 01 s" in page
    assert "http://" not in page.replace("http://www.w3.org", ""), "it opens offline"


def group(step, asked, rewards, trained=True):
    """A line of `SampleTable`: episodes of two turns, the first a call."""
    call = {"type": "function", "function": {"name": "price", "arguments": {"item": "pen"}}}
    answers = []
    for number, reward in enumerate(rewards):
        own = {"turn": 0, "score": 0.25, "advantage": -0.5, "counts": {"calls": 1}}
        turns = [
            {"role": "assistant", "content": "", "tool_calls": [call], **own},
            {"role": "tool", "name": "price", "content": f"<i>{step}7"},
            {"role": "assistant", "content": f"said {step}", "turn": 1, "score": reward, "counts": {}},
        ]  # fmt: skip
        more = {"reward": reward, "advantage": 1.5 - 3 * number, "trained": trained, "end": "answered", "tokens": 5}
        answers.append({"sample": number, "text": "", "turns": turns, **more})
    question = [{"role": "user", "content": asked}]
    return {"step": step, "source": "shop", "question": question, "gold": "14", "rewards": rewards, "answers": answers}


def test_episodes_of_a_stage_turn_by_turn(tmp_path):
    """Of the first and the last step that were kept: calls, results, scores, advantages, and what was trained is marked."""
    (tmp_path / "r.yaml").write_text(
        yaml.safe_dump({"name": "r", "folder": str(tmp_path / "runs"), "steps": {"grpo": {"command": "fit"}}})
    )
    recipe = Recipe.from_yaml(tmp_path / "r.yaml")
    folder = recipe.step_folder("grpo")
    (folder / "run").mkdir(parents=True)
    record = {"key": recipe.key("grpo"), "done": True, "command": [], "seconds": 1.0, "parts": 1}
    (folder / "step.json").write_text(json.dumps(record))
    groups = [group(1, "First?", [1.0, 0.0]), group(10, "Between?", [1.0]), group(20, "Last?", [1.0, 0.0], False)]
    lines = [json.dumps(each) for each in [*groups, group(20, "Second of the last?", [1.0])]]
    (folder / "run" / "rollouts.jsonl").write_text("\n".join([lines[0], "[1]", '{"step": ', *lines[1:], '{"torn']))
    page = write_report(recipe, gather(recipe)).read_text()
    section = page.split("<section id='rollouts'>")[1].split("</section>")[0]
    assert "href='#rollouts'" in page and "mark { background" in page
    assert (
        section.count("First?") == section.count("Last?") == 1 and "Between?" not in section and "Second" not in section
    )
    first, last = section.split("<b>step 20</b>")
    assert first.count("<mark>tool call price: {&quot;item&quot;: &quot;pen&quot;}</mark>") == 2
    assert first.count("<mark>said 1</mark>") == 2 and "&lt;i&gt;17" in first and "<mark>&lt;i&gt;17" not in first
    assert "assistant, turn 1, score 0.25, advantage -0.500, calls 1" in first and "tool price" in first
    assert (
        "advantage <b>+1.500</b>" in first
        and "advantage <b>-1.500</b>" in first
        and "ended by <b>answered</b>" in first
    )
    assert "said 20" in last and "<mark>" not in last and "not trained" in last
    (folder / "run" / "rollouts.jsonl").write_text("")
    assert "id='rollouts'" not in write_report(recipe, gather(recipe)).read_text()


@pytest.mark.parametrize(
    "name", ["$\\frac{", "$", "$x$ $", "<script>alert(1)</script>", "\u202etxet", "\ud83d", "\x1b[31m"]
)
def test_names_and_texts_of_strangers_are_text(name):
    """Broken formulas, markup, marks of direction: of curves and of everything that is written on the page."""
    curves = {f"val/{each}/loss": Curve([1, 2], [1.0, 2.0]) for each in (name, "other")}
    picture = base64.b64decode(draw_curves(CHARTS[3], curves).split(",")[1]).decode()
    assert "<svg" in picture and "<script" not in picture
    shown = text(name)
    assert "<" not in shown and "\u202e" not in shown and "\x1b" not in shown
    shown.encode()


def test_charts_draw_what_the_modules_log():
    """Names of real summaries and terms: a chart whose metric is renamed would be empty for ever."""
    from nbg_lightning.modules.dpd import PAIR_TERMS
    from nbg_lightning.rl.metrics import PolicyRecord, RolloutSummary

    counted = dict.fromkeys(("reward/mean", "pass_rate/mean", "rollout/length"), (1.0, 1.0))
    rollouts = RolloutSummary(counted, {"engine": 2.0}, 5, 1, 1, 0, 5, "").metrics()
    record = PolicyRecord()
    record.add_rollouts(*(torch.zeros(2) for _ in range(3)), torch.ones(2))
    record.add_update(torch.zeros(2, dtype=torch.bool))
    logged = {*rollouts, *record.on_host(), *(f"train/{term}" for term in PAIR_TERMS)}
    logged |= {"train/loss", "train/lr", "data/mixture/web", "val/web/loss"}
    drawn = {chart.title: sorted(filter(chart.has, logged)) for chart in CHARTS}
    assert all(drawn.values()), drawn
    assert drawn["answer length in tokens"] == ["rollout/length"], "not tokens a second"
    assert drawn["pass rate"] == ["pass_rate/mean"]


def test_a_reference_stands_apart(tmp_path):
    steps = {name: {"command": "fit"} for name in ("teacher", "base")}
    steps["test-teacher"] = {"command": "test", "measures": "teacher", "reference": True}
    steps["test-base"] = {"command": "test", "measures": "base"}
    content = {"name": "r", "folder": str(tmp_path / "runs"), "steps": steps}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    recipe = Recipe.from_yaml(tmp_path / "r.yaml")
    for name in recipe.steps:
        recipe.step_folder(name).mkdir(parents=True)
        record = {"key": recipe.key(name), "done": True, "command": [], "seconds": 1.0, "parts": 1}
        (recipe.step_folder(name) / "step.json").write_text(json.dumps(record))
    suite(recipe.step_folder("test-teacher") / "b" / "one", [1.0] * 20)
    suite(recipe.step_folder("test-base") / "b" / "one", [0.0] * 20)
    reports = gather(recipe)
    assert [line.split()[:2] for line in summary(reports)] == [["after", "base"], ["reference", "teacher"]]
    page = write_report(recipe, reports).read_text()
    assert page.index("<th>after base") < page.index("<th class=reference>reference: teacher")
    assert "class=worse" not in page.split("<section id='what-was-run'>")[0].split("<tbody>")[1], (
        "compared with nothing"
    )


def test_noisy_curves_are_smoothed_and_short_ones_are_not():
    short = [1.0, 5.0, 2.0]
    assert smoothed(short) is short
    assert smoothed([3.0] * 100) == pytest.approx([3.0] * 100)
    noisy = [float(n % 2) for n in range(400)]
    assert noisy[0] == smoothed(noisy)[0] and smoothed(noisy)[-1] == pytest.approx(0.5, abs=0.03)


def test_mixtures_have_steps_and_sources_that_come_later():
    mixture = next(chart for chart in CHARTS if chart.stacked)
    curves = {"data/mixture/web": Curve([1, 10], [1.0, 0.25]), "data/mixture/math": Curve([10], [0.75])}
    steps = [1, 10, 20]
    assert carried(curves["data/mixture/web"], steps) == [1.0, 0.25, 0.25]
    assert carried(curves["data/mixture/math"], steps) == [0.0, 0.75, 0.75]
    assert draw_curves(mixture, curves).startswith("data:image/svg+xml;base64,")


def test_pass_rates_of_a_step_and_references_as_lines(tmp_path):
    from nbg_lightning.recipe.charts import Measured, benchmark_image, histogram_image
    from nbg_lightning.recipe.gather import read_pass_rates
    from nbg_lightning.rl.pass_rate.ledger import PassRate, PassRateLedger

    assert read_pass_rates(tmp_path) == []
    rows = [PassRate(str(n), "s", 4, n, 0, n / 4, 3.0, 0, "c") for n in range(5)]
    PassRateLedger(rows, {"sampling": {"n": 4}}).save(tmp_path / "rates.parquet")
    bins = read_pass_rates(tmp_path)
    assert sum(count for _, count in bins) == 5 and bins[0] == ("0", 1)

    def picture(image):
        return base64.b64decode(image.split("base64,")[1].split("'")[0]).decode()

    assert "questions by pass rate" in picture(histogram_image(bins))
    nan = float("nan")
    stages = [Measured("$a", 0.5, 0.4, 0.6, False), Measured("b", nan, nan, nan, False)]
    drawn = picture(benchmark_image("<sums>", "accuracy", [*stages, Measured("teacher", 0.9, 0.9, 0.9, True)]))
    assert "stroke-dasharray" in drawn and "<!-- teacher -->" in drawn
