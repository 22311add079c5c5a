import pickle

import pytest

from nbg_lightning.construction.filtering.contamination import Contamination

ITEM = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."
OTHER = "A robe takes two bolts of blue fiber and half that much white fiber. How many bolts in total does it take?"


@pytest.fixture(scope="module")
def step():
    return Contamination.from_items({"gsm": [ITEM, "too short"], "robes": [OTHER]})


def test_finds_items_in_any_case_and_spacing(step):
    texts = [
        f"On page three: {ITEM} And so on.",
        ITEM.upper().replace(" ", "\n  ").replace(",", " -"),
        "Natalia sold clips to some of her friends in May.",
        f"{OTHER} {ITEM}",
        "",
    ]
    assert [row["contaminated"] for row in step.values(texts)] == ["gsm", "gsm", None, "robes", None]
    assert step({"text": ITEM, "id": 1}) == {"text": ITEM, "id": 1, "contaminated": "gsm"}


def test_thirteen_words_are_enough_and_twelve_are_not(step):
    words = ITEM.split()
    assert step.values([" ".join(words[2:15])])[0]["contaminated"] == "gsm"
    assert step.values([" ".join(words[2:14])])[0]["contaminated"] is None


def test_counts_and_identity(step):
    assert step.counts == {
        "gsm": {"count": 1},
        "gsm/too_short": {"count": 1, "first": "too short"},
        "robes": {"count": 1},
    }
    again = pickle.loads(pickle.dumps(step))
    assert again.identity() == step.identity()
    assert Contamination.from_items({"gsm": [ITEM]}).identity() != step.identity()


def test_no_benchmarks_find_nothing():
    assert Contamination.from_items({}).values([ITEM]) == [{"contaminated": None}]


def test_a_benchmark_without_long_items():
    with pytest.raises(ValueError, match="'tiny' is invalid: none of its 2 items has 13 words"):
        Contamination.from_items({"tiny": ["a", "b"]})
