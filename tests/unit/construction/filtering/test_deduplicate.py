import pickle
import random

import numpy as np
import pytest

from nbg_lightning.construction.filtering.deduplicate import (
    NearDuplicates,
    Signature,
    exact_duplicates,
    near_duplicates,
    similarity,
)

SETTINGS = NearDuplicates()


def make_texts(number, seed=0):
    chance = random.Random(seed)
    return [" ".join(f"w{chance.randint(0, 9999)}" for _ in range(300)) for _ in range(number)]


def signatures(texts, settings=SETTINGS):
    rows = Signature(settings).values(texts)
    return np.stack([np.frombuffer(row["signature"], "<u4") for row in rows])


def jaccard(a, b, size=5):
    shingles = [{tuple(words[i : i + size]) for i in range(len(words) - size + 1)} for words in (a.split(), b.split())]
    return len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])


def test_signatures_estimate_jaccard_similarity():
    (text,) = make_texts(1)
    words = text.split()
    for cut in (0, 20, 60, 150):  # 512 hashes estimate a share with a standard deviation of at most 0.022
        other = " ".join(words[cut:] + make_texts(1, 1)[0].split()[:cut])
        first, second = (row["signature"] for row in Signature(NearDuplicates(bands=64)).values([text, other]))
        assert similarity(first, second) == pytest.approx(jaccard(text, other), abs=0.08)


def test_exact_duplicates_keep_the_most_trusted_then_the_first():
    keys = np.array([b"a", b"b", b"a", b"b", b"c", b"a"])
    found = exact_duplicates(keys, np.array([0, 0, -1, 0, 0, -1.0]))
    assert found.kept.tolist() == [False, True, True, False, True, False]
    assert found.original.tolist() == [2, 1, 2, 1, 4, 2]
    assert exact_duplicates(np.zeros(0, "S4"), np.zeros(0)).kept.tolist() == []


def test_near_duplicates():
    texts = make_texts(40)
    near = [texts[3].replace(texts[3].split()[7], "changed", 1), texts[9] + " and an end", texts[3] + " more"]
    half = " ".join(texts[5].split()[:150] + texts[6].split()[150:])
    everything = [*texts, *near, half]
    rank = np.zeros(len(everything))
    found = near_duplicates(signatures(everything), rank, SETTINGS)
    assert np.flatnonzero(~found.kept).tolist() == [40, 41, 42]
    assert found.original[[40, 41, 42]].tolist() == [3, 9, 3]
    rank[40] = -1  # a more trusted source
    found = near_duplicates(signatures(everything), rank, SETTINGS)
    assert np.flatnonzero(~found.kept).tolist() == [3, 41, 42]
    assert found.original[[3, 42]].tolist() == [40, 40]


def test_only_candidates_are_looked_at():
    texts = make_texts(3)
    candidates = np.array([False, True, True, True])
    found = near_duplicates(signatures([texts[0], *texts[:1], *texts[1:]]), np.zeros(4), SETTINGS, candidates)
    assert found.kept.tolist() == [False, True, True, True]


def test_against_all_pairs():
    """Bands find what comparing every pair finds, at similarities well above the threshold."""
    chance = random.Random(1)
    texts = make_texts(30, 2)
    for _ in range(60):
        words = chance.choice(texts).split()
        for _ in range(chance.choice([0, 1, 2])):
            words[chance.randrange(len(words))] = "changed"
        texts.append(" ".join(words))
    chance.shuffle(texts)
    found = near_duplicates(signatures(texts), np.zeros(len(texts)), SETTINGS)
    expected = []
    for index, text in enumerate(texts):
        expected.append(all(jaccard(text, other) < 0.8 for other in texts[:index]))
    assert found.kept.tolist() == expected


def test_documents_without_words_and_short_ones():
    found = signatures(["", "!!!", "one word", "One, word", "two words"])
    assert (found[0] == found[1]).all()
    assert (found[2] == found[3]).all()
    assert (found[2] != found[4]).any()


def test_a_long_document_in_pieces_is_the_same(monkeypatch):
    from nbg_lightning.construction.filtering import deduplicate

    text = " ".join(make_texts(20))
    whole = signatures([text])
    assert (whole == signatures([text, "other"])[:1]).all()
    assert (pickle.loads(pickle.dumps(Signature(SETTINGS))).values([text])[0]["signature"]) == whole.tobytes()
    assert deduplicate._EMPTY not in whole


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match=r"near duplicates are invalid: threshold=0"):
        NearDuplicates(threshold=0)
