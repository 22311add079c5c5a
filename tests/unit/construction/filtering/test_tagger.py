import pickle
import subprocess
import sys

import numpy as np
import pytest

from nbg_lightning.construction.filtering.annotate import label_by_source
from nbg_lightning.construction.filtering.features import HashedFeatures
from nbg_lightning.construction.filtering.rubric import Dimension, Rubric
from nbg_lightning.construction.filtering.tagger import Annotated, Tagger, agreement, load_annotated, train_tagger

RUBRIC = Rubric((Dimension("wanted", "", "", "", weight=2), Dimension("fixed", "", "", "")))
SMALL = HashedFeatures(bits=12)


@pytest.fixture(scope="module")
def annotations(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("annotations")
    label_by_source(corpus, {"wanted": {"science": 9, "spam": 0}, "fixed": {"science": 4, "spam": 4}}, out, 300)
    return out


@pytest.fixture(scope="module")
def trained(corpus, annotations, tmp_path_factory):
    out = tmp_path_factory.mktemp("tagger") / "t"
    return out, train_tagger(load_annotated(corpus, annotations), out, RUBRIC, SMALL)


def test_learns_the_label(trained, texts):
    out, report = trained
    assert report["documents"] == 300
    assert 30 < report["held_out"] < 90
    own = report["dimensions"]["wanted"]
    assert own["auc"] > 0.95
    assert own["rank_correlation"] > 0.8
    assert "rank_correlation" not in report["dimensions"]["fixed"]  # it is not defined for a constant
    tagger = Tagger(out)
    scores = tagger.scores([texts["science"][0], texts["spam"][0], ""])
    assert scores[0, 0] > 6 > 3 > scores[1, 0]
    np.testing.assert_allclose(scores[:, 1], 4)
    np.testing.assert_allclose(scores[:, 2], (2 * scores[:, 0] + scores[:, 1]) / 3)
    assert ((scores >= 0) & (scores <= 9)).all()


def test_a_step_for_maps_and_workers(trained, texts):
    import datasets

    tagger = pickle.loads(pickle.dumps(Tagger(trained[0])))
    rows = [{"text": text, "id": str(index)} for index, text in enumerate(texts["spam"][:5])]
    mapped = datasets.Dataset.from_list(rows).map(tagger)
    expected = tagger.values([row["text"] for row in rows])
    assert set(mapped.column_names) == {"text", "id", *tagger.columns}
    for row, values in zip(mapped, expected, strict=True):
        assert all(row[name] == pytest.approx(value) for name, value in values.items())
        assert tagger({"text": row["text"]}) == {"text": row["text"], **values}


def test_the_same_seed_gives_the_same_tagger(corpus, annotations, trained, tmp_path):
    train_tagger(load_annotated(corpus, annotations), tmp_path / "again", RUBRIC, SMALL)
    assert Tagger(tmp_path / "again").content == Tagger(trained[0]).content


def test_the_same_in_another_process(trained, texts):
    code = (
        "import sys; from nbg_lightning.construction.filtering.tagger import Tagger;"
        "print(repr(Tagger(sys.argv[1]).scores([sys.argv[2]]).tolist()))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(trained[0]), texts["spam"][3]], capture_output=True, text=True
    )
    assert run.stdout.strip() == repr(Tagger(trained[0]).scores([texts["spam"][3]]).tolist()), run.stderr


def test_held_out_documents_are_not_trained_on(tmp_path):
    """Random labels cannot be predicted: a leak would show as a correlation."""
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(list("abcdefgh"), 12)) + f" {i}" for i in range(400)]
    data = Annotated([f"{i:032x}" for i in range(400)], texts, random.integers(0, 10, (400, 1)).astype(float), ("x",))
    report = train_tagger(data, tmp_path / "t", RUBRIC, SMALL, validation_share=0.4)
    assert abs(report["dimensions"]["x"].get("rank_correlation", 0.0)) < 0.25


def test_agreement_by_hand():
    found = agreement(np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4]))
    assert found["rank_correlation"] == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    assert found["mean_absolute_error"] == 0.5
    assert "auc" not in found
    assert agreement(np.array([0.0, 0, 9, 9]), np.array([1.0, 3, 2, 4]))["auc"] == 0.75


def test_errors(corpus, annotations, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no tagger.json in it; give a folder of"):
        Tagger(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no annotations.jsonl in it; give a folder of"):
        load_annotated(corpus, tmp_path)
    (tmp_path / "annotations.jsonl").write_text('{"key": "other", "scores": {"a": 1}}\n')
    with pytest.raises(ValueError, match=r"0 of its 1 documents are in .* a tagger needs at least 20"):
        load_annotated(corpus, tmp_path)
    with pytest.raises(ValueError, match=r"validation_share is invalid: 1; give more than 0 and less than 1"):
        train_tagger(load_annotated(corpus, annotations), tmp_path / "t", RUBRIC, SMALL, validation_share=1)
