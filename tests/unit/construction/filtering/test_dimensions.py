"""Choice of rubric dimensions: predictive ones without redundancy."""

import math

import pytest

from nbg_lightning.construction.filtering.dimensions import choose_dimensions, rank_correlation

DOCUMENTS = {
    "right": [0, 2, 4, 6, 8, 9],
    "right again": [1, 2, 5, 6, 7, 9],  # the same order
    "layout": [9, 0, 8, 1, 7, 2],
    "coin": [5, 5, 1, 9, 9, 1],
}
RUNS = {
    "right": [1, 3, 5, 7, 8],
    "right again": [1, 3, 5, 8, 7],
    "layout": [2, 1, 5, 4, 9],
    "coin": [5, 4, 4, 5, 4.5],
}
REACHED = [0.1, 0.2, 0.5, 0.6, 0.9]


def test_of_two_that_say_the_same_the_more_predictive_one_is_kept():
    found = choose_dimensions(DOCUMENTS, RUNS, REACHED)
    assert found.kept == ("right", "layout")
    assert found.power["right"] == 1.0
    assert found.power["layout"] == pytest.approx(0.8)
    assert found.dropped["right again"] == "overlaps with right: +1.00 over documents"
    assert found.dropped["coin"].startswith("predicts too little")


def test_bounds_decide():
    assert choose_dimensions(DOCUMENTS, RUNS, REACHED, overlap=1.0).kept == ("right", "right again", "layout")
    assert choose_dimensions(DOCUMENTS, RUNS, REACHED, least=0.95).kept == ("right",)
    worse = choose_dimensions(DOCUMENTS, RUNS, [-value for value in REACHED], least=0.0)
    assert "right" in worse.dropped, "a dimension whose high scores are bad is none of quality"


def test_ranks_have_ties_and_constants():
    assert rank_correlation([1, 1, 2], [3, 3, 5]) == 1.0
    assert rank_correlation([1, 1, 2], [5, 3, 3]) == pytest.approx(-0.5)
    assert rank_correlation([4, 4, 4], [1, 2, 3]) == 0.0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"runs": {**RUNS, "new": REACHED}}, "dimension is invalid: 'new'"),
        ({"reached": REACHED[:3]}, "3 runs; give four or more"),
        ({"reached": [*REACHED[:4], math.nan]}, "reached is invalid: a number is not finite"),
        ({"runs": {**RUNS, "coin": RUNS["coin"][:4]}}, "runs of 'coin' are invalid: 4; give 5, as of the others"),
        (
            {"documents": {**DOCUMENTS, "coin": [math.inf] * 6}},
            "documents of 'coin' are invalid: a score is not finite",
        ),
        ({"overlap": 1.5}, "overlap is invalid: 1.5"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes, told):
    given = {"documents": DOCUMENTS, "runs": RUNS, "reached": REACHED, **changes}
    with pytest.raises(ValueError, match=told):
        choose_dimensions(**given)
