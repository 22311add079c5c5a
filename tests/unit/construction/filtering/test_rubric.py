import pytest

from nbg_lightning.construction.filtering.rubric import Dimension, Rubric, load_rubric


def test_our_own_has_twenty_dimensions_and_prefers_content():
    rubric = load_rubric()
    assert len(rubric.dimensions) == 20
    weights = {kind: [d.weight for d in rubric.dimensions if d.kind == kind] for kind in ("content", "format")}
    assert min(weights["content"]) > max(weights["format"])
    assert all(d.about and d.low and d.high for d in rubric.dimensions)
    assert Rubric.from_dict(rubric.to_dict()) == rubric


def test_quality_is_the_weighted_mean():
    rubric = Rubric((Dimension("depth", "", "", "", weight=2), Dimension("noise", "", "", "", "format", 1)))
    assert rubric.quality({"depth": 9, "noise": 0}) == pytest.approx(6)
    assert rubric.quality({"noise": 4, "unknown": 9}) == 4
    with pytest.raises(ValueError, match="none of unknown has a weight"):
        rubric.quality({"unknown": 9})


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("a: 1", "is invalid: no dimensions"),
        ("dimensions: {}", "rubric is invalid: dimensions none"),
        ("dimensions: {depth: {about: x}}", "missing 2 required positional arguments"),
        ("dimensions: {a b: {about: x, low: y, high: z}}", "dimension is invalid: 'a b'"),
        ("dimensions: {text: {about: x, low: y, high: z}}", "dimension is invalid: 'text'"),
        ("dimensions: {depth: {about: x, low: y, high: z, weight: -1}}", "weight=-1"),
        ("dimensions: {depth: {about: x, low: y, high: z, weight: 0}}", "all weights are 0"),
        ("dimensions: {depth: {about: x, low: y, high: z, kind: other}}", "kind='other'"),
        ("dimensions: [", "not YAML"),
    ],
)
def test_bad_rubrics(tmp_path, yaml, message):
    file = tmp_path / "rubric.yaml"
    file.write_text(yaml)
    with pytest.raises(ValueError, match=message) as caught:
        load_rubric(str(file))
    assert "\n" not in str(caught.value)


def test_no_file():
    with pytest.raises(FileNotFoundError, match=r"no config nowhere\.yaml"):
        load_rubric("nowhere.yaml")
