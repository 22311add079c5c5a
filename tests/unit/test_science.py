"""Assumptions of the experiments in benchmarks/science: arms that differ in one thing, disjoint questions, intervals."""

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "science"))

from fg_wsd import ARMS, pool_shares, stages
from seeds import over_questions, over_seeds
from stages import draw_sums
from tables import pages, with_tables


def test_arms_of_fg_wsd_have_one_learning_rate_and_order_only_its_shares():
    tables = {arm: stages(arm, 1_000_000, 1000, 1e-3, hq=300, mq=500) for arm in ARMS}
    rates = [[(stage.tokens, stage.lr, stage.decay) for stage in table] for table in tables.values()]
    assert all(each == rates[0] for each in rates)
    shares = {arm: pool_shares(table) for arm, table in tables.items()}
    assert shares["order_only"] == pytest.approx(shares["fg_wsd"])
    assert shares["fg_wsd"]["hq"] == pytest.approx(
        0.5 * 300 / 800 + 0.5
    )  # by size in the first half, alone in the second
    assert shares["wsd"] == pytest.approx({"hq": 0.5, "mq": 0.5})
    assert shares["wsd_hq_decay"]["hq"] == pytest.approx(0.8 * 0.5 + 0.2)


def test_sums_are_in_one_split_and_of_their_length():
    for digits in (3, 8):
        splits = draw_sums({"test": 40, "sft": 60}, seed=1, digits=digits)
        test, sft = ({each.question for each in splits[name]} for name in ("test", "sft"))
        assert (len(test), len(sft), len(test & sft)) == (40, 60, 0)
        assert all(len(each.then) == digits - 1 for each in splits["sft"])
        assert all(-9 <= total <= 18 for each in splits["sft"] for total in each.totals[:-1])
    with pytest.raises(ValueError, match="5000"):
        draw_sums({"test": 100, "sft": 5000}, seed=1)
    assert draw_sums({"test": 5}, 1) == draw_sums({"test": 5}, 1) != draw_sums({"test": 5}, 2)


def test_intervals_over_seeds_and_questions():
    found = over_seeds([0.0, 0.0, 0.0], [1.0, 2.0, 3.0])
    half = 4.302653 * 1.0 / math.sqrt(3)  # t of two degrees of freedom, standard deviation 1
    assert found["by_seed"] == [1.0, 2.0, 3.0]
    assert found["interval_95"] == pytest.approx([2.0 - half, 2.0 + half])
    assert "interval_95" not in over_seeds([0.0], [1.0])
    found = over_questions([[0, 1, 0], [0, 0, 1]], [[1, 1, 0], [1, 0, 1]])
    assert found["difference"] == pytest.approx(1 / 3)
    assert (found["questions"]["items"], found["questions"]["wins"], found["questions"]["losses"]) == (6, 2, 0)


def test_pages_have_the_numbers_of_the_results():
    for page in pages():
        text = page.read_text("utf-8")
        assert with_tables(text) == text, f"{page.name}: run python benchmarks/science/tables.py"
