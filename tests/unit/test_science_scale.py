"""The experiment on scale: 20 tokens a parameter, enough different problems, and the same stages at every size."""

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "science"))

from harness import Job
from quality_order import length, shape, stages, step_tokens
from scale import ARMS, EQUAL_TOKENS, EXPERIMENT, KIND, PARAMETERS
from worked_problems import document_tokens, draw_pools


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_size_has_twenty_tokens_a_parameter(name):
    settings = EXPERIMENT.budgets[name].settings
    assert settings["tokens"] % step_tokens(settings) == 0
    assert settings["tokens"] / PARAMETERS[name] == pytest.approx(20, rel=2e-3)
    assert float(name.split()[0]) * 1e6 == pytest.approx(PARAMETERS[name], rel=0.25)
    tables = {arm: stages({**settings, **own}) for arm, own in ARMS.items() if arm in EXPERIMENT.arms}
    assert {sum(stage.tokens for stage in table) for table in tables.values()} == {settings["tokens"]}
    clean = {
        arm: sum(stage.tokens * stage.mixture["clean"] for stage in table) / settings["tokens"]
        for arm, table in tables.items()
    }
    assert clean == {arm: pytest.approx(0.6, abs=5e-3) for arm in EXPERIMENT.arms}


def test_sizes_at_equal_tokens_differ_in_size_and_learning_rate_only():
    smallest = EXPERIMENT.budgets["0.1 M parameters"].settings
    places = EXPERIMENT.trends[3].places
    assert list(places) == ["0.1 M parameters", *reversed(EQUAL_TOKENS)]
    assert list(places.values()) == sorted(PARAMETERS.values())[1:]
    for name, size in EQUAL_TOKENS.items():
        settings = EXPERIMENT.budgets[name].settings
        assert {**settings, "size": smallest["size"], "rate": smallest["rate"]} == smallest
        own = EXPERIMENT.budgets[size].settings
        assert {**settings, "tokens": own["tokens"]} == own
    assert smallest["tokens"] == 2_481_920


@pytest.mark.parametrize(("trend", "tokens"), [(4, [2_481_920, 20_849_920]), (5, [2_481_920, 5_317_760, 20_849_920])])
def test_slopes_over_tokens_are_of_one_size_each(trend, tokens):
    places = EXPERIMENT.trends[trend].places
    of_each = [EXPERIMENT.budgets[name].settings for name in places]
    assert [settings["tokens"] for settings in of_each] == list(places.values()) == tokens
    assert all({**settings, "tokens": 0} == {**of_each[0], "tokens": 0} for settings in of_each)


def test_documents_of_more_moves_are_longer_and_all_different():
    pools = draw_pools(35_000, 35_000, 10, seed=1, steps=8)
    texts = [*pools.clean, *pools.damaged]
    assert {len(text) + 2 for text in texts} == {document_tokens(8)} == {35}
    assert len({text.partition("=")[0] for text in texts}) == len(texts) == 2000
    with pytest.raises(ValueError, match="take more steps"):
        draw_pools(35_000, 35_000, 10, seed=1, steps=3)


def test_a_run_gives_the_logarithm_of_its_bits(tmp_path):
    settings = {**KIND, "windows": 1, "tokens": 20 * length(KIND), "size": {"width": 32, "layers": 1}, "rate": 1e-3}
    job = Job("FG", 1, "small", {**settings, **ARMS["FG"]}, tmp_path / "runs" / "job")
    found = EXPERIMENT.run(job)
    assert set(found["metrics"]) == set(EXPERIMENT.metrics)
    assert found["metrics"]["log_bits"] == math.log10(found["metrics"]["bits"])
    core = shape(settings["size"], length(KIND))
    assert job.charges.total == pytest.approx(core.flops_per_token(length(KIND)) * settings["tokens"])
