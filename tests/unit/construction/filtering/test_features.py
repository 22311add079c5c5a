import numpy as np
import pytest

from nbg_lightning.construction.filtering.features import FORM, HashedFeatures
from nbg_lightning.construction.filtering.hashing import hash_words, ngrams

TEXTS = ["the cat and the dog", "", "THE CAT", "x" * 50 + "\n\n  1234 !!!\n", "caf\u00e9 漢字"]


def test_by_hand():
    """Words 1 + log(count), pairs too, scaled to length 1."""
    features = HashedFeatures(bits=16)
    dense = features.matrix(TEXTS).toarray()
    words = hash_words([TEXTS[0].encode()])
    pairs, _ = ngrams(words, 2)
    expected = np.zeros(1 << 16)
    for value in words.hashes.tolist() + pairs.tolist():
        expected[value % (1 << 16)] += 1
    expected[expected > 0] = 1 + np.log(expected[expected > 0])
    np.testing.assert_allclose(dense[0, : 1 << 16], expected / np.linalg.norm(expected), rtol=1e-6)
    assert not dense[1, : 1 << 16].any()
    form = dict(zip(FORM, dense[3, 1 << 16 :].tolist(), strict=True))
    size = len(TEXTS[3])
    assert form["digits"] == pytest.approx(4 / size)
    assert form["marks"] == pytest.approx(3 / size)
    assert form["blank_lines"] == pytest.approx(2 / 4)  # one of them after the last newline
    assert form["indented_lines"] == pytest.approx(1 / 4)
    assert dense[4, (1 << 16) + FORM.index("not_ascii")] > 0


def test_a_row_does_not_depend_on_its_neighbours(monkeypatch):
    from nbg_lightning.construction.filtering import features as module

    features = HashedFeatures(bits=12)
    whole = features.matrix(TEXTS).toarray()
    for index, text in enumerate(TEXTS):
        np.testing.assert_array_equal(features.matrix([text]).toarray()[0], whole[index])
    monkeypatch.setattr(module, "CHUNK_BYTES", 20)
    np.testing.assert_array_equal(features.matrix(TEXTS).toarray(), whole)
    assert features.matrix([]).shape == (0, features.width)


def test_long_documents_are_judged_by_their_beginning():
    short, long = HashedFeatures(max_bytes=100).matrix(["word " * 20, "word " * 20 + "other " * 50]).toarray()
    np.testing.assert_array_equal(short, long)


def test_sizes_that_cannot_be():
    with pytest.raises(ValueError, match="features are invalid: bits=40"):
        HashedFeatures(bits=40)
