"""The curriculum table: hand-computed values, properties, and errors that say how to fix them."""

from __future__ import annotations

import dataclasses
import itertools
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbg_lightning.schedule.curriculum import Curriculum, Stage, warmup_stable_decay
from nbg_lightning.schedule.tokens import format_tokens, parse_tokens

WEB = {"web": 1.0}


def paper_curriculum(**changes) -> Curriculum:
    """FG-WSD as published (arXiv 2512.06266): 23T tokens, plateau 4.5e-4; the step size is ours."""
    stages = [
        Stage("warmup", "0.1T", [0.0, 4.5e-4], {"hq": 1, "mq": 1}),
        Stage("diversity", "12.4T", 4.5e-4, {"hq": 6.5, "mq": 6.0}),
        Stage("quality", "6.5T", 4.5e-4, {"hq": 1}),
        Stage("decay", "4T", [4.5e-4, 1.5e-6], {"hq": 3, "long": 1}, sequence_length=65_536, rope_theta=7e7),
    ]
    return Curriculum(**{"stages": stages, "tokens_per_step": 4_194_304, "sequence_length": 4096} | changes)


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        (4096, 4096),
        ("4096", 4096),
        ("1_000", 1000),
        ("100B", 100_000_000_000),
        ("12.4T", 12_400_000_000_000),  # 12.4e12 as a float product is not exact for every such number
        ("0.1T", 100_000_000_000),
        ("1.5M", 1_500_000),
        ("64K", 64_000),
        (" 2 b ", 2_000_000_000),
        ("1e9", 1_000_000_000),
        (1e12, 10**12),
        (12.4e12, 12_400_000_000_000),
        (0, 0),
    ],
)
def test_parse_tokens(value, tokens):
    assert parse_tokens(value) == tokens
    assert type(parse_tokens(value)) is int


@pytest.mark.parametrize(
    "value",
    [
        "",
        "B",
        "12.4",
        "1.0001K",
        "-5",
        -5,
        0.5,
        math.nan,
        math.inf,
        "nan",
        "5X",
        "1.2.3",
        "5KB",
        True,
        None,
        [1],
        "_",
    ],
)
def test_parse_tokens_refuses(value):
    with pytest.raises(ValueError, match="write a whole number like"):
        parse_tokens(value)


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (0, "0"),
        (512, "512"),
        (999, "999"),
        (1000, "1K"),
        (4096, "4.1K"),
        (999_499, "999K"),
        (999_500, "1M"),
        (4_194_304, "4.19M"),
        (100_000_000_000, "100B"),
        (12.4e12, "12.4T"),
        (2_500_000_000_000_000, "2500T"),
        (-4096, "-4.1K"),
    ],
)
def test_format_tokens(tokens, text):
    assert format_tokens(tokens) == text


@given(st.integers(min_value=1, max_value=10**15))
def test_formatted_tokens_can_be_read_back_to_three_digits(tokens):
    assert abs(parse_tokens(format_tokens(tokens)) - tokens) <= tokens / 199


@pytest.mark.parametrize(
    ("decay", "lr", "at_half"),
    [
        ("linear", [0.0, 8.0], 4.0),
        ("linear", [8.0, 2.0], 5.0),
        ("sqrt", [8.0, 0.0], 8 * (1 - math.sqrt(0.5))),
        ("cosine", [8.0, 2.0], 5.0),
        ("exponential", [8.0, 2.0], 4.0),
    ],
)
def test_decay_worked_by_hand(decay, lr, at_half):
    stage = Stage("s", 10, lr, WEB, decay)
    assert stage.learning_rate_at(0.5) == pytest.approx(at_half)
    assert stage.learning_rate_at(0.0) == lr[0]
    assert stage.learning_rate_at(1.0) == lr[1]


def test_decay_at_a_quarter_tells_the_rules_apart():
    def quarter(decay):
        return Stage("s", 10, [1.0, 0.0625], WEB, decay).learning_rate_at(0.25)

    assert quarter("linear") == pytest.approx(1 - 0.9375 * 0.25)
    assert quarter("sqrt") == pytest.approx(1 - 0.9375 * 0.5)
    assert quarter("cosine") == pytest.approx(1 - 0.9375 * (1 - math.sqrt(0.5)) / 2)
    assert quarter("exponential") == pytest.approx(0.5)  # (1/16)^(1/4)


def test_learning_rate_step_by_step():
    curriculum = Curriculum(
        [
            Stage("warmup", 40, [0.0, 4.0], WEB),
            Stage("stable", 20, 4.0, WEB),
            Stage("decay", 20, [4.0, 1.0], WEB),
        ],
        tokens_per_step=10,
        sequence_length=5,
    )
    assert [curriculum.learning_rate(step) for step in range(8)] == [1.0, 2.0, 3.0, 4.0, 4.0, 4.0, 2.5, 1.0]


def test_paper_table():
    curriculum = paper_curriculum()
    assert [stage.tokens for stage in curriculum.stages] == [10**11, 124 * 10**11, 65 * 10**11, 4 * 10**12]
    # tokens / 4,194,304 = 23841.86, 2956390.38, 1549720.76, 953674.32
    assert [curriculum.steps_of(stage) for stage in range(4)] == [23_842, 2_956_390, 1_549_721, 953_674]
    assert [curriculum.first_step(stage) for stage in range(5)] == [
        0,
        23_842,
        2_980_232,
        4_529_953,
        5_483_627,
    ]
    assert curriculum.num_steps == 5_483_627
    assert abs(curriculum.num_tokens - 23 * 10**12) <= 4 * 4_194_304 / 2
    assert curriculum.sources == ["hq", "mq", "long"]
    assert [curriculum.samples_per_step(stage) for stage in range(4)] == [1024, 1024, 1024, 64]
    assert curriculum.first_sample(3) == 4_529_953 * 1024
    assert curriculum.num_samples == 4_529_953 * 1024 + 953_674 * 64
    # The learning rate does not move while the data changes ...
    assert curriculum.learning_rate(2_980_231) == curriculum.learning_rate(2_980_232) == 4.5e-4
    assert curriculum.learning_rate(4_529_952) == 4.5e-4
    # ... is not 0 in the first step, and has exactly the end values in the last steps.
    assert curriculum.learning_rate(0) == pytest.approx(4.5e-4 / 23_842)
    assert curriculum.learning_rate(23_841) == 4.5e-4
    assert curriculum.learning_rate(5_483_626) == 1.5e-6


def test_ranges_touch_at_a_change_of_sequence_length():
    curriculum = paper_curriculum()
    assert curriculum.sample_range(4_529_952) == (
        curriculum.first_sample(3) - 1024,
        curriculum.first_sample(3),
    )
    assert curriculum.sample_range(4_529_953) == (curriculum.first_sample(3), curriculum.first_sample(3) + 64)


def test_stage_shorter_than_a_step_gets_one():
    assert Curriculum([Stage("short", 1, 1e-3, WEB)], tokens_per_step=100, sequence_length=10).steps_of(0) == 1


@st.composite
def curricula(draw) -> Curriculum:
    length = draw(st.integers(1, 8))
    stages = []
    for number in range(draw(st.integers(1, 5))):
        ends = [draw(st.floats(1e-6, 1.0)), draw(st.floats(1e-6, 1.0))]
        stages.append(
            Stage(
                name=f"stage {number}",
                tokens=draw(st.integers(1, 2000)),
                lr=draw(st.sampled_from([ends, ends[0]])),
                mixture=draw(st.dictionaries(st.sampled_from("abcd"), st.floats(0.001, 10), min_size=1)),
                decay=draw(st.sampled_from(["linear", "sqrt", "cosine", "exponential"])),
                sequence_length=draw(st.sampled_from([None, length * 2])),
            )
        )
    return Curriculum(stages, tokens_per_step=length * 2 * draw(st.integers(1, 6)), sequence_length=length)


@given(curricula())
def test_steps_stages_and_samples_agree(curriculum):
    seen_samples, seen_stages = 0, []
    for step in range(curriculum.num_steps):
        stage = curriculum.stage_at(step)
        assert curriculum.first_step(stage) <= step < curriculum.first_step(stage + 1)
        if step == curriculum.first_step(stage):
            seen_stages.append((stage, seen_samples))
        assert curriculum.sample_range(step) == (
            seen_samples,
            seen_samples + curriculum.samples_per_step(stage),
        )
        seen_samples += curriculum.samples_per_step(stage)
    assert seen_samples == curriculum.num_samples == curriculum.first_sample(len(curriculum.stages))
    assert seen_stages == [(stage, curriculum.first_sample(stage)) for stage in range(len(curriculum.stages))]
    assert curriculum.num_tokens == curriculum.num_steps * curriculum.tokens_per_step
    for number, stage in enumerate(curriculum.stages):
        missed = abs(curriculum.tokens_of(number) - stage.tokens)
        assert 2 * missed <= curriculum.tokens_per_step or curriculum.steps_of(number) == 1


@given(curricula())
def test_learning_rate_is_monotone_between_its_ends(curriculum):
    for number, stage in enumerate(curriculum.stages):
        start, end = stage.learning_rate_ends
        steps = range(curriculum.first_step(number), curriculum.first_step(number + 1))
        rates = [curriculum.learning_rate(step) for step in steps]
        assert rates[-1] == end
        tolerance = 1e-12 * max(start, end)
        assert all(min(start, end) - tolerance <= rate <= max(start, end) + tolerance for rate in rates)
        direction = 1 if end >= start else -1
        assert all(direction * (b - a) >= -tolerance for a, b in itertools.pairwise(rates))


@given(curricula())
def test_learning_rate_and_mixture_know_nothing_of_each_other(curriculum):
    other_data = Curriculum(
        [dataclasses.replace(stage, mixture={"z": 1}) for stage in curriculum.stages],
        curriculum.tokens_per_step,
        curriculum.sequence_length,
    )
    steps = range(curriculum.num_steps)
    assert [curriculum.learning_rate(step) for step in steps] == [other_data.learning_rate(step) for step in steps]


@given(curricula())
def test_plain_types_and_back(curriculum):
    plain = dataclasses.asdict(curriculum)
    assert set(plain) == {"stages", "tokens_per_step", "sequence_length"}
    assert Curriculum(**plain) == curriculum


def test_shares_are_normalised_and_leave_out_what_is_off():
    assert Stage("s", 1, 1.0, {"a": 3, "b": 0, "c": 1}).shares == {"a": 0.75, "c": 0.25}


def test_derived_numbers_cannot_go_stale():
    stage = Stage("s", "1K", 1e-3, WEB)
    with pytest.raises(dataclasses.FrozenInstanceError):
        stage.tokens = 5
    mixture = {"a": 1.0}
    stage = Stage("s", "1K", 1e-3, mixture)
    mixture["a"] = 7.0
    assert stage.mixture == {"a": 1.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "give every stage a name"),
        ({"tokens": 0}, "stage 's' has 0 tokens; give it some or remove the stage"),
        ({"tokens": "many"}, "stage 's': number of tokens is invalid: 'many'"),
        ({"tokens": 10**30}, "tokens are more than the 1,000,000,000,000,000,000 that a run can count; give fewer"),
        ({"tokens": "1e30"}, "'1e30' tokens are more than"),
        ({"lr": math.nan}, "stage 's': lr is nan; give one finite number"),
        ({"lr": -1e-3}, "lr is -0.001"),
        ({"lr": [1e-3]}, r"two of them as \[start, end\]"),
        ({"lr": [1e-3, 1e-4, 1e-5]}, "two of them"),
        ({"lr": [1e-3, math.inf]}, "finite"),
        ({"lr": "fast"}, "lr is 'fast'"),
        (
            {"decay": "polynomial"},
            "decay is invalid: 'polynomial'; choose one of linear, sqrt, cosine, exponential",
        ),
        ({"lr": [1e-3, 0.0], "decay": "exponential"}, "exponential decay cannot start or end at 0"),
        ({"lr": [0, 1e-3], "decay": "exponential"}, "exponential decay cannot start or end at 0"),
        ({"mixture": {}}, "has no mixture; name at least one source"),
        ({"mixture": {"web": 0}}, "all weights of the mixture are 0"),
        ({"mixture": {"web": -1, "b": 2}}, "weight of source 'web' is -1; give a finite number >= 0"),
        ({"mixture": {"web": math.nan}}, "weight of source 'web' is nan"),
        ({"mixture": {"a": 1e308, "b": 1e308}}, "add up to infinity"),
        ({"mixture": {"": 1}}, "source name ''"),
        ({"sequence_length": 0}, "sequence_length is 0"),
        ({"sequence_length": 4096.0}, "sequence_length is 4096.0"),
        ({"rope_theta": 0.0}, "rope_theta is 0.0"),
    ],
)
def test_stage_errors_name_cause_and_fix(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        Stage(**{"name": "s", "tokens": 100, "lr": 1e-3, "mixture": WEB} | changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": []}, "has no stages; give it at least one"),
        ({"stages": [Stage("a", 1, 1.0, WEB)] * 2}, "2 stages are named 'a'; give every stage its own name"),
        (
            {"tokens_per_step": 4_000_000},
            "not a multiple of the sequence_length 4096 of stage 'warmup'; use 3997696 or 4001792",
        ),
        ({"tokens_per_step": 4096 * 15}, "sequence_length 65536 of stage 'decay'; use 65536$"),
        ({"tokens_per_step": 0}, "tokens_per_step is 0"),
        ({"tokens_per_step": "x"}, "tokens_per_step: number of tokens is invalid: 'x'"),
        ({"sequence_length": -1}, "curriculum: sequence_length is -1"),
    ],
)
def test_curriculum_errors_name_cause_and_fix(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        paper_curriculum(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("step", [-1, 5_483_627])
def test_steps_outside_the_run(step):
    with pytest.raises(ValueError, match="there are 0 to 5483626"):
        paper_curriculum().learning_rate(step)


def test_baseline_has_the_learning_rate_of_fg_wsd_and_one_mixture():
    fg_wsd = paper_curriculum()
    baseline = warmup_stable_decay("23T", {"hq": 1, "mq": 1}, 4_194_304, 4096)
    assert [stage.mixture for stage in baseline.stages] == [{"hq": 1.0, "mq": 1.0}] * 3
    assert sum(stage.tokens for stage in baseline.stages) == 23 * 10**12
    for step in (0, 100, 23_841, 23_842, 3_000_000, 4_500_000, 4_600_000, 5_483_626):
        assert baseline.learning_rate(step) == pytest.approx(fg_wsd.learning_rate(step), rel=1e-5)


@pytest.mark.parametrize("shares", [(0.0, 0.1), (0.5, 0.5), (0.1, -0.1), (math.nan, 0.1)])
def test_baseline_refuses_shares_without_a_plateau(shares):
    with pytest.raises(ValueError, match="make their sum less than 1"):
        warmup_stable_decay("1B", WEB, 4096, 4096, warmup_share=shares[0], decay_share=shares[1])


def test_import_needs_neither_torch_nor_lightning():
    code = (
        "import sys, nbg_lightning.schedule.curriculum, nbg_lightning.data.order, nbg_lightning.schedule.plan\n"
        "assert not {'torch', 'lightning', 'matplotlib'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_learning_rates_may_be_numeric_texts():
    """YAML 1.1 reads 1e-4 as a text."""
    assert Stage("a", 100, "3e-4", {"web": 1}).lr == 3e-4
    assert Stage("a", 100, ["0", "1e-3"], {"web": 1}).lr == [0.0, 1e-3]
