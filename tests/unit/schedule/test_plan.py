"""The plan of a curriculum: hand-computed numbers, warnings, and their display in table and figure."""

from __future__ import annotations

import io
import json
import re
import time
from itertools import pairwise

import pytest
from rich.console import Console

from nbg_lightning.schedule.curriculum import Curriculum, Stage, warmup_stable_decay
from nbg_lightning.schedule.picture import _stage_edges, draw_plan
from nbg_lightning.schedule.plan import Plan, make_plan, plan_to_json
from nbg_lightning.schedule.table import print_plan
from nbg_lightning.schedule.texts import format_learning_rate


def paper_plan() -> Plan:
    stages = [
        Stage("warmup", "0.1T", [0.0, 4.5e-4], {"hq": 1, "mq": 1}),
        Stage("diversity-enriched stable", "12.4T", 4.5e-4, {"hq": 6.5, "mq": 5.9}),
        Stage("high-quality stable", "6.5T", 4.5e-4, {"hq": 1}),
        Stage(
            "decay and long context",
            "4T",
            [4.5e-4, 1.5e-6],
            {"hq": 3, "long": 1},
            sequence_length=65_536,
            rope_theta=7e7,
        ),
    ]
    curriculum = Curriculum(stages, tokens_per_step=4_194_304, sequence_length=4096)
    return make_plan(curriculum, {"hq": "6.5T", "mq": 6e12, "long": None})


def small_plan(sizes=None, **changes) -> Plan:
    stage = {"name": "only", "tokens": 1000, "lr": 1e-3, "mixture": {"web": 3, "qa": 1}} | changes
    return make_plan(Curriculum([Stage(**stage)], tokens_per_step=100, sequence_length=10), sizes)


def printed(plan: Plan) -> str:
    output = io.StringIO()
    print_plan(plan, Console(file=output, width=100))
    return output.getvalue()


def codes(plan: Plan) -> list[tuple[str, str]]:
    return [(warning.code, warning.subject) for warning in plan.warnings]


def test_numbers_worked_by_hand():
    stages = [
        Stage("one", 1000, [0.0, 1e-3], {"web": 3, "qa": 1}),
        Stage("two", 2040, 1e-3, {"web": 1}, "linear", 20, 5e6),
    ]
    plan = make_plan(Curriculum(stages, tokens_per_step=100, sequence_length=10), {"web": 500})
    one, two = plan.stages
    assert (one.requested_tokens, one.tokens, one.steps, one.first_step, one.first_token) == (
        1000,
        1000,
        10,
        0,
        0,
    )
    assert (two.requested_tokens, two.tokens, two.steps, two.first_step, two.first_token) == (
        2040,
        2000,
        20,
        10,
        1000,
    )
    assert (one.share, two.share) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert (one.learning_rate_start, one.learning_rate_end, one.decay) == (0.0, 1e-3, "linear")
    assert (two.learning_rate_start, two.learning_rate_end, two.decay) == (1e-3, 1e-3, "constant")
    assert (one.sequence_length, one.samples_per_step, one.rope_theta) == (10, 10, None)
    assert (two.sequence_length, two.samples_per_step, two.rope_theta) == (20, 5, 5e6)
    web, qa = one.mixture
    assert (web.source, web.share, web.tokens, web.epochs, web.cumulative_epochs) == (
        "web",
        0.75,
        750,
        1.5,
        1.5,
    )
    assert (qa.source, qa.share, qa.tokens, qa.epochs, qa.cumulative_epochs) == ("qa", 0.25, 250, None, None)
    assert [(part.epochs, part.cumulative_epochs) for part in two.mixture] == [(4.0, 5.5)]
    assert [(source.source, source.size, source.tokens, source.epochs) for source in plan.sources] == [
        ("web", 500, 2750, 5.5),
        ("qa", None, 250, None),
    ]
    assert (plan.requested_tokens, plan.tokens, plan.steps) == (3040, 3000, 30)
    assert codes(plan) == [("rounded-stage", "two"), ("repeated-source", "web")]


def test_paper_is_planned_in_no_time_and_without_warnings():
    begin = time.process_time()
    plan = paper_plan()
    assert time.process_time() - begin < 0.5
    assert plan.steps == 5_483_627
    assert plan.warnings == []
    assert [round(100 * stage.share, 1) for stage in plan.stages] == [0.4, 53.9, 28.3, 17.4]
    hq = next(source for source in plan.sources if source.source == "hq")
    assert hq.epochs == pytest.approx((0.05 + 6.5 + 6.5 + 3) / 6.5, rel=1e-5)


@pytest.mark.parametrize(
    ("plan", "expected", "words"),
    [
        (small_plan(tokens=1040), ("rounded-stage", "only"), "asks for 1,040 tokens and gets 1,000"),
        (small_plan(tokens=5), ("rounded-stage", "only"), "1 whole steps of 100"),
        (small_plan({"web": 100}), ("repeated-source", "web"), "seen 7.5 times"),
        (small_plan({"wbe": 100}), ("unused-source", "wbe"), "used by no stage"),
        (small_plan(mixture={"web": 1, "off": 0}), ("unused-source", "off"), "used by no stage"),
        (small_plan(decay="cosine"), ("decay-without-effect", "only"), "'cosine' has no effect"),
    ],
)
def test_warnings(plan, expected, words):
    assert codes(plan) == [expected]
    assert words in plan.warnings[0].message
    assert "\n" not in plan.warnings[0].message
    assert expected[0] not in printed(plan)  # people read the message
    assert "warning:" in printed(plan)


def test_no_warning_at_the_borders():
    assert small_plan({"web": 188, "qa": 1_000_000}).warnings == []  # 3.99 epochs
    assert small_plan(tokens=1000).warnings == []


def test_a_jump_of_the_learning_rate_is_reported_and_a_smooth_run_is_not():
    def stages(second):
        return [Stage("one", 1000, [0.0, 1e-3], {"web": 1}), Stage("two", 1000, second, {"web": 1})]

    jump = make_plan(Curriculum(stages([9e-4, 0.0]), 100, 10))
    assert codes(jump) == [("learning-rate-jump", "two")]
    assert "from 0.001 at the end of stage 'one' to 0.0009 at the start of 'two'" in jump.warnings[0].message
    assert make_plan(Curriculum(stages([1e-3, 0.0]), 100, 10)).warnings == []
    assert make_plan(warmup_stable_decay("23M", {"web": 1}, 100, 10)).warnings == []


@pytest.mark.parametrize(
    ("size", "message"),
    [("lots", "size of source 'web': number of tokens is invalid"), (0, "source 'web' has 0 tokens")],
)
def test_sizes_that_are_none(size, message):
    with pytest.raises(ValueError, match=message):
        small_plan({"web": size})


@pytest.mark.parametrize(
    ("value", "text"), [(4.5e-4, "4.5e-4"), (1e-3, "1e-3"), (0.0, "0"), (1.5e-6, "1.5e-6"), (2.0, "2e0")]
)
def test_format_learning_rate(value, text):
    assert format_learning_rate(value) == text


def test_json_holds_the_whole_plan():
    loaded = json.loads(plan_to_json(paper_plan()))
    assert loaded["steps"] == 5_483_627
    assert loaded["stages"][1]["mixture"][0]["source"] == "hq"
    assert loaded["stages"][3]["rope_theta"] == 7e7
    assert loaded["sources"][2] == {"source": "long", "size": None, "tokens": 999_999_668_224, "epochs": None}
    assert Curriculum(**loaded["curriculum"]) == paper_plan().curriculum


def test_table_fits_100_columns_and_shows_the_plan(capsys):
    print_plan(paper_plan())  # standard output is no terminal here
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text
    assert "23T tokens in 5,483,627 steps of 4.19M" in text
    for words in (
        "diversity-enriched",
        "12.4T",
        "53.9 %",
        "2,956,390",
        "1.5e-6 linear",
        "65,536",
        "7e7",
        "1,024",
    ):
        assert words in text
    # hq after the last stage, and a source of unknown size
    assert re.search(r"decay and long context +hq +75\.0 % +3T +0\.46 +2\.47", text)
    assert re.search(r"long +25\.0 % +1T +\? +\?", text)
    assert re.search(r"mq +6T +5\.95T +25\.9 % +0\.99", text)


def test_a_narrow_terminal_has_room_for_names():
    output = io.StringIO()
    print_plan(paper_plan(), Console(file=output, width=80))
    assert max(map(len, output.getvalue().splitlines())) <= 80
    assert re.search(r"^ diversity[\w-]* +12\.4T +53\.9 % +2,956,390 +4\.5e-4 +4,096", output.getvalue(), re.MULTILINE)


def test_tokens_that_whole_steps_change_are_shown_beside_the_requested_ones():
    assert "(of" not in printed(small_plan(tokens=1000))
    assert re.search(r"^ only +1K +100 %.*\n +\(of 1\.04K\)", printed(small_plan(tokens=1040)), re.MULTILINE)


def test_names_are_no_markup():
    assert "[bold]" in printed(small_plan(name="[bold]", mixture={"[red]": 1}))
    assert "[red]" in printed(small_plan(name="[bold]", mixture={"[red]": 1}))


def test_narrow_stages_are_widened_and_the_axis_stays_in_order():
    edges = _stage_edges([0.004, 0.539, 0.283, 0.174])
    widths = [b - a for a, b in pairwise(edges)]
    assert (edges[0], edges[-1]) == (0.0, 1.0)
    assert widths[0] == pytest.approx(0.085)
    assert widths[1] > widths[2] > widths[3] > widths[0]
    assert _stage_edges([1.0]) == [0.0, 1.0]
    assert _stage_edges([0.5, 0.5]) == pytest.approx([0.0, 0.5, 1.0])
    many = _stage_edges([0.99, *[0.01 / 29] * 29])
    assert all(b > a for a, b in pairwise(many))


@pytest.mark.parametrize(
    "plan",
    [
        paper_plan(),
        small_plan(),
        small_plan(lr=0.0),
        small_plan(lr=[1e-3, 1e-5], decay="cosine", mixture={f"source {i}": i + 1 for i in range(14)}),
        make_plan(Curriculum([Stage(f"stage_{i}", 100 + i, 1e-3 / (i + 1), {"web": 1}) for i in range(15)], 10, 10)),
    ],
    ids=["paper", "one stage", "zero", "many sources", "many stages"],
)
def test_picture(plan, tmp_path):
    begin = time.process_time()
    draw_plan(plan, tmp_path / "plan.png")
    assert time.process_time() - begin < 10
    data = (tmp_path / "plan.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    assert width == 1800
    assert 900 < height < 1800
